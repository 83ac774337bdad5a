//! The one module with `unsafe`: system calls that rustix has no safe call for.

#![allow(unsafe_code, reason = "each block says why it is sound")]

use std::ffi::{c_int, c_longlong, c_void};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr;

use rustix::ioctl::{Opcode, Setter, ioctl};

#[cfg(target_arch = "x86_64")]
use crate::media::guestinfo::Registers;

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

/// Ends the process at once, without anything that Rust or libc would still do.
pub fn exit_now(status: c_int) -> ! {
    // SAFETY: `_exit` takes a number and does not return.
    unsafe { libc::_exit(status) }
}

/// Asks for the right to the I/O port `port`; without it, touching the port
/// ends the process, but where a hypervisor gives it to everybody.
#[cfg(target_arch = "x86_64")]
pub fn allow_port(port: u32) {
    // SAFETY: it changes which ports this process may touch, and no memory.
    unsafe { libc::ioperm(u64::from(port), 4, 1) };
}

/// Reads four bytes at the port in `edx`, with the other registers as the one
/// behind it wants them; gives back what it left in them.
#[cfg(target_arch = "x86_64")]
pub fn read_port(mut registers: Registers) -> Registers {
    let mut ebx = u64::from(registers.ebx);
    // SAFETY: the instruction reads a port into a register. `VMware`'s answers
    // in these registers only, and in no memory; `rbx`, which is not ours to
    // take, has its old value again afterwards.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {ebx}",
            "in eax, dx",
            "xchg rbx, {ebx}",
            ebx = inout(reg) ebx,
            inout("eax") registers.eax,
            inout("ecx") registers.ecx,
            inout("edx") registers.edx,
            inout("esi") registers.esi,
            inout("edi") registers.edi,
            options(nomem, nostack),
        );
    }
    registers.ebx = u32::try_from(ebx & u64::from(u32::MAX)).unwrap_or_default();
    registers
}

/// `struct landlock_ruleset_attr` of ABI 1 (Linux `include/uapi/linux/landlock.h`).
#[repr(C)]
struct LandlockRuleset {
    handled_access_fs: u64,
}

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const LANDLOCK_VERSION: u32 = 1;
/// `LANDLOCK_ACCESS_FS_*` of ABI 1, 2 (refer) and 3 (truncate).
const LANDLOCK_ACCESS: [u64; 3] = [0x1fff, 0x3fff, 0x7fff];

/// Takes every file from this process and its children: nothing can be opened
/// any more. A kernel without Landlock changes nothing, and says nothing.
///
/// # Errors
///
/// What a kernel with Landlock says; `no_new_privs` must be set before.
pub fn deny_file_system() -> io::Result<()> {
    // SAFETY: with this flag the call takes neither attributes nor a size.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<LandlockRuleset>(),
            0_usize,
            LANDLOCK_VERSION,
        )
    };
    let Ok(version @ 1..) = usize::try_from(version) else {
        return Ok(());
    };
    let access = LANDLOCK_ACCESS.get(version - 1).copied();
    let ruleset = LandlockRuleset {
        handled_access_fs: access.unwrap_or(LANDLOCK_ACCESS[2]),
    };
    // SAFETY: the kernel reads as many bytes of `ruleset` as its size says.
    let file = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::from_ref(&ruleset),
            size_of::<LandlockRuleset>(),
            0_u32,
        )
    };
    if file < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both are numbers; the ruleset was opened just now.
    if unsafe { libc::syscall(libc::SYS_landlock_restrict_self, file, 0_u32) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// `AUDIT_ARCH_*` of this machine (Linux `include/uapi/linux/audit.h`).
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// One instruction of classic BPF.
const fn bpf(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// `BPF_LD | BPF_W | BPF_ABS`, `BPF_JMP | BPF_JEQ | BPF_K`,
/// `BPF_JMP | BPF_JSET | BPF_K`, `BPF_RET | BPF_K`.
const LOAD: u16 = 0x20;
const IS_EQUAL: u16 = 0x15;
const HAS_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
/// `SECCOMP_RET_ERRNO` with `ENOSYS`.
const NO_SUCH_CALL: u32 = 0x0005_0000 | 0x26;

/// Offsets in `struct seccomp_data`; of arguments the low half.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn argument(at: u32) -> u32 {
    16 + 8 * at
}

/// What a reader may do: read descriptor 0, write descriptor 1, take and give
/// back anonymous memory that is not executable, end. `mremap` is told not to
/// exist, and the allocator copies instead. Anything else kills the process.
fn reader_filter() -> Vec<libc::sock_filter> {
    let number = |call: i64| u32::try_from(call).unwrap_or(u32::MAX);
    let mut filter = vec![
        bpf(LOAD, ARCH, 0, 0),
        bpf(IS_EQUAL, ARCHITECTURE, 1, 0),
        bpf(RETURN, KILL_PROCESS, 0, 0),
    ];
    // One block for each call: when the number is another, all of it is
    // skipped; when an argument is another, it ends the process.
    let mut block = |call: i64, body: &[libc::sock_filter]| {
        let skip = u8::try_from(body.len()).unwrap_or(u8::MAX);
        filter.push(bpf(LOAD, NUMBER, 0, 0));
        filter.push(bpf(IS_EQUAL, number(call), 0, skip));
        filter.extend_from_slice(body);
    };
    let yes = bpf(RETURN, ALLOW, 0, 0);
    let no = bpf(RETURN, KILL_PROCESS, 0, 0);
    let descriptor = |fd| {
        [
            bpf(LOAD, argument(0), 0, 0),
            bpf(IS_EQUAL, fd, 0, 1),
            yes,
            no,
        ]
    };
    block(libc::SYS_read, &descriptor(0));
    block(libc::SYS_pread64, &descriptor(0));
    block(libc::SYS_write, &descriptor(1));
    for call in [
        libc::SYS_brk,
        libc::SYS_munmap,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ] {
        block(call, &[yes]);
    }
    let (protection, flags, file) = (argument(2), argument(3), argument(4));
    let executable = libc::PROT_EXEC.unsigned_abs();
    let anonymous = libc::MAP_ANONYMOUS.unsigned_abs();
    block(
        libc::SYS_mmap,
        &[
            bpf(LOAD, protection, 0, 0),
            bpf(HAS_BITS, executable, 4, 0),
            bpf(LOAD, flags, 0, 0),
            bpf(HAS_BITS, anonymous, 0, 2),
            bpf(LOAD, file, 0, 0),
            bpf(IS_EQUAL, u32::MAX, 1, 0),
            no,
            yes,
        ],
    );
    block(libc::SYS_mremap, &[bpf(RETURN, NO_SUCH_CALL, 0, 0)]);
    filter.push(no);
    filter
}

/// Takes every system call from this process that a reader of media does not
/// need.
///
/// # Errors
///
/// What the kernel says; `no_new_privs` must be set before.
pub fn deny_system_calls() -> io::Result<()> {
    let mut filter = reader_filter();
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the kernel reads `len` instructions from `filter` and copies
    // them; both live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0_u32,
            ptr::from_ref(&program),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
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
