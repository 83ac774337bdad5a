//! Bytes in memory of which only the pages that are not zero are kept.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

use super::{SparseSource, check_range, coalesce};
use crate::units::ByteSize;

/// Granularity of what is kept, in bytes.
pub const PAGE_SIZE: usize = 4096;

type Page = Box<[u8; PAGE_SIZE]>;

/// A readable, writable, seekable run of `size` bytes that starts as zeros.
///
/// Writing zeros to a page that was never written keeps nothing, so formatting
/// a large empty volume costs what its structures cost. Made for libraries
/// that want to format a device; the result is a [`SparseSource`].
#[derive(Clone)]
pub struct PageMap {
    size: ByteSize,
    pages: BTreeMap<u64, Page>,
    at: u64,
}

impl PageMap {
    /// `size` zeros.
    #[must_use]
    pub fn new(size: ByteSize) -> Self {
        Self {
            size,
            pages: BTreeMap::new(),
            at: 0,
        }
    }

    /// Bytes that are held in memory.
    #[must_use]
    pub fn held(&self) -> ByteSize {
        ByteSize::from_bytes((self.pages.len() * PAGE_SIZE) as u64)
    }

    /// Overwrites `bytes.len()` bytes from byte `offset` on.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the range passes the end; nothing is then written.
    pub fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        check_range(offset, bytes.len(), self.size)?;
        for piece in pieces(offset, bytes.len()) {
            let from = &bytes[piece.buffer];
            if let Some(page) = self.pages.get_mut(&piece.page) {
                page[piece.inside].copy_from_slice(from);
            } else if from.iter().any(|byte| *byte != 0) {
                let page = self
                    .pages
                    .entry(piece.page)
                    .or_insert_with(|| Box::new([0; PAGE_SIZE]));
                page[piece.inside].copy_from_slice(from);
            }
        }
        Ok(())
    }

    /// Forgets the pages that became zero again.
    pub fn trim(&mut self) {
        self.pages
            .retain(|_, page| page.iter().any(|byte| *byte != 0));
    }
}

/// The part of one page that a range touches.
struct Piece {
    page: u64,
    inside: Range<usize>,
    buffer: Range<usize>,
}

/// Cuts `length` bytes from `offset` on at page boundaries.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let start = usize::try_from(at % PAGE_SIZE as u64).expect("below the page size");
        let count = (PAGE_SIZE - start).min(length - done);
        let piece = Piece {
            page: at / PAGE_SIZE as u64,
            inside: start..start + count,
            buffer: done..done + count,
        };
        done += count;
        Some(piece)
    })
}

impl SparseSource for PageMap {
    fn size(&self) -> ByteSize {
        self.size
    }

    fn data_ranges(&self) -> Box<dyn Iterator<Item = Range<u64>> + '_> {
        let page = PAGE_SIZE as u64;
        let ranges = self
            .pages
            .keys()
            .map(|number| number * page..(number * page + page).min(self.size.bytes()));
        Box::new(coalesce(ranges).into_iter())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(offset, buf.len(), self.size)?;
        for piece in pieces(offset, buf.len()) {
            let into = &mut buf[piece.buffer];
            match self.pages.get(&piece.page) {
                Some(page) => into.copy_from_slice(&page[piece.inside]),
                None => into.fill(0),
            }
        }
        Ok(())
    }
}

impl PageMap {
    /// How many of `wanted` bytes lie between the cursor and the end.
    fn left(&self, wanted: usize) -> usize {
        let left = self.size.bytes().saturating_sub(self.at);
        usize::try_from(left).unwrap_or(usize::MAX).min(wanted)
    }
}

impl Read for PageMap {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.left(buf.len());
        self.read_exact_at(&mut buf[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for PageMap {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let count = self.left(buf.len());
        self.write_at(&buf[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for PageMap {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.bytes().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = target.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "a seek to before the start")
        })?;
        Ok(self.at)
    }
}

impl fmt::Debug for PageMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageMap({} of {})", self.held(), self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn writing_zeros_keeps_nothing() {
        let mut map = PageMap::new(ByteSize::from_mib(1 << 20));
        map.write_at(&[0; 10_000], 5).expect("inside");
        assert_eq!(map.held(), ByteSize::ZERO);
        assert_eq!(map.data_ranges().count(), 0);
    }

    #[test]
    fn the_last_page_ends_with_the_map() {
        let mut map = PageMap::new(ByteSize::from_bytes(5000));
        map.write_at(&[1], 4999).expect("inside");
        assert_eq!(map.data_ranges().collect::<Vec<_>>(), vec![4096..5000]);
        assert!(map.write_at(&[1, 1], 4999).is_err());
        map.seek(SeekFrom::End(-1)).expect("inside");
        assert_eq!(map.write(&[2, 2]).expect("one fits"), 1);
        assert_eq!(map.read(&mut [0; 4]).expect("at the end"), 0);
    }

    #[test]
    fn a_page_that_became_zero_again_can_be_trimmed() {
        let mut map = PageMap::new(ByteSize::from_mib(1));
        map.write_at(&[7; 9000], 100).expect("inside");
        map.write_at(&[0; 9000], 100).expect("inside");
        assert_ne!(map.held(), ByteSize::ZERO);
        map.trim();
        assert_eq!(map.held(), ByteSize::ZERO);
    }

    proptest! {
        #[test]
        fn a_page_map_reads_as_a_flat_buffer_does(
            writes in proptest::collection::vec((0_usize..60_000, 0_usize..9_000, 0_u8..3), 0..20),
        ) {
            let size = 65_000;
            let mut flat = vec![0; size];
            let mut map = PageMap::new(ByteSize::from_bytes(size as u64));
            for (start, length, value) in writes {
                let end = (start + length).min(size);
                flat[start..end].fill(value);
                map.write_at(&flat[start..end], start as u64).expect("inside");
            }
            let mut read = vec![9; size];
            map.read_exact_at(&mut read, 0).expect("whole");
            prop_assert_eq!(&read, &flat);
            let ranges: Vec<_> = map.data_ranges().collect();
            for (at, byte) in flat.iter().enumerate() {
                let at = at as u64;
                prop_assert!(*byte == 0 || ranges.iter().any(|range| range.contains(&at)));
            }
        }
    }
}
