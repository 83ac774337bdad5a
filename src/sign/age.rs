//! Encryption to an appliance, in the format of age.
//!
//! Source: the specification `age-encryption.org/v1`: one X25519 recipient
//! each, STREAM with ChaCha20-Poly1305 in chunks of 64 KiB. Chance is given.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bech32::Bech32;
use bech32::primitives::decode::CheckedHrpstring;
use chacha20poly1305::aead::Aead as _;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};

/// The first line of every such file.
pub const VERSION: &str = "age-encryption.org/v1";
const PREFIX: &str = "age";
const CHUNK: usize = 64 << 10;

/// What something is encrypted to: `age1...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

impl Recipient {
    /// Reads `age1...`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parsed = CheckedHrpstring::new::<Bech32>(text.trim()).ok()?;
        if parsed.hrp().to_lowercase() != PREFIX {
            return None;
        }
        let bytes: Vec<u8> = parsed.byte_iter().collect();
        bytes.try_into().ok().map(Self)
    }
}

/// Random bytes for one file.
pub const CHANCE: usize = 64;

/// The file that only `recipient` reads. `chance` must never be used twice.
///
/// # Panics
///
/// Never: the lengths are those of the format.
#[must_use]
pub fn encrypt(recipient: &Recipient, plain: &[u8], chance: &[u8; CHANCE]) -> Vec<u8> {
    let (file_key, rest) = chance.split_at(16);
    let (seed, nonce) = rest.split_at(32);
    let seed: [u8; 32] = seed.try_into().expect("32 bytes");
    let ephemeral = StaticSecret::from(seed);
    let share = PublicKey::from(&ephemeral).to_bytes();
    let shared = ephemeral.diffie_hellman(&PublicKey::from(recipient.0));
    let salt = [share, recipient.0].concat();
    let wrap = derive(shared.as_bytes(), &salt, b"age-encryption.org/v1/X25519");
    let body = seal(&wrap, [0; 12], file_key);
    let mut file = format!(
        "{VERSION}\n-> X25519 {}\n{}\n---",
        STANDARD_NO_PAD.encode(share),
        STANDARD_NO_PAD.encode(body),
    )
    .into_bytes();
    let key = derive(file_key, b"", b"header");
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&key).expect("any length");
    mac.update(&file);
    let mac = STANDARD_NO_PAD.encode(mac.finalize().into_bytes());
    file.extend_from_slice(format!(" {mac}\n").as_bytes());
    file.extend_from_slice(nonce);
    let key = derive(file_key, nonce, b"payload");
    let mut chunks: Vec<&[u8]> = plain.chunks(CHUNK).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let last = chunks.len() - 1;
    for (number, chunk) in chunks.into_iter().enumerate() {
        let mut nonce = [0; 12];
        nonce[3..11].copy_from_slice(&(number as u64).to_be_bytes());
        nonce[11] = u8::from(number == last);
        file.extend_from_slice(&seal(&key, nonce, chunk));
    }
    file
}

fn derive(secret: &[u8], salt: &[u8], info: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(Some(salt), secret)
        .expand(info, &mut key)
        .expect("one block");
    key
}

fn seal(key: &[u8; 32], nonce: [u8; 12], plain: &[u8]) -> Vec<u8> {
    let cipher = ChaCha20Poly1305::new(key.into());
    cipher
        .encrypt(&Nonce::from(nonce), plain)
        .expect("far below the cipher's limit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_are_checked() {
        let good = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
        assert!(Recipient::parse(good).is_some());
        for bad in ["", "age1", &good[..40], &good.replace('q', "p"), "npub1x"] {
            assert_eq!(Recipient::parse(bad), None, "{bad}");
        }
    }
}
