//! The envelope around the provenance.
//!
//! Source: secure-systems-lab/dsse, `envelope.md` and `protocol.md`, version
//! 1.0.2. Narrower: the JSON exactly as it is written here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// What an in-toto statement is called.
pub(super) const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Fingerprint of the key, and what it signed.
pub(super) type Signature = (String, [u8; 64]);

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signed>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    keyid: String,
    sig: String,
}

/// The pre-authentication encoding: what a signature is over.
pub(super) fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "DSSEv1 {} {PAYLOAD_TYPE} {} ",
        PAYLOAD_TYPE.len(),
        payload.len()
    );
    [head.as_bytes(), payload].concat()
}

/// The envelope's text.
pub(super) fn render(payload: &[u8], signatures: &[Signature]) -> String {
    let envelope = Envelope {
        payload: STANDARD.encode(payload),
        payload_type: PAYLOAD_TYPE.into(),
        signatures: signatures
            .iter()
            .map(|(keyid, sig)| Signed {
                keyid: keyid.clone(),
                sig: STANDARD.encode(sig),
            })
            .collect(),
    };
    let text = serde_json::to_string(&envelope).expect("strings are JSON");
    format!("{text}\n")
}

/// The signatures in the envelope of `payload`; `None` when the text is not
/// exactly what [`render`] writes for them.
pub(super) fn parse(text: &str, payload: &[u8]) -> Option<Vec<Signature>> {
    let envelope: Envelope = serde_json::from_str(text).ok()?;
    let signatures: Option<Vec<Signature>> = envelope
        .signatures
        .into_iter()
        .map(|one| {
            let bytes = STANDARD.decode(one.sig).ok()?;
            Some((one.keyid, bytes.try_into().ok()?))
        })
        .collect();
    signatures.filter(|signatures| render(payload, signatures) == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_comes_back_from_its_text() {
        let signatures = vec![
            ("SHA256:a".to_owned(), [1; 64]),
            ("SHA256:b".to_owned(), [2; 64]),
        ];
        let text = render(b"{}", &signatures);
        assert_eq!(parse(&text, b"{}"), Some(signatures));
        assert_eq!(parse(&text, b"{ }"), None);
        assert_eq!(parse(&format!("{text} "), b"{}"), None);
    }

    #[test]
    fn what_is_signed_is_the_protocol_s_example() {
        // protocol.md: PAE("http://example.com/HelloWorld", "hello world"),
        // here with the type that is ours.
        assert_eq!(
            signed_bytes(b"hello world"),
            b"DSSEv1 28 application/vnd.in-toto+json 11 hello world"
        );
    }
}
