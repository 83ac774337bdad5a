//! `BLAKE2b` with 64 bytes of output and no key, which minisign hashes with.
//!
//! Source: RFC 7693, sections 2.4 to 3.3. One algorithm for one format: a
//! crate of its own would bring four more.

const IV: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

const SIGMA: [[usize; 16]; 10] = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
    [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
    [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
    [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
    [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
    [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
    [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
    [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
];

const BLOCK: usize = 128;

/// The digest of `message`.
pub fn digest(message: &[u8]) -> [u8; 64] {
    let mut state = IV;
    // Parameter block: 64 bytes of digest, no key, fanout and depth 1.
    state[0] ^= 0x0101_0040;
    let mut length = 0_u128;
    let mut blocks = message.chunks(BLOCK).peekable();
    if blocks.peek().is_none() {
        compress(&mut state, &[0; BLOCK], 0, true);
    }
    while let Some(chunk) = blocks.next() {
        let mut block = [0; BLOCK];
        for (byte, from) in block.iter_mut().zip(chunk) {
            *byte = *from;
        }
        length += chunk.len() as u128;
        compress(&mut state, &block, length, blocks.peek().is_none());
    }
    let mut out = [0; 64];
    for (bytes, word) in out.chunks_exact_mut(8).zip(state) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    out
}

fn compress(state: &mut [u64; 8], block: &[u8; BLOCK], length: u128, is_last: bool) {
    let mut words = [0_u64; 16];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(8)) {
        *word = u64::from_le_bytes(*bytes.as_array().expect("8 bytes"));
    }
    let mut v = [0_u64; 16];
    v[..8].copy_from_slice(state);
    v[8..].copy_from_slice(&IV);
    v[12] ^= u64::try_from(length & u128::from(u64::MAX)).expect("masked");
    v[13] ^= u64::try_from(length >> 64).expect("shifted");
    if is_last {
        v[14] = !v[14];
    }
    for round in 0..12 {
        let s = &SIGMA[round % 10];
        for (at, [a, b, c, d]) in [
            [0, 4, 8, 12],
            [1, 5, 9, 13],
            [2, 6, 10, 14],
            [3, 7, 11, 15],
            [0, 5, 10, 15],
            [1, 6, 11, 12],
            [2, 7, 8, 13],
            [3, 4, 9, 14],
        ]
        .into_iter()
        .enumerate()
        {
            mix(&mut v, [a, b, c, d], words[s[2 * at]], words[s[2 * at + 1]]);
        }
    }
    for (at, word) in state.iter_mut().enumerate() {
        *word ^= v[at] ^ v[at + 8];
    }
}

#[expect(clippy::many_single_char_names, reason = "the RFC's names")]
fn mix(v: &mut [u64; 16], [a, b, c, d]: [usize; 4], x: u64, y: u64) {
    v[a] = v[a].wrapping_add(v[b]).wrapping_add(x);
    v[d] = (v[d] ^ v[a]).rotate_right(32);
    v[c] = v[c].wrapping_add(v[d]);
    v[b] = (v[b] ^ v[c]).rotate_right(24);
    v[a] = v[a].wrapping_add(v[b]).wrapping_add(y);
    v[d] = (v[d] ^ v[a]).rotate_right(16);
    v[c] = v[c].wrapping_add(v[d]);
    v[b] = (v[b] ^ v[c]).rotate_right(63);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        let digits = |byte: &u8| [byte >> 4, byte & 15];
        let digit = |digit| char::from_digit(u32::from(digit), 16).expect("4 bits");
        bytes.iter().flat_map(digits).map(digit).collect()
    }

    #[test]
    fn it_has_the_vector_of_its_rfc() {
        assert_eq!(
            hex(&digest(b"abc")),
            "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1\
             7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923"
        );
    }

    #[test]
    fn block_boundaries_do_not_matter() {
        // From Python's hashlib.blake2b.
        for (length, start) in VECTORS {
            let message: Vec<u8> = (0..*length).map(|at: u32| at.to_le_bytes()[0]).collect();
            assert!(hex(&digest(&message)).starts_with(start), "{length}");
        }
    }

    const VECTORS: &[(u32, &str)] = &[
        (0, "786a02f742015903c6c6fd852552d272"),
        (1, "2fa3f686df876995167e7c2e5d74c4c7"),
        (127, "b6292669ccd38d5f01caae96ba272c76"),
        (128, "2319e3789c47e2daa5fe807f61bec2a1"),
        (129, "f59711d44a031d5f97a9413c065d1e61"),
        (255, "5b21c5fd8868367612474fa2e70e9cfa"),
        (256, "1ecc896f34d3f9cac484c73f75f6a5fb"),
        (257, "d8bfe068de0b4f9fa876a3f8024eb9f7"),
        (1000, "9fe687126e6566313081b43167cbfa0b"),
    ];
}
