//! What ext4's superblock says of its volume's size and of the table of groups.
//!
//! Source: kernel documentation, "ext4 Data Structures": super block, block
//! group descriptors.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::crc::crc32c;

/// Where it is in its volume, in bytes.
const PLACE: u64 = 1024;
/// Its length in bytes.
const LENGTH: usize = 1024;
/// `s_magic`.
const MAGIC: u16 = 0xef53;
/// `s_feature_incompat`: the journal is not empty, groups are described beside
/// themselves, numbers of blocks have 64 bits.
const RECOVER: u32 = 0x4;
const META_BG: u32 = 0x10;
const WIDE: u32 = 0x80;
/// `s_feature_ro_compat`: metadata has checksums.
const CHECKSUMS: u32 = 0x400;

/// What a superblock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// Blocks of the volume.
    pub blocks: u64,
    /// Bytes of a block.
    pub block: u64,
    /// Whether the journal has what is not in its place yet.
    pub has_journal: bool,
    /// Whether it has its checksum, if it has any.
    pub is_sound: bool,
    /// The first block that counts, and blocks of a group.
    first: u64,
    group: u64,
    /// Bytes of a group's description, and groups whose are in one table.
    description: u64,
    in_table: u64,
}

impl Superblock {
    /// Reads the bytes of one; nothing where they are none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let u16_at = |at: usize| {
            bytes
                .get(at..)?
                .first_chunk()
                .map(|it| u16::from_le_bytes(*it))
        };
        let u32_at = |at: usize| {
            bytes
                .get(at..)?
                .first_chunk()
                .map(|it| u32::from_le_bytes(*it))
        };
        let block = 1024_u64.checked_shl(u32_at(0x18)?)?;
        if u16_at(0x38)? != MAGIC || !(1024..=65_536).contains(&block) {
            return None;
        }
        let features = u32_at(0x60)?;
        let is_wide = features & WIDE != 0;
        let high = if is_wide { u32_at(0x150)? } else { 0 };
        let description = if is_wide {
            u16_at(0xfe)?.max(32).into()
        } else {
            32
        };
        let in_table = match features & META_BG {
            0 => u64::MAX,
            _ => u64::from(u32_at(0x104)?).saturating_mul(block / description),
        };
        Some(Self {
            blocks: u64::from(high) << 32 | u64::from(u32_at(0x04)?),
            block,
            has_journal: features & RECOVER != 0,
            is_sound: u32_at(0x64)? & CHECKSUMS == 0
                || crc32c(u32::MAX, bytes.get(..0x3fc)?) == u32_at(0x3fc)?,
            first: u32_at(0x14)?.into(),
            group: u32_at(0x20)?.into(),
            description,
            in_table,
        })
    }

    /// The bytes of a volume's.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn read(volume: &File) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; LENGTH];
        volume.read_exact_at(&mut bytes, PLACE)?;
        Ok(bytes)
    }

    /// The block that it is in; the table of groups begins with the next.
    pub const fn place(&self) -> u64 {
        PLACE / self.block
    }

    /// The one in other bytes of its block.
    pub fn within(&self, block: &[u8]) -> Option<Self> {
        let inside = usize::try_from(PLACE % self.block).ok()?;
        Self::parse(block.get(inside..)?)
    }

    /// Groups of the volume.
    pub fn groups(&self) -> u64 {
        let blocks = self.blocks.saturating_sub(self.first);
        blocks.div_ceil(self.group.max(1))
    }

    /// How many groups are described in a block of the table, from 0.
    pub fn groups_of(&self, number: u64) -> usize {
        let in_block = self.block / self.description;
        let groups = self.groups().min(self.in_table);
        let left = groups.saturating_sub(number.saturating_mul(in_block));
        usize::try_from(left.min(in_block)).unwrap_or(0)
    }

    /// Whether two blocks of the table have the bitmaps of their first groups in
    /// the same places: `bg_block_bitmap`, its lower half and its upper one.
    pub fn is_alike(&self, one: &[u8], other: &[u8], groups: usize) -> bool {
        let length = usize::try_from(self.description).unwrap_or(32);
        (0..groups).all(|group| {
            let is_same = |at: usize| {
                let place = group * length + at..group * length + at + 4;
                at >= length || one.get(place.clone()) == other.get(place)
            };
            is_same(0) && is_same(0x20)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_says_its_size() {
        let mut bytes = vec![0; LENGTH];
        bytes[0x38..0x3a].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[0x04..0x08].copy_from_slice(&5000_u32.to_le_bytes());
        bytes[0x18] = 2;
        bytes[0x150] = 1;
        let size = |bytes: &[u8]| Superblock::parse(bytes).map(|it| (it.blocks, it.block));
        assert_eq!(size(&bytes), Some((5000, 4096)));
        bytes[0x60] = 0x80;
        assert_eq!(size(&bytes), Some(((1 << 32) + 5000, 4096)));
        bytes[0x18] = 200;
        assert_eq!(size(&bytes), None);
        bytes[0x38] = 0;
        assert_eq!(size(&bytes), None);
        assert_eq!(size(&[]), None);
    }
}
