//! Inodes, written one at a time from the tree and the layout.
//!
//! Source: kernel documentation, "Index Nodes".

use zerocopy::IntoBytes as _;

use crate::tree::{FileTree, Metadata};
use crate::units::Timestamp;

use super::census::{self, Owner, Subject};
use super::checksum::Checksum;
use super::format::{BLOCK_BYTES, EXTRA_ISIZE, FileType, Inode, high, low};
use super::layout::BlockMap;

/// Sectors of 512 bytes in a block, the unit of `i_blocks`.
const SECTORS_PER_BLOCK: u64 = BLOCK_BYTES / 512;

/// The inode with this number.
pub(super) fn write(
    number: u32,
    subject: &Subject,
    map: &BlockMap,
    tree: &FileTree,
    source_date: Timestamp,
    volume: Checksum,
) -> Inode {
    let own;
    let (file_type, meta) = match subject.owner {
        Owner::Tree(id) => {
            let node = tree.node(id);
            (census::file_type(&node.kind), &node.meta)
        }
        Owner::Nobody => return seal(Inode::zeroed(), number, volume),
        Owner::LostAndFound => {
            own = own_metadata(0o700, source_date);
            (FileType::Directory, &own)
        }
        Owner::Resize | Owner::Journal => {
            own = own_metadata(0o600, source_date);
            (FileType::Regular, &own)
        }
    };
    let mut inode = Inode::zeroed();
    inode.i_extra_isize = EXTRA_ISIZE.into();
    inode.i_links_count = subject.links.into();
    set_metadata(&mut inode, file_type, meta);
    set_map(&mut inode, map);
    seal(inode, number, volume)
}

fn own_metadata(mode: u16, mtime: Timestamp) -> Metadata {
    Metadata {
        mtime,
        ..Metadata::root_owned(mode)
    }
}

fn set_metadata(inode: &mut Inode, file_type: FileType, meta: &Metadata) {
    inode.i_mode = (file_type.mode() | meta.mode & 0o7777).into();
    inode.i_uid = half(meta.uid).into();
    inode.l_i_uid_high = half(meta.uid >> 16).into();
    inode.i_gid = half(meta.gid).into();
    inode.l_i_gid_high = half(meta.gid >> 16).into();
    // One time for all four: nothing else is known that a rebuild would repeat.
    let (seconds, extra) = stored_time(meta.mtime);
    inode.i_mtime = seconds.into();
    inode.i_mtime_extra = extra.into();
    inode.i_ctime = seconds.into();
    inode.i_ctime_extra = extra.into();
    inode.i_atime = seconds.into();
    inode.i_atime_extra = extra.into();
    inode.i_crtime = seconds.into();
    inode.i_crtime_extra = extra.into();
}

fn set_map(inode: &mut Inode, map: &BlockMap) {
    let sectors = map.blocks * SECTORS_PER_BLOCK;
    inode.i_flags = map.flags.bits().into();
    inode.i_size_lo = low(map.size);
    inode.i_size_high = high(map.size);
    inode.i_blocks_lo = low(sectors);
    inode.l_i_blocks_high = word(sectors >> 32).into();
    inode.i_block = map.map;
    inode.i_file_acl_lo = low(map.xattr_block);
    inode.l_i_file_acl_high = word(map.xattr_block >> 32).into();
    if let Some(xattrs) = &map.xattrs {
        inode.xattrs = **xattrs;
    }
}

fn half(value: u32) -> u16 {
    (value & 0xffff) as u16
}

fn word(value: u64) -> u16 {
    u16::try_from(value).expect("a volume has fewer than 2^32 blocks: MOST_BLOCKS")
}

/// Seconds as 32 bits and the extra word: bits 0 and 1 continue the seconds
/// upwards, the rest are nanoseconds.
fn stored_time(time: Timestamp) -> (u32, u32) {
    let seconds = (time.seconds.cast_unsigned() & 0xffff_ffff) as u32;
    let above = (time.seconds - i64::from(seconds.cast_signed())).cast_unsigned();
    let epoch = (above >> 32 & 3) as u32;
    (seconds, time.nanos << 2 | epoch)
}

/// Sets the checksum, 32 bits in two places; the second is not there in an
/// inode without extra fields.
fn seal(mut inode: Inode, number: u32, volume: Checksum) -> Inode {
    let sum = volume.of_inode(number).feed(inode.as_bytes());
    inode.l_i_checksum_lo = sum.low().into();
    if inode.i_extra_isize.get() > 0 {
        inode.i_checksum_hi = sum.high().into();
    }
    inode
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_reach_from_1901_to_2446() {
        // Kernel documentation, "Inode Timestamps": the table of extra epoch bits.
        for (seconds, stored) in [
            (-0x8000_0000, (0x8000_0000, 0)),
            (-1, (0xffff_ffff, 0)),
            (0x7fff_ffff, (0x7fff_ffff, 0)),
            (0x8000_0000, (0x8000_0000, 1)),
            (0x1_7fff_ffff, (0x7fff_ffff, 1)),
            (0x1_8000_0000, (0x8000_0000, 2)),
            (0x3_7fff_ffff, (0x7fff_ffff, 3)),
        ] {
            assert_eq!(
                stored_time(Timestamp::from_seconds(seconds)),
                stored,
                "{seconds}"
            );
        }
        let time = Timestamp {
            seconds: 1,
            nanos: 999_999_999,
        };
        assert_eq!(stored_time(time), (1, 999_999_999 << 2));
    }
}
