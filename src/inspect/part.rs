//! A part of a disk as a disk of its own.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::sparse::{SparseSource, check_range};
use crate::units::ByteSize;

/// The bytes `range` of another source.
#[derive(Debug, Clone)]
pub struct Part {
    whole: Arc<dyn SparseSource>,
    range: Range<u64>,
}

impl Part {
    /// `None` when `range` is not inside `whole`.
    #[must_use]
    pub fn new(whole: Arc<dyn SparseSource>, range: Range<u64>) -> Option<Self> {
        let is_inside = range.start <= range.end && range.end <= whole.size().bytes();
        is_inside.then_some(Self { whole, range })
    }
}

impl SparseSource for Part {
    fn size(&self) -> ByteSize {
        ByteSize::from_bytes(self.range.end - self.range.start)
    }

    fn data_ranges(&self) -> Box<dyn Iterator<Item = Range<u64>> + '_> {
        let Range { start, end } = self.range;
        let inside = self.whole.data_ranges();
        let inside = inside.map(move |range| range.start.max(start)..range.end.min(end));
        let inside = inside.filter(|range| range.start < range.end);
        Box::new(inside.map(move |range| range.start - start..range.end - start))
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(offset, buf.len(), self.size())?;
        self.whole.read_exact_at(buf, self.range.start + offset)
    }
}
