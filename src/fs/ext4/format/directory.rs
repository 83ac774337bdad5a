//! Directory entries, and the index of large directories.

use std::mem::offset_of;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a directory entry names; `file_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names say it")]
pub enum FileType {
    Regular = 1,
    Directory = 2,
    CharDevice = 3,
    BlockDevice = 4,
    Fifo = 5,
    Socket = 6,
    Symlink = 7,
}

impl FileType {
    /// The bits of `i_mode` above the permissions.
    #[must_use]
    pub const fn mode(self) -> u16 {
        match self {
            Self::Fifo => 0x1000,
            Self::CharDevice => 0x2000,
            Self::Directory => 0x4000,
            Self::BlockDevice => 0x6000,
            Self::Regular => 0x8000,
            Self::Symlink => 0xa000,
            Self::Socket => 0xc000,
        }
    }
}

/// Bytes of an entry before its name.
pub const DIR_ENTRY_HEAD: usize = size_of::<DirEntryHead>();

/// Bytes that an entry with a name of `length` bytes takes at least.
#[must_use]
pub const fn entry_length(length: usize) -> usize {
    (DIR_ENTRY_HEAD + length).next_multiple_of(4)
}

/// `struct ext4_dir_entry_2` without its name.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the kernel's, documented there")]
pub struct DirEntryHead {
    /// 0: the entry is unused.
    pub inode: U32,
    /// Bytes to the next entry.
    pub rec_len: U16,
    pub name_len: u8,
    pub file_type: u8,
}

/// `file_type` of the entry that hides the checksum of a directory block.
pub const TAIL_FILE_TYPE: u8 = 0xde;

/// `struct ext4_dir_entry_tail`, the last entry of a directory block.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the kernel's, documented there")]
pub struct DirEntryTail {
    pub det_reserved_zero1: U32,
    pub det_rec_len: U16,
    pub det_reserved_zero2: u8,
    pub det_reserved_ft: u8,
    pub det_checksum: U32,
}

/// `hash_version` and `s_def_hash_version`.
pub const HALF_MD4: u8 = 1;

/// `struct dx_root` up to its entries: the first block of an indexed directory.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the kernel's, documented there")]
pub struct DxRootHead {
    pub dot: DirEntryHead,
    pub dot_name: [u8; 4],
    pub dotdot: DirEntryHead,
    pub dotdot_name: [u8; 4],
    pub reserved_zero: U32,
    pub hash_version: u8,
    pub info_length: u8,
    /// Levels of nodes between the root and the leaves.
    pub indirect_levels: u8,
    pub unused_flags: u8,
}

/// `struct dx_node` up to its entries: looks like an unused entry.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DxNodeHead {
    /// `inode` 0, as long as the block.
    pub fake: DirEntryHead,
}

/// `struct dx_countlimit`, in the place of the first entry's hash.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the kernel's, documented there")]
pub struct DxCountLimit {
    pub limit: U16,
    pub count: U16,
}

/// `struct dx_entry`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DxEntry {
    /// The smallest hash below; bit 0 set when the block before holds it too.
    pub hash: U32,
    /// Logical block in the directory.
    pub block: U32,
}

/// `struct dx_tail`, after the last entry that fits.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the kernel's, documented there")]
pub struct DxTail {
    pub dt_reserved: U32,
    pub dt_checksum: U32,
}

const _: () = {
    assert!(size_of::<DirEntryHead>() == 8);
    assert!(size_of::<DirEntryTail>() == 12);
    assert!(size_of::<DxRootHead>() == 0x20);
    assert!(offset_of!(DxRootHead, hash_version) == 0x1c);
    assert!(size_of::<DxNodeHead>() == 8);
    assert!(size_of::<DxCountLimit>() == 4);
    assert!(size_of::<DxEntry>() == 8);
    assert!(size_of::<DxTail>() == 8);
};
