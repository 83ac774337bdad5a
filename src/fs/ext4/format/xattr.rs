//! Extended attributes, in the inode and in a block.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `h_magic`, in the inode and in a block.
pub const XATTR_MAGIC: u32 = 0xea02_0000;

/// `e_name_index`: the prefix that a stored name leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum XattrIndex {
    /// `user.`
    User = 1,
    /// `system.posix_acl_access`, whole
    AclAccess = 2,
    /// `system.posix_acl_default`, whole
    AclDefault = 3,
    /// `trusted.`
    Trusted = 4,
    /// `security.`
    Security = 6,
}

/// `struct ext4_xattr_header`, at the start of a block.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the kernel's, documented there")]
pub struct XattrBlockHead {
    pub h_magic: U32,
    /// Inodes that share the block, at most 1,024.
    pub h_refcount: U32,
    pub h_blocks: U32,
    pub h_hash: U32,
    pub h_checksum: U32,
    pub h_reserved: [U32; 3],
}

/// `struct ext4_xattr_entry` without its name.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the kernel's, documented there")]
pub struct XattrEntryHead {
    pub e_name_len: u8,
    pub e_name_index: u8,
    /// From the first entry on in an inode, from the block's start in a block.
    pub e_value_offs: U16,
    pub e_value_inum: U32,
    pub e_value_size: U32,
    pub e_hash: U32,
}

const _: () = {
    assert!(size_of::<XattrBlockHead>() == 32);
    assert!(size_of::<XattrEntryHead>() == 16);
};
