//! Where everything goes: every block of a volume, decided before any is written.
//!
//! See `placing` for the order in which free blocks are handed out.

use std::ops::Range;

use crate::tree::{Content, FileTree, Node, NodeId, NodeKind};
use crate::units::{ByteSize, MIB};

use super::census::{Census, Owner};
use super::error::Ext4Error;
use super::format::{BLOCK_BYTES, Block, INLINE_XATTRS, INODES_PER_BLOCK, InodeFlags};
use super::geometry::{Geometry, group_start};
use super::groups::GroupFacts;
use super::hash::HashSeed;
use super::options::{Ext4Options, LEAST_BLOCKS, MOST_BLOCKS};
use super::placing::{Packing, Placing};
use super::space::Full;

/// The longest target that fits `i_block` with its NUL.
pub(super) const SHORT_TARGET: usize = 59;

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
        let placed = [Packing::Stable, Packing::Tight]
            .into_iter()
            .find_map(|packing| Placement::of(tree, &census, &geometry, options, packing).ok());
        match placed {
            Some(placement) => Ok(Self {
                geometry,
                census,
                placement,
            }),
            None => Err(Ext4Error::NoRoom {
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
            Ok(geometry) => match Placement::of(tree, census, &geometry, &trial, Packing::Tight) {
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
pub(super) fn data_blocks(content: &Content) -> impl Iterator<Item = Range<u32>> {
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
        packing: Packing,
    ) -> Result<Self, Full> {
        let placed = Placing::of(tree, census, geometry, options, packing)?;
        let mut runs = placed.runs;
        runs.extend(head_runs(geometry));
        let facts = super::groups::count(geometry, census, &placed.free);
        runs.extend(table_runs(geometry, &facts));
        runs.sort_unstable_by_key(|run| run.start);
        Ok(Self {
            maps: placed.maps,
            ready: placed.ready,
            runs,
            free: placed.free,
            facts,
        })
    }

    /// Blocks that nobody uses.
    pub(super) fn free_blocks(&self) -> u64 {
        self.free.iter().map(|range| range.end - range.start).sum()
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
