//! What the plan decides about a disk, and the rules that it must keep.

use super::{Attributes, DiskError};
use crate::units::{ByteSize, Guid, MIB};

/// Bytes in a logical block; we write no other size.
pub const SECTOR: u64 = 512;
/// Partitions start at multiples of this, and none starts before the first.
pub const ALIGNMENT: u64 = MIB;
/// The backup table at the end of a disk: 128 entries of 128 bytes and a header.
pub const BACKUP_TABLE: ByteSize = ByteSize::from_bytes(33 * SECTOR);
/// Entries in a table.
const MAX_PARTITIONS: usize = 128;
/// UTF-16 units in the name of a partition.
const MAX_NAME: usize = 36;

/// A disk with its partitions. Partition number n is the n-th of the list:
/// numbers have no gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSpec {
    /// Length of the disk; a multiple of 512 bytes.
    pub size: ByteSize,
    /// Identifies the disk.
    pub guid: Guid,
    /// The partitions, number 1 first.
    pub partitions: Vec<PartitionSpec>,
    /// Boot code for bytes 0 to 439 of the disk; zeros without.
    pub boot_mbr: Option<[u8; 440]>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSpec {
    /// Its name in the table, at most 36 UTF-16 units.
    pub name: String,
    /// What it is for: see [`super::types`].
    pub type_guid: Guid,
    /// Identifies it: `PARTUUID`.
    pub guid: Guid,
    /// Offset on the disk; a multiple of 1 MiB, and not 0.
    pub start: ByteSize,
    /// Length; a multiple of 512 bytes.
    pub size: ByteSize,
    /// Attribute bits.
    pub attributes: Attributes,
}

impl PartitionSpec {
    /// Offset of the first byte after it. Saturates: see [`DiskSpec::check`].
    pub(super) fn end(&self) -> u64 {
        self.start.bytes().saturating_add(self.size.bytes())
    }
}

impl DiskSpec {
    /// The smallest disk of whole mebibytes whose last partition ends at
    /// `end`. `None` when that does not fit 64 bits.
    #[must_use]
    pub fn size_for(end: ByteSize) -> Option<ByteSize> {
        let size = end.bytes().checked_add(BACKUP_TABLE.bytes())?;
        ByteSize::from_bytes(size).round_up(MIB)
    }

    /// Whether a table can be made of this.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), DiskError> {
        let size = self.size;
        if !size.bytes().is_multiple_of(SECTOR) || size.bytes() < 2 * ALIGNMENT {
            return Err(DiskError::Size { size });
        }
        if self.partitions.len() > MAX_PARTITIONS {
            return Err(DiskError::TooMany {
                count: self.partitions.len(),
            });
        }
        for partition in &self.partitions {
            self.check_partition(partition)?;
        }
        self.check_identifiers()?;
        self.check_overlap()
    }

    fn check_partition(&self, partition: &PartitionSpec) -> Result<(), DiskError> {
        let name = || partition.name.clone();
        let (start, size) = (partition.start, partition.size);
        if partition.name.contains('\0') || partition.name.encode_utf16().count() > MAX_NAME {
            return Err(DiskError::Name { partition: name() });
        }
        // An entry of this type is unused: the following ones would move up.
        if partition.type_guid == Guid::from_u128(0) {
            return Err(DiskError::NoType { partition: name() });
        }
        if start.bytes() == 0 || !start.bytes().is_multiple_of(ALIGNMENT) {
            return Err(DiskError::Start {
                partition: name(),
                start,
            });
        }
        if size == ByteSize::ZERO || !size.bytes().is_multiple_of(SECTOR) {
            return Err(DiskError::PartitionSize {
                partition: name(),
                size,
            });
        }
        let usable = self.size.bytes() - BACKUP_TABLE.bytes();
        if partition.end() > usable {
            return Err(DiskError::NoRoom {
                partition: name(),
                needed: size,
                left: ByteSize::from_bytes(usable.saturating_sub(start.bytes())),
                disk: self.size,
            });
        }
        Ok(())
    }

    fn check_identifiers(&self) -> Result<(), DiskError> {
        for (index, second) in self.partitions.iter().enumerate() {
            let before = &self.partitions[..index];
            let same = before.iter().find(|first| first.guid == second.guid);
            if let Some(first) = same {
                return Err(DiskError::SameGuid {
                    first: first.name.clone(),
                    second: second.name.clone(),
                    guid: second.guid,
                });
            }
        }
        Ok(())
    }

    fn check_overlap(&self) -> Result<(), DiskError> {
        let mut by_start: Vec<&PartitionSpec> = self.partitions.iter().collect();
        by_start.sort_by_key(|partition| partition.start);
        for pair in by_start.windows(2) {
            if let [first, second] = pair
                && first.end() > second.start.bytes()
            {
                return Err(DiskError::Overlap {
                    first: first.name.clone(),
                    second: second.name.clone(),
                });
            }
        }
        Ok(())
    }
}
