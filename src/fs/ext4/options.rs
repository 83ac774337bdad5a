//! What the plan decides about a volume.

use crate::units::{ByteSize, Guid, KIB, MIB, TIB, Timestamp};

use super::error::Ext4Error;
use super::format::BLOCK_BYTES;

/// The first second that an inode can hold, in 1901. Source: kernel
/// documentation, "Inode Timestamps".
pub(super) const FIRST_SECOND: i64 = -(1 << 31);
/// The last second, in 2310. An inode can hold 34 bits, which last until
/// 2446, but e2fsck takes what lies behind this one for a time before 1970.
pub(super) const LAST_SECOND: i64 = (1 << 33) + (1 << 31) - 1;

/// The least volume with a journal, as mke2fs has it.
pub(super) const LEAST_BLOCKS: u64 = 2048;
/// The resize inode has no room for numbers of more than 32 bits.
pub(super) const MOST_BLOCKS: u64 = u32::MAX as u64;

/// A figure that follows from the size of the volume, or is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sizing {
    /// What `mke2fs -t ext4` picks for a volume of this size.
    #[default]
    ByVolume,
    /// This many bytes.
    Exactly(ByteSize),
}

/// What the plan decides about an ext4 volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ext4Options {
    /// Bytes of the partition. What does not fill a block of 4 KiB, or would
    /// be too small a last group, stays unused.
    pub size: ByteSize,
    /// The volume's UUID, which also seeds every checksum.
    pub uuid: Guid,
    /// Orders large directories.
    pub hash_seed: Guid,
    /// At most 16 bytes; may be empty.
    pub label: String,
    /// Time of all that is not from the tree. 1970 to 2310.
    pub source_date: Timestamp,
    /// Bytes of volume for each inode; 1 KiB to 64 MiB. A tree with more
    /// entries than that gives gets what it needs, and a sixteenth more.
    pub inode_ratio: Sizing,
    /// Blocks that only root may fill, in percent; 0 to 50.
    pub reserved_percent: u8,
    /// Bytes of the journal; 4 MiB to half of the volume.
    pub journal: Sizing,
}

impl Ext4Options {
    /// Everything else as `mke2fs -t ext4` has it: no label, 5 percent for root.
    #[must_use]
    pub fn new(size: ByteSize, uuid: Guid, hash_seed: Guid, source_date: Timestamp) -> Self {
        Self {
            size,
            uuid,
            hash_seed,
            label: String::new(),
            source_date,
            inode_ratio: Sizing::ByVolume,
            reserved_percent: 5,
            journal: Sizing::ByVolume,
        }
    }

    /// Checks what can be checked without a tree.
    pub(super) fn check(&self) -> Result<(), Ext4Error> {
        let (size, least) = (self.size, ByteSize::from_bytes(LEAST_BLOCKS * BLOCK_BYTES));
        if size < least {
            return Err(Ext4Error::VolumeTooSmall { size, least });
        }
        if size.bytes() / BLOCK_BYTES > MOST_BLOCKS {
            let most = ByteSize::from_bytes(16 * TIB - 1);
            return Err(Ext4Error::VolumeTooLarge { size, most });
        }
        if self.label.len() > 16 {
            let label = self.label.clone();
            return Err(Ext4Error::LabelTooLong { label });
        }
        if self.reserved_percent > 50 {
            let percent = self.reserved_percent;
            return Err(Ext4Error::Reserved { percent });
        }
        let date = self.source_date;
        if !(0..=LAST_SECOND).contains(&date.seconds) {
            return Err(Ext4Error::SourceDate { date });
        }
        match self.inode_ratio {
            Sizing::Exactly(ratio) if !(KIB..=64 * MIB).contains(&ratio.bytes()) => {
                Err(Ext4Error::InodeRatio { ratio })
            }
            _ => Ok(()),
        }
    }
}
