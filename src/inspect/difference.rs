//! Where two disks part: the first partition, and in it the first file.
//!
//! The first disk is the one that is known; both are walked in step, so that
//! the second one, whoever made it, decides neither depth nor length.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::error::InspectError;
use super::gpt::{self, Partition};
use super::part::Part;
use super::volume::{Entry, Kind, Volume};
use crate::digest::{Digest, Hasher};
use crate::sparse::SparseSource;
use crate::units::ByteSize;

/// Bytes that are compared at a time.
const PIECE: usize = 1 << 20;
/// Deepest folder that is compared.
const MAX_DEPTH: usize = 128;

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
        path: String,
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
                write!(f, "`{}` (inode {inode}): {what}", path.escape_debug())
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
/// What is wrong with the first disk, and what reading either reports. What
/// is wrong with the second one is a difference.
pub fn first_difference(
    first: &Arc<dyn SparseSource>,
    second: &Arc<dyn SparseSource>,
) -> Result<Option<Difference>, InspectError> {
    let Some(at) = first_byte(first.as_ref(), second.as_ref())? else {
        let (first, second) = (first.size(), second.size());
        return Ok((first != second).then_some(Difference {
            partition: None,
            place: Place::Length { first, second },
        }));
    };
    let partitions = |disk: &Arc<dyn SparseSource>| {
        gpt::read(disk.as_ref()).map(|table| table.map_or_else(Vec::new, |table| table.partitions))
    };
    let known = partitions(first)?;
    if !partitions(second).is_ok_and(|found| found == known) {
        return Ok(Some(Difference {
            partition: None,
            place: Place::Table,
        }));
    }
    for partition in &known {
        if let Some(place) = in_partition(first, second, partition)? {
            return Ok(Some(Difference {
                partition: Some(partition.name.clone()),
                place,
            }));
        }
    }
    Ok(Some(Difference {
        partition: None,
        place: Place::Bytes { offset: at },
    }))
}

fn in_partition(
    first: &Arc<dyn SparseSource>,
    second: &Arc<dyn SparseSource>,
    partition: &Partition,
) -> Result<Option<Place>, InspectError> {
    let part = |disk: &Arc<dyn SparseSource>| {
        Part::new(Arc::clone(disk), partition.range.clone())
            .map(|part| -> Arc<dyn SparseSource> { Arc::new(part) })
    };
    let (Some(first), Some(second)) = (part(first), part(second)) else {
        return Ok(None);
    };
    let Some(offset) = first_byte(first.as_ref(), second.as_ref())? else {
        return Ok(None);
    };
    let here = Place::Bytes { offset };
    let (Some(known), Ok(Some(found))) = (Volume::open(first)?, Volume::open(second)) else {
        return Ok(Some(here));
    };
    Ok(Some(in_folder(&known, &found, "", 0)?.unwrap_or(here)))
}

/// The first differing entry of `folder` and what is below it, in the order of names.
fn in_folder(
    known: &Volume,
    found: &Volume,
    folder: &str,
    depth: usize,
) -> Result<Option<Place>, InspectError> {
    let listed = if folder.is_empty() { "/" } else { folder };
    let is_named = |entry: &Entry| entry.name != b"." && entry.name != b"..";
    let left: Vec<Entry> = known.list(listed)?.into_iter().filter(is_named).collect();
    let file = |entry: &Entry, what| {
        let path = format!("{folder}/{}", String::from_utf8_lossy(&entry.name));
        let inode = entry.inode;
        Place::File { path, inode, what }
    };
    let Ok(right) = found.list(listed) else {
        return Ok(Some(Place::File {
            path: listed.to_owned(),
            inode: 0,
            what: "cannot be read",
        }));
    };
    let mut right = right.into_iter().filter(is_named).peekable();
    for entry in &left {
        let other = match right.peek().map(|other| other.name.cmp(&entry.name)) {
            Some(Ordering::Equal) => right.next().expect("peeked at"),
            Some(Ordering::Less) => {
                let extra = right.next().expect("peeked at");
                return Ok(Some(file(&extra, "only on the second disk")));
            }
            Some(Ordering::Greater) | None => return Ok(Some(file(entry, "missing"))),
        };
        if let Some(what) = aspect(entry, &other) {
            return Ok(Some(file(entry, what)));
        }
        // A name that is no text cannot be asked for; its inode was compared.
        let Ok(name) = std::str::from_utf8(&entry.name) else {
            continue;
        };
        let path = format!("{folder}/{name}");
        match entry.kind {
            Kind::Directory if depth < MAX_DEPTH => {
                if let Some(place) = in_folder(known, found, &path, depth + 1)? {
                    return Ok(Some(place));
                }
            }
            Kind::File => {
                let expected = content(known, &path)?;
                match content(found, &path) {
                    Ok(sum) if sum == expected => {}
                    Ok(_) => return Ok(Some(file(entry, "content"))),
                    Err(_) => return Ok(Some(file(entry, "cannot be read"))),
                }
            }
            _ => {}
        }
    }
    Ok(right
        .next()
        .map(|extra| file(&extra, "only on the second disk")))
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

fn content(volume: &Volume, path: &str) -> Result<Digest, InspectError> {
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
