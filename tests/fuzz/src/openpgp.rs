//! A certificate and a signature, as a stranger's release may have them.

use consign::layer::source::deb::Certificate;

/// What the seed's signature is over.
const MESSAGE: &[u8] = b"message\n";

/// Judges an input: the length of a certificate in two bytes, the certificate,
/// a signature. Whether it is sound, too.
pub fn judge(input: &[u8]) -> bool {
    let Some((length, rest)) = input.split_first_chunk() else {
        return false;
    };
    let length = usize::from(u16::from_be_bytes(*length));
    let Some((certificate, signature)) = rest.split_at_checked(length) else {
        return false;
    };
    let Ok(certificate) = Certificate::parse(certificate) else {
        return false;
    };
    let _keyring = (certificate.fingerprint(), certificate.keyring());
    if let Ok(text) = std::str::from_utf8(signature) {
        let _verdict = certificate.judge(text, MESSAGE, None);
    }
    let text = certificate.canonical(signature, MESSAGE);
    text.is_ok_and(|text| certificate.judge(&text, MESSAGE, None).is_ok())
}
