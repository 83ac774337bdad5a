//! Sums of 32 bits, byte by byte from a table: tables of partitions are read
//! three times in a start, and bit by bit that was a tenth of all that the
//! agent does then.

/// CRC-32 of ISO 3309, as GPT wants it.
pub fn crc32(bytes: &[u8]) -> u32 {
    !update(&ISO, u32::MAX, bytes)
}

/// CRC-32C (Castagnoli) as ext4 and its journal go on with it: from the sum so
/// far, which begins with all ones and is not inverted in the end.
pub fn crc32c(sum: u32, bytes: &[u8]) -> u32 {
    update(&CASTAGNOLI, sum, bytes)
}

fn update(table: &[u32; 256], sum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(sum, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        (crc >> 8) ^ table.get(usize::from(low ^ byte)).copied().unwrap_or(0)
    })
}

static ISO: [u32; 256] = table(0xedb8_8320);
static CASTAGNOLI: [u32; 256] = table(0x82f6_3b78);

/// The sums of every byte, by the polynomial with its bits reversed.
const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256_u32 {
        let (mut crc, mut bit) = (byte, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ (polynomial & (crc & 1).wrapping_neg());
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check values of the CRC catalogue.
    #[test]
    fn sums_are_those_of_the_catalogue() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(!crc32c(u32::MAX, b"123456789"), 0xe306_9283);
        let half = crc32c(u32::MAX, b"1234");
        assert_eq!(!crc32c(half, b"56789"), 0xe306_9283);
    }
}
