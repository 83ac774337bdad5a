//! Structures behind a sum: with the wrong one a reader stops before it looks
//! at what is in them, so inputs get the right one.

/// A little-endian number of `length` bytes; 0 behind the end.
fn number(bytes: &[u8], at: usize, length: usize) -> usize {
    let found = bytes.get(at..at + length).unwrap_or_default();
    found
        .iter()
        .rev()
        .fold(0, |n, byte| n << 8 | usize::from(*byte))
}

/// A disk whose GPT headers, those of the first and the last sector, have
/// right sums.
#[must_use]
pub fn gpt(input: &[u8]) -> Vec<u8> {
    let mut disk = input.to_vec();
    let last = disk.len().saturating_sub(512) / 512 * 512;
    for at in [512, last] {
        if disk.get(at..at + 8) == Some(b"EFI PART") && at + 512 <= disk.len() {
            gpt_header(&mut disk, at);
        }
    }
    disk
}

fn gpt_header(disk: &mut [u8], at: usize) {
    let table = number(disk, at + 72, 8).saturating_mul(512);
    let length = number(disk, at + 80, 4).saturating_mul(number(disk, at + 84, 4));
    if let Some(entries) = disk.get(table..table.saturating_add(length)) {
        let sum = zlib_rs::crc32::crc32(0, entries);
        disk[at + 88..at + 92].copy_from_slice(&sum.to_le_bytes());
    }
    let size = number(disk, at + 12, 4).min(512);
    disk[at + 16..at + 20].fill(0);
    let sum = zlib_rs::crc32::crc32(0, &disk[at..at + size]);
    disk[at + 16..at + 20].copy_from_slice(&sum.to_le_bytes());
}

/// A VHD whose footer has the right sum: the ones' complement of its bytes'.
#[must_use]
pub fn vhd(input: &[u8]) -> Vec<u8> {
    let mut file = input.to_vec();
    let Some(at) = file.len().checked_sub(512) else {
        return file;
    };
    file[at + 64..at + 68].fill(0);
    let sum: u32 = file[at..].iter().map(|byte| u32::from(*byte)).sum();
    file[at + 64..at + 68].copy_from_slice(&(!sum).to_be_bytes());
    file
}

/// A volume whose superblock has the right sum. Behind it other sums follow:
/// the seed without any reaches further.
#[must_use]
pub fn ext4(input: &[u8]) -> Vec<u8> {
    let mut volume = input.to_vec();
    if let Some(block) = volume.get_mut(1024..2048) {
        // The kernel starts with all ones and does not invert the result.
        let sum = !crc32c::crc32c(&block[..1020]);
        block[1020..].copy_from_slice(&sum.to_le_bytes());
    }
    volume
}
