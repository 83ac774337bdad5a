//! Structures of ext4 on disk, with the kernel's field names.
//!
//! Source: Linux kernel documentation, "ext4 Data Structures and Algorithms"
//! (`Documentation/filesystems/ext4/`), and `fs/ext4/ext4.h` where it is
//! silent. Little endian throughout, except the journal. Narrower than the
//! format: blocks of 4 KiB, inodes of 256 bytes, group descriptors of 64
//! bytes, and the features that [`Compat`], [`Incompat`] and [`RoCompat`] name.

mod directory;
mod inode;
mod superblock;
mod xattr;

pub use directory::{
    DIR_ENTRY_HEAD, DirEntryHead, DirEntryTail, DxCountLimit, DxEntry, DxNodeHead, DxRootHead,
    DxTail, FileType, HALF_MD4, TAIL_FILE_TYPE, entry_length,
};
pub use inode::{
    EXTENT_MAGIC, EXTENTS_IN_BLOCK, EXTENTS_IN_INODE, EXTRA_ISIZE, Extent, ExtentHeader,
    ExtentIndex, ExtentTail, INLINE_XATTRS, Inode, InodeFlags, MAX_EXTENT,
};
pub use superblock::{
    BACKUP_IS_INODE, Compat, GroupDescriptor, GroupFlags, Incompat, JOURNAL_MAGIC,
    JOURNAL_SUPERBLOCK_V2, JournalSuperblock, RoCompat, SUPERBLOCK_MAGIC, Superblock,
};
pub use xattr::{XATTR_MAGIC, XattrBlockHead, XattrEntryHead, XattrIndex};

/// Bytes in a block.
pub const BLOCK_SIZE: usize = 4096;
/// Bytes in a block, for arithmetic on offsets.
pub const BLOCK_BYTES: u64 = BLOCK_SIZE as u64;
/// One block.
pub type Block = [u8; BLOCK_SIZE];

/// Blocks in a group: as many as one bitmap block has bits.
pub const BLOCKS_PER_GROUP: u32 = 32_768;
/// Groups whose bitmaps and inode tables lie together.
pub const GROUPS_PER_FLEX: u32 = 1 << LOG_GROUPS_PER_FLEX;
/// `s_log_groups_per_flex`.
pub const LOG_GROUPS_PER_FLEX: u8 = 4;
/// Bytes in an inode.
pub const INODE_SIZE: usize = size_of::<Inode>();
/// Inodes in a block of the inode table.
pub const INODES_PER_BLOCK: u32 = 16;
/// Descriptors in a block of the group table.
pub const DESCRIPTORS_PER_BLOCK: u32 = 64;
/// Block numbers in an indirect block.
pub const ADDRESSES_PER_BLOCK: u32 = 1024;

const _: () = {
    assert!(BLOCKS_PER_GROUP as usize == 8 * BLOCK_SIZE);
    assert!(INODES_PER_BLOCK as usize * INODE_SIZE == BLOCK_SIZE);
    assert!(DESCRIPTORS_PER_BLOCK as usize * size_of::<GroupDescriptor>() == BLOCK_SIZE);
    assert!(ADDRESSES_PER_BLOCK as usize * size_of::<u32>() == BLOCK_SIZE);
};

/// The list of bad blocks, always empty here.
pub const BAD_BLOCKS_INODE: u32 = 1;
/// The root directory.
pub const ROOT_INODE: u32 = 2;
/// Holds the reserved group table blocks.
pub const RESIZE_INODE: u32 = 7;
/// The journal.
pub const JOURNAL_INODE: u32 = 8;
/// `s_first_ino`: the first inode that is not reserved. It is `lost+found`.
pub const FIRST_INODE: u32 = 11;

/// Low half of a block number or a count.
pub(super) fn low(value: u64) -> zerocopy::little_endian::U32 {
    ((value & 0xffff_ffff) as u32).into()
}

/// High half of a block number or a count.
pub(super) fn high(value: u64) -> zerocopy::little_endian::U32 {
    ((value >> 32) as u32).into()
}

/// Copies `value` over the bytes of `block` from `at` on.
///
/// Positions are ours, never read from anywhere: one that does not fit is a bug.
pub(super) fn put(
    block: &mut [u8],
    at: usize,
    value: &(impl zerocopy::IntoBytes + zerocopy::Immutable + ?Sized),
) {
    let bytes = value.as_bytes();
    block[at..at + bytes.len()].copy_from_slice(bytes);
}
