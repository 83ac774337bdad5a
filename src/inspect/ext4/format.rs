//! ext4 on disk, as far as a reader needs it.
//!
//! Source: the Linux kernel, `Documentation/filesystems/ext4/`; field names
//! are its. All numbers are little endian.
#![expect(clippy::struct_field_names, reason = "the names of the specification")]

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// `s_magic`.
pub(super) const MAGIC: u16 = 0xef53;
/// Where the superblock is.
pub(super) const SUPERBLOCK_AT: u64 = 1024;
pub(super) const SUPERBLOCK_SIZE: usize = 1024;

/// Incompatible features that this reader reads.
pub(super) const FILETYPE: u32 = 0x2;
pub(super) const RECOVER: u32 = 0x4;
pub(super) const EXTENTS: u32 = 0x40;
pub(super) const SIXTY_FOUR_BIT: u32 = 0x80;
pub(super) const FLEX_BG: u32 = 0x200;
pub(super) const CSUM_SEED: u32 = 0x2000;
pub(super) const LARGEDIR: u32 = 0x4000;
/// Read-only compatible: metadata have checksums.
pub(super) const METADATA_CSUM: u32 = 0x400;
/// Read-only compatible: clusters of several blocks.
pub(super) const BIGALLOC: u32 = 0x200;

/// `i_flags`: the block map is an extent tree.
pub(super) const EXTENTS_FL: u32 = 0x8_0000;
/// `i_flags`: content that this reader does not read.
pub(super) const ENCRYPT_FL: u32 = 0x800;
pub(super) const INLINE_DATA_FL: u32 = 0x1000_0000;

pub(super) const ROOT_INODE: u32 = 2;
pub(super) const EXTENT_MAGIC: u16 = 0xf30a;
pub(super) const XATTR_MAGIC: u32 = 0xea02_0000;
/// File type of the entry that holds a directory block's checksum.
pub(super) const DIR_CSUM: u8 = 0xde;

#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Superblock {
    pub s_inodes_count: U32,
    pub s_blocks_count_lo: U32,
    pub s_r_blocks_count_lo: U32,
    pub s_free_blocks_count_lo: U32,
    pub s_free_inodes_count: U32,
    pub s_first_data_block: U32,
    pub s_log_block_size: U32,
    pub s_log_cluster_size: U32,
    pub s_blocks_per_group: U32,
    pub s_clusters_per_group: U32,
    pub s_inodes_per_group: U32,
    pub s_mtime: U32,
    pub s_wtime: U32,
    pub s_mnt_count: U16,
    pub s_max_mnt_count: U16,
    pub s_magic: U16,
    pub s_state: U16,
    pub s_errors: U16,
    pub s_minor_rev_level: U16,
    pub s_lastcheck: U32,
    pub s_checkinterval: U32,
    pub s_creator_os: U32,
    pub s_rev_level: U32,
    pub s_def_resuid: U16,
    pub s_def_resgid: U16,
    pub s_first_ino: U32,
    pub s_inode_size: U16,
    pub s_block_group_nr: U16,
    pub s_feature_compat: U32,
    pub s_feature_incompat: U32,
    pub s_feature_ro_compat: U32,
    pub s_uuid: [u8; 16],
    pub s_volume_name: [u8; 16],
    pub s_last_mounted: [u8; 64],
    pub s_algorithm_usage_bitmap: U32,
    pub s_prealloc: [u8; 2],
    pub s_reserved_gdt_blocks: U16,
    pub s_journal_uuid: [u8; 16],
    pub s_journal: [U32; 3],
    pub s_hash_seed: [U32; 4],
    pub s_def_hash_version: u8,
    pub s_jnl_backup_type: u8,
    pub s_desc_size: U16,
    pub s_default_mount_opts: U32,
    pub s_first_meta_bg: U32,
    pub s_mkfs_time: U32,
    pub s_jnl_blocks: [U32; 17],
    pub s_blocks_count_hi: U32,
    pub s_r_blocks_count_hi: U32,
    pub s_free_blocks_count_hi: U32,
    pub rest: [u8; 0x270 - 0x15c],
    pub s_checksum_seed: U32,
    pub rest2: [u8; 0x3fc - 0x274],
    pub s_checksum: U32,
}

#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Inode {
    pub i_mode: U16,
    pub i_uid: U16,
    pub i_size_lo: U32,
    pub i_atime: U32,
    pub i_ctime: U32,
    pub i_mtime: U32,
    pub i_dtime: U32,
    pub i_gid: U16,
    pub i_links_count: U16,
    pub i_blocks_lo: U32,
    pub i_flags: U32,
    pub osd1: U32,
    pub i_block: [u8; 60],
    pub i_generation: U32,
    pub i_file_acl_lo: U32,
    pub i_size_high: U32,
    pub i_obso_faddr: U32,
    pub i_blocks_high: U16,
    pub i_file_acl_high: U16,
    pub i_uid_high: U16,
    pub i_gid_high: U16,
    pub i_checksum_lo: U16,
    pub i_reserved: U16,
}

/// What follows [`Inode`] when the inode is larger than 128 bytes.
#[derive(Debug, Clone, Copy, Default, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct InodeExtra {
    pub i_extra_isize: U16,
    pub i_checksum_hi: U16,
    pub i_ctime_extra: U32,
    pub i_mtime_extra: U32,
}

#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ExtentHeader {
    pub eh_magic: U16,
    pub eh_entries: U16,
    pub eh_max: U16,
    pub eh_depth: U16,
    pub eh_generation: U32,
}

#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Extent {
    pub ee_block: U32,
    /// Above 32,768: not written yet, so zeros.
    pub ee_len: U16,
    pub ee_start_hi: U16,
    pub ee_start_lo: U32,
}

#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ExtentIndex {
    pub ei_block: U32,
    pub ei_leaf_lo: U32,
    pub ei_leaf_hi: U16,
    pub ei_unused: U16,
}

/// The head of a directory entry; its name follows.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct DirEntry {
    pub inode: U32,
    pub rec_len: U16,
    pub name_len: u8,
    pub file_type: u8,
}

/// The head of an attribute; its name follows, its value stands elsewhere.
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct XattrEntry {
    pub e_name_len: u8,
    pub e_name_index: u8,
    pub e_value_offs: U16,
    pub e_value_inum: U32,
    pub e_value_size: U32,
    pub e_hash: U32,
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Superblock>() == SUPERBLOCK_SIZE);
    assert!(offset_of!(Superblock, s_magic) == 0x38);
    assert!(offset_of!(Superblock, s_uuid) == 0x68);
    assert!(offset_of!(Superblock, s_desc_size) == 0xfe);
    assert!(offset_of!(Superblock, s_blocks_count_hi) == 0x150);
    assert!(offset_of!(Superblock, s_checksum_seed) == 0x270);
    assert!(size_of::<Inode>() == 128);
    assert!(offset_of!(Inode, i_generation) == 0x64);
    assert!(offset_of!(Inode, i_checksum_lo) == 0x7c);
    assert!(size_of::<InodeExtra>() == 12);
    assert!(size_of::<ExtentHeader>() == 12);
    assert!(size_of::<Extent>() == 12);
    assert!(size_of::<ExtentIndex>() == 12);
    assert!(size_of::<DirEntry>() == 8);
    assert!(size_of::<XattrEntry>() == 16);
};
