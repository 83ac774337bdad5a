//! A VHDX is mostly zeros and sums: inputs hold what is between, front to
//! back, and become a file of 5 MiB with the right sums.

/// Where the parts of an input go, and how long they are; what is left over
/// is the block table. Headers, region table, metadata table, its items.
const PARTS: [(usize, usize); 5] = [
    (64 << 10, 80),
    (128 << 10, 80),
    (192 << 10, 16 + 3 * 32),
    (2 << 20, 32 + 6 * 32),
    ((2 << 20) + (64 << 10), 48),
];
const BLOCK_TABLE: usize = 3 << 20;
const FILE: usize = 5 << 20;
/// Begin and length of what has a sum, in bytes 4 to 8.
const SUMMED: [(usize, usize); 3] = [(64 << 10, 4096), (128 << 10, 4096), (192 << 10, 64 << 10)];

/// The file that `input` stands for.
pub fn expand(input: &[u8]) -> Vec<u8> {
    let mut file = vec![0; FILE];
    file[..8].copy_from_slice(b"vhdxfile");
    let mut rest = input;
    let table = (BLOCK_TABLE, rest.len().min(1 << 20));
    for (at, length) in PARTS.into_iter().chain([table]) {
        let (part, behind) = rest.split_at(length.min(rest.len()));
        file[at..at + part.len()].copy_from_slice(part);
        rest = behind;
    }
    for (at, length) in SUMMED {
        file[at + 4..at + 8].fill(0);
        let sum = crc32c::crc32c(&file[at..at + length]);
        file[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
    }
    file
}
