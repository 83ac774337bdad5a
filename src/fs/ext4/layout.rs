//! Where everything goes: every block of a volume, decided before any is written.
//!
//! Free blocks are handed out front to back: the journal, the resize inode's
//! map, directories, long links and attribute blocks, then the files in the
//! order of the tree, each followed by its extent blocks if it needs some.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::tree::{Content, FileTree, Node, NodeId, NodeKind};
use crate::units::{ByteSize, MIB};

use super::census::{Census, Owner};
use super::checksum::Checksum;
use super::error::Ext4Error;
use super::extents::{self, Piece};
use super::format::{
    ADDRESSES_PER_BLOCK, BLOCK_BYTES, BLOCK_SIZE, Block, INLINE_XATTRS, INODES_PER_BLOCK,
    InodeFlags, JOURNAL_INODE, JOURNAL_MAGIC, JOURNAL_SUPERBLOCK_V2, JournalSuperblock,
    RESIZE_INODE, low, put,
};
use super::geometry::{Geometry, group_start};
use super::groups::{self, GroupFacts};
use super::hash::HashSeed;
use super::options::{Ext4Options, LEAST_BLOCKS, MOST_BLOCKS};
use super::space::{FreeSpace, Full};
use super::xattr;

/// The longest target that fits `i_block` with its NUL.
const SHORT_TARGET: usize = 59;

/// Double indirect block in `i_block`: the only pointer of the resize inode.
const DOUBLE_INDIRECT: usize = 13;

/// What a run of blocks holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The superblock, or its copy in a group.
    Superblock { group: u32 },
    /// The group table, or a copy of it.
    GroupTable,
    /// Blocks kept for the group table to grow into. Those after the first
    /// superblock hold the places of their copies.
    ReservedTable,
    /// The block bitmap of a group.
    BlockBitmap { group: u32 },
    /// The inode bitmap of a group.
    InodeBitmap { group: u32 },
    /// The used blocks of the inode table of a group.
    InodeTable { group: u32 },
    /// A directory, from block `first` of it on.
    Directory { directory: u32, first: u32 },
    /// A file, from block `first` of it on.
    File { node: NodeId, first: u32 },
    /// A block that is ready.
    Ready { block: u32 },
}

/// Blocks next to each other that come from one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u64,
    pub(super) blocks: u64,
    pub(super) source: Source,
}

impl Run {
    /// The block after it.
    pub(super) fn end(&self) -> u64 {
        self.start + self.blocks
    }
}

/// What an inode says of its blocks.
#[derive(Debug, Clone)]
pub(super) struct BlockMap {
    pub(super) flags: InodeFlags,
    /// In bytes.
    pub(super) size: u64,
    /// Blocks in use: data, extent blocks, attribute block.
    pub(super) blocks: u64,
    /// `i_block`.
    pub(super) map: [u8; 60],
    /// 0: none.
    pub(super) xattr_block: u64,
    pub(super) xattrs: Option<Box<[u8; INLINE_XATTRS]>>,
}

impl Default for BlockMap {
    fn default() -> Self {
        Self {
            flags: InodeFlags::empty(),
            size: 0,
            blocks: 0,
            map: [0; 60],
            xattr_block: 0,
            xattrs: None,
        }
    }
}

/// The whole plan of a volume.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) geometry: Geometry,
    pub(super) census: Census,
    pub(super) placement: Placement,
}

/// Where the content of every inode lies.
#[derive(Debug, Clone)]
pub(super) struct Placement {
    /// By inode number, the first of them 1.
    pub(super) maps: Vec<BlockMap>,
    /// Blocks that [`Source::Ready`] names.
    pub(super) ready: Vec<Box<Block>>,
    /// Ascending; blocks in none of them are zero.
    pub(super) runs: Vec<Run>,
    /// Blocks that nobody uses, ascending.
    pub(super) free: Vec<Range<u64>>,
    /// By group.
    pub(super) facts: Vec<GroupFacts>,
}

impl Layout {
    /// Decides everything.
    pub(super) fn plan(tree: &FileTree, options: &Ext4Options) -> Result<Self, Ext4Error> {
        options.check()?;
        let census = Census::take(tree, hash_seed(options))?;
        let geometry = Geometry::plan(options, u64::from(census.inodes()))?;
        match Placement::of(tree, &census, &geometry, options) {
            Ok(placement) => Ok(Self {
                geometry,
                census,
                placement,
            }),
            Err(Full { .. }) => Err(Ext4Error::NoRoom {
                needs: least_size(tree, &census, options, 0)?,
                has: options.size,
            }),
        }
    }
}

/// `s_hash_seed`: the bytes of the identifier as four little-endian words.
pub(super) fn hash_seed(options: &Ext4Options) -> HashSeed {
    let value = u128::from_le_bytes(options.hash_seed.bytes());
    [0, 32, 64, 96].map(|shift| (value >> shift & 0xffff_ffff) as u32)
}

/// The least multiple of 1 MiB that holds `tree` and leaves `spare` blocks.
pub(super) fn least_size(
    tree: &FileTree,
    census: &Census,
    options: &Ext4Options,
    spare: u64,
) -> Result<ByteSize, Ext4Error> {
    let demand = demand(tree, census) + spare;
    let mut blocks = demand.max(LEAST_BLOCKS);
    loop {
        let size = ByteSize::from_mib((blocks * BLOCK_BYTES).div_ceil(MIB));
        let trial = Ext4Options {
            size,
            ..options.clone()
        };
        let missing = match Geometry::plan(&trial, u64::from(census.inodes())) {
            Ok(geometry) => match Placement::of(tree, census, &geometry, &trial) {
                Ok(placement) if placement.free_blocks() >= spare => return Ok(size),
                Ok(placement) => spare - placement.free_blocks(),
                Err(Full { missing }) => {
                    let free: u64 = geometry.free.iter().map(|r| r.end - r.start).sum();
                    let needs = demand + u64::from(geometry.journal_blocks);
                    needs.saturating_sub(free).max(missing)
                }
            },
            // A volume of this size cannot have that many inodes, or that journal.
            Err(
                Ext4Error::TooManyFiles { .. }
                | Ext4Error::JournalSize { .. }
                | Ext4Error::VolumeTooSmall { .. },
            ) if blocks < MOST_BLOCKS / 2 => blocks / 8,
            Err(other) => return Err(other),
        };
        blocks = size.bytes() / BLOCK_BYTES + missing.max(1);
    }
}

/// Blocks that the content takes at least: extent and attribute blocks are
/// not counted, nor is the journal.
fn demand(tree: &FileTree, census: &Census) -> u64 {
    let directories: u64 = census
        .directories
        .iter()
        .map(|directory| u64::from(directory.blocks()))
        .sum();
    let nodes: u64 = census
        .subjects
        .iter()
        .map(|subject| match subject.owner {
            Owner::Tree(id) => node_blocks(tree.node(id)),
            _ => 0,
        })
        .sum();
    directories + nodes
}

fn node_blocks(node: &Node) -> u64 {
    match &node.kind {
        NodeKind::File(content) => data_blocks(content)
            .map(|range| u64::from(range.end - range.start))
            .sum(),
        NodeKind::Symlink(target) => u64::from(target.len() > SHORT_TARGET),
        _ => 0,
    }
}

/// The blocks of a file that hold data, ascending and not touching; the
/// others are holes.
fn data_blocks(content: &Content) -> impl Iterator<Item = Range<u32>> {
    let number = |block: u64| u32::try_from(block).expect("below 16 TiB: Census checked");
    let ranges = content.data_ranges().into_iter().map(|range| {
        let end = range.end.min(content.size());
        range.start / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES)
    });
    crate::sparse::coalesce(ranges)
        .into_iter()
        .map(move |range| number(range.start)..number(range.end))
}

impl Placement {
    /// Places everything, or says that the volume is full.
    fn of(
        tree: &FileTree,
        census: &Census,
        geometry: &Geometry,
        options: &Ext4Options,
    ) -> Result<Self, Full> {
        let mut placing = Placing {
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
        for (number, subject) in census.numbered() {
            if let Owner::Tree(id) = subject.owner
                && let NodeKind::File(content) = &tree.node(id).kind
            {
                placing.place_file(number, id, content)?;
            }
        }
        Ok(placing.finish(census, geometry))
    }

    /// Blocks that nobody uses.
    pub(super) fn free_blocks(&self) -> u64 {
        self.free.iter().map(|range| range.end - range.start).sum()
    }
}

struct Placing {
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

    fn place_file(&mut self, number: u32, node: NodeId, content: &Content) -> Result<(), Full> {
        let mut pieces = Vec::new();
        for logical in data_blocks(content) {
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
        self.map_pieces(number, content.size(), &pieces)
    }

    fn finish(mut self, census: &Census, geometry: &Geometry) -> Placement {
        let free = self.space.into_ranges();
        self.runs.extend(head_runs(geometry));
        let facts = groups::count(geometry, census, &free);
        self.runs.extend(table_runs(geometry, &facts));
        self.runs.sort_unstable_by_key(|run| run.start);
        Placement {
            maps: self.maps,
            ready: self.ready,
            runs: self.runs,
            free,
            facts,
        }
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

/// Superblocks, group tables, and the reserved blocks that are not zero.
fn head_runs(geometry: &Geometry) -> Vec<Run> {
    let mut runs = Vec::new();
    for group in geometry.groups_with_backup() {
        let start = group_start(group);
        runs.push(Run {
            start,
            blocks: 1,
            source: Source::Superblock { group },
        });
        runs.push(Run {
            start: start + 1,
            blocks: u64::from(geometry.table_blocks),
            source: Source::GroupTable,
        });
    }
    if geometry.groups > 1 && geometry.reserved_table_blocks > 0 {
        runs.push(Run {
            start: 1 + u64::from(geometry.table_blocks),
            blocks: u64::from(geometry.reserved_table_blocks),
            source: Source::ReservedTable,
        });
    }
    runs
}

/// Bitmaps and inode tables, as far as they are in use.
fn table_runs(geometry: &Geometry, facts: &[GroupFacts]) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut add = |start: u64, blocks: u32, source: Source| {
        let blocks = u64::from(blocks);
        runs.push(Run {
            start,
            blocks,
            source,
        });
    };
    for ((group, tables), facts) in (0..).zip(&geometry.tables).zip(facts) {
        if !facts.is_untouched {
            add(tables.block_bitmap, 1, Source::BlockBitmap { group });
        }
        if facts.used_inodes > 0 {
            let blocks = facts.used_inodes.div_ceil(INODES_PER_BLOCK);
            add(tables.inode_bitmap, 1, Source::InodeBitmap { group });
            add(tables.inode_table, blocks, Source::InodeTable { group });
        }
    }
    runs
}
