//! The hash that orders an indexed directory: half MD4, signed characters.
//!
//! Source: kernel documentation, "Hash Tree Directories"; `fs/ext4/hash.c`
//! for the order of the rounds. `debugfs -R 'dx_hash'` is the judge.

/// What the hash starts from; `s_hash_seed`.
pub(super) type HashSeed = [u32; 4];

/// Where MD4 starts when the seed is all zeros (RFC 1320, section 3.3).
const MD4_START: HashSeed = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// Marks the end of a directory walk; no name may hash to it.
const END_OF_WALK: u32 = 0xffff_fffe;

/// Bytes of a name that one transform takes.
const CHUNK: usize = 32;

/// Hash of a name: what the index is ordered by, and what tells names with
/// the same hash apart when a directory is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NameHash {
    /// Even: the lowest bit is free for the index.
    pub(super) major: u32,
    /// The rest.
    pub(super) minor: u32,
}

impl NameHash {
    /// The hash of `name` in a volume with this seed.
    pub(super) fn of(name: &[u8], seed: HashSeed) -> Self {
        let mut state = if seed == [0; 4] { MD4_START } else { seed };
        let mut rest = name;
        while !rest.is_empty() {
            transform(&mut state, &words(rest));
            rest = rest.get(CHUNK..).unwrap_or_default();
        }
        let major = match state[1] & !1 {
            END_OF_WALK => END_OF_WALK - 2,
            hash => hash,
        };
        Self {
            major,
            minor: state[2],
        }
    }
}

/// The first 32 bytes of `rest` as eight words. Bytes are signed and are
/// added, not joined: a byte above 127 borrows from the bytes before it.
/// What the name does not fill is its length, four times a word.
fn words(rest: &[u8]) -> [u32; 8] {
    let length = u32::try_from(rest.len()).expect("a name is at most 255 bytes");
    let pad = (length | length << 8).wrapping_mul(0x0001_0001);
    let mut words = [pad; 8];
    let taken = &rest[..rest.len().min(CHUNK)];
    for (word, bytes) in words.iter_mut().zip(taken.chunks(4)) {
        for byte in bytes {
            let signed = i32::from(byte.cast_signed()).cast_unsigned();
            *word = signed.wrapping_add(*word << 8);
        }
    }
    words
}

/// Four steps of a round: the words they take, and how far each rotates.
type Steps = ([usize; 8], [u32; 4], u32, fn(u32, u32, u32) -> u32);

const ROUNDS: [Steps; 3] = [
    ([0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19], 0, |x, y, z| {
        z ^ (x & (y ^ z))
    }),
    // Square roots of 2 and 3, as in MD4.
    (
        [1, 3, 5, 7, 0, 2, 4, 6],
        [3, 5, 9, 13],
        0x5a82_7999,
        |x, y, z| (x & y).wrapping_add((x ^ y) & z),
    ),
    (
        [3, 7, 2, 6, 1, 5, 0, 4],
        [3, 9, 11, 15],
        0x6ed9_eba1,
        |x, y, z| x ^ y ^ z,
    ),
];

fn transform(state: &mut HashSeed, words: &[u32; 8]) {
    let [mut a, mut b, mut c, mut d] = *state;
    for (order, turns, constant, mix) in ROUNDS {
        for (step, word) in order.into_iter().enumerate() {
            let sum = a
                .wrapping_add(mix(b, c, d))
                .wrapping_add(words[word])
                .wrapping_add(constant);
            (a, b, c, d) = (d, sum.rotate_left(turns[step % 4]), b, c);
        }
    }
    for (word, change) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hash_as_debugfs_says() {
        // debugfs -R 'dx_hash -h half_md4 -s 11111111-2222-3333-4444-555555555556 NAME'
        let seed = [0x1111_1111, 0x3333_2222, 0x5555_4444, 0x5655_5555];
        let long = "x".repeat(32);
        for (name, seeded, seedless) in [
            ("a", (0x3950_d450, 0xb128_016c), (0xd5fa_7d7a, 0xacb4_8187)),
            (
                "abcd",
                (0x6e5f_9b32, 0xf7d3_73a5),
                (0xad75_57a8, 0xb1da_437c),
            ),
            (
                "hello",
                (0xea72_1016, 0xfe4f_1f93),
                (0x1746_da32, 0x4200_13b5),
            ),
            (
                "été",
                (0x6ab8_9f4c, 0x04b2_0609),
                (0xa69a_4d3a, 0x22ba_c128),
            ),
            (
                &long,
                (0x4061_ce06, 0x889b_d901),
                (0xae38_ae70, 0x439d_c1ad),
            ),
            (
                "0123456789012345678901234567890123456789",
                (0xd2c5_fe4a, 0xc571_f2f4),
                (0x3aae_8528, 0xb7a0_40c8),
            ),
        ] {
            for (seed, (major, minor)) in [(seed, seeded), ([0; 4], seedless)] {
                let hash = NameHash::of(name.as_bytes(), seed);
                assert_eq!(hash, NameHash { major, minor }, "{name}");
            }
        }
    }
}
