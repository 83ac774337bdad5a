//! Hands out the blocks: the journal, the resize inode's map, directories, long
//! links and attribute blocks, then the files in the order of the tree, each
//! followed by its extent blocks if it needs some.
//!
//! Images keep a disk in clusters of 64 KiB, and pack again what changed. So
//! files lie in *stretches* that begin on such a cluster: where a file grows,
//! the blocks behind it move to the end of its stretch only; later stretches
//! move by whole clusters, or not at all, and keep every cluster's content.
//! Where a stretch begins depends on a path and on the length of one file,
//! never on what lies before, so that a new file disturbs its own stretch only.
//! The gaps are free blocks. Without room for them files are packed tightly.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::tree::{FileTree, Node, NodeId, NodeKind};

use super::census::{Census, Owner};
use super::checksum::Checksum;
use super::extents::{self, Piece};
use super::format::{
    ADDRESSES_PER_BLOCK, BLOCK_BYTES, BLOCK_SIZE, Block, InodeFlags, JOURNAL_INODE, JOURNAL_MAGIC,
    JOURNAL_SUPERBLOCK_V2, JournalSuperblock, RESIZE_INODE, low, put,
};
use super::geometry::Geometry;
use super::layout::{BlockMap, Run, SHORT_TARGET, Source, data_blocks};
use super::options::Ext4Options;
use super::space::{FreeSpace, Full};
use super::xattr;

/// Double indirect block in `i_block`: the only pointer of the resize inode.
const DOUBLE_INDIRECT: usize = 13;

/// Blocks in a cluster of an image, 64 KiB.
const CLUSTER_BLOCKS: u64 = 16;
/// Blocks from which on a file is a stretch of its own: half a MiB, so that
/// the gap behind it is at most an eighth.
const OWN_STRETCH: u64 = 128;
/// Bytes from which on a file begins on a cluster of an image, where there
/// is room for that.
pub const OWN_STRETCH_BYTES: u64 = OWN_STRETCH * BLOCK_BYTES;

/// How close files lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// In stretches that begin on a cluster.
    Stable,
    /// One right behind the other.
    Tight,
}

/// Blocks as they were handed out.
#[derive(Debug)]
pub(super) struct Placed {
    /// By inode number, the first of them 1.
    pub(super) maps: Vec<BlockMap>,
    /// Blocks that [`Source::Ready`] names.
    pub(super) ready: Vec<Box<Block>>,
    /// In no order.
    pub(super) runs: Vec<Run>,
    /// Blocks that nobody uses, ascending.
    pub(super) free: Vec<Range<u64>>,
}

/// Blocks that are being handed out.
pub(super) struct Placing {
    volume: Checksum,
    space: FreeSpace,
    maps: Vec<BlockMap>,
    ready: Vec<Box<Block>>,
    runs: Vec<Run>,
    /// Attribute blocks that may be shared, by content: place and users.
    shared: BTreeMap<Box<Block>, SharedBlock>,
}

#[derive(Debug, Clone, Copy)]
struct SharedBlock {
    at: u64,
    ready: u32,
    users: u32,
}

impl Placing {
    /// Places everything, or says that the volume is full.
    pub(super) fn of(
        tree: &FileTree,
        census: &Census,
        geometry: &Geometry,
        options: &Ext4Options,
        packing: Packing,
    ) -> Result<Placed, Full> {
        let mut placing = Self {
            volume: Checksum::of_volume(options.uuid.bytes()),
            space: FreeSpace::new(geometry.free.clone()),
            maps: vec![BlockMap::default(); census.subjects.len()],
            ready: Vec::new(),
            runs: Vec::new(),
            shared: BTreeMap::new(),
        };
        placing.place_journal(geometry, options)?;
        placing.place_resize(geometry)?;
        placing.place_directories(census)?;
        for (number, subject) in census.numbered() {
            if let Owner::Tree(id) = subject.owner {
                placing.place_special(number, tree.node(id))?;
            }
        }
        placing.place_xattrs(census)?;
        placing.place_files(tree, census, packing)?;
        Ok(Placed {
            maps: placing.maps,
            ready: placing.ready,
            runs: placing.runs,
            free: placing.space.into_ranges(),
        })
    }

    fn map_mut(&mut self, number: u32) -> &mut BlockMap {
        &mut self.maps[number as usize - 1]
    }

    /// Keeps a finished block and lets it appear at `at`.
    fn add_ready(&mut self, at: u64, block: Box<Block>) -> u32 {
        let index = u32::try_from(self.ready.len()).expect("fewer than blocks in a volume");
        self.ready.push(block);
        self.runs.push(Run {
            start: at,
            blocks: 1,
            source: Source::Ready { block: index },
        });
        index
    }

    /// Maps `pieces` as the blocks of inode `number`.
    fn map_pieces(&mut self, number: u32, size: u64, pieces: &[Piece]) -> Result<(), Full> {
        let seed = self.volume.of_inode(number);
        let space = &mut self.space;
        let tree = extents::build(pieces, seed, || space.take_one())?;
        let data: u64 = pieces.iter().map(|p| p.blocks.end - p.blocks.start).sum();
        let map = self.map_mut(number);
        map.flags |= InodeFlags::EXTENTS;
        map.size = size;
        map.blocks += data + tree.blocks.len() as u64;
        map.map = tree.root;
        for (at, block) in tree.blocks {
            self.add_ready(at, block);
        }
        Ok(())
    }

    /// Takes the blocks `logical` of a file from the free ones.
    fn take_pieces(&mut self, logical: Range<u32>) -> Result<Vec<Piece>, Full> {
        let taken = self.space.take(u64::from(logical.end - logical.start))?;
        Ok(pieces(logical.start, taken))
    }

    /// The journal: its first block says that it is empty, the rest is zero.
    fn place_journal(&mut self, geometry: &Geometry, options: &Ext4Options) -> Result<(), Full> {
        let blocks = u64::from(geometry.journal_blocks);
        let taken = pieces(0, self.space.take_together(blocks)?);
        let superblock = JournalSuperblock {
            h_magic: JOURNAL_MAGIC.into(),
            h_blocktype: JOURNAL_SUPERBLOCK_V2.into(),
            h_sequence: 0.into(),
            s_blocksize: (4 * ADDRESSES_PER_BLOCK).into(),
            s_maxlen: geometry.journal_blocks.into(),
            s_first: 1.into(),
            s_sequence: 1.into(),
            s_start: 0.into(),
            s_errno: 0.into(),
            s_feature_compat: 0.into(),
            s_feature_incompat: 0.into(),
            s_feature_ro_compat: 0.into(),
            s_uuid: options.uuid.bytes(),
            s_nr_users: 1.into(),
        };
        if let Some(first) = taken.first() {
            let mut block = Box::new([0; BLOCK_SIZE]);
            put(block.as_mut_slice(), 0, &superblock);
            self.add_ready(first.blocks.start, block);
        }
        self.map_pieces(JOURNAL_INODE, blocks * BLOCK_BYTES, &taken)
    }

    /// The resize inode: a double indirect block lists the blocks reserved
    /// behind the first group table, and each of these lists its copies.
    ///
    /// Source: kernel documentation, "Reserved GDT blocks"; `fs/ext4/resize.c`.
    fn place_resize(&mut self, geometry: &Geometry) -> Result<(), Full> {
        let at = self.space.take_one()?;
        let mut block = Box::new([0; BLOCK_SIZE]);
        let first = 1 + geometry.table_blocks;
        for reserved in 0..geometry.reserved_table_blocks {
            let slot = (geometry.table_blocks + reserved) % ADDRESSES_PER_BLOCK;
            let address = first + reserved;
            put(
                block.as_mut_slice(),
                4 * slot as usize,
                &address.to_le_bytes(),
            );
        }
        self.add_ready(at, block);
        let copies = geometry.groups_with_backup().count() as u64;
        let map = self.map_mut(RESIZE_INODE);
        let pointer = low(at);
        put(&mut map.map, 4 * DOUBLE_INDIRECT, &pointer);
        map.blocks = 1 + copies * u64::from(geometry.reserved_table_blocks);
        // All that direct, indirect and double indirect blocks can reach.
        let addresses = u64::from(ADDRESSES_PER_BLOCK);
        map.size = (12 + addresses + addresses * addresses) * BLOCK_BYTES;
        Ok(())
    }

    fn place_directories(&mut self, census: &Census) -> Result<(), Full> {
        for (index, directory) in (0..).zip(&census.directories) {
            let pieces = self.take_pieces(0..directory.blocks())?;
            for piece in &pieces {
                self.runs.push(Run {
                    start: piece.blocks.start,
                    blocks: piece.blocks.end - piece.blocks.start,
                    source: Source::Directory {
                        directory: index,
                        first: piece.logical,
                    },
                });
            }
            let size = u64::from(directory.blocks()) * BLOCK_BYTES;
            self.map_pieces(directory.inode(), size, &pieces)?;
            if directory.is_indexed() {
                self.map_mut(directory.inode()).flags |= InodeFlags::INDEX;
            }
        }
        Ok(())
    }

    /// Links and devices: what stands in `i_block` itself, and long targets.
    fn place_special(&mut self, number: u32, node: &Node) -> Result<(), Full> {
        match &node.kind {
            NodeKind::Symlink(target) if target.len() <= SHORT_TARGET => {
                let map = self.map_mut(number);
                put(&mut map.map, 0, target.as_slice());
                map.size = target.len() as u64;
            }
            NodeKind::Symlink(target) => {
                let pieces = self.take_pieces(0..1)?;
                let mut block = Box::new([0; BLOCK_SIZE]);
                put(block.as_mut_slice(), 0, target.as_slice());
                for piece in &pieces {
                    self.add_ready(piece.blocks.start, block.clone());
                }
                self.map_pieces(number, target.len() as u64, &pieces)?;
            }
            NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor } => {
                let (old, new) = device_number(*major, *minor);
                let map = self.map_mut(number);
                put(&mut map.map, 0, &old.to_le_bytes());
                put(&mut map.map, 4, &new.to_le_bytes());
            }
            NodeKind::Directory | NodeKind::File(_) | NodeKind::Fifo | NodeKind::Socket => {}
        }
        Ok(())
    }

    /// Attribute blocks with the same content are one block.
    fn place_xattrs(&mut self, census: &Census) -> Result<(), Full> {
        for (number, stored) in &census.xattrs {
            self.map_mut(*number).xattrs.clone_from(&stored.inline);
            let Some(block) = &stored.block else { continue };
            let old = self.shared.get(block).copied();
            let shared = if let Some(old) = old.filter(|old| old.users < xattr::MAX_SHARED) {
                SharedBlock {
                    users: old.users + 1,
                    ..old
                }
            } else {
                let at = self.space.take_one()?;
                let ready = self.add_ready(at, block.clone());
                SharedBlock {
                    at,
                    ready,
                    users: 1,
                }
            };
            self.shared.insert(block.clone(), shared);
            let place = &mut self.ready[shared.ready as usize];
            place.clone_from(block);
            xattr::seal(place, shared.users, shared.at, self.volume);
            let map = self.map_mut(*number);
            map.xattr_block = shared.at;
            map.blocks += 1;
        }
        Ok(())
    }

    fn place_files(
        &mut self,
        tree: &FileTree,
        census: &Census,
        packing: Packing,
    ) -> Result<(), Full> {
        if packing == Packing::Stable {
            self.space.keep_whole(CLUSTER_BLOCKS);
        }
        let mut is_own = false;
        for (number, subject) in census.numbered() {
            if let Owner::Tree(id) = subject.owner
                && let NodeKind::File(content) = &tree.node(id).kind
            {
                let was_own = is_own;
                let data: Vec<Range<u32>> = data_blocks(content).collect();
                let blocks: u64 = data.iter().map(|r| u64::from(r.end - r.start)).sum();
                is_own = blocks >= OWN_STRETCH;
                let begins = was_own || is_own || subject.begins_stretch;
                if begins && packing == Packing::Stable {
                    self.space.align(CLUSTER_BLOCKS);
                }
                self.place_file(number, id, content.size(), data)?;
            }
        }
        Ok(())
    }

    fn place_file(
        &mut self,
        number: u32,
        node: NodeId,
        size: u64,
        data: Vec<Range<u32>>,
    ) -> Result<(), Full> {
        let mut pieces = Vec::new();
        for logical in data {
            pieces.extend(self.take_pieces(logical)?);
        }
        for piece in &pieces {
            self.runs.push(Run {
                start: piece.blocks.start,
                blocks: piece.blocks.end - piece.blocks.start,
                source: Source::File {
                    node,
                    first: piece.logical,
                },
            });
        }
        self.map_pieces(number, size, &pieces)
    }
}

/// `ranges` of the volume as the blocks of a file from `logical` on.
fn pieces(logical: u32, ranges: Vec<Range<u64>>) -> Vec<Piece> {
    let mut next = logical;
    ranges
        .into_iter()
        .map(|blocks| {
            let logical = next;
            next += u32::try_from(blocks.end - blocks.start).expect("a file has 2^32 blocks");
            Piece { logical, blocks }
        })
        .collect()
}

/// The two words of a device number: 8 and 8 bits in the first where they
/// fit, else 12 and 20 bits in the second.
fn device_number(major: u32, minor: u32) -> (u32, u32) {
    if major < 256 && minor < 256 {
        (major << 8 | minor, 0)
    } else {
        (0, minor & 0xff | major << 8 | (minor & !0xff) << 12)
    }
}
