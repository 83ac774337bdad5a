//! Lists as mirrors pack them, unpacked within bounds and hashed on the way.
//!
//! In: packed bytes of a repository. Out: readers of their plain text, which
//! never give more than a list may have. Checked by: xz, zstd and gzip.

use std::io::{self, Read, Write};

use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;

use crate::digest::Hasher;

/// The largest package list, plain, in bytes; Debian's are below 64 MiB.
pub(super) const MAX_PLAIN: u64 = 1 << 30;
/// Memory that unpacking xz may take, in KiB.
const XZ_MEMORY: u32 = 128 << 10;
/// Logarithm of the largest zstd window: 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;

/// How a list is packed on the mirror, the best one first.
#[derive(Debug, Clone, Copy)]
pub(super) enum Packing {
    Xz,
    Zstd,
    Gzip,
    Plain,
}

impl Packing {
    pub(super) const ALL: [Self; 4] = [Self::Xz, Self::Zstd, Self::Gzip, Self::Plain];

    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Xz => ".xz",
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
            Self::Plain => "",
        }
    }

    pub(super) fn unpack(self, packed: &[u8]) -> io::Result<Box<dyn Read + '_>> {
        Ok(match self {
            Self::Xz => Box::new(XzReader::new_mem_limit(packed, true, XZ_MEMORY)),
            Self::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(packed)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
            Self::Gzip => Box::new(MultiGzDecoder::new(packed)),
            Self::Plain => Box::new(packed),
        })
    }
}

/// A reader that hashes what passes, keeps a copy, and has an end.
pub(super) struct Checked<R, W> {
    from: R,
    pub(super) hasher: Hasher,
    left: u64,
    pub(super) keep: W,
}

impl<R, W> Checked<R, W> {
    pub(super) fn new(from: R, limit: u64, keep: W) -> Self {
        Self {
            from,
            hasher: Hasher::new(),
            left: limit,
            keep,
        }
    }
}

impl<R: Read, W: Write> Read for Checked<R, W> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buf)?;
        let bytes = buf.get(..count).unwrap_or_default();
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other("unpacked, it is longer than it says"))?;
        self.hasher.update(bytes);
        self.keep.write_all(bytes)?;
        Ok(count)
    }
}
