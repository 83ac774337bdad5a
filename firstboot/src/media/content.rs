//! From a disk's bytes to the names that we know: what the confined child does.
//!
//! Nothing here opens anything. It reads from one disk, and tells what it
//! found to an [`Emit`].

use std::collections::BTreeSet;

use super::damage::Damage;
use super::volume::{Entry, FileSystem, Kind, Run, Window};
use super::{
    FILE_LIMIT, KNOWN_FILES, LABEL, NAME_LIMIT, NO_CLOUD_FILES, NO_CLOUD_LABEL, OVF_FILE,
    OVF_FILE_OF_ISO, PAYLOAD_LIMIT, SLOTS, ext, fat, iso, parts,
};
use crate::init::gpt::ReadAt;

/// Folders whose files are read.
const TEXT_FOLDERS: [&str; 1] = ["license"];
/// The folder whose files are named, and read later.
const PAYLOAD: &str = "payload";
const PAYLOAD_SUFFIX: &str = ".vab";

/// Takes what is found on a disk, in the order in which it is found.
pub trait Emit {
    /// A volume with our label, on a partition or, with 0, on the whole disk.
    fn volume(&mut self, partition: u32, kind: &str);
    /// A file of the volume, its name in small letters.
    fn file(&mut self, name: &str, bytes: &[u8]);
    /// A file of the volume that may be written in place, and where it is.
    fn slot(&mut self, name: &str, runs: &[Run]);
    /// A bundle of the volume, and its size.
    fn payload(&mut self, name: &str, size: u64);
    /// Another name of the volume, escaped.
    fn ignored(&mut self, name: &str);
    /// The disk, or its volume that was told last, cannot be read.
    fn damaged(&mut self, partition: u32, reason: &str);
}

/// What a place on a disk holds.
enum Probe<'d> {
    /// Nothing that anybody here can read.
    Nothing,
    /// A file system of somebody else's. A CD may have partitions besides.
    Stranger { is_whole: bool },
    /// One with our label.
    Ours(Box<dyn FileSystem + 'd>),
    /// One for cloud-init.
    NoCloud(Box<dyn FileSystem + 'd>),
}

/// Tells every volume of ours on a disk of `size` bytes.
pub fn read_disk(disk: &dyn ReadAt, sector: u64, size: u64, emit: &mut dyn Emit) {
    match probe(disk, size, false) {
        Ok(Probe::Ours(volume)) => return tell(0, &*volume, emit),
        Ok(Probe::NoCloud(volume)) => return tell_no_cloud(0, &*volume, emit),
        Ok(Probe::Stranger { is_whole: false }) if tell_ovf(disk, size, emit) => return,
        Ok(Probe::Stranger { is_whole: true }) => return,
        Ok(Probe::Stranger { is_whole: false } | Probe::Nothing) => {}
        Err(reason) => return emit.damaged(0, &reason),
    }
    for part in parts::read(disk, sector, size) {
        let window = Window::new(disk, part.start, part.size);
        match probe(&window, part.size, part.is_ours) {
            Ok(Probe::Ours(volume)) => tell(part.number, &*volume, emit),
            Ok(Probe::NoCloud(volume)) => tell_no_cloud(part.number, &*volume, emit),
            Ok(Probe::Nothing) if part.is_ours => emit.damaged(
                part.number,
                "is a partition for a configuration, and has no file system that is read; format it as FAT",
            ),
            Ok(_) => {}
            Err(reason) => emit.damaged(part.number, &reason),
        }
    }
}

/// Finds the volume of ours on `partition` again, for one of its files.
///
/// # Errors
///
/// [`Damage`].
pub fn stream(
    disk: &dyn ReadAt,
    sector: u64,
    size: u64,
    partition: u32,
    name: &str,
    sink: super::volume::Sink<'_>,
) -> Result<(), Damage> {
    if partition == 0 {
        return stream_from(disk, size, false, name, sink);
    }
    let parts = parts::read(disk, sector, size);
    let part = parts.iter().find(|part| part.number == partition);
    let part = part.ok_or(Damage::NotThis)?;
    let window = Window::new(disk, part.start, part.size);
    stream_from(&window, part.size, part.is_ours, name, sink)
}

fn stream_from(
    disk: &dyn ReadAt,
    size: u64,
    is_ours: bool,
    name: &str,
    sink: super::volume::Sink<'_>,
) -> Result<(), Damage> {
    let Ok(Probe::Ours(volume)) = probe(disk, size, is_ours) else {
        return Err(Damage::NotThis);
    };
    let lost = || Damage::BrokenChain {
        name: name.escape_default().to_string(),
    };
    let inside = name.strip_prefix("payload/").ok_or_else(lost)?;
    let named = |wanted: &str, kind: Kind| {
        let wanted = wanted.to_owned();
        move |entry: &Entry| entry.kind == kind && entry.name.eq_ignore_ascii_case(&wanted)
    };
    let folder = volume
        .root()?
        .into_iter()
        .find(named(PAYLOAD, Kind::Folder));
    let entries = volume.folder(&folder.ok_or_else(lost)?)?;
    let file = entries.into_iter().find(named(inside, Kind::File));
    volume.read(&file.ok_or_else(lost)?, PAYLOAD_LIMIT, sink)
}

fn probe(disk: &dyn ReadAt, size: u64, is_ours: bool) -> Result<Probe<'_>, String> {
    if let Some(other) = foreign(disk, size) {
        return Err(other.to_owned());
    }
    let is_stranger = |damage: &Damage| matches!(damage, Damage::NotThis | Damage::Unreadable(_));
    match fat::Volume::open(disk, size) {
        Ok(volume) => return judge(Box::new(volume), is_ours, true),
        Err(damage) if is_stranger(&damage) => {}
        Err(damage) => return Err(damage.to_string()),
    }
    match iso::Volume::open(disk, size) {
        Ok(volume) => return judge(Box::new(volume), is_ours, false),
        Err(damage) if is_stranger(&damage) => {}
        Err(damage) => return Err(damage.to_string()),
    }
    match ext::Volume::open(disk, size) {
        Ok(volume) => return judge(Box::new(volume), is_ours, true),
        Err(damage) if is_stranger(&damage) => {}
        Err(damage) => return Err(damage.to_string()),
    }
    if is_udf(disk, size) {
        return Err("has a UDF file system, which is not read; format it as FAT".into());
    }
    Ok(Probe::Nothing)
}

fn judge<'d>(
    volume: Box<dyn FileSystem + 'd>,
    is_ours: bool,
    is_whole: bool,
) -> Result<Probe<'d>, String> {
    if is_ours {
        return Ok(Probe::Ours(volume));
    }
    if matches!(volume.is_labelled(NO_CLOUD_LABEL), Ok(true)) {
        return Ok(Probe::NoCloud(volume));
    }
    match volume.is_labelled(LABEL) {
        Ok(true) => Ok(Probe::Ours(volume)),
        // Without our label where it stands first it need not be ours at all.
        Err(damage) if volume.claims(LABEL) => Err(damage.to_string()),
        Ok(false) | Err(_) => Ok(Probe::Stranger { is_whole }),
    }
}

/// Tells the OVF environment of a CD, if it has one; whether it has. Damage
/// is the stranger's own business.
fn tell_ovf(disk: &dyn ReadAt, size: u64, emit: &mut dyn Emit) -> bool {
    let found = iso::Volume::open(disk, size).and_then(|volume| {
        let is_it = |entry: &Entry| {
            let is_named = |name: &str| entry.name.eq_ignore_ascii_case(name);
            entry.kind == Kind::File && (is_named(OVF_FILE) || is_named(OVF_FILE_OF_ISO))
        };
        let Some(entry) = volume.root()?.into_iter().find(is_it) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        volume.read(&entry, FILE_LIMIT, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(Some((volume.kind(), bytes)))
    });
    let Ok(Some((kind, bytes))) = found else {
        return false;
    };
    emit.volume(0, kind);
    emit.file(OVF_FILE, &bytes);
    true
}

/// Tells what cloud-init would read. Whether it counts the parent decides.
fn tell_no_cloud(partition: u32, volume: &dyn FileSystem, emit: &mut dyn Emit) {
    emit.volume(partition, volume.kind());
    let mut names = BTreeSet::new();
    let told = volume.root().and_then(|entries| {
        for entry in entries {
            let name = entry.name.to_ascii_lowercase();
            if NO_CLOUD_FILES.contains(&name.as_str()) {
                tell_text(volume, &name, &entry, &mut names, emit)?;
            } else {
                emit.ignored(&entry.escaped());
            }
        }
        Ok(())
    });
    if let Err(damage) = told {
        emit.damaged(partition, &damage.to_string());
    }
}

fn tell(partition: u32, volume: &dyn FileSystem, emit: &mut dyn Emit) {
    emit.volume(partition, volume.kind());
    if let Err(damage) = tell_files(volume, emit) {
        emit.damaged(partition, &damage.to_string());
    }
}

fn tell_files(volume: &dyn FileSystem, emit: &mut dyn Emit) -> Result<(), Damage> {
    let mut names = BTreeSet::new();
    let mut ignored = 0;
    let mut ignore = |name: String, emit: &mut dyn Emit| {
        ignored += 1;
        if ignored <= NAME_LIMIT {
            emit.ignored(&name);
        }
    };
    for entry in volume.root()? {
        let name = entry.name.to_ascii_lowercase();
        if SLOTS.contains(&name.as_str()) && entry.kind == Kind::File {
            // One that is damaged is none to write to.
            let runs = volume.runs(&entry).unwrap_or_default();
            if !runs.is_empty() {
                emit.slot(&name, &runs);
            }
        }
        if KNOWN_FILES.contains(&name.as_str()) {
            tell_text(volume, &name, &entry, &mut names, emit)?;
        } else if TEXT_FOLDERS.contains(&name.as_str()) {
            expect(&entry, Kind::Folder)?;
            for inner in volume.folder(&entry)? {
                let path = format!("{name}/{}", inner.name.to_ascii_lowercase());
                if inner.kind != Kind::Folder && is_plain(&inner.name) {
                    tell_text(volume, &path, &inner, &mut names, emit)?;
                } else {
                    ignore(format!("{name}/{}", inner.escaped()), emit);
                }
            }
        } else if name == PAYLOAD {
            expect(&entry, Kind::Folder)?;
            for inner in volume.folder(&entry)? {
                let path = format!("{name}/{}", inner.name.to_ascii_lowercase());
                if path.ends_with(PAYLOAD_SUFFIX) && is_plain(&inner.name) {
                    expect(&inner, Kind::File)?;
                    claim(&mut names, &path)?;
                    let size = volume.size(&inner)?;
                    check_budget(&inner, size)?;
                    emit.payload(&path, size);
                } else {
                    ignore(format!("{name}/{}", inner.escaped()), emit);
                }
            }
        } else {
            ignore(entry.escaped(), emit);
        }
    }
    Ok(())
}

fn tell_text(
    volume: &dyn FileSystem,
    name: &str,
    entry: &Entry,
    names: &mut BTreeSet<String>,
    emit: &mut dyn Emit,
) -> Result<(), Damage> {
    expect(entry, Kind::File)?;
    claim(names, name)?;
    let mut bytes = Vec::new();
    volume.read(entry, FILE_LIMIT, &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    emit.file(name, &bytes);
    Ok(())
}

fn expect(entry: &Entry, kind: Kind) -> Result<(), Damage> {
    if entry.kind == kind {
        return Ok(());
    }
    Err(Damage::NotAFile {
        name: entry.escaped(),
        what: match entry.kind {
            Kind::File => "a file in the place of a folder",
            Kind::Folder => "a folder",
            Kind::Other(what) => what,
        },
    })
}

fn claim(names: &mut BTreeSet<String>, name: &str) -> Result<(), Damage> {
    if names.len() >= NAME_LIMIT {
        return Err(Damage::TooManyNames);
    }
    if names.insert(name.to_owned()) {
        return Ok(());
    }
    let name = name.escape_default().to_string();
    Err(Damage::SameName { name })
}

fn check_budget(entry: &Entry, says: u64) -> Result<(), Damage> {
    if says <= PAYLOAD_LIMIT {
        return Ok(());
    }
    Err(Damage::TooLong {
        name: entry.escaped(),
        says,
        limit: PAYLOAD_LIMIT,
    })
}

/// Names of files in folders: nothing that needs an escape anywhere.
pub(super) fn is_plain(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// File systems that people format sticks with and that we do not read.
fn foreign(disk: &dyn ReadAt, size: u64) -> Option<&'static str> {
    let mut head = [0; 11];
    if size < 512 || disk.read_exact_at(&mut head, 0).is_err() {
        return None;
    }
    match head.get(3..) {
        Some(b"EXFAT   ") => {
            Some("has an exFAT file system, which is not read; format it as FAT32")
        }
        Some(b"NTFS    ") => Some("has an NTFS file system, which is not read; format it as FAT32"),
        _ => None,
    }
}

/// ECMA-167 part 3, 3.1: the volume recognition sequence begins at 32 KiB,
/// and names `NSR02` or `NSR03`.
fn is_udf(disk: &dyn ReadAt, size: u64) -> bool {
    (16..32).map(|at| at * 2048).any(|at| {
        let mut descriptor = [0; 6];
        at + 6 <= size
            && disk.read_exact_at(&mut descriptor, at).is_ok()
            && matches!(descriptor.get(1..6), Some(b"NSR02" | b"NSR03"))
    })
}
