//! GPT, read and validated.
//!
//! Source: UEFI Specification 2.10, chapter 5; field names are its. Narrower
//! than that: sectors of 512 bytes, a table of at most 1 MiB.

use std::ops::Range;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::blocks::read_vec;
use super::error::InspectError;
use crate::sparse::SparseSource;
use crate::units::Guid;

const SECTOR: u64 = 512;
const SIGNATURE: [u8; 8] = *b"EFI PART";
const REVISION: u32 = 0x0001_0000;
/// Most entries, and most bytes of all of them.
const MOST_ENTRIES: u32 = 4096;
const MOST_TABLE: usize = 1 << 20;

#[expect(clippy::struct_field_names, reason = "the names of the specification")]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    signature: [u8; 8],
    revision: U32,
    header_size: U32,
    header_crc32: U32,
    reserved: U32,
    my_lba: U64,
    alternate_lba: U64,
    first_usable_lba: U64,
    last_usable_lba: U64,
    disk_guid: [u8; 16],
    partition_entry_lba: U64,
    number_of_partition_entries: U32,
    size_of_partition_entry: U32,
    partition_entry_array_crc32: U32,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    partition_type_guid: [u8; 16],
    unique_partition_guid: [u8; 16],
    starting_lba: U64,
    ending_lba: U64,
    attributes: U64,
    partition_name: [U16; 36],
}

const _: () = {
    assert!(size_of::<Header>() == 92);
    assert!(size_of::<RawEntry>() == 128);
};

/// A sound partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpt {
    /// The disk's identifier.
    pub disk_guid: Guid,
    /// The partitions, by number.
    pub partitions: Vec<Partition>,
    /// What is wrong with the primary table, when the backup had to be read.
    pub primary_fault: Option<&'static str>,
    /// What is wrong with the backup table, when something is.
    pub backup_fault: Option<&'static str>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// From 1.
    pub number: u32,
    /// Its bytes on the disk.
    pub range: Range<u64>,
    /// What it is for.
    pub type_guid: Guid,
    /// Which one it is.
    pub guid: Guid,
    /// Attribute bits.
    pub attributes: u64,
    /// Its name; what is not UTF-16 is replaced.
    pub name: String,
}

/// The partition table of `disk`; `None` when it has none. The backup counts
/// where the primary is damaged, as for firmware and kernels.
///
/// # Errors
///
/// [`InspectError::Table`] for the rule that the primary table breaks, when the
/// backup is no better.
pub fn read(disk: &dyn SparseSource) -> Result<Option<Gpt>, InspectError> {
    let Some(first) = sector(disk, 1)? else {
        return Ok(None);
    };
    let last = disk.size().bytes() / SECTOR - 1;
    let damaged = if first.starts_with(&SIGNATURE) {
        match table_at(disk, &first, 1) {
            Ok((header, table)) => {
                let gpt = gpt(&header, &table)?;
                let backup_fault = backup_fault(disk, &header, &table, last);
                return Ok(Some(Gpt {
                    backup_fault,
                    ..gpt
                }));
            }
            Err(error) => Some(error),
        }
    } else {
        None
    };
    let primary_fault = match &damaged {
        None => "it is missing",
        Some(InspectError::Table { what, .. }) => what,
        Some(_) => "it cannot be read",
    };
    // Whoever cleared the beginning of a disk to use it whole left the end.
    let has_mark = is_protected(disk)? || damaged.is_some();
    let backup = sector(disk, last)?.filter(|sector| has_mark && sector.starts_with(&SIGNATURE));
    if let Some(sector) = backup
        && let Ok((header, table)) = table_at(disk, &sector, last)
        && let Ok(gpt) = gpt(&header, &table)
    {
        return Ok(Some(Gpt {
            primary_fault: Some(primary_fault),
            ..gpt
        }));
    }
    damaged.map_or(Ok(None), Err)
}

/// Whether sector 0 says that the disk has a GPT: a partition of type 0xEE.
fn is_protected(disk: &dyn SparseSource) -> Result<bool, InspectError> {
    let boot = sector(disk, 0)?.unwrap_or_default();
    let types = [450, 466, 482, 498].map(|at| boot.get(at) == Some(&0xee));
    Ok(boot.ends_with(&[0x55, 0xaa]) && types.contains(&true))
}

fn gpt(header: &Header, table: &[u8]) -> Result<Gpt, InspectError> {
    let mut partitions = partitions(header, table)?;
    check(&partitions)?;
    partitions.sort_by_key(|partition| partition.number);
    Ok(Gpt {
        disk_guid: guid(header.disk_guid),
        partitions,
        primary_fault: None,
        backup_fault: None,
    })
}

fn broken<T>(what: &'static str) -> Result<T, InspectError> {
    Err(InspectError::Table {
        what,
        partition: None,
    })
}

fn sector(disk: &dyn SparseSource, lba: u64) -> Result<Option<Vec<u8>>, InspectError> {
    let Some(offset) = lba.checked_mul(SECTOR) else {
        return Ok(None);
    };
    let read = read_vec(disk, offset, 512);
    read.map_err(|source| InspectError::Read { offset, source })
}

/// A header and its entries, both with the right sums.
fn table_at(
    disk: &dyn SparseSource,
    sector: &[u8],
    lba: u64,
) -> Result<(Header, Vec<u8>), InspectError> {
    let Ok((header, _)) = Header::read_from_prefix(sector) else {
        return broken("the header is cut off");
    };
    let size = header.header_size.get() as usize;
    if header.revision.get() != REVISION || !(92..=512).contains(&size) {
        return broken("the header's revision or size is unknown");
    }
    let mut unsummed = sector[..size].to_vec();
    unsummed[16..20].fill(0);
    if crc32(&unsummed) != header.header_crc32.get() {
        return broken("the header's sum is wrong");
    }
    if header.my_lba.get() != lba {
        return broken("the header belongs elsewhere");
    }
    let sectors = disk.size().bytes() / SECTOR;
    let (first, last) = (header.first_usable_lba.get(), header.last_usable_lba.get());
    if first > last.saturating_add(1) || last >= sectors {
        return broken("the usable space is not on the disk");
    }
    let count = header.number_of_partition_entries.get();
    let entry = header.size_of_partition_entry.get() as usize;
    if count > MOST_ENTRIES || !(entry.is_power_of_two() && (128..=4096).contains(&entry)) {
        return broken("the entries' number or size is impossible");
    }
    let length = count as usize * entry;
    if length > MOST_TABLE {
        return broken("the table is longer than 1 MiB");
    }
    let start = header.partition_entry_lba.get();
    let end = start.saturating_add((length as u64).div_ceil(SECTOR));
    if start < 2 || (start <= last && end > first) {
        return broken("the table is where partitions may be");
    }
    let offset = start.saturating_mul(SECTOR);
    let table = read_vec(disk, offset, length);
    let table = table.map_err(|source| InspectError::Read { offset, source })?;
    let Some(table) = table else {
        return broken("the table is behind the end of the disk");
    };
    if crc32(&table) != header.partition_entry_array_crc32.get() {
        return broken("the table's sum is wrong");
    }
    Ok((header, table))
}

fn partitions(header: &Header, table: &[u8]) -> Result<Vec<Partition>, InspectError> {
    let size = header.size_of_partition_entry.get() as usize;
    let mut partitions = Vec::new();
    for (number, bytes) in (1..).zip(table.chunks_exact(size)) {
        let Ok((entry, _)) = RawEntry::read_from_prefix(bytes) else {
            continue;
        };
        if entry.partition_type_guid == [0; 16] {
            continue;
        }
        let fault = |what| {
            Err(InspectError::Table {
                what,
                partition: Some(number),
            })
        };
        let (start, end) = (entry.starting_lba.get(), entry.ending_lba.get());
        if end < start {
            return fault("a partition ends before it begins");
        }
        if start < header.first_usable_lba.get() || end > header.last_usable_lba.get() {
            return fault("a partition is outside of the usable space");
        }
        let name: Vec<u16> = entry.partition_name.iter().map(|unit| unit.get()).collect();
        let name = name.split(|unit| *unit == 0).next().unwrap_or_default();
        partitions.push(Partition {
            number,
            range: start * SECTOR..(end + 1) * SECTOR,
            type_guid: guid(entry.partition_type_guid),
            guid: guid(entry.unique_partition_guid),
            attributes: entry.attributes.get(),
            name: String::from_utf16_lossy(name),
        });
    }
    Ok(partitions)
}

/// No two partitions share bytes or an identifier.
fn check(partitions: &[Partition]) -> Result<(), InspectError> {
    let mut by_start: Vec<&Partition> = partitions.iter().collect();
    by_start.sort_by_key(|partition| partition.range.start);
    if let Some(pair) = by_start
        .windows(2)
        .find(|pair| pair[1].range.start < pair[0].range.end)
    {
        return Err(InspectError::Table {
            what: "two partitions overlap",
            partition: Some(pair[1].number),
        });
    }
    let mut by_guid = by_start;
    by_guid.sort_by_key(|partition| partition.guid);
    if let Some(pair) = by_guid.windows(2).find(|pair| pair[0].guid == pair[1].guid) {
        return Err(InspectError::Table {
            what: "two partitions have one identifier",
            partition: Some(pair[1].number),
        });
    }
    Ok(())
}

fn backup_fault(
    disk: &dyn SparseSource,
    primary: &Header,
    table: &[u8],
    last: u64,
) -> Option<&'static str> {
    if primary.alternate_lba.get() != last {
        return Some("it is not at the end of the disk");
    }
    let backup = sector(disk, last).ok().flatten()?;
    match table_at(disk, &backup, last) {
        Ok((_, copy)) if copy == table => None,
        Ok(_) => Some("it has other partitions"),
        Err(InspectError::Table { what, .. }) => Some(what),
        Err(_) => Some("it cannot be read"),
    }
}

/// The first three groups are little endian on disk.
fn guid(disk: [u8; 16]) -> Guid {
    let mut bytes = disk;
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Guid::from_bytes(bytes)
}

/// CRC-32 (ISO 3309), as UEFI has it.
fn crc32(bytes: &[u8]) -> u32 {
    zlib_rs::crc32::crc32(0, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_known_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_known_type_is_read_in_text_order() {
        let disk = [
            0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e,
            0xc9, 0x3b,
        ];
        assert_eq!(
            guid(disk).to_string(),
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
        );
    }
}
