//! The volume: every block of it, made when it is read.

use std::io;
use std::ops::Range;

use zerocopy::IntoBytes as _;

use crate::sparse::{SparseSource, check_range, coalesce};
use crate::tree::{FileTree, NodeId, NodeKind};
use crate::units::{ByteSize, Timestamp};

use super::census::{Census, Owner, path_of};
use super::checksum::Checksum;
use super::error::Ext4Error;
use super::format::{
    BACKUP_IS_INODE, BLOCK_BYTES, BLOCK_SIZE, BLOCKS_PER_GROUP, Block, Compat, EXTRA_ISIZE,
    FIRST_INODE, GroupDescriptor, HALF_MD4, INODE_SIZE, INODES_PER_BLOCK, Incompat, JOURNAL_INODE,
    LOG_GROUPS_PER_FLEX, RoCompat, SUPERBLOCK_MAGIC, Superblock, high, low, put,
};
use super::geometry::{Geometry, group_start};
use super::layout::{self, Layout, Run, Source};
use super::options::Ext4Options;
use super::{groups, inode};

/// Where the first superblock lies in its block; copies lie at the start.
const SUPERBLOCK_AT: usize = 1024;

/// `s_inode_size`.
const INODE_BYTES: u16 = 256;
/// `s_desc_size`.
const DESCRIPTOR_BYTES: u16 = 64;

const _: () = {
    assert!(INODE_BYTES as usize == INODE_SIZE);
    assert!(DESCRIPTOR_BYTES as usize == size_of::<GroupDescriptor>());
};

/// An ext4 volume that holds a tree.
///
/// Nothing of it exists until it is read: metadata is computed block by
/// block, file content comes straight from the store. What it keeps in memory
/// grows with the number of entries, not with their content.
#[derive(Debug)]
pub struct Ext4Volume {
    tree: FileTree,
    layout: Layout,
    group_table: Vec<u8>,
    superblock: Superblock,
    checksum: Checksum,
    size: ByteSize,
    source_date: Timestamp,
}

impl Ext4Volume {
    /// Lays `tree` out in a volume; no content is read.
    ///
    /// # Errors
    ///
    /// [`Ext4Error`]: the content does not fit the volume, or something in
    /// the tree does not fit ext4.
    pub fn new(tree: FileTree, options: &Ext4Options) -> Result<Self, Ext4Error> {
        let layout = Layout::plan(&tree, options)?;
        let checksum = Checksum::of_volume(options.uuid.bytes());
        let placement = &layout.placement;
        let group_table = groups::group_table(
            &layout.geometry,
            &placement.facts,
            &placement.free,
            checksum,
        );
        Ok(Self {
            superblock: superblock(&layout, options),
            group_table,
            checksum,
            size: options.size,
            source_date: options.source_date,
            tree,
            layout,
        })
    }

    /// The smallest size that holds `tree` and leaves `spare` bytes free, a
    /// multiple of 1 MiB. The size in `options` does not count.
    ///
    /// A volume of this size is sure to fit; one a little larger nearly
    /// always, as tables and journal grow in steps.
    ///
    /// # Errors
    ///
    /// [`Ext4Error`]: something in the tree does not fit ext4.
    pub fn minimum_size(
        tree: &FileTree,
        options: &Ext4Options,
        spare: ByteSize,
    ) -> Result<ByteSize, Ext4Error> {
        let census = Census::take(tree, layout::hash_seed(options))?;
        layout::least_size(tree, &census, options, spare.bytes().div_ceil(BLOCK_BYTES))
    }

    /// The numbers of the volume.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.layout.geometry
    }

    /// Bytes that no file uses, those reserved for root included.
    #[must_use]
    pub fn free(&self) -> ByteSize {
        ByteSize::from_bytes(self.layout.placement.free_blocks() * BLOCK_BYTES)
    }

    /// Fills `buf` from byte `at` of `run` on.
    fn read_run(&self, run: &Run, at: u64, buf: &mut [u8]) -> io::Result<()> {
        if let Source::File { node, first } = run.source {
            return self.read_file(node, u64::from(first) * BLOCK_BYTES + at, buf);
        }
        let mut rest = buf;
        let mut at = at;
        while !rest.is_empty() {
            let index = u32::try_from(at / BLOCK_BYTES).expect("a volume has 2^32 blocks");
            let skip = usize::try_from(at % BLOCK_BYTES).expect("below 4,096");
            let (part, behind) = rest.split_at_mut(rest.len().min(BLOCK_SIZE - skip));
            let mut block = [0; BLOCK_SIZE];
            self.write_block(run.source, index, &mut block);
            part.copy_from_slice(&block[skip..skip + part.len()]);
            at += part.len() as u64;
            rest = behind;
        }
        Ok(())
    }

    /// File content, and zeros from its end to the end of the block.
    fn read_file(&self, node: NodeId, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let NodeKind::File(content) = &self.tree.node(node).kind else {
            return Err(io::Error::other("a file run without a file"));
        };
        let left = usize::try_from(content.size().saturating_sub(at)).unwrap_or(usize::MAX);
        let (data, padding) = buf.split_at_mut(buf.len().min(left));
        padding.fill(0);
        if data.is_empty() {
            return Ok(());
        }
        content.read_exact_at(data, at).map_err(|error| {
            let path = path_of(Owner::Tree(node), &self.tree);
            io::Error::new(error.kind(), format!("cannot read `{path}`: {error}"))
        })
    }

    /// Writes block `index` of a source over `block`, which is zero.
    fn write_block(&self, source: Source, index: u32, block: &mut Block) {
        let Layout {
            geometry,
            census,
            placement,
        } = &self.layout;
        match source {
            Source::Superblock { group } => self.write_superblock(group, block),
            Source::GroupTable => {
                let at = index as usize * BLOCK_SIZE;
                block.copy_from_slice(&self.group_table[at..at + BLOCK_SIZE]);
            }
            Source::ReservedTable => self.write_reserved(index, block),
            Source::BlockBitmap { group } => {
                *block = groups::block_bitmap(geometry, &placement.free, group);
            }
            Source::InodeBitmap { group } => {
                *block = groups::inode_bitmap(geometry, placement.facts[group as usize]);
            }
            Source::InodeTable { group } => self.write_inodes(group, index, block),
            Source::Directory { directory, first } => {
                let directory = &census.directories[directory as usize];
                directory.write_block(first + index, self.checksum, block);
            }
            Source::Ready { block: ready } => *block = *placement.ready[ready as usize],
            Source::File { .. } => {}
        }
    }

    fn write_superblock(&self, group: u32, block: &mut Block) {
        let mut copy = self.superblock.clone();
        let at = if group == 0 {
            SUPERBLOCK_AT
        } else {
            copy.s_state = 0.into();
            copy.s_block_group_nr = ((group & 0xffff) as u16).into();
            0
        };
        let bytes = copy.as_bytes();
        let sum = Checksum::START.feed(&bytes[..bytes.len() - size_of_val(&copy.s_checksum)]);
        copy.s_checksum = sum.value().into();
        put(block, at, &copy);
    }

    /// A reserved block behind the first group table: where its copies are.
    fn write_reserved(&self, index: u32, block: &mut Block) {
        let geometry = self.geometry();
        let offset = 1 + u64::from(geometry.table_blocks) + u64::from(index);
        let backups = geometry.groups_with_backup().skip(1);
        for (at, group) in (0..).step_by(4).zip(backups) {
            put(block, at, &low(group_start(group) + offset));
        }
    }

    fn write_inodes(&self, group: u32, index: u32, block: &mut Block) {
        let Layout {
            geometry,
            census,
            placement,
        } = &self.layout;
        let first = group * geometry.inodes_per_group + index * INODES_PER_BLOCK;
        for slot in 0..INODES_PER_BLOCK {
            let at = (first + slot) as usize;
            let (Some(subject), Some(map)) = (census.subjects.get(at), placement.maps.get(at))
            else {
                break;
            };
            let number = first + slot + 1;
            let written = inode::write(
                number,
                subject,
                map,
                &self.tree,
                self.source_date,
                self.checksum,
            );
            put(block, slot as usize * INODE_SIZE, &written);
        }
    }
}

impl SparseSource for Ext4Volume {
    fn size(&self) -> ByteSize {
        self.size
    }

    fn data_ranges(&self) -> Box<dyn Iterator<Item = Range<u64>> + '_> {
        let runs = &self.layout.placement.runs;
        let bytes = runs
            .iter()
            .map(|run| run.start * BLOCK_BYTES..run.end() * BLOCK_BYTES);
        Box::new(coalesce(bytes).into_iter())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(offset, buf.len(), self.size)?;
        let runs = &self.layout.placement.runs;
        let mut next = runs.partition_point(|run| run.end() * BLOCK_BYTES <= offset);
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let run = runs.get(next);
            let start = run.map_or(u64::MAX, |run| run.start * BLOCK_BYTES);
            let end = run.map_or(u64::MAX, |run| run.end() * BLOCK_BYTES);
            let stop = if at < start { start } else { end };
            let length = usize::try_from(stop - at).map_or(rest.len(), |n| n.min(rest.len()));
            let (part, behind) = rest.split_at_mut(length);
            match run {
                Some(run) if at >= start => {
                    self.read_run(run, at - start, part)?;
                    next += 1;
                }
                _ => part.fill(0),
            }
            at += length as u64;
            rest = behind;
        }
        Ok(())
    }
}

/// The superblock but for its checksum.
fn superblock(layout: &Layout, options: &Ext4Options) -> Superblock {
    let (geometry, placement) = (&layout.geometry, &layout.placement);
    let free_blocks = placement.free_blocks();
    let mut sb = Superblock::zeroed();
    sb.s_inodes_count = geometry.inodes().into();
    sb.s_blocks_count_lo = low(geometry.blocks);
    sb.s_blocks_count_hi = high(geometry.blocks);
    sb.s_r_blocks_count_lo = low(geometry.reserved_blocks);
    sb.s_r_blocks_count_hi = high(geometry.reserved_blocks);
    sb.s_free_blocks_count_lo = low(free_blocks);
    sb.s_free_blocks_count_hi = high(free_blocks);
    sb.s_free_inodes_count = (geometry.inodes() - layout.census.inodes()).into();
    sb.s_log_block_size = (BLOCK_SIZE.ilog2() - 10).into();
    sb.s_log_cluster_size = sb.s_log_block_size;
    sb.s_blocks_per_group = BLOCKS_PER_GROUP.into();
    sb.s_clusters_per_group = BLOCKS_PER_GROUP.into();
    sb.s_inodes_per_group = geometry.inodes_per_group.into();
    sb.s_magic = SUPERBLOCK_MAGIC.into();
    sb.s_reserved_gdt_blocks = u16::try_from(geometry.reserved_table_blocks)
        .expect("at most 1,024")
        .into();
    sb.s_overhead_clusters = low(geometry.overhead_blocks());
    set_constants(&mut sb);
    set_identity(&mut sb, options);
    set_journal(&mut sb, layout);
    sb
}

/// What every volume of this kind says.
fn set_constants(sb: &mut Superblock) {
    // No count of mounts and no time makes a check due.
    sb.s_max_mnt_count = 0xffff.into();
    sb.s_state = 1.into();
    sb.s_errors = 1.into();
    sb.s_rev_level = 1.into();
    sb.s_first_ino = FIRST_INODE.into();
    sb.s_inode_size = INODE_BYTES.into();
    sb.s_min_extra_isize = EXTRA_ISIZE.into();
    sb.s_want_extra_isize = EXTRA_ISIZE.into();
    sb.s_desc_size = DESCRIPTOR_BYTES.into();
    sb.s_log_groups_per_flex = LOG_GROUPS_PER_FLEX;
    sb.s_checksum_type = 1;
    sb.s_def_hash_version = HALF_MD4;
    sb.s_flags = 1.into();
    // user_xattr and acl.
    sb.s_default_mount_opts = 0xc.into();
    sb.s_feature_compat = Compat::all().bits().into();
    sb.s_feature_incompat = Incompat::all().bits().into();
    sb.s_feature_ro_compat = RoCompat::all().bits().into();
}

fn set_identity(sb: &mut Superblock, options: &Ext4Options) {
    sb.s_uuid = options.uuid.bytes();
    sb.s_hash_seed = layout::hash_seed(options).map(Into::into);
    put(&mut sb.s_volume_name, 0, options.label.as_bytes());
    let seconds = options.source_date.seconds.cast_unsigned();
    sb.s_mkfs_time = low(seconds);
    sb.s_wtime = low(seconds);
    sb.s_lastcheck = low(seconds);
    let upper = (seconds >> 32 & 0xff) as u8;
    sb.s_mkfs_time_hi = upper;
    sb.s_wtime_hi = upper;
    sb.s_lastcheck_hi = upper;
}

/// The journal, and a copy of its map in case inode 8 gets lost.
fn set_journal(sb: &mut Superblock, layout: &Layout) {
    sb.s_journal_inum = JOURNAL_INODE.into();
    sb.s_jnl_backup_type = BACKUP_IS_INODE;
    if let Some(map) = layout.placement.maps.get(JOURNAL_INODE as usize - 1) {
        sb.s_jnl_blocks = map.map;
        sb.s_jnl_size_high = high(map.size);
        sb.s_jnl_size_lo = low(map.size);
    }
}
