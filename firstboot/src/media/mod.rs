//! The customer's config disk: found by its label, read without a mount.
//!
//! In: the machine's block devices. Out: [`Candidate`]s with the bytes of the
//! names we know, and what is wrong with media that look like ours.
//! Never here: mounts, writes, what the files mean, a length from the medium
//! that is trusted.
//! Checked by: images made by mkfs.vfat and mtools, thousands of damaged ones,
//! and boots with the disk on every bus.

mod fat;
#[cfg(test)]
mod hostile;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use fat::FatError;
pub use watch::Watcher;

use crate::init::devices::{list, value};
use crate::init::gpt::ReadAt;

/// The label of a config medium, in any case.
pub const LABEL: &str = "VACONFIG";
/// The customer's file.
pub const SITE_FILE: &str = "site.toml";
/// Files in the medium's root that are read.
const KNOWN_FILES: [&str; 4] = [
    SITE_FILE,
    "site.toml.sig",
    "site.toml.minisig",
    "secrets.age",
];
/// Folders whose files are read.
const KNOWN_FOLDERS: [&str; 1] = ["license"];
/// A text file is at most this long, in bytes.
pub const FILE_LIMIT: u64 = 256 << 10;
/// At most this many files are read, and as many others are named.
const NAME_LIMIT: usize = 64;
/// Devices that are no media, by what their names begin with.
const NO_MEDIA: [&str; 5] = ["loop", "ram", "zram", "dm-", "nbd"];
/// How often an unconfigured machine looks again without having been told.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where the kernel shows its block devices; other folders in tests.
#[derive(Debug, Clone)]
pub struct Roots {
    /// `/sys/class/block`.
    pub sys: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            sys: "/sys/class/block".into(),
            dev: "/dev".into(),
        }
    }
}

/// A medium with our label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The kernel's name: `vdb`, `sda1`, `sr0`.
    pub device: String,
    /// `FAT12`, `FAT16` or `FAT32`.
    pub filesystem: &'static str,
    /// The known files by their names in lower case, folders with a slash.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Other names in the root, escaped, at most 64.
    pub ignored: Vec<String>,
}

/// A medium that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The kernel's name.
    pub device: String,
    /// What is wrong, as a lowercase clause.
    pub reason: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.device, self.reason)
    }
}

/// What one look over all devices gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Media with our label, in the order of their devices' names.
    pub candidates: Vec<Candidate>,
    /// Media with our label that are damaged, and media that no one here can
    /// read and that may have been meant.
    pub unreadable: Vec<Unreadable>,
}

/// Looks at every block device once.
#[must_use]
pub fn look(roots: &Roots) -> Found {
    let mut found = Found::default();
    for device in devices(roots) {
        match read_device(&roots.dev.join(&device), size_of(roots, &device)) {
            Ok(None) => {}
            Ok(Some(content)) => found.candidates.push(Candidate { device, ..content }),
            Err(reason) => found.unreadable.push(Unreadable { device, reason }),
        }
    }
    found
}

/// Looks until a medium with our label is there, or `patience` ends.
#[must_use]
pub fn find(roots: &Roots, patience: Duration) -> Found {
    let end = Instant::now() + patience;
    let mut watcher = Watcher::new(roots);
    loop {
        let found = look(roots);
        let left = end.saturating_duration_since(Instant::now());
        if !found.candidates.is_empty() || left.is_zero() {
            return found;
        }
        watcher.wait(left.min(LOOK_AGAIN));
    }
}

/// Names of block devices that may be media, sorted.
fn devices(roots: &Roots) -> Vec<String> {
    let names = roots.sys.to_str().map(list).unwrap_or_default();
    names
        .into_iter()
        .filter(|name| !NO_MEDIA.iter().any(|no| name.starts_with(no)))
        .collect()
}

/// Bytes of the device; the kernel counts in 512, whatever the disk does.
fn size_of(roots: &Roots, device: &str) -> u64 {
    let path = roots.sys.join(device).join("size");
    path.to_str()
        .and_then(value)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0_u64)
        .saturating_mul(512)
}

/// The known files of a device with our label; `None` when it is not ours.
fn read_device(path: &Path, size: u64) -> Result<Option<Candidate>, String> {
    if size == 0 {
        return Ok(None);
    }
    // It may be a drive without a medium, or one that has gone again.
    let Ok(file) = File::open(path) else {
        return Ok(None);
    };
    read_medium(&file, size)
}

/// The known files of a medium with our label; `None` when it is not ours.
///
/// # Errors
///
/// The reason why a medium of ours cannot be read.
pub fn read_medium(disk: &dyn ReadAt, size: u64) -> Result<Option<Candidate>, String> {
    if let Some(other) = foreign(disk, size) {
        return Err(other.to_owned());
    }
    let volume = match fat::Volume::open(disk, size) {
        Ok(volume) => volume,
        Err(FatError::NotFat | FatError::Unreadable(_)) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    match volume.is_labelled(LABEL) {
        Ok(true) => read_files(&volume)
            .map(Some)
            .map_err(|error| error.to_string()),
        // Without our label in the boot sector it need not be ours at all.
        Err(error) if volume.boot_label_is(LABEL) => Err(error.to_string()),
        Ok(false) | Err(_) => Ok(None),
    }
}

fn read_files(volume: &fat::Volume<'_>) -> Result<Candidate, FatError> {
    let mut candidate = Candidate {
        device: String::new(),
        filesystem: volume.kind(),
        files: BTreeMap::new(),
        ignored: Vec::new(),
    };
    for entry in volume.root()? {
        let name = entry.name.to_ascii_lowercase();
        if !entry.is_folder && KNOWN_FILES.contains(&name.as_str()) {
            put(&mut candidate.files, name, volume.read(&entry, FILE_LIMIT)?)?;
        } else if entry.is_folder && KNOWN_FOLDERS.contains(&name.as_str()) {
            for inner in volume.folder(&entry)? {
                if !inner.is_folder {
                    let path = format!("{name}/{}", inner.name.to_ascii_lowercase());
                    put(&mut candidate.files, path, volume.read(&inner, FILE_LIMIT)?)?;
                }
            }
        } else if candidate.ignored.len() < NAME_LIMIT {
            candidate
                .ignored
                .push(entry.name.escape_default().to_string());
        }
    }
    Ok(candidate)
}

fn put(
    files: &mut BTreeMap<String, Vec<u8>>,
    name: String,
    bytes: Vec<u8>,
) -> Result<(), FatError> {
    if files.len() >= NAME_LIMIT {
        return Err(FatError::TooManyNames);
    }
    let shown = name.escape_default().to_string();
    match files.insert(name, bytes) {
        None => Ok(()),
        Some(_) => Err(FatError::SameName { name: shown }),
    }
}

/// File systems that people format sticks with and that we do not read.
fn foreign(disk: &dyn ReadAt, size: u64) -> Option<&'static str> {
    let mut head = [0; 11];
    if size >= 512 && disk.read_exact_at(&mut head, 0).is_ok() {
        match head.get(3..) {
            Some(b"EXFAT   ") => {
                return Some("has an exFAT file system, which is not read; format it as FAT32");
            }
            Some(b"NTFS    ") => {
                return Some("has an NTFS file system, which is not read; format it as FAT32");
            }
            _ => {}
        }
    }
    // ISO 9660 (ECMA-119, 8.4): the primary volume descriptor in sector 16.
    let mut descriptor = [0; 72];
    if size >= 34_816 && disk.read_exact_at(&mut descriptor, 32_768).is_ok() {
        let is_iso = descriptor.get(1..6) == Some(b"CD001");
        let label = descriptor.get(40..72).unwrap_or_default().trim_ascii_end();
        if is_iso && label.eq_ignore_ascii_case(LABEL.as_bytes()) {
            return Some("has an ISO 9660 file system, which is not read; use a FAT disk");
        }
    }
    None
}

impl ReadAt for &dyn ReadAt {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buf, offset)
    }
}
