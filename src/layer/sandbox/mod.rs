//! The sandbox: where packages are unpacked and their scripts run.
//!
//! In: requests with local paths. Out: a layer's tar in the cache folder, its
//! digest, or a [`Fault`]. Never here: the network, the clock, a choice.
//!
//! No code here needs `unsafe`: instead of forking, consign starts its own
//! executable again with a hidden first argument, and each process takes one
//! step further in:
//!
//! ```text
//! consign                     asks, maps the user's subordinate ids
//!   __sandbox                 in a user namespace: unpacks beneath the root, scans it,
//!     __sandbox-scripts       in mount, pid, ipc, uts and net namespaces of its own
//!       __sandbox-init        pid 1: /proc, a small /dev, pivot_root, runs the scripts
//! ```
//!
//! Each dies with the one above it, and the kernel ends every process below a
//! pid 1 that dies, so a killed build leaves no process. Scripts see the root
//! and nothing of the host: no network device, no host files, no host name,
//! no environment, no /sys.
//!
//! Root gets a user namespace too, with every id mapped to itself: scripts
//! then cannot load modules, set the clock or reach devices. Where that is
//! refused, root goes on without one, and where namespaces or mounts are
//! refused altogether, with a plain chroot ([`chroot`]). Each [`Driver`] is
//! tried by using it; the first that works is taken, and all give the same layer.
//!
//! Checked by: `tests/it/layer.rs`, as root and as an ordinary user.

mod choice;
mod chroot;
mod dev;
mod driver;
mod enter;
mod fault;
mod freight;
mod init;
mod lay;
mod map;
mod memory;
mod power;
pub(crate) mod protocol;
mod refusal;
mod root;
mod run;
pub(crate) mod scan;
mod scripts;
mod vm;
mod wires;
mod worker;

use std::ffi::{OsStr, OsString};
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, ExitCode, Stdio};

pub use choice::{Refused, SandboxChoice, Verdict, apparmor_profile, probe, try_driver};
pub use driver::Driver;
pub(crate) use driver::Network;
pub use fault::Fault;
pub(crate) use memory::room_for;
pub use refusal::SandboxRefusal;
pub(crate) use root::{Root, StagedFile, finish_file};
pub(crate) use scripts::{Run, ScriptRunner};

use self::protocol::{Reply, Request};
use super::LayerError;
use crate::exec::{Call, ExecError, Tool, read_tail};
use crate::layer::tar::TarSum;

/// First argument of the process that unpacks.
pub(crate) const ARG_WORKER: &str = "__sandbox";
/// First argument of the process that makes namespaces for scripts.
pub(crate) const ARG_SCRIPTS: &str = "__sandbox-scripts";
/// First argument of the process that runs scripts.
pub(crate) const ARG_INIT: &str = "__sandbox-init";

/// First argument of the first process of a machine.
pub(crate) const ARG_VM: &str = "__sandbox-vm";
/// First argument of the process that becomes a program in a chroot.
pub(crate) const ARG_CHROOT: &str = "__sandbox-chroot";

/// Runs the part of the sandbox that `first_argument` names; `None` when it
/// names none. `main` asks this before anything else, while the process has
/// one thread.
#[must_use]
pub fn child_main(first_argument: Option<&OsStr>) -> Option<ExitCode> {
    let run = match first_argument?.to_str()? {
        ARG_WORKER => worker::run,
        ARG_SCRIPTS => enter::scripts_main,
        ARG_INIT => init::run,
        ARG_CHROOT => chroot::main,
        ARG_VM => vm::guest::main,
        _ => return None,
    };
    Some(run())
}

/// How the sandbox is entered.
#[derive(Debug, Clone)]
pub struct SandboxSettings {
    /// The consign executable.
    pub program: PathBuf,
    /// The value of `PATH`, to find `newuidmap`.
    pub search_path: OsString,
    /// Which driver the user wants.
    pub choice: SandboxChoice,
    /// The .deb of the kernel for [`Driver::Vm`], where one is known.
    pub kernel: Option<PathBuf>,
}

/// A running sandbox.
#[derive(Debug)]
pub(crate) struct Session {
    child: Child,
    requests: BufWriter<ChildStdin>,
    replies: BufReader<ChildStdout>,
    last_words: Option<std::thread::JoinHandle<String>>,
    driver: Driver,
    refused: Refused,
    /// What a machine was started from; gone with it.
    _machine: Option<tempfile::TempDir>,
    /// Files that were passed into it and out of it.
    files: u32,
}

impl Session {
    /// Starts a sandbox, or says exactly why none can be had.
    pub(crate) fn start(settings: &SandboxSettings) -> Result<Self, LayerError> {
        let mut refused = Refused::default();
        for driver in settings.choice.drivers() {
            match Self::start_with(driver, settings) {
                Ok(mut session) => {
                    session.refused = refused;
                    return Ok(session);
                }
                Err(LayerError::Refused(refusal)) => refused.0.push((driver, refusal)),
                Err(error) => return Err(error),
            }
        }
        Err(SandboxRefusal::of_all(refused).into())
    }

    /// The driver, and those that were refused before it.
    pub(crate) fn driver(&self) -> (Driver, &Refused) {
        (self.driver, &self.refused)
    }

    /// Starts a sandbox with this driver, which is used for nothing at first:
    /// that is the only way to know that it works.
    fn start_with(driver: Driver, settings: &SandboxSettings) -> Result<Self, LayerError> {
        if matches!(driver, Driver::Root | Driver::Chroot) {
            power::check_root()?;
        }
        let mut session = Self::launch(driver, settings)?;
        session
            .enter(settings)
            .map_err(|error| refusal_in(error, driver))?;
        Ok(session)
    }

    fn launch(driver: Driver, settings: &SandboxSettings) -> Result<Self, LayerError> {
        let (mut child, machine) = if driver == Driver::Vm {
            let (child, machine) = vm::launch(settings)?;
            (child, Some(machine))
        } else {
            let call = Call::at(Tool::Myself, settings.program.clone());
            let call = call.args([ARG_WORKER, driver.name()]);
            let child = call.spawn(Stdio::piped(), Stdio::piped(), Stdio::piped())?;
            (child, None)
        };
        let requests = BufWriter::new(child.stdin.take().expect("piped above"));
        let replies = BufReader::new(child.stdout.take().expect("piped above"));
        let mut stderr = child.stderr.take().expect("piped above");
        let last_words = std::thread::spawn(move || read_tail(&mut stderr).unwrap_or_default());
        Ok(Self {
            child,
            requests,
            replies,
            last_words: Some(last_words),
            driver,
            refused: Refused::default(),
            _machine: machine,
            files: 0,
        })
    }

    fn enter(&mut self, settings: &SandboxSettings) -> Result<(), LayerError> {
        match self.reply()? {
            Reply::Direct => {}
            Reply::Entered => {
                map::map_ids(self.child.id(), settings)?;
                self.ask(&Request::Mapped, &mut |_| {})?;
            }
            Reply::Refused(errno) => {
                return Err(SandboxRefusal::namespaces(errno).into());
            }
            other => return Err(nonsense(&other)),
        }
        self.ask(&Request::Try, &mut |_| {})?;
        Ok(())
    }

    /// Sends one request and follows it to its end.
    pub(crate) fn ask(
        &mut self,
        request: &Request,
        watch: &mut dyn FnMut(Watched),
    ) -> Result<Option<TarSum>, LayerError> {
        if self.driver != Driver::Vm {
            self.send(request)?;
            return self.wait(watch);
        }
        let (request, expected) = self.carry_in(request)?;
        self.send(&request)?;
        let built = self.wait(watch)?;
        if let Some(expected) = expected {
            self.carry_out(&expected)?;
        }
        Ok(built)
    }

    /// Removes the root and ends the sandbox.
    pub(crate) fn end(mut self) -> Result<(), LayerError> {
        self.ask(&Request::End, &mut |_| {})?;
        self.child
            .wait()
            .map(|_| ())
            .map_err(|source| talk_failed(source).into())
    }

    fn send(&mut self, request: &Request) -> Result<(), LayerError> {
        match protocol::send(&mut self.requests, request) {
            Ok(()) => Ok(()),
            // Its own last words say more than the broken pipe.
            Err(_) => Err(self.died()),
        }
    }

    fn wait(&mut self, watch: &mut dyn FnMut(Watched)) -> Result<Option<TarSum>, LayerError> {
        loop {
            match self.reply()? {
                Reply::Progress { phase, done, total } => {
                    watch(Watched::Progress { phase, done, total });
                }
                Reply::Note(note) => watch(Watched::Note(note)),
                Reply::Built(sum) => return Ok(Some(sum)),
                Reply::Done => return Ok(None),
                Reply::Failed(fault) => return Err(LayerError::Sandbox(Box::new(fault))),
                other => return Err(nonsense(&other)),
            }
        }
    }

    fn reply(&mut self) -> Result<Reply, LayerError> {
        match protocol::receive(&mut self.replies) {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(self.died()),
            Err(source) => Err(talk_failed(source).into()),
        }
    }

    fn died(&mut self) -> LayerError {
        let status = match self.child.wait() {
            Ok(status) => status,
            Err(source) => return talk_failed(source).into(),
        };
        let stderr = self
            .last_words
            .take()
            .and_then(|reader| reader.join().ok())
            .unwrap_or_default();
        LayerError::Exec(ExecError::Failed {
            tool: match self.driver {
                Driver::Vm => Tool::QemuX86,
                _ => Tool::Myself,
            },
            status,
            stderr,
        })
    }
}

impl Drop for Session {
    /// Ends the sandbox whatever it is doing; `end` has come before if all is well.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.child.kill().is_ok() {
            // Its exit status says nothing that the error on the way does not.
            drop(self.child.wait());
        }
    }
}

/// What fails while a sandbox is entered speaks against the driver.
fn refusal_in(error: LayerError, driver: Driver) -> LayerError {
    let reason = match error {
        LayerError::Sandbox(fault) => fault.to_string(),
        // Ended by a filter of system calls, for example.
        LayerError::Exec(failed @ ExecError::Failed { .. }) => failed.to_string(),
        other => return other,
    };
    match driver {
        Driver::Userns => SandboxRefusal::powerless(reason).into(),
        Driver::Root | Driver::Chroot | Driver::Vm => SandboxRefusal::Trial { reason }.into(),
    }
}

/// What a request says while it is under way.
#[derive(Debug)]
pub(crate) enum Watched {
    /// Some of the steps are done.
    Progress {
        phase: String,
        done: u64,
        total: u64,
    },
    /// Something that a person should know.
    Note(String),
}

fn nonsense(reply: &Reply) -> LayerError {
    let reason = format!("unexpected answer {reply:?}");
    LayerError::Sandbox(Box::new(Fault::Talk { reason }))
}

fn talk_failed(source: std::io::Error) -> ExecError {
    ExecError::Talk {
        tool: Tool::Myself,
        source,
    }
}

/// Removes what killed builds left, inside a sandbox where their owners are known.
pub(crate) fn remove_abandoned<'a>(
    folders: impl Iterator<Item = &'a Path>,
    settings: &SandboxSettings,
) -> Result<(), LayerError> {
    // Folders without files of other users need no sandbox.
    let stubborn: Vec<PathBuf> = folders
        .filter(|folder| remove_plainly(folder).is_err() && folder.exists())
        .map(Path::to_owned)
        .collect();
    if stubborn.is_empty() {
        return Ok(());
    }
    let mut session = Session::start(settings)?;
    session.ask(&Request::Remove(stubborn), &mut |_| {})?;
    session.end()
}

fn remove_plainly(folder: &Path) -> std::io::Result<()> {
    std::fs::remove_dir_all(folder)
}
