//! Hands out free blocks, front to back.

use std::ops::Range;

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
}

impl FreeSpace {
    pub(super) fn new(mut ranges: Vec<Range<u64>>) -> Self {
        ranges.reverse();
        let left = ranges.iter().map(|range| range.end - range.start).sum();
        Self { ranges, left }
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

    /// What is left, ascending.
    pub(super) fn into_ranges(mut self) -> Vec<Range<u64>> {
        self.ranges.reverse();
        self.ranges
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
    fn one_piece_skips_places_that_are_too_small() {
        let mut space = FreeSpace::new(vec![2..5, 8..12, 20..30]);
        assert_eq!(space.take_together(4), Ok(vec![8..12]));
        assert_eq!(space.take_together(11), Ok(vec![2..5, 20..28]));
        assert_eq!(space.into_ranges(), [28..30]);
    }
}
