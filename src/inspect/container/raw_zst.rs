//! Raw disks as seekable zstd streams.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use zerocopy::FromBytes;

use super::{Complain, InspectError, bounded};
use crate::image::ImageFormat;
use crate::image::raw_zst::{
    SEEKABLE_MAGIC, SKIPPABLE_MAGIC, SeekEntry, SeekFooter, zero_frame, zero_frame_length,
};
use crate::inspect::blocks::{Block, BlockMap, Blocks, DataMap, Place, broken, read_vec};
use crate::sparse::SparseSource;
use crate::units::ByteSize;

type Opened = (Arc<dyn SparseSource>, &'static str);

const COMPLAIN: Complain = Complain(ImageFormat::RawZst);
/// The longest frame that is unpacked, in bytes of the disk.
const MOST_FRAME: u32 = 16 << 20;
/// Bytes that are kept for packed frames.
const MOST_SPARE: usize = 32 << 20;
/// The longest seek table that is read: a million frames.
const MOST_TABLE: usize = 8 << 20;

#[derive(Debug, Clone, Copy)]
struct Frame {
    /// First byte on the disk, and in the file.
    disk: u64,
    file: u64,
    length: u32,
    packed: u32,
    is_zero: bool,
}

#[derive(Debug)]
struct Map {
    file: Arc<dyn SparseSource>,
    size: u64,
    frames: Vec<Frame>,
    /// Bytes that held packed frames, for the next ones.
    spare: Mutex<Vec<Vec<u8>>>,
}

pub(super) fn open(file: Arc<dyn SparseSource>) -> Result<Opened, InspectError> {
    let entries = seek_table(file.as_ref())?;
    let (mut disk, mut at) = (0_u64, 0_u64);
    let mut frames = Vec::with_capacity(entries.len());
    for entry in entries {
        let (length, packed) = (entry.decompressed_size.get(), entry.compressed_size.get());
        if length == 0 {
            at += u64::from(packed);
            continue;
        }
        let mut frame = Frame {
            disk,
            file: at,
            length,
            packed,
            is_zero: false,
        };
        frame.is_zero = is_zero(file.as_ref(), &frame)?;
        if !frame.is_zero && length > MOST_FRAME {
            return COMPLAIN.unsupported("frames of more than 16 MiB");
        }
        frames.push(frame);
        disk += u64::from(length);
        at += u64::from(packed);
    }
    COMPLAIN.must(
        at <= file.size().bytes(),
        "its seek table names more than the file has",
    )?;
    let mut data = DataMap::new(disk, 1 << 16);
    for frame in frames.iter().filter(|frame| !frame.is_zero) {
        data.mark(&(frame.disk..frame.disk + u64::from(frame.length)));
    }
    let map = Map {
        file: Arc::clone(&file),
        size: disk,
        frames,
        spare: Mutex::new(Vec::new()),
    };
    Ok((Arc::new(Blocks::new(file, map, data)), "seekable zstd"))
}

fn seek_table(file: &dyn SparseSource) -> Result<Vec<SeekEntry>, InspectError> {
    const FOOTER: u64 = size_of::<SeekFooter>() as u64;
    const HEAD: u64 = 8;
    let none = || COMPLAIN.unsupported("no seek table");
    let size = file.size().bytes();
    let Some(at) = size.checked_sub(FOOTER) else {
        return none();
    };
    let bytes = COMPLAIN.read(file, at, size_of::<SeekFooter>(), "it is cut off")?;
    let Ok(footer) = SeekFooter::read_from_bytes(&bytes) else {
        return none();
    };
    if footer.magic.get() != SEEKABLE_MAGIC {
        return none();
    }
    if footer.descriptor != 0 {
        return COMPLAIN.unsupported("a seek table with sums");
    }
    let entry = size_of::<SeekEntry>() as u64;
    let Some(length) = bounded(u64::from(footer.number_of_frames.get()) * entry, MOST_TABLE) else {
        return COMPLAIN.unsupported("more than a million frames");
    };
    let Some(start) = at.checked_sub(length as u64 + HEAD) else {
        return COMPLAIN.damaged("its seek table is longer than the file");
    };
    let bytes = COMPLAIN.read(file, start, length + 8, "its seek table is cut off")?;
    COMPLAIN.must(
        bytes[..4] == SKIPPABLE_MAGIC.to_le_bytes(),
        "its seek table is not where it says",
    )?;
    match <[SeekEntry]>::ref_from_bytes(&bytes[8..]) {
        Ok(entries) => Ok(entries.to_vec()),
        Err(_) => COMPLAIN.damaged("its seek table is cut off"),
    }
}

/// Whether a frame is one of zeros as consign writes them.
fn is_zero(file: &dyn SparseSource, frame: &Frame) -> Result<bool, InspectError> {
    let length = frame.length.into();
    if zero_frame_length(length) != u64::from(frame.packed) {
        return Ok(false);
    }
    let offset = frame.file;
    let bytes = read_vec(file, offset, frame.packed as usize);
    let bytes = bytes.map_err(|source| InspectError::Read { offset, source })?;
    Ok(bytes.is_some_and(|bytes| bytes == zero_frame(length)))
}

/// `old` with another length and any content, where it is neither too short
/// nor far too long.
fn with_length(mut old: Vec<u8>, length: usize) -> Vec<u8> {
    if (length..=2 * length).contains(&old.capacity()) {
        old.resize(length, 0);
        return old;
    }
    drop(old);
    vec![0; length]
}

impl Map {
    fn take_spare(&self) -> Vec<u8> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        spare.pop().unwrap_or_default()
    }

    fn keep_spare(&self, bytes: Vec<u8>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let held: usize = spare.iter().map(Vec::capacity).sum();
        if held + bytes.capacity() <= MOST_SPARE {
            spare.push(bytes);
        }
    }
}

impl BlockMap for Map {
    fn size(&self) -> ByteSize {
        ByteSize::from_bytes(self.size)
    }

    fn block_at(&self, offset: u64) -> io::Result<Block> {
        let after = self.frames.partition_point(|frame| frame.disk <= offset);
        let frame = after.checked_sub(1).and_then(|at| self.frames.get(at));
        let frame = frame.ok_or_else(|| broken("no frame holds this byte"))?;
        let place = if frame.is_zero {
            Place::Zeros
        } else {
            Place::Packed {
                offset: frame.file,
                length: frame.packed as usize,
            }
        };
        Ok(Block {
            range: frame.disk..frame.disk + u64::from(frame.length),
            place,
        })
    }

    fn unpack(&self, block: &Block, old: Vec<u8>) -> io::Result<Vec<u8>> {
        let Place::Packed { offset, length } = block.place else {
            return Err(broken("this block is not packed"));
        };
        let bound = zstd::zstd_safe::compress_bound(MOST_FRAME as usize);
        if length > bound {
            return Err(broken("a frame is too long"));
        }
        // That the file is long enough was seen when it was opened.
        let mut packed = with_length(self.take_spare(), length);
        self.file.read_exact_at(&mut packed, offset)?;
        let length = usize::try_from(block.range.end - block.range.start);
        let mut bytes = with_length(old, length.map_err(io::Error::other)?);
        let filled = zstd::bulk::decompress_to_buffer(&packed, &mut bytes[..])?;
        bytes.truncate(filled);
        self.keep_spare(packed);
        Ok(bytes)
    }
}
