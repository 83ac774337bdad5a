//! FAT12, FAT16 and FAT32 as a stranger wrote them: read only, bounded, and
//! never believed.
//!
//! Source: Microsoft, "FAT: General Overview of On-Disk Format", 1.03. Narrower
//! than that: a folder has at most 4096 slots, a file is read up to a limit
//! that the caller states, names are matched without case in ASCII.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::io;

use crate::init::gpt::ReadAt;

/// Bytes of a folder's slot.
const SLOT: usize = 32;
/// The longest folder that is read: 4096 slots.
const FOLDER_LIMIT: u64 = 4096 * SLOT as u64;
/// Slots that one long name may have: 255 units, 13 in each.
const LONG_SLOTS: usize = 20;
/// `BPB_BytsPerSec` may be these.
const SECTOR_SIZES: [u32; 4] = [512, 1024, 2048, 4096];
/// Below this many clusters a volume is FAT12; from the next bound on, FAT32.
const FAT16_CLUSTERS: u64 = 4085;
const FAT32_CLUSTERS: u64 = 65_525;

const ATTR_VOLUME_ID: u8 = 0x08;
const ATTR_DIRECTORY: u8 = 0x10;
const ATTR_LONG_NAME: u8 = 0x0f;
const ATTR_LONG_NAME_MASK: u8 = 0x3f;
const LAST_LONG_ENTRY: u8 = 0x40;
const FREE: u8 = 0xe5;
const FREE_AND_LAST: u8 = 0x00;

/// Why a volume cannot be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum FatError {
    /// The boot sector is not that of a FAT.
    NotFat,
    /// The device could not be read.
    Unreadable(io::Error),
    /// The volume says it is longer than its device.
    Truncated {
        /// Bytes that it says it has.
        says: u64,
        /// Bytes of the device.
        has: u64,
    },
    /// A chain of clusters comes back to itself.
    Loop {
        /// Whose chain, escaped.
        name: String,
    },
    /// A chain leads to a cluster that is free, bad or not there.
    BrokenChain {
        /// Whose chain, escaped.
        name: String,
    },
    /// A chain ends before the file's length.
    TooShort {
        /// The file, escaped.
        name: String,
        /// Bytes that it says it has.
        says: u64,
    },
    /// The file is longer than what is read.
    TooLong {
        /// The file, escaped.
        name: String,
        /// Bytes that it says it has.
        says: u64,
        /// Bytes that are read at most.
        limit: u64,
    },
    /// A folder has too many slots.
    FolderTooLong {
        /// The folder, escaped.
        name: String,
    },
    /// More known files than anybody needs.
    TooManyNames,
    /// Two files with one name.
    SameName {
        /// The name, escaped.
        name: String,
    },
    /// A name that no FAT may hold.
    BadName {
        /// The name, escaped.
        name: String,
    },
}

impl fmt::Display for FatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFat => f.write_str("is not a FAT file system"),
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Self::Truncated { says, has } => {
                write!(
                    f,
                    "is cut off: its file system has {says} bytes, the device {has}"
                )
            }
            Self::Loop { name } => {
                write!(f, "is damaged: the clusters of `{name}` run in a circle")
            }
            Self::BrokenChain { name } => {
                write!(f, "is damaged: the clusters of `{name}` lead nowhere")
            }
            Self::TooShort { name, says } => {
                write!(f, "is damaged: `{name}` has less than its {says} bytes")
            }
            Self::TooLong { name, says, limit } => {
                write!(
                    f,
                    "has a file that is too long: `{name}` has {says} bytes of at most {limit}"
                )
            }
            Self::FolderTooLong { name } => {
                write!(f, "has too many files in `{name}`; use a medium of its own")
            }
            Self::TooManyNames => f.write_str("has too many files; use a medium of its own"),
            Self::SameName { name } => write!(f, "is damaged: there are two files `{name}`"),
            Self::BadName { name } => write!(f, "is damaged: no FAT may hold the name `{name}`"),
        }
    }
}

/// One file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its long name, else its short one.
    pub name: String,
    /// Whether it is a folder.
    pub is_folder: bool,
    cluster: u32,
    size: u32,
}

impl Entry {
    fn escaped(&self) -> String {
        self.name.escape_default().to_string()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

/// A volume whose boot sector made sense.
pub struct Volume<'a> {
    disk: &'a dyn ReadAt,
    width: Width,
    /// Bytes in a cluster.
    cluster_size: u64,
    /// Byte at which the first copy of the table begins.
    table: u64,
    /// Byte at which the fixed root folder begins, and its bytes; FAT12 and 16.
    fixed_root: (u64, u64),
    /// First cluster of the root folder; FAT32.
    root_cluster: u32,
    /// Byte at which cluster 2 begins.
    data: u64,
    /// Clusters, numbered from 2.
    clusters: u64,
    boot_label: [u8; 11],
    /// The part of the table that was read last: where it begins, its bytes.
    cached: RefCell<(u64, Vec<u8>)>,
}

impl fmt::Debug for Volume<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume")
            .field("width", &self.width)
            .field("clusters", &self.clusters)
            .finish_non_exhaustive()
    }
}

impl<'a> Volume<'a> {
    /// Reads the boot sector of a device of `size` bytes.
    ///
    /// # Errors
    ///
    /// [`FatError::NotFat`], [`FatError::Unreadable`] and
    /// [`FatError::Truncated`].
    pub fn open(disk: &'a dyn ReadAt, size: u64) -> Result<Self, FatError> {
        let mut sector = [0; 512];
        if size < 512 {
            return Err(FatError::NotFat);
        }
        disk.read_exact_at(&mut sector, 0)
            .map_err(FatError::Unreadable)?;
        let volume = Self::parse(disk, &sector).ok_or(FatError::NotFat)?;
        let says = volume
            .data
            .saturating_add(volume.clusters.saturating_mul(volume.cluster_size));
        if says > size {
            return Err(FatError::Truncated { says, has: size });
        }
        Ok(volume)
    }

    /// `None` when any field is outside of what the specification allows.
    fn parse(disk: &'a dyn ReadAt, sector: &[u8; 512]) -> Option<Self> {
        let byte = |at: usize| sector.get(at).copied();
        let small = |at: usize| u16_at(sector, at).map(u64::from);
        let large = |at: usize| u32_at(sector, at).map(u64::from);
        let sector_size = u32::from(u16_at(sector, 11)?);
        let per_cluster = byte(13)?;
        let (reserved, copies) = (small(14)?, u64::from(byte(16)?));
        let has_jump = matches!(byte(0)?, 0xeb | 0xe9);
        let is_sound = has_jump
            && u16_at(sector, 510)? == 0xaa55
            && SECTOR_SIZES.contains(&sector_size)
            && per_cluster.is_power_of_two()
            && reserved > 0
            && matches!(copies, 1 | 2);
        if !is_sound {
            return None;
        }
        let sector_size = u64::from(sector_size);
        let root_slots = small(17)?;
        let total = if small(19)? == 0 {
            large(32)?
        } else {
            small(19)?
        };
        let short_table = small(22)?;
        let table_sectors = if short_table == 0 {
            large(36)?
        } else {
            short_table
        };
        let root_bytes = root_slots * SLOT as u64;
        let root_sector = reserved + copies * table_sectors;
        let data_sector = root_sector + root_bytes.div_ceil(sector_size);
        let clusters = total.checked_sub(data_sector)? / u64::from(per_cluster);
        let width = match clusters {
            0 => return None,
            _ if short_table == 0 => Width::Fat32,
            1..FAT16_CLUSTERS => Width::Fat12,
            FAT16_CLUSTERS..FAT32_CLUSTERS => Width::Fat16,
            _ => return None,
        };
        let needed = (clusters + 2).saturating_mul(width.bits()).div_ceil(8);
        let is_fat32 = width == Width::Fat32;
        if table_sectors * sector_size < needed || (root_slots == 0) != is_fat32 {
            return None;
        }
        let label = sector.get(if is_fat32 { 71..82 } else { 43..54 })?;
        Some(Self {
            disk,
            width,
            cluster_size: u64::from(per_cluster) * sector_size,
            table: reserved * sector_size,
            fixed_root: (root_sector * sector_size, root_bytes),
            root_cluster: u32_at(sector, 44)?,
            data: data_sector * sector_size,
            clusters,
            boot_label: label.try_into().ok()?,
            cached: RefCell::default(),
        })
    }

    /// `FAT12`, `FAT16` or `FAT32`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.width {
            Width::Fat12 => "FAT12",
            Width::Fat16 => "FAT16",
            Width::Fat32 => "FAT32",
        }
    }

    /// Whether the boot sector's label is `label`, in any case.
    #[must_use]
    pub fn boot_label_is(&self, label: &str) -> bool {
        is_label(&self.boot_label, label)
    }

    /// Whether the label in the boot sector or in the root folder is `label`,
    /// in any case. Systems differ in which of the two they write.
    ///
    /// # Errors
    ///
    /// What reading the root folder finds.
    pub fn is_labelled(&self, label: &str) -> Result<bool, FatError> {
        if self.boot_label_is(label) {
            return Ok(true);
        }
        let slots = self.root_bytes()?;
        let in_root = slots
            .chunks_exact(SLOT)
            .take_while(|slot| slot.first() != Some(&FREE_AND_LAST))
            .filter(|slot| slot.first() != Some(&FREE))
            .filter(|slot| {
                slot.get(11).is_some_and(|attr| {
                    attr & ATTR_LONG_NAME_MASK != ATTR_LONG_NAME && attr & ATTR_VOLUME_ID != 0
                })
            })
            .any(|slot| slot.get(..11).is_some_and(|name| is_label(name, label)));
        Ok(in_root)
    }

    /// The files and folders of the root folder.
    ///
    /// # Errors
    ///
    /// Any [`FatError`] of a damaged folder.
    pub fn root(&self) -> Result<Vec<Entry>, FatError> {
        entries(&self.root_bytes()?)
    }

    /// The files and folders of `folder`.
    ///
    /// # Errors
    ///
    /// Any [`FatError`] of a damaged folder.
    pub fn folder(&self, folder: &Entry) -> Result<Vec<Entry>, FatError> {
        entries(&self.folder_bytes(folder.cluster, &folder.escaped())?)
    }

    /// The bytes of `file`.
    ///
    /// # Errors
    ///
    /// [`FatError::TooLong`] above `limit` bytes; [`FatError::Loop`],
    /// [`FatError::BrokenChain`] and [`FatError::TooShort`] for damage.
    pub fn read(&self, file: &Entry, limit: u64) -> Result<Vec<u8>, FatError> {
        let says = u64::from(file.size);
        let name = file.escaped();
        if says > limit {
            return Err(FatError::TooLong { name, says, limit });
        }
        if says == 0 {
            return Ok(Vec::new());
        }
        let wanted = says.div_ceil(self.cluster_size);
        let clusters = self.chain(file.cluster, wanted, &name)?;
        if (clusters.len() as u64) < wanted {
            return Err(FatError::TooShort { name, says });
        }
        self.bytes(&clusters, says)
    }

    fn root_bytes(&self) -> Result<Vec<u8>, FatError> {
        let (at, length) = self.fixed_root;
        if self.width == Width::Fat32 {
            return self.folder_bytes(self.root_cluster, "/");
        }
        if length > FOLDER_LIMIT {
            return Err(FatError::FolderTooLong { name: "/".into() });
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(too_large)?];
        self.disk
            .read_exact_at(&mut bytes, at)
            .map_err(FatError::Unreadable)?;
        Ok(bytes)
    }

    fn folder_bytes(&self, cluster: u32, name: &str) -> Result<Vec<u8>, FatError> {
        let limit = FOLDER_LIMIT.div_ceil(self.cluster_size).max(1);
        let clusters = self.chain(cluster, limit + 1, name)?;
        if clusters.len() as u64 > limit {
            return Err(FatError::FolderTooLong {
                name: name.to_owned(),
            });
        }
        self.bytes(&clusters, clusters.len() as u64 * self.cluster_size)
    }

    /// Up to `limit` clusters of the chain that begins at `first`.
    fn chain(&self, first: u32, limit: u64, name: &str) -> Result<Vec<u32>, FatError> {
        let mut clusters = Vec::new();
        let mut seen = BTreeSet::new();
        let mut at = first;
        while (clusters.len() as u64) < limit {
            if at < 2 || u64::from(at) >= self.clusters + 2 {
                return Err(FatError::BrokenChain {
                    name: name.to_owned(),
                });
            }
            if !seen.insert(at) {
                return Err(FatError::Loop {
                    name: name.to_owned(),
                });
            }
            clusters.push(at);
            let next = self.next(at)?;
            if next >= self.width.end_of_chain() {
                break;
            }
            at = next;
        }
        Ok(clusters)
    }

    /// The table's entry for `cluster`, which is one of the volume's.
    fn next(&self, cluster: u32) -> Result<u32, FatError> {
        let cluster = u64::from(cluster);
        match self.width {
            Width::Fat12 => {
                let pair = self.table_u16(cluster + cluster / 2)?;
                let is_odd = cluster % 2 == 1;
                Ok(u32::from(if is_odd { pair >> 4 } else { pair & 0x0fff }))
            }
            Width::Fat16 => Ok(u32::from(self.table_u16(cluster * 2)?)),
            Width::Fat32 => {
                let low = self.table_u16(cluster * 4)?;
                let high = self.table_u16(cluster * 4 + 2)?;
                Ok((u32::from(high) << 16 | u32::from(low)) & 0x0fff_ffff)
            }
        }
    }

    fn table_u16(&self, at: u64) -> Result<u16, FatError> {
        /// Bytes of the table that are read at once.
        const PIECE: u64 = 512;
        let mut value = 0;
        for (shift, at) in [(0, at), (8, at + 1)] {
            let start = at / PIECE * PIECE;
            let mut cached = self.cached.borrow_mut();
            if cached.1.is_empty() || cached.0 != start {
                let mut piece = vec![0; 512];
                self.disk
                    .read_exact_at(&mut piece, self.table + start)
                    .map_err(FatError::Unreadable)?;
                *cached = (start, piece);
            }
            let inside = usize::try_from(at - start).map_err(too_large)?;
            let byte = cached.1.get(inside).copied().unwrap_or_default();
            value |= u16::from(byte) << shift;
        }
        Ok(value)
    }

    /// The first `length` bytes of `clusters`.
    fn bytes(&self, clusters: &[u32], length: u64) -> Result<Vec<u8>, FatError> {
        let mut bytes = Vec::new();
        for cluster in clusters {
            let left = length - bytes.len() as u64;
            let count = usize::try_from(left.min(self.cluster_size)).map_err(too_large)?;
            let at = self.data + u64::from(cluster - 2) * self.cluster_size;
            let start = bytes.len();
            bytes.resize(start + count, 0);
            let piece = bytes.get_mut(start..).unwrap_or_default();
            self.disk
                .read_exact_at(piece, at)
                .map_err(FatError::Unreadable)?;
        }
        Ok(bytes)
    }
}

impl Width {
    fn bits(self) -> u64 {
        match self {
            Self::Fat12 => 12,
            Self::Fat16 => 16,
            Self::Fat32 => 32,
        }
    }

    /// Values from here on end a chain.
    fn end_of_chain(self) -> u32 {
        match self {
            Self::Fat12 => 0x0ff8,
            Self::Fat16 => 0xfff8,
            Self::Fat32 => 0x0fff_fff8,
        }
    }
}

fn too_large(error: std::num::TryFromIntError) -> FatError {
    FatError::Unreadable(io::Error::other(error))
}

/// Labels are padded with spaces.
fn is_label(field: &[u8], label: &str) -> bool {
    field
        .trim_ascii_end()
        .eq_ignore_ascii_case(label.as_bytes())
}

/// The entries in a folder's slots; `.`, `..`, labels and free slots left out.
fn entries(slots: &[u8]) -> Result<Vec<Entry>, FatError> {
    let mut entries = Vec::new();
    let mut long = LongName::default();
    for slot in slots.chunks_exact(SLOT) {
        let (Some(first), Some(attr)) = (slot.first(), slot.get(11)) else {
            break;
        };
        match *first {
            FREE_AND_LAST => break,
            FREE => {
                long = LongName::default();
                continue;
            }
            _ => {}
        }
        if attr & ATTR_LONG_NAME_MASK == ATTR_LONG_NAME {
            long.add(slot);
            continue;
        }
        let long_name = std::mem::take(&mut long).finish(slot);
        if attr & ATTR_VOLUME_ID != 0
            || slot.starts_with(b".          ")
            || slot.starts_with(b"..         ")
        {
            continue;
        }
        entries.push(entry(slot, long_name)?);
    }
    Ok(entries)
}

fn entry(slot: &[u8], long_name: Option<String>) -> Result<Entry, FatError> {
    let name = long_name.unwrap_or_else(|| short_name(slot));
    let is_bad = matches!(name.as_str(), "" | "." | "..")
        || name.contains(['/', '\\', '\0'])
        || name.chars().any(char::is_control);
    if is_bad {
        return Err(FatError::BadName {
            name: name.escape_default().to_string(),
        });
    }
    let (high, low) = (
        u16_at(slot, 20).unwrap_or_default(),
        u16_at(slot, 26).unwrap_or_default(),
    );
    Ok(Entry {
        name,
        is_folder: slot.get(11).is_some_and(|attr| attr & ATTR_DIRECTORY != 0),
        cluster: u32::from(high) << 16 | u32::from(low),
        size: u32_at(slot, 28).unwrap_or_default(),
    })
}

/// `SITE    TOM` is `SITE.TOM`. Bytes above ASCII are in an unknown code page
/// and become `?`: no name that we know has any.
fn short_name(slot: &[u8]) -> String {
    let text = |bytes: Option<&[u8]>| -> String {
        bytes
            .unwrap_or_default()
            .trim_ascii_end()
            .iter()
            .map(|byte| {
                if byte.is_ascii() {
                    char::from(*byte)
                } else {
                    '?'
                }
            })
            .collect()
    };
    let (base, extension) = (text(slot.get(..8)), text(slot.get(8..11)));
    if extension.is_empty() {
        base
    } else {
        format!("{base}.{extension}")
    }
}

/// A long name in the making: its slots come last part first.
#[derive(Debug, Default)]
struct LongName {
    parts: Vec<[u16; 13]>,
    checksum: u8,
    /// Number of the slot that must come next; 0 when all are there.
    next: u8,
}

impl LongName {
    fn add(&mut self, slot: &[u8]) {
        let (Some(order), Some(checksum)) = (slot.first(), slot.get(13)) else {
            return;
        };
        let number = order & !LAST_LONG_ENTRY;
        if order & LAST_LONG_ENTRY != 0 {
            *self = Self {
                parts: Vec::new(),
                checksum: *checksum,
                next: number,
            };
        }
        let fits = number != 0
            && usize::from(number) <= LONG_SLOTS
            && number == self.next
            && *checksum == self.checksum;
        if !fits {
            *self = Self::default();
            return;
        }
        let mut units = [0; 13];
        let places = (1..11)
            .step_by(2)
            .chain((14..26).step_by(2))
            .chain((28..32).step_by(2));
        for (unit, at) in units.iter_mut().zip(places) {
            *unit = u16_at(slot, at).unwrap_or_default();
        }
        self.parts.push(units);
        self.next = number - 1;
    }

    /// The name, if all its slots came and belong to the short name of `slot`.
    fn finish(self, slot: &[u8]) -> Option<String> {
        let sum = slot
            .get(..11)?
            .iter()
            .fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.parts.is_empty() || self.next != 0 || sum != self.checksum {
            return None;
        }
        let units = self
            .parts
            .iter()
            .rev()
            .flatten()
            .copied()
            .take_while(|unit| *unit != 0);
        char::decode_utf16(units)
            .collect::<Result<String, _>>()
            .ok()
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
