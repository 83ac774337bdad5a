//! FAT on disk: the structures that the repair pass reads and writes.
//!
//! Source: Microsoft, "FAT: General Overview of On-Disk Format" 1.03; field
//! names are its. All numbers are little endian.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::units::Timestamp;

/// Bytes in a sector; we write no other size.
pub(super) const SECTOR: u64 = 512;
/// Bytes in a directory slot.
pub(super) const SLOT: u64 = 32;
/// Clusters are numbered from here; the two FAT entries before are reserved.
pub(super) const FIRST_CLUSTER: u32 = 2;
/// A volume with fewer clusters is FAT12.
pub(super) const FAT16_MIN_CLUSTERS: u64 = 4_085;
/// A volume with fewer clusters is FAT12 or FAT16.
pub(super) const FAT32_MIN_CLUSTERS: u64 = 65_525;
/// `BPB_RootEntCnt` of our FAT16 volumes: slots in the root directory.
pub(super) const FAT16_ROOT_SLOTS: u64 = 512;
/// Slots in any other directory: it is at most 2 MiB long.
pub(super) const DIRECTORY_SLOTS: u64 = 65_536;
/// From this value on a FAT16 entry ends its chain.
pub(super) const FAT16_END: u16 = 0xfff8;
/// From this value on the low 28 bits of a FAT32 entry end its chain.
pub(super) const FAT32_END: u32 = 0x0fff_fff8;
/// Largest file, in bytes.
pub(super) const MAX_FILE: u64 = u32::MAX as u64;
/// UTF-16 units of a long name that one slot holds.
pub(super) const NAME_UNITS_PER_SLOT: u64 = 13;

/// `DIR_Name[0]`: this slot and all after it are unused.
pub(super) const SLOT_END: u8 = 0x00;
/// `DIR_Name[0]`: this slot is unused.
pub(super) const SLOT_FREE: u8 = 0xe5;
/// `ATTR_VOLUME_ID`.
pub(super) const ATTR_VOLUME_ID: u8 = 0x08;
/// `ATTR_DIRECTORY`.
pub(super) const ATTR_DIRECTORY: u8 = 0x10;
/// `ATTR_LONG_NAME`: a piece of the long name of the entry that follows.
pub(super) const ATTR_LONG_NAME: u8 = 0x0f;

/// The first 48 bytes of sector 0. The last three fields are FAT32's only.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct BootSectorHead {
    pub bs_jmp_boot: [u8; 3],
    pub bs_oem_name: [u8; 8],
    /// Bytes in a sector.
    pub bpb_byts_per_sec: U16,
    /// Sectors in a cluster, a power of two.
    pub bpb_sec_per_clus: u8,
    /// Sectors before the first FAT.
    pub bpb_rsvd_sec_cnt: U16,
    /// Copies of the FAT.
    pub bpb_num_fats: u8,
    /// Slots in the root directory; 0 in FAT32.
    pub bpb_root_ent_cnt: U16,
    /// Sectors in the volume; 0 when they need 32 bits.
    pub bpb_tot_sec16: U16,
    pub bpb_media: u8,
    /// Sectors in a FAT; 0 in FAT32.
    pub bpb_fatsz16: U16,
    pub bpb_sec_per_trk: U16,
    pub bpb_num_heads: U16,
    pub bpb_hidd_sec: U32,
    /// Sectors in the volume; 0 when 16 bits hold them.
    pub bpb_tot_sec32: U32,
    /// FAT32: sectors in a FAT.
    pub bpb_fatsz32: U32,
    pub bpb_ext_flags: U16,
    pub bpb_fs_ver: U16,
    /// FAT32: first cluster of the root directory.
    pub bpb_root_clus: U32,
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<BootSectorHead>() == 48);
    assert!(offset_of!(BootSectorHead, bpb_byts_per_sec) == 11);
    assert!(offset_of!(BootSectorHead, bpb_fatsz16) == 22);
    assert!(offset_of!(BootSectorHead, bpb_tot_sec32) == 32);
    assert!(offset_of!(BootSectorHead, bpb_fatsz32) == 36);
    assert!(offset_of!(BootSectorHead, bpb_root_clus) == 44);
};

/// One slot of a directory that is not a piece of a long name.
#[expect(clippy::struct_field_names, reason = "the names of the specification")]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct DirectoryEntry {
    /// Name and extension, padded with spaces, upper case.
    pub dir_name: [u8; 11],
    pub dir_attr: u8,
    pub dir_nt_res: u8,
    /// Hundredths of a second to add to the time of creation, 0 to 199.
    pub dir_crt_time_tenth: u8,
    pub dir_crt_time: U16,
    pub dir_crt_date: U16,
    pub dir_lst_acc_date: U16,
    pub dir_fst_clus_hi: U16,
    pub dir_wrt_time: U16,
    pub dir_wrt_date: U16,
    pub dir_fst_clus_lo: U16,
    /// Bytes; 0 for a directory.
    pub dir_file_size: U32,
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<DirectoryEntry>() == 32);
    assert!(offset_of!(DirectoryEntry, dir_attr) == 11);
    assert!(offset_of!(DirectoryEntry, dir_fst_clus_hi) == 20);
    assert!(offset_of!(DirectoryEntry, dir_fst_clus_lo) == 26);
    assert!(offset_of!(DirectoryEntry, dir_file_size) == 28);
};

impl DirectoryEntry {
    /// `.` or `..`; the root directory counts as cluster 0.
    pub(super) fn dots(count: usize, cluster: u32) -> Self {
        let mut name = [b' '; 11];
        name[..count].fill(b'.');
        let mut entry = Self {
            dir_name: name,
            dir_attr: ATTR_DIRECTORY,
            ..Self::free()
        };
        entry.set_cluster(cluster);
        entry
    }

    /// A slot that was in use once.
    pub(super) fn free() -> Self {
        let mut bytes = [0; size_of::<Self>()];
        bytes[0] = SLOT_FREE;
        zerocopy::transmute!(bytes)
    }

    pub(super) fn cluster(&self) -> u32 {
        (u32::from(self.dir_fst_clus_hi.get()) << 16) | u32::from(self.dir_fst_clus_lo.get())
    }

    fn set_cluster(&mut self, cluster: u32) {
        let [low0, low1, high0, high1] = cluster.to_le_bytes();
        self.dir_fst_clus_lo = U16::from_bytes([low0, low1]);
        self.dir_fst_clus_hi = U16::from_bytes([high0, high1]);
    }

    /// Sets creation, access and change to `time`.
    pub(super) fn stamp(&mut self, time: DosTime) {
        self.dir_crt_time_tenth = time.hundredths;
        self.dir_crt_time = time.time.into();
        self.dir_crt_date = time.date.into();
        self.dir_lst_acc_date = time.date.into();
        self.dir_wrt_time = time.time.into();
        self.dir_wrt_date = time.date.into();
    }
}

/// A moment as FAT stores it. FAT knows no time zone; ours is UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DosTime {
    date: u16,
    /// In steps of two seconds.
    time: u16,
    /// 100 for an odd second.
    hundredths: u8,
}

impl DosTime {
    /// `moment`, or the nearest that FAT can hold: 1980-01-01 to 2107-12-31.
    pub(super) fn from_timestamp(moment: Timestamp) -> Self {
        const FIRST: i64 = 315_532_800;
        const LAST: i64 = 4_354_819_199;
        let civil = Timestamp::from_seconds(moment.seconds.clamp(FIRST, LAST)).civil();
        let year = u16::try_from(civil.year - 1980).expect("clamped to 1980..=2107");
        Self {
            date: (year << 9) | (u16::from(civil.month) << 5) | u16::from(civil.day),
            time: (u16::from(civil.hour) << 11)
                | (u16::from(civil.minute) << 5)
                | u16::from(civil.second / 2),
            hundredths: civil.second % 2 * 100,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_packed_and_clamped() {
        let at = |seconds| DosTime::from_timestamp(Timestamp::from_seconds(seconds));
        // 2023-11-14 22:13:21
        let time = at(1_700_000_001);
        assert_eq!(time.date, (43 << 9) | (0b1011 << 5) | 0b1110);
        assert_eq!(time.time, (22 << 11) | (0b1101 << 5) | 0b1010);
        assert_eq!(time.hundredths, 100);
        assert_eq!(at(0), at(315_532_800));
        assert_eq!(at(0).date, (1 << 5) | 1);
        assert_eq!(at(i64::MAX).date, (127 << 9) | (0b1100 << 5) | 0b1_1111);
    }
}
