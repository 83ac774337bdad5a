//! Deflate for clusters: at most 64 KiB at a time, no distance above 4,095.
//!
//! In: the bytes of a cluster. Out: one raw deflate stream (RFC 1951), or the
//! word that there is none that is smaller. Never here: windows that slide,
//! streams in pieces, checksums. Checked by: zlib's inflate with a window of
//! 4 KiB, random and hand-made inputs, QEMU's reader.
//!
//! Why not a library: qcow2's readers keep a window of 4 KiB, which leaves
//! zlib and its translations. Made for this one size and window, without
//! state between calls, the work is done in well under half of zlib's time for
//! the same size, and the bytes of an image do not change when a dependency
//! does.
//!
//! A cluster is parsed once into literals and matches (`parse.rs`), the
//! symbols are cut into blocks where their statistics change (`split.rs`),
//! and each block gets its own Huffman codes (`huffman.rs`, `block.rs`).

mod block;
mod huffman;
mod parse;
mod split;
mod symbols;

use block::{BitWriter, Block};
use parse::Parser;
use symbols::Token;

/// Changes whenever other bytes come out, so that nothing packed before is
/// taken for the same.
pub(super) const VERSION: u32 = 2;

/// Bytes that one call can pack.
pub(super) const MOST_BYTES: usize = 65_536;

/// Working memory for one call after another.
#[derive(Debug)]
pub(super) struct Deflater {
    parser: Parser,
    tokens: Vec<Token>,
    writer: BitWriter,
}

impl Deflater {
    pub(super) fn new() -> Self {
        Self {
            parser: Parser::new(),
            tokens: Vec::with_capacity(MOST_BYTES),
            writer: BitWriter::new(),
        }
    }

    /// `input`, at most [`MOST_BYTES`], as a deflate stream. `None` when that
    /// is not smaller than `input`.
    pub(super) fn pack(&mut self, input: &[u8]) -> Option<&[u8]> {
        self.tokens.clear();
        self.parser.parse(input, &mut self.tokens);
        let blocks: Vec<Block> = split::blocks(&self.tokens)
            .into_iter()
            .map(|span| Block::plan(&self.tokens[span.tokens.clone()], &span))
            .collect();
        // Each stored block may need seven bits more to begin on a byte.
        let bits: u64 = blocks.iter().map(|block| block.bits() + 7).sum();
        if bits.div_ceil(8) >= input.len() as u64 {
            return None;
        }
        self.writer.clear();
        let last = blocks.len() - 1;
        for (number, block) in blocks.iter().enumerate() {
            block.write(&mut self.writer, input, number == last);
        }
        Some(self.writer.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use flate2::{Decompress, FlushDecompress, Status};
    use proptest::prelude::*;

    /// zlib's reader with a window of 4 KiB.
    fn unpack(packed: &[u8], length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut inflate = Decompress::new_with_window_bits(false, 12);
        let status = inflate.decompress(packed, &mut bytes, FlushDecompress::Finish);
        assert_eq!(status.expect("a sound stream"), Status::StreamEnd);
        assert_eq!(
            inflate.total_in(),
            packed.len() as u64,
            "nothing behind the end"
        );
        assert_eq!(inflate.total_out(), length as u64);
        bytes
    }

    fn noise(seed: u64) -> impl Iterator<Item = u8> {
        std::iter::successors(Some(seed | 1), |state| {
            let state = state ^ (state << 13);
            let state = state ^ (state >> 7);
            Some(state ^ (state << 17))
        })
        .map(|state| state.to_le_bytes()[3])
    }

    /// Text-like, code-like and noisy stretches, 64 KiB of them.
    fn mixed() -> Vec<u8> {
        let mut bytes = b"The quick brown fox; the lazy dog. ".repeat(400);
        bytes.extend(noise(5).take(9_000));
        bytes.extend(noise(6).take(20_000).map(|byte| byte % 13));
        bytes.extend((0..9_000_u32).flat_map(|n| (n / 7).to_le_bytes()));
        bytes.truncate(MOST_BYTES);
        bytes
    }

    #[test]
    fn what_is_packed_unpacks() {
        let mut deflater = Deflater::new();
        let inputs = [
            mixed(),
            vec![0; MOST_BYTES],
            vec![0xff; 65_535],
            b"abcd".repeat(16_384),
            noise(3).take(MOST_BYTES).map(|byte| byte & 1).collect(),
            // Twice the same noise, just inside and just outside of the window.
            noise(4).take(4_095).collect::<Vec<_>>().repeat(16),
            noise(4).take(4_097).collect::<Vec<_>>().repeat(3),
        ];
        for (number, input) in inputs.iter().enumerate() {
            match deflater.pack(input) {
                Some(packed) => {
                    assert!(packed.len() < input.len());
                    assert!(unpack(packed, input.len()) == *input, "input {number}");
                }
                None => assert_eq!(number, 6, "only far repetitions do not pack"),
            }
        }
    }

    #[test]
    fn what_does_not_get_smaller_is_refused() {
        let mut deflater = Deflater::new();
        let bytes: Vec<u8> = noise(7).take(MOST_BYTES).collect();
        assert_eq!(deflater.pack(&bytes), None);
        assert_eq!(deflater.pack(&[]), None);
        assert_eq!(deflater.pack(b"a"), None);
        assert!(deflater.pack(&[b'a'; 40]).is_some());
    }

    #[test]
    fn noise_in_text_is_stored() {
        let mut bytes = b"all work and no play ".repeat(1_000);
        bytes.extend(noise(9).take(30_000));
        let mut deflater = Deflater::new();
        let packed = deflater.pack(&bytes).expect("the text gets smaller");
        assert!(packed.len() < 30_700, "{} bytes", packed.len());
        assert_eq!(unpack(packed, bytes.len()), bytes);
    }

    #[test]
    fn the_same_bytes_come_out_for_ever() {
        let mut deflater = Deflater::new();
        let packed = deflater.pack(&mixed()).expect("it gets smaller");
        let digest = Digest::of(packed).to_string();
        // When this changes, so must VERSION.
        assert_eq!((VERSION, packed.len()), (2, 21_302));
        assert_eq!(
            digest,
            "sha256:c6627ac188b4c3da25827e833621a612ec80d50e5790c36ac8d4b6a8a8a5822b"
        );
    }

    #[test]
    fn earlier_inputs_do_not_show() {
        let mut used = Deflater::new();
        used.pack(&vec![9; MOST_BYTES]);
        used.pack(&b"xyz".repeat(9_000));
        let mut new = Deflater::new();
        assert_eq!(used.pack(&mixed()), new.pack(&mixed()));
        assert_eq!(used.pack(&mixed()[..5_000]), new.pack(&mixed()[..5_000]));
    }

    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = (0_u8..5, 1_usize..9_000, any::<u64>(), 1_usize..700);
        proptest::collection::vec(piece, 1..12).prop_map(|pieces| {
            let mut bytes: Vec<u8> = Vec::new();
            for (kind, length, seed, period) in pieces {
                match kind {
                    0 => bytes.extend(noise(seed).take(length)),
                    1 => bytes.extend(std::iter::repeat_n(seed.to_le_bytes()[0], length)),
                    2 => bytes.extend(noise(seed).take(length).map(|byte| byte % 5 + b'a')),
                    3 => bytes.extend(
                        noise(seed)
                            .take(period)
                            .collect::<Vec<_>>()
                            .repeat(length / period),
                    ),
                    _ => {
                        let from = bytes.len().saturating_sub(period * 7);
                        let copy: Vec<u8> = bytes[from..].iter().take(length).copied().collect();
                        bytes.extend(copy);
                    }
                }
            }
            bytes.truncate(MOST_BYTES);
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
        #[test]
        fn random_pieces_survive(bytes in pieces()) {
            let mut deflater = Deflater::new();
            if let Some(packed) = deflater.pack(&bytes) {
                prop_assert!(packed.len() < bytes.len());
                prop_assert!(unpack(packed, bytes.len()) == bytes);
            }
        }

        #[test]
        fn small_inputs_survive(bytes in proptest::collection::vec(0_u8..3, 0..300)) {
            let mut deflater = Deflater::new();
            if let Some(packed) = deflater.pack(&bytes) {
                prop_assert_eq!(unpack(packed, bytes.len()), bytes);
            }
        }
    }
}
