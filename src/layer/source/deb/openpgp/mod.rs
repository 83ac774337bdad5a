//! Who signed a text: `OpenPGP` with a policy of our own.
//!
//! In: a cleartext-signed message, a keyring, the clock. Out: the signed text
//! and nothing else of the message. One good signature is enough; it is good
//! when
//! - its hash is SHA-224 or stronger and its key not DSA or RSA below 2048 bits,
//! - it was made by a primary key or a bound subkey that may sign, in a
//!   certificate of the keyring whose own signatures hold,
//! - neither the certificate nor the subkey is revoked, for whatever reason,
//!   nor expired by the clock, nor the signature itself,
//! - it is not from the future, nor older than its key, and every part of it
//!   that its maker calls critical is understood.
//!
//! Checked by: gpgv on the same messages (`tests/it/formats/deb_signature.rs`).
//!
//! Source: RFC 9580; the packets and the arithmetic are the `pgp` crate's,
//! which leaves all of the above to its caller.

mod certificate;
mod clearsign;
mod detached;

use std::fmt;
use std::io::BufReader;
use std::path::PathBuf;

use pgp::armor::Dearmor;
use pgp::composed::{Deserializable as _, SignedPublicKey};
use pgp::packet::{Packet, PacketParser, Signature};

use crate::exec::escape;
use crate::units::Timestamp;

use super::Keys;
use super::error::SourceError;
use clearsign::Clearsigned;
pub use detached::Certificate;

/// A signature may be this much younger than the clock, in seconds.
const CLOCK_SLACK: i64 = 24 * 60 * 60;
/// Signatures of one message that are looked at.
const MAX_SIGNATURES: usize = 32;

/// Why a message is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureProblem {
    /// There is no signature at all.
    NotSigned,
    /// There is text before, between or after the signed parts.
    TextOutside,
    /// It ends before its signature does.
    Truncated,
    /// The signature block cannot be read.
    Malformed(String),
    /// Nobody in the keyring made any of the signatures.
    UnknownKeys(Vec<String>),
    /// The signature is not of this text.
    Wrong {
        /// Fingerprint or key ID.
        key: String,
    },
    /// Its hash or its key is too weak.
    Weak {
        /// Fingerprint or key ID.
        key: String,
        /// `SHA1`, `RSA below 2048 bits`.
        algorithm: String,
    },
    /// The key expired before now.
    KeyExpired {
        /// Fingerprint.
        key: String,
        /// When.
        on: Timestamp,
    },
    /// The key was revoked.
    KeyRevoked {
        /// Fingerprint.
        key: String,
    },
    /// The key may not sign, or is not properly bound to its certificate.
    KeyUnfit {
        /// Fingerprint.
        key: String,
        /// One clause.
        reason: &'static str,
    },
    /// The signature itself expired, is from the future, or says something
    /// critical that is not understood.
    Unacceptable {
        /// Fingerprint.
        key: String,
        /// One clause.
        reason: &'static str,
    },
}

impl SignatureProblem {
    /// What the reader can do about it.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::UnknownKeys(_) | Self::KeyExpired { .. } | Self::KeyRevoked { .. } => {
                "update the archive's keys (apt-get install debian-archive-keyring), and check \
                 Signed-By in the apt sources"
            }
            Self::Weak { .. } | Self::KeyUnfit { .. } => {
                "ask the owner of the repository for a better signature"
            }
            _ => {
                "someone may have changed it on the way: try another network or mirror, and do \
                 not go around the check"
            }
        }
        .into()
    }

    /// How much the problem says: that of a known key before that of an
    /// unknown one, and a text that was changed before all.
    fn weight(&self) -> u8 {
        match self {
            Self::Wrong { .. } => 2,
            Self::UnknownKeys(_) => 0,
            _ => 1,
        }
    }
}

impl fmt::Display for SignatureProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSigned => f.write_str("it carries no signature"),
            Self::TextOutside => f.write_str("there is text outside of the signature"),
            Self::Truncated => f.write_str("it is cut off"),
            Self::Malformed(problem) => {
                write!(f, "its signature cannot be read ({})", escape(problem))
            }
            Self::UnknownKeys(keys) => {
                write!(f, "none of its keys is in the keyring: {}", keys.join(", "))
            }
            Self::Wrong { key } => write!(f, "it is not what key {key} signed"),
            Self::Weak { key, algorithm } => write!(f, "key {key} signed it with {algorithm}"),
            Self::KeyExpired { key, on } => write!(f, "key {key} expired on {on}"),
            Self::KeyRevoked { key } => write!(f, "key {key} is revoked"),
            Self::KeyUnfit { key, reason } => write!(f, "key {key} {reason}"),
            Self::Unacceptable { key, reason } => write!(f, "the signature of key {key} {reason}"),
        }
    }
}

/// Certificates that count.
#[derive(Debug)]
pub(super) struct Keyring {
    certificates: Vec<SignedPublicKey>,
    /// If not empty: only these fingerprints, upper-case hex.
    fingerprints: Vec<String>,
}

impl Keyring {
    /// Reads the keyrings of a repository.
    pub(super) fn open(keys: &Keys) -> Result<Self, SourceError> {
        let mut certificates = Vec::new();
        for path in &keys.files {
            let bytes = std::fs::read(path).map_err(|source| SourceError::ReadHost {
                path: PathBuf::from(path),
                source,
            })?;
            certificates.extend(read_certificates(&bytes, &path.display().to_string())?);
        }
        for text in &keys.inline {
            certificates.extend(read_certificates(text.as_bytes(), "Signed-By")?);
        }
        Ok(Self {
            certificates,
            fingerprints: keys.fingerprints.clone(),
        })
    }

    fn allows(&self, fingerprint: &str) -> bool {
        self.fingerprints.is_empty()
            || self
                .fingerprints
                .iter()
                .any(|it| it.eq_ignore_ascii_case(fingerprint))
    }
}

/// Certificates of a keyring file. Old kinds that the crate does not know are
/// passed over, as long as something is left.
fn read_certificates(bytes: &[u8], name: &str) -> Result<Vec<SignedPublicKey>, SourceError> {
    let bad = |problem: String| SourceError::BadKeyring {
        name: name.to_owned(),
        problem,
    };
    let (keys, _) =
        SignedPublicKey::from_reader_many(bytes).map_err(|error| bad(error.to_string()))?;
    let mut found = Vec::new();
    let mut problem = None;
    for key in keys {
        match key {
            Ok(key) => found.push(key),
            Err(error) => problem = Some(error.to_string()),
        }
    }
    if found.is_empty() {
        return Err(bad(problem.unwrap_or_else(|| "it holds no key".into())));
    }
    Ok(found)
}

/// A message that somebody vouches for.
#[derive(Debug)]
pub(super) struct Verified {
    /// The signed text, nothing else of the message.
    pub(super) text: String,
}

/// A signature and the text that it is of, as one message for [`verify`].
pub(super) fn with_signature(signature: &[u8], text: &[u8]) -> Vec<u8> {
    [signature.trim_ascii(), b"\n", text].concat()
}

/// Checks a cleartext-signed message, or one of [`with_signature`].
pub(super) fn verify(
    message: &[u8],
    keyring: &Keyring,
    now: Timestamp,
) -> Result<Verified, SignatureProblem> {
    let not_utf8 = || SignatureProblem::Malformed("the text is not UTF-8".into());
    if let Some((armor, text)) = clearsign::detached(message)? {
        check_any(armor, text, keyring, now)?;
        let text = String::from_utf8(text.to_vec()).map_err(|_| not_utf8())?;
        return Ok(Verified { text });
    }
    let message = Clearsigned::parse(message)?;
    check_any(&message.armor, &message.hashed, keyring, now)?;
    let text = message.text().ok_or_else(not_utf8)?;
    Ok(Verified { text })
}

/// One good signature is enough.
fn check_any(
    armor: &[u8],
    hashed: &[u8],
    keyring: &Keyring,
    now: Timestamp,
) -> Result<(), SignatureProblem> {
    let signatures = read_signatures(armor)?;
    if signatures.is_empty() {
        return Err(SignatureProblem::NotSigned);
    }
    let mut problems = Vec::new();
    for signature in &signatures {
        match check(signature, hashed, keyring, now) {
            Ok(()) => return Ok(()),
            Err(problem) => problems.push(problem),
        }
    }
    Err(most_telling(problems))
}

/// The text of a message that need not be signed.
pub(super) fn unverified_text(message: &[u8]) -> Result<Verified, SignatureProblem> {
    let not_utf8 = || SignatureProblem::Malformed("the text is not UTF-8".into());
    let text = match Clearsigned::parse(message) {
        Ok(message) => message.text(),
        Err(SignatureProblem::NotSigned) => String::from_utf8(message.to_vec()).ok(),
        Err(problem) => return Err(problem),
    };
    Ok(Verified {
        text: text.ok_or_else(not_utf8)?,
    })
}

fn most_telling(problems: Vec<SignatureProblem>) -> SignatureProblem {
    let mut unknown = Vec::new();
    let mut best: Option<SignatureProblem> = None;
    for problem in problems {
        if let SignatureProblem::UnknownKeys(keys) = &problem {
            unknown.extend(keys.clone());
        } else if best
            .as_ref()
            .is_none_or(|it| it.weight() < problem.weight())
        {
            best = Some(problem);
        }
    }
    best.unwrap_or(SignatureProblem::UnknownKeys(unknown))
}

fn read_signatures(armor: &[u8]) -> Result<Vec<Signature>, SignatureProblem> {
    let malformed = |error: pgp::errors::Error| SignatureProblem::Malformed(error.to_string());
    let mut dearmor = Dearmor::new(armor);
    dearmor.read_header().map_err(malformed)?;
    let mut signatures = Vec::new();
    for packet in PacketParser::new(BufReader::new(dearmor)).take(MAX_SIGNATURES) {
        match packet.map_err(malformed)? {
            Packet::Signature(signature) => signatures.push(signature),
            other => {
                let kind = format!("an unexpected packet: {:?}", packet_kind(&other));
                return Err(SignatureProblem::Malformed(kind));
            }
        }
    }
    Ok(signatures)
}

fn packet_kind(packet: &Packet) -> pgp::types::Tag {
    use pgp::packet::PacketTrait as _;
    packet.packet_header().tag()
}

/// Checks one signature against the first certificate that it may be of.
fn check(
    signature: &Signature,
    hashed: &[u8],
    keyring: &Keyring,
    now: Timestamp,
) -> Result<(), SignatureProblem> {
    let mut problem = None;
    for certificate in &keyring.certificates {
        let signers = certificate::signers(certificate, signature);
        for signer in signers {
            let allowed = keyring.allows(&certificate::fingerprint(&certificate.primary_key))
                || keyring.allows(&signer.fingerprint());
            if !allowed {
                continue;
            }
            match signer.check(signature, hashed, now) {
                Ok(()) => return Ok(()),
                Err(found) => problem = Some(found),
            }
        }
    }
    Err(problem.unwrap_or_else(|| SignatureProblem::UnknownKeys(vec![issuer(signature)])))
}

/// Who a signature says made it, for messages.
fn issuer(signature: &Signature) -> String {
    let fingerprints = signature.issuer_fingerprint();
    if let Some(fingerprint) = fingerprints.first() {
        return format!("{fingerprint:X}");
    }
    match signature.issuer_key_id().first() {
        Some(id) => format!("{id}").to_ascii_uppercase(),
        None => "without a name".into(),
    }
}
