//! Inodes and the extents that map their blocks.

use std::mem::offset_of;

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::BLOCK_SIZE;

/// Bytes of an inode after its fields, for extended attributes.
pub const INLINE_XATTRS: usize = 96;

/// `i_extra_isize`: bytes of fields after the first 128.
pub const EXTRA_ISIZE: u16 = 32;

bitflags! {
    /// `i_flags`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct InodeFlags: u32 {
        /// The directory has an index.
        const INDEX = 0x1000;
        /// `i_block` holds extents.
        const EXTENTS = 0x8_0000;
    }
}

/// `struct ext4_inode`, and the space behind it.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the kernel's, documented there")]
pub struct Inode {
    pub i_mode: U16,
    pub i_uid: U16,
    pub i_size_lo: U32,
    pub i_atime: U32,
    pub i_ctime: U32,
    pub i_mtime: U32,
    pub i_dtime: U32,
    pub i_gid: U16,
    pub i_links_count: U16,
    /// In sectors of 512 bytes; data, extent blocks and xattr block together.
    pub i_blocks_lo: U32,
    pub i_flags: U32,
    pub l_i_version: U32,
    /// Extents, block numbers, a short link's target or a device number.
    pub i_block: [u8; 60],
    pub i_generation: U32,
    pub i_file_acl_lo: U32,
    pub i_size_high: U32,
    pub i_obso_faddr: U32,
    pub l_i_blocks_high: U16,
    pub l_i_file_acl_high: U16,
    pub l_i_uid_high: U16,
    pub l_i_gid_high: U16,
    pub l_i_checksum_lo: U16,
    pub l_i_reserved: U16,
    pub i_extra_isize: U16,
    pub i_checksum_hi: U16,
    pub i_ctime_extra: U32,
    pub i_mtime_extra: U32,
    pub i_atime_extra: U32,
    pub i_crtime: U32,
    pub i_crtime_extra: U32,
    pub i_version_hi: U32,
    pub i_projid: U32,
    /// `struct ext4_xattr_ibody_header` and its entries, or zeros.
    pub xattrs: [u8; INLINE_XATTRS],
}

const _: () = {
    assert!(size_of::<Inode>() == 256);
    assert!(offset_of!(Inode, i_links_count) == 0x1a);
    assert!(offset_of!(Inode, i_block) == 0x28);
    assert!(offset_of!(Inode, i_file_acl_lo) == 0x68);
    assert!(offset_of!(Inode, l_i_checksum_lo) == 0x7c);
    assert!(offset_of!(Inode, i_extra_isize) == 0x80);
    assert!(offset_of!(Inode, i_crtime_extra) == 0x94);
    assert!(offset_of!(Inode, xattrs) == 128 + EXTRA_ISIZE as usize);
};

impl Inode {
    /// All fields zero.
    #[must_use]
    pub fn zeroed() -> Self {
        Self::new_zeroed()
    }
}

/// `eh_magic`.
pub const EXTENT_MAGIC: u16 = 0xf30a;
/// Extents, or index entries, that fit into `i_block`.
pub const EXTENTS_IN_INODE: u16 = 4;
/// Extents, or index entries, that fit into a block with its tail.
pub const EXTENTS_IN_BLOCK: u16 = 340;
/// Blocks that one written extent may map.
pub const MAX_EXTENT: u32 = 1 << 15;

/// `struct ext4_extent_header`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the kernel's, documented there")]
pub struct ExtentHeader {
    pub eh_magic: U16,
    pub eh_entries: U16,
    pub eh_max: U16,
    /// 0: extents follow. Otherwise index entries, this many levels above them.
    pub eh_depth: U16,
    pub eh_generation: U32,
}

/// `struct ext4_extent`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the kernel's, documented there")]
pub struct Extent {
    pub ee_block: U32,
    pub ee_len: U16,
    pub ee_start_hi: U16,
    pub ee_start_lo: U32,
}

/// `struct ext4_extent_idx`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the kernel's, documented there")]
pub struct ExtentIndex {
    pub ei_block: U32,
    pub ei_leaf_lo: U32,
    pub ei_leaf_hi: U16,
    pub ei_unused: U16,
}

/// `struct ext4_extent_tail`, the last four bytes of an extent block.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the kernel's, documented there")]
pub struct ExtentTail {
    pub et_checksum: U32,
}

const _: () = {
    assert!(size_of::<ExtentHeader>() == 12);
    assert!(size_of::<Extent>() == 12);
    assert!(size_of::<ExtentIndex>() == 12);
    assert!(12 * (1 + EXTENTS_IN_INODE as usize) == 60);
    assert!(12 * (1 + EXTENTS_IN_BLOCK as usize) + size_of::<ExtentTail>() == BLOCK_SIZE);
};
