//! What other writers put on disk and ours does not: the structures are those
//! of [`crate::fs::ext4::format`].
//!
//! Source: the Linux kernel, `Documentation/filesystems/ext4/`.

use crate::fs::ext4::format::Incompat;

/// Where the superblock is.
pub(super) const SUPERBLOCK_AT: u64 = 1024;
pub(super) const SUPERBLOCK_SIZE: usize = 1024;

/// Incompatible: the journal has something to replay.
pub(super) const RECOVER: u32 = 0x4;
/// Incompatible: the seed of all sums is in the superblock.
pub(super) const CSUM_SEED: u32 = 0x2000;
/// Incompatible: directories above 2 GiB, or an index of three levels.
pub(super) const LARGEDIR: u32 = 0x4000;
/// Incompatible features that this reader reads.
pub(super) const KNOWN: u32 = Incompat::all().bits() | RECOVER | CSUM_SEED | LARGEDIR;
/// Read-only compatible: clusters of several blocks.
pub(super) const BIGALLOC: u32 = 0x200;

/// `i_flags`: content that this reader does not read.
pub(super) const ENCRYPT_FL: u32 = 0x800;
pub(super) const INLINE_DATA_FL: u32 = 0x1000_0000;
