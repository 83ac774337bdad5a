//! Hands out free blocks, front to back.

use std::ops::Range;

use crate::sparse::coalesce;

/// The volume is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full {
    /// Blocks that were missing.
    pub(super) missing: u64,
}

/// Ranges of blocks that nobody has taken yet, ascending.
#[derive(Debug, Clone)]
pub(super) struct FreeSpace {
    /// Reversed: the front is popped often, and a run in the middle is taken once.
    ranges: Vec<Range<u64>>,
    left: u64,
    /// Blocks that were passed over, in no order. They stay free.
    passed: Vec<Range<u64>>,
}

impl FreeSpace {
    pub(super) fn new(mut ranges: Vec<Range<u64>>) -> Self {
        ranges.reverse();
        let left = ranges.iter().map(|range| range.end - range.start).sum();
        Self {
            ranges,
            left,
            passed: Vec::new(),
        }
    }

    /// The next `count` blocks, in as many ranges as obstacles make of them.
    pub(super) fn take(&mut self, count: u64) -> Result<Vec<Range<u64>>, Full> {
        self.check(count)?;
        let mut taken = Vec::with_capacity(1);
        let mut wanted = count;
        while wanted > 0 {
            let front = self.ranges.last_mut().expect("enough is left: checked");
            let length = wanted.min(front.end - front.start);
            taken.push(front.start..front.start + length);
            front.start += length;
            wanted -= length;
            if front.is_empty() {
                self.ranges.pop();
            }
        }
        self.left -= count;
        Ok(taken)
    }

    /// The next block.
    pub(super) fn take_one(&mut self) -> Result<u64, Full> {
        let taken = self.take(1)?;
        Ok(taken.first().expect("one was taken").start)
    }

    /// `count` blocks in one piece from the first place that has them; the
    /// next `count` blocks when there is none.
    pub(super) fn take_together(&mut self, count: u64) -> Result<Vec<Range<u64>>, Full> {
        self.check(count)?;
        let place = self
            .ranges
            .iter()
            .rposition(|range| range.end - range.start >= count);
        let Some(place) = place else {
            return self.take(count);
        };
        let range = &mut self.ranges[place];
        let taken = range.start..range.start + count;
        range.start = taken.end;
        if range.is_empty() {
            self.ranges.remove(place);
        }
        self.left -= count;
        Ok(vec![taken])
    }

    /// Passes over what does not belong to whole units of `unit` blocks.
    pub(super) fn keep_whole(&mut self, unit: u64) {
        let mut whole = Vec::with_capacity(self.ranges.len());
        for range in &self.ranges {
            let end = range.end - range.end % unit;
            let start = range.start.next_multiple_of(unit).min(end).max(range.start);
            let end = end.max(start);
            self.passed.push(range.start..start);
            self.passed.push(end..range.end);
            if start < end {
                whole.push(start..end);
            }
        }
        self.ranges = whole;
        self.left = self.ranges.iter().map(|r| r.end - r.start).sum();
    }

    /// Passes over blocks until the next one is a multiple of `unit`. All
    /// ranges are of whole units: [`keep_whole`](Self::keep_whole).
    pub(super) fn align(&mut self, unit: u64) {
        let Some(front) = self.ranges.last_mut() else {
            return;
        };
        let start = front.start.next_multiple_of(unit);
        self.passed.push(front.start..start);
        self.left -= start - front.start;
        front.start = start;
        if front.is_empty() {
            self.ranges.pop();
        }
    }

    /// What is free, ascending.
    pub(super) fn into_ranges(self) -> Vec<Range<u64>> {
        let mut free = self.ranges;
        free.extend(self.passed);
        free.sort_unstable_by_key(|range| range.start);
        coalesce(free)
    }

    fn check(&self, count: u64) -> Result<(), Full> {
        match count.checked_sub(self.left) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(Full { missing }),
        }
    }
}

#[cfg(test)]
#[expect(
    clippy::single_range_in_vec_init,
    reason = "lists of ranges, not of numbers"
)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_taken_from_the_front_around_obstacles() {
        let mut space = FreeSpace::new(vec![2..5, 8..20]);
        assert_eq!(space.take(4), Ok(vec![2..5, 8..9]));
        assert_eq!(space.take_one(), Ok(9));
        assert_eq!(space.take(0), Ok(vec![]));
        assert_eq!(space.take(11), Err(Full { missing: 1 }));
        assert_eq!(space.into_ranges(), [10..20]);
    }

    #[test]
    fn whole_units_leave_the_rest_free() {
        let mut space = FreeSpace::new(vec![2..5, 10..45, 50..62, 64..80]);
        space.keep_whole(16);
        assert_eq!(space.take(3), Ok(vec![16..19]));
        space.align(16);
        assert_eq!(space.take(16), Ok(vec![64..80]));
        space.align(16);
        assert_eq!(space.take(1), Err(Full { missing: 1 }));
        assert_eq!(space.into_ranges(), [2..5, 10..16, 19..45, 50..62]);
    }

    #[test]
    fn one_piece_skips_places_that_are_too_small() {
        let mut space = FreeSpace::new(vec![2..5, 8..12, 20..30]);
        assert_eq!(space.take_together(4), Ok(vec![8..12]));
        assert_eq!(space.take_together(11), Ok(vec![2..5, 20..28]));
        assert_eq!(space.into_ranges(), [28..30]);
    }
}
