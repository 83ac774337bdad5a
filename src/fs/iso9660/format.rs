//! ISO 9660 on disk: the structures that the writer fills.
//!
//! Source: ECMA-119 (4th edition), chapters 8 and 9; field names follow its
//! headings. Joliet: Microsoft, "Joliet Specification" 1.0. Numbers stand in
//! both byte orders, little endian first.

use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian};

use crate::units::Timestamp;

/// Bytes in a logical sector, and in a logical block here.
pub(super) const SECTOR: u64 = 2048;
/// [`SECTOR`] as the length of a buffer.
pub(super) const SECTOR_BYTES: usize = 2048;
/// Sectors before the first descriptor; not ours.
pub(super) const SYSTEM_AREA: u32 = 16;
/// Volume descriptors: primary, supplementary (Joliet), terminator.
pub(super) const DESCRIPTORS: u32 = 3;
/// `Standard Identifier`.
pub(super) const STANDARD: [u8; 5] = *b"CD001";
/// `Escape Sequences` of Joliet level 3: UCS-2, big endian.
pub(super) const JOLIET_ESCAPE: [u8; 3] = *b"%/E";
/// `File Flags`: a directory.
pub(super) const FLAG_DIRECTORY: u8 = 2;
/// Bytes of a file that one extent can have.
pub(super) const MAX_FILE: u64 = u32::MAX as u64;
/// Levels of directories, the root included (6.8.2.1).
pub(super) const MAX_LEVELS: usize = 8;
/// Path table records name their parent with 16 bits.
pub(super) const MAX_DIRECTORIES: usize = u16::MAX as usize;
/// UTF-16 units of a Joliet name.
pub(super) const JOLIET_UNITS: usize = 64;

/// `Volume Descriptor Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum DescriptorType {
    Primary = 1,
    Supplementary = 2,
    Terminator = 255,
}

/// A 16-bit number in both byte orders (7.2.3).
#[derive(Debug, Clone, Copy, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Both16([u8; 2], [u8; 2]);

/// A 32-bit number in both byte orders (7.3.3).
#[derive(Debug, Clone, Copy, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Both32([u8; 4], [u8; 4]);

impl From<u16> for Both16 {
    fn from(value: u16) -> Self {
        Self(value.to_le_bytes(), value.to_be_bytes())
    }
}

impl From<u32> for Both32 {
    fn from(value: u32) -> Self {
        Self(value.to_le_bytes(), value.to_be_bytes())
    }
}

/// A volume descriptor (8.4 and 8.5), primary or supplementary.
#[derive(Debug, Clone, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct VolumeDescriptor {
    pub descriptor_type: u8,
    pub standard_identifier: [u8; 5],
    pub version: u8,
    pub volume_flags: u8,
    pub system_identifier: [u8; 32],
    pub volume_identifier: [u8; 32],
    pub unused: [u8; 8],
    /// Sectors in the volume.
    pub volume_space_size: Both32,
    pub escape_sequences: [u8; 32],
    pub volume_set_size: Both16,
    pub volume_sequence_number: Both16,
    pub logical_block_size: Both16,
    /// Bytes.
    pub path_table_size: Both32,
    pub l_path_table: [u8; 4],
    pub optional_l_path_table: [u8; 4],
    pub m_path_table: big_endian::U32,
    pub optional_m_path_table: [u8; 4],
    pub root: DirectoryRecord,
    pub root_identifier: u8,
    pub volume_set_identifier: [u8; 128],
    pub publisher_identifier: [u8; 128],
    pub data_preparer_identifier: [u8; 128],
    pub application_identifier: [u8; 128],
    pub copyright_file: [u8; 37],
    pub abstract_file: [u8; 37],
    pub bibliographic_file: [u8; 37],
    pub creation: LongTime,
    pub modification: LongTime,
    pub expiration: LongTime,
    pub effective: LongTime,
    pub file_structure_version: u8,
    pub reserved: u8,
    pub application_use: [u8; 512],
    pub reserved_end: [u8; 653],
}

/// A directory record (9.1) without its identifier.
#[derive(Debug, Clone, Copy, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct DirectoryRecord {
    /// Bytes of the record, identifier and padding included.
    pub length: u8,
    pub extended_attribute_length: u8,
    /// First sector.
    pub location_of_extent: Both32,
    /// Bytes.
    pub data_length: Both32,
    pub recording: ShortTime,
    pub file_flags: u8,
    pub file_unit_size: u8,
    pub interleave_gap_size: u8,
    pub volume_sequence_number: Both16,
    pub length_of_identifier: u8,
}

/// A path table record (9.4) without its identifier; both numbers are in the
/// byte order of their table.
#[derive(Debug, Clone, Copy, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct PathTableRecord {
    pub length_of_identifier: u8,
    pub extended_attribute_length: u8,
    /// First sector of the directory.
    pub location_of_extent: [u8; 4],
    pub parent_directory_number: [u8; 2],
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<VolumeDescriptor>() == SECTOR_BYTES);
    assert!(offset_of!(VolumeDescriptor, volume_identifier) == 40);
    assert!(offset_of!(VolumeDescriptor, volume_space_size) == 80);
    assert!(offset_of!(VolumeDescriptor, path_table_size) == 132);
    assert!(offset_of!(VolumeDescriptor, m_path_table) == 148);
    assert!(offset_of!(VolumeDescriptor, root) == 156);
    assert!(offset_of!(VolumeDescriptor, volume_set_identifier) == 190);
    assert!(offset_of!(VolumeDescriptor, creation) == 813);
    assert!(offset_of!(VolumeDescriptor, file_structure_version) == 881);
    assert!(size_of::<DirectoryRecord>() == 33);
    assert!(offset_of!(DirectoryRecord, recording) == 18);
    assert!(offset_of!(DirectoryRecord, length_of_identifier) == 32);
    assert!(size_of::<PathTableRecord>() == 8);
};

/// A moment in digits (8.4.26.1), UTC.
#[derive(Debug, Clone, Copy, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct LongTime {
    digits: [u8; 16],
    /// Quarters of an hour from Greenwich.
    offset: u8,
}

/// A moment in bytes (9.1.5), UTC.
#[derive(Debug, Clone, Copy, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ShortTime([u8; 7]);

impl LongTime {
    /// "Not specified".
    pub(super) const NONE: Self = Self {
        digits: [b'0'; 16],
        offset: 0,
    };

    /// `moment`, which is between the years 1 and 9999 once clamped.
    pub(super) fn of(moment: Timestamp) -> Self {
        let civil = clamped(moment).civil();
        let text = format!(
            "{:04}{:02}{:02}{:02}{:02}{:02}00",
            civil.year, civil.month, civil.day, civil.hour, civil.minute, civil.second
        );
        let mut digits = [b'0'; 16];
        for (digit, byte) in digits.iter_mut().zip(text.bytes()) {
            *digit = byte;
        }
        Self { digits, offset: 0 }
    }
}

impl ShortTime {
    /// `moment`, or the nearest that a byte can hold: years 1900 to 2155.
    pub(super) fn of(moment: Timestamp) -> Self {
        let civil = clamped(moment).civil();
        let year = u8::try_from(civil.year - 1900).expect("clamped to 1900..=2155");
        Self([
            year,
            civil.month,
            civil.day,
            civil.hour,
            civil.minute,
            civil.second,
            0,
        ])
    }
}

fn clamped(moment: Timestamp) -> Timestamp {
    /// 1900-01-01 and the last second of 2155.
    const RANGE: (i64, i64) = (-2_208_988_800, 5_869_583_999);
    Timestamp::from_seconds(moment.seconds.clamp(RANGE.0, RANGE.1))
}

impl DirectoryRecord {
    /// Bytes of a record with an identifier of `identifier` bytes: even.
    pub(super) const fn bytes(identifier: usize) -> usize {
        (size_of::<Self>() + identifier).next_multiple_of(2)
    }
}

impl VolumeDescriptor {
    /// A descriptor of which nothing is said yet.
    pub(super) fn empty(descriptor_type: DescriptorType) -> Box<Self> {
        let mut empty = Box::new(Self::new_zeroed());
        empty.descriptor_type = descriptor_type as u8;
        empty.standard_identifier = STANDARD;
        empty.version = 1;
        empty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_two_ways_and_clamped() {
        let moment = Timestamp::from_seconds(1_700_000_001);
        assert_eq!(&LongTime::of(moment).digits, b"2023111422132100");
        assert_eq!(ShortTime::of(moment).0, [123, 11, 14, 22, 13, 21, 0]);
        let late = Timestamp::from_seconds(i64::MAX);
        assert_eq!(ShortTime::of(late).0, [255, 12, 31, 23, 59, 59, 0]);
        let early = Timestamp::from_seconds(i64::MIN);
        assert_eq!(ShortTime::of(early).0, [0, 1, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn numbers_stand_in_both_orders() {
        assert_eq!(Both16::from(0x1234).as_bytes(), [0x34, 0x12, 0x12, 0x34]);
        assert_eq!(
            Both32::from(0x1234_5678).as_bytes(),
            [0x78, 0x56, 0x34, 0x12, 0x12, 0x34, 0x56, 0x78]
        );
    }
}
