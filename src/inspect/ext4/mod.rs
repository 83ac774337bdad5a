//! ext4, read within bounds, checksums verified.
//!
//! Superblock, group descriptors, inodes, extent blocks, directory blocks and
//! attribute blocks must have the right sums where the volume has sums. Block
//! maps are extents; other maps, inline data and encryption are refused.
//! Trees are at most five high, and every step down must be one.

mod directory;
mod extent;
mod format;
mod xattr;

pub(super) use directory::Names;

use std::sync::Arc;

use zerocopy::{FromBytes, IntoBytes};

use super::blocks::read_vec;
use super::error::InspectError;
use super::volume::{Content, Entry, Kind, Usage};
use crate::fs::ext4::format::{
    GroupDescriptor, Incompat, Inode, InodeFlags, ROOT_INODE, RoCompat, SUPERBLOCK_MAGIC,
    Superblock,
};
use crate::sparse::SparseSource;
use crate::units::{ByteSize, Guid};
use format::{
    BIGALLOC, CSUM_SEED, ENCRYPT_FL, INLINE_DATA_FL, KNOWN, RECOVER, SUPERBLOCK_AT, SUPERBLOCK_SIZE,
};

/// Links followed in one path before it counts as a loop, as in Linux.
const MOST_LINKS: usize = 40;
/// The longest target of a link.
const MOST_TARGET: u64 = 4096;
/// Most names that a path has, those of its links counted.
const MOST_STEPS: usize = 4096;
/// Most bytes of directories that are searched for one path.
const MOST_SCANNED: u64 = 512 << 20;

/// An ext4 volume.
#[derive(Debug)]
pub struct Ext4 {
    source: Arc<dyn SparseSource>,
    superblock: Box<Superblock>,
    block: u64,
    blocks: u64,
    desc_size: u64,
    inode_size: u64,
    has_sums: bool,
    seed: Sum,
}

/// What is at a path.
#[derive(Debug)]
pub(super) enum Listed {
    /// A directory with its names.
    Directory(Names),
    /// Anything else.
    Other(Entry),
}

/// CRC-32C without the last inversion, as ext4 has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sum(u32);

impl Sum {
    const START: Self = Self(!0);

    fn with(self, bytes: &[u8]) -> Self {
        Self(!crc32c::crc32c_append(!self.0, bytes))
    }
}

/// An inode with what its sums are seeded with.
#[derive(Debug, Clone)]
struct Node {
    number: u32,
    /// Its fields; those behind the end of a smaller inode are 0.
    inode: Inode,
    /// All bytes of the inode.
    bytes: Vec<u8>,
    seed: Sum,
}

fn damaged<T>(what: &'static str) -> Result<T, InspectError> {
    Err(InspectError::Volume {
        file_system: "ext4",
        what,
    })
}

fn unsupported<T>(what: &'static str) -> Result<T, InspectError> {
    Err(InspectError::VolumeUnsupported {
        file_system: "ext4",
        what,
    })
}

/// Whether counts and block numbers have more than 32 bits.
fn has_high_halves(superblock: &Superblock) -> bool {
    superblock.s_feature_incompat.get() & Incompat::SIXTY_FOUR_BIT.bits() != 0
}

/// The first bytes as a structure, of which the end may be missing: zeros.
fn padded<T: FromBytes + IntoBytes>(bytes: &[u8]) -> T {
    let mut whole = T::new_zeroed();
    let room = whole.as_mut_bytes();
    let length = bytes.len().min(room.len());
    room[..length].copy_from_slice(&bytes[..length]);
    whole
}

/// The names of a path that say something, the last first.
fn names_of(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let names = path.split(|byte| *byte == b'/').rev();
    names.filter(|name| !matches!(*name, b"" | b"."))
}

impl Ext4 {
    /// The volume in `source`; `None` when it does not look like ext2, 3 or 4.
    ///
    /// # Errors
    ///
    /// [`InspectError::Volume`] for impossible numbers and wrong sums,
    /// [`InspectError::VolumeUnsupported`] for what this reader does not read.
    pub fn open(source: Arc<dyn SparseSource>) -> Result<Option<Self>, InspectError> {
        let offset = SUPERBLOCK_AT;
        let bytes = read_vec(source.as_ref(), offset, SUPERBLOCK_SIZE);
        let bytes = bytes.map_err(|source| InspectError::Read { offset, source })?;
        let superblock = bytes
            .as_deref()
            .and_then(|bytes| Superblock::read_from_bytes(bytes).ok().map(Box::new));
        let (Some(superblock), Some(bytes)) = (superblock, bytes) else {
            return Ok(None);
        };
        if superblock.s_magic.get() != SUPERBLOCK_MAGIC {
            return Ok(None);
        }
        let has_sums = superblock.s_feature_ro_compat.get() & RoCompat::METADATA_CSUM.bits() != 0;
        let sum = Sum::START.with(&bytes[..SUPERBLOCK_SIZE - 4]);
        if has_sums && sum.0 != superblock.s_checksum.get() {
            return damaged("the superblock's sum is wrong");
        }
        Self::lay_out(source, superblock, has_sums).map(Some)
    }

    fn lay_out(
        source: Arc<dyn SparseSource>,
        superblock: Box<Superblock>,
        has_sums: bool,
    ) -> Result<Self, InspectError> {
        let s = superblock.as_ref();
        let incompat = s.s_feature_incompat.get();
        if incompat & !KNOWN != 0 || s.s_feature_ro_compat.get() & BIGALLOC != 0 {
            return unsupported("a feature that consign does not know");
        }
        if s.s_log_block_size.get() > 6 || s.s_rev_level.get() == 0 {
            return unsupported("an odd block size or revision");
        }
        let block = 1024_u64 << s.s_log_block_size.get();
        let is_64 = has_high_halves(s);
        let high = |high: u32| if is_64 { u64::from(high) << 32 } else { 0 };
        let blocks = high(s.s_blocks_count_hi.get()) | u64::from(s.s_blocks_count_lo.get());
        let desc_size = if is_64 {
            u64::from(s.s_desc_size.get())
        } else {
            32
        };
        let inode_size = u64::from(s.s_inode_size.get());
        let per_group = [s.s_blocks_per_group.get(), s.s_inodes_per_group.get()];
        let is_possible = blocks
            .checked_mul(block)
            .is_some_and(|size| size <= source.size().bytes())
            && desc_size.is_power_of_two()
            && (32..=block).contains(&desc_size)
            && (!is_64 || desc_size >= 64)
            && inode_size.is_power_of_two()
            && (128..=block).contains(&inode_size)
            && per_group
                .iter()
                .all(|count| (1..=8 * block).contains(&u64::from(*count)))
            && u64::from(s.s_first_data_block.get()) < blocks
            && s.s_inodes_count.get() >= 11;
        if !is_possible {
            return damaged("the superblock's numbers are impossible");
        }
        let seed = if incompat & CSUM_SEED != 0 {
            Sum(s.s_checksum_seed.get())
        } else {
            Sum::START.with(&s.s_uuid)
        };
        Ok(Self {
            source,
            superblock,
            block,
            blocks,
            desc_size,
            inode_size,
            has_sums,
            seed,
        })
    }

    /// The volume's name; what is not UTF-8 is replaced.
    #[must_use]
    pub fn label(&self) -> Option<String> {
        let name = &self.superblock.s_volume_name;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    }

    /// The volume's identifier.
    #[must_use]
    pub fn uuid(&self) -> Guid {
        Guid::from_bytes(self.superblock.s_uuid)
    }

    /// Whether a journal waits to be replayed: then files may be read as they
    /// were before.
    #[must_use]
    pub fn needs_recovery(&self) -> bool {
        self.superblock.s_feature_incompat.get() & RECOVER != 0
    }

    /// All bytes of the volume and the free ones, as the superblock says.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let s = &self.superblock;
        let high = if has_high_halves(s) {
            u64::from(s.s_free_blocks_count_hi.get()) << 32
        } else {
            0
        };
        let free = (high | u64::from(s.s_free_blocks_count_lo.get())).min(self.blocks);
        Usage {
            total: ByteSize::from_bytes(self.blocks * self.block),
            free: ByteSize::from_bytes(free * self.block),
        }
    }

    /// Inodes in use, as the superblock says.
    #[must_use]
    pub fn inodes(&self) -> u32 {
        let s = &self.superblock;
        s.s_inodes_count
            .get()
            .saturating_sub(s.s_free_inodes_count.get())
    }

    fn bytes(&self, offset: u64, length: u64) -> Result<Vec<u8>, InspectError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let read = read_vec(self.source.as_ref(), offset, length);
        match read.map_err(|source| InspectError::Read { offset, source })? {
            Some(bytes) => Ok(bytes),
            None => damaged("it is cut off"),
        }
    }

    /// A block of the volume.
    fn read_block(&self, number: u64) -> Result<Vec<u8>, InspectError> {
        if number == 0 || number >= self.blocks {
            return damaged("a block is behind the end of the volume");
        }
        self.bytes(number * self.block, self.block)
    }

    /// Block number of a group's inode table.
    fn inode_table(&self, group: u32) -> Result<u64, InspectError> {
        let first = u64::from(self.superblock.s_first_data_block.get());
        let offset = (first + 1) * self.block + u64::from(group) * self.desc_size;
        let desc = self.bytes(offset, self.desc_size)?;
        if self.has_sums {
            let mut unsummed = desc.clone();
            unsummed[0x1e..0x20].fill(0);
            let sum = self.seed.with(&group.to_le_bytes()).with(&unsummed);
            if sum.0.to_le_bytes()[..2] != desc[0x1e..0x20] {
                return damaged("a group descriptor's sum is wrong");
            }
        }
        let desc: GroupDescriptor = padded(&desc);
        let high = u64::from(desc.bg_inode_table_hi.get()) << 32;
        Ok(high | u64::from(desc.bg_inode_table_lo.get()))
    }

    fn node(&self, number: u32) -> Result<Node, InspectError> {
        if number == 0 || number > self.superblock.s_inodes_count.get() {
            return damaged("an inode's number is impossible");
        }
        let per_group = self.superblock.s_inodes_per_group.get();
        let table = self.inode_table((number - 1) / per_group)?;
        let inside = u64::from((number - 1) % per_group) * self.inode_size;
        if table == 0 || table >= self.blocks {
            return damaged("an inode table is behind the end of the volume");
        }
        let bytes = self.bytes(table * self.block + inside, self.inode_size)?;
        let inode: Inode = padded(&bytes);
        let seed = self.seed.with(&number.to_le_bytes());
        let seed = seed.with(&inode.i_generation.get().to_le_bytes());
        let node = Node {
            number,
            inode,
            bytes,
            seed,
        };
        if self.has_sums && !node.sum_is_right() {
            return damaged("an inode's sum is wrong");
        }
        if node.inode.i_links_count.get() == 0 {
            return damaged("a name leads to a deleted inode");
        }
        Ok(node)
    }

    /// The node at `path`, links followed, and its name.
    fn find(&self, path: &[u8]) -> Result<(Node, Vec<u8>), InspectError> {
        let mut todo: Vec<Vec<u8>> = names_of(path).map(<[u8]>::to_vec).collect();
        // Numbers alone: a path may be long, and an inode large.
        let mut above: Vec<u32> = Vec::new();
        let mut here = self.node(ROOT_INODE)?;
        let mut last = b"/".to_vec();
        let mut room = MOST_SCANNED;
        let (mut links, mut steps) = (0, 0);
        let no_path = || InspectError::NoPath {
            path: path.to_owned(),
        };
        while let Some(name) = todo.pop() {
            steps += 1;
            if steps > MOST_STEPS {
                return damaged("a path has too many parts");
            }
            if name == b".." {
                here = self.node(above.pop().unwrap_or(ROOT_INODE))?;
                last = name;
                continue;
            }
            if !here.is_directory() {
                return Err(no_path());
            }
            let number = self.lookup(&here, &name, &mut room)?.ok_or_else(no_path)?;
            let node = self.node(number)?;
            if let Kind::Symlink(target) = self.kind(&node)? {
                links += 1;
                if links > MOST_LINKS {
                    return damaged("a path has too many links");
                }
                if target.starts_with(b"/") {
                    above.clear();
                    here = self.node(ROOT_INODE)?;
                }
                todo.extend(names_of(&target).map(<[u8]>::to_vec));
                continue;
            }
            above.push(here.number);
            (here, last) = (node, name);
        }
        Ok((here, last))
    }

    pub(super) fn listed(&self, path: &[u8], room: usize) -> Result<Listed, InspectError> {
        let (node, name) = self.find(path)?;
        if node.is_directory() {
            return Ok(Listed::Directory(self.names(&node, room)?));
        }
        Ok(Listed::Other(self.entry(&node, name)?))
    }

    pub(super) fn content(
        &self,
        path: &[u8],
    ) -> Result<(u64, Box<dyn Content + '_>), InspectError> {
        let (node, _) = self.find(path)?;
        if self.kind(&node)? != Kind::File {
            return Err(InspectError::OtherKind {
                path: path.to_owned(),
                wanted: "file",
            });
        }
        Ok((node.size(), Box::new(Ext4File { volume: self, node })))
    }

    fn entry(&self, node: &Node, name: Vec<u8>) -> Result<Entry, InspectError> {
        let inode = &node.inode;
        Ok(Entry {
            name,
            kind: self.kind(node)?,
            mode: inode.i_mode.get() & 0o7777,
            uid: u32::from(inode.l_i_uid_high.get()) << 16 | u32::from(inode.i_uid.get()),
            gid: u32::from(inode.l_i_gid_high.get()) << 16 | u32::from(inode.i_gid.get()),
            size: node.size(),
            links: inode.i_links_count.get().into(),
            mtime: node.mtime(),
            inode: node.number.into(),
            xattrs: self.xattrs(node)?,
        })
    }

    fn kind(&self, node: &Node) -> Result<Kind, InspectError> {
        let block = &node.inode.i_block;
        let word = |at: usize| {
            u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
        };
        // Old device numbers are 8:8 bits in the first word, new ones 12:20 in the second.
        let device = || match (word(0), word(4)) {
            (0, new) => (new >> 8 & 0xfff, new & 0xff | new >> 12 & 0xf_ff00),
            (old, _) => (old >> 8 & 0xff, old & 0xff),
        };
        Ok(match node.inode.i_mode.get() >> 12 {
            0o01 => Kind::Fifo,
            0o02 => {
                let (major, minor) = device();
                Kind::CharDevice(major, minor)
            }
            0o04 => Kind::Directory,
            0o06 => {
                let (major, minor) = device();
                Kind::BlockDevice(major, minor)
            }
            0o10 => Kind::File,
            0o12 => Kind::Symlink(self.target(node)?),
            0o14 => Kind::Socket,
            _ => return damaged("an inode's type is impossible"),
        })
    }

    fn target(&self, node: &Node) -> Result<Vec<u8>, InspectError> {
        let size = node.size();
        if size > MOST_TARGET || size == 0 {
            return damaged("a link's target is too long, or empty");
        }
        let length = usize::try_from(size).unwrap_or_default();
        if node.inode.i_flags.get() & InodeFlags::EXTENTS.bits() == 0 {
            return match node.inode.i_block.get(..length) {
                Some(target) => Ok(target.to_vec()),
                None => unsupported("a block map"),
            };
        }
        let mut target = vec![0; length];
        self.read_content(node, &mut target, 0)?;
        Ok(target)
    }
}

impl Node {
    fn size(&self) -> u64 {
        u64::from(self.inode.i_size_high.get()) << 32 | u64::from(self.inode.i_size_lo.get())
    }

    fn is_directory(&self) -> bool {
        self.inode.i_mode.get() >> 12 == 0o04
    }

    /// Whether the second half of the inode reaches to `end` bytes.
    fn extra_reaches(&self, end: usize) -> bool {
        self.bytes.len() > 128 && usize::from(self.inode.i_extra_isize.get()) >= end
    }

    fn mtime(&self) -> (i64, u32) {
        let seconds = i64::from(self.inode.i_mtime.get().cast_signed());
        if !self.extra_reaches(12) {
            return (seconds, 0);
        }
        let extra = self.inode.i_mtime_extra.get();
        (seconds + (i64::from(extra & 3) << 32), extra >> 2)
    }

    fn sum_is_right(&self) -> bool {
        let mut unsummed = self.bytes.clone();
        unsummed[0x7c..0x7e].fill(0);
        let has_high = self.extra_reaches(4);
        if has_high {
            unsummed[0x82..0x84].fill(0);
        }
        let sum = self.seed.with(&unsummed).0.to_le_bytes();
        sum[..2] == self.bytes[0x7c..0x7e] && (!has_high || sum[2..] == self.bytes[0x82..0x84])
    }

    /// Refuses content that this reader does not read.
    fn check_map(&self) -> Result<(), InspectError> {
        let flags = self.inode.i_flags.get();
        if flags & (ENCRYPT_FL | INLINE_DATA_FL) != 0 {
            return unsupported("encryption or inline data");
        }
        if flags & InodeFlags::EXTENTS.bits() == 0 {
            return unsupported("a block map without extents");
        }
        Ok(())
    }
}

struct Ext4File<'a> {
    volume: &'a Ext4,
    node: Node,
}

impl Content for Ext4File<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), InspectError> {
        self.volume.read_content(&self.node, buf, offset)
    }
}
