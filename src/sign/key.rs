//! Public and secret keys, in the forms that people have.
//!
//! Source: OpenSSH `PROTOCOL.key` for `openssh-key-v1`; RFC 8410 for PEM;
//! the minisign page for its public keys. Narrower: Ed25519 only.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use super::wire::{Reader, put_string, put_u32};
use super::{SignError, armor};
use crate::digest::Digest;

/// OpenSSH's name of the algorithm.
pub(super) const ALGORITHM: &str = "ssh-ed25519";
/// Longest file that is read as a key.
const MAX_KEY_FILE: u64 = 64 << 10;
const OPENSSH_LABEL: &str = "OPENSSH PRIVATE KEY";
const OPENSSH_MAGIC: &[u8] = b"openssh-key-v1\0";
/// RFC 8410: `SEQUENCE { 0, { 1.3.101.112 }, OCTET STRING { OCTET STRING` of 32 bytes.
const PKCS8_HEAD: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// RFC 8410: `SEQUENCE { { 1.3.101.112 }, BIT STRING` of 32 bytes.
const SPKI_HEAD: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// An Ed25519 public key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Takes the key's 32 bytes. `None` for bytes that are no point of the
    /// curve, and for the few points with which anybody can sign.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        let key = VerifyingKey::from_bytes(bytes).ok()?;
        (!key.is_weak()).then_some(Self(key))
    }

    /// The key's 32 bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Reads a file in any known form.
    ///
    /// # Errors
    ///
    /// [`SignError::Read`], [`SignError::NotAKey`].
    pub fn open(path: &Path) -> Result<Self, SignError> {
        let text = read_text(path)?;
        Self::parse(&text).ok_or_else(|| SignError::NotAKey {
            path: path.to_owned(),
            kind: "public",
        })
    }

    /// Finds the key in a line of OpenSSH (`ssh-ed25519 … comment`, also behind
    /// the principal of an `allowed_signers` file), in a minisign public key
    /// or in PEM.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(der) = armor::read("PUBLIC KEY", text) {
            let key = der.strip_prefix(&SPKI_HEAD)?;
            return Self::from_bytes(key.try_into().ok()?);
        }
        let mut lines = text.lines().map(str::trim);
        let mut lines = lines
            .by_ref()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .filter(|line| !line.starts_with("untrusted comment:"));
        let line = lines.next()?;
        // Two keys in a file: which one is meant?
        if lines.next().is_some() {
            return None;
        }
        let mut words = line.split_whitespace();
        if words.by_ref().any(|word| word == ALGORITHM) {
            return Self::from_blob(&STANDARD.decode(words.next()?).ok()?);
        }
        super::minisign::public_key(line)
    }

    /// The key in the SSH protocols.
    pub(super) fn blob(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        put_string(&mut blob, ALGORITHM.as_bytes());
        put_string(&mut blob, self.bytes());
        blob
    }

    pub(super) fn from_blob(blob: &[u8]) -> Option<Self> {
        let mut reader = Reader(blob);
        if reader.string()? != ALGORITHM.as_bytes() {
            return None;
        }
        let key = reader.string()?.try_into().ok()?;
        reader.is_empty().then(|| Self::from_bytes(key))?
    }

    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = Digest::of(&self.blob());
        format!("SHA256:{}", STANDARD_NO_PAD.encode(digest.bytes()))
    }

    /// One line, as in `authorized_keys`.
    #[must_use]
    pub fn to_openssh(&self, comment: &str) -> String {
        format!("{ALGORITHM} {} {comment}\n", STANDARD.encode(self.blob()))
    }

    /// As `openssl pkey -pubin` reads it.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let der = [SPKI_HEAD.as_slice(), self.bytes()].concat();
        armor::write("PUBLIC KEY", &der, 64)
    }

    /// Whether `signature` is this key's over `message`, by the strict rules
    /// (no second signature can be made of one).
    #[must_use]
    pub fn accepts(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = Signature::from_bytes(signature);
        self.0.verify_strict(message, &signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fingerprint())
    }
}

/// An Ed25519 secret key. It is wiped when dropped, and `Debug` shows the
/// public half only.
pub struct SecretKey {
    key: SigningKey,
    public: PublicKey,
}

impl SecretKey {
    /// The key that RFC 8032 makes of 32 random bytes.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let public = PublicKey(key.verifying_key());
        Self { key, public }
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// An Ed25519 signature over `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// Reads an OpenSSH or PKCS #8 file without a passphrase.
    ///
    /// # Errors
    ///
    /// [`SignError::Read`], [`SignError::OpenToOthers`],
    /// [`SignError::Passphrase`], [`SignError::NotAKey`].
    pub fn open(path: &Path) -> Result<Self, SignError> {
        let text = read_text(path)?;
        if let Some(found) = Self::parse(&text) {
            closed_to_others(path)?;
            return found.map_err(|Behind| SignError::Passphrase {
                path: path.to_owned(),
            });
        }
        Err(SignError::NotAKey {
            path: path.to_owned(),
            kind: "secret",
        })
    }

    fn parse(text: &str) -> Option<Result<Self, Behind>> {
        if let Some(der) = armor::read("PRIVATE KEY", text) {
            let seed = der.strip_prefix(&PKCS8_HEAD)?;
            return Some(Ok(Self::from_seed(seed.try_into().ok()?)));
        }
        if armor::read("ENCRYPTED PRIVATE KEY", text).is_some() {
            return Some(Err(Behind));
        }
        let bytes = armor::read(OPENSSH_LABEL, text)?;
        let mut reader = Reader(bytes.strip_prefix(OPENSSH_MAGIC)?);
        let cipher = reader.string()?;
        let (_kdf, _options) = (reader.string()?, reader.string()?);
        if reader.u32()? != 1 {
            return None;
        }
        let public = PublicKey::from_blob(reader.string()?)?;
        if cipher != b"none" {
            return Some(Err(Behind));
        }
        let mut secret = Reader(reader.string()?);
        let checks = (secret.u32()?, secret.u32()?);
        let algorithm = secret.string()?;
        let (_public, pair) = (secret.string()?, secret.string()?);
        let (seed, _) = pair.split_at_checked(32)?;
        let key = Self::from_seed(seed.try_into().ok()?);
        let sound = checks.0 == checks.1 && algorithm == ALGORITHM.as_bytes();
        (sound && key.public == public).then_some(Ok(key))
    }

    /// As `ssh-keygen` writes it, without a passphrase.
    fn to_openssh(&self, comment: &str) -> String {
        // OpenSSH compares two equal numbers to find a wrong passphrase; there
        // is none here, so they need no chance.
        let check = u32::from_be_bytes([0x63, 0x6f, 0x6e, 0x73]);
        let mut secret = Vec::new();
        put_u32(&mut secret, check);
        put_u32(&mut secret, check);
        put_string(&mut secret, ALGORITHM.as_bytes());
        put_string(&mut secret, self.public.bytes());
        put_string(&mut secret, &self.key.to_keypair_bytes());
        put_string(&mut secret, comment.as_bytes());
        for pad in 1_u8.. {
            if secret.len() % 8 == 0 {
                break;
            }
            secret.push(pad);
        }
        let mut bytes = OPENSSH_MAGIC.to_vec();
        for field in [b"none".as_slice(), b"none", b""] {
            put_string(&mut bytes, field);
        }
        put_u32(&mut bytes, 1);
        put_string(&mut bytes, &self.public.blob());
        put_string(&mut bytes, &secret);
        armor::write(OPENSSH_LABEL, &bytes, 70)
    }

    /// Writes the key to `path` with mode 0600 and its public half to
    /// `path.pub`. Neither may exist.
    ///
    /// # Errors
    ///
    /// [`SignError::Exists`], [`SignError::Write`]; then neither is there.
    pub fn write_pair(&self, path: &Path, comment: &str) -> Result<(), SignError> {
        let mut public = path.as_os_str().to_owned();
        public.push(".pub");
        let public = Path::new(&public);
        for one in [path, public] {
            if one.symlink_metadata().is_ok() {
                return Err(SignError::Exists {
                    path: one.to_owned(),
                });
            }
        }
        write_new(path, &self.to_openssh(comment), 0o600)?;
        write_new(public, &self.public.to_openssh(comment), 0o644).inspect_err(|_| {
            // The error that is returned says what happened.
            let _removed = std::fs::remove_file(path);
        })
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({:?}, ..)", self.public)
    }
}

/// A passphrase stands between us and the key.
struct Behind;

fn read_text(path: &Path) -> Result<String, SignError> {
    let failed = |source| SignError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_KEY_FILE)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    String::from_utf8(bytes).map_err(|error| {
        failed(io::Error::new(
            io::ErrorKind::InvalidData,
            error.utf8_error(),
        ))
    })
}

/// As ssh does: a secret that others can read is none.
fn closed_to_others(path: &Path) -> Result<(), SignError> {
    let metadata = path.metadata().map_err(|source| SignError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o7777;
    let others = mode & 0o077;
    if others == 0 {
        return Ok(());
    }
    Err(SignError::OpenToOthers {
        path: path.to_owned(),
        mode,
    })
}

/// A whole file under its name, or none; never over another one.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), SignError> {
    let failed = |source| SignError::Write {
        path: path.to_owned(),
        source,
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    let permissions = std::fs::Permissions::from_mode(mode);
    file.as_file()
        .set_permissions(permissions)
        .map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist_noclobber(path)
        .map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SecretKey {
        SecretKey::from_seed(&[7; 32])
    }

    #[test]
    fn a_secret_key_comes_back_from_its_file() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("key");
        key().write_pair(&path, "vendor").expect("written");
        assert_eq!(
            SecretKey::open(&path).expect("read").public(),
            key().public()
        );
        let public = PublicKey::open(&folder.path().join("key.pub")).expect("public");
        assert_eq!(&public, key().public());
        let again = key().write_pair(&path, "vendor").expect_err("exists");
        assert_eq!(again.slug(), "key-exists");
    }

    #[test]
    fn a_secret_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("key");
        key().write_pair(&path, "vendor").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("chmod");
        let error = SecretKey::open(&path).expect_err("refused");
        assert!(
            error
                .to_string()
                .ends_with("can be read by others: its mode is 0640"),
            "{error}"
        );
        assert!(error.hint().expect("hint").starts_with("run `chmod 600 "));
    }

    #[test]
    fn a_public_key_is_found_in_every_form() {
        let public = key().public().clone();
        let line = public.to_openssh("somebody");
        let forms = [
            line.clone(),
            format!("# ours\nvendor@example.com namespaces=\"x\" {line}"),
            public.to_pem(),
            super::super::minisign::public_key_file(&public),
        ];
        for form in forms {
            assert_eq!(PublicKey::parse(&form).as_ref(), Some(&public), "{form}");
        }
        assert_eq!(PublicKey::parse(&format!("{line}{line}")), None);
        assert_eq!(PublicKey::parse(""), None);
    }

    #[test]
    fn a_point_with_which_anybody_can_sign_is_no_key() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert_eq!(PublicKey::from_bytes(&neutral), None);
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", key());
        assert!(text.starts_with("SecretKey(SHA256:"), "{text}");
        assert!(!text.contains('7') || text.len() < 80);
    }
}
