//! Extents: from runs of blocks to the tree that maps them.
//!
//! Up to four extents stand in the inode. More of them go into blocks of 340,
//! and those under blocks of 340 index entries, until four fit the inode.
//!
//! Source: kernel documentation, "Extent Tree".

use std::ops::Range;

use zerocopy::IntoBytes as _;

use super::checksum::Checksum;
use super::format::{
    BLOCK_SIZE, Block, EXTENT_MAGIC, EXTENTS_IN_BLOCK, EXTENTS_IN_INODE, Extent, ExtentHeader,
    ExtentIndex, ExtentTail, MAX_EXTENT, put,
};

/// A piece of a file that lies in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Its first block, counted in the file.
    pub(super) logical: u32,
    /// Its blocks in the volume.
    pub(super) blocks: Range<u64>,
}

/// The map of one file.
#[derive(Debug)]
pub(super) struct ExtentTree {
    /// `i_block`.
    pub(super) root: [u8; 60],
    /// Blocks below the root, with their places.
    pub(super) blocks: Vec<(u64, Box<Block>)>,
}

/// An extent or an index entry, as bytes.
#[derive(Debug, Clone, Copy)]
struct Row {
    logical: u32,
    bytes: [u8; 12],
}

/// Maps `pieces`, which ascend. `place` gives a block for each node below the
/// root.
pub(super) fn build<E>(
    pieces: &[Piece],
    inode: Checksum,
    mut place: impl FnMut() -> Result<u64, E>,
) -> Result<ExtentTree, E> {
    let mut rows: Vec<Row> = pieces.iter().flat_map(extents).collect();
    let mut blocks = Vec::new();
    let mut depth = 0;
    while rows.len() > usize::from(EXTENTS_IN_INODE) {
        let mut above = Vec::new();
        for chunk in rows.chunks(usize::from(EXTENTS_IN_BLOCK)) {
            let at = place()?;
            let mut block = Box::new([0; BLOCK_SIZE]);
            write_node(block.as_mut_slice(), chunk, EXTENTS_IN_BLOCK, depth);
            let tail_at = BLOCK_SIZE - size_of::<ExtentTail>();
            let tail = ExtentTail {
                et_checksum: inode.feed(&block[..tail_at]).value().into(),
            };
            put(block.as_mut_slice(), tail_at, &tail);
            blocks.push((at, block));
            above.extend(chunk.first().map(|row| index(row.logical, at)));
        }
        rows = above;
        depth += 1;
    }
    let mut root = [0; 60];
    write_node(&mut root, &rows, EXTENTS_IN_INODE, depth);
    Ok(ExtentTree { root, blocks })
}

fn write_node(node: &mut [u8], rows: &[Row], max: u16, depth: u16) {
    let header = ExtentHeader {
        eh_magic: EXTENT_MAGIC.into(),
        eh_entries: u16::try_from(rows.len())
            .expect("at most 340: chunked")
            .into(),
        eh_max: max.into(),
        eh_depth: depth.into(),
        eh_generation: 0.into(),
    };
    put(node, 0, &header);
    for (row, at) in rows.iter().zip((size_of::<ExtentHeader>()..).step_by(12)) {
        put(node, at, &row.bytes);
    }
}

/// A piece as extents of at most 32,768 blocks.
fn extents(piece: &Piece) -> impl Iterator<Item = Row> {
    let (logical, blocks) = (piece.logical, piece.blocks.clone());
    let starts = blocks.clone().step_by(MAX_EXTENT as usize);
    starts.map(move |start| {
        let length = (blocks.end - start).min(u64::from(MAX_EXTENT));
        let before = u32::try_from(start - blocks.start).expect("a file has at most 2^32 blocks");
        let extent = Extent {
            ee_block: (logical + before).into(),
            ee_len: u16::try_from(length).expect("at most 32,768").into(),
            ee_start_hi: upper(start).into(),
            ee_start_lo: super::format::low(start),
        };
        row(logical + before, extent.as_bytes())
    })
}

fn index(logical: u32, at: u64) -> Row {
    let entry = ExtentIndex {
        ei_block: logical.into(),
        ei_leaf_lo: super::format::low(at),
        ei_leaf_hi: upper(at).into(),
        ei_unused: 0.into(),
    };
    row(logical, entry.as_bytes())
}

fn row(logical: u32, entry: &[u8]) -> Row {
    let mut bytes = [0; 12];
    bytes.copy_from_slice(entry);
    Row { logical, bytes }
}

/// Bits 32 to 47 of a block number.
fn upper(block: u64) -> u16 {
    u16::try_from(block >> 32).expect("block numbers have 32 bits: MOST_BLOCKS")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(pieces: &[Piece]) -> (ExtentTree, u64) {
        let mut next = 1000;
        let tree = build::<()>(pieces, Checksum::START, || {
            next += 1;
            Ok(next - 1)
        })
        .expect("blocks are there");
        (tree, next - 1000)
    }

    fn scattered(count: u32) -> Vec<Piece> {
        (0..count)
            .map(|at| Piece {
                logical: 2 * at,
                blocks: u64::from(3 * at)..u64::from(3 * at + 1),
            })
            .collect()
    }

    #[test]
    fn an_empty_file_has_a_header_only() {
        let (tree, blocks) = tree(&[]);
        assert_eq!(tree.root[..8], [0x0a, 0xf3, 0, 0, 4, 0, 0, 0]);
        assert_eq!(blocks, 0);
    }

    #[test]
    fn a_long_piece_is_cut_into_extents() {
        let piece = Piece {
            logical: 7,
            blocks: 100..100 + 32_768 + 5,
        };
        let (tree, _) = tree(&[piece]);
        assert_eq!(tree.root[2], 2);
        assert_eq!(tree.root[12..24], [7, 0, 0, 0, 0, 0x80, 0, 0, 100, 0, 0, 0]);
        assert_eq!(tree.root[24..30], [7, 0x80, 0, 0, 5, 0]);
    }

    #[test]
    fn depth_grows_with_the_number_of_pieces() {
        for (pieces, depth, blocks) in [
            (4, 0, 0),
            (5, 1, 1),
            (340, 1, 1),
            (341, 1, 2),
            (1360, 1, 4),
            (1361, 2, 6),
            (200_000, 2, 589 + 2),
        ] {
            let (tree, placed) = tree(&scattered(pieces));
            assert_eq!((tree.root[6], placed), (depth, blocks), "{pieces}");
            assert_eq!(tree.blocks.len() as u64, placed);
        }
    }
}
