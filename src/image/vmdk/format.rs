//! VMDK extents on disk.
//!
//! Source: `VMware`, *Virtual Disk Format 5.0*, sections "Hosted Sparse Extents"
//! and "Stream-Optimized Compressed Sparse Extents"; field names are its. All
//! numbers are little endian and count sectors of 512 bytes where not said
//! otherwise.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `magicNumber`: "KDMV".
pub(crate) const MAGIC: u32 = 0x564d_444b;
/// Bytes of a sector.
pub(crate) const SECTOR: u64 = 512;
/// `flags`, bit 0: the four characters that detect changed line ends are valid.
pub(crate) const VALID_NEWLINE: u32 = 1;
/// `flags`, bit 2: grain table entry 1 stands for a grain of zeros.
pub(crate) const ZEROED_GRAINS: u32 = 1 << 2;
/// `flags`, bit 16: grains are compressed.
pub(crate) const COMPRESSED: u32 = 1 << 16;
/// `flags`, bit 17: markers stand before grains and tables.
pub(crate) const MARKERS: u32 = 1 << 17;
/// `gdOffset` of a header whose grain directory is named in the footer.
pub(crate) const GD_AT_END: u64 = u64::MAX;
/// `compressAlgorithm`: zlib (RFC 1950).
pub(crate) const COMPRESSION_DEFLATE: u16 = 1;
/// `numGTEsPerGT`.
pub(crate) const ENTRIES_PER_TABLE: u32 = 512;
/// Sectors of a grain table.
pub(crate) const TABLE_SECTORS: u64 = ENTRIES_PER_TABLE as u64 * 4 / SECTOR;
/// Marker type: end of stream.
pub(crate) const MARKER_EOS: u32 = 0;
/// Marker type: a grain table follows.
pub(crate) const MARKER_GT: u32 = 1;
/// Marker type: the grain directory follows.
pub(crate) const MARKER_GD: u32 = 2;
/// Marker type: the footer follows.
pub(crate) const MARKER_FOOTER: u32 = 3;

/// `SparseExtentHeader`, which is the footer too.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct SparseExtentHeader {
    pub magic_number: U32,
    pub version: U32,
    pub flags: U32,
    /// Sectors of the disk inside.
    pub capacity: U64,
    pub grain_size: U64,
    pub descriptor_offset: U64,
    pub descriptor_size: U64,
    pub num_gtes_per_gt: U32,
    pub rgd_offset: U64,
    pub gd_offset: U64,
    /// Sectors before the first grain.
    pub over_head: U64,
    pub unclean_shutdown: u8,
    pub single_end_line_char: u8,
    pub non_end_line_char: u8,
    pub double_end_line_char1: u8,
    pub double_end_line_char2: u8,
    pub compress_algorithm: U16,
    pub pad: [u8; 433],
}

/// What stands before a grain: its data follows at once, filled up with
/// zeros to a whole sector.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct GrainMarker {
    /// First sector of the grain on the disk.
    pub lba: U64,
    /// Bytes of the compressed data.
    pub size: U32,
}

/// A sector that says what follows.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Marker {
    /// Sectors of what follows.
    pub num_sectors: U64,
    /// 0, which tells it from a grain's marker.
    pub size: U32,
    pub kind: U32,
    pub pad: [u8; 496],
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<SparseExtentHeader>() == 512);
    assert!(size_of::<GrainMarker>() == 12);
    assert!(size_of::<Marker>() == 512);
    assert!(offset_of!(SparseExtentHeader, num_gtes_per_gt) == 0x2c);
    assert!(offset_of!(SparseExtentHeader, gd_offset) == 0x38);
    assert!(offset_of!(SparseExtentHeader, unclean_shutdown) == 0x48);
    assert!(offset_of!(SparseExtentHeader, compress_algorithm) == 0x4d);
    assert!(offset_of!(Marker, kind) == 12);
};
