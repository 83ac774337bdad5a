//! Where one block ends and the next begins.
//!
//! Symbols are counted in chunks. A chunk joins the block before it unless
//! two sets of codes, the second with its description, would be shorter.

use std::ops::Range;

use super::symbols::{Counts, DISTANCE_SYMBOLS, END_OF_BLOCK, LITERAL_SYMBOLS, Token};

/// Tokens in a chunk.
const CHUNK: usize = 1024;
/// What the description of the codes of a block costs, in bits, besides the
/// symbols in it.
const DESCRIPTION: u64 = 120;
/// And for each symbol in it.
const DESCRIPTION_PER_SYMBOL: u64 = 3;

/// The tokens of a block, what they stand for, and how often each comes.
#[derive(Debug)]
pub(super) struct Span {
    pub tokens: Range<usize>,
    pub bytes: Range<usize>,
    pub counts: Counts,
}

/// At least one block; all of them in order.
pub(super) fn blocks(tokens: &[Token]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut open = Span {
        tokens: 0..0,
        bytes: 0..0,
        counts: Counts::of(&[]),
    };
    let mut open_bits = 0;
    for chunk in tokens.chunks(CHUNK) {
        let counts = Counts::of(chunk);
        let joined = open.counts.with(&counts);
        let (bits, joined_bits) = (estimate(&counts), estimate(&joined));
        let tokens_end = open.tokens.end + chunk.len();
        let bytes_end = open.bytes.end + chunk.iter().map(|token| token.covers()).sum::<usize>();
        if open.tokens.is_empty() || joined_bits <= open_bits + bits {
            open.tokens.end = tokens_end;
            open.bytes.end = bytes_end;
            open.counts = joined;
            open_bits = joined_bits;
        } else {
            let next = Span {
                tokens: open.tokens.end..tokens_end,
                bytes: open.bytes.end..bytes_end,
                counts,
            };
            spans.push(std::mem::replace(&mut open, next));
            open_bits = bits;
        }
    }
    spans.push(open);
    for span in &mut spans {
        span.counts.literals[END_OF_BLOCK] = 1;
    }
    spans
}

/// Bits of a block with these symbols, in theory, without extra bits.
fn estimate(counts: &Counts) -> u64 {
    let literals = entropy::<LITERAL_SYMBOLS>(&counts.literals);
    let distances = entropy::<DISTANCE_SYMBOLS>(&counts.distances);
    DESCRIPTION + literals + distances
}

/// Bits of symbols with these counts under ideal codes, and their description.
fn entropy<const N: usize>(counts: &[u16; N]) -> u64 {
    let (mut total, mut weighted, mut used) = (0_u64, 0_u64, 0_u64);
    for count in counts {
        let count = u64::from(*count);
        total += count;
        weighted += count * log2(count);
        used += u64::from(count != 0);
    }
    (total * log2(total) - weighted) / 256 + used * DESCRIPTION_PER_SYMBOL
}

/// The logarithm to base 2 in units of 1/256, from below; of 0: 0.
fn log2(value: u64) -> u64 {
    let Some(whole) = value.checked_ilog2() else {
        return 0;
    };
    // The eight bits after the leading one, and how far the curve bulges over the chord.
    let fraction = (value << 16 >> whole) >> 8 & 0xff;
    let bulge = fraction * (256 - fraction) * 88 / (256 * 256);
    u64::from(whole) * 256 + fraction + bulge
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_near_enough() {
        for value in 1..70_000_u64 {
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let exact = (value as f64).log2() * 256.0;
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let error = (log2(value) as f64 - exact).abs();
            assert!(error < 5.0, "log2({value}) is off by {error}/256");
        }
    }

    #[test]
    fn spans_cover_all_tokens_and_split_where_symbols_change() {
        let mut tokens = vec![Token::literal(b'a'); 4 * CHUNK];
        let noisy = (0..=255_u8)
            .cycle()
            .step_by(7)
            .take(4 * CHUNK)
            .map(Token::literal);
        tokens.extend(noisy);
        let spans = blocks(&tokens);
        assert_eq!(spans.len(), 2);
        assert_eq!(spans[0].tokens, 0..4 * CHUNK);
        assert_eq!(spans[1].tokens, 4 * CHUNK..8 * CHUNK);
        assert_eq!(spans[1].bytes, 4 * CHUNK..8 * CHUNK);
    }
}
