//! VHDX images: Hyper-V's format, growing, without a parent.
//!
//! File, in MiB: 0 headers and region tables, 1 log (empty), 2 metadata, 3
//! block allocation table, then blocks as they come. Blocks of zeros are not
//! there, and clusters of zeros in a block are holes in the file. Identifiers
//! come from the content: the same disk has the same ones.

pub(crate) mod format;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use zerocopy::IntoBytes as _;
use zerocopy::little_endian::{U16, U32, U64};

use super::CLUSTER_SIZE;
use super::pass::{Cluster, Container};
use super::raw::write_without_zeros;
use crate::digest::{ContentRoot, derive_guid};
use crate::units::{ByteSize, MIB, TIB};
use format::{
    ALIGNMENT, BLOCK_FULLY_PRESENT, BLOCK_ZERO, FILE_SIGNATURE, HEADER_OFFSETS, HEADER_SIGNATURE,
    HEADER_SIZE, Header, IS_REQUIRED, IS_VIRTUAL_DISK, METADATA_SIGNATURE, METADATA_TABLE_SIZE,
    MOST_SIZE, MetadataTableEntry, MetadataTableHeader, REGION_SIGNATURE, REGION_TABLE_OFFSETS,
    REGION_TABLE_SIZE, RegionTableEntry, RegionTableHeader, SECTORS_PER_CHUNK, guid,
};

/// The largest disk of the format.
pub(super) const LIMIT: ByteSize = ByteSize::from_bytes(MOST_SIZE);

const LOGICAL_SECTOR: u32 = 512;
const PHYSICAL_SECTOR: u32 = 4096;
/// Disks up to this size have blocks of 1 MiB, which waste least; larger
/// ones of 32 MiB, as Hyper-V makes them, so that the table stays small.
const SMALL: u64 = TIB;
const SMALL_BLOCK: u64 = MIB;
const LARGE_BLOCK: u64 = 32 * MIB;

const LOG_OFFSET: u64 = ALIGNMENT;
const METADATA_OFFSET: u64 = 2 * ALIGNMENT;
const BAT_OFFSET: u64 = 3 * ALIGNMENT;

/// A VHDX image in the making.
#[derive(Debug)]
pub(super) struct VhdxWriter {
    size: ByteSize,
    layout: Layout,
    /// The block allocation table as it will be written.
    bat: Vec<U64>,
    /// Where the next block goes.
    end: u64,
}

/// Every number that follows from the disk's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    block: u64,
    blocks: u64,
    /// Blocks between two entries for sector bitmaps.
    chunk_ratio: u64,
    /// Bytes of the region of the block allocation table.
    bat_length: u64,
}

impl Layout {
    fn plan(size: ByteSize) -> Self {
        let block = if size.bytes() <= SMALL {
            SMALL_BLOCK
        } else {
            LARGE_BLOCK
        };
        let chunk_ratio = SECTORS_PER_CHUNK * u64::from(LOGICAL_SECTOR) / block;
        let blocks = size.bytes().div_ceil(block);
        let entries = Self::entries(blocks, chunk_ratio);
        Self {
            block,
            blocks,
            chunk_ratio,
            bat_length: (entries * 8).next_multiple_of(ALIGNMENT).max(ALIGNMENT),
        }
    }

    /// Entries up to the last block's, those of sector bitmaps between them included.
    fn entries(blocks: u64, chunk_ratio: u64) -> u64 {
        blocks + blocks.saturating_sub(1) / chunk_ratio
    }

    /// The entry of a block.
    fn entry(&self, block: u64) -> u64 {
        block + block / self.chunk_ratio
    }
}

impl VhdxWriter {
    /// An image of a disk of `size` bytes, at most [`LIMIT`].
    pub(super) fn new(size: ByteSize) -> Self {
        let layout = Layout::plan(size);
        let entries = Layout::entries(layout.blocks, layout.chunk_ratio);
        let mut bat = vec![U64::ZERO; usize::try_from(entries).expect("at most 2 Mi entries")];
        for block in 0..layout.blocks {
            let entry = usize::try_from(layout.entry(block)).expect("as above");
            bat[entry] = BLOCK_ZERO.into();
        }
        Self {
            size,
            layout,
            bat,
            end: BAT_OFFSET + layout.bat_length,
        }
    }

    /// Byte offset of a block in the file; it gets one when it has none.
    fn place(&mut self, block: u64) -> io::Result<u64> {
        let entry = usize::try_from(self.layout.entry(block)).map_err(io::Error::other)?;
        let entry = &mut self.bat[entry];
        if entry.get() == BLOCK_ZERO {
            // An offset is a multiple of 1 MiB, whose number begins at bit 20.
            *entry = U64::new(self.end | BLOCK_FULLY_PRESENT);
            self.end += self.layout.block;
        }
        Ok(entry.get() & !(ALIGNMENT - 1))
    }

    fn header(sequence: u64, root: &ContentRoot) -> [u8; HEADER_SIZE] {
        let id = |role| guid::on_disk(derive_guid(&root.0, role));
        let header = Header {
            signature: HEADER_SIGNATURE,
            checksum: U32::ZERO,
            sequence_number: sequence.into(),
            file_write_guid: id("vhdx:file-write"),
            data_write_guid: id("vhdx:data-write"),
            log_guid: [0; 16],
            log_version: U16::ZERO,
            version: U16::new(1),
            log_length: U32::new(1 << 20),
            log_offset: LOG_OFFSET.into(),
        };
        let mut bytes = [0; HEADER_SIZE];
        bytes[..size_of::<Header>()].copy_from_slice(header.as_bytes());
        seal(&mut bytes);
        bytes
    }

    fn region_table(&self) -> io::Result<Vec<u8>> {
        let head = RegionTableHeader {
            signature: REGION_SIGNATURE,
            checksum: U32::ZERO,
            entry_count: U32::new(2),
            reserved: U32::ZERO,
        };
        let entry = |guid, offset: u64, length: u64| -> io::Result<RegionTableEntry> {
            Ok(RegionTableEntry {
                guid,
                file_offset: offset.into(),
                length: u32::try_from(length).map_err(io::Error::other)?.into(),
                required: U32::new(1),
            })
        };
        let mut bytes = head.as_bytes().to_vec();
        for entry in [
            entry(guid::BAT, BAT_OFFSET, self.layout.bat_length)?,
            entry(guid::METADATA, METADATA_OFFSET, ALIGNMENT)?,
        ] {
            bytes.extend_from_slice(entry.as_bytes());
        }
        bytes.resize(REGION_TABLE_SIZE, 0);
        seal(&mut bytes);
        Ok(bytes)
    }

    fn metadata(&self, root: &ContentRoot) -> io::Result<Vec<u8>> {
        let block = u32::try_from(self.layout.block).map_err(io::Error::other)?;
        let disk_id = guid::on_disk(derive_guid(&root.0, "vhdx:disk"));
        let disk = IS_VIRTUAL_DISK | IS_REQUIRED;
        let items: [([u8; 16], u32, Vec<u8>); 5] = [
            (
                guid::FILE_PARAMETERS,
                IS_REQUIRED,
                [U32::new(block), U32::ZERO].as_bytes().to_vec(),
            ),
            (
                guid::VIRTUAL_DISK_SIZE,
                disk,
                self.size.bytes().to_le_bytes().to_vec(),
            ),
            (guid::VIRTUAL_DISK_ID, disk, disk_id.to_vec()),
            (
                guid::LOGICAL_SECTOR_SIZE,
                disk,
                LOGICAL_SECTOR.to_le_bytes().to_vec(),
            ),
            (
                guid::PHYSICAL_SECTOR_SIZE,
                disk,
                PHYSICAL_SECTOR.to_le_bytes().to_vec(),
            ),
        ];
        let head = MetadataTableHeader {
            signature: METADATA_SIGNATURE,
            reserved: U16::ZERO,
            entry_count: U16::new(5),
            reserved2: [0; 20],
        };
        let (mut table, mut values) = (head.as_bytes().to_vec(), Vec::new());
        for (item_id, flags, value) in items {
            let number = |n: usize| u32::try_from(n).map(U32::new).map_err(io::Error::other);
            let entry = MetadataTableEntry {
                item_id,
                offset: number(METADATA_TABLE_SIZE + values.len())?,
                length: number(value.len())?,
                flags: flags.into(),
                reserved2: U32::ZERO,
            };
            table.extend_from_slice(entry.as_bytes());
            values.extend(value);
        }
        table.resize(METADATA_TABLE_SIZE, 0);
        table.extend(values);
        Ok(table)
    }
}

/// Puts the CRC-32C of `bytes` behind their signature of four bytes, where zeros are.
fn seal(bytes: &mut [u8]) {
    let sum = crc32c::crc32c(bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
}

impl Container for VhdxWriter {
    fn append(&mut self, file: &File, cluster: &Cluster) -> io::Result<()> {
        let start = cluster.start();
        let at = self.place(start / self.layout.block)? + start % self.layout.block;
        write_without_zeros(file, &cluster.data, at)
    }

    fn finish(&mut self, file: &File, root: &ContentRoot) -> io::Result<()> {
        file.write_all_at(&FILE_SIGNATURE, 0)?;
        let creator: Vec<U16> = "consign".encode_utf16().map(U16::new).collect();
        file.write_all_at(creator.as_bytes(), FILE_SIGNATURE.len() as u64)?;
        for (sequence, offset) in (0..).zip(HEADER_OFFSETS) {
            file.write_all_at(&Self::header(sequence, root), offset)?;
        }
        for offset in REGION_TABLE_OFFSETS {
            file.write_all_at(&self.region_table()?, offset)?;
        }
        file.write_all_at(&self.metadata(root)?, METADATA_OFFSET)?;
        file.write_all_at(self.bat.as_bytes(), BAT_OFFSET)?;
        file.set_len(self.end)
    }
}

const _: () = assert!(SMALL_BLOCK.is_multiple_of(CLUSTER_SIZE as u64));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_an_entry_for_each_bitmap_before_the_last_block() {
        let gib = |n: u64| ByteSize::from_bytes(n << 30);
        let layout = Layout::plan(gib(4));
        assert_eq!((layout.blocks, layout.chunk_ratio), (4096, 4096));
        assert_eq!(Layout::entries(4096, 4096), 4096);
        assert_eq!(Layout::entries(4097, 4096), 4098);
        assert_eq!(layout.entry(4096), 4097);
        let large = Layout::plan(ByteSize::from_bytes(MOST_SIZE));
        assert_eq!(
            (large.block, large.chunk_ratio, large.bat_length),
            (32 << 20, 128, 17 << 20)
        );
        assert_eq!(Layout::plan(ByteSize::ZERO).bat_length, 1 << 20);
    }
}
