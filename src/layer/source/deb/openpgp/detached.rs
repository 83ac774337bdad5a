//! Detached signatures beside a file, in one form only.
//!
//! `OpenPGP` leaves much of a signature unsigned: armor headers, the check
//! sum, the packet's own header, the unhashed area. Here a signature has one
//! text for what was signed; everything else is refused. Narrower than the
//! RFC: one signature, of a file and not of a text, by Ed25519 or RSA, since
//! whoever sees a signature by ECDSA can write a second one.

use std::fmt;

use pgp::armor::{BlockType, write as write_armor};
use pgp::composed::SignedPublicKey;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{
    Packet, PacketParser, PacketTrait as _, Signature, SignatureType, SignatureVersion, Subpacket,
    SubpacketData,
};
use pgp::ser::Serialize as _;
use pgp::types::KeyId;

use super::certificate::{self, fingerprint};
use super::{Keyring, SignatureProblem, check, issuer, read_certificates, read_signatures};
use crate::units::Timestamp;

/// One certificate, and what it says about detached signatures.
pub struct Certificate(Keyring);

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificate")
            .field(&self.fingerprint())
            .finish()
    }
}

impl Clone for Certificate {
    fn clone(&self) -> Self {
        Self::from(self.certificate().clone())
    }
}

impl From<SignedPublicKey> for Certificate {
    fn from(certificate: SignedPublicKey) -> Self {
        Self(Keyring {
            certificates: vec![certificate],
            fingerprints: Vec::new(),
        })
    }
}

impl Certificate {
    /// Reads a file with exactly one certificate, armored or not.
    ///
    /// # Errors
    ///
    /// One clause about what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let found = read_certificates(bytes, "it").map_err(|error| error.to_string())?;
        match <[SignedPublicKey; 1]>::try_from(found) {
            Ok([one]) => Ok(Self::from(one)),
            Err(many) => Err(format!("it holds {} keys", many.len())),
        }
    }

    /// Whether a file is meant to be one, by its first bytes.
    #[must_use]
    pub fn is_meant(bytes: &[u8]) -> bool {
        let is_armored = bytes.starts_with(b"-----BEGIN PGP PUBLIC KEY BLOCK-----");
        // RFC 9580, 4.2: a public-key packet, with a header of either form.
        is_armored || matches!(bytes.first(), Some(0x98..=0x9b | 0xc6))
    }

    fn certificate(&self) -> &SignedPublicKey {
        &self.0.certificates[0]
    }

    /// The fingerprint of its primary key, upper-case hex.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.certificate().primary_key)
    }

    /// It as a file that gpgv takes as a keyring.
    ///
    /// # Errors
    ///
    /// One clause when it has parts that cannot be written.
    pub fn keyring(&self) -> Result<Vec<u8>, String> {
        self.certificate()
            .to_bytes()
            .map_err(|error| error.to_string())
    }

    /// The one text of a signature over `message` by this certificate.
    /// `signature` may be armored or not, and have more in it than was signed.
    ///
    /// # Errors
    ///
    /// [`SignatureProblem`].
    pub fn canonical(&self, signature: &[u8], message: &[u8]) -> Result<String, SignatureProblem> {
        let signatures = if signature.starts_with(b"-----BEGIN") {
            read_signatures(signature)?
        } else {
            read_packets(signature)?
        };
        let [signature] = signatures.as_slice() else {
            let problem = format!("there are {} signatures", signatures.len());
            return Err(SignatureProblem::Malformed(problem));
        };
        let at = made(signature)?;
        check(signature, message, &self.0, at)?;
        // Whom it names is not signed: the one counts by whose key it holds.
        let signers = certificate::signers(self.certificate(), signature);
        let mut signers = signers.iter();
        let by = signers.find(|signer| signer.check(signature, message, at).is_ok());
        let unknown = || SignatureProblem::UnknownKeys(vec![issuer(signature)]);
        self.render(signature, by.ok_or_else(unknown)?.key_id())
    }

    /// Judges the text of a signature over `message`, at `now`; where no clock
    /// counts, at the moment when the signature was made.
    ///
    /// # Errors
    ///
    /// [`SignatureProblem`], also for any text but the one of
    /// [`canonical`](Self::canonical).
    pub fn judge(
        &self,
        text: &str,
        message: &[u8],
        now: Option<Timestamp>,
    ) -> Result<(), SignatureProblem> {
        if self.canonical(text.as_bytes(), message)? != text {
            let problem = "something was added to its text, or changed in it";
            return Err(SignatureProblem::Malformed(problem.into()));
        }
        let [signature] = &read_signatures(text.as_bytes())?[..] else {
            return Err(SignatureProblem::NotSigned);
        };
        let now = now.map_or_else(|| made(signature), Ok)?;
        check(signature, message, &self.0, now)
    }

    /// The text of a signature by the key with the id `by`.
    fn render(&self, signature: &Signature, by: KeyId) -> Result<String, SignatureProblem> {
        let unacceptable = |reason| SignatureProblem::Unacceptable {
            key: self.fingerprint(),
            reason,
        };
        let (Some(config), Some(value), Some(head)) = (
            signature.config(),
            signature.signature(),
            signature.signed_hash_value(),
        ) else {
            return Err(unacceptable("is of an unknown version"));
        };
        let is_narrow = matches!(
            config.pub_alg,
            PublicKeyAlgorithm::RSA | PublicKeyAlgorithm::EdDSALegacy | PublicKeyAlgorithm::Ed25519
        );
        if !is_narrow {
            return Err(unacceptable("is neither by RSA nor by Ed25519"));
        }
        if config.typ != SignatureType::Binary {
            return Err(unacceptable("is not one over a file"));
        }
        let mut config = config.clone();
        config.unhashed_subpackets = named(signature, by)?;
        let malformed = |error: pgp::errors::Error| SignatureProblem::Malformed(error.to_string());
        let plain = Signature::from_config(config, head, value.clone()).map_err(malformed)?;
        let mut text = Vec::new();
        write_armor(
            &Packet::from(plain),
            BlockType::Signature,
            &mut text,
            None,
            true,
        )
        .map_err(malformed)?;
        String::from_utf8(text).map_err(|_| unacceptable("has no text"))
    }
}

/// The unhashed area: for old programs, the id of the key that signed.
fn named(signature: &Signature, by: KeyId) -> Result<Vec<Subpacket>, SignatureProblem> {
    if signature.version() != SignatureVersion::V4 {
        return Ok(Vec::new());
    }
    let packet = Subpacket::regular(SubpacketData::IssuerKeyId(by));
    let malformed = |error: pgp::errors::Error| SignatureProblem::Malformed(error.to_string());
    Ok(vec![packet.map_err(malformed)?])
}

/// When a signature says that it was made.
fn made(signature: &Signature) -> Result<Timestamp, SignatureProblem> {
    let seconds = signature.created().map(|at| i64::from(at.as_secs()));
    let problem = || SignatureProblem::Malformed("it has no date".into());
    seconds.map(Timestamp::from_seconds).ok_or_else(problem)
}

/// Signatures without armor.
fn read_packets(bytes: &[u8]) -> Result<Vec<Signature>, SignatureProblem> {
    let mut signatures = Vec::new();
    for packet in PacketParser::new(bytes).take(super::MAX_SIGNATURES) {
        match packet {
            Ok(Packet::Signature(signature)) => signatures.push(signature),
            Ok(other) => {
                let kind = format!("an unexpected packet: {:?}", other.packet_header().tag());
                return Err(SignatureProblem::Malformed(kind));
            }
            Err(error) => return Err(SignatureProblem::Malformed(error.to_string())),
        }
    }
    Ok(signatures)
}
