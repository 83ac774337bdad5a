//! From bytes to literals and matches.
//!
//! The last two positions with the same hash of four bytes are looked at
//! together, without a branch between them: in a window of 4 KiB that finds
//! most of what long chains find. Then one step of laziness: a short match
//! gives way to a better one that starts at the next byte.

use super::MOST_BYTES;
use super::symbols::{LEAST_MATCH, MOST_DISTANCE, MOST_MATCH, Token};

/// Length of the text buffer: positions are masked into it, so that the
/// compiler sees that every load is inside. Behind the input it is zero.
const TEXT: usize = 2 * MOST_BYTES + 8;
const TEXT_MASK: usize = 2 * MOST_BYTES - 1;
/// Buckets of positions by their first four bytes, and slots by three.
const BUCKET_BITS: u32 = 13;
const SHORT_BITS: u32 = 12;

/// A match of this length is not compared with the next position's.
const LAZY_BELOW: usize = 8;
/// Farthest match of three bytes that is worth it.
const SHORT_DISTANCE: usize = 1_024;
/// Of a match longer than this, only the last positions are remembered.
const REMEMBER: usize = 96;

/// A repetition of earlier bytes.
#[derive(Debug, Clone, Copy)]
struct Match {
    length: usize,
    distance: usize,
}

/// Working memory of the parser.
pub(super) struct Parser {
    text: Box<[u8; TEXT]>,
    /// The last two positions by their first four bytes, the newer one lower;
    /// 0 is none, so position 0 is never found.
    buckets: Box<[u32; 1 << BUCKET_BITS]>,
    /// The last position by its first three bytes.
    short: Box<[u16; 1 << SHORT_BITS]>,
}

impl std::fmt::Debug for Parser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parser(..)")
    }
}

impl Parser {
    pub(super) fn new() -> Self {
        Self {
            text: boxed(),
            buckets: boxed(),
            short: boxed(),
        }
    }

    /// Appends the tokens of `input`, at most [`MOST_BYTES`].
    pub(super) fn parse(&mut self, input: &[u8], tokens: &mut Vec<Token>) {
        let end = input.len();
        self.text[..end].copy_from_slice(input);
        self.text[end..end + MOST_MATCH + 8].fill(0);
        self.buckets.fill(0);
        self.short.fill(0);
        let mut at = 0;
        while at < end {
            let Some(mut found) = self.search(at, end) else {
                tokens.push(Token::literal(self.byte(at)));
                at += 1;
                continue;
            };
            // The next position that is not remembered yet.
            let mut fresh = at + 1;
            while found.length < LAZY_BELOW && fresh < end {
                let next = self.search(fresh, end);
                fresh += 1;
                match next {
                    Some(next) if is_better(next, found) => {
                        tokens.push(Token::literal(self.byte(at)));
                        at += 1;
                        found = next;
                    }
                    _ => break,
                }
            }
            tokens.push(Token::of_match(found.length, found.distance));
            at += found.length;
            self.remember(fresh.max(at.saturating_sub(REMEMBER))..at);
        }
    }

    fn byte(&self, at: usize) -> u8 {
        self.text[at & TEXT_MASK]
    }

    fn load8(&self, at: usize) -> u64 {
        let at = at & TEXT_MASK;
        let bytes: &[u8; 8] = self.text[at..at + 8].first_chunk().expect("eight bytes");
        u64::from_le_bytes(*bytes)
    }

    /// Puts position `at`, where `here` is, into its tables; returns what was there.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
    fn insert(&mut self, at: usize, here: u64) -> (u32, usize) {
        let slot = (here as u32).wrapping_mul(0x9e37_79b1) >> (32 - BUCKET_BITS);
        let bucket = &mut self.buckets[slot as usize];
        let older = *bucket;
        *bucket = older << 16 | (at as u32 & 0xffff);
        let slot = (here as u32) << 8;
        let slot = slot.wrapping_mul(0x9e37_79b1) >> (32 - SHORT_BITS);
        let slot = &mut self.short[slot as usize];
        let short = std::mem::replace(slot, at as u16);
        (older, short.into())
    }

    fn remember(&mut self, positions: std::ops::Range<usize>) {
        for at in positions {
            let here = self.load8(at);
            self.insert(at, here);
        }
    }

    /// The longest match at `at`. Remembers `at`.
    #[inline]
    fn search(&mut self, at: usize, end: usize) -> Option<Match> {
        let here = self.load8(at);
        let (older, short) = self.insert(at, here);
        let (newer, older) = ((older & 0xffff) as usize, (older >> 16) as usize);
        let (first, second) = (self.equal(at, here, newer), self.equal(at, here, older));
        let most = MOST_MATCH.min(end.wrapping_sub(at));
        let (length, position) = if second > first {
            (second, older)
        } else {
            (first, newer)
        };
        if length < 4 {
            return self.short_match(at, here, short, most);
        }
        let mut found = Match {
            length,
            distance: at.wrapping_sub(position),
        };
        if length == 8 {
            found.length = self.length(at, position, most);
            if first == 8 && second == 8 && found.length < most {
                let length = self.length(at, older, most);
                if length > found.length {
                    found = Match {
                        length,
                        distance: at.wrapping_sub(older),
                    };
                }
            }
        }
        found.length = found.length.min(most);
        (found.length >= LEAST_MATCH).then_some(found)
    }

    /// How many of the eight bytes `here` at `at` are the same at `position`,
    /// from the first on; 0 when that is too far or no position.
    #[inline]
    fn equal(&self, at: usize, here: u64, position: usize) -> usize {
        let equal = (self.load8(position) ^ here).trailing_zeros() / 8;
        let near = position != 0 && at.wrapping_sub(position) <= MOST_DISTANCE;
        if near { equal as usize } else { 0 }
    }

    /// A match of three bytes, if it is near.
    #[inline]
    fn short_match(&self, at: usize, here: u64, older: usize, most: usize) -> Option<Match> {
        let distance = at.wrapping_sub(older);
        let near = older != 0 && distance <= SHORT_DISTANCE && most >= LEAST_MATCH;
        let same = (self.load8(older) ^ here).trailing_zeros() >= 24;
        (near && same).then_some(Match {
            length: LEAST_MATCH,
            distance,
        })
    }

    /// How many bytes are the same at `at` and `older`, at most `most`. The
    /// first eight are.
    fn length(&self, at: usize, older: usize, most: usize) -> usize {
        let mut length = 8;
        while length < most {
            let differs =
                self.load8(at.wrapping_add(length)) ^ self.load8(older.wrapping_add(length));
            if differs != 0 {
                length += (differs.trailing_zeros() / 8) as usize;
                break;
            }
            length += 8;
        }
        length.min(most)
    }
}

/// Whether `next`, which costs a literal more, is worth it.
fn is_better(next: Match, found: Match) -> bool {
    let score = |one: Match| 4 * one.length + 16 - one.distance.ilog2() as usize;
    score(next) > score(found) + 2
}

fn boxed<T: Copy + Default, const N: usize>() -> Box<[T; N]> {
    vec![T::default(); N]
        .into_boxed_slice()
        .try_into()
        .ok()
        .expect("as long as it was made")
}
