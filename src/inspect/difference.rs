//! Where two disks part: the first partition, and in it the first file.
//!
//! The first disk is the one that is known; both are walked in step, so that
//! the second one, whoever made it, decides neither depth nor length.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::error::InspectError;
use super::gpt::{self, Partition};
use super::part::Part;
use super::volume::{Entry, Kind, MOST_HELD, Volume};
use crate::digest::{Digest, Hasher};
use crate::sparse::SparseSource;
use crate::tree::Escaped;
use crate::units::ByteSize;

/// Bytes that are compared at a time.
const PIECE: usize = 1 << 20;
/// Deepest folder that is compared.
const MAX_DEPTH: usize = 128;
const ONLY_SECOND: &str = "only on the second disk";

/// Where two disks part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The partition's name; `None` outside of all partitions.
    pub partition: Option<String>,
    /// The place in it.
    pub place: Place,
}

/// The first thing that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The partition tables name other partitions.
    Table,
    /// Something that has a name.
    File {
        /// Its full name in the volume.
        path: Vec<u8>,
        /// Its inode on the first disk; on the second one where only that has it.
        inode: u64,
        /// What of it: `content`, `mode`, `missing`, ….
        what: &'static str,
    },
    /// No file: the file system's own structures, or no file system at all.
    Bytes {
        /// From the start of the partition, or of the disk.
        offset: u64,
    },
    /// All of the shorter one is the same.
    Length {
        /// The first disk's.
        first: ByteSize,
        /// The second one's.
        second: ByteSize,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.partition {
            Some(name) => write!(f, "partition {}: ", name.escape_debug())?,
            None => f.write_str("outside of the partitions: ")?,
        }
        match &self.place {
            Place::Table => f.write_str("another partition table"),
            Place::File { path, inode, what } => {
                write!(f, "`{}` (inode {inode}): {what}", Escaped(path))
            }
            Place::Bytes { offset } => write!(f, "byte {offset}, which belongs to no file"),
            Place::Length { first, second } => {
                write!(f, "{} bytes against {}", first.bytes(), second.bytes())
            }
        }
    }
}

/// The first difference between two disks; `None` when they are the same.
///
/// # Errors
///
/// As [`differences`].
pub fn first_difference(
    first: &Arc<dyn SparseSource>,
    second: &Arc<dyn SparseSource>,
) -> Result<Option<Difference>, InspectError> {
    Ok(differences(first, second, 1)?.pop())
}

/// The first `limit` differences between two disks, by partition and name;
/// of a partition without differing files one, of a disk without differing
/// partitions one.
///
/// # Errors
///
/// What is wrong with the first disk, and what reading either reports. What
/// is wrong with the second one is a difference.
pub fn differences(
    first: &Arc<dyn SparseSource>,
    second: &Arc<dyn SparseSource>,
    limit: usize,
) -> Result<Vec<Difference>, InspectError> {
    let outside = |place| Difference {
        partition: None,
        place,
    };
    let Some(offset) = first_byte(first.as_ref(), second.as_ref())? else {
        let (first, second) = (first.size(), second.size());
        let length = (first != second).then(|| outside(Place::Length { first, second }));
        return Ok(length.into_iter().collect());
    };
    let partitions = |disk: &Arc<dyn SparseSource>| {
        gpt::read(disk.as_ref()).map(|table| table.map_or_else(Vec::new, |table| table.partitions))
    };
    let known = partitions(first)?;
    if !partitions(second).is_ok_and(|found| found == known) {
        return Ok(vec![outside(Place::Table)]);
    }
    let mut all = Vec::new();
    for partition in &known {
        let mut places = Places {
            found: Vec::new(),
            limit: limit - all.len(),
        };
        in_partition(first, second, partition, &mut places)?;
        all.extend(places.found.into_iter().map(|place| Difference {
            partition: Some(partition.name.clone()),
            place,
        }));
        if all.len() >= limit {
            break;
        }
    }
    if all.is_empty() {
        all.push(outside(Place::Bytes { offset }));
    }
    Ok(all)
}

/// What was found, until it is enough.
struct Places {
    found: Vec<Place>,
    limit: usize,
}

impl Places {
    fn are_enough(&self) -> bool {
        self.found.len() >= self.limit
    }

    fn add(&mut self, folder: &[u8], entry: &Entry, what: &'static str) {
        if !self.are_enough() {
            let path = below(folder, entry);
            let inode = entry.inode;
            self.found.push(Place::File { path, inode, what });
        }
    }

    /// A folder that only the second disk does not give.
    fn unreadable(&mut self, folder: &[u8]) {
        if !self.are_enough() {
            self.found.push(Place::File {
                path: folder.to_owned(),
                inode: 0,
                what: "cannot be read",
            });
        }
    }
}

fn in_partition(
    first: &Arc<dyn SparseSource>,
    second: &Arc<dyn SparseSource>,
    partition: &Partition,
    places: &mut Places,
) -> Result<(), InspectError> {
    let part = |disk: &Arc<dyn SparseSource>| {
        Part::new(Arc::clone(disk), partition.range.clone())
            .map(|part| -> Arc<dyn SparseSource> { Arc::new(part) })
    };
    let (Some(first), Some(second)) = (part(first), part(second)) else {
        return Ok(());
    };
    let Some(offset) = first_byte(first.as_ref(), second.as_ref())? else {
        return Ok(());
    };
    if let (Some(known), Ok(Some(found))) = (Volume::open(first)?, Volume::open(second)) {
        let room = Room {
            known: MOST_HELD,
            found: MOST_HELD,
        };
        in_folder(&known, &found, b"", room, places)?;
    }
    if places.found.is_empty() {
        places.found.push(Place::Bytes { offset });
    }
    Ok(())
}

/// How much of either disk's lists may be held, in bytes.
#[derive(Debug, Clone, Copy)]
struct Room {
    known: usize,
    found: usize,
}

/// The differing entries of `folder` and of what is below it, by name.
fn in_folder(
    known: &Volume,
    found: &Volume,
    folder: &[u8],
    room: Room,
    places: &mut Places,
) -> Result<(), InspectError> {
    let listed = if folder.is_empty() { &b"/"[..] } else { folder };
    let depth = folder.split(|byte| *byte == b'/').skip(1).count();
    if depth > MAX_DEPTH {
        return Err(InspectError::TooDeep {
            path: folder.to_owned(),
            most: MAX_DEPTH,
        });
    }
    let left = known.entries_within(listed, room.known)?;
    let Ok(right) = found.entries_within(listed, room.found) else {
        places.unreadable(listed);
        return Ok(());
    };
    let room = Room {
        known: room.known.saturating_sub(left.held()),
        found: room.found.saturating_sub(right.held()),
    };
    let mut right = right.peekable();
    for entry in left {
        let entry = entry?;
        let is_before =
            |other: &Result<Entry, _>| other.as_ref().is_ok_and(|other| other.name < entry.name);
        while let Some(Ok(extra)) = right.next_if(is_before) {
            places.add(folder, &extra, ONLY_SECOND);
        }
        if places.are_enough() {
            return Ok(());
        }
        if let Some(Err(_)) = right.peek() {
            places.unreadable(listed);
            return Ok(());
        }
        let is_same =
            |other: &Result<Entry, _>| other.as_ref().is_ok_and(|other| other.name == entry.name);
        let Some(Ok(other)) = right.next_if(is_same) else {
            places.add(folder, &entry, "missing");
            continue;
        };
        if let Some(what) = aspect(&entry, &other) {
            places.add(folder, &entry, what);
            if entry.kind != other.kind {
                continue;
            }
        }
        let path = below(folder, &entry);
        match entry.kind {
            Kind::Directory => in_folder(known, found, &path, room, places)?,
            Kind::File if aspect(&entry, &other).is_none() => {
                let expected = content(known, &path)?;
                match content(found, &path) {
                    Ok(sum) if sum == expected => {}
                    Ok(_) => places.add(folder, &entry, "content"),
                    Err(_) => places.add(folder, &entry, "cannot be read"),
                }
            }
            _ => {}
        }
    }
    for extra in right {
        match extra {
            Ok(extra) => places.add(folder, &extra, ONLY_SECOND),
            Err(_) => places.unreadable(listed),
        }
    }
    Ok(())
}

/// The path of an entry in `folder`.
fn below(folder: &[u8], entry: &Entry) -> Vec<u8> {
    [folder, b"/", &entry.name].concat()
}

/// What two entries of one name do not share.
fn aspect(first: &Entry, second: &Entry) -> Option<&'static str> {
    let checks = [
        (first.kind == second.kind, "kind"),
        (first.mode == second.mode, "mode"),
        ((first.uid, first.gid) == (second.uid, second.gid), "owner"),
        (first.size == second.size, "length"),
        (first.xattrs == second.xattrs, "extended attributes"),
        (first.mtime == second.mtime, "time"),
        (first.links == second.links, "number of names"),
        (first.inode == second.inode, "number of the inode"),
    ];
    checks.iter().find(|(same, _)| !same).map(|(_, what)| *what)
}

fn content(volume: &Volume, path: &[u8]) -> Result<Digest, InspectError> {
    let mut hasher = Hasher::new();
    volume.read(path, &mut |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    Ok(hasher.finish())
}

/// The first byte that differs in what both have; holes cost nothing.
fn first_byte(
    first: &dyn SparseSource,
    second: &dyn SparseSource,
) -> Result<Option<u64>, InspectError> {
    let end = first.size().min(second.size()).bytes();
    let ranges = first.data_ranges().chain(second.data_ranges());
    let mut ranges: Vec<Range<u64>> = ranges.filter(|range| range.start < end).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    let (mut one, mut other) = (vec![0; PIECE], vec![0; PIECE]);
    let mut at = 0;
    for range in ranges {
        at = at.max(range.start);
        let stop = range.end.min(end);
        while at < stop {
            let length = usize::try_from(stop - at).map_or(PIECE, |left| left.min(PIECE));
            let (one, other) = (&mut one[..length], &mut other[..length]);
            let failed = |source| InspectError::Read { offset: at, source };
            first.read_exact_at(one, at).map_err(failed)?;
            second.read_exact_at(other, at).map_err(failed)?;
            if let Some(place) = one.iter().zip(&*other).position(|(a, b)| a != b) {
                return Ok(Some(at + place as u64));
            }
            at += length as u64;
        }
    }
    Ok(None)
}
