//! What the scripts see besides the root: /proc and a small /dev.

use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::mount::{mount, mount_bind, mount_bind_recursive, mount_change, unmount};

use super::driver::Driver;
use super::fault::Fault;

/// Devices of the host that scripts may use, and whether they must be there.
const DEVICES: [(&str, Need); 6] = [
    ("null", Need::Always),
    ("zero", Need::Always),
    ("full", Need::Always),
    ("random", Need::Always),
    ("urandom", Need::Always),
    ("tty", Need::WhereThere),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Always,
    WhereThere,
}

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Mounts what scripts need in `root`, makes it this process's root, and
/// lets go of the host's. The folders `proc` and `dev` must be there.
pub(super) fn take_root(root: &Path, driver: Driver) -> Result<(), Fault> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| Fault::Mount {
            what,
            reason: error.to_string(),
        }
    };
    // Nothing that is mounted here shows outside.
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
    .map_err(|error| failed("privately")(error.into()))?;
    mount_bind_recursive(root, root).map_err(|error| failed("the root")(error.into()))?;
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount(
        "proc",
        root.join("proc"),
        "proc",
        quiet | MountFlags::NODEV,
        None,
    )
    .map_err(|error| failed("/proc")(error.into()))?;
    small_dev(&root.join("dev"), quiet).map_err(failed("/dev"))?;
    let taken = match driver {
        // The first root of a machine cannot be left by pivot_root(2), and
        // nothing is in it that is worth it.
        Driver::Vm => rustix::process::chroot(root)
            .map_err(io::Error::from)
            .and_then(|()| std::env::set_current_dir("/")),
        _ => pivot(root),
    };
    taken.map_err(failed("the root in place of the host's"))
}

/// An empty root that is seen by this process only, to find out whether
/// [`take_root`] is allowed here.
pub(super) fn trial_root() -> Result<PathBuf, Fault> {
    let failed = |error: io::Error| Fault::Mount {
        what: "a trial root".into(),
        reason: error.to_string(),
    };
    let flags = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", flags).map_err(|error| failed(error.into()))?;
    let places = ["/tmp", "/var/tmp", "/mnt", "/sys"].map(Path::new);
    let place = places.into_iter().find(|place| place.is_dir());
    let place = place.unwrap_or(Path::new("/"));
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    mount("trial", place, "tmpfs", quiet, c"mode=755,size=64k")
        .map_err(|error| failed(error.into()))?;
    for name in ["proc", "dev"] {
        std::fs::create_dir(place.join(name)).map_err(failed)?;
    }
    Ok(place.to_owned())
}

fn small_dev(dev: &Path, quiet: MountFlags) -> io::Result<()> {
    mount("dev", dev, "tmpfs", quiet, c"mode=755,size=1m")?;
    for (name, need) in DEVICES {
        let host = Path::new("/dev").join(name);
        if need == Need::WhereThere && !host.exists() {
            continue;
        }
        let place = dev.join(name);
        std::fs::write(&place, b"")?;
        mount_bind(&host, &place)?;
    }
    for (target, name) in LINKS {
        std::os::unix::fs::symlink(target, dev.join(name))?;
    }
    let pts = dev.join("pts");
    std::fs::create_dir(&pts)?;
    mount(
        "devpts",
        &pts,
        "devpts",
        quiet,
        c"newinstance,ptmxmode=0666,mode=620",
    )?;
    let shm = dev.join("shm");
    std::fs::create_dir(&shm)?;
    mount(
        "shm",
        &shm,
        "tmpfs",
        quiet | MountFlags::NODEV,
        c"mode=1777",
    )?;
    Ok(())
}

/// The old root ends up on top of the new one, and is taken off.
fn pivot(root: &Path) -> io::Result<()> {
    std::env::set_current_dir(root)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}
