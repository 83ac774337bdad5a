//! VHDX without a parent, its log empty.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use zerocopy::FromBytes;
use zerocopy::little_endian::U64;

use super::{Complain, InspectError, bounded};
use crate::image::ImageFormat;
use crate::image::vhdx::format::{
    ALIGNMENT, BLOCK_FULLY_PRESENT, BLOCK_NOT_PRESENT, BLOCK_STATE, BLOCK_UNDEFINED,
    BLOCK_UNMAPPED, BLOCK_ZERO, FILE_SIGNATURE, HAS_PARENT, HEADER_OFFSETS, HEADER_SIGNATURE,
    HEADER_SIZE, Header, IS_REQUIRED, METADATA_SIGNATURE, METADATA_TABLE_SIZE, MOST_ENTRIES,
    MOST_SIZE, MetadataTableEntry, MetadataTableHeader, REGION_SIGNATURE, REGION_TABLE_OFFSETS,
    REGION_TABLE_SIZE, RegionTableEntry, RegionTableHeader, SECTORS_PER_CHUNK, guid,
};
use crate::inspect::blocks::{Block, BlockMap, Blocks, DataMap, Place, broken};
use crate::sparse::SparseSource;
use crate::units::ByteSize;

type Opened = (Arc<dyn SparseSource>, &'static str);

const COMPLAIN: Complain = Complain(ImageFormat::Vhdx);
/// The largest block allocation table that is read: 8 TiB in blocks of 1 MiB.
const MOST_BAT: usize = 64 << 20;

#[derive(Debug)]
struct Map {
    size: ByteSize,
    block: u64,
    chunk_ratio: u64,
    bat: Vec<U64>,
}

pub(super) fn open(file: Arc<dyn SparseSource>) -> Result<Opened, InspectError> {
    let source = file.as_ref();
    let id = COMPLAIN.read(source, 0, FILE_SIGNATURE.len(), "it is cut off")?;
    COMPLAIN.must(id == FILE_SIGNATURE, "it does not begin with `vhdxfile`")?;
    let header = current_header(source)?;
    COMPLAIN.must(header.version.get() == 1, "its version is not 1")?;
    if header.log_guid != [0; 16] {
        return COMPLAIN.unsupported("a log that was not replayed");
    }
    let [bat, metadata] = regions(source)?;
    let facts = Facts::read(source, &metadata)?;
    let map = facts.map(source, &bat)?;
    let mut data = DataMap::new(facts.size, facts.block);
    let mut starts = Vec::new();
    for block in 0..facts.size.div_ceil(facts.block) {
        if let Place::At(offset) = map.place(block)? {
            starts.push(offset);
            // What is behind the disk's end need not be there.
            let needs = facts.block.min(facts.size - block * facts.block);
            let end = offset.checked_add(needs);
            COMPLAIN.must(
                offset >= ALIGNMENT && end.is_some_and(|end| end <= source.size().bytes()),
                "a block is behind the end of the file",
            )?;
            data.mark(&(block * facts.block..(block + 1) * facts.block));
        }
    }
    let region = |region: &RegionTableEntry| {
        let start = region.file_offset.get();
        start..start.saturating_add(region.length.get().into())
    };
    let log = header.log_offset.get();
    let reserved = [
        region(&bat),
        region(&metadata),
        log..log.saturating_add(header.log_length.get().into()),
    ];
    check_apart(starts, facts.block, &reserved)?;
    Ok((Arc::new(Blocks::new(file, map, data)), "dynamic or fixed"))
}

/// Blocks share bytes neither with each other nor with what is reserved.
fn check_apart(
    mut starts: Vec<u64>,
    block: u64,
    reserved: &[Range<u64>],
) -> Result<(), InspectError> {
    starts.sort_unstable();
    let are_apart = starts.windows(2).all(|pair| pair[1] - pair[0] >= block);
    COMPLAIN.must(are_apart, "blocks share their bytes")?;
    let is_free = |range: &Range<u64>| {
        let after = starts.partition_point(|start| start + block <= range.start);
        starts.get(after).is_none_or(|start| *start >= range.end)
    };
    COMPLAIN.must(
        reserved.iter().all(is_free),
        "a block is over the log, the metadata or the block table",
    )
}

/// The valid header with the larger number.
fn current_header(file: &dyn SparseSource) -> Result<Header, InspectError> {
    let mut current: Option<Header> = None;
    for offset in HEADER_OFFSETS {
        let bytes = COMPLAIN.read(file, offset, HEADER_SIZE, "its headers are cut off")?;
        let Ok((header, _)) = Header::read_from_prefix(&bytes) else {
            continue;
        };
        let is_newer = |other: &Header| other.sequence_number < header.sequence_number;
        if header.signature == HEADER_SIGNATURE
            && sum_is_right(&bytes)
            && current.as_ref().is_none_or(is_newer)
        {
            current = Some(header);
        }
    }
    match current {
        Some(header) => Ok(header),
        None => COMPLAIN.damaged("no header is valid"),
    }
}

/// Whether bytes 4 to 8 are the CRC-32C of the whole with zeros there.
fn sum_is_right(bytes: &[u8]) -> bool {
    let mut unsummed = bytes.to_vec();
    let stored = unsummed[4..8].to_vec();
    unsummed[4..8].fill(0);
    crc32c::crc32c(&unsummed).to_le_bytes() == *stored
}

/// The block allocation table and the metadata, by the first sound region table.
fn regions(file: &dyn SparseSource) -> Result<[RegionTableEntry; 2], InspectError> {
    for offset in REGION_TABLE_OFFSETS {
        let bytes = COMPLAIN.read(file, offset, REGION_TABLE_SIZE, "its tables are cut off")?;
        let Ok((head, rest)) = RegionTableHeader::read_from_prefix(&bytes) else {
            continue;
        };
        if head.signature != REGION_SIGNATURE || !sum_is_right(&bytes) {
            continue;
        }
        let Some(count) = bounded(head.entry_count.get().into(), MOST_ENTRIES) else {
            return COMPLAIN.damaged("its region table is too long");
        };
        let Ok((entries, _)) = <[RegionTableEntry]>::ref_from_prefix_with_elems(rest, count) else {
            return COMPLAIN.damaged("its region table is too long");
        };
        let known = [guid::BAT, guid::METADATA];
        if entries
            .iter()
            .any(|entry| entry.required.get() & 1 != 0 && !known.contains(&entry.guid))
        {
            return COMPLAIN.unsupported("a region of an unknown kind");
        }
        let find = |guid| entries.iter().find(|entry| entry.guid == guid).copied();
        return match (find(guid::BAT), find(guid::METADATA)) {
            (Some(bat), Some(metadata)) => Ok([bat, metadata]),
            _ => COMPLAIN.damaged("a region is missing"),
        };
    }
    COMPLAIN.damaged("no region table is valid")
}

/// What the metadata says.
#[derive(Debug)]
struct Facts {
    block: u64,
    size: u64,
    sector: u64,
}

impl Facts {
    fn read(file: &dyn SparseSource, region: &RegionTableEntry) -> Result<Self, InspectError> {
        const CUT: &str = "its metadata is cut off";
        let at = region.file_offset.get();
        let table = COMPLAIN.read(file, at, METADATA_TABLE_SIZE, CUT)?;
        let Ok((head, rest)) = MetadataTableHeader::read_from_prefix(&table) else {
            return COMPLAIN.damaged(CUT);
        };
        COMPLAIN.must(
            head.signature == METADATA_SIGNATURE,
            "its metadata have another signature",
        )?;
        let count = usize::from(head.entry_count.get()).min(MOST_ENTRIES);
        let Ok((entries, _)) = <[MetadataTableEntry]>::ref_from_prefix_with_elems(rest, count)
        else {
            return COMPLAIN.damaged("its metadata table is too long");
        };
        let item = |guid: [u8; 16], length: usize| -> Result<Vec<u8>, InspectError> {
            let Some(entry) = entries.iter().find(|entry| entry.item_id == guid) else {
                return COMPLAIN.damaged("an item of its metadata is missing");
            };
            let offset = u64::from(entry.offset.get());
            let end = offset + length as u64;
            COMPLAIN.must(
                entry.length.get() as usize >= length && end <= region.length.get().into(),
                "an item of its metadata is too short",
            )?;
            COMPLAIN.read(file, at.saturating_add(offset), length, CUT)
        };
        let known = [
            guid::FILE_PARAMETERS,
            guid::VIRTUAL_DISK_SIZE,
            guid::VIRTUAL_DISK_ID,
            guid::LOGICAL_SECTOR_SIZE,
            guid::PHYSICAL_SECTOR_SIZE,
        ];
        let parameters = numbers(&item(guid::FILE_PARAMETERS, 8)?);
        if parameters >> 32 & u64::from(HAS_PARENT) != 0 {
            return COMPLAIN.other_file("its parent disk");
        }
        if entries
            .iter()
            .any(|entry| entry.flags.get() & IS_REQUIRED != 0 && !known.contains(&entry.item_id))
        {
            return COMPLAIN.unsupported("an item of an unknown kind");
        }
        let facts = Self {
            block: parameters & u64::from(u32::MAX),
            size: numbers(&item(guid::VIRTUAL_DISK_SIZE, 8)?),
            sector: numbers(&item(guid::LOGICAL_SECTOR_SIZE, 4)?),
        };
        let block_is_right =
            facts.block.is_power_of_two() && (ALIGNMENT..=256 * ALIGNMENT).contains(&facts.block);
        COMPLAIN.must(block_is_right, "its block size is impossible")?;
        COMPLAIN.must(
            matches!(facts.sector, 512 | 4096),
            "its sector size is impossible",
        )?;
        let size_is_right = facts.size <= MOST_SIZE && facts.size.is_multiple_of(facts.sector);
        COMPLAIN.must(size_is_right, "its disk size is impossible")?;
        Ok(facts)
    }

    fn map(&self, file: &dyn SparseSource, region: &RegionTableEntry) -> Result<Map, InspectError> {
        let chunk_ratio = SECTORS_PER_CHUNK * self.sector / self.block;
        let blocks = self.size.div_ceil(self.block);
        let entries = blocks + blocks.saturating_sub(1) / chunk_ratio;
        COMPLAIN.must(
            entries * 8 <= region.length.get().into(),
            "its block table is too short for the disk",
        )?;
        let Some(length) = bounded(entries * 8, MOST_BAT) else {
            return COMPLAIN.unsupported("more than eight million blocks");
        };
        let at = region.file_offset.get();
        let bytes = COMPLAIN.read(file, at, length, "its block table is cut off")?;
        let Ok(bat) = <[U64]>::ref_from_bytes(&bytes) else {
            return COMPLAIN.damaged("its block table is cut off");
        };
        Ok(Map {
            size: ByteSize::from_bytes(self.size),
            block: self.block,
            chunk_ratio,
            bat: bat.to_vec(),
        })
    }
}

/// Up to eight bytes as a number.
fn numbers(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |n, byte| n << 8 | u64::from(*byte))
}

impl Map {
    fn place(&self, block: u64) -> Result<Place, InspectError> {
        let entry = usize::try_from(block + block / self.chunk_ratio).ok();
        let Some(entry) = entry.and_then(|entry| self.bat.get(entry)) else {
            return COMPLAIN.damaged("its block table is too short for the disk");
        };
        match entry.get() & BLOCK_STATE {
            BLOCK_NOT_PRESENT | BLOCK_UNDEFINED | BLOCK_ZERO | BLOCK_UNMAPPED => Ok(Place::Zeros),
            BLOCK_FULLY_PRESENT => Ok(Place::At(entry.get() & !(ALIGNMENT - 1))),
            _ => COMPLAIN.damaged("a block has an impossible state"),
        }
    }
}

impl BlockMap for Map {
    fn size(&self) -> ByteSize {
        self.size
    }

    fn block_at(&self, offset: u64) -> io::Result<Block> {
        let block = offset / self.block;
        let place = self.place(block).map_err(io::Error::other)?;
        Ok(Block {
            range: block * self.block..(block + 1) * self.block,
            place,
        })
    }

    fn unpack(&self, _block: &Block, _old: Vec<u8>) -> io::Result<Vec<u8>> {
        Err(broken("nothing is packed here"))
    }
}
