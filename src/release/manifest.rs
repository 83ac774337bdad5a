//! The manifest: the one text that is signed, and from which all else follows.
//!
//! ```text
//! consign release manifest v1
//! name reference
//! version 1.0.0
//! epoch 1764115200
//! builder consign 0.1.0
//! agent sha256:…
//! lock sha256:…
//! expires 1795651200                                 (left out: never)
//! openpgp 89AB…                                      (left out: none)
//! signer SHA256:… sshsig minisign raw dsse           (none or more)
//! disk 4294967296 sha256:…
//! partition 1 bios 1048576 1048576 sha256:…          (number, name, offset, length, root)
//! file 64-hex 128-hex 1234 reference.qcow2           (SHA-256, SHA-512, length, name)
//! ```
//!
//! One line a fact, fields separated by one space, files sorted by name: a
//! shell can read it. The first line names kind and format, so that a
//! signature over it can mean nothing else. A text that this room would not
//! write in exactly this form is no manifest.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::str::{FromStr, SplitN};

use crate::digest::{ContentRoot, Digest};
use crate::units::ByteSize;

/// The file's name in a release.
pub const MANIFEST_FILE: &str = "MANIFEST";
/// The first line.
const HEAD: &str = "consign release manifest v1";
/// Longest manifest that is read.
pub const MAX_MANIFEST: u64 = 4 << 20;

/// What a release is: which disk, which files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Name of the appliance.
    pub name: String,
    /// Its version.
    pub version: String,
    /// No time in the release is later: seconds since 1970.
    pub epoch: i64,
    /// What made it: `consign 0.1.0`.
    pub builder: String,
    /// Digest of the first-boot agent.
    pub agent: Digest,
    /// Digest of the lock.
    pub lock: Digest,
    /// Not to be believed after this moment: seconds since 1970.
    pub expires: Option<i64>,
    /// Fingerprint of the OpenPGP key that signs too: 40 or 64 upper-case
    /// hex digits.
    pub openpgp: Option<String>,
    /// Who is known to sign, in the order of the signature files.
    pub signers: Vec<SignerLine>,
    /// The disk, whatever contains it.
    pub disk: DiskLine,
    /// Its partitions, in the order of their numbers.
    pub partitions: Vec<PartitionLine>,
    /// The files of the release, sorted by name; without the manifest and its
    /// signatures.
    pub files: Vec<FileLine>,
}

/// Somebody who signs, and in which containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerLine {
    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// The containers, in the order of [`Container::ALL`].
    pub containers: Vec<Container>,
}

/// A form of signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Container {
    /// For `ssh-keygen -Y verify`.
    SshSig,
    /// For `minisign -V`.
    Minisign,
    /// 64 bytes, for `openssl pkeyutl`.
    Raw,
    /// An envelope around the provenance.
    Dsse,
}

impl Container {
    /// All of them, in the order of the manifest.
    pub const ALL: [Self; 4] = [Self::SshSig, Self::Minisign, Self::Raw, Self::Dsse];

    /// Its word in the manifest.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SshSig => "sshsig",
            Self::Minisign => "minisign",
            Self::Raw => "raw",
            Self::Dsse => "dsse",
        }
    }
}

/// The logical disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskLine {
    /// Its length.
    pub size: ByteSize,
    /// The root over its content.
    pub root: ContentRoot,
}

/// A partition of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLine {
    /// Its number, from 1.
    pub number: u32,
    /// Its name in the table: `root-a`.
    pub name: String,
    /// Where it starts.
    pub offset: ByteSize,
    /// Its length.
    pub size: ByteSize,
    /// The root over its content.
    pub root: ContentRoot,
}

/// A file of the release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileLine {
    /// Its name: letters, digits, `_`, `.`, `+`, `~` and `-`.
    pub name: String,
    /// Its length.
    pub size: ByteSize,
    /// Digest of the whole file.
    pub sha256: Digest,
    /// SHA-512 of the whole file.
    pub sha512: Sha512Hex,
}

/// 128 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sha512Hex(String);

impl Sha512Hex {
    /// From the 64 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        Self(hex(bytes))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes all");
    }
    text
}

/// Whether `name` may be a file of a release: plain in every shell, URL and
/// file system, and nothing that hides.
#[must_use]
pub fn is_file_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.+~-".contains(c);
    name.len() <= 200
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(plain)
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEAD}")?;
        writeln!(f, "name {}", self.name)?;
        writeln!(f, "version {}", self.version)?;
        writeln!(f, "epoch {}", self.epoch)?;
        writeln!(f, "builder {}", self.builder)?;
        writeln!(f, "agent {}", self.agent)?;
        writeln!(f, "lock {}", self.lock)?;
        if let Some(expires) = self.expires {
            writeln!(f, "expires {expires}")?;
        }
        if let Some(openpgp) = &self.openpgp {
            writeln!(f, "openpgp {openpgp}")?;
        }
        for signer in &self.signers {
            write!(f, "signer {}", signer.fingerprint)?;
            for container in &signer.containers {
                write!(f, " {}", container.name())?;
            }
            writeln!(f)?;
        }
        writeln!(f, "disk {} {}", self.disk.size.bytes(), self.disk.root)?;
        for part in &self.partitions {
            let (offset, size) = (part.offset.bytes(), part.size.bytes());
            writeln!(
                f,
                "partition {} {} {offset} {size} {}",
                part.number, part.name, part.root
            )?;
        }
        for file in &self.files {
            let (sha256, sha512) = (file.sha256.hex(), file.sha512.as_str());
            writeln!(
                f,
                "file {sha256} {sha512} {} {}",
                file.size.bytes(),
                file.name
            )?;
        }
        Ok(())
    }
}

/// Where a text stops being a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAManifest {
    /// Line, from 1.
    pub line: usize,
    /// What was expected there.
    pub expected: &'static str,
}

impl FromStr for Manifest {
    type Err = NotAManifest;

    fn from_str(text: &str) -> Result<Self, NotAManifest> {
        let mut lines = Lines::new(text);
        let manifest = lines.manifest()?;
        // Numbers with leading zeros, other orders, a missing last line break.
        let exact = manifest.to_string();
        if exact == text {
            return Ok(manifest);
        }
        let same = exact.lines().zip(text.lines()).take_while(|(a, b)| a == b);
        Err(NotAManifest {
            line: same.count() + 1,
            expected: "exactly as it is written",
        })
    }
}

/// Reads line by line, and knows which one.
struct Lines<'a> {
    rest: std::iter::Peekable<std::str::Lines<'a>>,
    number: usize,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            rest: text.lines().peekable(),
            number: 0,
        }
    }

    fn manifest(&mut self) -> Result<Manifest, NotAManifest> {
        if self.next() != Some(HEAD) {
            return Err(self.wrong("`consign release manifest v1`"));
        }
        let manifest = Manifest {
            name: self.one("name", "name NAME", is_file_name)?,
            version: self.one("version", "version VERSION", is_file_name)?,
            epoch: self.parsed("epoch", "epoch SECONDS")?,
            builder: self.one("builder", "builder PROGRAM VERSION", is_plain)?,
            agent: self.digest("agent", "agent DIGEST")?,
            lock: self.digest("lock", "lock DIGEST")?,
            expires: self.optional("expires", |lines| {
                lines.parsed("expires", "expires SECONDS")
            })?,
            openpgp: self.optional("openpgp", |lines| {
                lines.one("openpgp", "openpgp FINGERPRINT", is_fingerprint)
            })?,
            signers: self.several("signer", Self::signer)?,
            disk: self.disk()?,
            partitions: self.several("partition", Self::partition)?,
            files: self.several("file", Self::file)?,
        };
        if self.rest.peek().is_some() {
            self.number += 1;
            return Err(self.wrong("a `file` line, or the end"));
        }
        let names: BTreeSet<&str> = manifest
            .files
            .iter()
            .map(|file| file.name.as_str())
            .collect();
        let sorted = manifest.files.is_sorted_by(|a, b| a.name < b.name);
        if !sorted || names.contains(MANIFEST_FILE) {
            return Err(self.wrong("files sorted by name, each once, without the manifest"));
        }
        Ok(manifest)
    }

    fn next(&mut self) -> Option<&'a str> {
        self.number += 1;
        self.rest.next()
    }

    fn wrong(&self, expected: &'static str) -> NotAManifest {
        NotAManifest {
            line: self.number,
            expected,
        }
    }

    /// The rest of a line that begins with `word`.
    fn value(&mut self, word: &str, expected: &'static str) -> Result<&'a str, NotAManifest> {
        let line = self.next();
        let rest = line.and_then(|line| line.strip_prefix(word)?.strip_prefix(' '));
        rest.ok_or(self.wrong(expected))
    }

    fn one(
        &mut self,
        word: &str,
        expected: &'static str,
        good: fn(&str) -> bool,
    ) -> Result<String, NotAManifest> {
        let value = self.value(word, expected)?;
        if !good(value) {
            return Err(self.wrong(expected));
        }
        Ok(value.to_owned())
    }

    fn parsed<T: FromStr>(
        &mut self,
        word: &str,
        expected: &'static str,
    ) -> Result<T, NotAManifest> {
        let value = self.value(word, expected)?;
        value.parse().map_err(|_| self.wrong(expected))
    }

    fn digest(&mut self, word: &str, expected: &'static str) -> Result<Digest, NotAManifest> {
        let value = self.value(word, expected)?;
        Digest::parse(value).ok_or(self.wrong(expected))
    }

    fn is_at(&mut self, word: &str) -> bool {
        let line = self.rest.peek().copied().unwrap_or_default();
        line.strip_prefix(word)
            .is_some_and(|rest| rest.starts_with(' '))
    }

    fn optional<T>(
        &mut self,
        word: &str,
        read: impl Fn(&mut Self) -> Result<T, NotAManifest>,
    ) -> Result<Option<T>, NotAManifest> {
        if self.is_at(word) {
            read(self).map(Some)
        } else {
            Ok(None)
        }
    }

    fn several<T>(
        &mut self,
        word: &str,
        read: impl Fn(&mut Self) -> Result<T, NotAManifest>,
    ) -> Result<Vec<T>, NotAManifest> {
        let mut all = Vec::new();
        while self.is_at(word) {
            all.push(read(self)?);
        }
        Ok(all)
    }

    fn signer(&mut self) -> Result<SignerLine, NotAManifest> {
        const EXPECTED: &str = "signer FINGERPRINT CONTAINERS";
        let value = self.value("signer", EXPECTED)?;
        let wrong = self.wrong(EXPECTED);
        let mut words = value.split(' ');
        let fingerprint = words.next().filter(|word| word.starts_with("SHA256:"));
        let containers: Option<Vec<Container>> = words
            .map(|word| Container::ALL.into_iter().find(|one| one.name() == word))
            .collect();
        let containers = containers.filter(|all| !all.is_empty() && all.is_sorted_by(|a, b| a < b));
        match (fingerprint, containers) {
            (Some(fingerprint), Some(containers)) => Ok(SignerLine {
                fingerprint: fingerprint.to_owned(),
                containers,
            }),
            _ => Err(wrong),
        }
    }

    fn disk(&mut self) -> Result<DiskLine, NotAManifest> {
        const EXPECTED: &str = "disk LENGTH ROOT";
        let value = self.value("disk", EXPECTED)?;
        let mut words = value.splitn(2, ' ');
        let read = |words: &mut SplitN<'_, char>| {
            let size = number(words.next())?;
            let root = ContentRoot(Digest::parse(words.next()?)?);
            Some(DiskLine { size, root })
        };
        read(&mut words).ok_or(self.wrong(EXPECTED))
    }

    fn partition(&mut self) -> Result<PartitionLine, NotAManifest> {
        const EXPECTED: &str = "partition NUMBER NAME OFFSET LENGTH ROOT";
        let value = self.value("partition", EXPECTED)?;
        let mut words = value.splitn(5, ' ');
        let read = |words: &mut SplitN<'_, char>| {
            Some(PartitionLine {
                number: words.next()?.parse().ok()?,
                name: words.next().filter(|name| is_file_name(name))?.to_owned(),
                offset: number(words.next())?,
                size: number(words.next())?,
                root: ContentRoot(Digest::parse(words.next()?)?),
            })
        };
        read(&mut words).ok_or(self.wrong(EXPECTED))
    }

    fn file(&mut self) -> Result<FileLine, NotAManifest> {
        const EXPECTED: &str = "file SHA256 SHA512 LENGTH NAME";
        let value = self.value("file", EXPECTED)?;
        let mut words = value.splitn(4, ' ');
        let read = |words: &mut SplitN<'_, char>| {
            let sha256 = Digest::parse(words.next()?)?;
            let sha512 = words.next().filter(|hex| is_sha512(hex))?;
            Some(FileLine {
                sha256,
                sha512: Sha512Hex(sha512.to_owned()),
                size: number(words.next())?,
                name: words.next().filter(|name| is_file_name(name))?.to_owned(),
            })
        };
        read(&mut words).ok_or(self.wrong(EXPECTED))
    }
}

fn number(word: Option<&str>) -> Option<ByteSize> {
    word?.parse().ok().map(ByteSize::from_bytes)
}

fn is_plain(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= 200
        && value.chars().all(|c| c.is_ascii_graphic() || c == ' ')
}

fn is_fingerprint(value: &str) -> bool {
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    matches!(value.len(), 40 | 64) && value.bytes().all(is_digit)
}

fn is_sha512(hex: &str) -> bool {
    hex.len() == 128
        && hex
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::release) fn sample() -> Manifest {
        Manifest {
            name: "wiki".into(),
            version: "1.0~rc1".into(),
            epoch: 1_764_115_200,
            builder: "consign 0.1.0".into(),
            agent: Digest::of(b"agent"),
            lock: Digest::of(b"lock"),
            expires: Some(1_795_651_200),
            openpgp: None,
            signers: vec![SignerLine {
                fingerprint: "SHA256:abc".into(),
                containers: Container::ALL.to_vec(),
            }],
            disk: DiskLine {
                size: ByteSize::from_mib(64),
                root: ContentRoot(Digest::of(b"disk")),
            },
            partitions: vec![PartitionLine {
                number: 1,
                name: "bios".into(),
                offset: ByteSize::from_mib(1),
                size: ByteSize::from_mib(1),
                root: ContentRoot(Digest::of(b"bios")),
            }],
            files: ["appliance.xml", "wiki.qcow2"]
                .into_iter()
                .map(|name| FileLine {
                    name: name.into(),
                    size: ByteSize::from_bytes(name.len() as u64),
                    sha256: Digest::of(name.as_bytes()),
                    sha512: Sha512Hex::from_bytes(&[7; 64]),
                })
                .collect(),
        }
    }

    #[test]
    fn a_manifest_comes_back_from_its_text() {
        let manifest = sample();
        assert_eq!(manifest.to_string().parse(), Ok(manifest));
    }

    #[test]
    fn a_text_in_another_form_is_no_manifest() {
        let text = sample().to_string();
        let changes = [
            ("v1\n", "v2\n", 1),
            ("name wiki", "name  wiki", 2),
            ("epoch 17", "epoch 017", 4),
            ("epoch 17", "epoch +17", 4),
            ("epoch 1764115200\n", "", 4),
            ("raw dsse", "dsse raw", 9),
            ("appliance.xml", "zappliance.xml", 13),
            ("appliance.xml", "../appliance.xml", 12),
            ("appliance.xml", "wiki.qcow2", 13),
            ("appliance.xml", "MANIFEST", 13),
            ("file ", "file  ", 12),
            ("partition 1", "partition 01", 11),
        ];
        for (from, to, line) in changes {
            let other = text.replacen(from, to, 1);
            let error = other.parse::<Manifest>().expect_err(to);
            assert_eq!(error.line, line, "{from} -> {to}: {error:?}");
        }
        for changed in [
            format!("{text}\n"),
            format!("{text}x\n"),
            text.replace('\n', "\r\n"),
        ] {
            changed.parse::<Manifest>().expect_err("another text");
        }
        text[..text.len() - 1]
            .parse::<Manifest>()
            .expect_err("no last line break");
    }
}
