//! The seam that joins volume, disk and image format: bytes with holes.
//!
//! In: anything readable at an offset. Out: [`SparseSource`]. Never here:
//! formats.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use crate::units::ByteSize;

mod pages;

pub use pages::{PAGE_SIZE, PageMap};

/// Bytes that can be read at any offset, and that know where their holes are.
pub trait SparseSource: Send + Sync + fmt::Debug {
    /// Length in bytes, holes included.
    fn size(&self) -> ByteSize;

    /// Byte ranges that hold data: ascending, not empty, not touching.
    ///
    /// Every byte outside of them reads as zero; bytes inside may be zero too.
    fn data_ranges(&self) -> Box<dyn Iterator<Item = Range<u64>> + '_>;

    /// Fills `buf` from byte `offset` on.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the range passes [`size`](Self::size), and
    /// whatever the storage below reports.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
}

/// Joins ranges that touch or overlap and drops empty ones.
///
/// `ranges` must ascend by their start.
#[must_use]
pub fn coalesce(ranges: impl IntoIterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        if range.is_empty() {
            continue;
        }
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// The error of a read past the end.
#[must_use]
pub fn past_end(offset: u64, wanted: usize, size: ByteSize) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!(
            "{wanted} bytes at {offset} pass the end at {}",
            size.bytes()
        ),
    )
}

/// Whether `wanted` bytes from `offset` on lie inside `size`.
///
/// # Errors
///
/// `UnexpectedEof` when they do not.
pub fn check_range(offset: u64, wanted: usize, size: ByteSize) -> io::Result<()> {
    match offset.checked_add(wanted as u64) {
        Some(end) if end <= size.bytes() => Ok(()),
        _ => Err(past_end(offset, wanted, size)),
    }
}

/// A run of zeros: an empty partition.
#[derive(Debug, Clone, Copy)]
pub struct Zeros(pub ByteSize);

impl SparseSource for Zeros {
    fn size(&self) -> ByteSize {
        self.0
    }

    fn data_ranges(&self) -> Box<dyn Iterator<Item = Range<u64>> + '_> {
        Box::new(std::iter::empty())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(offset, buf.len(), self.0)?;
        buf.fill(0);
        Ok(())
    }
}

/// Bytes in memory, all data.
#[derive(Clone)]
pub struct Bytes(pub Arc<[u8]>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.0.len())
    }
}

impl SparseSource for Bytes {
    fn size(&self) -> ByteSize {
        ByteSize::from_bytes(self.0.len() as u64)
    }

    fn data_ranges(&self) -> Box<dyn Iterator<Item = Range<u64>> + '_> {
        Box::new(std::iter::once(0..self.0.len() as u64).filter(|range| !range.is_empty()))
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(offset, buf.len(), self.size())?;
        let start =
            usize::try_from(offset).map_err(|_| past_end(offset, buf.len(), self.size()))?;
        buf.copy_from_slice(&self.0[start..start + buf.len()]);
        Ok(())
    }
}

/// A source with zeros behind it, up to a larger size.
#[derive(Debug)]
pub struct Padded<S> {
    inner: S,
    size: ByteSize,
}

impl<S: SparseSource> Padded<S> {
    /// `inner`, then zeros up to `size`; `None` when `inner` is larger.
    #[must_use]
    pub fn new(inner: S, size: ByteSize) -> Option<Self> {
        (inner.size() <= size).then_some(Self { inner, size })
    }
}

impl<S: SparseSource> SparseSource for Padded<S> {
    fn size(&self) -> ByteSize {
        self.size
    }

    fn data_ranges(&self) -> Box<dyn Iterator<Item = Range<u64>> + '_> {
        self.inner.data_ranges()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(offset, buf.len(), self.size)?;
        let data = self.inner.size().bytes().saturating_sub(offset);
        let data = usize::try_from(data).unwrap_or(usize::MAX).min(buf.len());
        let (front, rest) = buf.split_at_mut(data);
        if !front.is_empty() {
            self.inner.read_exact_at(front, offset)?;
        }
        rest.fill(0);
        Ok(())
    }
}

impl<S: SparseSource + ?Sized> SparseSource for Box<S> {
    fn size(&self) -> ByteSize {
        (**self).size()
    }

    fn data_ranges(&self) -> Box<dyn Iterator<Item = Range<u64>> + '_> {
        (**self).data_ranges()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buf, offset)
    }
}

/// A file on the host. Its holes are those the file system reports
/// (`SEEK_DATA`, `SEEK_HOLE`) at the time of opening.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    size: ByteSize,
    data: Vec<Range<u64>>,
}

impl FileSource {
    /// Looks up length and holes of `file`.
    ///
    /// # Errors
    ///
    /// What `fstat` or `lseek` report.
    pub fn new(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        let data = data_ranges_of(&file, size)?;
        Ok(Self {
            file,
            size: ByteSize::from_bytes(size),
            data,
        })
    }
}

fn data_ranges_of(file: &File, size: u64) -> io::Result<Vec<Range<u64>>> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => return Ok(coalesce(std::iter::once(0..size))),
            Err(other) => return Err(other.into()),
        };
        let end = seek(file, SeekFrom::Hole(start))?.min(size);
        ranges.push(start..end);
        at = end;
    }
    Ok(coalesce(ranges))
}

impl SparseSource for FileSource {
    fn size(&self) -> ByteSize {
        self.size
    }

    fn data_ranges(&self) -> Box<dyn Iterator<Item = Range<u64>> + '_> {
        Box::new(self.data.iter().cloned())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(offset, buf.len(), self.size)?;
        // Holes are not read: the system would give each of them memory, and
        // take it from files that are still wanted.
        let end = offset + buf.len() as u64;
        let first = self.data.partition_point(|range| range.end <= offset);
        let inside = self.data[first..].iter();
        let place = |at: u64| usize::try_from(at - offset).expect("inside of the buffer");
        let mut done = 0;
        for range in inside.take_while(|range| range.start < end) {
            let (from, to) = (range.start.max(offset), range.end.min(end));
            buf[done..place(from)].fill(0);
            self.file
                .read_exact_at(&mut buf[place(from)..place(to)], from)?;
            done = place(to);
        }
        buf[done..].fill(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_ranges_become_one() {
        assert_eq!(
            coalesce([0..4, 4..8, 9..9, 10..12, 11..13]),
            vec![0..8, 10..13]
        );
    }

    #[test]
    fn reading_past_the_end_is_an_error() {
        let four = Bytes(Arc::from([1, 2, 3, 4].as_slice()));
        let mut buf = [0; 2];
        four.read_exact_at(&mut buf, 2).expect("inside");
        assert_eq!(buf, [3, 4]);
        let error = four
            .read_exact_at(&mut buf, 3)
            .expect_err("one byte too far");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(four.read_exact_at(&mut buf, u64::MAX).is_err());
    }

    #[test]
    fn padding_reads_as_zeros() {
        let four = Bytes(Arc::from([1, 2, 3, 4].as_slice()));
        let padded = Padded::new(four.clone(), ByteSize::from_bytes(8)).expect("larger");
        let mut buf = [9; 4];
        padded.read_exact_at(&mut buf, 2).expect("inside");
        assert_eq!(buf, [3, 4, 0, 0]);
        padded.read_exact_at(&mut buf, 4).expect("inside");
        assert_eq!(buf, [0; 4]);
        assert!(padded.read_exact_at(&mut buf, 5).is_err());
        assert_eq!(padded.data_ranges().next(), Some(0..4));
        assert!(Padded::new(four, ByteSize::from_bytes(3)).is_none());
    }

    #[test]
    fn a_hole_in_a_file_is_not_data() {
        let file = tempfile::tempfile().expect("temporary file");
        file.set_len(1 << 20).expect("grow");
        file.write_all_at(&[1; 4096], 512 << 10).expect("write");
        let source = FileSource::new(file).expect("open");
        let data: Vec<_> = source.data_ranges().collect();
        assert_eq!(data, vec![(512 << 10)..(516 << 10)]);
        let around = |offset: u64, before: usize, length: usize| {
            let mut buf = vec![9; length];
            source.read_exact_at(&mut buf, offset).expect("inside");
            let ones = buf.iter().position(|byte| *byte != 0).unwrap_or(length);
            let end = (ones + 4096).min(length);
            assert_eq!(ones, before, "from {offset} on");
            assert!(buf[ones..end].iter().all(|byte| *byte == 1));
            assert!(buf[end..].iter().all(|byte| *byte == 0));
        };
        around((512 << 10) - 1000, 1000, 8000);
        around((512 << 10) + 4095, 0, 1);
        around((516 << 10) - 1, 0, 1);
        around(516 << 10, 3, 3);
        around(0, 512 << 10, 1 << 20);
        let mut none: [u8; 0] = [];
        source.read_exact_at(&mut none, 1 << 20).expect("nothing");
    }
}
