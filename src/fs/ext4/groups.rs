//! What each group says of itself: counts, bitmaps, and its descriptor.
//!
//! Source: kernel documentation, "Block Group Descriptors" and "Block and
//! inode Bitmaps". A group whose blocks, or inodes, nobody uses has no bitmap
//! on disk; the kernel makes it when it needs it.

use std::ops::Range;

use zerocopy::IntoBytes as _;

use super::census::Census;
use super::checksum::Checksum;
use super::format::{BLOCK_SIZE, BLOCKS_PER_GROUP, Block, GroupDescriptor, GroupFlags, high, low};
use super::geometry::Geometry;

/// The counts of one group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct GroupFacts {
    pub(super) free_blocks: u32,
    pub(super) used_inodes: u32,
    pub(super) directories: u32,
    /// Nothing but superblock and group table is in it.
    pub(super) is_untouched: bool,
}

/// The counts of every group. `free` are the ranges of blocks left, ascending.
pub(super) fn count(geometry: &Geometry, census: &Census, free: &[Range<u64>]) -> Vec<GroupFacts> {
    let mut facts = vec![GroupFacts::default(); geometry.groups as usize];
    let mut left = u64::from(census.inodes());
    for (group, facts) in (0..).zip(&mut facts) {
        let blocks = geometry.group_range(group);
        let free_blocks: u64 = inside(free, &blocks)
            .map(|range| range.end - range.start)
            .sum();
        let used = left.min(u64::from(geometry.inodes_per_group));
        left -= used;
        facts.free_blocks = count_in_group(free_blocks);
        facts.used_inodes = count_in_group(used);
        // The first and the last group always have their bitmaps.
        facts.is_untouched = group != 0
            && group != geometry.groups - 1
            && free_blocks + geometry.head_blocks(group) == blocks.end - blocks.start;
    }
    for directory in &census.directories {
        let group = (directory.inode() - 1) / geometry.inodes_per_group;
        facts[group as usize].directories += 1;
    }
    facts
}

/// The parts of `free` that lie in `blocks`.
fn inside(free: &[Range<u64>], blocks: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let (start, end) = (blocks.start, blocks.end);
    let first = free.partition_point(|range| range.end <= start);
    free[first..]
        .iter()
        .take_while(move |range| range.start < end)
        .map(move |range| range.start.max(start)..range.end.min(end))
}

fn count_in_group(count: u64) -> u32 {
    u32::try_from(count).expect("at most 32,768 in a group")
}

/// A bit for each block of `group`, set where it is used or past the end.
pub(super) fn block_bitmap(geometry: &Geometry, free: &[Range<u64>], group: u32) -> Block {
    let mut bitmap = [0xff; BLOCK_SIZE];
    let blocks = geometry.group_range(group);
    for range in inside(free, &blocks) {
        let bit = |block: u64| count_in_group(block - blocks.start);
        clear(&mut bitmap, bit(range.start)..bit(range.end));
    }
    bitmap
}

/// A bit for each inode of a group, set where it is used or past the end.
/// Inodes are taken from the front.
pub(super) fn inode_bitmap(geometry: &Geometry, facts: GroupFacts) -> Block {
    let mut bitmap = [0xff; BLOCK_SIZE];
    clear(&mut bitmap, facts.used_inodes..geometry.inodes_per_group);
    bitmap
}

fn clear(bitmap: &mut Block, bits: Range<u32>) {
    let mut at = bits.start;
    while at < bits.end {
        let byte = &mut bitmap[at as usize / 8];
        if at.is_multiple_of(8) && bits.end - at >= 8 {
            *byte = 0;
            at += 8;
        } else {
            *byte &= !(1 << (at % 8));
            at += 1;
        }
    }
}

/// The group table, whole blocks.
pub(super) fn group_table(
    geometry: &Geometry,
    facts: &[GroupFacts],
    free: &[Range<u64>],
    volume: Checksum,
) -> Vec<u8> {
    let mut table = Vec::with_capacity(geometry.table_blocks as usize * BLOCK_SIZE);
    for (group, facts) in (0..).zip(facts) {
        let descriptor = descriptor(geometry, *facts, free, group, volume);
        table.extend_from_slice(descriptor.as_bytes());
    }
    table.resize(geometry.table_blocks as usize * BLOCK_SIZE, 0);
    table
}

fn descriptor(
    geometry: &Geometry,
    facts: GroupFacts,
    free: &[Range<u64>],
    group: u32,
    volume: Checksum,
) -> GroupDescriptor {
    let tables = geometry.tables[group as usize];
    let free_inodes = geometry.inodes_per_group - facts.used_inodes;
    let mut flags = GroupFlags::ITABLE_ZEROED;
    let mut block_sum = None;
    if facts.is_untouched {
        flags |= GroupFlags::BLOCK_UNINIT;
    } else {
        block_sum = Some(volume.feed(&block_bitmap(geometry, free, group)));
    }
    let mut inode_sum = None;
    if facts.used_inodes == 0 {
        flags |= GroupFlags::INODE_UNINIT;
    } else {
        let bytes = geometry.inodes_per_group as usize / 8;
        inode_sum = Some(volume.feed(&inode_bitmap(geometry, facts)[..bytes]));
    }
    let mut descriptor = GroupDescriptor::zeroed();
    descriptor.bg_block_bitmap_lo = low(tables.block_bitmap);
    descriptor.bg_block_bitmap_hi = high(tables.block_bitmap);
    descriptor.bg_inode_bitmap_lo = low(tables.inode_bitmap);
    descriptor.bg_inode_bitmap_hi = high(tables.inode_bitmap);
    descriptor.bg_inode_table_lo = low(tables.inode_table);
    descriptor.bg_inode_table_hi = high(tables.inode_table);
    // Counts of a group have 16 bits at most: 32,768.
    descriptor.bg_free_blocks_count_lo = count16(facts.free_blocks).into();
    descriptor.bg_free_inodes_count_lo = count16(free_inodes).into();
    descriptor.bg_used_dirs_count_lo = count16(facts.directories).into();
    descriptor.bg_itable_unused_lo = count16(free_inodes).into();
    descriptor.bg_flags = flags.bits().into();
    if let Some(sum) = block_sum {
        descriptor.bg_block_bitmap_csum_lo = sum.low().into();
        descriptor.bg_block_bitmap_csum_hi = sum.high().into();
    }
    if let Some(sum) = inode_sum {
        descriptor.bg_inode_bitmap_csum_lo = sum.low().into();
        descriptor.bg_inode_bitmap_csum_hi = sum.high().into();
    }
    let sum = volume
        .feed(&group.to_le_bytes())
        .feed(descriptor.as_bytes());
    descriptor.bg_checksum = sum.low().into();
    descriptor
}

fn count16(count: u32) -> u16 {
    const { assert!(BLOCKS_PER_GROUP <= u16::MAX as u32) };
    u16::try_from(count).expect("at most 32,768 in a group")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_cleared_one_by_one_at_the_ends() {
        let mut bitmap = [0xff; BLOCK_SIZE];
        clear(&mut bitmap, 3..21);
        assert_eq!(bitmap[..4], [0b0000_0111, 0, 0b1110_0000, 0xff]);
        clear(&mut bitmap, 32_760..32_768);
        assert_eq!(bitmap[4094..], [0xff, 0]);
    }
}
