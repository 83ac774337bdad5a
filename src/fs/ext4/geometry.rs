//! The skeleton of a volume: its groups, and where their tables lie.
//!
//! A group of 32,768 blocks (128 MiB), when it holds a copy of the superblock:
//!
//! ```text
//!   0           1 .. d       d+1 .. d+r           then
//!   superblock  group table  reserved for growth  data
//! ```
//!
//! The bitmaps and inode tables of 16 groups lie together at the start of the
//! first of them: 16 block bitmaps, 16 inode bitmaps, 16 inode tables.
//!
//! Source: kernel documentation, "Layout" and "Flexible Block Groups". The
//! numbers are those of `mke2fs -t ext4` 1.47, so that a volume grows online
//! as far as one of Debian's own; the tests hold the two side by side.

use std::ops::Range;

use crate::sparse::coalesce;
use crate::units::{ByteSize, KIB, MIB};

use super::error::Ext4Error;
use super::format::{
    ADDRESSES_PER_BLOCK, BLOCK_BYTES, BLOCKS_PER_GROUP, DESCRIPTORS_PER_BLOCK, GROUPS_PER_FLEX,
    INODES_PER_BLOCK,
};
use super::options::{Ext4Options, Sizing};

/// Blocks that a last group must have beyond its tables to be worth it.
const LAST_GROUP_SPARE: u64 = 50;

/// Inodes of a group: one bitmap block.
const MAX_INODES_PER_GROUP: u32 = BLOCKS_PER_GROUP;

/// Fewest and most blocks of a journal (`JBD2_MIN_JOURNAL_BLOCKS`, and mke2fs).
const JOURNAL_BLOCKS: Range<u64> = 1024..10_240_001;

/// Where the tables of one group lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) block_bitmap: u64,
    pub(super) inode_bitmap: u64,
    pub(super) inode_table: u64,
}

/// Every number of a volume that does not depend on what is in its files.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Geometry {
    /// Blocks of 4 KiB in use by the file system; the partition may have more.
    pub blocks: u64,
    /// Groups of 32,768 blocks; the last may be smaller.
    pub groups: u32,
    /// Inodes in each group, a multiple of 16.
    pub inodes_per_group: u32,
    /// Blocks of one copy of the group table.
    pub table_blocks: u32,
    /// Blocks behind each copy that the group table may grow into.
    pub reserved_table_blocks: u32,
    /// Blocks of the journal.
    pub journal_blocks: u32,
    /// Blocks that only root may fill.
    pub reserved_blocks: u64,
    pub(super) tables: Vec<Tables>,
    pub(super) free: Vec<Range<u64>>,
}

impl Geometry {
    /// Decides the numbers for a volume in which `inodes` inodes are used.
    pub(super) fn plan(options: &Ext4Options, inodes: u64) -> Result<Self, Ext4Error> {
        options.check()?;
        let mut blocks = options.size.bytes() / BLOCK_BYTES;
        let journal_blocks = journal_blocks(options, blocks)?;
        let wanted = wanted_inodes(options, blocks, inodes);
        loop {
            let groups = blocks.div_ceil(u64::from(BLOCKS_PER_GROUP));
            let most = groups * u64::from(MAX_INODES_PER_GROUP);
            let skeleton = Skeleton::of(blocks, wanted.min(most).max(inodes))
                .ok_or(Ext4Error::TooManyFiles { files: inodes })?;
            let last = blocks % u64::from(BLOCKS_PER_GROUP);
            let needs = skeleton.blocks_in_last_group();
            if last != 0 && skeleton.groups > 1 && last < needs + LAST_GROUP_SPARE {
                blocks -= last;
                continue;
            }
            if skeleton.groups == 1 && blocks < needs {
                return Err(Ext4Error::VolumeTooSmall {
                    size: options.size,
                    least: ByteSize::from_bytes(needs * BLOCK_BYTES),
                });
            }
            let tables = skeleton.place_tables();
            let free = skeleton.free_ranges(&tables);
            return Ok(Self {
                blocks,
                groups: skeleton.groups,
                inodes_per_group: skeleton.inodes_per_group,
                table_blocks: skeleton.table_blocks,
                reserved_table_blocks: skeleton.reserved_table_blocks,
                journal_blocks,
                reserved_blocks: blocks * u64::from(options.reserved_percent) / 100,
                tables,
                free,
            });
        }
    }

    /// Inodes in the volume.
    #[must_use]
    pub fn inodes(&self) -> u32 {
        self.inodes_per_group * self.groups
    }

    /// Blocks of the inode table of one group.
    pub(super) fn inode_table_blocks(&self) -> u32 {
        self.inodes_per_group / INODES_PER_BLOCK
    }

    /// The blocks of group `group`.
    pub(super) fn group_range(&self, group: u32) -> Range<u64> {
        let start = group_start(group);
        start..(start + u64::from(BLOCKS_PER_GROUP)).min(self.blocks)
    }

    /// Blocks that superblock, group table and its reserve take in `group`.
    pub(super) fn head_blocks(&self, group: u32) -> u64 {
        if has_backup(group) {
            1 + u64::from(self.table_blocks) + u64::from(self.reserved_table_blocks)
        } else {
            0
        }
    }

    /// Groups with a copy of the superblock, the first included.
    pub(super) fn groups_with_backup(&self) -> impl Iterator<Item = u32> {
        (0..self.groups).filter(|group| has_backup(*group))
    }

    /// Blocks that no file can use: `s_overhead_clusters`.
    pub(super) fn overhead_blocks(&self) -> u64 {
        let heads: u64 = self
            .groups_with_backup()
            .map(|group| self.head_blocks(group))
            .sum();
        heads
            + u64::from(self.groups) * (2 + u64::from(self.inode_table_blocks()))
            + u64::from(self.journal_blocks)
    }
}

/// The first block of a group.
pub(super) fn group_start(group: u32) -> u64 {
    u64::from(group) * u64::from(BLOCKS_PER_GROUP)
}

/// `sparse_super`: groups 0 and 1 and the powers of 3, 5 and 7 hold a copy of
/// superblock and group table.
pub(super) fn has_backup(group: u32) -> bool {
    let is_power_of = |base: u32| {
        let mut rest = group;
        while rest.is_multiple_of(base) {
            rest /= base;
        }
        rest == 1
    };
    group == 0 || [3, 5, 7].into_iter().any(is_power_of)
}

/// The journal of `mke2fs`, or the given one.
fn journal_blocks(options: &Ext4Options, blocks: u64) -> Result<u32, Ext4Error> {
    let gib_blocks = 1024 * MIB / BLOCK_BYTES;
    let chosen = match options.journal {
        Sizing::ByVolume => match blocks {
            n if n < gib_blocks / 8 => 1024,
            n if n < gib_blocks => 4096,
            n if n < 2 * gib_blocks => 8192,
            n if n < 16 * gib_blocks => 16_384,
            n if n < 32 * gib_blocks => 32_768,
            n if n < 64 * gib_blocks => 65_536,
            n if n < 128 * gib_blocks => 131_072,
            _ => 262_144,
        },
        Sizing::Exactly(size) => {
            let wanted = size.bytes() / BLOCK_BYTES;
            if !JOURNAL_BLOCKS.contains(&wanted) || wanted > blocks / 2 {
                return Err(Ext4Error::JournalSize { size });
            }
            wanted
        }
    };
    Ok(u32::try_from(chosen).expect("far below 2^32: checked above"))
}

/// Inodes to provide: by the ratio, and more when the tree needs more. Where
/// the groups cannot have that many, [`Geometry::plan`] provides fewer.
fn wanted_inodes(options: &Ext4Options, blocks: u64, used: u64) -> u64 {
    let ratio = match options.inode_ratio {
        Sizing::Exactly(ratio) => ratio.bytes(),
        // The usage types of mke2fs: small, default, big and huge.
        Sizing::ByVolume => match blocks * BLOCK_BYTES / MIB {
            ..512 => 4 * KIB,
            512..0x40_0000 => 16 * KIB,
            0x40_0000..0x100_0000 => 32 * KIB,
            _ => 64 * KIB,
        },
    };
    (blocks * BLOCK_BYTES / ratio).max(used + used / 16)
}

/// What must be known of the groups before their tables can be placed.
#[derive(Debug, Clone, Copy)]
struct Skeleton {
    blocks: u64,
    groups: u32,
    inodes_per_group: u32,
    table_blocks: u32,
    reserved_table_blocks: u32,
}

impl Skeleton {
    /// `None` when no group can have that many inodes.
    fn of(blocks: u64, wanted_inodes: u64) -> Option<Self> {
        let groups = u32::try_from(blocks.div_ceil(u64::from(BLOCKS_PER_GROUP))).ok()?;
        let table_blocks = groups.div_ceil(DESCRIPTORS_PER_BLOCK);
        let exact = u32::try_from(wanted_inodes.div_ceil(u64::from(groups))).ok()?;
        let inodes_per_group = exact.checked_next_multiple_of(INODES_PER_BLOCK)?;
        inodes_per_group.checked_mul(groups)?;
        (inodes_per_group <= MAX_INODES_PER_GROUP).then_some(Self {
            blocks,
            groups,
            inodes_per_group,
            table_blocks,
            reserved_table_blocks: reserved_table_blocks(blocks, table_blocks),
        })
    }

    fn inode_table_blocks(&self) -> u64 {
        u64::from(self.inodes_per_group / INODES_PER_BLOCK)
    }

    fn head_blocks(&self) -> u64 {
        1 + u64::from(self.table_blocks) + u64::from(self.reserved_table_blocks)
    }

    fn blocks_in_last_group(&self) -> u64 {
        let head = if has_backup(self.groups - 1) {
            self.head_blocks()
        } else {
            0
        };
        head + 2 + self.inode_table_blocks()
    }

    /// Packs the tables of every 16 groups to the front of the first of them.
    fn place_tables(&self) -> Vec<Tables> {
        let mut tables = Vec::new();
        let mut first = 0;
        while first < self.groups {
            let members = GROUPS_PER_FLEX.min(self.groups - first);
            let mut cursor = group_start(first);
            let mut place = |length: u64| {
                let at = self.skip_heads(cursor, length);
                cursor = at + length;
                at
            };
            let block_bitmaps: Vec<u64> = (0..members).map(|_| place(1)).collect();
            let inode_bitmaps: Vec<u64> = (0..members).map(|_| place(1)).collect();
            for (block_bitmap, inode_bitmap) in block_bitmaps.into_iter().zip(inode_bitmaps) {
                tables.push(Tables {
                    block_bitmap,
                    inode_bitmap,
                    inode_table: place(self.inode_table_blocks()),
                });
            }
            first += members;
        }
        tables
    }

    /// The first place from `cursor` on where `length` blocks meet no copy of
    /// the superblock.
    fn skip_heads(&self, cursor: u64, length: u64) -> u64 {
        let mut at = cursor;
        loop {
            let group = u32::try_from(at / u64::from(BLOCKS_PER_GROUP))
                .expect("below the number of groups: a group is larger than 16 of its tables");
            let head_end = group_start(group) + self.head_blocks();
            if has_backup(group) && at < head_end {
                at = head_end;
            }
            let next = group_start(group + 1);
            if at + length <= next || !has_backup(group + 1) {
                return at;
            }
            at = next;
        }
    }

    /// What neither the heads nor the tables take, ascending.
    fn free_ranges(&self, tables: &[Tables]) -> Vec<Range<u64>> {
        let heads = (0..self.groups)
            .filter(|group| has_backup(*group))
            .map(|group| group_start(group)..group_start(group) + self.head_blocks());
        let mut taken: Vec<Range<u64>> = heads
            .chain(tables.iter().flat_map(|place| {
                [
                    place.block_bitmap..place.block_bitmap + 1,
                    place.inode_bitmap..place.inode_bitmap + 1,
                    place.inode_table..place.inode_table + self.inode_table_blocks(),
                ]
            }))
            .collect();
        taken.sort_unstable_by_key(|range| range.start);
        let mut free = Vec::new();
        let mut at = 0;
        for range in coalesce(taken) {
            free.push(at..range.start);
            at = range.end;
        }
        free.push(at..self.blocks);
        coalesce(free)
    }
}

/// Blocks kept behind each group table: enough to grow to 1,024 times the
/// size, as far as one indirect block can list them.
fn reserved_table_blocks(blocks: u64, table_blocks: u32) -> u32 {
    const MOST: u64 = u32::MAX as u64;
    let grown = if blocks < MOST / 1024 {
        blocks * 1024
    } else {
        MOST
    };
    let grown_groups = grown.div_ceil(u64::from(BLOCKS_PER_GROUP));
    let grown_table = u32::try_from(grown_groups.div_ceil(u64::from(DESCRIPTORS_PER_BLOCK)))
        .expect("at most 2,048");
    grown_table
        .saturating_sub(table_blocks)
        .min(ADDRESSES_PER_BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Guid, Timestamp};

    fn options(size: &str) -> Ext4Options {
        let id = Guid::from_u128(1);
        let size = ByteSize::parse(size).expect("a good size");
        Ext4Options::new(size, id, id, Timestamp::from_seconds(0))
    }

    fn plan(size: &str, inodes: u64) -> Geometry {
        Geometry::plan(&options(size), inodes).expect("a good size")
    }

    /// What `mke2fs -t ext4 -b 4096` 1.47.0 makes of these sizes, by `dumpe2fs`:
    /// blocks, reserved for root, overhead, reserved table blocks, inodes in a
    /// group, journal blocks.
    #[test]
    fn numbers_are_those_of_mke2fs() {
        for (size, numbers) in [
            ("8MiB", [2048, 102, 1156, 0, 2048, 1024]),
            ("64MiB", [16_384, 819, 2059, 7, 16_384, 1024]),
            ("100MiB", [25_600, 1280, 2640, 12, 25_600, 1024]),
            ("127MiB", [32_512, 1625, 3075, 15, 32_512, 1024]),
            ("128MiB", [32_768, 1638, 6163, 15, 32_768, 4096]),
            ("200MiB", [51_200, 2560, 7352, 24, 25_600, 4096]),
            ("511MiB", [130_816, 6540, 12_475, 63, 32_704, 4096]),
            ("512MiB", [131_072, 6553, 6347, 63, 8192, 4096]),
            ("1GiB", [262_144, 13_107, 12_949, 127, 8192, 8192]),
            ("2GiB", [524_288, 26_214, 26_150, 255, 8192, 16_384]),
            ("4GiB", [1_048_576, 52_428, 36_936, 511, 8192, 16_384]),
            ("8GiB", [2_097_152, 104_857, 58_505, 1023, 8192, 16_384]),
            ("16GiB", [4_194_304, 209_715, 109_857, 1024, 8192, 32_768]),
            ("40GiB", [10_485_760, 524_288, 242_376, 1024, 8192, 65_536]),
            (
                "130GiB",
                [34_078_720, 1_703_936, 812_334, 1024, 8192, 262_144],
            ),
            (
                "1TiB",
                [268_435_456, 13_421_772, 4_494_739, 1024, 8192, 262_144],
            ),
            (
                "4TiB",
                [1_073_741_824, 53_687_091, 8_750_102, 1024, 4096, 262_144],
            ),
            (
                "16777200MiB",
                [4_294_963_200, 214_748_160, 34_129_945, 0, 4096, 262_144],
            ),
        ] {
            let geometry = plan(size, 11);
            let found = [
                geometry.blocks,
                geometry.reserved_blocks,
                geometry.overhead_blocks(),
                u64::from(geometry.reserved_table_blocks),
                u64::from(geometry.inodes_per_group),
                u64::from(geometry.journal_blocks),
            ];
            assert_eq!(found, numbers, "{size}");
        }
    }

    #[test]
    fn copies_lie_in_few_groups() {
        let found: Vec<u32> = (0..130).filter(|group| has_backup(*group)).collect();
        assert_eq!(found, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }

    #[test]
    fn nothing_lies_on_anything_else() {
        for (size, inodes) in [
            ("8MiB", 11),
            ("300MiB", 11),
            ("2100MiB", 11),
            ("5GiB", 1_300_000),
            ("300GiB", 11),
        ] {
            let geometry = plan(size, inodes);
            let table = u64::from(geometry.inode_table_blocks());
            let free: u64 = geometry
                .free
                .iter()
                .map(|range| range.end - range.start)
                .sum();
            let taken = geometry.overhead_blocks() - u64::from(geometry.journal_blocks);
            // The free ranges are what is left of all others: they would
            // be more if any two of these overlapped.
            assert_eq!(free + taken, geometry.blocks, "{size}");
            let last = geometry.tables.last().expect("a group").inode_table + table;
            assert!(last <= geometry.blocks, "{size}");
        }
    }

    #[test]
    fn a_last_group_that_is_all_tables_is_left_out() {
        assert_eq!(plan("1GiB", 11).groups, 8);
        assert_eq!(plan("1025MiB", 11).blocks, 262_144);
        let with_it = plan("1027MiB", 11);
        assert_eq!((with_it.blocks, with_it.groups), (262_912, 9));
    }

    #[test]
    fn a_dropped_group_leaves_its_inodes_to_the_others() {
        // mke2fs makes smaller groups here; we make fewer inodes.
        let geometry = plan("129MiB", 11);
        assert_eq!((geometry.blocks, geometry.inodes()), (32_768, 32_768));
    }

    #[test]
    fn a_tree_of_many_files_gets_the_inodes_it_needs() {
        let geometry = plan("1GiB", 100_000);
        assert!(geometry.inodes() >= 106_250 && geometry.inodes() < 107_000);
        let error = Geometry::plan(&options("8MiB"), 40_000).expect_err("too many");
        assert!(matches!(error, Ext4Error::TooManyFiles { files: 40_000 }));
    }

    #[test]
    fn a_journal_must_be_possible() {
        let mut wrong = options("64MiB");
        for bytes in [MIB, 33 * MIB] {
            wrong.journal = Sizing::Exactly(ByteSize::from_bytes(bytes));
            let error = Geometry::plan(&wrong, 11).expect_err("no such journal");
            assert!(matches!(error, Ext4Error::JournalSize { .. }));
        }
    }
}
