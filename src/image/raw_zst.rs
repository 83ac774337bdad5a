//! Raw images as a zstd stream that every zstd reads, and that can be read
//! from any place.
//!
//! The disk is cut into chunks of 4 MiB; each that is not all zeros is a
//! frame of its own, so that many threads can pack and the bytes do not
//! depend on their number. Chunks of zeros become frames of run-length
//! blocks, 4 bytes for 128 KiB. At the end stands a seek table in a frame
//! that readers skip.
//!
//! Source: RFC 8878; zstd, `contrib/seekable_format/zstd_seekable_compression_format.md`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::codec::Form;
use super::pass::{CHUNK_SIZE, Chunk, Cluster, Container};
use crate::digest::ContentRoot;
use crate::units::{ByteSize, GIB};

/// `Magic_Number` of a frame.
const FRAME_MAGIC: u32 = 0xfd2f_b528;
/// `Magic_Number` of the skippable frame with the seek table.
pub(crate) const SKIPPABLE_MAGIC: u32 = 0x184d_2a5e;
/// `Seekable_Magic_Number`.
pub(crate) const SEEKABLE_MAGIC: u32 = 0x8f92_eab1;
/// The largest block of a frame.
const BLOCK: u64 = 128 << 10;
/// Zeros in one frame, at most.
const MOST_ZEROS: u64 = GIB;

/// An entry of the seek table.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct SeekEntry {
    pub compressed_size: U32,
    pub decompressed_size: U32,
}

/// The last bytes of the seek table.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct SeekFooter {
    pub number_of_frames: U32,
    /// Bit 7: entries have a checksum.
    pub descriptor: u8,
    pub magic: U32,
}

/// A compressed raw image in the making.
#[derive(Debug)]
pub(super) struct RawZstWriter {
    size: ByteSize,
    /// Which of the packed forms of a chunk is ours.
    packer: usize,
    /// The next byte of the file, and of the disk.
    at: u64,
    done: u64,
    entries: Vec<SeekEntry>,
}

impl RawZstWriter {
    pub(super) fn new(size: ByteSize, packer: usize) -> Self {
        Self {
            size,
            packer,
            at: 0,
            done: 0,
            entries: Vec::new(),
        }
    }

    /// Appends a frame that unpacks to `length` bytes.
    fn put(&mut self, file: &File, frame: &[u8], length: u64) -> io::Result<()> {
        let number = |n: u64| u32::try_from(n).map(U32::new).map_err(io::Error::other);
        file.write_all_at(frame, self.at)?;
        self.entries.push(SeekEntry {
            compressed_size: number(frame.len() as u64)?,
            decompressed_size: number(length)?,
        });
        self.at += frame.len() as u64;
        self.done += length;
        Ok(())
    }

    /// Appends zeros up to byte `end` of the disk.
    fn put_zeros(&mut self, file: &File, end: u64) -> io::Result<()> {
        while self.done < end {
            let length = (end - self.done).min(MOST_ZEROS);
            self.put(file, &zero_frame(length), length)?;
        }
        Ok(())
    }
}

/// Length of [`zero_frame`].
pub(crate) fn zero_frame_length(length: u64) -> u64 {
    14 + 4 * length.div_ceil(BLOCK)
}

/// A frame that unpacks to `length` zeros, at least one.
pub(crate) fn zero_frame(length: u64) -> Vec<u8> {
    // Frame_Header_Descriptor: a content size of 8 bytes, a window, no sum.
    const DESCRIPTOR: u8 = 3 << 6;
    // Window_Descriptor: 2 to the power of (10 + 7) bytes.
    const WINDOW: u8 = 7 << 3;
    // Block_Type RLE_Block, above the bit of the last block.
    const RLE: u64 = 1 << 1;
    let mut frame = FRAME_MAGIC.to_le_bytes().to_vec();
    frame.extend([DESCRIPTOR, WINDOW]);
    frame.extend(length.to_le_bytes());
    let mut left = length;
    while left > 0 {
        let size = left.min(BLOCK);
        left -= size;
        let head = size << 3 | RLE | u64::from(left == 0);
        frame.extend_from_slice(&head.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

impl Container for RawZstWriter {
    fn append(&mut self, _file: &File, _cluster: &Cluster) -> io::Result<()> {
        Ok(())
    }

    fn append_chunk(&mut self, file: &File, chunk: &Chunk) -> io::Result<()> {
        self.put_zeros(file, chunk.index * CHUNK_SIZE as u64)?;
        match chunk.packed.get(self.packer).map(|packed| &packed.form) {
            Some(Form::Smaller(frame)) => self.put(file, frame, chunk.length as u64),
            _ => Err(io::Error::other("a chunk was not packed")),
        }
    }

    fn finish(&mut self, file: &File, _root: &ContentRoot) -> io::Result<()> {
        self.put_zeros(file, self.size.bytes())?;
        let number = |n: usize| u32::try_from(n).map(U32::new).map_err(io::Error::other);
        let footer = SeekFooter {
            number_of_frames: number(self.entries.len())?,
            descriptor: 0,
            magic: SEEKABLE_MAGIC.into(),
        };
        let body = [self.entries.as_bytes(), footer.as_bytes()].concat();
        let head = [U32::new(SKIPPABLE_MAGIC), number(body.len())?];
        file.write_all_at(&[head.as_bytes(), &body].concat(), self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_zeros_is_small_and_unpacks() {
        for length in [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 77] {
            let frame = zero_frame(length);
            assert_eq!(frame.len() as u64, zero_frame_length(length));
            let back = zstd::decode_all(&frame[..]).expect("a sound frame");
            assert_eq!(back.len() as u64, length);
            assert!(back.iter().all(|byte| *byte == 0));
        }
    }
}
