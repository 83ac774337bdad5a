//! CRC-32C as ext4 chains it.

/// A running checksum: CRC-32C that starts at all ones and is never inverted,
/// so that one result can seed the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checksum(u32);

impl Checksum {
    /// Nothing summed yet.
    pub(super) const START: Self = Self(!0);

    /// The seed of every checksum in the volume with this UUID, the
    /// superblock's own excepted.
    pub(super) fn of_volume(uuid: [u8; 16]) -> Self {
        Self::START.feed(&uuid)
    }

    /// The seed of what belongs to inode `ino`: the inode itself, its
    /// directory blocks and its extent blocks. Generations are 0 here.
    pub(super) fn of_inode(self, ino: u32) -> Self {
        self.feed(&ino.to_le_bytes()).feed(&0_u32.to_le_bytes())
    }

    /// Appends `bytes`.
    pub(super) fn feed(self, bytes: &[u8]) -> Self {
        // The crate inverts before and after, as most users of CRC-32C want it.
        Self(!crc32c::crc32c_append(!self.0, bytes))
    }

    /// All 32 bits.
    pub(super) fn value(self) -> u32 {
        self.0
    }

    /// Bits 0 to 15.
    pub(super) fn low(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// Bits 16 to 31.
    pub(super) fn high(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_crc32c_without_the_last_inversion() {
        // RFC 3720, appendix B.4: 32 bytes of zeros.
        assert_eq!(!Checksum::START.feed(&[0; 32]).value(), 0x8a91_36aa);
        let halves = Checksum::START.feed(&[0; 16]).feed(&[0; 16]);
        assert_eq!(halves, Checksum::START.feed(&[0; 32]));
        assert_eq!(
            u32::from(halves.high()) << 16 | u32::from(halves.low()),
            halves.value()
        );
    }
}
