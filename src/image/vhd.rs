//! VHD images, fixed: the disk itself, and a footer of one sector.
//!
//! Source: Microsoft, *Virtual Hard Disk Image Format Specification* 1.0;
//! field names are its. All numbers are big endian.
//!
//! Readers disagree on where a disk's size stands: some take it from
//! `Current Size`, some multiply the geometry, and QEMU decides by `Creator
//! Application`. Ours is Windows' own, for which all take `Current Size`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::pass::{Cluster, Container};
use super::raw::write_cluster;
use crate::digest::{ContentRoot, derive_guid};
use crate::units::{ByteSize, GIB};

/// The largest disk that Hyper-V opens in this format.
pub(super) const LIMIT: ByteSize = ByteSize::from_bytes(2040 * GIB);

/// `Cookie`.
pub(crate) const COOKIE: [u8; 8] = *b"conectix";
/// `Disk Type` of a fixed disk.
pub(crate) const FIXED: u32 = 2;
/// `Features`: a bit that is always set.
const RESERVED_FEATURE: u32 = 2;
/// `File Format Version`.
pub(crate) const VERSION: u32 = 0x0001_0000;
/// Bytes of the footer.
pub(crate) const FOOTER_SIZE: u64 = 512;
/// Sectors of the largest geometry.
const MOST_CHS: u64 = 65_535 * 16 * 255;

/// The footer.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Footer {
    pub cookie: [u8; 8],
    pub features: U32,
    pub file_format_version: U32,
    /// All ones: there is no dynamic header.
    pub data_offset: U64,
    /// Seconds since 2000.
    pub time_stamp: U32,
    pub creator_application: [u8; 4],
    pub creator_version: U32,
    pub creator_host_os: [u8; 4],
    pub original_size: U64,
    pub current_size: U64,
    pub cylinders: U16,
    pub heads: u8,
    pub sectors_per_track: u8,
    pub disk_type: U32,
    /// One's complement of the sum of all other bytes.
    pub checksum: U32,
    pub unique_id: [u8; 16],
    pub saved_state: u8,
    pub reserved: [u8; 427],
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<Footer>() as u64 == FOOTER_SIZE);
    assert!(offset_of!(Footer, current_size) == 48);
    assert!(offset_of!(Footer, checksum) == 64);
    assert!(offset_of!(Footer, saved_state) == 84);
};

impl Footer {
    /// What `checksum` must be.
    pub(crate) fn sum(&self) -> u32 {
        let unsummed = Self {
            checksum: U32::ZERO,
            ..*self
        };
        let sum: u32 = unsummed.as_bytes().iter().map(|b| u32::from(*b)).sum();
        !sum
    }
}

/// Cylinders, heads and sectors per track of a disk, by the appendix of the
/// specification.
fn geometry(size: ByteSize) -> (u16, u8, u8) {
    let sectors = (size.bytes() / 512).min(MOST_CHS);
    let (per_track, heads, tracks) = if sectors >= 65_535 * 16 * 63 {
        (255, 16, sectors / 255)
    } else {
        let tracks = sectors / 17;
        let heads = tracks.div_ceil(1024).max(4);
        if tracks >= heads * 1024 || heads > 16 {
            let tracks = sectors / 31;
            if tracks >= 16 * 1024 {
                (63, 16, sectors / 63)
            } else {
                (31, 16, tracks)
            }
        } else {
            (17, heads, tracks)
        }
    };
    let cylinders = u16::try_from(tracks / heads).unwrap_or(u16::MAX);
    (cylinders, u8::try_from(heads).unwrap_or(16), per_track)
}

/// A VHD image in the making.
#[derive(Debug)]
pub(super) struct VhdWriter {
    size: ByteSize,
}

impl VhdWriter {
    /// An image of a disk of `size` bytes, at most [`LIMIT`].
    pub(super) fn new(size: ByteSize) -> Self {
        Self { size }
    }

    fn footer(&self, root: &ContentRoot) -> Footer {
        let (cylinders, heads, sectors_per_track) = geometry(self.size);
        let mut footer = Footer {
            cookie: COOKIE,
            features: RESERVED_FEATURE.into(),
            file_format_version: VERSION.into(),
            data_offset: u64::MAX.into(),
            time_stamp: U32::ZERO,
            creator_application: *b"win ",
            creator_version: U32::new(0x000a_0000),
            creator_host_os: *b"Wi2k",
            original_size: self.size.bytes().into(),
            current_size: self.size.bytes().into(),
            cylinders: cylinders.into(),
            heads,
            sectors_per_track,
            disk_type: FIXED.into(),
            checksum: U32::ZERO,
            unique_id: derive_guid(&root.0, "vhd:disk").bytes(),
            saved_state: 0,
            reserved: [0; 427],
        };
        footer.checksum = footer.sum().into();
        footer
    }
}

impl Container for VhdWriter {
    fn append(&mut self, file: &File, cluster: &Cluster) -> io::Result<()> {
        write_cluster(file, cluster, self.size)
    }

    fn finish(&mut self, file: &File, root: &ContentRoot) -> io::Result<()> {
        file.write_all_at(self.footer(root).as_bytes(), self.size.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_geometry_is_the_appendixs() {
        let of = |mib: u64| geometry(ByteSize::from_mib(mib));
        assert_eq!(of(40), (963, 5, 17));
        assert_eq!(of(1024), (2080, 16, 63));
        assert_eq!(of(2_097_152), (65_535, 16, 255));
        assert_eq!(geometry(ByteSize::ZERO), (0, 4, 17));
    }
}
