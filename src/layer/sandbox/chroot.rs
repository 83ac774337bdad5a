//! A root without mounts: what scripts need is put into it as files, and
//! taken out again.
//!
//! For root in a container that may neither mount nor make namespaces. What
//! scripts then have to do without:
//!
//! * /proc is a handful of files that say what the host's do; `/proc/self`
//!   and with it `/dev/fd` are missing. Programs that open files by
//!   `/proc/self/fd` fail;
//! * devices are made with `mknod` where that is allowed; elsewhere
//!   `/dev/null` and its like are plain files, and what is written stays in
//!   them until the scripts are through;
//! * the host's name, processes and IPC objects are seen, where the system
//!   refuses namespaces one by one too;
//! * the network is kept away by a filter on `socket`, loopback included;
//! * it keeps honest scripts apart from the host, not malicious ones: root
//!   can leave a chroot.
//!
//! Source: chroot(2), mknod(2), seccomp(2).
#![expect(
    clippy::disallowed_types,
    reason = "it becomes the target's own programs, which are no tools of the host"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, ExitCode};

use rustix::fs::{FileType, Mode, makedev};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use super::ARG_CHROOT;
use super::driver::Network;
use super::enter::{MYSELF, die_with_parent};
use super::fault::Fault;
use crate::tree::list_folder;

/// Devices that scripts count on, by their numbers, and what a plain file in
/// their place holds.
const DEVICES: [(&str, u32, u32, Stand); 6] = [
    ("null", 1, 3, Stand::Empty),
    ("zero", 1, 5, Stand::Zeros),
    ("full", 1, 7, Stand::Empty),
    ("random", 1, 8, Stand::Chance),
    ("urandom", 1, 9, Stand::Chance),
    ("tty", 5, 0, Stand::Nothing),
];

/// What stands in for a device.
#[derive(Clone, Copy)]
enum Stand {
    Nothing,
    Empty,
    Zeros,
    Chance,
}

/// Bytes in the plain files that stand for endless devices.
const ENDLESS: usize = 1 << 20;

/// Files of /proc that scripts read. Those that tell about the machine are
/// the host's, as in a new namespace too.
const OF_THE_HOST: [&str; 6] = [
    "cpuinfo",
    "meminfo",
    "version",
    "filesystems",
    "sys/kernel/osrelease",
    "sys/kernel/ostype",
];

/// The folders that are lent to the root, and where its own are meanwhile.
#[derive(Debug)]
pub(super) struct Furniture {
    root: PathBuf,
}

const LENT: [&str; 2] = ["proc", "dev"];

impl Furniture {
    /// Puts a small /proc and /dev into `root`, whose folder is used for what
    /// was there.
    pub(super) fn put(root: &Path) -> Result<Self, Fault> {
        let furniture = Self {
            root: root.to_owned(),
        };
        let made = furniture.swap_in().and_then(|()| {
            small_proc(&root.join("proc"))?;
            small_dev(&root.join("dev"))
        });
        made.map_err(|error| Fault::Mount {
            what: "/proc and /dev as files".into(),
            reason: error.to_string(),
        })?;
        Ok(furniture)
    }

    fn aside(&self, name: &str) -> PathBuf {
        self.root.with_file_name(format!("own-{name}"))
    }

    fn swap_in(&self) -> io::Result<()> {
        for name in LENT {
            let place = self.root.join(name);
            std::fs::rename(&place, self.aside(name))?;
            std::fs::create_dir(&place)?;
            let mode = Mode::from_raw_mode(0o755);
            rustix::fs::chmod(&place, mode)?;
        }
        Ok(())
    }

    /// Gives the root its own folders back.
    pub(super) fn take_back(self) -> Result<(), Fault> {
        for name in LENT {
            let place = self.root.join(name);
            std::fs::remove_dir_all(&place)
                .and_then(|()| std::fs::rename(self.aside(name), &place))
                .map_err(|error| Fault::system("clear", format!("/{name}"), error))?;
        }
        Ok(())
    }

    /// The program, to be started in the root.
    pub(super) fn program(&self, argv: &[String], network: Network) -> Program {
        let mut program = Program::new(MYSELF);
        let network = match network {
            Network::Off => "offline",
            Network::On => "online",
        };
        program.args([ARG_CHROOT, network]).arg(&self.root);
        program.args(argv);
        program
    }
}

fn small_proc(proc: &Path) -> io::Result<()> {
    std::fs::create_dir_all(proc.join("sys/kernel"))?;
    for name in OF_THE_HOST {
        let text = std::fs::read(Path::new("/proc").join(name)).unwrap_or_default();
        std::fs::write(proc.join(name), text)?;
    }
    std::fs::write(proc.join("mounts"), "root / none rw 0 0\n")?;
    std::fs::write(proc.join("sys/kernel/hostname"), "localhost\n")?;
    std::fs::write(proc.join("cmdline"), "\n")
}

fn small_dev(dev: &Path) -> io::Result<()> {
    for (name, major, minor, stand) in DEVICES {
        let place = dev.join(name);
        if !has_device(&place, makedev(major, minor)) {
            stand_in(&place, stand)?;
        }
    }
    // Where /proc/self is missing, words are lost rather than refused.
    for name in ["stdout", "stderr"] {
        stand_in(&dev.join(name), Stand::Empty)?;
    }
    std::os::unix::fs::symlink("null", dev.join("stdin"))?;
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777)] {
        std::fs::create_dir(dev.join(name))?;
        rustix::fs::chmod(dev.join(name), Mode::from_raw_mode(mode))?;
    }
    Ok(())
}

/// Makes the device, if that is allowed here and a device of this file
/// system works.
fn has_device(place: &Path, device: u64) -> bool {
    let everybody = Mode::from_raw_mode(0o666);
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        place,
        FileType::CharacterDevice,
        everybody,
        device,
    );
    let opens = || {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
        let opened = rustix::fs::open(place, flags, Mode::empty());
        // A terminal that this process has not is a device that works.
        opened.is_ok() || opened.is_err_and(|error| error == rustix::io::Errno::NXIO)
    };
    if made.is_err() {
        return false;
    }
    let works = opens() && rustix::fs::chmod(place, everybody).is_ok();
    works || std::fs::remove_file(place).is_err()
}

fn stand_in(place: &Path, stand: Stand) -> io::Result<()> {
    let bytes = match stand {
        Stand::Nothing => return Ok(()),
        Stand::Empty => Vec::new(),
        Stand::Zeros => vec![0; ENDLESS],
        Stand::Chance => {
            let mut bytes = Vec::new();
            let host = std::fs::File::open("/dev/urandom")?;
            io::Read::read_to_end(&mut io::Read::take(host, ENDLESS as u64), &mut bytes)?;
            bytes
        }
    };
    std::fs::write(place, bytes)?;
    Ok(rustix::fs::chmod(place, Mode::from_raw_mode(0o666))?)
}

/// `__sandbox-chroot NETWORK ROOT PROGRAM ARGUMENT...`: becomes the program
/// in the root.
pub(super) fn main() -> ExitCode {
    let error = match become_program() {
        Ok(never) => never,
        Err(error) => error,
    };
    // The pipe goes to who started this, as the program's own words would.
    let words = format!("cannot start it in the chroot: {error}\n");
    let _said = rustix::io::write(rustix::stdio::stderr(), words.as_bytes());
    ExitCode::from(126)
}

/// Comes back with an error only.
fn become_program() -> io::Result<io::Error> {
    let mut arguments = std::env::args_os().skip(2);
    let wrong = || io::Error::from(io::ErrorKind::InvalidInput);
    let network = arguments.next().ok_or_else(wrong)?;
    let root = PathBuf::from(arguments.next().ok_or_else(wrong)?);
    let program = arguments.next().ok_or_else(wrong)?;
    let rest: Vec<OsString> = arguments.collect();
    die_with_parent()?;
    rustix::process::chroot(&root)?;
    std::env::set_current_dir("/")?;
    if network != "online" {
        without_network().map_err(io::Error::other)?;
    }
    Ok(Program::new(program).args(rest).exec())
}

/// `socket(2)` on each architecture that consign runs on.
#[cfg(target_arch = "x86_64")]
const SYS_SOCKET: i64 = 41;
#[cfg(not(target_arch = "x86_64"))]
const SYS_SOCKET: i64 = 198;
/// `AF_UNIX` and `AF_NETLINK`: talk within the machine.
const LOCAL_FAMILIES: [u64; 2] = [1, 16];

/// No sockets from here on but those that stay within the machine.
fn without_network() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, apply_filter,
    };
    let is_not =
        |family| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family);
    let conditions = LOCAL_FAMILIES.map(is_not);
    let rule = SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)?;
    let refused = rustix::io::Errno::ACCESS.raw_os_error().unsigned_abs();
    let filter = SeccompFilter::new(
        BTreeMap::from([(SYS_SOCKET, vec![rule])]),
        SeccompAction::Allow,
        SeccompAction::Errno(refused),
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    Ok(apply_filter(&program)?)
}

/// Ends all that scripts left running: every process below this one, which
/// inherits those whose parent has ended.
pub(super) fn end_descendants() {
    // A process that forks faster than it is found is no straggler.
    for _ in 0..100 {
        while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
        let found = descendants(rustix::process::getpid());
        if found.is_empty() {
            return;
        }
        for pid in found {
            // One that has ended meanwhile is as well.
            let _ended = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

fn descendants(ancestor: Pid) -> Vec<Pid> {
    let mut parents: BTreeMap<i32, i32> = BTreeMap::new();
    for process in list_folder(Path::new("/proc")).unwrap_or_default() {
        let Some(pid) = process.name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let stat = std::fs::read_to_string(process.path.join("stat")).unwrap_or_default();
        if let Some(parent) = parent_in(&stat) {
            parents.insert(pid, parent);
        }
    }
    let mut below: BTreeSet<i32> = [ancestor.as_raw_nonzero().get()].into();
    loop {
        let next: BTreeSet<i32> = parents
            .iter()
            .filter(|(pid, parent)| below.contains(parent) && !below.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if next.is_empty() {
            break;
        }
        below.extend(next);
    }
    below.remove(&ancestor.as_raw_nonzero().get());
    below.into_iter().filter_map(Pid::from_raw).collect()
}

/// The parent in the text of `/proc/PID/stat`, whose second field may hold
/// anything but ends with the last parenthesis.
fn parent_in(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_be_called_as_it_likes() {
        assert_eq!(parent_in("12 (a) b (c)) S 7 12 12"), Some(7));
        assert_eq!(parent_in("12"), None);
    }
}
