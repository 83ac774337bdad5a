//! The GUID partition table of a disk that has become larger: what is written
//! where, and in which order.
//!
//! Source: UEFI Specification 2.10, section 5.2.3 (protective MBR) and 5.3
//! (header and entries). Narrower: tables whose entries follow the header
//! directly, as every common program writes them; others are left alone.
//!
//! The order makes every cut safe. The new backup comes first, at the new
//! end: nothing looks there while the primary is whole. Then the primary; if
//! it is cut in the middle, its checksums fail, and kernel and firmware take
//! the backup, which is whole by then. So does the next start, which writes
//! the primary again.

use std::ops::Range;

use crate::init::crc::crc32;

const SIGNATURE: &[u8] = b"EFI PART";
/// `HeaderSize` of revision 1.0.
const HEADER_SIZE: usize = 92;
/// Entries of 128 bytes; more is not common.
const ENTRY_SIZE: usize = 128;
/// Entries at most.
const MAX_ENTRIES: u32 = 1024;
/// Partitions end on a whole mebibyte.
const ALIGNMENT: u64 = 1 << 20;
/// `SizeInLBA` of the protective entry, the first of the MBR.
const MBR_SIZE_FIELD: Range<usize> = 458..462;

/// A disk as far as its table is concerned.
pub trait Disk {
    /// Bytes of the disk.
    fn size(&self) -> u64;

    /// Bytes of a logical sector.
    fn sector(&self) -> u64;

    /// Reads `length` bytes at `offset`.
    ///
    /// # Errors
    ///
    /// What the device reports.
    fn read(&self, offset: u64, length: usize) -> std::io::Result<Vec<u8>>;
}

/// Bytes to be written in one go, and flushed before the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Offset in bytes.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What has to be done to a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub writes: Vec<Write>,
    /// Bytes of the partition afterwards.
    pub partition: Range<u64>,
}

/// One copy of the table.
#[derive(Debug, Clone)]
struct Table {
    header: Vec<u8>,
    entries: Vec<u8>,
}

impl Table {
    /// The copy whose header is at sector `lba`, when it is whole.
    fn read(disk: &impl Disk, lba: u64) -> Option<Self> {
        let at = lba.checked_mul(disk.sector())?;
        let header = disk.read(at, HEADER_SIZE).ok()?;
        let table = Self {
            header,
            entries: Vec::new(),
        };
        let count = u32_at(&table.header, 80)?;
        let is_common = table.header.starts_with(SIGNATURE)
            && u32_at(&table.header, 12)? == 92
            && u64_at(&table.header, 24)? == lba
            && usize::try_from(u32_at(&table.header, 84)?).ok()? == ENTRY_SIZE
            && (1..=MAX_ENTRIES).contains(&count);
        if !is_common || table.header_checksum() != u32_at(&table.header, 16)? {
            return None;
        }
        let length = usize::try_from(count).ok()? * ENTRY_SIZE;
        let entries_at = table.field(72).checked_mul(disk.sector())?;
        let entries = disk.read(entries_at, length).ok()?;
        (crc32(&entries) == u32_at(&table.header, 88)?).then_some(Self { entries, ..table })
    }

    fn field(&self, at: usize) -> u64 {
        u64_at(&self.header, at).unwrap_or(0)
    }

    fn header_checksum(&self) -> u32 {
        let mut header = self.header.clone();
        put(&mut header, 16, &[0; 4]);
        crc32(&header)
    }

    /// Number, from 0, and sectors of the used entries.
    fn used(&self) -> impl Iterator<Item = (usize, Range<u64>)> {
        let entries = self.entries.chunks_exact(ENTRY_SIZE).enumerate();
        entries.filter_map(|(number, entry)| {
            let end = u64_at(entry, 40)?.checked_add(1)?;
            let is_used = entry.iter().take(16).any(|byte| *byte != 0);
            is_used.then_some((number, u64_at(entry, 32)?..end))
        })
    }

    /// The same entries for the header at `my_lba` with its other copy at
    /// `alternate`, its entries at `entries_lba`.
    fn placed(&self, my_lba: u64, alternate: u64, entries_lba: u64, last_usable: u64) -> Self {
        let mut header = self.header.clone();
        put(&mut header, 24, &my_lba.to_le_bytes());
        put(&mut header, 32, &alternate.to_le_bytes());
        put(&mut header, 48, &last_usable.to_le_bytes());
        put(&mut header, 72, &entries_lba.to_le_bytes());
        put(&mut header, 88, &crc32(&self.entries).to_le_bytes());
        let mut placed = Self {
            header,
            entries: self.entries.clone(),
        };
        let checksum = placed.header_checksum();
        put(&mut placed.header, 16, &checksum.to_le_bytes());
        placed
    }
}

/// What makes the partition that begins at byte `start` reach the end of the
/// disk; nothing when it does, when it is not the last one, or when the disk
/// has no table that we know.
pub fn plan(disk: &impl Disk, start: u64) -> Option<Plan> {
    let sector = disk.sector();
    let last = (disk.size() / sector).checked_sub(1)?;
    let primary = Table::read(disk, 1);
    let (table, is_whole) = match &primary {
        Some(table) if table.field(32) > last => return None,
        Some(table) => (table.clone(), true),
        // Cut while the primary was written: the backup is whole.
        None => (Table::read(disk, last)?, false),
    };
    let entry_sectors = (table.entries.len() as u64).div_ceil(sector);
    if is_whole && table.field(72) != 2 {
        return None;
    }
    let last_usable = last.checked_sub(entry_sectors + 1)?;
    let (number, range) = table.used().max_by_key(|(_, range)| range.start)?;
    if range.start.checked_mul(sector)? != start {
        return None;
    }
    let end = (last_usable + 1) * sector / ALIGNMENT * ALIGNMENT / sector;
    let end = end.max(range.end);
    if is_whole && end == range.end {
        return None;
    }
    let mut grown = table;
    put(
        &mut grown.entries,
        number * ENTRY_SIZE + 40,
        &(end - 1).to_le_bytes(),
    );
    let backup = grown.placed(last, 1, last - entry_sectors, last_usable);
    let primary = grown.placed(1, last, 2, last_usable);
    let mut writes = Vec::new();
    if is_whole {
        writes.push(Write {
            offset: (last - entry_sectors) * sector,
            bytes: padded(&backup.entries, entry_sectors * sector),
        });
        writes.push(Write {
            offset: last * sector,
            bytes: padded(&backup.header, sector),
        });
    }
    writes.push(Write {
        offset: 0,
        bytes: head(disk, &primary, last)?,
    });
    Some(Plan {
        writes,
        partition: start..end * sector,
    })
}

/// Protective MBR, header and entries of the primary: one write, as the
/// kernel's cache writes them together anyhow.
fn head(disk: &impl Disk, primary: &Table, last: u64) -> Option<Vec<u8>> {
    let sector = usize::try_from(disk.sector()).ok()?;
    let mut bytes = disk.read(0, sector * 2).ok()?;
    let covered = u32::try_from(last).unwrap_or(u32::MAX);
    bytes
        .get_mut(MBR_SIZE_FIELD)?
        .copy_from_slice(&covered.to_le_bytes());
    put(&mut bytes, sector, &primary.header);
    bytes.extend_from_slice(&padded(
        &primary.entries,
        (primary.entries.len() as u64).next_multiple_of(disk.sector()),
    ));
    Some(bytes)
}

fn padded(bytes: &[u8], length: u64) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(
        usize::try_from(length)
            .unwrap_or(padded.len())
            .max(padded.len()),
        0,
    );
    padded
}

/// Overwrites what is at `at`; beyond the end nothing happens, which no
/// caller asks for.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|field| u32::from_le_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|field| u64::from_le_bytes(*field))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A disk in memory, holes and all.
    #[derive(Clone)]
    struct Memory {
        bytes: Vec<u8>,
        sector: u64,
    }

    impl Disk for Memory {
        fn size(&self) -> u64 {
            self.bytes.len() as u64
        }

        fn sector(&self) -> u64 {
            self.sector
        }

        fn read(&self, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
            let start = usize::try_from(offset).expect("small");
            let end = start.checked_add(length).expect("small");
            let bytes = self.bytes.get(start..end);
            bytes
                .map(<[u8]>::to_vec)
                .ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
        }
    }

    impl Memory {
        /// A disk of `mib` with partitions of these mebibytes; the table is
        /// made by growing an empty one by hand.
        fn with(mib: u64, sector: u64, partitions: &[Range<u64>]) -> Self {
            let size = usize::try_from(mib * MIB).expect("small");
            let mut disk = Self {
                bytes: vec![0; size],
                sector,
            };
            let mut entries = vec![0; 128 * ENTRY_SIZE];
            for (number, range) in partitions.iter().enumerate() {
                let at = number * ENTRY_SIZE;
                entries[at] = 7;
                entries[at + 16] = u8::try_from(number).expect("few") + 1;
                put(
                    &mut entries,
                    at + 32,
                    &(range.start * MIB / sector).to_le_bytes(),
                );
                put(
                    &mut entries,
                    at + 40,
                    &(range.end * MIB / sector - 1).to_le_bytes(),
                );
            }
            let mut header = vec![0; HEADER_SIZE];
            put(&mut header, 0, SIGNATURE);
            put(&mut header, 8, &[0, 0, 1, 0, 92, 0, 0, 0]);
            put(&mut header, 40, &(2 + 16384 / sector).to_le_bytes());
            put(&mut header, 56, &[9; 16]);
            put(&mut header, 80, &[128, 0, 0, 0, 128, 0, 0, 0]);
            let table = Table { header, entries };
            let last = mib * MIB / sector - 1;
            let usable = last - 16384 / sector - 1;
            for (copy, header_at, entries_at) in [
                (table.placed(1, last, 2, usable), 1, 2),
                (
                    table.placed(last, 1, last - 16384 / sector, usable),
                    last,
                    last - 16384 / sector,
                ),
            ] {
                put(
                    &mut disk.bytes,
                    usize::try_from(header_at * sector).expect("small"),
                    &copy.header,
                );
                put(
                    &mut disk.bytes,
                    usize::try_from(entries_at * sector).expect("small"),
                    &copy.entries,
                );
            }
            disk.bytes[450] = 0xee;
            disk.bytes[510] = 0x55;
            disk.bytes[511] = 0xaa;
            disk
        }

        fn enlarged(mut self, mib: u64) -> Self {
            self.bytes
                .resize(usize::try_from(mib * MIB).expect("small"), 0);
            self
        }

        fn write(&mut self, write: &Write) {
            put(
                &mut self.bytes,
                usize::try_from(write.offset).expect("small"),
                &write.bytes,
            );
        }

        /// The table that kernel and firmware use: the primary, or where its
        /// checksums fail, the one in the last sector.
        fn seen(&self) -> Vec<Range<u64>> {
            let last = self.size() / self.sector - 1;
            let table = Table::read(self, 1)
                .or_else(|| Table::read(self, last))
                .expect("a table");
            table
                .used()
                .map(|(_, range)| range.start * self.sector / MIB..range.end * self.sector / MIB)
                .collect()
        }
    }

    fn grow(disk: &mut Memory, start: u64) {
        let plan = plan(disk, start * MIB).expect("there is room");
        for write in &plan.writes {
            disk.write(write);
        }
    }

    #[test]
    fn the_last_partition_reaches_the_new_end() {
        for sector in [512, 4096] {
            let mut disk = Memory::with(8, sector, &[1..2, 2..7]).enlarged(20);
            grow(&mut disk, 2);
            assert_eq!(disk.seen(), [1..2, 2..19], "sectors of {sector}");
            assert_eq!(plan(&disk, 2 * MIB), None, "once is enough");
            let last = disk.size() / sector - 1;
            assert!(Table::read(&disk, 1).is_some() && Table::read(&disk, last).is_some());
        }
    }

    #[test]
    fn a_disk_that_has_not_grown_is_left_alone() {
        let disk = Memory::with(8, 512, &[1..2, 2..7]);
        assert_eq!(plan(&disk, 2 * MIB), None);
        let disk = Memory::with(8, 512, &[1..2, 2..7]).enlarged(20);
        assert_eq!(plan(&disk, MIB), None, "not the last partition");
        let disk = Memory {
            bytes: vec![0; 8 << 20],
            sector: 512,
        };
        assert_eq!(plan(&disk, MIB), None, "no table");
        let mut disk = Memory::with(8, 512, &[1..2, 2..7]);
        disk.bytes.truncate(6 << 20);
        assert_eq!(plan(&disk, 2 * MIB), None, "the disk has shrunk");
    }

    #[test]
    fn every_cut_leaves_a_disk_that_starts_and_grows_on() {
        for sector in [512, 4096] {
            let before = Memory::with(8, sector, &[1..2, 2..7]).enlarged(20);
            let mut after = before.clone();
            grow(&mut after, 2);
            let plan = plan(&before, 2 * MIB).expect("there is room");
            let mut disk = before.clone();
            for write in &plan.writes {
                for sectors in 0..=write.bytes.len() as u64 / sector {
                    let length = usize::try_from(sectors * sector).expect("small");
                    let mut cut = disk.clone();
                    cut.write(&Write {
                        offset: write.offset,
                        bytes: write.bytes[..length].to_vec(),
                    });
                    let seen = cut.seen();
                    assert!(
                        seen == [1..2, 2..7] || seen == [1..2, 2..19],
                        "{seen:?} after {sectors} sectors"
                    );
                    let is_done = cut.bytes == after.bytes;
                    if let Some(plan) = super::plan(&cut, 2 * MIB) {
                        for write in &plan.writes {
                            cut.write(write);
                        }
                    }
                    assert!(
                        cut.bytes == after.bytes,
                        "cut after {sectors} sectors at {} ends differently ({is_done})",
                        write.offset
                    );
                }
                disk.write(write);
            }
        }
    }

    #[test]
    #[expect(
        clippy::disallowed_types,
        clippy::disallowed_methods,
        reason = "tests run other people's programs, and CI must have them"
    )]
    fn sgdisk_has_nothing_to_complain_about() {
        let folder = crate::root::testing::Folder::new();
        let image = folder.path().join("disk");
        let verify = |disk: &Memory| {
            std::fs::write(&image, &disk.bytes).expect("written");
            let sgdisk = std::process::Command::new("sgdisk")
                .arg("-v")
                .arg(&image)
                .output();
            sgdisk
                .ok()
                .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let mut disk = Memory::with(8, 512, &[1..2, 2..7]).enlarged(20);
        let Some(before) = verify(&disk) else {
            assert!(std::env::var_os("CI").is_none(), "sgdisk is missing");
            eprintln!("SKIPPED: sgdisk is missing");
            return;
        };
        assert!(
            !before.contains("No problems found"),
            "the backup is not at the end: {before}"
        );
        grow(&mut disk, 2);
        let text = verify(&disk).expect("it ran before");
        assert!(text.contains("No problems found"), "{text}");
    }
}
