//! Where in the file the next thing goes, and how often each cluster is used.

use std::io;
use std::ops::Range;

use super::format::{CLUSTER, REFCOUNTS_PER_BLOCK, SECTOR};

/// Hands out the clusters of the file, front to back.
///
/// Packed clusters follow each other byte by byte; whole clusters are aligned.
/// A packed one that no longer fits before the next whole one starts anew at
/// the end of the file; smaller ones go into what is left there.
#[derive(Debug)]
pub(super) struct Allocator {
    /// Uses of each cluster of the file so far.
    refcounts: Vec<u16>,
    /// Where the next packed bytes may go, and where that room ends.
    room: Range<u64>,
    /// What is left of such rooms, the newest last.
    left: Vec<Range<u64>>,
}

/// Most rooms that are remembered, and the smallest one.
const MOST_LEFT: usize = 16;
const LEAST_LEFT: u64 = SECTOR;

/// The refcount structures at the end of the file, in clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RefcountArea {
    /// First cluster of the refcount table.
    pub table: u64,
    pub table_clusters: u64,
    /// First refcount block.
    pub blocks: u64,
    pub block_count: u64,
}

impl Allocator {
    pub(super) fn new() -> Self {
        Self {
            refcounts: Vec::new(),
            room: 0..0,
            left: Vec::new(),
        }
    }

    /// Clusters handed out so far.
    pub(super) fn clusters(&self) -> u64 {
        self.refcounts.len() as u64
    }

    pub(super) fn refcounts(&self) -> &[u16] {
        &self.refcounts
    }

    fn end(&self) -> u64 {
        self.clusters() * CLUSTER
    }

    /// Byte offset of `count` whole clusters in a row.
    pub(super) fn whole(&mut self, count: u64) -> u64 {
        let offset = self.end();
        self.refcounts.extend((0..count).map(|_| 1));
        offset
    }

    /// Byte offset of `length` packed bytes, at most a cluster.
    pub(super) fn packed(&mut self, length: u64) -> io::Result<u64> {
        let fits = |room: &&mut Range<u64>| room.end - room.start >= length;
        if let Some(room) = self.left.iter_mut().find(fits) {
            let offset = room.start;
            room.start += length;
            self.count(offset..offset + length)?;
            return Ok(offset);
        }
        let can_grow = self.room.end == self.end();
        if self.room.start + length > self.room.end && !can_grow {
            let end = self.end();
            self.leave(end..end);
        }
        let offset = self.room.start;
        let end = offset + length;
        while self.end() < end {
            self.refcounts.push(0);
        }
        self.count(offset..end)?;
        self.room = end..end.next_multiple_of(CLUSTER).max(self.room.end);
        Ok(offset)
    }

    /// Goes on to another room.
    fn leave(&mut self, next: Range<u64>) {
        let old = std::mem::replace(&mut self.room, next);
        if old.end - old.start >= LEAST_LEFT {
            if self.left.len() == MOST_LEFT {
                self.left.remove(0);
            }
            self.left.push(old);
        }
    }

    /// Counts a use of each cluster that the packed bytes touch.
    fn count(&mut self, packed: Range<u64>) -> io::Result<()> {
        // A packed cluster uses whole sectors, which never reach a further cluster.
        for cluster in packed.start / CLUSTER..packed.end.next_multiple_of(SECTOR).div_ceil(CLUSTER)
        {
            let slot = usize::try_from(cluster)
                .ok()
                .and_then(|cluster| self.refcounts.get_mut(cluster));
            let raised = slot.and_then(|slot| {
                *slot = slot.checked_add(1)?;
                Some(())
            });
            raised.ok_or_else(|| io::Error::other("a refcount of qcow2 overflows 16 bits"))?;
        }
        Ok(())
    }

    /// Room for a refcount table and blocks that count themselves too.
    pub(super) fn refcount_area(&mut self) -> RefcountArea {
        let used = self.clusters();
        let (mut table_clusters, mut block_count) = (1, 1);
        loop {
            let total: u64 = used + table_clusters + block_count;
            let blocks = total.div_ceil(REFCOUNTS_PER_BLOCK);
            let tables = blocks.div_ceil(super::format::ENTRIES_PER_CLUSTER);
            if (tables, blocks) == (table_clusters, block_count) {
                break;
            }
            (table_clusters, block_count) = (tables, blocks);
        }
        let table = self.whole(table_clusters) / CLUSTER;
        let blocks = self.whole(block_count) / CLUSTER;
        RefcountArea {
            table,
            table_clusters,
            blocks,
            block_count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_clusters_share_and_span_clusters() {
        let mut file = Allocator::new();
        assert_eq!(file.whole(2), 0);
        assert_eq!(file.packed(40_000).expect("room"), 2 * CLUSTER);
        assert_eq!(file.packed(40_000).expect("room"), 2 * CLUSTER + 40_000);
        assert_eq!(file.refcounts(), [1, 1, 2, 1]);
    }

    #[test]
    fn a_whole_cluster_does_not_waste_the_room_before_it() {
        let mut file = Allocator::new();
        assert_eq!(file.packed(1_000).expect("room"), 0);
        assert_eq!(file.whole(1), CLUSTER);
        assert_eq!(file.packed(60_000).expect("room"), 1_000);
        // This one would span into the whole cluster.
        assert_eq!(file.packed(60_000).expect("room"), 2 * CLUSTER);
        assert_eq!(file.refcounts(), [2, 1, 1]);
        // A smaller one goes into what is left before it, the next one not.
        assert_eq!(file.packed(4_000).expect("room"), 61_000);
        assert_eq!(file.packed(600).expect("room"), 2 * CLUSTER + 60_000);
        assert_eq!(file.refcounts(), [3, 1, 2]);
    }

    #[test]
    fn the_refcounts_count_themselves() {
        for used in [
            1, 32_764, 32_765, 32_766, 32_767, 32_768, 65_530, 65_534, 65_536,
        ] {
            let mut file = Allocator::new();
            file.whole(used);
            let area = file.refcount_area();
            assert_eq!(
                file.clusters(),
                used + area.table_clusters + area.block_count
            );
            assert!(area.block_count * REFCOUNTS_PER_BLOCK >= file.clusters());
            assert!((area.block_count - 1) * REFCOUNTS_PER_BLOCK < file.clusters());
        }
    }
}
