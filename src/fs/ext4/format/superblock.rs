//! Superblock, group descriptors and the superblock of the journal.

use std::mem::offset_of;

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, big_endian};

/// `s_magic`.
pub const SUPERBLOCK_MAGIC: u16 = 0xef53;

/// `s_jnl_backup_type`: `s_jnl_blocks` holds the journal's block map and size.
pub const BACKUP_IS_INODE: u8 = 1;

bitflags! {
    /// `s_feature_compat`: a kernel that does not know them may still write.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Compat: u32 {
        /// There is a journal.
        const HAS_JOURNAL = 0x4;
        /// Extended attributes.
        const EXT_ATTR = 0x8;
        /// Inode 7 keeps blocks for a larger group table.
        const RESIZE_INODE = 0x10;
        /// Directories may have an index.
        const DIR_INDEX = 0x20;
    }
}

bitflags! {
    /// `s_feature_incompat`: a kernel that does not know them must not mount.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Incompat: u32 {
        /// Directory entries say what they name.
        const FILETYPE = 0x2;
        /// Files are mapped by extents.
        const EXTENTS = 0x40;
        /// Group descriptors have high halves.
        const SIXTY_FOUR_BIT = 0x80;
        /// Bitmaps and inode tables may lie in another group.
        const FLEX_BG = 0x200;
    }
}

bitflags! {
    /// `s_feature_ro_compat`: a kernel that does not know them may only read.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct RoCompat: u32 {
        /// Superblock copies are in few groups.
        const SPARSE_SUPER = 0x1;
        /// Files may exceed 2 GiB.
        const LARGE_FILE = 0x2;
        /// Files may exceed 2^32 sectors.
        const HUGE_FILE = 0x8;
        /// Directories may have more than 65,000 links.
        const DIR_NLINK = 0x20;
        /// Inodes have the fields after the first 128 bytes.
        const EXTRA_ISIZE = 0x40;
        /// All metadata carries a CRC-32C.
        const METADATA_CSUM = 0x400;
    }
}

bitflags! {
    /// `bg_flags`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct GroupFlags: u16 {
        /// No inode is used; the inode bitmap is not on disk.
        const INODE_UNINIT = 0x1;
        /// No data block is used; the block bitmap is not on disk.
        const BLOCK_UNINIT = 0x2;
        /// The unused part of the inode table is zero.
        const ITABLE_ZEROED = 0x4;
    }
}

/// `struct ext4_super_block`. Fields that this writer always leaves zero and
/// nothing else needs stand together as bytes.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the kernel's, documented there")]
pub struct Superblock {
    pub s_inodes_count: U32,
    pub s_blocks_count_lo: U32,
    pub s_r_blocks_count_lo: U32,
    pub s_free_blocks_count_lo: U32,
    pub s_free_inodes_count: U32,
    pub s_first_data_block: U32,
    /// Block size is 2 to the power of (10 + this), in bytes.
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
    /// 1: cleanly unmounted. 0 in every copy but the first, as mke2fs has it.
    pub s_state: U16,
    /// 1: carry on after an error.
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
    /// The group that this copy lies in; low 16 bits.
    pub s_block_group_nr: U16,
    pub s_feature_compat: U32,
    pub s_feature_incompat: U32,
    pub s_feature_ro_compat: U32,
    pub s_uuid: [u8; 16],
    pub s_volume_name: [u8; 16],
    pub s_last_mounted: [u8; 64],
    pub s_algorithm_usage_bitmap: U32,
    pub s_prealloc_blocks: u8,
    pub s_prealloc_dir_blocks: u8,
    pub s_reserved_gdt_blocks: U16,
    pub s_journal_uuid: [u8; 16],
    pub s_journal_inum: U32,
    pub s_journal_dev: U32,
    pub s_last_orphan: U32,
    pub s_hash_seed: [U32; 4],
    pub s_def_hash_version: u8,
    pub s_jnl_backup_type: u8,
    pub s_desc_size: U16,
    pub s_default_mount_opts: U32,
    pub s_first_meta_bg: U32,
    pub s_mkfs_time: U32,
    /// The journal's `i_block`.
    pub s_jnl_blocks: [u8; 60],
    /// `s_jnl_blocks[15]`: the journal's `i_size_high`.
    pub s_jnl_size_high: U32,
    /// `s_jnl_blocks[16]`: the journal's `i_size_lo`.
    pub s_jnl_size_lo: U32,
    pub s_blocks_count_hi: U32,
    pub s_r_blocks_count_hi: U32,
    pub s_free_blocks_count_hi: U32,
    pub s_min_extra_isize: U16,
    pub s_want_extra_isize: U16,
    /// 1: names are hashed as signed characters.
    pub s_flags: U32,
    pub s_raid_stride: U16,
    pub s_mmp_interval: U16,
    pub s_mmp_block: U64,
    pub s_raid_stripe_width: U32,
    pub s_log_groups_per_flex: u8,
    /// 1: CRC-32C.
    pub s_checksum_type: u8,
    pub s_encryption_level: u8,
    pub s_reserved_pad: u8,
    pub s_kbytes_written: U64,
    /// `s_snapshot_inum` to `s_last_error_func`: snapshots, and the log of errors.
    pub s_snapshots_and_errors: [u8; 128],
    pub s_mount_opts: [u8; 64],
    pub s_usr_quota_inum: U32,
    pub s_grp_quota_inum: U32,
    pub s_overhead_clusters: U32,
    pub s_backup_bgs: [U32; 2],
    pub s_encrypt_algos: [u8; 4],
    pub s_encrypt_pw_salt: [u8; 16],
    pub s_lpf_ino: U32,
    pub s_prj_quota_inum: U32,
    pub s_checksum_seed: U32,
    pub s_wtime_hi: u8,
    pub s_mtime_hi: u8,
    pub s_mkfs_time_hi: u8,
    pub s_lastcheck_hi: u8,
    pub s_first_error_time_hi: u8,
    pub s_last_error_time_hi: u8,
    pub s_first_error_errcode: u8,
    pub s_last_error_errcode: u8,
    pub s_encoding: U16,
    pub s_encoding_flags: U16,
    pub s_orphan_file_inum: U32,
    pub s_reserved: [u8; 376],
    pub s_checksum: U32,
}

const _: () = {
    assert!(size_of::<Superblock>() == 1024);
    assert!(offset_of!(Superblock, s_log_block_size) == 0x18);
    assert!(offset_of!(Superblock, s_magic) == 0x38);
    assert!(offset_of!(Superblock, s_inode_size) == 0x58);
    assert!(offset_of!(Superblock, s_uuid) == 0x68);
    assert!(offset_of!(Superblock, s_reserved_gdt_blocks) == 0xce);
    assert!(offset_of!(Superblock, s_journal_inum) == 0xe0);
    assert!(offset_of!(Superblock, s_hash_seed) == 0xec);
    assert!(offset_of!(Superblock, s_desc_size) == 0xfe);
    assert!(offset_of!(Superblock, s_jnl_blocks) == 0x10c);
    assert!(offset_of!(Superblock, s_blocks_count_hi) == 0x150);
    assert!(offset_of!(Superblock, s_flags) == 0x160);
    assert!(offset_of!(Superblock, s_log_groups_per_flex) == 0x174);
    assert!(offset_of!(Superblock, s_kbytes_written) == 0x178);
    assert!(offset_of!(Superblock, s_mount_opts) == 0x200);
    assert!(offset_of!(Superblock, s_overhead_clusters) == 0x248);
    assert!(offset_of!(Superblock, s_checksum_seed) == 0x270);
    assert!(offset_of!(Superblock, s_orphan_file_inum) == 0x280);
    assert!(offset_of!(Superblock, s_checksum) == 0x3fc);
};

/// `struct ext4_group_desc`, with the high halves of the 64-bit feature.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the kernel's, documented there")]
pub struct GroupDescriptor {
    pub bg_block_bitmap_lo: U32,
    pub bg_inode_bitmap_lo: U32,
    pub bg_inode_table_lo: U32,
    pub bg_free_blocks_count_lo: U16,
    pub bg_free_inodes_count_lo: U16,
    pub bg_used_dirs_count_lo: U16,
    pub bg_flags: U16,
    pub bg_exclude_bitmap_lo: U32,
    pub bg_block_bitmap_csum_lo: U16,
    pub bg_inode_bitmap_csum_lo: U16,
    pub bg_itable_unused_lo: U16,
    pub bg_checksum: U16,
    pub bg_block_bitmap_hi: U32,
    pub bg_inode_bitmap_hi: U32,
    pub bg_inode_table_hi: U32,
    pub bg_free_blocks_count_hi: U16,
    pub bg_free_inodes_count_hi: U16,
    pub bg_used_dirs_count_hi: U16,
    pub bg_itable_unused_hi: U16,
    pub bg_exclude_bitmap_hi: U32,
    pub bg_block_bitmap_csum_hi: U16,
    pub bg_inode_bitmap_csum_hi: U16,
    pub bg_reserved: U32,
}

const _: () = {
    assert!(size_of::<GroupDescriptor>() == 64);
    assert!(offset_of!(GroupDescriptor, bg_flags) == 0x12);
    assert!(offset_of!(GroupDescriptor, bg_checksum) == 0x1e);
    assert!(offset_of!(GroupDescriptor, bg_block_bitmap_csum_hi) == 0x38);
};

/// `h_magic` of the journal (JBD2), big endian like all of it.
pub const JOURNAL_MAGIC: u32 = 0xc03b_3998;
/// `h_blocktype` of a version 2 superblock.
pub const JOURNAL_SUPERBLOCK_V2: u32 = 4;

/// `struct journal_superblock_s`, the first block of the journal.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the kernel's, documented there")]
pub struct JournalSuperblock {
    pub h_magic: big_endian::U32,
    pub h_blocktype: big_endian::U32,
    pub h_sequence: big_endian::U32,
    pub s_blocksize: big_endian::U32,
    pub s_maxlen: big_endian::U32,
    pub s_first: big_endian::U32,
    pub s_sequence: big_endian::U32,
    /// 0: nothing to replay.
    pub s_start: big_endian::U32,
    pub s_errno: big_endian::U32,
    pub s_feature_compat: big_endian::U32,
    pub s_feature_incompat: big_endian::U32,
    pub s_feature_ro_compat: big_endian::U32,
    pub s_uuid: [u8; 16],
    pub s_nr_users: big_endian::U32,
}

const _: () = {
    assert!(size_of::<JournalSuperblock>() == 0x44);
    assert!(offset_of!(JournalSuperblock, s_uuid) == 0x30);
};

impl Superblock {
    /// All fields zero.
    #[must_use]
    pub fn zeroed() -> Self {
        Self::new_zeroed()
    }
}

impl GroupDescriptor {
    /// All fields zero.
    #[must_use]
    pub fn zeroed() -> Self {
        Self::new_zeroed()
    }
}
