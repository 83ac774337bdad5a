//! Files that age encrypted to this machine.
//!
//! In: the file and the machine's identity. Out: the plain bytes, in memory.
//! Never here: files, passphrases, other people's kinds of recipients, and a
//! message that says anything of what was in the file.
//! Checked by: age's public vector, files of the `age` program, every bit of
//! them flipped.
//!
//! Source: the specification `age-encryption.org/v1`: X25519 recipients,
//! STREAM with ChaCha20-Poly1305 in chunks of 64 KiB.

mod bech32;
mod hkdf;

use std::fmt;

use chacha20poly1305::aead::{Aead as _, KeyInit as _};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use consign_schema::Secret;
use curve25519_dalek::MontgomeryPoint;

use crate::base64;

const VERSION: &str = "age-encryption.org/v1";
const WRAP: &[u8] = b"age-encryption.org/v1/X25519";
const IDENTITY: &str = "AGE-SECRET-KEY-";
const RECIPIENT: &str = "age";
const CHUNK: usize = 64 << 10;
const TAG: usize = 16;
/// Stanzas that are looked at.
const MAX_STANZAS: usize = 64;

/// Why a file cannot be read. Nothing of it is in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgeError {
    /// It is not a file of age.
    Form,
    /// It is encrypted to somebody else.
    NotForUs,
    /// It was changed after it had been encrypted, or cut.
    Damaged,
}

impl fmt::Display for AgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "it is not a file of age",
            Self::NotForUs => "it is not encrypted to this machine",
            Self::Damaged => "it is damaged",
        })
    }
}

/// The machine's secret key.
#[derive(Debug)]
pub struct Identity(Secret);

impl Identity {
    /// From 32 random bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Secret::new(
            bech32::encode(&IDENTITY.to_ascii_lowercase(), bytes).to_ascii_uppercase(),
        ))
    }

    /// From its text, `AGE-SECRET-KEY-1...`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let bytes = bech32::decode(IDENTITY, text)?;
        (bytes.len() == 32).then(|| Self(Secret::new(text.to_owned())))
    }

    /// The text, for a file that only root reads.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    fn scalar(&self) -> [u8; 32] {
        let bytes = bech32::decode(IDENTITY, self.0.expose()).unwrap_or_default();
        *bytes.as_array().expect("checked when it was made")
    }

    /// The public key, as bytes.
    fn public(&self) -> [u8; 32] {
        MontgomeryPoint::mul_base_clamped(self.scalar()).to_bytes()
    }

    /// What others encrypt to, `age1...`.
    pub fn recipient(&self) -> String {
        bech32::encode(RECIPIENT, &self.public())
    }
}

/// The plain bytes of an encrypted file.
///
/// # Errors
///
/// [`AgeError`].
pub fn decrypt(file: &[u8], identity: &Identity) -> Result<Vec<u8>, AgeError> {
    let header = Header::parse(file).ok_or(AgeError::Form)?;
    let key = header
        .stanzas
        .iter()
        .find_map(|(share, body)| unwrap(share, body, identity))
        .ok_or(AgeError::NotForUs)?;
    let mac = hkdf::hmac(&hkdf::hkdf(&key, b"", b"header"), &[header.signed]);
    // Every byte is compared, so that time says nothing.
    let differ = mac
        .iter()
        .zip(&header.mac)
        .fold(0, |all, (one, two)| all | (one ^ two));
    if differ != 0 {
        return Err(AgeError::Damaged);
    }
    let (nonce, payload) = header
        .payload
        .split_at_checked(16)
        .ok_or(AgeError::Damaged)?;
    open_stream(&hkdf::hkdf(&key, nonce, b"payload"), payload).ok_or(AgeError::Damaged)
}

/// The part before the payload.
struct Header<'f> {
    /// X25519 stanzas: the ephemeral share and the wrapped key.
    stanzas: Vec<([u8; 32], Vec<u8>)>,
    /// What the code is over: up to and with `---`.
    signed: &'f [u8],
    mac: [u8; 32],
    payload: &'f [u8],
}

impl<'f> Header<'f> {
    fn parse(file: &'f [u8]) -> Option<Self> {
        let mut at = 0;
        let mut line = || {
            let rest = file.get(at..)?;
            let end = rest.iter().position(|byte| *byte == b'\n')?;
            let start = at;
            at += end + 1;
            Some((start, std::str::from_utf8(rest.get(..end)?).ok()?))
        };
        if line()?.1 != VERSION {
            return None;
        }
        let mut stanzas = Vec::new();
        for _ in 0..=MAX_STANZAS {
            let (start, text) = line()?;
            if let Some(mac) = text.strip_prefix("--- ") {
                let mac = *base64::decode_bare(mac)?.as_array()?;
                let signed = file.get(..start + 3)?;
                return Some(Self {
                    stanzas,
                    signed,
                    mac,
                    payload: file.get(at..)?,
                });
            }
            let words: Vec<&str> = text.strip_prefix("-> ")?.split(' ').collect();
            let mut body = String::new();
            // Whole lines of 64 characters, then a shorter one.
            loop {
                let (_, text) = line()?;
                body.push_str(text);
                if text.len() > 64 || body.len() > 4096 {
                    return None;
                }
                if text.len() < 64 {
                    break;
                }
            }
            if let ["X25519", share] = words.as_slice() {
                let share = *base64::decode_bare(share)?.as_array()?;
                stanzas.push((share, base64::decode_bare(&body)?));
            }
        }
        None
    }
}

/// The file's key out of one stanza, if it is for this identity.
fn unwrap(share: &[u8; 32], body: &[u8], identity: &Identity) -> Option<[u8; 16]> {
    let shared = MontgomeryPoint(*share).mul_clamped(identity.scalar());
    let shared = shared.to_bytes();
    if shared == [0; 32] || body.len() != 32 {
        return None;
    }
    let salt = [share.as_slice(), &identity.public()].concat();
    let wrap = hkdf::hkdf(&shared, &salt, WRAP);
    let cipher = ChaCha20Poly1305::new_from_slice(&wrap).ok()?;
    let key = cipher.decrypt(&Nonce::from([0; 12]), body).ok()?;
    key.as_array().copied()
}

/// Opens chunk after chunk; the last one says that it is the last.
fn open_stream(key: &[u8; 32], payload: &[u8]) -> Option<Vec<u8>> {
    let cipher = ChaCha20Poly1305::new_from_slice(key).ok()?;
    let mut plain = Vec::with_capacity(payload.len());
    let mut chunks = payload.chunks(CHUNK + TAG).peekable();
    let mut number = 0_u64;
    chunks.peek()?;
    while let Some(chunk) = chunks.next() {
        let is_last = chunks.peek().is_none();
        let mut nonce = [0; 12];
        // Eleven bytes of counter, most significant first.
        nonce[3..11].copy_from_slice(&number.to_be_bytes());
        nonce[11] = u8::from(is_last);
        let opened = cipher.decrypt(&Nonce::from(nonce), chunk).ok()?;
        // Only a file without content ends in an empty chunk.
        if opened.is_empty() && number > 0 {
            return None;
        }
        plain.extend_from_slice(&opened);
        number += 1;
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::disallowed_types,
        clippy::disallowed_methods,
        reason = "tests run other people's programs, and CI must have them"
    )]

    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    const VECTOR: &str =
        "AGE-SECRET-KEY-1XMWWC06LY3EE5RYTXM9MFLAZ2U56JJJ36S0MYPDRWSVLUL66MV4QX3S7F6";

    #[test]
    fn the_public_vector_unwraps_to_its_key() {
        let identity = Identity::parse(VECTOR).expect("an identity");
        let share = base64::decode_bare("TEiF0ypqr+bpvcqXNyCVJpL7OuwPdVwPL7KQEbFDOCc");
        let body = base64::decode_bare("EmECAEcKN+n/Vs9SbWiV+Hu0r+E8R77DdWYyd83nw7U");
        let share = *share.expect("base64").as_array().expect("32 bytes");
        let body = body.expect("base64");
        let key = unwrap(&share, &body, &identity);
        assert_eq!(key, Some(*b"YELLOW SUBMARINE"));
        let scalar = identity.scalar();
        assert_eq!(Identity::from_bytes(&scalar).expose(), VECTOR);
        assert_eq!(
            Identity::parse(&VECTOR.replace("XMW", "XMQ")).map(|_| ()),
            None
        );
        assert!(!format!("{identity:?}").contains("XMWW"));
    }

    /// What the `age` program makes of `plain`; nothing, said loudly, without it.
    fn by_age(recipients: &[&str], plain: &[u8]) -> Option<Vec<u8>> {
        let recipients = recipients.iter().flat_map(|it| ["-r", it]);
        let spawned = Command::new("age")
            .args(recipients)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = spawned else {
            assert!(std::env::var_os("CI").is_none(), "age is missing");
            eprintln!("SKIPPED: age is missing");
            return None;
        };
        let mut stdin = child.stdin.take().expect("piped");
        let plain = plain.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&plain));
        let output = child.wait_with_output().expect("it ends");
        writer.join().expect("written").expect("written");
        assert!(output.status.success());
        Some(output.stdout)
    }

    #[test]
    fn files_of_age_are_read() {
        let identity = Identity::from_bytes(&[7; 32]);
        let other = Identity::from_bytes(&[8; 32]);
        let both = [other.recipient(), identity.recipient()];
        let both = [both[0].as_str(), &both[1]];
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let plain: Vec<u8> = (0..length).map(|at| at.to_le_bytes()[0]).collect();
            let Some(file) = by_age(&both, &plain) else {
                return;
            };
            assert_eq!(decrypt(&file, &identity), Ok(plain), "{length}");
        }
    }

    #[test]
    fn nothing_else_is_read() {
        let identity = Identity::from_bytes(&[7; 32]);
        let Some(file) = by_age(&[&identity.recipient()], b"a = \"CANARY\"\n") else {
            return;
        };
        let other = Identity::from_bytes(&[8; 32]);
        assert_eq!(decrypt(&file, &other), Err(AgeError::NotForUs));
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            let error = decrypt(&damaged, &identity).expect_err("damaged");
            assert!(!error.to_string().contains("CANARY"));
            assert!(decrypt(&file[..at], &identity).is_err(), "cut at {at}");
        }
        assert!(decrypt(&[file.as_slice(), b"x"].concat(), &identity).is_err());
    }
}
