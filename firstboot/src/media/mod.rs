//! The customer's config disk: found by its label, read without a mount.
//!
//! In: the machine's block devices. Out: [`Candidate`]s with the bytes of the
//! names we know, and what is wrong with media that look like ours.
//! Never here: mounts, writes, what the files mean, a length from the medium
//! that is trusted, a byte of a medium outside of the confined [`child`].
//! Checked by: images of FAT, ISO 9660 and ext made by other people's tools,
//! hostile and damaged ones, and boots with the disk on every bus.

#[cfg(test)]
mod bad_media;
mod channel;
#[cfg_attr(
    test,
    expect(dead_code, reason = "the test program cannot be executed as the agent")
)]
pub mod child;
mod content;
mod damage;
mod ext;
mod fat;
mod fat_names;
#[cfg(target_arch = "x86_64")]
pub mod guestinfo;
#[cfg(test)]
mod hostile;
mod iso;
#[cfg(test)]
mod matrix;
mod parts;
mod volume;
mod watch;
mod wire;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use consign_schema::Policy;
pub use watch::Watcher;
pub use write::{Put, put_slot};

use crate::init::devices::{list, value};
use crate::init::gpt::ReadAt;
use volume::Run;
use wire::Told;

/// The label of a config medium, in any case.
pub const LABEL: &str = "VACONFIG";
/// The customer's file.
pub const SITE_FILE: &str = "site.toml";
/// The OVF environment on the CD that a hypervisor attaches.
const OVF_FILE: &str = "ovf-env.xml";
/// The same in plain ISO 9660, whose names have no hyphen.
const OVF_FILE_OF_ISO: &str = "ovf_env.xml";
/// The label of media for cloud-init, and what is read of them.
const NO_CLOUD_LABEL: &str = "CIDATA";
const NO_CLOUD_FILES: [&str; 3] = ["meta-data", "user-data", "network-config"];
/// Files in the medium's root that are read.
const KNOWN_FILES: [&str; 5] = [
    SITE_FILE,
    "site.toml.sig",
    "site.toml.minisig",
    "secrets.age",
    "claim.txt",
];
/// Files of a medium that are written in place: reports, and what is wiped.
pub const SLOTS: [&str; 5] = [
    "report.json",
    "request.toml",
    "support.tar",
    "secrets.age",
    "claim.txt",
];
/// Such a file is at most this long, in bytes.
const SLOT_LIMIT: u64 = 4 << 20;
/// A text file is at most this long, in bytes.
pub const FILE_LIMIT: u64 = 256 << 10;
/// A bundle is at most this long, in bytes.
const PAYLOAD_LIMIT: u64 = 4 << 30;
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
    /// `/sys`, for what the firmware brings.
    pub firmware: PathBuf,
    /// Which ways the vendor allows.
    pub policy: Policy,
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            sys: "/sys/class/block".into(),
            dev: "/dev".into(),
            firmware: "/sys".into(),
            policy: Policy::default(),
        }
    }
}

/// In which form a configuration comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// As `site.toml`.
    #[default]
    Site,
    /// As an OVF environment.
    Ovf,
    /// As cloud-init's `NoCloud` has it.
    NoCloud,
}

/// A medium with our label, or another way by which a configuration came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidate {
    /// In which form it comes.
    pub form: Form,
    /// The kernel's name: `vdb`, `sda1`, `sr0`.
    pub device: String,
    /// The kernel's name of the whole disk.
    pub disk: String,
    /// Its partition on the disk; 0 where it is the whole of it.
    pub partition: u32,
    /// `FAT16`, `ISO 9660 with Joliet`, `ext4`.
    pub filesystem: String,
    /// The known files by their names in small letters, folders with a slash.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The bundles by their names in small letters, and their sizes.
    pub payload: BTreeMap<String, u64>,
    /// Files that can be written in place, and where they are in the volume.
    pub slots: BTreeMap<String, Vec<Run>>,
    /// Other names, escaped, at most 64.
    pub ignored: Vec<String>,
}

impl Candidate {
    /// Whether it is a medium of ours, which outranks every other way.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.form == Form::Site && !self.disk.is_empty()
    }
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
        if let Some(told) = read_device(roots, &device) {
            found.candidates.extend(told.candidates);
            found.unreadable.extend(told.unreadable);
        }
    }
    // Our form first: of equal ones the first is named.
    let candidates = std::mem::take(&mut found.candidates).into_iter();
    let (ours, others): (Vec<_>, Vec<_>) =
        candidates.partition(|candidate| candidate.form == Form::Site);
    found.candidates.extend(ours.into_iter().chain(others));
    channel::look(&roots.firmware, &roots.policy, &mut found);
    channel::admit(found, &roots.policy)
}

/// Looks at one disk or drive again.
#[must_use]
pub fn look_at(roots: &Roots, disk: &str) -> Vec<Candidate> {
    let told = read_device(roots, disk);
    told.map(|told| told.candidates).unwrap_or_default()
}

/// Passes the bytes of a medium's bundle on: exactly as many as it said.
///
/// # Errors
///
/// When the medium does not keep its word or is gone; what `sink` says.
pub fn read_bundle(
    roots: &Roots,
    candidate: &Candidate,
    name: &str,
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let disk = &candidate.disk;
    let file = File::open(roots.dev.join(disk))?;
    let (sector, size) = (sector_of(roots, disk), size_of(roots, disk));
    #[cfg(not(test))]
    return child::read_payload(file, (sector, size), candidate, name, sink);
    #[cfg(test)]
    content::stream(&file, sector, size, candidate.partition, name, sink)
        .map_err(|damage| io::Error::other(damage.to_string()))
}

/// Looks until a configuration is there, or no disk, nor a bus that leads to
/// one, has come for as long as `patience`: a drive behind a slow controller comes when its
/// driver has been loaded and has asked every port. What comes during a look
/// counts too. Six times that at most, and what the last look takes. Where a
/// way of lower rank has brought one, a medium of ours may still come for a
/// third of that.
#[must_use]
pub fn find(roots: &Roots, patience: Duration) -> Found {
    let last = Instant::now() + 6 * patience;
    let mut watcher = Watcher::new(roots);
    loop {
        let found = look(roots);
        watcher.catch_up();
        let patience = match found.candidates.as_slice() {
            [] => patience,
            _ => patience / 3,
        };
        let end = last.min(watcher.heard() + patience);
        let left = end.saturating_duration_since(Instant::now());
        if found.candidates.iter().any(Candidate::is_ours) || left.is_zero() {
            return found;
        }
        watcher.wait(left.min(LOOK_AGAIN));
    }
}

/// Names of disks and drives that may hold media, sorted. Partitions are not
/// among them: their table is read here, whether the kernel reads it or not.
fn devices(roots: &Roots) -> Vec<String> {
    let names = roots.sys.to_str().map(list).unwrap_or_default();
    names
        .into_iter()
        .filter(|name| !NO_MEDIA.iter().any(|no| name.starts_with(no)))
        .filter(|name| !roots.sys.join(name).join("partition").exists())
        .collect()
}

/// Bytes of the device; the kernel counts in 512, whatever the disk does.
fn size_of(roots: &Roots, device: &str) -> u64 {
    fact(roots, device, "size").unwrap_or(0).saturating_mul(512)
}

fn sector_of(roots: &Roots, device: &str) -> u64 {
    fact(roots, device, "queue/logical_block_size").unwrap_or(512)
}

fn fact(roots: &Roots, device: &str, name: &str) -> Option<u64> {
    let path = roots.sys.join(device).join(name);
    path.to_str().and_then(value)?.parse().ok()
}

/// What a disk tells; nothing of a drive without a medium.
fn read_device(roots: &Roots, device: &str) -> Option<Told> {
    let size = size_of(roots, device);
    if size == 0 {
        return None;
    }
    // It may be a drive without a medium, or one that has gone again.
    let file = File::open(roots.dev.join(device)).ok()?;
    let sector = sector_of(roots, device);
    #[cfg(not(test))]
    return Some(child::look(file, device, sector, size));
    // The test program cannot be executed as the agent.
    #[cfg(test)]
    {
        let mut told = Told::of(device);
        content::read_disk(&file, sector, size, &mut told);
        Some(told)
    }
}

/// Text from outside as it may be shown: one line, nothing that a terminal
/// obeys.
fn printable(text: &str, limit: usize) -> String {
    let escaped = text.chars().flat_map(|c| {
        let plain = !c.is_control() && !matches!(c, '\u{200b}'..='\u{206f}' | '\u{feff}');
        let escape = (!plain).then(|| c.escape_unicode());
        plain
            .then_some(c)
            .into_iter()
            .chain(escape.into_iter().flatten())
    });
    escaped.take(limit).collect()
}

impl ReadAt for &dyn ReadAt {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buf, offset)
    }
}
