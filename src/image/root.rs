//! The content root: one digest over what a disk says, whatever contains it.
//!
//! Definition, version 1. H is SHA-256, `‖` joins bytes, numbers are big endian.
//!
//! - The disk is cut into leaves of 65,536 bytes; the last one is filled up
//!   with zeros. An empty disk has one leaf of zeros.
//! - The leaf hash is H(0x00 ‖ the 65,536 bytes).
//! - Leaves of zeros are appended until their number is a power of two. They
//!   are the leaves of a perfect binary tree; the hash of an inner node is
//!   H(0x01 ‖ left hash ‖ right hash).
//! - The content root is H(0x02 ‖ `consign content root v1` ‖ length of the
//!   disk in bytes as 8 bytes ‖ hash of the top).
//!
//! The first byte keeps leaves, nodes and roots apart, and the length keeps
//! disks apart that differ in trailing zeros only. A subtree of zeros has one
//! hash for each height, so a hole of any length costs a few hashes.

use crate::digest::{ContentRoot, Digest, Hasher};
use crate::units::ByteSize;

/// Bytes in a leaf.
pub(super) const LEAF_SIZE: usize = 65_536;

/// The hash of one leaf, `bytes` being all of it.
pub(super) fn leaf(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(&[0x00]);
    hasher.update(bytes);
    hasher.finish()
}

fn node(left: &Digest, right: &Digest) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(&[0x01]);
    hasher.update(left.bytes());
    hasher.update(right.bytes());
    hasher.finish()
}

/// Takes leaves in ascending order and gives the root in the end.
#[derive(Debug)]
pub(super) struct RootBuilder {
    size: ByteSize,
    /// Hashes of subtrees of zeros, by height: as many as the tree is high, and one.
    zeros: Vec<Digest>,
    /// Finished subtrees with their heights, which descend.
    finished: Vec<(usize, Digest)>,
    /// Number of the leaf that comes next.
    next: u64,
}

impl RootBuilder {
    pub(super) fn new(size: ByteSize) -> Self {
        let leaves = size.bytes().div_ceil(LEAF_SIZE as u64).max(1);
        let height = leaves.next_power_of_two().trailing_zeros();
        let zero_leaf = leaf(&vec![0; LEAF_SIZE]);
        let zeros = std::iter::successors(Some(zero_leaf), |below| Some(node(below, below)))
            .take(height as usize + 1)
            .collect();
        Self {
            size,
            zeros,
            finished: Vec::new(),
            next: 0,
        }
    }

    /// The hash of leaf number `index`; the ones left out before it are zeros.
    pub(super) fn push(&mut self, index: u64, leaf: Digest) {
        self.skip_to(index);
        self.add(0, leaf);
        self.next += 1;
    }

    pub(super) fn finish(mut self) -> ContentRoot {
        let height = self.zeros.len() - 1;
        self.skip_to(1 << height);
        let (_, top) = self.finished.pop().expect("a perfect tree has one top");
        let mut hasher = Hasher::new();
        hasher.update(&[0x02]);
        hasher.update(b"consign content root v1");
        hasher.update(&self.size.bytes().to_be_bytes());
        hasher.update(top.bytes());
        ContentRoot(hasher.finish())
    }

    /// Adds zeros up to leaf number `index`, in the largest subtrees that fit.
    fn skip_to(&mut self, index: u64) {
        while self.next < index {
            let aligned = self.next.trailing_zeros();
            let fitting = (index - self.next).ilog2();
            let height = aligned.min(fitting);
            self.add(height as usize, self.zeros[height as usize]);
            self.next += 1 << height;
        }
    }

    /// Appends a subtree; it is the right one of two when the last is as high.
    fn add(&mut self, mut height: usize, mut hash: Digest) {
        while let Some((last, left)) = self.finished.last()
            && *last == height
        {
            hash = node(left, &hash);
            height += 1;
            self.finished.pop();
        }
        self.finished.push((height, hash));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, word by word.
    fn by_definition(disk: &[u8]) -> ContentRoot {
        let mut leaves: Vec<Vec<u8>> = disk.chunks(65_536).map(<[u8]>::to_vec).collect();
        if let Some(last) = leaves.last_mut() {
            last.resize(65_536, 0);
        }
        while !leaves.len().is_power_of_two() {
            leaves.push(vec![0; 65_536]);
        }
        let hash = |tag: u8, parts: &[&[u8]]| {
            let mut all = vec![tag];
            for part in parts {
                all.extend_from_slice(part);
            }
            Digest::of(&all)
        };
        let mut row: Vec<Digest> = leaves.iter().map(|leaf| hash(0, &[leaf])).collect();
        while row.len() > 1 {
            let pairs = row.chunks(2);
            row = pairs
                .map(|pair| hash(1, &[pair[0].bytes(), pair[1].bytes()]))
                .collect();
        }
        let length = (disk.len() as u64).to_be_bytes();
        ContentRoot(hash(
            2,
            &[b"consign content root v1", &length, row[0].bytes()],
        ))
    }

    fn built(disk: &[u8]) -> ContentRoot {
        let mut builder = RootBuilder::new(ByteSize::from_bytes(disk.len() as u64));
        for (index, bytes) in (0..).zip(disk.chunks(65_536)) {
            let mut whole = bytes.to_vec();
            whole.resize(65_536, 0);
            if bytes.iter().any(|byte| *byte != 0) {
                builder.push(index, leaf(&whole));
            }
        }
        builder.finish()
    }

    #[test]
    fn an_empty_disk_has_a_root_of_its_own() {
        assert_eq!(built(&[]), by_definition(&[]));
        assert_ne!(built(&[]), built(&[0]));
        assert_ne!(built(&[0; 512]), built(&[0; 1024]));
    }

    #[test]
    fn a_hole_of_exbibytes_costs_nothing() {
        let mut builder = RootBuilder::new(ByteSize::from_bytes(1 << 62));
        builder.push((1 << 45) + 3, leaf(&vec![7; 65_536]));
        builder.finish();
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
        #[test]
        fn the_builder_keeps_to_the_definition(
            leaves in proptest::collection::vec(0_u8..3, 0..20),
            tail in 0_usize..65_536,
        ) {
            let mut disk: Vec<u8> = Vec::new();
            for fill in leaves {
                disk.resize(disk.len() + 65_536, fill);
            }
            disk.resize(disk.len() + tail, 9);
            prop_assert_eq!(built(&disk), by_definition(&disk));
        }
    }
}
