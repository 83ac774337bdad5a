//! Payload bundles: a vendor's files for a role, on the customer's medium.
//!
//! In: the bytes of `payload/*.vab`, piece by piece, and the vendor's keys.
//! Out: a folder of releases named by the manifest's digest, made whole or
//! not at all; a link to it is an item of the configuration.
//! Never here: a path, a kind of file or a length that the signed manifest
//! does not name.
//!
//! A bundle is a tar (POSIX.1-1988, `ustar`) of regular files in this order:
//! `manifest.toml`; `manifest.toml.sig`, which is the vendor's SSHSIG for
//! `consign-bundle`; then `files/PATH` for each file of the manifest, in its
//! order. Nothing is packed, so there is no bomb to guard against.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};

use consign_schema::bundle;
use sha2::{Digest as _, Sha256};
use toml::de::DeTable;

use crate::digest::Digest;
use crate::root::{Access, Root};
use crate::text::{number, parse, string, tables};
use crate::trust::{self, Key, SignatureError};

/// The vendor's public keys, one a line.
pub const VENDOR: &str = "/usr/lib/consign/vendor.pub";
/// Releases by their digests.
pub const RELEASES: &str = "/var/lib/consign/releases";
/// A release while it is being made.
const FRESH: &str = "/var/lib/consign/releases/.new";
/// A release while it is being removed.
pub const GONE: &str = "/var/lib/consign/releases/.gone";
/// Links to the releases that count, by the bundles' names.
pub const CURRENT: &str = "/var/lib/consign/current";
const BLOCK: usize = 512;
const MANIFEST: &str = "manifest.toml";
const SIGNATURE: &str = "manifest.toml.sig";
/// What a manifest says, and what it says of each file.
const KEYS: [&str; 6] = ["kind", "schema", "name", "version", "role", "file"];
const FILE_KEYS: [&str; 4] = ["path", "size", "mode", "sha256"];

/// Why a bundle is not taken.
#[derive(Debug)]
pub enum BundleError {
    /// The image has no key of its vendor.
    NoKey,
    /// It is not signed by the vendor.
    Signature(SignatureError),
    /// It is not what bundles are.
    Form(&'static str),
    /// A file is not the one that was signed.
    Content(String),
    /// It cannot be read or kept.
    Io(io::Error),
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey => write!(f, "this appliance has no key of its vendor, and takes none"),
            Self::Signature(error) => error.fmt(f),
            Self::Form(what) => write!(f, "{what}"),
            Self::Content(path) => write!(f, "{path} is not the file that was signed"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for BundleError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    path: String,
    size: u64,
    mode: u32,
    digest: Digest,
}

/// What a bundle says of itself, signed by the vendor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What the link to it is called.
    pub name: String,
    /// The vendor's version.
    pub version: String,
    /// The role that it is for; any without.
    pub role: Option<String>,
    files: Vec<Entry>,
    /// What the release is called.
    pub digest: Digest,
}

impl Manifest {
    fn read(bytes: &[u8]) -> Option<Self> {
        let table = parse(std::str::from_utf8(bytes).ok()?)?;
        if string(&table, "kind")? != "consign-bundle" || number(&table, "schema")? != 1 {
            return None;
        }
        // What it asks for besides, such as `requires`, would not be heeded.
        if !has_only(&table, &KEYS) {
            return None;
        }
        let mut files = Vec::new();
        let mut paths = BTreeSet::new();
        let mut total = 0_u64;
        for file in tables(&table, "file") {
            if !has_only(file, &FILE_KEYS) {
                return None;
            }
            let entry = Entry {
                path: string(file, "path")?,
                size: number(file, "size")?,
                mode: u32::try_from(number(file, "mode")?).ok()?,
                digest: Digest::parse(&string(file, "sha256")?)?,
            };
            total = total.checked_add(entry.size)?;
            let is_right = bundle::is_path(&entry.path)
                && matches!(entry.mode, 0o644 | 0o755)
                && paths.insert(entry.path.clone());
            if !is_right || files.len() == bundle::MAX_FILES {
                return None;
            }
            files.push(entry);
        }
        let (name, version) = (string(&table, "name")?, string(&table, "version")?);
        let is_right =
            bundle::is_name(&name) && bundle::is_version(&version) && total <= bundle::MAX_SIZE;
        is_right.then_some(Self {
            name,
            version,
            role: string(&table, "role"),
            files,
            digest: Digest::of(bytes),
        })
    }

    /// The folder of the release.
    pub fn folder(&self) -> String {
        format!("{RELEASES}/{}", self.digest)
    }
}

fn has_only(table: &DeTable<'_>, known: &[&str]) -> bool {
    table
        .keys()
        .all(|key| known.contains(&key.get_ref().as_ref()))
}

/// What the bytes that come next belong to.
enum Part {
    Header,
    Manifest,
    Signature,
    File(File, Sha256),
    /// Zeros up to the end.
    End,
}

/// Takes a bundle piece by piece.
pub struct Unpacker<'r> {
    root: &'r Root,
    keys: Vec<Key>,
    role: Option<String>,
    part: Part,
    /// Bytes of the part that are still to come, and of its last block.
    left: u64,
    padding: u64,
    buffer: Vec<u8>,
    unsigned: Vec<u8>,
    manifest: Option<Manifest>,
    /// Files that are whole.
    done: usize,
    /// The release is there already.
    is_known: bool,
    /// It is for another role.
    is_other: bool,
    error: Option<BundleError>,
}

impl<'r> Unpacker<'r> {
    /// For bundles for `role`, signed by one of the image's keys.
    ///
    /// # Errors
    ///
    /// [`BundleError::NoKey`], and when the keys cannot be read.
    pub fn new(root: &'r Root, role: Option<&str>) -> Result<Self, BundleError> {
        let text = root.read_text(VENDOR, trust::MAX_SIGNATURE)?;
        let keys = Key::parse_all(&text).ok_or(BundleError::NoKey)?;
        if keys.is_empty() {
            return Err(BundleError::NoKey);
        }
        // What a cut left there is nobody's.
        root.remove_tree(FRESH)?;
        Ok(Self {
            root,
            keys,
            role: role.map(str::to_owned),
            part: Part::Header,
            left: BLOCK as u64,
            padding: 0,
            buffer: Vec::new(),
            unsigned: Vec::new(),
            manifest: None,
            done: 0,
            is_known: false,
            is_other: false,
            error: None,
        })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// When nothing more is wanted: [`finish`](Self::finish) says why.
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.take(bytes) {
            self.error.get_or_insert(error);
        }
        if self.error.is_some() || self.is_enough() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }

    /// Whether nothing more has to be read.
    fn is_enough(&self) -> bool {
        self.is_known || self.is_other
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), BundleError> {
        while !bytes.is_empty() && !self.is_enough() {
            let wanted = if self.left > 0 {
                self.left
            } else {
                self.padding
            };
            let count = usize::try_from(wanted)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            let (piece, rest) = bytes.split_at_checked(count).unwrap_or((bytes, &[]));
            bytes = rest;
            if self.left > 0 {
                self.left -= piece.len() as u64;
                match &mut self.part {
                    Part::End => {
                        if piece.iter().any(|byte| *byte != 0) {
                            return Err(BundleError::Form("something follows its end"));
                        }
                        self.left = BLOCK as u64;
                    }
                    Part::File(file, hash) => {
                        hash.update(piece);
                        file.write_all(piece)?;
                    }
                    _ => self.buffer.extend_from_slice(piece),
                }
            } else {
                self.padding -= piece.len() as u64;
            }
            if self.left == 0 {
                self.end_part()?;
            }
        }
        Ok(())
    }

    /// All bytes of a part are there; its padding may be to come.
    fn end_part(&mut self) -> Result<(), BundleError> {
        let is_header = matches!(self.part, Part::Header);
        if !is_header && self.padding > 0 {
            return Ok(());
        }
        let buffer = std::mem::take(&mut self.buffer);
        match std::mem::replace(&mut self.part, Part::Header) {
            Part::Header => return self.begin(&buffer),
            Part::Manifest => self.unsigned = buffer,
            Part::Signature => self.authenticate(&buffer)?,
            Part::File(_, hash) => {
                let entry = self.entry().ok_or(BundleError::Form(SURPLUS))?;
                let found: [u8; 32] = hash.finalize().into();
                if found != *entry.digest.bytes() {
                    return Err(BundleError::Content(entry.path.clone()));
                }
                self.done += 1;
            }
            Part::End => self.part = Part::End,
        }
        self.left = BLOCK as u64;
        Ok(())
    }

    /// The file that comes next.
    fn entry(&self) -> Option<&Entry> {
        self.manifest.as_ref()?.files.get(self.done)
    }

    fn begin(&mut self, header: &[u8]) -> Result<(), BundleError> {
        if header.iter().all(|byte| *byte == 0) {
            self.part = Part::End;
            self.left = BLOCK as u64;
            return Ok(());
        }
        let (name, size) = read_header(header).ok_or(BundleError::Form(
            "it is not a tar of regular files, as `consign bundle` makes it",
        ))?;
        let order = BundleError::Form("its files are not in their order");
        let part = match (name.as_str(), &self.manifest) {
            (MANIFEST, None) if self.unsigned.is_empty() && size <= bundle::MAX_MANIFEST => {
                Part::Manifest
            }
            (SIGNATURE, None) if size <= trust::MAX_SIGNATURE as u64 => Part::Signature,
            (_, None) => return Err(order),
            (name, Some(_)) => {
                let entry = self.entry().ok_or(BundleError::Form(SURPLUS))?;
                if name.strip_prefix("files/") != Some(entry.path.as_str()) {
                    return Err(order);
                }
                if size != entry.size {
                    return Err(BundleError::Content(entry.path.clone()));
                }
                let path = format!("{FRESH}/{}", entry.path);
                Part::File(self.root.create(&path, entry.mode)?, Sha256::new())
            }
        };
        self.part = part;
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        if size == 0 {
            return self.end_part();
        }
        Ok(())
    }

    fn authenticate(&mut self, signature: &[u8]) -> Result<(), BundleError> {
        trust::verify(&self.unsigned, signature, trust::BUNDLE, &self.keys)
            .map_err(BundleError::Signature)?;
        let manifest = Manifest::read(&self.unsigned).ok_or(BundleError::Form(
            "its manifest is not one that this appliance knows",
        ))?;
        if manifest.role.is_some() && manifest.role != self.role {
            self.is_other = true;
            return Ok(());
        }
        self.is_known = self.root.stat(&manifest.folder())?.is_some();
        if !self.is_known {
            self.root.put_directory(FRESH, Access::own(0o755))?;
        }
        self.manifest = Some(manifest);
        Ok(())
    }

    /// The bundle, kept whole; nothing when it is for another role.
    ///
    /// # Errors
    ///
    /// [`BundleError`]; nothing of it is kept then.
    pub fn finish(mut self, read: io::Result<()>) -> Result<Option<Manifest>, BundleError> {
        let made = self.finished(read);
        if made.is_err() {
            // The first error counts; what is left is cleared next time.
            let _ = self.root.remove_tree(FRESH);
        }
        made
    }

    fn finished(&mut self, read: io::Result<()>) -> Result<Option<Manifest>, BundleError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let cut = BundleError::Form("it ends before its last file");
        let manifest = self.manifest.take();
        if self.is_other {
            return Ok(None);
        }
        if self.is_known {
            return manifest.map(Some).ok_or(cut);
        }
        read?;
        let manifest = manifest.ok_or(cut)?;
        if self.done != manifest.files.len() {
            return Err(BundleError::Form("it ends before its last file"));
        }
        self.root.sync(FRESH)?;
        self.root.rename(FRESH, &manifest.folder())?;
        Ok(Some(manifest))
    }
}

const SURPLUS: &str = "it has files that were not signed";

/// Name and size of a regular file's header.
fn read_header(header: &[u8]) -> Option<(String, u64)> {
    let field = |at: usize, length: usize| {
        let field = header.get(at..at + length)?;
        let end = field.iter().position(|byte| *byte == 0);
        std::str::from_utf8(field.get(..end.unwrap_or(length))?).ok()
    };
    let octal = |at, length| {
        let digits = field(at, length)?.trim_matches(' ');
        u64::from_str_radix(digits, 8).ok()
    };
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            u64::from(if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            })
        })
        .sum();
    let is_file = matches!(header.get(156)?, b'0' | 0);
    if octal(148, 8)? != sum || !is_file || header.get(257..265)? != b"ustar\x0000" {
        return None;
    }
    let (prefix, name) = (field(345, 155)?, field(0, 100)?);
    let name = if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}/{name}")
    };
    Some((name, octal(124, 12)?))
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
