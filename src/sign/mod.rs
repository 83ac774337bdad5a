//! Keys and signatures: one Ed25519 key, and the containers that other
//! people's tools verify.
//!
//! In: a message, a key of OpenSSH, minisign or PEM form. Out: signatures as
//! SSHSIG, minisign and raw bytes, and verdicts over them. Never here: what
//! is signed and what it means (the message's own first line says so);
//! chance (a new key's seed is given); secrets in errors, arguments or
//! `Debug`.
//! Checked by: `ssh-keygen -Y verify`, `minisign -V`, `openssl pkeyutl`
//! (`tests/it/release/signatures.rs`), each of which also rejects damage.
//!
//! | file | does |
//! |---|---|
//! | `key` | public and secret keys, in the forms that people have |
//! | `wire` | the byte strings of the SSH protocols |
//! | `armor` | text around base64 |
//! | `sshsig` | signatures for `ssh-keygen -Y verify` |
//! | `minisign` | signatures for `minisign -V` |
//! | `vendor` | whether a vendor's file is signed as the appliance wants it |
//! | `agent` | signatures by a key that an SSH agent keeps |
//! | `age` | encryption to one recipient |
//!
//! A signature is accepted in the one form that this room writes: what could
//! be appended to or changed in its file without being noticed, is refused.

pub mod age;
mod agent;
mod armor;
mod error;
mod key;
pub mod minisign;
pub mod sshsig;
pub mod vendor;
mod wire;

use std::path::PathBuf;

pub use error::SignError;
pub use key::{PublicKey, SecretKey};

/// Whoever can sign with one key.
#[derive(Debug)]
pub enum Signer {
    /// A key that was read from a file.
    File(SecretKey),
    /// A key that an SSH agent keeps, a hardware token's for example.
    Agent {
        /// The agent's socket.
        socket: PathBuf,
        /// Which of its keys.
        key: PublicKey,
    },
}

impl Signer {
    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        match self {
            Self::File(key) => key.public(),
            Self::Agent { key, .. } => key,
        }
    }

    /// The 64 bytes of an Ed25519 signature over `message` (RFC 8032).
    ///
    /// # Errors
    ///
    /// Those of the agent; a key from a file always signs.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        match self {
            Self::File(key) => Ok(key.sign(message)),
            Self::Agent { socket, key } => agent::sign(socket, key, message),
        }
    }
}
