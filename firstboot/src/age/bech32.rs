//! Bech32, in which age writes its keys.
//!
//! Source: BIP 173, without its limit of 90 characters, as age has it.

const LETTERS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const GENERATOR: [u32; 5] = [
    0x3b6a_57b2,
    0x2650_8e6d,
    0x1ea1_19fa,
    0x3d42_33dd,
    0x2a14_62b3,
];

fn checksum(values: impl Iterator<Item = u8>) -> u32 {
    values.fold(1, |sum, value| {
        let top = sum >> 25;
        let shifted = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
        GENERATOR
            .iter()
            .enumerate()
            .filter(|(at, _)| top >> at & 1 == 1)
            .fold(shifted, |sum, (_, part)| sum ^ part)
    })
}

/// The prefix, spread out as the checksum takes it.
fn spread(prefix: &str) -> Vec<u8> {
    let high = prefix.bytes().map(|c| c >> 5);
    let low = prefix.bytes().map(|c| c & 31);
    high.chain([0]).chain(low).collect()
}

/// Bytes under a prefix, in small letters.
pub fn encode(prefix: &str, bytes: &[u8]) -> String {
    let mut values = regroup(bytes, 8, 5);
    let padded = spread(prefix).into_iter().chain(values.clone());
    let sum = checksum(padded.chain([0; 6])) ^ 1;
    values.extend((0..6).map(|at| u8::try_from(sum >> (25 - 5 * at) & 31).unwrap_or(0)));
    let letter = |value: &u8| char::from(LETTERS[usize::from(value & 31)]);
    format!("{prefix}1{}", values.iter().map(letter).collect::<String>())
}

/// The bytes under `prefix`; all letters of one case.
pub fn decode(prefix: &str, text: &str) -> Option<Vec<u8>> {
    let small = text.to_ascii_lowercase();
    if text != small && text != text.to_ascii_uppercase() {
        return None;
    }
    let data = small
        .strip_prefix(&prefix.to_ascii_lowercase())?
        .strip_prefix('1')?;
    let value = |c: u8| {
        let at = LETTERS.iter().position(|letter| *letter == c)?;
        u8::try_from(at).ok()
    };
    let values: Vec<u8> = data.bytes().map(value).collect::<Option<_>>()?;
    let spread = spread(&prefix.to_ascii_lowercase());
    if values.len() < 6 || checksum(spread.into_iter().chain(values.iter().copied())) != 1 {
        return None;
    }
    let (values, _) = values.split_at(values.len() - 6);
    let bytes: Vec<u8> = regroup(values, 5, 8);
    let whole = values.len() * 5 / 8;
    // What is left over is less than a letter, and zero.
    let is_clean = bytes.len() == whole || bytes.get(whole) == Some(&0);
    (is_clean && values.len() * 5 % 8 < 5).then(|| bytes.into_iter().take(whole).collect())
}

/// Groups of `from` bits as groups of `to`, the last one filled with zeros.
fn regroup(values: &[u8], from: u32, to: u32) -> Vec<u8> {
    let (mut bits, mut count) = (0_u32, 0);
    let mut out = Vec::new();
    for value in values {
        bits = (bits << from | u32::from(*value)) & 0xffff;
        count += from;
        while count >= to {
            count -= to;
            out.push(u8::try_from(bits >> count & ((1 << to) - 1)).unwrap_or(0));
        }
    }
    if count > 0 {
        out.push(u8::try_from(bits << (to - count) & ((1 << to) - 1)).unwrap_or(0));
    }
    out
}
