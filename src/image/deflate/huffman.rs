//! Huffman codes of limited length.
//!
//! Source: RFC 1951, section 3.2.2, for the canonical codes.

/// A code: its bits in the order in which they are written, lowest first,
/// and how many they are. 0 bits for a symbol without a code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Code {
    pub bits: u16,
    pub length: u8,
}

/// Symbols of the largest alphabet, and nodes of its tree.
const MOST_SYMBOLS: usize = 286;
const MOST_NODES: usize = 2 * MOST_SYMBOLS;

/// Lengths of optimal codes for symbols that come `counts` times, none above
/// `longest`. Symbols that do not come get 0.
pub(super) fn lengths<const N: usize>(counts: &[u16; N], longest: usize) -> [u8; N] {
    let mut lengths = [0; N];
    let mut keys = [0_u32; MOST_SYMBOLS];
    let mut used = 0;
    for (symbol, count) in (0_u32..).zip(counts) {
        keys[used] = u32::from(*count) << 9 | symbol;
        used += usize::from(*count != 0);
    }
    let keys = &mut keys[..used];
    // Equal counts in the order of the symbols: one result on every machine.
    keys.sort_unstable();
    // The rarest symbols get the longest codes.
    let mut rarest = keys.iter();
    let per_length = lengths_by_count(keys, longest);
    for length in (1..=longest).rev() {
        for key in rarest.by_ref().take(per_length[length]) {
            lengths[(key & 0x1ff) as usize] = u8::try_from(length).expect("at most 15");
        }
    }
    lengths
}

/// How many codes there are of each length, for symbols whose counts (bits 9
/// and up) ascend.
fn lengths_by_count(keys: &[u32], longest: usize) -> [usize; 16] {
    let leaves = keys.len();
    let mut per_length = [0; 16];
    if leaves < 2 {
        per_length[1] = leaves;
        return per_length;
    }
    let parents = tree(keys);
    // Depths from the root, which comes last, down.
    let root = 2 * leaves - 2;
    let mut depths = [0_usize; MOST_NODES];
    for node in (0..root).rev() {
        depths[node] = depths[parents[node]] + 1;
    }
    for depth in &depths[..leaves] {
        per_length[(*depth).min(longest)] += 1;
    }
    limit(&mut per_length, longest);
    per_length
}

/// The parent of each node of a Huffman tree. First the leaves, in the order
/// of `keys`, then the inner nodes in the order of their making, the root last.
fn tree(keys: &[u32]) -> [usize; MOST_NODES] {
    let leaves = keys.len();
    let mut weights = [u32::MAX; MOST_NODES];
    for (weight, key) in weights.iter_mut().zip(keys) {
        *weight = key >> 9;
    }
    let mut parents = [0; MOST_NODES];
    // Both the leaves and the inner nodes ascend: the two lightest are in front.
    let (mut leaf, mut inner) = (0, leaves);
    for made in leaves..2 * leaves - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            // Inner nodes that are not made yet weigh more than any leaf.
            let take_leaf = leaf < leaves && weights[leaf] <= weights[inner];
            let node = if take_leaf { &mut leaf } else { &mut inner };
            weight += weights[*node];
            parents[*node] = made;
            *node += 1;
        }
        weights[made] = weight;
    }
    parents
}

/// Makes the lengths fit: codes that were cut to `longest` took room that
/// longer ones below did not have, which others now give back.
fn limit(per_length: &mut [usize; 16], longest: usize) {
    let room: usize = 1 << longest;
    let taken = |per_length: &[usize; 16]| -> usize {
        (1..=longest)
            .map(|length| per_length[length] << (longest - length))
            .sum()
    };
    let mut excess = taken(per_length).saturating_sub(room);
    while excess > 0 {
        // A leaf one level up becomes a node with itself and one of the longest below.
        let from = (1..longest)
            .rev()
            .find(|length| per_length[*length] > 0)
            .expect("not all codes have the longest length");
        per_length[from] -= 1;
        per_length[from + 1] += 2;
        per_length[longest] -= 1;
        excess -= 1;
    }
}

/// The canonical codes of these lengths.
pub(super) fn codes<const N: usize>(lengths: &[u8; N]) -> [Code; N] {
    let mut per_length = [0_u16; 16];
    for length in lengths {
        per_length[usize::from(*length)] += 1;
    }
    per_length[0] = 0;
    let mut next = [0_u16; 16];
    for length in 1..16 {
        next[length] = (next[length - 1] + per_length[length - 1]) << 1;
    }
    let mut codes = [Code::default(); N];
    for (code, length) in codes.iter_mut().zip(lengths).filter(|(_, l)| **l != 0) {
        let next = &mut next[usize::from(*length)];
        code.bits = next.reverse_bits() >> (16 - length);
        code.length = *length;
        *next += 1;
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether a decoder can use exactly these lengths: no room left, none lacking.
    fn is_complete(lengths: &[u8]) -> bool {
        let room: u32 = lengths
            .iter()
            .filter(|l| **l != 0)
            .map(|l| 1 << (15 - l))
            .sum();
        room == 1 << 15
    }

    #[test]
    fn codes_are_canonical() {
        // RFC 1951, section 3.2.2: ABCDEFGH with lengths (3, 3, 3, 3, 3, 2, 4, 4).
        let codes = codes(&[3, 3, 3, 3, 3, 2, 4, 4]);
        let straight: Vec<u16> = codes
            .iter()
            .map(|code| code.bits.reverse_bits() >> (16 - code.length))
            .collect();
        assert_eq!(
            straight,
            [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111]
        );
    }

    #[test]
    fn one_symbol_gets_one_bit() {
        assert_eq!(lengths(&[0, 9, 0], 15), [0, 1, 0]);
        assert_eq!(lengths(&[0, 0], 15), [0, 0]);
    }

    #[test]
    fn steep_counts_are_limited() {
        let mut counts = [0_u16; 24];
        let (mut a, mut b) = (1_u16, 1_u16);
        for count in &mut counts {
            *count = a;
            (a, b) = (b, a.saturating_add(b));
        }
        let lengths = lengths(&counts, 15);
        assert!(is_complete(&lengths), "{lengths:?}");
        assert!(lengths.windows(2).all(|pair| pair[0] >= pair[1]));
    }

    proptest! {
        #[test]
        fn every_set_of_counts_gives_a_complete_code(
            counts in proptest::collection::vec(0_u16..3000, 19),
            steep in proptest::collection::vec(0_u32..16, 19),
        ) {
            let mut all = [0_u16; 19];
            for (at, count) in counts.iter().enumerate() {
                all[at] = count >> steep[at];
            }
            let used = all.iter().filter(|count| **count != 0).count();
            let lengths = lengths(&all, 7);
            prop_assert!(lengths.iter().all(|length| *length <= 7));
            for (length, count) in lengths.iter().zip(&all) {
                prop_assert_eq!(*length == 0, *count == 0);
            }
            prop_assert!(used < 2 || is_complete(&lengths));
        }
    }
}
