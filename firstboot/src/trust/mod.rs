//! Who may say what this machine is: keys and signatures.
//!
//! In: a file, its signature, the keys that count. Out: which key signed it,
//! or why none did.
//! Never here: files, and which keys count for what.
//! Checked by: signatures of ssh-keygen and minisign, every one of their bits
//! flipped.
//!
//! Only Ed25519. Two forms: SSHSIG (`ssh-keygen -Y sign`), which names what a
//! signature is for, and minisign, which does not: there the file's own first
//! lines have to.

mod blake2b;
mod minisign;
mod ssh;

use std::fmt;

use ed25519_dalek::{Signature, VerifyingKey};

/// What `ssh-keygen -Y sign -n` is told for a `site.toml`.
pub const SITE: &str = "consign-config";
/// For a bundle's manifest.
pub const BUNDLE: &str = "consign-bundle";
/// For a vendor's `policy.toml`.
pub const POLICY: &str = "consign-policy";
/// For a program or a manifest of a role.
pub const HOOK: &str = "consign-hook";
/// A signature file is never longer.
pub const MAX_SIGNATURE: usize = 16 << 10;

/// A public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    bytes: [u8; 32],
    /// What minisign calls a key's number; keys of SSH have none.
    id: Option<[u8; 8]>,
}

/// Why a signature does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureError {
    /// It is not a signature in a form that is known.
    Form,
    /// It is for something else: an SSH signature's namespace.
    Purpose,
    /// By a key that does not count here.
    UnknownKey,
    /// The file is not the one that was signed.
    Wrong,
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => {
                "the signature is not one of `ssh-keygen -Y sign` or minisign, by an Ed25519 key"
            }
            Self::Purpose => "the signature was made for another purpose",
            Self::UnknownKey => "the signature is by a key that this appliance does not know",
            Self::Wrong => "the file is not the one that was signed",
        })
    }
}

impl Key {
    /// A line of OpenSSH (`ssh-ed25519 AAAA...`) or a key of minisign, with
    /// or without its comment line.
    pub fn parse(text: &str) -> Option<Self> {
        ssh::parse_key(text).or_else(|| minisign::parse_key(text))
    }

    /// Every key in a file, one a line; comments and empty lines are left out.
    /// `None` when a line is something else.
    pub fn parse_all(text: &str) -> Option<Vec<Self>> {
        let is_key = |line: &&str| {
            !line.is_empty() && !line.starts_with('#') && !line.starts_with("untrusted comment:")
        };
        text.lines()
            .map(str::trim)
            .filter(is_key)
            .map(Self::parse)
            .collect()
    }

    /// The key in one line, as [`parse`](Self::parse) takes it.
    pub fn line(&self) -> String {
        match self.id {
            Some(id) => minisign::key_line(id, &self.bytes),
            None => ssh::key_line(&self.bytes),
        }
    }

    /// `SHA256:...` as ssh shows it, or minisign's number.
    pub fn fingerprint(&self) -> String {
        match self.id {
            Some(id) => format!("minisign {:016X}", u64::from_le_bytes(id)),
            None => ssh::fingerprint(&self.bytes),
        }
    }

    fn checks(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.bytes).is_ok_and(|key| {
            key.verify_strict(message, &Signature::from_bytes(signature))
                .is_ok()
        })
    }
}

/// Which of `keys` signed `message` for `purpose`.
///
/// # Errors
///
/// [`SignatureError`].
pub fn verify(
    message: &[u8],
    signature: &[u8],
    purpose: &str,
    keys: &[Key],
) -> Result<Key, SignatureError> {
    let text = std::str::from_utf8(signature).map_err(|_| SignatureError::Form)?;
    if text.len() > MAX_SIGNATURE {
        return Err(SignatureError::Form);
    }
    if ssh::is_signature(text) {
        ssh::verify(message, text, purpose, keys)
    } else {
        minisign::verify(message, text, keys)
    }
}

/// The key that an SSH signature carries, whose signature it then is.
///
/// # Errors
///
/// [`SignatureError`]; minisign's signatures carry none.
pub fn verify_carried(
    message: &[u8],
    signature: &[u8],
    purpose: &str,
) -> Result<Key, SignatureError> {
    let text = std::str::from_utf8(signature).map_err(|_| SignatureError::Form)?;
    if text.len() > MAX_SIGNATURE {
        return Err(SignatureError::Form);
    }
    if !ssh::is_signature(text) {
        return Err(SignatureError::UnknownKey);
    }
    let key = ssh::carried_key(text)?;
    ssh::verify(message, text, purpose, &[key])
}

#[cfg(test)]
#[path = "tests.rs"]
pub mod testing;
