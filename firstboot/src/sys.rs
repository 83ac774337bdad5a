//! The one module with `unsafe`: system calls that rustix has no safe call for.

#![allow(unsafe_code, reason = "each block says why it is sound")]

use std::ffi::{c_int, c_longlong, c_void};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr;

use rustix::ioctl::{Opcode, Setter, ioctl};

/// `BLKPG`, `_IO(0x12, 105)` (Linux `include/uapi/linux/blkpg.h`).
const BLKPG: Opcode = 0x1269;
/// `BLKPG_RESIZE_PARTITION`.
const RESIZE_PARTITION: c_int = 3;
/// `EXT4_IOC_RESIZE_FS`, `_IOW('f', 16, __u64)` (Linux `include/uapi/linux/ext4.h`).
const EXT4_RESIZE: Opcode = 0x4008_6610;

/// `struct blkpg_partition`.
#[repr(C)]
struct BlkpgPartition {
    start: c_longlong,
    length: c_longlong,
    number: c_int,
    devname: [u8; 64],
    volname: [u8; 64],
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct BlkpgArgument {
    op: c_int,
    flags: c_int,
    length: c_int,
    data: *mut c_void,
}

const _: () = {
    assert!(size_of::<BlkpgPartition>() == 152);
    assert!(size_of::<BlkpgArgument>() == 24);
};

/// Tells the kernel that partition `number` of `disk`, which begins at byte
/// `start`, has `length` bytes now. It may be mounted.
///
/// # Errors
///
/// What the kernel says, and `InvalidInput` beyond 2^63 bytes.
pub fn resize_partition(
    disk: BorrowedFd<'_>,
    number: c_int,
    start: u64,
    length: u64,
) -> io::Result<()> {
    let signed = |bytes: u64| c_longlong::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput);
    let mut partition = BlkpgPartition {
        start: signed(start)?,
        length: signed(length)?,
        number,
        devname: [0; 64],
        volname: [0; 64],
    };
    let argument = BlkpgArgument {
        op: RESIZE_PARTITION,
        flags: 0,
        length: c_int::try_from(size_of::<BlkpgPartition>()).map_err(io::Error::other)?,
        data: ptr::from_mut(&mut partition).cast(),
    };
    // SAFETY: BLKPG reads a `blkpg_ioctl_arg` through its pointer, and through
    // `data` a `blkpg_partition`; both have the kernel's layout (asserted
    // above) and live until the call returns. It writes to neither.
    unsafe { ioctl(disk, Setter::<BLKPG, BlkpgArgument>::new(argument)) }?;
    Ok(())
}

/// Lets the mounted ext4 file system that `inside` lies in have `blocks`
/// blocks.
///
/// # Errors
///
/// What the kernel says.
pub fn resize_ext4(inside: BorrowedFd<'_>, blocks: u64) -> io::Result<()> {
    // SAFETY: EXT4_IOC_RESIZE_FS reads one `__u64` through its pointer, which
    // the setter points at its own copy of `blocks`. On another file system
    // the kernel answers ENOTTY or reads the same eight bytes.
    unsafe { ioctl(inside, Setter::<EXT4_RESIZE, u64>::new(blocks)) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn files_that_are_no_disks_are_refused() {
        let file = std::fs::File::open("/dev/null").expect("open");
        assert!(resize_partition(file.as_fd(), 1, 0, 4096).is_err());
        assert!(resize_ext4(file.as_fd(), 1).is_err());
        assert!(resize_partition(file.as_fd(), 1, 0, u64::MAX).is_err());
    }
}
