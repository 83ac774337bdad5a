//! `__sandbox-vm`: the first process of the machine.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, init_module, reboot};

use super::{DRIVER_FOLDER, PORT, WORK};
use crate::exec::{Call, Tool};
use crate::layer::sandbox::driver::Driver;
use crate::layer::sandbox::{ARG_WORKER, enter::MYSELF};
use crate::tree::list_folder;

/// How often the port is looked for, and how long between.
const LOOKS: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(20);

/// Prepares the machine, runs the worker in it, and switches it off.
pub(in crate::layer::sandbox) fn main() -> ExitCode {
    if let Err(error) = serve() {
        // The console is the host's pipe for last words.
        let words = format!("consign: the machine cannot start: {error}\n");
        let _said = rustix::io::write(rustix::stdio::stderr(), words.as_bytes());
    }
    let _off = reboot(RebootCommand::PowerOff);
    ExitCode::FAILURE
}

fn serve() -> io::Result<()> {
    let quiet = MountFlags::NOSUID;
    mount("proc", "/proc", "proc", quiet, None)?;
    mount("sys", "/sys", "sysfs", quiet, None)?;
    mount("dev", "/dev", "devtmpfs", quiet, None)?;
    mount(
        "work",
        WORK,
        "tmpfs",
        MountFlags::empty(),
        c"mode=755,size=95%",
    )?;
    load_drivers()?;
    let port = File::options().read(true).write(true).open(find_port()?)?;
    let call = Call::at(Tool::Myself, MYSELF.into()).args([ARG_WORKER, Driver::Vm.name()]);
    let mut worker = call
        .spawn(
            Stdio::from(port.try_clone()?),
            Stdio::from(port),
            Stdio::inherit(),
        )
        .map_err(io::Error::other)?;
    worker.wait().map(drop)
}

/// Loads each driver after those that it needs: whichever can be loaded.
fn load_drivers() -> io::Result<()> {
    let folder = Path::new("/").join(DRIVER_FOLDER);
    let mut waiting: Vec<PathBuf> = list_folder(&folder)?
        .into_iter()
        .map(|entry| entry.path)
        .collect();
    while !waiting.is_empty() {
        let before = waiting.len();
        let mut left = Vec::new();
        let mut last = None;
        for path in waiting {
            if let Err(error) = init_module(&std::fs::read(&path)?, c"") {
                last = Some(error);
                left.push(path);
            }
        }
        if left.len() == before {
            return Err(last.unwrap_or(rustix::io::Errno::NOENT).into());
        }
        waiting = left;
    }
    Ok(())
}

/// The device of the port, once it is there.
fn find_port() -> io::Result<PathBuf> {
    for _ in 0..LOOKS {
        for port in list_folder(Path::new("/sys/class/virtio-ports")).unwrap_or_default() {
            let name = std::fs::read_to_string(port.path.join("name")).unwrap_or_default();
            let device = Path::new("/dev").join(&port.name);
            if name.trim() == PORT && device.exists() {
                return Ok(device);
            }
        }
        std::thread::sleep(PAUSE);
    }
    Err(io::Error::other("the port to the host does not appear"))
}
