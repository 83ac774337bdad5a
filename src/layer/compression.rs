//! Compressed archives, told apart by their first bytes, within bounds.
//!
//! In: a file. Out: its uncompressed bytes as a stream. gzip (RFC 1952), xz
//! (the .xz file format), zstd (RFC 8878), each also as several streams one
//! after the other, or plain. No number in the input decides how much memory
//! is taken, and no small file becomes an endless one.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write as _};
use std::path::Path;

use super::tar::{SparseFile, TarSum};
use crate::digest::{DiffId, Digest, Hasher, KeptHasher};

/// Memory that an xz stream may ask for, in KiB: `xz -9` takes 65 MiB.
const XZ_MEMORY_KIB: u32 = 256 << 10;
/// Logarithm of the largest zstd window: 128 MiB, as `zstd --long`.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Uncompressed bytes that any archive may have.
const FREE: u64 = 1 << 30;
/// Uncompressed bytes for each compressed one above that: text has about ten.
const RATIO: u64 = 200;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// zstd.
    Zstd,
}

impl Compression {
    /// By the first bytes of a file.
    #[must_use]
    pub fn of(head: &[u8]) -> Self {
        let is = |magic: &[u8]| head.starts_with(magic);
        // zstd's skippable frames (0x184D2A5?) may come before the first one.
        let is_skippable = matches!(head, [low, 0x2a, 0x4d, 0x18, ..] if low & 0xf0 == 0x50);
        if is(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if is(b"\xfd7zXZ\0") {
            Self::Xz
        } else if is(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable {
            Self::Zstd
        } else {
            Self::Plain
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        })
    }
}

/// The uncompressed bytes of `file`, which has `length` bytes itself.
///
/// Reading fails with `InvalidData` for damage and with `FileTooLarge` when
/// more comes out than `length` can mean.
///
/// # Errors
///
/// What the first read reports.
pub fn uncompressed<'a>(
    file: impl Read + 'a,
    length: u64,
) -> io::Result<(Compression, Box<dyn Read + 'a>)> {
    let mut file = BufReader::with_capacity(128 << 10, file);
    let compression = Compression::of(file.fill_buf()?);
    let stream: Box<dyn Read + 'a> = match compression {
        Compression::Plain => return Ok((compression, Box::new(file))),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(
            file,
            true,
            XZ_MEMORY_KIB,
        )),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(file)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
    };
    let bounded = Bounded {
        stream,
        left: length.saturating_mul(RATIO).saturating_add(FREE),
    };
    Ok((compression, Box::new(bounded)))
}

/// Why [`unpack_to`] failed.
#[derive(Debug)]
pub(crate) enum UnpackError {
    /// The input is damaged, or cannot be read.
    Read(io::Error),
    /// The output cannot be written.
    Write(io::Error),
}

/// Writes the uncompressed bytes of `stream`, which has `length` bytes, to a
/// new file at `place`; gives what they are known by as a tar.
pub(crate) fn unpack_to(
    stream: &mut impl Read,
    length: u64,
    place: &Path,
) -> Result<TarSum, UnpackError> {
    let file = File::create_new(place).map_err(UnpackError::Write)?;
    let mut out = BufWriter::with_capacity(256 << 10, SparseFile::new(file));
    let (_, mut stream) = uncompressed(stream, length).map_err(UnpackError::Read)?;
    let (mut hasher, mut kept) = (Hasher::new(), KeptHasher::default());
    let mut size = 0;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(UnpackError::Read(error)),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        hasher.update(bytes);
        kept.update(bytes);
        size += count as u64;
        out.write_all(bytes).map_err(UnpackError::Write)?;
    }
    out.flush().map_err(UnpackError::Write)?;
    Ok(TarSum {
        diff_id: DiffId(hasher.finish()),
        kept: kept.finish(),
        size,
    })
}

/// Digests what is read through it.
pub(crate) struct Hashing<R> {
    inner: R,
    hasher: Hasher,
}

impl<R> Hashing<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Hasher::new(),
        }
    }

    /// The digest of all that was read.
    pub(crate) fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.hasher.update(buf.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// A stream that fails where it passes its bound.
struct Bounded<R> {
    stream: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buf)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                "it unpacks to far more than an archive of its size holds",
            )
        })?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(bytes: &[u8]) -> io::Result<(Compression, Vec<u8>)> {
        let (compression, mut stream) = uncompressed(bytes, bytes.len() as u64)?;
        let mut out = Vec::new();
        stream.read_to_end(&mut out)?;
        Ok((compression, out))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("in memory");
        encoder.finish().expect("in memory")
    }

    #[test]
    fn each_kind_is_told_by_its_first_bytes() {
        let text = b"the same bytes";
        let zstd = zstd::encode_all(&text[..], 3).expect("in memory");
        assert_eq!(
            unpack(text).expect("plain"),
            (Compression::Plain, text.to_vec())
        );
        assert_eq!(
            unpack(&gzip(text)).expect("gzip"),
            (Compression::Gzip, text.to_vec())
        );
        assert_eq!(
            unpack(&zstd).expect("zstd"),
            (Compression::Zstd, text.to_vec())
        );
    }

    #[test]
    fn several_streams_are_one() {
        let both = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(unpack(&both).expect("gzip").1, b"one two");
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).expect("in memory");
        let both = [zstd(b"one "), zstd(b"two")].concat();
        assert_eq!(unpack(&both).expect("zstd").1, b"one two");
    }

    #[test]
    fn what_is_cut_is_an_error() {
        let whole = gzip(&[7; 9000]);
        for length in [12, whole.len() / 2, whole.len() - 1] {
            assert!(unpack(&whole[..length]).is_err(), "{length}");
        }
        let whole = zstd::encode_all(&[7; 9000][..], 3).expect("in memory");
        for length in [8, whole.len() - 1] {
            assert!(unpack(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_bomb_ends_at_its_bound() {
        let mut stream = Bounded {
            stream: io::repeat(0),
            left: 1000,
        };
        let error = io::copy(&mut stream, &mut io::sink()).expect_err("endless");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_zstd_window_above_the_bound_is_refused() {
        // A frame header that asks for a window of 2 GiB (RFC 8878, 3.1.1.1.2).
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
        assert!(unpack(&frame).is_err());
    }
}
