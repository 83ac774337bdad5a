//! The symbols of deflate: literals, lengths and distances.
//!
//! Source: RFC 1951, section 3.2.5.

/// Literals, the end of a block, and lengths.
pub(super) const LITERAL_SYMBOLS: usize = 286;
/// Distances.
pub(super) const DISTANCE_SYMBOLS: usize = 30;
/// Ends a block.
pub(super) const END_OF_BLOCK: usize = 256;
/// Shortest and longest match.
pub(super) const LEAST_MATCH: usize = 3;
pub(super) const MOST_MATCH: usize = 258;
/// Farthest match. QEMU keeps 4,096 bytes.
pub(super) const MOST_DISTANCE: usize = 4_095;
/// Slot of the distance 0, which literals have.
pub(super) const NO_DISTANCE: usize = DISTANCE_SYMBOLS;

/// A literal, or a match of some length at some distance.
///
/// Bits 16 to 24 are the *item*: the byte of a literal, or 256 and the length
/// of a match less 3. Bits 0 to 11 are the distance of a match, and 0 for a
/// literal. So both are written and counted in the same way, without a branch
/// that no processor can foresee.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Token(u32);

/// Number of items.
pub(super) const ITEMS: usize = 512;
/// The first item that is a length.
pub(super) const FIRST_LENGTH: usize = 256;

impl Token {
    pub(super) fn literal(byte: u8) -> Self {
        Self(u32::from(byte) << 16)
    }

    /// `length` of 3 to 258, `distance` of 1 to 4,095.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "both fit by the rule above"
    )]
    pub(super) fn of_match(length: usize, distance: usize) -> Self {
        let item = length.wrapping_sub(LEAST_MATCH).wrapping_add(FIRST_LENGTH);
        Self((item as u32) << 16 | distance as u32)
    }

    /// 0 to 511.
    pub(super) fn item(self) -> usize {
        (self.0 >> 16 & 0x1ff) as usize
    }

    /// 0 to 4,095.
    pub(super) fn distance(self) -> usize {
        (self.0 & 0xfff) as usize
    }

    /// Bytes that it stands for.
    pub(super) fn covers(self) -> usize {
        match self.item() {
            0..FIRST_LENGTH => 1,
            item => item - FIRST_LENGTH + LEAST_MATCH,
        }
    }
}

/// Symbol of a length less 3, counted from 257.
pub(super) const LENGTH_SLOT: [u8; 256] = slots_of_lengths();
/// First length less 3 of each slot, and its extra bits.
pub(super) const LENGTHS: [(u8, u8); 29] = length_ranges();
/// Symbol of a distance; of 0: [`NO_DISTANCE`].
pub(super) static DISTANCE_SLOT: [u8; MOST_DISTANCE + 1] = slots_of_distances();
/// First distance of each slot, and its extra bits.
pub(super) const DISTANCES: [(u16, u8); DISTANCE_SYMBOLS] = distance_ranges();

#[expect(clippy::cast_possible_truncation, reason = "at most 255")]
const fn length_ranges() -> [(u8, u8); 29] {
    let mut ranges = [(0, 0); 29];
    let (mut slot, mut first) = (0, 0_u16);
    while slot < 28 {
        // Four slots for each number of extra bits, from the ninth slot on.
        let extra = if slot < 8 { 0 } else { (slot as u8 - 4) / 4 };
        ranges[slot] = (first as u8, extra);
        first += 1 << extra;
        slot += 1;
    }
    // Length 258 has a slot of its own.
    ranges[28] = (255, 0);
    ranges
}

#[expect(clippy::cast_possible_truncation, reason = "at most 28")]
const fn slots_of_lengths() -> [u8; 256] {
    let ranges = length_ranges();
    let mut slots = [0; 256];
    let (mut length, mut slot) = (0, 0);
    while length < 255 {
        if slot < 27 && length == ranges[slot + 1].0 as usize {
            slot += 1;
        }
        slots[length] = slot as u8;
        length += 1;
    }
    slots[255] = 28;
    slots
}

#[expect(clippy::cast_possible_truncation, reason = "at most 29")]
const fn distance_ranges() -> [(u16, u8); DISTANCE_SYMBOLS] {
    let mut ranges = [(0, 0); DISTANCE_SYMBOLS];
    let (mut slot, mut first) = (0, 1_u16);
    while slot < DISTANCE_SYMBOLS {
        let extra = if slot < 4 { 0 } else { (slot as u8 - 2) / 2 };
        ranges[slot] = (first, extra);
        first = first.wrapping_add(1 << extra);
        slot += 1;
    }
    ranges
}

#[expect(clippy::cast_possible_truncation, reason = "at most 30")]
const fn slots_of_distances() -> [u8; MOST_DISTANCE + 1] {
    let ranges = distance_ranges();
    let mut slots = [0; MOST_DISTANCE + 1];
    slots[0] = NO_DISTANCE as u8;
    let (mut distance, mut slot) = (1, 0);
    while distance <= MOST_DISTANCE {
        if distance == ranges[slot + 1].0 as usize {
            slot += 1;
        }
        slots[distance] = slot as u8;
        distance += 1;
    }
    slots
}

/// How often each symbol comes.
#[derive(Debug, Clone)]
pub(super) struct Counts {
    pub literals: [u16; LITERAL_SYMBOLS],
    pub distances: [u16; DISTANCE_SYMBOLS],
}

impl Counts {
    /// At most 65,535 tokens.
    pub(super) fn of(tokens: &[Token]) -> Self {
        let mut items = [0_u16; ITEMS];
        let mut slots = [0_u16; 32];
        for token in tokens {
            let item = &mut items[token.item()];
            *item = item.wrapping_add(1);
            let slot = usize::from(DISTANCE_SLOT[token.distance()]);
            let slot = &mut slots[slot % 32];
            *slot = slot.wrapping_add(1);
        }
        let mut counts = Self {
            literals: [0; LITERAL_SYMBOLS],
            distances: [0; DISTANCE_SYMBOLS],
        };
        counts.literals[..FIRST_LENGTH].copy_from_slice(&items[..FIRST_LENGTH]);
        for (slot, count) in LENGTH_SLOT.iter().zip(&items[FIRST_LENGTH..]) {
            counts.literals[END_OF_BLOCK + 1 + usize::from(*slot)] += count;
        }
        counts.distances.copy_from_slice(&slots[..DISTANCE_SYMBOLS]);
        counts
    }

    /// The counts of both together.
    pub(super) fn with(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        for (mine, theirs) in sum.literals.iter_mut().zip(&other.literals) {
            *mine += theirs;
        }
        for (mine, theirs) in sum.distances.iter_mut().zip(&other.distances) {
            *mine += theirs;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_those_of_the_rfc() {
        let length = |length: usize| usize::from(LENGTH_SLOT[length - 3]) + 257;
        let symbols = [3, 10, 11, 12, 13, 34, 35, 257, 258].map(length);
        assert_eq!(symbols, [257, 264, 265, 265, 266, 272, 273, 284, 285]);
        assert_eq!(LENGTHS[8], (8, 1));
        assert_eq!(LENGTHS[27], (224, 5));
        let symbols = [1, 4, 5, 6, 7, 256, 257, 4_095].map(|distance| DISTANCE_SLOT[distance]);
        assert_eq!(symbols, [0, 3, 4, 4, 5, 15, 16, 23]);
        assert_eq!(DISTANCES[29], (24_577, 13));
    }

    #[test]
    fn tokens_say_what_they_were_made_of() {
        let token = Token::of_match(258, 4_095);
        assert_eq!((token.covers(), token.distance()), (258, 4_095));
        assert_eq!(Token::of_match(3, 1).item(), FIRST_LENGTH);
        let token = Token::literal(255);
        assert_eq!(
            (token.item(), token.covers(), token.distance()),
            (255, 1, 0)
        );
    }

    #[test]
    fn counts_are_by_symbol() {
        let tokens = [
            Token::literal(7),
            Token::of_match(11, 5),
            Token::of_match(12, 6),
        ];
        let counts = Counts::of(&tokens);
        assert_eq!((counts.literals[7], counts.literals[265]), (1, 2));
        assert_eq!(counts.distances[4], 2);
        assert_eq!(counts.with(&counts).distances[4], 4);
    }
}
