//! Mounting, and making place for the system's init.

use std::convert::Infallible;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount as mount_at, mount_move};

use super::cmdline::Wanted;
use super::devices::list;
use super::disks::Found;
use super::problem::Problem;
use super::{journal, screen};

/// Where the root is mounted until it becomes `/`.
pub const SYSROOT: &str = "/sysroot";

/// Mounts `/proc`, `/sys` and `/dev`.
///
/// # Errors
///
/// [`Problem`].
pub fn mount_kernel_file_systems() -> Result<(), Problem> {
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    for (kind, place, flags, options) in [
        ("proc", "/proc", quiet, c""),
        ("sysfs", "/sys", quiet, c""),
        ("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=0755"),
    ] {
        fs::create_dir_all(place).map_err(Problem::io(format!("make {place}")))?;
        mount_at(kind, place, kind, flags, options)
            .map_err(Problem::system(format!("mount {place}")))?;
    }
    Ok(())
}

/// Mounts root and `/var`, and says so.
///
/// # Errors
///
/// [`Problem`], for a damaged file system for example.
pub fn mount(found: &Found, wanted: &Wanted) -> Result<(), Problem> {
    fs::create_dir_all(SYSROOT).map_err(Problem::io(format!("make {SYSROOT}")))?;
    mount_ext4(&found.root, SYSROOT)?;
    if let Some(var) = &found.var {
        mount_ext4(var, &format!("{SYSROOT}/var"))?;
    }
    if !found.copies.is_empty() {
        screen::mark(&format!(
            "more than one disk holds this system: {} is in use, {} is a copy; detach the one that is not meant",
            found.root,
            found.copies.join(", ")
        ));
    }
    screen::mark(&format!(
        "root mounted partuuid={} device={} slot={}",
        wanted.root, found.root, wanted.slot
    ));
    Ok(())
}

/// ext4 replays its journal here, so nothing checks it at every start; but it
/// looks first at what only the journal of a growing volume has right.
fn mount_ext4(device: &str, place: &str) -> Result<(), Problem> {
    let path = Path::new(device);
    tell_replay(device, journal::settle(path), screen::log);
    let mount = || mount_at(device, place, "ext4", MountFlags::empty(), c"");
    let mut mounted = mount();
    // The table does not fit, or the superblock was being written.
    if matches!(mounted, Err(Errno::UCLEAN | Errno::BADMSG)) {
        tell_replay(device, journal::replay(path), screen::mark);
        mounted = mount();
    }
    mounted.map_err(Problem::system(format!("mount {device} on {place}")))
}

/// Says what became of a journal, where there is something to say.
fn tell_replay(device: &str, replayed: std::io::Result<usize>, say: fn(&str)) {
    match replayed {
        Ok(0) => {}
        Ok(blocks) => say(&format!("{device}: {blocks} blocks come from its journal")),
        Err(error) => say(&format!("{device}: its journal is left to Linux: {error}")),
    }
}

/// Makes the mounted root `/` and becomes its init.
///
/// # Errors
///
/// [`Problem`]; on success it does not return.
pub fn switch(wanted: &Wanted) -> Result<Infallible, Problem> {
    for place in ["/dev", "/proc", "/sys"] {
        let target = format!("{SYSROOT}{place}");
        mount_move(place, target.as_str()).map_err(Problem::system(format!("move {place}")))?;
    }
    free_memory();
    std::env::set_current_dir(SYSROOT).map_err(Problem::io(format!("enter {SYSROOT}")))?;
    mount_move(".", "/").map_err(Problem::system("move the root"))?;
    rustix::process::chroot(".").map_err(Problem::system("change the root"))?;
    std::env::set_current_dir("/").map_err(Problem::io("enter the root"))?;
    let error = become_init(wanted);
    Err(Problem::io(format!("start {}", wanted.init))(error))
}

/// The kernel gave us init's arguments and environment.
#[expect(
    clippy::disallowed_types,
    reason = "not a program that is called: process 1 becomes the system's init"
)]
fn become_init(wanted: &Wanted) -> std::io::Error {
    std::process::Command::new(&wanted.init)
        .args(std::env::args_os().skip(1))
        .exec()
}

/// The initramfs is memory that nobody gives back later.
fn free_memory() {
    let modules = list("/modules")
        .into_iter()
        .map(|name| format!("/modules/{name}"));
    for file in modules.chain(["/init".to_owned()]) {
        // What stays only costs memory.
        let _ = fs::remove_file(file);
    }
}

/// Restarts the machine; the loader decides what comes next.
pub fn reboot() -> ! {
    rustix::fs::sync();
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    loop {
        rustix::event::pause();
    }
}
