//! Who uses which cluster of the file, and whether it is counted.

use std::ops::Range;

use zerocopy::FromBytes as _;
use zerocopy::big_endian::U64;

use super::{COMPLAIN, Facts, MOST_CLUSTERS};
use crate::inspect::error::InspectError;
use crate::sparse::SparseSource;

/// Which clusters of the file are used, and how.
#[derive(Debug)]
pub(super) struct Used {
    cluster: u64,
    clusters: u64,
    /// By one table or cluster of data.
    whole: Vec<u64>,
    /// By packed clusters.
    shared: Vec<u64>,
    /// Bytes that packed clusters may still have, each as few as it can.
    room: u64,
    /// Fewest bytes of one.
    least: u64,
}

impl Used {
    pub(super) fn new(facts: &Facts, file: u64) -> Result<Self, InspectError> {
        let clusters = file.div_ceil(facts.cluster());
        if clusters > MOST_CLUSTERS {
            return COMPLAIN.unsupported("more than 256 million clusters");
        }
        let words = vec![0; usize::try_from(clusters.div_ceil(64)).unwrap_or_default()];
        let mut used = Self {
            cluster: facts.cluster(),
            clusters,
            whole: words.clone(),
            shared: words,
            room: file,
            least: facts.least_packed(),
        };
        used.take(0, facts.cluster())?;
        used.take(facts.l1_offset, facts.l1_entries as u64 * 8)?;
        used.take(facts.refcount_offset, facts.refcount_length as u64)?;
        Ok(used)
    }

    fn bits(&self, range: Range<u64>) -> Result<Range<u64>, InspectError> {
        let bits = range.start / self.cluster..range.end.div_ceil(self.cluster);
        COMPLAIN.must(
            bits.end <= self.clusters,
            "a cluster is behind the end of the file",
        )?;
        Ok(bits)
    }

    /// `length` bytes from a cluster on belong to one user only.
    pub(super) fn take(&mut self, offset: u64, length: u64) -> Result<(), InspectError> {
        let end = offset.saturating_add(length);
        for bit in self.bits(offset..end)? {
            let (word, mask) = Self::word(bit);
            COMPLAIN.must(
                (self.whole[word] | self.shared[word]) & mask == 0,
                "clusters share their bytes",
            )?;
            self.whole[word] |= mask;
        }
        Ok(())
    }

    /// The bytes belong to packed clusters, this one and perhaps others: no
    /// more of them than the file has room for.
    pub(super) fn share(&mut self, range: Range<u64>) -> Result<(), InspectError> {
        let Some(room) = self.room.checked_sub(self.least) else {
            return COMPLAIN.damaged("packed clusters share their bytes");
        };
        self.room = room;
        for bit in self.bits(range)? {
            let (word, mask) = Self::word(bit);
            COMPLAIN.must(self.whole[word] & mask == 0, "clusters share their bytes")?;
            self.shared[word] |= mask;
        }
        Ok(())
    }

    fn word(bit: u64) -> (usize, u64) {
        (
            usize::try_from(bit / 64).unwrap_or(usize::MAX),
            1 << (bit % 64),
        )
    }

    fn is_used(&self, bit: u64) -> bool {
        let (word, mask) = Self::word(bit);
        let is_set = |words: &[u64]| words.get(word).is_some_and(|word| word & mask != 0);
        is_set(&self.whole) || is_set(&self.shared)
    }

    /// Every used cluster must be counted, or a later writer would overwrite it.
    pub(super) fn compare_with_refcounts(
        mut self,
        file: &dyn SparseSource,
        facts: &Facts,
    ) -> Result<(), InspectError> {
        const CUT: &str = "its refcount table is cut off";
        let table = COMPLAIN.read(file, facts.refcount_offset, facts.refcount_length, CUT)?;
        let Ok(table) = <[U64]>::ref_from_bytes(&table) else {
            return COMPLAIN.damaged(CUT);
        };
        let per_block = (self.cluster * 8) >> facts.refcount_order;
        let blocks = self.clusters.div_ceil(per_block);
        let offsets: Vec<u64> = table.iter().map(|entry| entry.get()).collect();
        for offset in offsets.iter().filter(|offset| **offset != 0) {
            COMPLAIN.must(
                facts.is_aligned(*offset),
                "a refcount block is not on a cluster",
            )?;
            self.take(*offset, self.cluster)?;
        }
        for number in 0..blocks {
            let offset = usize::try_from(number).ok().and_then(|n| offsets.get(n));
            let offset = offset.copied().unwrap_or(0);
            let block = if offset == 0 {
                Vec::new()
            } else {
                let length = usize::try_from(self.cluster).unwrap_or_default();
                COMPLAIN.read(file, offset, length, "a refcount block is cut off")?
            };
            let first = number * per_block;
            for bit in first..self.clusters.min(first + per_block) {
                let is_counted = is_counted(&block, bit - first, facts.refcount_order);
                COMPLAIN.must(
                    is_counted || !self.is_used(bit),
                    "a cluster that is used is not counted",
                )?;
            }
        }
        Ok(())
    }
}

/// Whether refcount number `index` of a block, 2 to the power of `order` bits
/// wide, is not 0.
fn is_counted(block: &[u8], index: u64, order: u32) -> bool {
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    if order < 3 {
        let per_byte = 8 >> order;
        let mask = (1_u16 << (1 << order)) - 1;
        let byte = block.get(index / per_byte).copied().unwrap_or(0);
        let shift = (index % per_byte) << order;
        return (u16::from(byte) >> shift) & mask != 0;
    }
    let width = 1 << (order - 3);
    let start = index.saturating_mul(width);
    let bytes = block.get(start..start.saturating_add(width));
    bytes.is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refcounts_of_every_width_are_found() {
        assert!(is_counted(&[0b0000_0100], 2, 0));
        assert!(!is_counted(&[0b0000_0100], 1, 0));
        assert!(is_counted(&[0b0011_0000], 2, 1));
        assert!(is_counted(&[0, 0x10], 3, 2));
        assert!(is_counted(&[0, 1], 1, 3));
        assert!(is_counted(&[0, 0, 0, 1], 1, 4));
        assert!(is_counted(&[0, 0, 0, 0, 0, 0, 0, 1], 0, 6));
        assert!(!is_counted(&[1], 1, 4));
    }
}
