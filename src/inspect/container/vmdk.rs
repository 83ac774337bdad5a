//! VMDK sparse extents: `streamOptimized` and `monolithicSparse`.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use super::{Complain, InspectError, bounded, inflate};
use crate::image::ImageFormat;
use crate::image::vmdk::format::{
    COMPRESSED, COMPRESSION_DEFLATE, ENTRIES_PER_TABLE, GD_AT_END, GrainMarker, MAGIC, MARKER_EOS,
    MARKER_FOOTER, MARKERS, Marker, SECTOR, SparseExtentHeader, TABLE_SECTORS, ZEROED_GRAINS,
};
use crate::inspect::blocks::{Block, BlockMap, Blocks, DataMap, Place, broken, read_vec};
use crate::sparse::SparseSource;
use crate::units::ByteSize;

type Opened = (Arc<dyn SparseSource>, &'static str);

const COMPLAIN: Complain = Complain(ImageFormat::Vmdk);
/// Bytes of a sector in memory.
const SECTOR_BYTES: usize = 512;
/// Most grain tables: 32 TiB in grains of 64 KiB.
const MOST_TABLES: usize = 1 << 20;
/// The largest grain, in sectors.
const MOST_GRAIN: u64 = 4096;
/// The longest descriptor that is read.
const MOST_DESCRIPTOR: usize = 64 << 10;
/// Most grains that are not packed: 2 TiB in grains of 64 KiB, all that the
/// format can address.
const MOST_GRAINS: usize = 32 << 20;
/// Grain tables that are kept for the next reading.
const KEPT_TABLES: usize = 64;

#[derive(Debug)]
struct Map {
    file: Arc<dyn SparseSource>,
    header: SparseExtentHeader,
    /// Sectors of the grain tables, 0 for one of holes.
    directory: Vec<U32>,
    kept: Mutex<Vec<(usize, Arc<[U32]>)>>,
}

pub(super) fn open(file: Arc<dyn SparseSource>) -> Result<Opened, InspectError> {
    let source = file.as_ref();
    let first = COMPLAIN.read(source, 0, 4, "it is cut off")?;
    if first == b"# Di" {
        return COMPLAIN.other_file("the extents that its descriptor names");
    }
    if first == b"COWD" {
        return COMPLAIN.unsupported("an extent of old ESX servers");
    }
    let header = header(source)?;
    let detail = check_descriptor(source, &header)?;
    let directory = directory(source, &header)?;
    let map = Map {
        file: Arc::clone(&file),
        header,
        directory,
        kept: Mutex::new(Vec::new()),
    };
    let data = map.scan()?;
    Ok((Arc::new(Blocks::new(file, map, data)), detail))
}

fn header_at(file: &dyn SparseSource, at: u64) -> Result<SparseExtentHeader, InspectError> {
    let bytes = COMPLAIN.read(file, at, SECTOR_BYTES, "its header is cut off")?;
    match SparseExtentHeader::read_from_bytes(&bytes) {
        Ok(header) if header.magic_number.get() == MAGIC => Ok(header),
        _ => COMPLAIN.damaged("its header or footer has another signature"),
    }
}

/// The header, or the footer where that counts.
fn header(file: &dyn SparseSource) -> Result<SparseExtentHeader, InspectError> {
    let mut header = header_at(file, 0)?;
    if header.gd_offset.get() == GD_AT_END {
        const CUT: &str = "its end is cut off";
        let Some(at) = file.size().bytes().checked_sub(3 * SECTOR) else {
            return COMPLAIN.damaged(CUT);
        };
        let is_marker = |at: u64, kind: u32| -> Result<bool, InspectError> {
            let bytes = COMPLAIN.read(file, at, SECTOR_BYTES, CUT)?;
            let marker = Marker::read_from_bytes(&bytes);
            Ok(marker.is_ok_and(|marker| marker.size.get() == 0 && marker.kind.get() == kind))
        };
        COMPLAIN.must(is_marker(at, MARKER_FOOTER)?, "it has no footer")?;
        COMPLAIN.must(
            is_marker(at + 2 * SECTOR, MARKER_EOS)?,
            "its stream has no end",
        )?;
        let footer = header_at(file, at + SECTOR)?;
        COMPLAIN.must(
            footer.capacity == header.capacity && footer.grain_size == header.grain_size,
            "header and footer disagree",
        )?;
        header = footer;
    }
    if !(1..=3).contains(&header.version.get()) {
        return COMPLAIN.unsupported("another version");
    }
    let grain = header.grain_size.get();
    let grain_is_right = grain.is_power_of_two() && (1..=MOST_GRAIN).contains(&grain);
    COMPLAIN.must(grain_is_right, "its grain size is impossible")?;
    COMPLAIN.must(
        header.num_gtes_per_gt.get() == ENTRIES_PER_TABLE,
        "its grain tables have an impossible length",
    )?;
    COMPLAIN.must(
        header.capacity.get().checked_mul(SECTOR).is_some(),
        "its capacity is impossible",
    )?;
    let flags = header.flags.get();
    if flags & COMPRESSED != 0 {
        let is_known = header.compress_algorithm.get() == COMPRESSION_DEFLATE;
        if flags & MARKERS == 0 || !is_known {
            return COMPLAIN.unsupported("an unknown compression");
        }
    }
    Ok(header)
}

/// Refuses a descriptor that needs another file; returns the kind of disk.
fn check_descriptor(
    file: &dyn SparseSource,
    header: &SparseExtentHeader,
) -> Result<&'static str, InspectError> {
    let sectors = header.descriptor_size.get();
    let offset = header.descriptor_offset.get().checked_mul(SECTOR);
    let length = bounded(sectors.saturating_mul(SECTOR), MOST_DESCRIPTOR);
    let (Some(offset), Some(length)) = (offset, length) else {
        return COMPLAIN.damaged("its descriptor is too long");
    };
    if offset == 0 || length == 0 {
        return COMPLAIN.other_file("the descriptor that names it");
    }
    let bytes = COMPLAIN.read(file, offset, length, "its descriptor is cut off")?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.split('\0').next().unwrap_or_default();
    let value = |key: &str| {
        text.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == key).then(|| value.trim().trim_matches('"'))
        })
    };
    let has_parent = value("parentCID").is_some_and(|id| !id.eq_ignore_ascii_case("ffffffff"));
    if has_parent || value("parentFileNameHint").is_some() {
        return COMPLAIN.other_file("its parent disk");
    }
    let extents = text.lines().filter(|line| {
        let access = line.split_whitespace().next().unwrap_or_default();
        matches!(access, "RW" | "RDONLY" | "NOACCESS")
    });
    if extents.count() != 1 {
        return COMPLAIN.other_file("its other extents");
    }
    match value("createType") {
        Some("streamOptimized") => Ok("streamOptimized"),
        Some("monolithicSparse") => Ok("monolithicSparse"),
        _ => COMPLAIN.unsupported("another kind of disk than streamOptimized and monolithicSparse"),
    }
}

fn directory(
    file: &dyn SparseSource,
    header: &SparseExtentHeader,
) -> Result<Vec<U32>, InspectError> {
    const CUT: &str = "its grain directory is cut off";
    let per_table = header.grain_size.get() * u64::from(ENTRIES_PER_TABLE);
    let tables = bounded(header.capacity.get().div_ceil(per_table), MOST_TABLES);
    let Some(tables) = tables else {
        return COMPLAIN.unsupported("more than a million grain tables");
    };
    let Some(offset) = header.gd_offset.get().checked_mul(SECTOR) else {
        return COMPLAIN.damaged(CUT);
    };
    let bytes = COMPLAIN.read(file, offset, tables * size_of::<U32>(), CUT)?;
    let Ok(directory) = <[U32]>::ref_from_bytes(&bytes) else {
        return COMPLAIN.damaged(CUT);
    };
    let mut places: Vec<u32> = directory.iter().map(|sector| sector.get()).collect();
    places.retain(|sector| *sector != 0);
    places.sort_unstable();
    let are_apart = places
        .windows(2)
        .all(|pair| u64::from(pair[1]) - u64::from(pair[0]) >= TABLE_SECTORS);
    COMPLAIN.must(are_apart, "grain tables share their bytes")?;
    Ok(directory.to_vec())
}

impl Map {
    fn grain(&self) -> u64 {
        self.header.grain_size.get() * SECTOR
    }

    fn is_compressed(&self) -> bool {
        self.header.flags.get() & COMPRESSED != 0
    }

    fn read_table(&self, number: usize) -> io::Result<Option<Vec<U32>>> {
        let sector = self.directory.get(number).map_or(0, |sector| sector.get());
        if sector == 0 {
            return Ok(None);
        }
        let length = ENTRIES_PER_TABLE as usize * size_of::<U32>();
        let bytes = read_vec(self.file.as_ref(), u64::from(sector) * SECTOR, length)?;
        let bytes = bytes.ok_or_else(|| broken("a grain table is behind the end of the file"))?;
        let table = <[U32]>::ref_from_bytes(&bytes);
        let table = table.map_err(|_| broken("a grain table is cut off"))?;
        Ok(Some(table.to_vec()))
    }

    fn table(&self, number: usize) -> io::Result<Option<Arc<[U32]>>> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, table)) = lock().iter().find(|(kept, _)| *kept == number) {
            return Ok(Some(Arc::clone(table)));
        }
        let Some(table) = self.read_table(number)? else {
            return Ok(None);
        };
        let table: Arc<[U32]> = table.into();
        let mut kept = lock();
        if kept.len() >= KEPT_TABLES {
            kept.remove(0);
        }
        kept.push((number, Arc::clone(&table)));
        Ok(Some(table))
    }

    fn place(&self, entry: u32) -> Place {
        let zeroed = self.header.flags.get() & ZEROED_GRAINS != 0;
        match entry {
            0 => Place::Zeros,
            1 if zeroed => Place::Zeros,
            sector if self.is_compressed() => Place::Packed {
                offset: u64::from(sector) * SECTOR,
                length: 0,
            },
            sector => Place::At(u64::from(sector) * SECTOR),
        }
    }

    /// Looks at every grain once: all are in the file, and no more of them
    /// than it has room for.
    fn scan(&self) -> Result<DataMap, InspectError> {
        let size = self.size().bytes();
        let file = self.file.size().bytes();
        let mut data = DataMap::new(size, self.grain());
        let mut present = 0_u64;
        // Sectors of the grains that are not packed.
        let mut starts = Vec::new();
        let mut grain = 0_u64;
        for number in 0..self.directory.len() {
            let table = self
                .read_table(number)
                .map_err(|source| match source.kind() {
                    io::ErrorKind::InvalidData => InspectError::Damaged {
                        format: ImageFormat::Vmdk,
                        what: "a grain table is behind the end of the file",
                    },
                    _ => InspectError::Read { offset: 0, source },
                })?;
            for entry in table.iter().flatten() {
                if let Place::At(offset) | Place::Packed { offset, .. } = self.place(entry.get())
                    && grain * self.grain() < size
                {
                    COMPLAIN.must(offset < file, "a grain is behind the end of the file")?;
                    data.mark(&(grain * self.grain()..(grain + 1) * self.grain()));
                    present += 1;
                    if !self.is_compressed() {
                        starts.push(entry.get());
                    }
                    if starts.len() > MOST_GRAINS {
                        return COMPLAIN.unsupported("more than 32 million grains");
                    }
                }
                grain += 1;
            }
            grain = (number as u64 + 1) * u64::from(ENTRIES_PER_TABLE);
        }
        // A packed grain names its place on the disk, so no two share one.
        COMPLAIN.must(present <= file / SECTOR, "grains share their bytes")?;
        self.check_apart(starts)?;
        Ok(data)
    }

    /// Grains that are not packed share bytes neither with each other nor
    /// with what the header names.
    fn check_apart(&self, mut starts: Vec<u32>) -> Result<(), InspectError> {
        let grain = self.header.grain_size.get();
        starts.sort_unstable();
        let mut pairs = starts.windows(2);
        let are_apart = pairs.all(|pair| u64::from(pair[1]) - u64::from(pair[0]) >= grain);
        COMPLAIN.must(are_apart, "grains share their bytes")?;
        let is_free = |start: u64, length: u64| {
            let after = starts.partition_point(|sector| u64::from(*sector) + grain <= start);
            let next = starts.get(after).copied().map(u64::from);
            next.is_none_or(|sector| sector >= start.saturating_add(length))
        };
        let header = &self.header;
        let directory = (self.directory.len() * size_of::<U32>()) as u64;
        let reserved = [
            (0, 1),
            (header.descriptor_offset.get(), header.descriptor_size.get()),
            (header.gd_offset.get(), directory.div_ceil(SECTOR)),
        ];
        let tables = self.directory.iter().map(|sector| u64::from(sector.get()));
        let mut tables = tables.filter(|sector| *sector != 0);
        let are_free = reserved
            .iter()
            .all(|(start, length)| is_free(*start, *length))
            && tables.all(|table| is_free(table, TABLE_SECTORS));
        COMPLAIN.must(are_free, "a grain is over the header or a table")
    }
}

impl BlockMap for Map {
    fn size(&self) -> ByteSize {
        ByteSize::from_bytes(self.header.capacity.get() * SECTOR)
    }

    fn block_at(&self, offset: u64) -> io::Result<Block> {
        let grain = offset / self.grain();
        let per_table = u64::from(ENTRIES_PER_TABLE);
        let number = usize::try_from(grain / per_table).map_err(io::Error::other)?;
        let entry = usize::try_from(grain % per_table).map_err(io::Error::other)?;
        let table = self.table(number)?;
        let entry = table.and_then(|table| table.get(entry).copied());
        Ok(Block {
            range: grain * self.grain()..(grain + 1) * self.grain(),
            place: self.place(entry.map_or(0, U32::get)),
        })
    }

    fn unpack(&self, block: &Block, _old: Vec<u8>) -> io::Result<Vec<u8>> {
        const HEAD: usize = size_of::<GrainMarker>();
        let Place::Packed { offset, .. } = block.place else {
            return Err(broken("this grain is not packed"));
        };
        let cut = || broken("a grain is cut off");
        let file = self.file.as_ref();
        let head = read_vec(file, offset, HEAD)?.ok_or_else(cut)?;
        let marker = GrainMarker::read_from_bytes(&head).map_err(|_| cut())?;
        if marker.lba.get().checked_mul(SECTOR) != Some(block.range.start) {
            return Err(broken("a grain is another one than its table says"));
        }
        let length = usize::try_from(self.grain()).map_err(io::Error::other)?;
        let packed = marker.size.get() as usize;
        if packed > 2 * length + 1024 {
            return Err(broken("a grain is longer than it can be"));
        }
        let packed = read_vec(file, offset + HEAD as u64, packed)?.ok_or_else(cut)?;
        // The last grain may stop where the disk does.
        let left = self.size().bytes() - block.range.start;
        let needed = usize::try_from(left).unwrap_or(usize::MAX).min(length);
        match inflate(&packed, true, length) {
            Ok(bytes) => Ok(bytes),
            Err(_) if needed < length => {
                let mut bytes = inflate(&packed, true, needed)?;
                bytes.resize(length, 0);
                Ok(bytes)
            }
            Err(error) => Err(error),
        }
    }
}
