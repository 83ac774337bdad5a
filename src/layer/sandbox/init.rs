//! `__sandbox-init`: pid 1 of the scripts, where they have namespaces.
#![expect(
    clippy::disallowed_types,
    reason = "it starts the target's own programs, which are no tools of the host"
)]

use std::io::{self, BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command as Program, ExitCode, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::UnshareFlags;

use super::chroot::{Furniture, end_descendants};
use super::dev::{take_root, trial_root};
use super::driver::{Driver, Network, Walls};
use super::enter::{die_with_parent, unshare};
use super::fault::Fault;
use super::protocol::{self, Command, ScriptReply, Setup};

/// How much of the output is kept.
const OUTPUT_KEPT: usize = 1024;

/// Takes the root that the first line names, then runs commands until the
/// input ends. When it ends, the kernel ends all that scripts left running.
pub(super) fn run() -> ExitCode {
    let Some(walls) = Walls::of_this_process() else {
        return ExitCode::FAILURE;
    };
    // The lock is free again before another thread asks for it.
    let prepared = prepare(&mut io::stdin().lock(), walls);
    let ended = prepared.and_then(|place| {
        let work = move || {
            let served = serve(&place, &mut io::stdin().lock(), &mut io::stdout().lock());
            place.leave().and(served)
        };
        match walls.driver {
            Driver::Chroot => work(),
            Driver::Userns | Driver::Root | Driver::Vm => beside_pid_one(work),
        }
    });
    let said = match ended {
        Ok(()) => Ok(()),
        Err(fault) => protocol::send(&mut io::stdout().lock(), &ScriptReply::Failed(fault)),
    };
    if said.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Does `work` in a thread whose mounts are a copy of this process's. By that
/// ischroot(1) knows that there is no init to be told anything: it compares
/// the mounts of pid 1 with its own, and libc6 waits a second otherwise.
fn beside_pid_one(work: impl FnOnce() -> Result<(), Fault> + Send) -> Result<(), Fault> {
    let done = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Where that is refused, the second is lost and nothing else.
            let _apart = unshare(UnshareFlags::NEWNS);
            work()
        });
        thread.join()
    });
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn talk(error: io::Error) -> Fault {
    Fault::Talk {
        reason: error.to_string(),
    }
}

/// Runs commands until the input ends.
fn serve(
    place: &Place,
    input: &mut impl io::BufRead,
    output: &mut impl io::Write,
) -> Result<(), Fault> {
    protocol::send(output, &ScriptReply::Ready).map_err(talk)?;
    while let Some(command) = protocol::receive::<Command>(input).map_err(talk)? {
        let reply = run_command(&command, place, output).map_err(|error| Fault::System {
            action: "start".into(),
            path: command.argv.first().cloned().unwrap_or_default(),
            reason: error.to_string(),
            is_full: false,
        })?;
        protocol::send(output, &reply).map_err(talk)?;
    }
    Ok(())
}

/// Where programs are started from.
enum Place {
    /// The root is this process's own, and this is its pid 1.
    Own,
    /// The root is a folder of the host.
    Folder(Furniture, Network),
}

impl Place {
    fn program(&self, argv: &[String]) -> io::Result<Program> {
        match self {
            Self::Own => {
                let (program, arguments) = argv
                    .split_first()
                    .ok_or_else(|| io::Error::other("no program was named"))?;
                let mut call = Program::new(program);
                call.args(arguments);
                Ok(call)
            }
            Self::Folder(furniture, network) => Ok(furniture.program(argv, *network)),
        }
    }

    /// Ends every process that a command left running.
    fn end_stragglers(&self) {
        match self {
            Self::Own => end_all_but_pid_one(),
            Self::Folder(..) => end_descendants(),
        }
    }

    fn leave(self) -> Result<(), Fault> {
        match self {
            Self::Own => Ok(()),
            Self::Folder(furniture, _) => furniture.take_back(),
        }
    }
}

fn prepare(input: &mut impl io::BufRead, walls: Walls) -> Result<Place, Fault> {
    let enter = |error: io::Error| Fault::Namespaces {
        reason: error.to_string(),
    };
    die_with_parent().map_err(enter)?;
    rustix::process::setsid().map_err(|error| enter(error.into()))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let setup: Option<Setup> = protocol::receive(input).map_err(talk)?;
    let setup = setup.ok_or_else(|| Fault::Talk {
        reason: "no root was named".into(),
    })?;
    if walls.driver == Driver::Chroot {
        return prepare_chroot(&setup, walls).map_err(enter)?;
    }
    name_the_host().map_err(enter)?;
    match setup {
        Setup::Root(root) => take_root(&root, walls.driver)?,
        Setup::Trial => take_root(&trial_root()?, walls.driver)?,
    }
    Ok(Place::Own)
}

fn name_the_host() -> io::Result<()> {
    Ok(rustix::system::sethostname(b"localhost")?)
}

fn prepare_chroot(setup: &Setup, walls: Walls) -> io::Result<Result<Place, Fault>> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // What can be had without mounts is had.
    if unshare(UnshareFlags::NEWUTS).is_ok() {
        name_the_host()?;
    }
    let _own = unshare(UnshareFlags::NEWIPC);
    match setup {
        Setup::Root(root) => {
            Ok(Furniture::put(root).map(|furniture| Place::Folder(furniture, walls.network)))
        }
        Setup::Trial => {
            rustix::process::chroot(Path::new("/"))?;
            Ok(Ok(Place::Own))
        }
    }
}

fn run_command(
    command: &Command,
    place: &Place,
    replies: &mut impl io::Write,
) -> io::Result<ScriptReply> {
    let (reader, writer) = io::pipe()?;
    let mut call = place.program(&command.argv)?;
    call.env_clear()
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&command.folder)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut child = call.spawn()?;
    // The pipe's ends in `call` would keep the output from ending.
    drop(call);
    let mut listener = Listener::default();
    let mut lines = BufReader::new(reader);
    let mut line = Vec::new();
    // A daemon that a script left behind would hold the pipe for ever.
    let (status, heard) = std::thread::scope(|scope| {
        let waiter = scope.spawn(move || {
            let status = child.wait();
            place.end_stragglers();
            status
        });
        let heard = listen(&mut lines, &mut line, |bytes| {
            if command.is_dpkg
                && let Some(package) = listener.hear(bytes)
            {
                protocol::send(replies, &ScriptReply::Configuring(package))?;
            } else {
                listener.keep(bytes);
            }
            Ok(())
        });
        (waiter.join(), heard)
    });
    heard?;
    let status = status.map_err(|_| io::Error::other("the waiting thread ended"))??;
    replies.flush()?;
    Ok(ScriptReply::Ended {
        is_success: status.success(),
        status: in_words(status),
        package: listener.package,
        output: String::from_utf8_lossy(&listener.kept).into_owned(),
    })
}

/// Ends every process of this namespace but this one, pid 1.
fn end_all_but_pid_one() {
    let processes = crate::tree::list_folder(Path::new("/proc")).unwrap_or_default();
    for process in processes {
        let id = process.name.to_str().and_then(|name| name.parse().ok());
        if let Some(pid) = id.filter(|id| *id > 1).and_then(Pid::from_raw) {
            // One that has ended meanwhile is as well.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Calls `each` with every line until the output ends.
fn listen(
    lines: &mut impl io::BufRead,
    line: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        line.clear();
        // A line without end is cut where it no longer can be one of dpkg's.
        let count = io::Read::take(&mut *lines, 64 << 10).read_until(b'\n', line)?;
        if count == 0 {
            return Ok(());
        }
        each(line)?;
    }
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// Follows what dpkg says, and keeps the last of it.
///
/// `--status-fd` would say it for programs, but on another descriptor, and so
/// without an order between it and the words of the scripts.
#[derive(Default)]
struct Listener {
    package: Option<String>,
    kept: Vec<u8>,
    /// A package failed: what is kept tells why, and dpkg's farewell does not.
    has_failed: bool,
}

impl Listener {
    /// Takes a line; gives the package whose turn begins.
    fn hear(&mut self, line: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(line).ok()?.trim_end();
        // dpkg goes on for a while, with triggers of others.
        if let Some(rest) = text.strip_prefix("dpkg: error processing package ")
            && !self.has_failed
        {
            self.package = rest.split(' ').next().map(str::to_owned);
            self.has_failed = true;
        }
        let rest = text
            .strip_prefix("Setting up ")
            .or_else(|| text.strip_prefix("Processing triggers for "))?;
        let (package, _) = rest.strip_suffix(" ...")?.split_once(" (")?;
        if self.has_failed {
            return None;
        }
        self.kept.clear();
        self.package = Some(package.to_owned());
        Some(package.to_owned())
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.has_failed {
            return;
        }
        self.kept.extend_from_slice(bytes);
        let surplus = self.kept.len().saturating_sub(OUTPUT_KEPT);
        self.kept.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_that_is_kept_belongs_to_the_last_package() {
        let mut listener = Listener::default();
        listener.keep(b"old words\n");
        let heard = listener.hear(b"Setting up nginx (1.22.1-9) ...\n");
        assert_eq!(heard.as_deref(), Some("nginx"));
        listener.keep(&[b'x'; 2000]);
        listener.keep(b"last words\n");
        assert_eq!(listener.kept.len(), OUTPUT_KEPT);
        assert!(listener.kept.ends_with(b"xlast words\n"));
        assert!(listener.hear(b"Setting up the system\n").is_none());
        listener.hear(b"dpkg: error processing package libc6:amd64 (--configure):\n");
        assert_eq!(listener.package.as_deref(), Some("libc6:amd64"));
        let later = listener.hear(b"Processing triggers for libc-bin (2.36-9) ...\n");
        assert_eq!(later, None);
        assert_eq!(listener.package.as_deref(), Some("libc6:amd64"));
        listener.hear(b"Errors were encountered while processing:\n");
        listener.keep(b" libc6:amd64\n");
        assert!(listener.kept.ends_with(b"last words\n"));
    }
}
