//! Keys for signing test repositories, good ones and bad ones.
//!
//! All times are in the past, so that gpgv, which has only the real clock,
//! agrees with us about them.

use consign::units::Timestamp;
use pgp::composed::{
    CleartextSignedMessage, EncryptionCaps, KeyType, SecretKeyParamsBuilder, SignedPublicKey,
    SignedSecretKey, SubkeyParamsBuilder,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{KeyFlags, Packet, SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{Duration, KeyDetails as _, Password, SigningKey, Tag, Timestamp as PgpTime};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// When the keys were made: 2020-09-13.
const KEY_MADE: u32 = 1_600_000_000;
/// When the messages were signed: 2023-11-14.
pub(crate) const SIGNED: u32 = 1_700_000_000;
/// The clock of the tests: 2025-01-01.
pub(crate) const NOW: Timestamp = Timestamp::from_seconds(1_735_689_600);
/// A year in seconds.
pub(crate) const YEAR: u32 = 365 * 24 * 60 * 60;

/// A key's life that ends between signing and now: 2024-09-12.
pub(crate) const KEY_LIFE_PAST: u32 = 4 * YEAR;

/// A key pair with one signing subkey.
pub(crate) struct Signer {
    secret: SignedSecretKey,
    pub(crate) certificate: SignedPublicKey,
}

/// How a message is signed.
pub(crate) struct Style {
    pub(crate) hash: HashAlgorithm,
    pub(crate) by_subkey: bool,
    /// More hashed parts of the signature.
    pub(crate) parts: Vec<Subpacket>,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            hash: HashAlgorithm::Sha256,
            by_subkey: false,
            parts: Vec::new(),
        }
    }
}

pub(crate) fn regular(data: SubpacketData) -> Subpacket {
    Subpacket::regular(data).expect("a small part")
}

fn created(at: u32) -> Subpacket {
    regular(SubpacketData::SignatureCreationTime(PgpTime::from_secs(at)))
}

pub(crate) fn lasts(seconds: u32) -> Subpacket {
    let life = std::time::Duration::from_secs(seconds.into());
    regular(SubpacketData::KeyExpirationTime(
        Duration::try_from(life).expect("it fits"),
    ))
}

pub(crate) fn may_sign(is_allowed: bool) -> Subpacket {
    let mut flags = KeyFlags::default();
    flags.set_certify(true);
    flags.set_sign(is_allowed);
    regular(SubpacketData::KeyFlags(flags))
}

impl Signer {
    /// A fresh Ed25519 key; the same `seed` gives the same one.
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_primary(seed, KeyType::Ed25519Legacy)
    }

    /// A fresh key whose primary key is RSA of 2048 bits. Takes a while.
    pub(crate) fn with_rsa(seed: u64) -> Self {
        Self::with_primary(seed, KeyType::Rsa(2048))
    }

    fn with_primary(seed: u64, kind: KeyType) -> Self {
        let subkey = SubkeyParamsBuilder::default()
            .key_type(KeyType::Ed25519Legacy)
            .can_sign(true)
            .can_encrypt(EncryptionCaps::None)
            .created_at(PgpTime::from_secs(KEY_MADE))
            .build()
            .expect("a subkey");
        let params = SecretKeyParamsBuilder::default()
            .key_type(kind)
            .can_certify(true)
            .can_sign(true)
            .primary_user_id(format!("test {seed}"))
            .created_at(PgpTime::from_secs(KEY_MADE))
            .subkey(subkey)
            .build()
            .expect("a key");
        let secret = params
            .generate(StdRng::seed_from_u64(seed))
            .expect("it can be made");
        let certificate = SignedPublicKey::from(secret.clone());
        let mut signer = Self {
            secret,
            certificate,
        };
        signer.describe(vec![may_sign(true)]);
        signer.bind_subkey(vec![may_sign(true)], true);
        signer
    }

    pub(crate) fn fingerprint(&self) -> String {
        format!("{:X}", self.certificate.primary_key.fingerprint())
    }

    pub(crate) fn subkey_fingerprint(&self) -> String {
        let subkey = self
            .certificate
            .public_subkeys
            .first()
            .expect("it has a subkey");
        format!("{:X}", subkey.key.fingerprint())
    }

    /// Replaces what the primary key says of itself.
    pub(crate) fn describe(&mut self, parts: Vec<Subpacket>) {
        let key = &self.secret.primary_key;
        let mut config = self.config(SignatureType::CertPositive, KEY_MADE);
        config.hashed_subpackets.extend(parts);
        let public = &self.certificate.primary_key;
        let user = self
            .certificate
            .details
            .users
            .first_mut()
            .expect("it has a user ID");
        let signature = config
            .sign_certification(key, public, &Password::empty(), Tag::UserId, &user.id)
            .expect("it signs");
        user.signatures = vec![signature];
    }

    /// Replaces what the primary key says of the subkey; `is_mutual`: and the
    /// subkey of it.
    pub(crate) fn bind_subkey(&mut self, parts: Vec<Subpacket>, is_mutual: bool) {
        let primary = &self.secret.primary_key;
        let secret = &self
            .secret
            .secret_subkeys
            .first()
            .expect("it has a subkey")
            .key;
        let mut config = self.config(SignatureType::SubkeyBinding, KEY_MADE);
        config.hashed_subpackets.extend(parts);
        let public = &self.certificate.primary_key;
        if is_mutual {
            let mut back = SignatureConfig::v4(
                SignatureType::KeyBinding,
                secret.algorithm(),
                HashAlgorithm::Sha256,
            );
            back.hashed_subpackets = vec![created(KEY_MADE)];
            let back = back
                .sign_primary_key_binding(secret, secret.public_key(), &Password::empty(), public)
                .expect("it signs");
            config
                .hashed_subpackets
                .push(regular(SubpacketData::EmbeddedSignature(Box::new(back))));
        }
        let subkey = self
            .certificate
            .public_subkeys
            .first_mut()
            .expect("it has a subkey");
        let binding = config
            .sign_subkey_binding(primary, public, &Password::empty(), &subkey.key)
            .expect("it signs");
        subkey.signatures = vec![binding];
    }

    pub(crate) fn revoke(&mut self) {
        let config = self.config(SignatureType::KeyRevocation, SIGNED + YEAR);
        let public = &self.certificate.primary_key;
        let signature = config
            .sign_key(&self.secret.primary_key, &Password::empty(), public)
            .expect("it signs");
        self.certificate
            .details
            .revocation_signatures
            .push(signature);
    }

    pub(crate) fn revoke_subkey(&mut self) {
        let config = self.config(SignatureType::SubkeyRevocation, SIGNED + YEAR);
        let public = &self.certificate.primary_key;
        let subkey = self
            .certificate
            .public_subkeys
            .first_mut()
            .expect("it has a subkey");
        let signature = config
            .sign_subkey_binding(
                &self.secret.primary_key,
                public,
                &Password::empty(),
                &subkey.key,
            )
            .expect("it signs");
        subkey.signatures.push(signature);
    }

    /// A signature of the primary key, begun.
    fn config(&self, kind: SignatureType, at: u32) -> SignatureConfig {
        let key = &self.secret.primary_key;
        let mut config = SignatureConfig::v4(kind, key.algorithm(), HashAlgorithm::Sha256);
        config.hashed_subpackets = vec![
            created(at),
            regular(SubpacketData::IssuerFingerprint(key.fingerprint())),
        ];
        config.unhashed_subpackets = vec![regular(SubpacketData::IssuerKeyId(key.legacy_key_id()))];
        config
    }

    /// The certificate as a keyring file.
    pub(crate) fn keyring(&self) -> Vec<u8> {
        self.certificate.to_bytes().expect("it can be written")
    }

    /// The certificate for `Signed-By`.
    pub(crate) fn armored(&self) -> String {
        self.certificate
            .to_armored_string(None.into())
            .expect("it can be written")
    }

    /// A signature over a file by the subkey, which names it by its old id
    /// alone.
    pub(crate) fn detach_by_subkey(&self, bytes: &[u8]) -> Vec<u8> {
        let key = &self.secret.secret_subkeys.first().expect("a subkey").key;
        let mut config = SignatureConfig::v4(
            SignatureType::Binary,
            key.algorithm(),
            HashAlgorithm::Sha512,
        );
        config.hashed_subpackets = vec![created(SIGNED)];
        config.unhashed_subpackets = vec![regular(SubpacketData::IssuerKeyId(key.legacy_key_id()))];
        let signature = config.sign(key, &Password::empty(), bytes);
        Packet::from(signature.expect("it signs"))
            .to_bytes()
            .expect("it can be written")
    }

    /// A cleartext-signed message.
    pub(crate) fn sign(&self, text: &str, style: Style) -> String {
        if style.by_subkey {
            let subkey = &self
                .secret
                .secret_subkeys
                .first()
                .expect("it has a subkey")
                .key;
            return sign_with(subkey, text, style);
        }
        sign_with(&self.secret.primary_key, text, style)
    }
}

fn sign_with(key: &impl SigningKey, text: &str, style: Style) -> String {
    let mut config = SignatureConfig::v4(SignatureType::Text, key.algorithm(), style.hash);
    let has_date = |part: &Subpacket| matches!(part.data, SubpacketData::SignatureCreationTime(_));
    if !style.parts.iter().any(has_date) {
        config.hashed_subpackets.push(created(SIGNED));
    }
    config
        .hashed_subpackets
        .push(regular(SubpacketData::IssuerFingerprint(key.fingerprint())));
    config.hashed_subpackets.extend(style.parts);
    config.unhashed_subpackets = vec![regular(SubpacketData::IssuerKeyId(key.legacy_key_id()))];
    // The framework does not sign the last line end, our format has one.
    let message = CleartextSignedMessage::new(text.trim_end(), config, key, &Password::empty());
    message
        .expect("it signs")
        .to_armored_string(None.into())
        .expect("it can be written")
}

/// One message with the signatures of two messages over the same text.
pub(crate) fn joined(one: &str, two: &str) -> String {
    let parse = |text: &str| {
        CleartextSignedMessage::from_string(text)
            .expect("it parses")
            .0
    };
    let (first, second) = (parse(one), parse(two));
    let text = first.signed_text().replace("\r\n", "\n");
    let all = first
        .signatures()
        .iter()
        .chain(second.signatures())
        .cloned()
        .collect();
    let message = CleartextSignedMessage::new_many(&text, |_| Ok(all)).expect("it joins");
    message
        .to_armored_string(None.into())
        .expect("it can be written")
}
