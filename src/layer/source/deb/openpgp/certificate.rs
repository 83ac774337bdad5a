//! Whether a key of a certificate may sign, now.

use pgp::composed::{SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{KeyDetails, KeyId, PublicParams, Tag};

use crate::units::Timestamp;

use super::{CLOCK_SLACK, SignatureProblem};

/// Length of the public numbers of an RSA key of 2048 bits, at the least.
const RSA_2048_BYTES: usize = 256;

/// A key that a signature may be of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signer<'a> {
    certificate: &'a SignedPublicKey,
    /// The primary key when there is none.
    subkey: Option<&'a SignedPublicSubKey>,
}

/// The keys of a certificate that the signature names.
pub(super) fn signers<'a>(
    certificate: &'a SignedPublicKey,
    signature: &Signature,
) -> Vec<Signer<'a>> {
    let mut found = Vec::new();
    if names(signature, &certificate.primary_key) {
        found.push(Signer {
            certificate,
            subkey: None,
        });
    }
    for subkey in &certificate.public_subkeys {
        if names(signature, &subkey.key) {
            found.push(Signer {
                certificate,
                subkey: Some(subkey),
            });
        }
    }
    found
}

fn names(signature: &Signature, key: &impl KeyDetails) -> bool {
    let (ids, fingerprints) = (signature.issuer_key_id(), signature.issuer_fingerprint());
    ids.iter().any(|&id| *id == key.legacy_key_id())
        || fingerprints.iter().any(|&it| *it == key.fingerprint())
}

pub(super) fn fingerprint(key: &impl KeyDetails) -> String {
    format!("{:X}", key.fingerprint())
}

impl Signer<'_> {
    pub(super) fn fingerprint(&self) -> String {
        match self.subkey {
            Some(subkey) => fingerprint(&subkey.key),
            None => fingerprint(&self.certificate.primary_key),
        }
    }

    /// The id that old programs know it by.
    pub(super) fn key_id(&self) -> KeyId {
        match self.subkey {
            Some(subkey) => subkey.key.legacy_key_id(),
            None => self.certificate.primary_key.legacy_key_id(),
        }
    }

    /// The whole policy for one signature over `hashed`.
    pub(super) fn check(
        &self,
        signature: &Signature,
        hashed: &[u8],
        now: Timestamp,
    ) -> Result<(), SignatureProblem> {
        self.check_strength(signature)?;
        // The arithmetic first: a changed text is a changed text, whoever signed.
        let verified = match self.subkey {
            Some(subkey) => signature.verify(&subkey.key, hashed),
            None => signature.verify(&self.certificate.primary_key, hashed),
        };
        verified.map_err(|_| SignatureProblem::Wrong {
            key: self.fingerprint(),
        })?;
        self.check_signature(signature, now)?;
        self.check_primary(now)?;
        self.check_subkey(now)
    }

    fn check_strength(&self, signature: &Signature) -> Result<(), SignatureProblem> {
        let weak = |algorithm: String| {
            Err(SignatureProblem::Weak {
                key: self.fingerprint(),
                algorithm,
            })
        };
        match signature.hash_alg() {
            Some(
                HashAlgorithm::Sha224
                | HashAlgorithm::Sha256
                | HashAlgorithm::Sha384
                | HashAlgorithm::Sha512
                | HashAlgorithm::Sha3_256
                | HashAlgorithm::Sha3_512,
            ) => {}
            Some(other) => return weak(other.to_string()),
            None => return weak("an unknown hash".into()),
        }
        let params = match self.subkey {
            Some(subkey) => subkey.key.public_params(),
            None => self.certificate.primary_key.public_params(),
        };
        match params {
            PublicParams::DSA(_) => weak("DSA".into()),
            PublicParams::RSA(_) if params.write_len() < RSA_2048_BYTES => {
                weak("RSA below 2048 bits".into())
            }
            _ => Ok(()),
        }
    }

    fn check_signature(
        &self,
        signature: &Signature,
        now: Timestamp,
    ) -> Result<(), SignatureProblem> {
        let unacceptable = |reason| {
            Err(SignatureProblem::Unacceptable {
                key: self.fingerprint(),
                reason,
            })
        };
        if !matches!(
            signature.typ(),
            Some(SignatureType::Binary | SignatureType::Text)
        ) {
            return unacceptable("is not one over a text");
        }
        if has_unknown_critical(signature) {
            return unacceptable("has a critical part that is not understood");
        }
        let Some(created) = signature.created().map(seconds) else {
            return unacceptable("has no date");
        };
        let key_created = match self.subkey {
            Some(subkey) => seconds(subkey.key.created_at()),
            None => seconds(self.certificate.primary_key.created_at()),
        };
        if created > now.seconds.saturating_add(CLOCK_SLACK) {
            return unacceptable("is from the future");
        }
        if created < key_created {
            return unacceptable("is older than the key");
        }
        match signature
            .signature_expiration_time()
            .map(|it| i64::from(it.as_secs()))
        {
            Some(life) if life > 0 && created + life <= now.seconds => unacceptable("has expired"),
            _ => Ok(()),
        }
    }

    fn check_primary(&self, now: Timestamp) -> Result<(), SignatureProblem> {
        let primary = &self.certificate.primary_key;
        let key = fingerprint(primary);
        let details = &self.certificate.details;
        let is_own_revocation = |it: &Signature| {
            it.typ() == Some(SignatureType::KeyRevocation) && it.verify_key(primary).is_ok()
        };
        if details.revocation_signatures.iter().any(is_own_revocation) {
            return Err(SignatureProblem::KeyRevoked { key });
        }
        let Some(binding) = self.newest_self_signature() else {
            let reason = "has no valid signature of its own";
            return Err(SignatureProblem::KeyUnfit { key, reason });
        };
        if let Some(on) = expires(seconds(primary.created_at()), binding)
            && on <= now
        {
            return Err(SignatureProblem::KeyExpired { key, on });
        }
        if self.subkey.is_none() && !may_sign(binding) {
            return Err(SignatureProblem::KeyUnfit {
                key,
                reason: "is not for signing",
            });
        }
        Ok(())
    }

    /// The statement of the primary key about itself that counts: the newest
    /// of those on a user ID that is not revoked, and of those on the key.
    fn newest_self_signature(&self) -> Option<&Signature> {
        let primary = &self.certificate.primary_key;
        let details = &self.certificate.details;
        let mut candidates: Vec<&Signature> = Vec::new();
        for user in &details.users {
            let own = |it: &&Signature| {
                names(it, primary)
                    && it
                        .verify_certification(primary, Tag::UserId, &user.id)
                        .is_ok()
            };
            let is_revocation = |it: &Signature| it.typ() == Some(SignatureType::CertRevocation);
            let own: Vec<_> = user.signatures.iter().filter(own).collect();
            if !own.iter().any(|it| is_revocation(it)) {
                candidates.extend(own);
            }
        }
        candidates.extend(
            details.direct_signatures.iter().filter(|it| {
                it.typ() == Some(SignatureType::Key) && it.verify_key(primary).is_ok()
            }),
        );
        newest(candidates)
    }

    fn check_subkey(&self, now: Timestamp) -> Result<(), SignatureProblem> {
        let Some(subkey) = self.subkey else {
            return Ok(());
        };
        let primary = &self.certificate.primary_key;
        let key = fingerprint(&subkey.key);
        let valid = |kind: SignatureType| {
            let holds = move |it: &&Signature| {
                it.typ() == Some(kind) && it.verify_subkey_binding(primary, &subkey.key).is_ok()
            };
            subkey.signatures.iter().filter(holds).collect::<Vec<_>>()
        };
        if !valid(SignatureType::SubkeyRevocation).is_empty() {
            return Err(SignatureProblem::KeyRevoked { key });
        }
        let Some(binding) = newest(valid(SignatureType::SubkeyBinding)) else {
            let reason = "is not bound to its certificate";
            return Err(SignatureProblem::KeyUnfit { key, reason });
        };
        if let Some(on) = expires(seconds(subkey.key.created_at()), binding)
            && on <= now
        {
            return Err(SignatureProblem::KeyExpired { key, on });
        }
        if !may_sign(binding) {
            return Err(SignatureProblem::KeyUnfit {
                key,
                reason: "is not for signing",
            });
        }
        // Without it, anyone could adopt somebody else's signing key.
        let is_mutual = binding.embedded_signature().is_some_and(|back| {
            back.verify_primary_key_binding(&subkey.key, primary)
                .is_ok()
        });
        if is_mutual {
            Ok(())
        } else {
            let reason = "does not confirm its certificate";
            Err(SignatureProblem::KeyUnfit { key, reason })
        }
    }
}

/// The newest of valid signatures. Those by MD5 do not count; SHA-1 does:
/// keys bind themselves with it for decades, and the keyring is the host's own.
fn newest(signatures: Vec<&Signature>) -> Option<&Signature> {
    signatures
        .into_iter()
        .filter(|it| !has_unknown_critical(it) && it.hash_alg() != Some(HashAlgorithm::Md5))
        .max_by_key(|it| it.created())
}

/// Key flags are optional; without them, everything is allowed.
fn may_sign(binding: &Signature) -> bool {
    let Some(config) = binding.config() else {
        return false;
    };
    let mut flags = config.hashed_subpackets().filter_map(|it| match &it.data {
        SubpacketData::KeyFlags(flags) => Some(flags.sign()),
        _ => None,
    });
    flags.next().unwrap_or(true)
}

/// When a key expires by its newest binding; a life of 0 is none.
fn expires(created: i64, binding: &Signature) -> Option<Timestamp> {
    let life = binding
        .key_expiration_time()
        .map(|it| i64::from(it.as_secs()))?;
    (life > 0).then(|| Timestamp::from_seconds(created + life))
}

fn has_unknown_critical(signature: &Signature) -> bool {
    let Some(config) = signature.config() else {
        return true;
    };
    config.hashed_subpackets().any(|it| {
        let is_unknown = matches!(
            it.data,
            SubpacketData::Experimental(..)
                | SubpacketData::Other(..)
                | SubpacketData::Notation(..)
        );
        it.is_critical && is_unknown
    })
}

fn seconds(time: pgp::types::Timestamp) -> i64 {
    i64::from(time.as_secs())
}
