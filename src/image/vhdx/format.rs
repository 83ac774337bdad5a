//! VHDX on disk.
//!
//! Source: Microsoft, \[MS-VHDX\] *Virtual Hard Disk v2 File Format*; field
//! names are its. All numbers are little endian; offsets and lengths are bytes.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Structures stand on multiples of this.
pub(crate) const ALIGNMENT: u64 = 1 << 20;
/// `Signature` of the file type identifier.
pub(crate) const FILE_SIGNATURE: [u8; 8] = *b"vhdxfile";
/// Where the two headers are.
pub(crate) const HEADER_OFFSETS: [u64; 2] = [64 << 10, 128 << 10];
/// Bytes that a header's checksum covers.
pub(crate) const HEADER_SIZE: usize = 4096;
/// `Signature` of a header.
pub(crate) const HEADER_SIGNATURE: [u8; 4] = *b"head";
/// Where the two copies of the region table are.
pub(crate) const REGION_TABLE_OFFSETS: [u64; 2] = [192 << 10, 256 << 10];
/// Bytes that a region table's checksum covers.
pub(crate) const REGION_TABLE_SIZE: usize = 64 << 10;
/// `Signature` of a region table.
pub(crate) const REGION_SIGNATURE: [u8; 4] = *b"regi";
/// Most entries of a region table and of a metadata table.
pub(crate) const MOST_ENTRIES: usize = 2047;
/// `Signature` of a metadata table.
pub(crate) const METADATA_SIGNATURE: [u8; 8] = *b"metadata";
/// Bytes of a metadata table; items follow it.
pub(crate) const METADATA_TABLE_SIZE: usize = 64 << 10;
/// Sectors that one block of the sector bitmap describes.
pub(crate) const SECTORS_PER_CHUNK: u64 = 1 << 23;
/// The largest `VirtualDiskSize`.
pub(crate) const MOST_SIZE: u64 = 64 << 40;

/// Known identifiers, in the order of their bytes on disk.
pub(crate) mod guid {
    use crate::units::Guid;

    /// The bytes on disk: the first three groups are little endian.
    pub(crate) const fn on_disk(guid: Guid) -> [u8; 16] {
        let g = guid.bytes();
        [
            g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8], g[9], g[10], g[11], g[12], g[13],
            g[14], g[15],
        ]
    }

    const fn known(value: u128) -> [u8; 16] {
        on_disk(Guid::from_u128(value))
    }

    pub(crate) const BAT: [u8; 16] = known(0x2dc2_7766_f623_4200_9d64_115e_9bfd_4a08);
    pub(crate) const METADATA: [u8; 16] = known(0x8b7c_a206_4790_4b9a_b8fe_575f_050f_886e);
    pub(crate) const FILE_PARAMETERS: [u8; 16] = known(0xcaa1_6737_fa36_4d43_b3b6_33f0_aa44_e76b);
    pub(crate) const VIRTUAL_DISK_SIZE: [u8; 16] = known(0x2fa5_4224_cd1b_4876_b211_5dbe_d83b_f4b8);
    pub(crate) const VIRTUAL_DISK_ID: [u8; 16] = known(0xbeca_12ab_b2e6_4523_93ef_c309_e000_c746);
    pub(crate) const LOGICAL_SECTOR_SIZE: [u8; 16] =
        known(0x8141_bf1d_a96f_4709_ba47_f233_a8fa_ab5f);
    pub(crate) const PHYSICAL_SECTOR_SIZE: [u8; 16] =
        known(0xcda3_48c7_445d_4471_9cc9_e988_5251_c556);
}

/// What follows the region table's and the headers' first 4 KiB is zero.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Header {
    pub signature: [u8; 4],
    pub checksum: U32,
    pub sequence_number: U64,
    pub file_write_guid: [u8; 16],
    pub data_write_guid: [u8; 16],
    /// Zeros: the log is empty.
    pub log_guid: [u8; 16],
    pub log_version: U16,
    pub version: U16,
    pub log_length: U32,
    pub log_offset: U64,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RegionTableHeader {
    pub signature: [u8; 4],
    pub checksum: U32,
    pub entry_count: U32,
    pub reserved: U32,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RegionTableEntry {
    pub guid: [u8; 16],
    pub file_offset: U64,
    pub length: U32,
    /// 1: whoever does not know it must not open the file.
    pub required: U32,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct MetadataTableHeader {
    pub signature: [u8; 8],
    pub reserved: U16,
    pub entry_count: U16,
    pub reserved2: [u8; 20],
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct MetadataTableEntry {
    pub item_id: [u8; 16],
    /// From the beginning of the region.
    pub offset: U32,
    pub length: U32,
    pub flags: U32,
    pub reserved2: U32,
}

/// `flags`, bit 1: about the disk, not about the file.
pub(crate) const IS_VIRTUAL_DISK: u32 = 1 << 1;
/// `flags`, bit 2: whoever does not know the item must not open the file.
pub(crate) const IS_REQUIRED: u32 = 1 << 2;

/// Bits 0 to 2 of an entry of the block allocation table; bits 20 and up are
/// the offset in MiB.
pub(crate) const BLOCK_STATE: u64 = 0b111;
/// State: no content.
pub(crate) const BLOCK_NOT_PRESENT: u64 = 0;
/// State: no content.
pub(crate) const BLOCK_UNDEFINED: u64 = 1;
/// State: no content any more.
pub(crate) const BLOCK_UNMAPPED: u64 = 3;
/// File parameters, bit 1 of the second word: the disk has a parent.
pub(crate) const HAS_PARENT: u32 = 1 << 1;
/// State: all zeros.
pub(crate) const BLOCK_ZERO: u64 = 2;
/// State: in the file.
pub(crate) const BLOCK_FULLY_PRESENT: u64 = 6;

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Header>() == 80);
    assert!(offset_of!(Header, log_guid) == 48);
    assert!(offset_of!(Header, log_offset) == 72);
    assert!(size_of::<RegionTableHeader>() == 16);
    assert!(size_of::<RegionTableEntry>() == 32);
    assert!(size_of::<MetadataTableHeader>() == 32);
    assert!(size_of::<MetadataTableEntry>() == 32);
};
