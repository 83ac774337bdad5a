//! SHA-256 digests, and identifiers derived from them.
//!
//! In: bytes. Out: digests with a type each, so that a layer's key cannot
//! stand where its diff ID is meant. Never here: chance.
//!
//! Source: FIPS 180-4; text form as in the OCI image specification.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use sha2::Digest as _;

use crate::units::Guid;

/// A SHA-256 digest. Its text form is `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The digest of a whole file, wherever it is being read otherwise.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn of_file(file: &File) -> io::Result<Self> {
        let mut hasher = Hasher::new();
        for_each_piece(file, |bytes| hasher.update(bytes))?;
        Ok(hasher.finish())
    }

    /// A digest that was computed elsewhere.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hex digits, without the prefix.
    #[must_use]
    pub fn hex(&self) -> String {
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        }
        text
    }

    /// Parses 64 hex digits in either case, with or without `sha256:`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let digit = |c: u8| char::from(c).to_digit(16);
            *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("a digest is `sha256:` and 64 hex digits"))
    }
}

/// A BLAKE3 digest of bytes that consign keeps for itself: as strong as SHA-256
/// and several times as fast, and no format names anything by it. Its text
/// form is `blake3:` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct KeptDigest(#[serde(with = "kept_text")] [u8; 32]);

impl KeptDigest {
    /// The digest of a whole file, wherever it is being read otherwise.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn of_file(file: &File) -> io::Result<Self> {
        let mut hasher = KeptHasher::default();
        for_each_piece(file, |bytes| hasher.update(bytes))?;
        Ok(hasher.finish())
    }
}

/// Makes a [`KeptDigest`] of a stream that arrives in pieces.
#[derive(Clone, Default)]
pub struct KeptHasher(blake3::Hasher);

impl KeptHasher {
    /// Appends `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was appended.
    #[must_use]
    pub fn finish(&self) -> KeptDigest {
        KeptDigest(*self.0.finalize().as_bytes())
    }
}

impl fmt::Debug for KeptHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeptHasher(..)")
    }
}

impl fmt::Debug for KeptDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", kept_text::PREFIX, Digest(self.0).hex())
    }
}

mod kept_text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Digest;

    pub(super) const PREFIX: &str = "blake3:";

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{PREFIX}{}", Digest(*bytes).hex()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        let digest = text.strip_prefix(PREFIX).and_then(Digest::parse);
        digest
            .map(|digest| digest.0)
            .ok_or_else(|| serde::de::Error::custom("it is `blake3:` and 64 hex digits"))
    }
}

/// Reads a whole file, wherever it is being read otherwise.
fn for_each_piece(file: &File, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    loop {
        match file.read_at(&mut buffer, at) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                take(buffer.split_at(count).0);
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Digests a stream that arrives in pieces; an [`io::Write`] that keeps nothing.
#[derive(Clone, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// Nothing hashed yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Appends a field so that no two lists of fields give one stream: its
    /// length as 8 bytes, big endian, then its bytes.
    pub fn field(&mut self, bytes: &[u8]) {
        self.update(&(bytes.len() as u64).to_be_bytes());
        self.update(bytes);
    }

    /// The digest of all that was appended.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher(..)")
    }
}

impl io::Write for Hasher {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.update(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Digest of a list of fields, unambiguous by [`Hasher::field`].
#[must_use]
pub fn of_fields<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut hasher = Hasher::new();
    for field in fields {
        hasher.field(field);
    }
    hasher.finish()
}

/// An identifier derived by hash: the same `seed` and `role` give the same
/// identifier on every machine. `role` says what is named, `partition:root-a`
/// for example.
#[must_use]
pub fn derive_guid(seed: &Digest, role: &str) -> Guid {
    let digest = of_fields([b"consign guid v1".as_slice(), seed.bytes(), role.as_bytes()]);
    let mut half = [0; 16];
    half.copy_from_slice(&digest.0[..16]);
    Guid::from_hash(half)
}

macro_rules! digest_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

digest_newtype! {
    /// Digest of everything that can change a layer: its name in the store.
    LayerKey
}
digest_newtype! {
    /// Digest of a layer's uncompressed tar stream, as OCI defines it.
    DiffId
}
digest_newtype! {
    /// Merkle root over a logical disk, the same for every container format.
    ContentRoot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_survives_a_round_trip() {
        let digest = Digest::of(b"abc");
        // FIPS 180-4, example B.1.
        assert_eq!(
            digest.to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        assert_eq!(Digest::parse(&digest.hex().to_uppercase()), Some(digest));
        assert_eq!(Digest::parse("sha256:12"), None);
        assert_eq!(Digest::parse(&"é".repeat(32)), None);
    }

    #[test]
    fn a_file_has_the_digest_of_its_bytes() {
        let bytes = b"consign".repeat(100_000);
        let mut file = tempfile::tempfile().expect("a file");
        io::Write::write_all(&mut file, &bytes).expect("written");
        // Its position, which is at the end, does not count.
        let found = Digest::of_file(&file).expect("readable");
        assert_eq!(found, Digest::of(&bytes));
    }

    #[test]
    fn fields_cannot_be_shifted_into_each_other() {
        assert_ne!(
            of_fields([b"ab".as_slice(), b"c"]),
            of_fields([b"a".as_slice(), b"bc"])
        );
    }

    #[test]
    fn derived_guids_differ_by_role_only() {
        let seed = Digest::of(b"seed");
        assert_eq!(derive_guid(&seed, "disk"), derive_guid(&seed, "disk"));
        assert_ne!(derive_guid(&seed, "disk"), derive_guid(&seed, "root-a"));
    }
}
