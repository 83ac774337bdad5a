//! Namespaces, from inside: the steps that each process takes before its work.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, Stdio};

use rustix::process::{Signal, set_parent_process_death_signal, umask};
use rustix::thread::UnshareFlags;

use super::driver::{Driver, Network, Walls};
use super::fault::Fault;
use super::protocol::{self, Reply, ScriptReply};
use super::{ARG_INIT, ARG_SCRIPTS};
use crate::exec::{Call, ExecError, Tool};

/// The executable that this process runs, whatever happens to its file.
pub(super) const MYSELF: &str = "/proc/self/exe";

/// Dies when the process that started this one dies.
pub(super) fn die_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

pub(super) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    #[expect(
        deprecated,
        reason = "the safe form is fine: descriptors are not unshared, which is what could hurt"
    )]
    rustix::thread::unshare(flags)
}

/// Takes the first step into the sandbox, and says how that went.
pub(super) fn enter(driver: Driver) -> Reply {
    match driver {
        Driver::Userns => match unshare(UnshareFlags::NEWUSER) {
            Ok(()) => Reply::Entered,
            Err(errno) => Reply::Refused(errno.raw_os_error()),
        },
        Driver::Root | Driver::Chroot | Driver::Vm => {
            umask(rustix::fs::Mode::from_raw_mode(0o022));
            Reply::Direct
        }
    }
}

/// Mounts a tmpfs of `size` bytes on `folder`, for this process and those
/// that it starts: it goes away with them.
pub(super) fn mount_memory(folder: &std::path::Path, size: u64) -> io::Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    unshare(UnshareFlags::NEWNS)?;
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private)?;
    let options = std::ffi::CString::new(format!("mode=700,size={size}"))?;
    let flags = MountFlags::NODEV;
    Ok(mount("layer", folder, "tmpfs", flags, options.as_c_str())?)
}

/// After the ids are mapped: no groups but root's, and no mode bits masked
/// but what Debian masks.
pub(super) fn become_root() -> io::Result<()> {
    rustix::thread::set_thread_groups(&[])?;
    umask(rustix::fs::Mode::from_raw_mode(0o022));
    die_with_parent()
}

/// Starts the next process inwards.
pub(super) fn script_process(walls: Walls) -> Result<std::process::Child, ExecError> {
    let call = myself(ARG_SCRIPTS).args(walls.arguments());
    call.spawn(Stdio::piped(), Stdio::piped(), Stdio::inherit())
}

fn myself(argument: &str) -> Call {
    Call::at(Tool::Myself, MYSELF.into()).arg(argument)
}

/// `__sandbox-scripts`: makes the namespaces, starts pid 1 in them, waits.
pub(super) fn scripts_main() -> ExitCode {
    let Some(walls) = Walls::of_this_process() else {
        return ExitCode::FAILURE;
    };
    let entered = die_with_parent().and_then(|()| make_namespaces(walls));
    let fault = match entered {
        Err(error) => Fault::Namespaces {
            reason: error.to_string(),
        },
        Ok(()) => match wait_for_init(walls) {
            Ok(code) => return code,
            Err(reason) => Fault::Talk { reason },
        },
    };
    match protocol::send(&mut io::stdout(), &ScriptReply::Failed(fault)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn make_namespaces(walls: Walls) -> io::Result<()> {
    if walls.driver == Driver::Chroot {
        return Ok(());
    }
    let mut flags =
        UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    if walls.network == Network::Off {
        flags |= UnshareFlags::NEWNET;
    }
    unshare(flags)?;
    if walls.network == Network::Off {
        super::wires::loopback_up()?;
    }
    Ok(())
}

fn wait_for_init(walls: Walls) -> Result<ExitCode, String> {
    let mut child = myself(ARG_INIT)
        .args(walls.arguments())
        .spawn(Stdio::inherit(), Stdio::inherit(), Stdio::inherit())
        .map_err(|error| error.to_string())?;
    let status = child.wait().map_err(|error| error.to_string())?;
    if let Some(signal) = status.signal() {
        return Err(format!("the process that runs scripts got signal {signal}"));
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
