//! The reader of media runs as a child of the agent that can do nothing else:
//! the agent itself, executed again, with the disk as its standard input and
//! a pipe as its standard output. Another such child asks `VMware` for its
//! variable: it has no input, and before all else it takes the right to one
//! I/O port, which the rest leaves it.
//!
//! Before it looks at a byte of the medium, or asks, it gives up, in this order:
//! memory, time and files (limits), the file system (Landlock, where the
//! kernel has it), root (it becomes `nobody`), and every system call but
//! reading its input, writing its output, anonymous memory and the end
//! (seccomp; anything else kills it).
//!
//! Checked by: `firstboot/tests/confined.rs`, which runs it under strace.

use std::fs::File;
use std::io;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::stdio::{stdin, stdout};
use rustix::thread::{set_no_new_privs, set_thread_gid, set_thread_groups, set_thread_uid};

use super::content::{read_disk, stream};
#[cfg(target_arch = "x86_64")]
use super::guestinfo;
use super::wire::{END, Speaker, Told, listen};
use super::{Candidate, PAYLOAD_LIMIT};
use crate::init::gpt::ReadAt;
use crate::sys;

/// The word on the command line that makes the agent such a child.
pub const COMMAND: &str = "read-medium";
/// And the one for the hypervisor's variable.
#[cfg(target_arch = "x86_64")]
pub const GUESTINFO: &str = "read-guestinfo";
/// `nobody` and `nogroup` of every Debian system.
const NOBODY: u32 = 65_534;
/// Address space of the child.
const MEMORY: u64 = 64 << 20;
/// Processor seconds for a look, and for a bundle of 4 GiB.
const SECONDS: u64 = 5;
const STREAM_SECONDS: u64 = 600;
/// How long a slow medium may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// The disk: our standard input.
struct Disk;

impl ReadAt for Disk {
    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            let count = match rustix::io::pread(stdin(), &mut *buf, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => count,
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            buf = buf.get_mut(count..).unwrap_or_default();
            offset += count as u64;
        }
        Ok(())
    }
}

fn say(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(stdout(), bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// The child's life. `words` are the size of the disk, the size of its
/// sectors and, for a bundle, the partition and the name.
pub fn run(words: &[&str]) -> ! {
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
    let (Some(size), Some(sector)) = (number(0), number(1)) else {
        sys::exit_now(64);
    };
    let name = words.get(3).copied();
    if confine(if name.is_some() {
        STREAM_SECONDS
    } else {
        SECONDS
    })
    .is_err()
    {
        sys::exit_now(71);
    }
    let done = match name {
        None => {
            let mut write = |bytes: &[u8]| say(bytes);
            let mut speaker = Speaker::new(&mut write);
            read_disk(&Disk, sector, size, &mut speaker);
            speaker.record(END, &[]);
            speaker.result.is_ok()
        }
        Some(name) => {
            let partition = number(2).and_then(|number| u32::try_from(number).ok());
            let mut write = |bytes: &[u8]| say(bytes);
            partition.is_some_and(|partition| {
                stream(&Disk, sector, size, partition, name, &mut write).is_ok()
            })
        }
    };
    sys::exit_now(i32::from(!done))
}

/// The life of a child that asks `VMware` for its variable, and says its
/// bytes. On another machine it may be killed.
#[cfg(target_arch = "x86_64")]
pub fn run_guestinfo() -> ! {
    sys::allow_port(guestinfo::PORT);
    if confine(SECONDS).is_ok()
        && let Some(value) = guestinfo::get(&mut sys::read_port)
    {
        sys::exit_now(i32::from(say(&value).is_err()));
    }
    sys::exit_now(1)
}

/// Lets a child ask; nothing where there is no variable.
#[cfg(target_arch = "x86_64")]
pub fn ask_guestinfo() -> Option<Vec<u8>> {
    let nothing = File::open("/dev/null").ok()?;
    let mut child = start(GUESTINFO, nothing, &[]).ok()?;
    let mut value = Vec::new();
    let mut pipe = child.stdout.take()?;
    let limit = guestinfo::TEXT_LIMIT as u64 + 4;
    let end = Instant::now() + PATIENCE;
    let heard = loop {
        let mut buffer = [0; 4096];
        match wait_for(&pipe, end).and_then(|()| io::Read::read(&mut pipe, &mut buffer)) {
            Ok(0) => break true,
            Ok(count) => value.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(_) => break false,
        }
        if value.len() as u64 > limit {
            break false;
        }
    };
    let is_whole = finish(&mut child, heard).is_ok_and(|is_done| is_done && heard);
    is_whole.then_some(value)
}

fn confine(seconds: u64) -> io::Result<()> {
    let limit = |resource, value| {
        let limit = Rlimit {
            current: Some(value),
            maximum: Some(value),
        };
        setrlimit(resource, limit)
    };
    limit(Resource::As, MEMORY)?;
    limit(Resource::Cpu, seconds)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Nproc, 0)?;
    set_no_new_privs(true)?;
    sys::deny_file_system()?;
    limit(Resource::Nofile, 0)?;
    // Somebody who is not root has nothing to give up.
    if rustix::process::geteuid().is_root() {
        set_thread_groups(&[])?;
        set_thread_gid(rustix::fs::Gid::from_raw(NOBODY))?;
        set_thread_uid(rustix::fs::Uid::from_raw(NOBODY))?;
    }
    sys::deny_system_calls()
}

/// Starts a child for `command` on `disk`.
#[expect(
    clippy::disallowed_types,
    reason = "not a program of others: the agent executes itself"
)]
fn start(command: &str, disk: File, words: &[String]) -> io::Result<Child> {
    std::process::Command::new("/proc/self/exe")
        .arg(command)
        .args(words)
        .env_clear()
        .stdin(disk)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
}

/// Lets a child look at `disk`, which the kernel calls `name`.
pub fn look(disk: File, name: &str, sector: u64, size: u64) -> Told {
    let mut told = Told::of(name);
    let words = [size.to_string(), sector.to_string()];
    if let Err(error) = look_with(disk, &words, &mut told) {
        told.gave_up(&match error.kind() {
            io::ErrorKind::TimedOut => "takes too long to be read".to_owned(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
                "is damaged in a way that stopped its reader".to_owned()
            }
            _ => format!("cannot be read: {error}"),
        });
    }
    told
}

fn look_with(disk: File, words: &[String], told: &mut Told) -> io::Result<()> {
    let mut child = start(COMMAND, disk, words)?;
    let end = Instant::now() + PATIENCE;
    let mut pipe = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let result = listen(told, &mut |buffer| {
        wait_for(&pipe, end)?;
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            wait_for(&pipe, end)?;
            match io::Read::read(&mut pipe, rest)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        Ok(())
    });
    finish(&mut child, result.is_ok())?;
    result
}

fn wait_for(pipe: &impl std::os::fd::AsFd, end: Instant) -> io::Result<()> {
    let left = end.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
    let mut polled = [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)];
    match poll(&mut polled, Some(&timeout)) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes the child's leave: one that has nothing more to say is stopped.
fn finish(child: &mut Child, is_done: bool) -> io::Result<bool> {
    if !is_done {
        child.kill()?;
    }
    Ok(child.wait()?.success())
}

/// Passes the bytes of a bundle on: exactly as many as the medium said.
/// `disk` is the candidate's whole disk.
///
/// # Errors
///
/// `InvalidData` when the medium does not keep its word; what `sink` says.
pub fn read_payload(
    disk: File,
    (sector, size): (u64, u64),
    candidate: &Candidate,
    name: &str,
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let lie = || io::Error::from(io::ErrorKind::InvalidData);
    let says = *candidate.payload.get(name).ok_or_else(lie)?;
    let words = [
        size.to_string(),
        sector.to_string(),
        candidate.partition.to_string(),
        name.to_owned(),
    ];
    let mut child = start(COMMAND, disk, &words)?;
    let mut pipe = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let result = pass_on(&mut pipe, says.min(PAYLOAD_LIMIT), sink);
    let is_honest = finish(&mut child, result.is_ok())?;
    result?;
    if is_honest { Ok(()) } else { Err(lie()) }
}

fn pass_on(
    pipe: &mut std::process::ChildStdout,
    says: u64,
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut left = says;
    loop {
        wait_for(pipe, Instant::now() + PATIENCE)?;
        let count = io::Read::read(pipe, &mut buffer)?;
        if count == 0 && left == 0 {
            return Ok(());
        }
        if count == 0 || count as u64 > left {
            return Err(io::ErrorKind::InvalidData.into());
        }
        left -= count as u64;
        sink(buffer.get(..count).unwrap_or_default())?;
    }
}
