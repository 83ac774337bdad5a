//! qcow2, versions 2 and 3: strict, and without any other file.
//!
//! Everything that the header can say is either understood or refused, every
//! table is looked at once when the image is opened: offsets are aligned and
//! in the file, no two clusters share theirs, and each is counted as used.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use zerocopy::FromBytes;
use zerocopy::big_endian::{U32, U64};

use super::{Complain, InspectError, bounded, inflate};
use crate::image::ImageFormat;
use crate::image::qcow2::format::{
    COMPRESSED, COMPRESSION_ZSTD, COPIED, Header, INCOMPATIBLE_COMPRESSION, MAGIC, SECTOR,
};
use crate::inspect::blocks::{Block, BlockMap, Blocks, DataMap, Place, broken, read_vec};
use crate::sparse::SparseSource;
use crate::units::ByteSize;

mod used;

use used::Used;

type Opened = (Arc<dyn SparseSource>, &'static str);

const COMPLAIN: Complain = Complain(ImageFormat::Qcow2);
/// Bytes of a version 2 header.
const HEADER_2: usize = 72;
/// The largest L1 table, as in QEMU.
const MOST_L1: usize = 32 << 20;
/// The largest refcount table, as in QEMU.
const MOST_REFCOUNT_TABLE: usize = 8 << 20;
/// Most clusters of the file that are accounted for: 16 TiB in 64 KiB.
const MOST_CLUSTERS: u64 = 1 << 28;
/// Bytes of L2 tables that are kept for the next reading.
const KEPT: u64 = 8 << 20;
/// Incompatible feature bits.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const EXTENDED_L2: u64 = 1 << 4;
/// Header extensions that ask for more than this file.
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_ENCRYPTION: u32 = 0x0537_be77;
/// L1, L2 and refcount table entries: the offset.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// L2 entries, bit 0: all zeros.
const ZERO: u64 = 1;

/// What the header says.
#[derive(Debug, Clone, Copy)]
struct Facts {
    version: u32,
    cluster_bits: u32,
    size: u64,
    is_zstd: bool,
    l1_offset: u64,
    /// Entries that the disk needs.
    l1_entries: usize,
    refcount_offset: u64,
    refcount_length: usize,
    refcount_order: u32,
}

#[derive(Debug)]
struct Map {
    file: Arc<dyn SparseSource>,
    facts: Facts,
    l1: Vec<U64>,
    kept: Mutex<Vec<(u64, Arc<[U64]>)>>,
    unpackers: Mutex<Vec<Unpacker>>,
}

struct Unpacker(zstd::bulk::Decompressor<'static>);

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unpacker(..)")
    }
}

pub(super) fn open(file: Arc<dyn SparseSource>) -> Result<Opened, InspectError> {
    let facts = Facts::read(file.as_ref())?;
    let detail = match (facts.version, facts.is_zstd) {
        (2, _) => "version 2",
        (_, true) => "version 3, zstd",
        (_, false) => "version 3, deflate",
    };
    let length = facts.l1_entries * size_of::<U64>();
    let bytes = COMPLAIN.read(
        file.as_ref(),
        facts.l1_offset,
        length,
        "its L1 table is cut off",
    )?;
    let Ok(l1) = <[U64]>::ref_from_bytes(&bytes) else {
        return COMPLAIN.damaged("its L1 table is cut off");
    };
    let map = Map {
        file: Arc::clone(&file),
        facts,
        l1: l1.to_vec(),
        kept: Mutex::new(Vec::new()),
        unpackers: Mutex::new(Vec::new()),
    };
    let mut used = Used::new(&facts, file.size().bytes())?;
    let data = map.scan(&mut used)?;
    used.compare_with_refcounts(file.as_ref(), &facts)?;
    Ok((Arc::new(Blocks::new(file, map, data)), detail))
}

impl Facts {
    fn read(file: &dyn SparseSource) -> Result<Self, InspectError> {
        const CUT: &str = "its header is cut off";
        let mut bytes = COMPLAIN.read(file, 0, HEADER_2, CUT)?;
        bytes.resize(size_of::<Header>(), 0);
        if bytes[4..8] != [0, 0, 0, 2] {
            bytes = COMPLAIN.read(file, 0, size_of::<Header>(), CUT)?;
        }
        let Ok(header) = Header::read_from_bytes(&bytes) else {
            return COMPLAIN.damaged(CUT);
        };
        COMPLAIN.must(header.magic.get() == MAGIC, "it does not begin with `QFI`")?;
        let version = header.version.get();
        if !(2..=3).contains(&version) {
            return COMPLAIN.unsupported("another version");
        }
        if header.backing_file_offset.get() != 0 || header.backing_file_size.get() != 0 {
            return COMPLAIN.other_file("its backing file");
        }
        if header.crypt_method.get() != 0 {
            return COMPLAIN.unsupported("encryption");
        }
        let features = header.incompatible_features.get();
        check_features(features)?;
        let cluster_bits = header.cluster_bits.get();
        COMPLAIN.must(
            (9..=21).contains(&cluster_bits),
            "its cluster size is impossible",
        )?;
        let facts = Self {
            version,
            cluster_bits,
            size: header.size.get(),
            is_zstd: version == 3 && is_zstd(file, &header)?,
            l1_offset: header.l1_table_offset.get(),
            l1_entries: 0,
            refcount_offset: header.refcount_table_offset.get(),
            refcount_length: 0,
            refcount_order: if version == 3 {
                header.refcount_order.get()
            } else {
                4
            },
        };
        if version == 3 {
            check_extensions(file, &header, facts.cluster())?;
        }
        facts.with_tables(&header)
    }

    /// Checks the extents of the tables that the header names.
    fn with_tables(mut self, header: &Header) -> Result<Self, InspectError> {
        COMPLAIN.must(self.refcount_order <= 6, "its refcounts are too wide")?;
        COMPLAIN.must(self.size <= 1 << 62, "its disk size is impossible")?;
        let per_table = self.cluster() / 8 * self.cluster();
        let needed = self.size.div_ceil(per_table);
        COMPLAIN.must(
            needed <= header.l1_size.get().into(),
            "its L1 table is too short for the disk",
        )?;
        let entries = bounded(needed, MOST_L1 / 8);
        let most = MOST_REFCOUNT_TABLE;
        let length = u64::from(header.refcount_table_clusters.get()) * self.cluster();
        let (Some(entries), Some(length)) = (entries, bounded(length, most)) else {
            return COMPLAIN.unsupported("tables of more than 32 MiB");
        };
        (self.l1_entries, self.refcount_length) = (entries, length);
        COMPLAIN.must(
            self.is_aligned(self.l1_offset) && self.is_aligned(self.refcount_offset),
            "a table is not on a cluster",
        )?;
        Ok(self)
    }

    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// The fewest bytes that a cluster is packed in.
    fn least_packed(&self) -> u64 {
        /// Deflate: two bits for at most 258 bytes.
        const DEFLATED: u64 = 1032;
        /// Zstd: a head of 6 bytes, and 4 for each block of one byte repeated.
        const ZSTD_BLOCK: u64 = 128 << 10;
        if self.is_zstd {
            6 + 4 * self.cluster().div_ceil(ZSTD_BLOCK)
        } else {
            self.cluster().div_ceil(DEFLATED)
        }
    }

    fn is_aligned(&self, offset: u64) -> bool {
        offset.is_multiple_of(self.cluster())
    }

    /// The bytes of the disk that an L1 entry stands for.
    fn l2_reach(&self) -> u64 {
        self.cluster() / 8 * self.cluster()
    }
}

fn check_features(features: u64) -> Result<(), InspectError> {
    if features & DATA_FILE != 0 {
        return COMPLAIN.other_file("its data file");
    }
    COMPLAIN.must(features & CORRUPT == 0, "it says so itself")?;
    COMPLAIN.must(features & DIRTY == 0, "it was not closed")?;
    if features & EXTENDED_L2 != 0 {
        return COMPLAIN.unsupported("extended L2 entries");
    }
    if features & !INCOMPATIBLE_COMPRESSION != 0 {
        return COMPLAIN.unsupported("an unknown feature");
    }
    Ok(())
}

fn is_zstd(file: &dyn SparseSource, header: &Header) -> Result<bool, InspectError> {
    let length = header.header_length.get() as usize;
    let length_is_right = length >= size_of::<Header>() && length.is_multiple_of(8);
    COMPLAIN.must(length_is_right, "its header has an impossible length")?;
    let at = size_of::<Header>() as u64;
    let kind = if length > size_of::<Header>() {
        COMPLAIN.read(file, at, 1, "its header is cut off")?[0]
    } else {
        0
    };
    let is_marked = header.incompatible_features.get() & INCOMPATIBLE_COMPRESSION != 0;
    COMPLAIN.must(
        is_marked == (kind != 0),
        "its compression type and its features disagree",
    )?;
    match kind {
        0 => Ok(false),
        COMPRESSION_ZSTD => Ok(true),
        _ => COMPLAIN.unsupported("an unknown compression"),
    }
}

/// Walks the extensions behind the header, within the first cluster.
fn check_extensions(
    file: &dyn SparseSource,
    header: &Header,
    cluster: u64,
) -> Result<(), InspectError> {
    const END: &str = "its header extensions do not end";
    let mut at = u64::from(header.header_length.get());
    while at + 8 <= cluster {
        let bytes = COMPLAIN.read(file, at, 8, END)?;
        let Ok([kind, length]) = <[U32; 2]>::read_from_bytes(&bytes) else {
            return COMPLAIN.damaged(END);
        };
        match kind.get() {
            0 => return Ok(()),
            EXTENSION_DATA_FILE => return COMPLAIN.other_file("its data file"),
            EXTENSION_ENCRYPTION => return COMPLAIN.unsupported("encryption"),
            _ => at += 8 + u64::from(length.get()).next_multiple_of(8),
        }
    }
    COMPLAIN.must(at <= cluster, END)
}

impl Map {
    fn l2_offset(&self, number: usize) -> u64 {
        self.l1.get(number).map_or(0, |entry| entry.get() & OFFSET)
    }

    fn read_l2(&self, offset: u64) -> io::Result<Vec<U64>> {
        let length = usize::try_from(self.facts.cluster()).map_err(io::Error::other)?;
        let bytes = read_vec(self.file.as_ref(), offset, length)?;
        let bytes = bytes.ok_or_else(|| broken("an L2 table is cut off"))?;
        let table = <[U64]>::ref_from_bytes(&bytes);
        Ok(table
            .map_err(|_| broken("an L2 table is cut off"))?
            .to_vec())
    }

    fn l2(&self, offset: u64) -> io::Result<Arc<[U64]>> {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, table)) = lock().iter().find(|(kept, _)| *kept == offset) {
            return Ok(Arc::clone(table));
        }
        let table: Arc<[U64]> = self.read_l2(offset)?.into();
        let mut kept = lock();
        if kept.len() as u64 >= (KEPT / self.facts.cluster()).max(2) {
            kept.remove(0);
        }
        kept.push((offset, Arc::clone(&table)));
        Ok(table)
    }

    /// Where a cluster is, by its L2 entry.
    fn place(&self, entry: u64) -> Result<Place, InspectError> {
        if entry & COMPRESSED != 0 {
            let offset_bits = 62 - (self.facts.cluster_bits - 8);
            COMPLAIN.must(entry & COPIED == 0, "an L2 entry has impossible flags")?;
            let packed = entry & (COMPRESSED - 1);
            let offset = packed & ((1 << offset_bits) - 1);
            let end = (offset / SECTOR + (packed >> offset_bits) + 1) * SECTOR;
            let end = end.min(self.file.size().bytes());
            COMPLAIN.must(offset < end, "a cluster is behind the end of the file")?;
            let length = bounded(end - offset, 2 << self.facts.cluster_bits);
            return match length {
                Some(length) => Ok(Place::Packed { offset, length }),
                None => COMPLAIN.damaged("a packed cluster is too long"),
            };
        }
        let offset = entry & OFFSET;
        COMPLAIN.must(
            entry & !(OFFSET | COPIED | ZERO) == 0,
            "an L2 entry has impossible flags",
        )?;
        COMPLAIN.must(
            self.facts.is_aligned(offset),
            "a cluster is not on its place",
        )?;
        if offset == 0 || entry & ZERO != 0 {
            COMPLAIN.must(
                entry & ZERO == 0 || self.facts.version == 3,
                "an L2 entry has impossible flags",
            )?;
            return Ok(Place::Zeros);
        }
        Ok(Place::At(offset))
    }

    /// Looks at every table once.
    fn scan(&self, used: &mut Used) -> Result<DataMap, InspectError> {
        let cluster = self.facts.cluster();
        let mut data = DataMap::new(self.facts.size, cluster);
        let holes = Holes::new(self.file.as_ref());
        for (number, entry) in (0_u64..).zip(&self.l1) {
            let offset = entry.get() & OFFSET;
            COMPLAIN.must(
                entry.get() & !(OFFSET | COPIED) == 0 && self.facts.is_aligned(offset),
                "an L1 entry is impossible",
            )?;
            if offset == 0 {
                continue;
            }
            used.take(offset, cluster)?;
            if holes.has(offset..offset + cluster) {
                continue;
            }
            let table = self.read_l2(offset);
            let table = table.map_err(|source| InspectError::Read { offset, source })?;
            let start = number * self.facts.l2_reach();
            for (at, entry) in (start..self.facts.size)
                .step_by(1 << self.facts.cluster_bits)
                .zip(table)
            {
                match self.place(entry.get())? {
                    Place::Zeros => {
                        let spare = entry.get() & OFFSET;
                        if spare != 0 && entry.get() & COMPRESSED == 0 {
                            used.take(spare, cluster)?;
                        }
                        continue;
                    }
                    Place::At(offset) => used.take(offset, cluster)?,
                    Place::Packed { offset, length } => {
                        used.share(offset..offset + length as u64)?;
                    }
                }
                data.mark(&(at..at + cluster));
            }
        }
        Ok(data)
    }

    fn unzstd(&self, packed: &[u8], length: usize) -> io::Result<Vec<u8>> {
        let lock = || {
            self.unpackers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        // Behind the frame may be bytes of the next one.
        let frame = zstd::zstd_safe::find_frame_compressed_size(packed)
            .map_err(|_| broken("a cluster is no zstd frame"))?;
        let frame = packed
            .get(..frame)
            .ok_or_else(|| broken("a cluster is cut off"))?;
        let idle = lock().pop();
        let mut unpacker = match idle {
            Some(unpacker) => unpacker,
            None => Unpacker(zstd::bulk::Decompressor::new()?),
        };
        let mut bytes = vec![0; length];
        let filled = unpacker.0.decompress_to_buffer(frame, &mut bytes)?;
        lock().push(unpacker);
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// The parts of a file that the file system does not hold.
struct Holes(Vec<Range<u64>>);

impl Holes {
    fn new(file: &dyn SparseSource) -> Self {
        Self(file.data_ranges().collect())
    }

    fn has(&self, range: Range<u64>) -> bool {
        let after = self.0.partition_point(|data| data.end <= range.start);
        self.0.get(after).is_none_or(|data| data.start >= range.end)
    }
}

impl BlockMap for Map {
    fn size(&self) -> ByteSize {
        ByteSize::from_bytes(self.facts.size)
    }

    fn block_at(&self, offset: u64) -> io::Result<Block> {
        let cluster = self.facts.cluster();
        let number = usize::try_from(offset / self.facts.l2_reach()).map_err(io::Error::other)?;
        let start = offset / cluster * cluster;
        let range = start..start + cluster;
        let l2 = self.l2_offset(number);
        if l2 == 0 {
            return Ok(Block {
                range,
                place: Place::Zeros,
            });
        }
        let table = self.l2(l2)?;
        let entry = usize::try_from(offset % self.facts.l2_reach() / cluster);
        let entry = table.get(entry.map_err(io::Error::other)?);
        let entry = entry.ok_or_else(|| broken("an L2 table is too short"))?;
        let place = self.place(entry.get()).map_err(io::Error::other)?;
        Ok(Block { range, place })
    }

    fn unpack(&self, block: &Block, _old: Vec<u8>) -> io::Result<Vec<u8>> {
        let Place::Packed { offset, length } = block.place else {
            return Err(broken("this cluster is not packed"));
        };
        let packed = read_vec(self.file.as_ref(), offset, length)?;
        let packed = packed.ok_or_else(|| broken("a cluster is cut off"))?;
        let length = usize::try_from(self.facts.cluster()).map_err(io::Error::other)?;
        if self.facts.is_zstd {
            self.unzstd(&packed, length)
        } else {
            inflate(&packed, false, length)
        }
    }
}
