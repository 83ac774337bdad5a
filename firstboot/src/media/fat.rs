//! FAT12, FAT16 and FAT32 as a stranger wrote them: read only, bounded, and
//! never believed.
//!
//! Source: Microsoft, "FAT: General Overview of On-Disk Format", 1.03. Narrower
//! than that: a folder has at most 4096 slots, a file is read up to a limit
//! that the caller states, names are matched without case in ASCII.

use std::cell::RefCell;
use std::fmt;
use std::io;

use super::SLOT_LIMIT;
use super::damage::Damage;
use super::fat_names::{SLOT, entries, labels};
use super::volume::{Entry, FileSystem, MAX_RUNS, Run, Sink, is_label, pass, u16_at, u32_at};
use crate::init::gpt::ReadAt;

/// The longest folder that is read: 4096 slots.
const FOLDER_LIMIT: u64 = 4096 * SLOT as u64;
/// `BPB_BytsPerSec` may be these.
const SECTOR_SIZES: [u32; 4] = [512, 1024, 2048, 4096];
/// Below this many clusters a volume is FAT12; from the next bound on, FAT32.
const FAT16_CLUSTERS: u64 = 4085;
const FAT32_CLUSTERS: u64 = 65_525;

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
    /// [`Damage::NotThis`], [`Damage::Unreadable`] and
    /// [`Damage::Truncated`].
    pub fn open(disk: &'a dyn ReadAt, size: u64) -> Result<Self, Damage> {
        let mut sector = [0; 512];
        if size < 512 {
            return Err(Damage::NotThis);
        }
        disk.read_exact_at(&mut sector, 0)
            .map_err(Damage::Unreadable)?;
        let volume = Self::parse(disk, &sector).ok_or(Damage::NotThis)?;
        let says = volume
            .data
            .saturating_add(volume.clusters.saturating_mul(volume.cluster_size));
        if says > size {
            return Err(Damage::Truncated { says, has: size });
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

    fn root_bytes(&self) -> Result<Vec<u8>, Damage> {
        let (at, length) = self.fixed_root;
        if self.width == Width::Fat32 {
            return self.folder_bytes(self.root_cluster, "/");
        }
        if length > FOLDER_LIMIT {
            return Err(Damage::FolderTooLong { name: "/".into() });
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(too_large)?];
        self.disk
            .read_exact_at(&mut bytes, at)
            .map_err(Damage::Unreadable)?;
        Ok(bytes)
    }

    fn folder_bytes(&self, cluster: u32, name: &str) -> Result<Vec<u8>, Damage> {
        let limit = FOLDER_LIMIT.div_ceil(self.cluster_size).max(1);
        let mut bytes = Vec::new();
        let count = self.walk(cluster, limit + 1, name, &mut |cluster| {
            let mut take = |piece: &[u8]| {
                bytes.extend_from_slice(piece);
                Ok(())
            };
            pass(self.disk, self.place(cluster), self.cluster_size, &mut take)
        })?;
        if count > limit {
            return Err(Damage::FolderTooLong {
                name: name.to_owned(),
            });
        }
        Ok(bytes)
    }

    /// Where `cluster` begins, which is one of the volume's.
    fn place(&self, cluster: u32) -> u64 {
        self.data + u64::from(cluster - 2) * self.cluster_size
    }

    /// Up to `limit` clusters of the chain that begins at `first`, told one by
    /// one. How many there were.
    fn walk(
        &self,
        first: u32,
        limit: u64,
        name: &str,
        tell: &mut dyn FnMut(u32) -> Result<(), Damage>,
    ) -> Result<u64, Damage> {
        // Brent's way to notice a circle without remembering the way.
        let (mut marker, mut mark_at) = (first, 1);
        let mut at = first;
        let mut count = 0;
        while count < limit {
            if at < 2 || u64::from(at) >= self.clusters + 2 {
                return Err(Damage::BrokenChain {
                    name: name.to_owned(),
                });
            }
            if count > 0 && at == marker {
                return Err(Damage::Loop {
                    name: name.to_owned(),
                });
            }
            if count == mark_at {
                (marker, mark_at) = (at, mark_at * 2);
            }
            tell(at)?;
            count += 1;
            let next = self.next(at)?;
            if next >= self.width.end_of_chain() {
                break;
            }
            at = next;
        }
        Ok(count)
    }

    /// The table's entry for `cluster`, which is one of the volume's.
    fn next(&self, cluster: u32) -> Result<u32, Damage> {
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

    fn table_u16(&self, at: u64) -> Result<u16, Damage> {
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
                    .map_err(Damage::Unreadable)?;
                *cached = (start, piece);
            }
            let inside = usize::try_from(at - start).map_err(too_large)?;
            let byte = cached.1.get(inside).copied().unwrap_or_default();
            value |= u16::from(byte) << shift;
        }
        Ok(value)
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

impl FileSystem for Volume<'_> {
    fn kind(&self) -> &'static str {
        match self.width {
            Width::Fat12 => "FAT12",
            Width::Fat16 => "FAT16",
            Width::Fat32 => "FAT32",
        }
    }

    /// Systems differ in which of the two labels they write.
    fn is_labelled(&self, label: &str) -> Result<bool, Damage> {
        if self.claims(label) {
            return Ok(true);
        }
        let slots = self.root_bytes()?;
        let mut found = labels(&slots);
        Ok(found.any(|name| is_label(name, label)))
    }

    fn claims(&self, label: &str) -> bool {
        is_label(&self.boot_label, label)
    }

    fn root(&self) -> Result<Vec<Entry>, Damage> {
        entries(&self.root_bytes()?)
    }

    fn folder(&self, folder: &Entry) -> Result<Vec<Entry>, Damage> {
        entries(&self.folder_bytes(first_cluster(folder)?, &folder.escaped())?)
    }

    fn runs(&self, file: &Entry) -> Result<Vec<Run>, Damage> {
        let name = file.escaped();
        let wanted = file.size.div_ceil(self.cluster_size);
        if wanted == 0 || file.size > SLOT_LIMIT {
            return Ok(Vec::new());
        }
        let mut left = file.size;
        let mut runs: Vec<Run> = Vec::new();
        let count = self.walk(first_cluster(file)?, wanted, &name, &mut |cluster| {
            let (place, length) = (self.place(cluster), left.min(self.cluster_size));
            left -= length;
            match runs.last_mut() {
                Some((start, run)) if *start + *run == place => *run += length,
                _ => runs.push((place, length)),
            }
            Ok(())
        })?;
        if count < wanted || runs.len() > MAX_RUNS {
            runs.clear();
        }
        Ok(runs)
    }

    fn read(&self, file: &Entry, limit: u64, sink: Sink<'_>) -> Result<(), Damage> {
        let says = file.size;
        let name = file.escaped();
        if says > limit {
            return Err(Damage::TooLong { name, says, limit });
        }
        if says == 0 {
            return Ok(());
        }
        let wanted = says.div_ceil(self.cluster_size);
        let mut left = says;
        let count = self.walk(first_cluster(file)?, wanted, &name, &mut |cluster| {
            let length = left.min(self.cluster_size);
            left -= length;
            pass(self.disk, self.place(cluster), length, sink)
        })?;
        if count < wanted {
            return Err(Damage::TooShort { name, says });
        }
        Ok(())
    }
}

fn first_cluster(entry: &Entry) -> Result<u32, Damage> {
    u32::try_from(entry.place).map_err(|_| Damage::BrokenChain {
        name: entry.escaped(),
    })
}

fn too_large(error: std::num::TryFromIntError) -> Damage {
    Damage::Unreadable(io::Error::other(error))
}
