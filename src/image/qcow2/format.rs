//! qcow2 on disk.
//!
//! Source: QEMU, `docs/interop/qcow2.txt`, version 3; field names are its.
//! All numbers are big endian. Narrower than that: clusters of 64 KiB, 16-bit
//! refcounts, no backing file, no snapshots, no extensions.

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `magic`: "QFI\xfb".
pub(crate) const MAGIC: u32 = 0x5146_49fb;
/// `cluster_bits`.
pub(crate) const CLUSTER_BITS: u32 = 16;
/// Bytes in a cluster.
pub(crate) const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// `refcount_order`: 16 bits.
pub(crate) const REFCOUNT_ORDER: u32 = 4;
/// Refcounts in a refcount block, which is one cluster.
pub(crate) const REFCOUNTS_PER_BLOCK: u64 = CLUSTER / 2;
/// Entries in an L1, L2 or refcount table of one cluster.
pub(crate) const ENTRIES_PER_CLUSTER: u64 = CLUSTER / 8;
/// Incompatible feature bit 3: the compression type is not deflate.
pub(crate) const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
/// L1 and L2 entries, bit 63: the refcount is exactly one.
pub(crate) const COPIED: u64 = 1 << 63;
/// L2 entries, bit 62: a compressed cluster.
pub(crate) const COMPRESSED: u64 = 1 << 62;
/// In a compressed L2 entry the offset has this many bits: 62 - (`cluster_bits` - 8).
pub(crate) const COMPRESSED_OFFSET_BITS: u32 = 62 - (CLUSTER_BITS - 8);
/// A compressed L2 entry counts sectors of this many bytes.
pub(crate) const SECTOR: u64 = 512;
/// QEMU's limit for an L1 table is 32 MiB; each entry stands for 512 MiB.
pub(crate) const MAX_SIZE: u64 = (32 << 20) / 8 * ENTRIES_PER_CLUSTER * CLUSTER;

#[expect(clippy::struct_field_names, reason = "the names of the specification")]
/// The header without the fields that only another compression type needs.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Header {
    pub magic: U32,
    pub version: U32,
    /// 0: no backing file.
    pub backing_file_offset: U64,
    pub backing_file_size: U32,
    pub cluster_bits: U32,
    /// Bytes of the disk inside.
    pub size: U64,
    pub crypt_method: U32,
    /// Entries in the L1 table.
    pub l1_size: U32,
    /// Byte offset of the L1 table.
    pub l1_table_offset: U64,
    /// Byte offset of the refcount table.
    pub refcount_table_offset: U64,
    /// Clusters of the refcount table.
    pub refcount_table_clusters: U32,
    pub nb_snapshots: U32,
    pub snapshots_offset: U64,
    pub incompatible_features: U64,
    pub compatible_features: U64,
    pub autoclear_features: U64,
    pub refcount_order: U32,
    /// Bytes of the header, [`CompressionField`] included when it is there.
    pub header_length: U32,
}

/// What follows the header when the compression type is not deflate.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct CompressionField {
    /// 1: zstd.
    pub compression_type: u8,
    pub padding: [u8; 7],
}

/// `compression_type` of zstd.
pub(crate) const COMPRESSION_ZSTD: u8 = 1;

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Header>() == 104);
    assert!(size_of::<CompressionField>() == 8);
    assert!(offset_of!(Header, size) == 24);
    assert!(offset_of!(Header, l1_table_offset) == 40);
    assert!(offset_of!(Header, refcount_table_offset) == 48);
    assert!(offset_of!(Header, incompatible_features) == 72);
    assert!(offset_of!(Header, refcount_order) == 96);
};
