//! Signatures for `ssh-keygen -Y verify`.
//!
//! Source: OpenSSH `PROTOCOL.sshsig`. Narrower: Ed25519, SHA-512, and the
//! text exactly as `ssh-keygen -Y sign` writes it.

use sha2::{Digest as _, Sha512};

use super::key::ALGORITHM;
use super::wire::{Reader, put_string, put_u32};
use super::{PublicKey, SignError, Signer, armor};

const LABEL: &str = "SSH SIGNATURE";
const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;
const HASH: &str = "sha512";
const KIND: &str = "SSHSIG";

/// The text of a signature over `message` for the purpose `namespace`.
///
/// # Errors
///
/// Those of the signer.
pub fn sign(signer: &Signer, namespace: &str, message: &[u8]) -> Result<String, SignError> {
    let signature = signer.sign(&signed_bytes(namespace, message))?;
    Ok(render(signer.public(), namespace, &signature))
}

/// Whose signature over `message` for `namespace` the `text` is.
///
/// # Errors
///
/// [`SignError::Malformed`], also for a text in another form than ours;
/// [`SignError::Namespace`], [`SignError::Wrong`].
pub fn verify(text: &str, namespace: &'static str, message: &[u8]) -> Result<PublicKey, SignError> {
    let malformed = |problem| SignError::Malformed {
        kind: KIND,
        problem,
    };
    let bytes = armor::read(LABEL, text).ok_or(malformed("it is not between its two lines"))?;
    let (key, found, signature) = parse(&bytes).ok_or(malformed(
        "its fields are not those of an Ed25519 signature",
    ))?;
    if found != namespace.as_bytes() {
        return Err(SignError::Namespace {
            expected: namespace,
            found: String::from_utf8_lossy(found).into_owned(),
        });
    }
    if render(&key, namespace, &signature) != text {
        return Err(malformed(
            "something was added to its text, or changed in it",
        ));
    }
    if key.accepts(&signed_bytes(namespace, message), &signature) {
        return Ok(key);
    }
    Err(SignError::Wrong {
        kind: KIND,
        key: key.fingerprint(),
    })
}

/// What an Ed25519 key signs, when it signs `message` for `namespace`.
#[must_use]
pub fn signed_bytes(namespace: &str, message: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for field in [namespace.as_bytes(), b"", HASH.as_bytes()] {
        put_string(&mut bytes, field);
    }
    put_string(&mut bytes, &Sha512::digest(message));
    bytes
}

/// The text of the signature that `key` made over [`signed_bytes`].
#[must_use]
pub fn render(key: &PublicKey, namespace: &str, signature: &[u8; 64]) -> String {
    let mut inner = Vec::new();
    put_string(&mut inner, ALGORITHM.as_bytes());
    put_string(&mut inner, signature);
    let mut bytes = MAGIC.to_vec();
    put_u32(&mut bytes, VERSION);
    let blob = key.blob();
    for field in [&blob, namespace.as_bytes(), b"", HASH.as_bytes(), &inner] {
        put_string(&mut bytes, field);
    }
    armor::write(LABEL, &bytes, 70)
}

fn parse(bytes: &[u8]) -> Option<(PublicKey, &[u8], [u8; 64])> {
    let mut reader = Reader(bytes.strip_prefix(MAGIC)?);
    if reader.u32()? != VERSION {
        return None;
    }
    let key = PublicKey::from_blob(reader.string()?)?;
    let namespace = reader.string()?;
    let (_reserved, hash) = (reader.string()?, reader.string()?);
    let mut inner = Reader(reader.string()?);
    let algorithm = inner.string()?;
    let signature = inner.string()?.try_into().ok()?;
    let known = hash == HASH.as_bytes() && algorithm == ALGORITHM.as_bytes();
    (known && reader.is_empty() && inner.is_empty()).then_some((key, namespace, signature))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::SecretKey;

    fn signer() -> Signer {
        Signer::File(SecretKey::from_seed(&[3; 32]))
    }

    #[test]
    fn a_signature_tells_who_signed() {
        let text = sign(&signer(), "test", b"message").expect("signed");
        let key = verify(&text, "test", b"message").expect("accepted");
        assert_eq!(&key, signer().public());
    }

    #[test]
    fn any_changed_byte_of_a_signature_is_noticed() {
        let text = sign(&signer(), "test", b"message").expect("signed");
        for at in 0..text.len() {
            for bit in [0x01, 0x04, 0x20] {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= bit;
                let Ok(changed) = String::from_utf8(bytes) else {
                    continue;
                };
                let verdict = verify(&changed, "test", b"message");
                assert!(verdict.is_err(), "bit {bit} of byte {at}");
            }
        }
        for changed in [
            format!("{text}\n"),
            format!(" {text}"),
            text.replace('\n', "\r\n"),
        ] {
            assert!(verify(&changed, "test", b"message").is_err());
        }
    }

    #[test]
    fn a_signature_for_something_else_says_so() {
        let text = sign(&signer(), "other", b"message").expect("signed");
        let error = verify(&text, "test", b"message").expect_err("refused");
        assert_eq!(
            error.to_string(),
            "the signature is for `other`, not for `test`"
        );
        let text = sign(&signer(), "test", b"message").expect("signed");
        let error = verify(&text, "test", b"massage").expect_err("refused");
        assert_eq!(error.slug(), "signature-wrong");
    }
}
