//! A block: its codes, their description, and the bits of it all.
//!
//! Source: RFC 1951, sections 3.2.3 to 3.2.7.

use std::ops::Range;

use super::MOST_BYTES;
use super::huffman::{Code, codes, lengths};
use super::split::Span;
use super::symbols::{
    Counts, DISTANCE_SLOT, DISTANCE_SYMBOLS, DISTANCES, END_OF_BLOCK, FIRST_LENGTH, ITEMS,
    LENGTH_SLOT, LENGTHS, LITERAL_SYMBOLS, Token,
};

/// Longest code of literals and distances, and of code lengths.
const LONGEST: usize = 15;
const LONGEST_OF_LENGTHS: usize = 7;
/// Symbols of code lengths.
const LENGTH_SYMBOLS: usize = 19;
/// The order in which the lengths of their codes are written.
const LENGTH_ORDER: [usize; LENGTH_SYMBOLS] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];
/// Bytes of the longest stored block.
const MOST_STORED: usize = 65_535;

/// A block of which every bit is decided.
#[derive(Debug)]
pub(super) struct Block<'a> {
    tokens: &'a [Token],
    bytes: Range<usize>,
    kind: Kind,
    bits: u64,
}

#[derive(Debug)]
enum Kind {
    Stored,
    Dynamic(Box<Dynamic>),
}

/// The codes of a block, and how they are described.
#[derive(Debug)]
struct Dynamic {
    literals: [Code; LITERAL_SYMBOLS],
    distances: [Code; DISTANCE_SYMBOLS],
    description: Description,
}

/// Lengths of codes, run-length coded.
#[derive(Debug)]
struct Description {
    literal_count: usize,
    distance_count: usize,
    /// Symbol and value of the extra bits.
    runs: Vec<(u8, u8)>,
    codes: [Code; LENGTH_SYMBOLS],
    code_count: usize,
}

impl<'a> Block<'a> {
    pub(super) fn plan(tokens: &'a [Token], span: &Span) -> Self {
        let bytes = span.bytes.clone();
        let dynamic = Dynamic::plan(&span.counts);
        let coded = 3 + dynamic.description.bits() + dynamic.symbol_bits(&span.counts);
        let stored = 3 + 32 + 8 * bytes.len() as u64;
        if stored < coded && bytes.len() <= MOST_STORED {
            return Self {
                tokens,
                bytes,
                kind: Kind::Stored,
                bits: stored,
            };
        }
        Self {
            tokens,
            bytes,
            kind: Kind::Dynamic(Box::new(dynamic)),
            bits: coded,
        }
    }

    /// Its length; a stored block needs up to seven more to begin on a byte.
    pub(super) fn bits(&self) -> u64 {
        self.bits
    }

    pub(super) fn write(&self, writer: &mut BitWriter, input: &[u8], is_last: bool) {
        writer.put(u64::from(is_last), 1);
        match &self.kind {
            Kind::Stored => {
                writer.put(0, 2);
                writer.store(&input[self.bytes.clone()]);
            }
            Kind::Dynamic(dynamic) => {
                writer.put(2, 2);
                dynamic.description.write(writer);
                dynamic.write(writer, self.tokens);
            }
        }
    }
}

impl Dynamic {
    fn plan(counts: &Counts) -> Self {
        let literals = lengths(&counts.literals, LONGEST);
        let distances = lengths(&counts.distances, LONGEST);
        Self {
            description: Description::plan(&literals, &distances),
            literals: codes(&literals),
            distances: codes(&distances),
        }
    }

    /// Bits of all symbols with their extra bits.
    fn symbol_bits(&self, counts: &Counts) -> u64 {
        let sum = |counts: &[u16], codes: &[Code]| -> u64 {
            let each = counts.iter().zip(codes);
            each.map(|(count, code)| u64::from(*count) * u64::from(code.length))
                .sum()
        };
        let extra_of_lengths = counts.literals[END_OF_BLOCK + 1..].iter().zip(&LENGTHS);
        let extra_of_distances = counts.distances.iter().zip(&DISTANCES);
        let extra: u64 = extra_of_lengths
            .map(|(count, (_, extra))| u64::from(*count) * u64::from(*extra))
            .chain(
                extra_of_distances.map(|(count, (_, extra))| u64::from(*count) * u64::from(*extra)),
            )
            .sum();
        sum(&counts.literals, &self.literals) + sum(&counts.distances, &self.distances) + extra
    }

    fn write(&self, writer: &mut BitWriter, tokens: &[Token]) {
        let items = self.by_item();
        let distances = self.by_distance_slot();
        for token in tokens {
            let item = items[token.item()];
            let distance = token.distance();
            let slot = &distances[usize::from(DISTANCE_SLOT[distance]) % 32];
            let rest = (distance as u64).wrapping_sub(slot.first);
            let tail = u64::from(slot.bits) | rest << slot.length;
            let bits = u64::from(item.bits) | tail << item.length;
            writer.put(bits, item.length.wrapping_add(slot.all));
        }
        let end = self.literals[END_OF_BLOCK];
        writer.put(end.bits.into(), end.length.into());
    }

    /// Code and extra bits of every item.
    fn by_item(&self) -> [ItemBits; ITEMS] {
        let mut table = [ItemBits::default(); ITEMS];
        let (literals, lengths) = table.split_at_mut(FIRST_LENGTH);
        for (item, code) in literals.iter_mut().zip(&self.literals) {
            item.bits = code.bits.into();
            item.length = code.length.into();
        }
        for (length, item) in (0_u32..).zip(lengths) {
            let slot = usize::from(LENGTH_SLOT[length as usize]);
            let (first, extra) = LENGTHS[slot];
            let code = self.literals[END_OF_BLOCK + 1 + slot];
            item.bits = u32::from(code.bits) | (length - u32::from(first)) << code.length;
            item.length = u32::from(code.length) + u32::from(extra);
        }
        table
    }

    /// The code of every distance slot; of [`NO_DISTANCE`](super::symbols::NO_DISTANCE): no bits.
    fn by_distance_slot(&self) -> [SlotBits; 32] {
        let mut table = [SlotBits::default(); 32];
        let slots = table.iter_mut().zip(&self.distances).zip(&DISTANCES);
        for ((slot, code), (first, extra)) in slots {
            *slot = SlotBits {
                first: u64::from(*first),
                bits: code.bits.into(),
                length: code.length.into(),
                all: u32::from(code.length) + u32::from(*extra),
            };
        }
        table
    }
}

/// What is written for an item.
#[derive(Debug, Clone, Copy, Default)]
struct ItemBits {
    bits: u32,
    length: u32,
}

/// What is written for a distance slot, before the extra bits.
#[derive(Debug, Clone, Copy, Default)]
struct SlotBits {
    /// The distance of which the extra bits are 0.
    first: u64,
    bits: u32,
    length: u32,
    /// Bits of the code and extra bits.
    all: u32,
}

impl Description {
    fn plan(literals: &[u8; LITERAL_SYMBOLS], distances: &[u8; DISTANCE_SYMBOLS]) -> Self {
        let up_to = |lengths: &[u8], least: usize| {
            let last = lengths.iter().rposition(|length| *length != 0);
            last.map_or(0, |last| last + 1).max(least)
        };
        let (literal_count, distance_count) = (up_to(literals, 257), up_to(distances, 1));
        let all = [&literals[..literal_count], &distances[..distance_count]].concat();
        let runs = runs(&all);
        let mut counts = [0_u16; LENGTH_SYMBOLS];
        for (symbol, _) in &runs {
            counts[usize::from(*symbol)] += 1;
        }
        let lengths = lengths(&counts, LONGEST_OF_LENGTHS);
        let code_count = LENGTH_ORDER
            .iter()
            .rposition(|symbol| lengths[*symbol] != 0)
            .map_or(4, |last| (last + 1).max(4));
        Self {
            literal_count,
            distance_count,
            runs,
            codes: codes(&lengths),
            code_count,
        }
    }

    fn bits(&self) -> u64 {
        let runs = self.runs.iter();
        let runs: u64 = runs
            .map(|(symbol, _)| u64::from(self.code(*symbol).length) + extra_bits(*symbol))
            .sum();
        5 + 5 + 4 + 3 * self.code_count as u64 + runs
    }

    fn code(&self, symbol: u8) -> Code {
        self.codes[usize::from(symbol)]
    }

    fn write(&self, writer: &mut BitWriter) {
        writer.put(self.literal_count as u64 - 257, 5);
        writer.put(self.distance_count as u64 - 1, 5);
        writer.put(self.code_count as u64 - 4, 4);
        for symbol in &LENGTH_ORDER[..self.code_count] {
            writer.put(self.codes[*symbol].length.into(), 3);
        }
        for (symbol, extra) in &self.runs {
            let code = self.code(*symbol);
            writer.put(code.bits.into(), code.length.into());
            let count = u32::try_from(extra_bits(*symbol)).expect("at most 7");
            writer.put((*extra).into(), count);
        }
    }
}

/// Extra bits of a symbol of code lengths.
fn extra_bits(symbol: u8) -> u64 {
    match symbol {
        16 => 2,
        17 => 3,
        18 => 7,
        _ => 0,
    }
}

/// Lengths as symbols: 16 repeats the last 3 to 6 times, 17 and 18 are 3 to
/// 10 and 11 to 138 zeros.
fn runs(lengths: &[u8]) -> Vec<(u8, u8)> {
    let mut runs = Vec::with_capacity(lengths.len());
    for group in lengths.chunk_by(|a, b| a == b) {
        let value = group[0];
        let mut left = group.len();
        if value != 0 {
            runs.push((value, 0));
            left -= 1;
        }
        while left > 0 {
            let (symbol, least, most) = match (value, left) {
                (_, 1..=2) => (value, 1, 1),
                (0, 3..=10) => (17, 3, 10),
                (0, _) => (18, 11, 138),
                _ => (16, 3, 6),
            };
            let count = left.min(most);
            let extra = u8::try_from(count - least).expect("at most 127");
            runs.push((symbol, extra));
            left -= count;
        }
    }
    runs
}

/// Collects bits, lowest first, into at most [`MOST_BYTES`] bytes.
pub(super) struct BitWriter {
    bytes: Box<[u8]>,
    /// Whole bytes written.
    at: usize,
    /// Bits not written yet: fewer than eight between calls.
    waiting: u64,
    count: u32,
}

impl std::fmt::Debug for BitWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BitWriter({} bytes)", self.at)
    }
}

impl BitWriter {
    pub(super) fn new() -> Self {
        Self {
            // Eight bytes are written at once.
            bytes: vec![0; MOST_BYTES + 8].into(),
            at: 0,
            waiting: 0,
            count: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        (self.at, self.waiting, self.count) = (0, 0, 0);
    }

    /// Appends the low `count` bits of `bits`, at most 56; the others are 0.
    #[inline]
    fn put(&mut self, bits: u64, count: u32) {
        self.waiting |= bits << self.count;
        self.count = self.count.wrapping_add(count);
        let room = self.bytes[self.at..].first_chunk_mut();
        *room.expect("the stream is smaller than the input") = self.waiting.to_le_bytes();
        let whole = self.count / 8;
        self.at = self.at.wrapping_add(whole as usize);
        self.waiting >>= whole * 8;
        self.count %= 8;
    }

    /// Goes on to the next byte and appends the length of `bytes`, its
    /// complement, and `bytes`.
    fn store(&mut self, bytes: &[u8]) {
        self.put(0, (8 - self.count) % 8);
        let length = u16::try_from(bytes.len()).expect("at most 65,535");
        self.put(length.into(), 16);
        self.put((!length).into(), 16);
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// All bytes; the last one is filled up with zeros.
    pub(super) fn finish(&mut self) -> &[u8] {
        self.put(0, (8 - self.count) % 8);
        &self.bytes[..self.at]
    }
}
