//! The partitions of a disk that may be anybody's: GPT, and MBR with its
//! chain of logical ones.
//!
//! Source: UEFI Specification 2.10, chapters 5.2 and 5.3.

use std::collections::BTreeSet;

use super::volume::u32_at;
use crate::init::gpt::{self, Guid, ReadAt};

/// The type of a partition that holds a site configuration, whatever its
/// label is: `57c0f161-6e5e-4d5f-9a76-0c6f6e736967`.
pub const CONFIG_TYPE: &str = "57c0f161-6e5e-4d5f-9a76-0c6f6e736967";
/// Partitions that are looked at.
const MAX_PARTS: usize = 64;
/// Links of a chain of logical partitions that are followed.
const MAX_CHAIN: usize = 32;
/// Sector sizes that tables are looked for with, besides the disk's own.
const SECTORS: [u64; 3] = [512, 2048, 4096];

/// One partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Number as the kernel counts, from 1.
    pub number: u32,
    /// Its first byte.
    pub start: u64,
    /// Its bytes.
    pub size: u64,
    /// Whether its type says that it is a config partition.
    pub is_ours: bool,
}

/// The partitions of a disk of `size` bytes that lie within it; none where
/// there is no table.
pub fn read(disk: &dyn ReadAt, sector: u64, size: u64) -> Vec<Part> {
    let mut sectors = vec![sector];
    sectors.extend(SECTORS.into_iter().filter(|other| *other != sector));
    let ours = Guid::parse(CONFIG_TYPE);
    for sector in sectors {
        if let Ok(found) = gpt::read(&disk, sector, size) {
            let parts = found.into_iter().filter_map(|part| {
                let count = part.last.checked_sub(part.first)?.checked_add(1)?;
                Some(Part {
                    number: part.number,
                    start: part.first.checked_mul(sector)?,
                    size: count.checked_mul(sector)?,
                    is_ours: Some(part.kind) == ours,
                })
            });
            return within(parts, size);
        }
    }
    let mut parts = mbr(disk, 512);
    if sector > 512 {
        parts.extend(mbr(disk, sector));
    }
    within(parts.into_iter(), size)
}

fn within(parts: impl Iterator<Item = Part>, size: u64) -> Vec<Part> {
    let is_inside = |part: &Part| {
        part.start > 0
            && part.size > 0
            && part
                .start
                .checked_add(part.size)
                .is_some_and(|end| end <= size)
    };
    parts.filter(is_inside).take(MAX_PARTS).collect()
}

/// An entry of an MBR: type, first sector, sectors.
type MbrEntry = (u8, u64, u64);

/// The four entries of the table in `lba`; `None` when it is none.
fn table(disk: &dyn ReadAt, sector: u64, lba: u64) -> Option<Vec<MbrEntry>> {
    let mut block = [0; 512];
    disk.read_exact_at(&mut block, lba.checked_mul(sector)?)
        .ok()?;
    if block.get(510..512) != Some(&[0x55, 0xaa]) {
        return None;
    }
    let entries = block.get(446..510)?.chunks_exact(16);
    entries
        .map(|entry| {
            let is_flag = matches!(entry.first(), Some(0 | 0x80));
            is_flag.then_some((
                *entry.get(4)?,
                u64::from(u32_at(entry, 8)?),
                u64::from(u32_at(entry, 12)?),
            ))
        })
        .collect()
}

fn mbr(disk: &dyn ReadAt, sector: u64) -> Vec<Part> {
    let Some(entries) = table(disk, sector, 0) else {
        return Vec::new();
    };
    let mut parts = Vec::new();
    for (number, (kind, first, count)) in (1..).zip(entries) {
        match kind {
            0 => {}
            0x05 | 0x0f | 0x85 => logical(disk, sector, first, &mut parts),
            _ => parts.push(Part {
                number,
                start: first * sector,
                size: count * sector,
                is_ours: false,
            }),
        }
    }
    parts
}

/// The chain of logical partitions in the extended one that begins at `base`.
fn logical(disk: &dyn ReadAt, sector: u64, base: u64, parts: &mut Vec<Part>) {
    let mut seen = BTreeSet::new();
    let mut at = base;
    for number in (5..).take(MAX_CHAIN) {
        let entries = table(disk, sector, at).filter(|_| seen.insert(at));
        let Some(&[(kind, first, count), (next_kind, next, _), ..]) = entries.as_deref() else {
            return;
        };
        if kind != 0 {
            parts.push(Part {
                number,
                start: (at + first) * sector,
                size: count * sector,
                is_ours: false,
            });
        }
        if next_kind == 0 || next == 0 {
            return;
        }
        at = base + next;
    }
}
