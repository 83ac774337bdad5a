//! Signatures for `minisign -V`.
//!
//! Source: the minisign page, sections "Public key format" and "Signature
//! format". Narrower: prehashed signatures (`ED`) only, and the text exactly
//! as it is written here. The key id, which minisign draws by chance, is
//! derived from the key, so that one key has one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b512, Digest as _};

use super::{PublicKey, SignError, Signer};
use crate::digest::Digest;

const KIND: &str = "minisign";
/// `Ed`: an Ed25519 public key.
const KEY_ALGORITHM: &[u8] = b"Ed";
/// `ED`: over the BLAKE2b-512 digest of the message.
const PREHASHED: &[u8] = b"ED";
const COMMENT: &str = "untrusted comment: ";
const TRUSTED: &str = "trusted comment: ";

/// Eight bytes that tell keys apart for people.
fn key_id(key: &PublicKey) -> [u8; 8] {
    let digest = Digest::of(key.bytes());
    let mut id = [0; 8];
    id.copy_from_slice(&digest.bytes()[..8]);
    id
}

/// The id as minisign shows it: a number, little endian.
fn key_name(key: &PublicKey) -> String {
    format!("{:016X}", u64::from_le_bytes(key_id(key)))
}

/// The file that `minisign -V -p` reads.
#[must_use]
pub fn public_key_file(key: &PublicKey) -> String {
    let bytes = [KEY_ALGORITHM, &key_id(key), key.bytes()].concat();
    let name = key_name(key);
    format!(
        "{COMMENT}minisign public key {name}\n{}\n",
        STANDARD.encode(bytes)
    )
}

/// The key in the second line of such a file, with an id of anybody's choice.
pub(super) fn public_key(line: &str) -> Option<PublicKey> {
    let bytes = STANDARD.decode(line).ok()?;
    let key = bytes.strip_prefix(KEY_ALGORITHM)?.get(8..)?;
    PublicKey::from_bytes(key.try_into().ok()?)
}

/// The text of a signature over `message`. `comment` is signed too: one line.
///
/// # Errors
///
/// Those of the signer.
pub fn sign(signer: &Signer, message: &[u8], comment: &str) -> Result<String, SignError> {
    debug_assert!(!comment.contains('\n'), "a trusted comment is one line");
    let signature = signer.sign(&Blake2b512::digest(message))?;
    let seal = signer.sign(&sealed(&signature, comment))?;
    Ok(render(signer.public(), &signature, comment, &seal))
}

/// Whether `text` is the signature of `key` over `message` with `comment`.
///
/// # Errors
///
/// [`SignError::Malformed`], also for a text in another form than ours or
/// with another comment; [`SignError::OtherKey`], [`SignError::Wrong`].
pub fn verify(text: &str, key: &PublicKey, message: &[u8], comment: &str) -> Result<(), SignError> {
    let malformed = |problem| SignError::Malformed {
        kind: KIND,
        problem,
    };
    let (id, signature, seal) = parse(text).ok_or(malformed("it is not of four lines that fit"))?;
    if id != key_id(key) {
        return Err(SignError::OtherKey {
            found: format!("minisign key {:016X}", u64::from_le_bytes(id)),
        });
    }
    if render(key, &signature, comment, &seal) != text {
        return Err(malformed(
            "something was added to its text, or changed in it",
        ));
    }
    let fits = key.accepts(&Blake2b512::digest(message), &signature)
        && key.accepts(&sealed(&signature, comment), &seal);
    if fits {
        return Ok(());
    }
    Err(SignError::Wrong {
        kind: KIND,
        key: key.fingerprint(),
    })
}

/// What the second signature covers.
fn sealed(signature: &[u8; 64], comment: &str) -> Vec<u8> {
    [signature.as_slice(), comment.as_bytes()].concat()
}

fn render(key: &PublicKey, signature: &[u8; 64], comment: &str, seal: &[u8; 64]) -> String {
    let first = [PREHASHED, &key_id(key), signature].concat();
    format!(
        "{COMMENT}signature by minisign key {}\n{}\n{TRUSTED}{comment}\n{}\n",
        key_name(key),
        STANDARD.encode(first),
        STANDARD.encode(seal),
    )
}

fn parse(text: &str) -> Option<([u8; 8], [u8; 64], [u8; 64])> {
    let mut lines = text.lines();
    let (_comment, first) = (lines.next()?, lines.next()?);
    let (_trusted, seal) = (lines.next()?, lines.next()?);
    let first = STANDARD.decode(first).ok()?;
    let (id, signature) = first.strip_prefix(PREHASHED)?.split_at_checked(8)?;
    let seal = STANDARD.decode(seal).ok()?;
    Some((
        id.try_into().ok()?,
        signature.try_into().ok()?,
        seal.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::SecretKey;

    #[test]
    fn any_changed_byte_of_a_signature_is_noticed() {
        let signer = Signer::File(SecretKey::from_seed(&[5; 32]));
        let key = signer.public();
        let text = sign(&signer, b"message", "release wiki 1.0").expect("signed");
        verify(&text, key, b"message", "release wiki 1.0").expect("accepted");
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else {
                continue;
            };
            let verdict = verify(&changed, key, b"message", "release wiki 1.0");
            assert!(verdict.is_err(), "byte {at}");
        }
        assert!(verify(&format!("{text}x"), key, b"message", "release wiki 1.0").is_err());
        assert!(verify(&text, key, b"message", "release wiki 1.1").is_err());
        assert!(verify(&text, key, b"other", "release wiki 1.0").is_err());
        let other = SecretKey::from_seed(&[6; 32]);
        let error = verify(&text, other.public(), b"message", "release wiki 1.0");
        assert_eq!(error.expect_err("refused").slug(), "signature-other-key");
    }
}
