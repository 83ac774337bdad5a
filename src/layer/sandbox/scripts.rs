//! Running programs of the root, from the side of the worker.

use std::io::{BufReader, BufWriter};
use std::process::{Child, ChildStdin, ChildStdout};

use super::driver::{Driver, Network, Walls};
use super::enter::script_process;
use super::fault::Fault;
use super::protocol::{self, Command, ScriptReply, Setup};
use super::root::Root;

/// Where programs of the root are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process that runs programs inside a root. Dropped, it ends, and all that
/// they left running ends with it.
#[derive(Debug)]
pub(crate) struct ScriptRunner {
    child: Child,
    /// `None` once it has been told to end.
    commands: Option<BufWriter<ChildStdin>>,
    replies: BufReader<ChildStdout>,
    source_date: i64,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Run {
    /// With exit status 0.
    pub(crate) is_success: bool,
    /// `ended with exit status 1`, for example.
    pub(crate) status: String,
    /// The package that dpkg was busy with.
    pub(crate) package: Option<String>,
    /// The last KiB of its output.
    pub(crate) output: String,
}

impl ScriptRunner {
    /// Makes namespaces whose root is `root`. The folders `proc` and `dev`
    /// must be in it.
    pub(crate) fn start(root: &Root, source_date: i64, network: Network) -> Result<Self, Fault> {
        let walls = Walls {
            driver: root.driver(),
            network,
        };
        Self::set_up(walls, &Setup::Root(root.folder().to_owned()), source_date)
    }

    /// Finds out whether programs could be run here.
    pub(super) fn try_out(driver: Driver) -> Result<(), Fault> {
        let walls = Walls {
            driver,
            network: Network::Off,
        };
        Self::set_up(walls, &Setup::Trial, 0)?.end()
    }

    fn set_up(walls: Walls, setup: &Setup, source_date: i64) -> Result<Self, Fault> {
        let talk = |reason: String| Fault::Talk { reason };
        let mut child = script_process(walls).map_err(|error| talk(error.to_string()))?;
        let mut commands = BufWriter::new(child.stdin.take().expect("piped by script_process"));
        let mut replies = BufReader::new(child.stdout.take().expect("piped by script_process"));
        // When the namespaces were refused, the pipe is closed and the answer there.
        drop(protocol::send(&mut commands, setup));
        match protocol::receive(&mut replies).map_err(|error| talk(error.to_string()))? {
            Some(ScriptReply::Ready) => {}
            Some(ScriptReply::Failed(fault)) => return Err(fault),
            other => return Err(talk(format!("unexpected answer {other:?}"))),
        }
        Ok(Self {
            child,
            commands: Some(commands),
            replies,
            source_date,
        })
    }

    /// Ends it, and waits until the kernel has ended all that scripts left
    /// running: after that nothing in the root changes on its own.
    pub(crate) fn end(mut self) -> Result<(), Fault> {
        self.commands = None;
        let talk = |reason: String| Fault::Talk { reason };
        let last = protocol::receive(&mut self.replies).map_err(|error| talk(error.to_string()))?;
        let status = self.child.wait();
        let status = status.map_err(|error| talk(error.to_string()))?;
        match last {
            Some(ScriptReply::Failed(fault)) => Err(fault),
            None if status.success() => Ok(()),
            _ => Err(talk(format!("the process that runs scripts {status}"))),
        }
    }

    /// Runs a program to its end.
    pub(crate) fn run(
        &mut self,
        argv: Vec<String>,
        env: Vec<(String, String)>,
    ) -> Result<Run, Fault> {
        let environment = self.environment(env);
        self.send(argv, environment, "/", Listen::Quietly, &mut |_| {})
    }

    /// The same in a folder of the root.
    pub(crate) fn run_in(
        &mut self,
        folder: &str,
        argv: Vec<String>,
        env: Vec<(String, String)>,
    ) -> Result<Run, Fault> {
        let environment = self.environment(env);
        self.send(argv, environment, folder, Listen::Quietly, &mut |_| {})
    }

    /// Runs dpkg; `watch` gets each package whose turn begins.
    pub(crate) fn run_dpkg(
        &mut self,
        argv: Vec<String>,
        watch: &mut dyn FnMut(&str),
    ) -> Result<Run, Fault> {
        let environment = self.environment(Vec::new());
        self.send(argv, environment, "/", Listen::ToDpkg, watch)
    }

    fn environment(&self, more: Vec<(String, String)>) -> Vec<(String, String)> {
        let fixed = [
            ("PATH", PATH.to_owned()),
            ("HOME", "/root".to_owned()),
            ("LC_ALL", "C.UTF-8".to_owned()),
            ("TZ", "UTC".to_owned()),
            ("DEBIAN_FRONTEND", "noninteractive".to_owned()),
            ("DEBCONF_NONINTERACTIVE_SEEN", "true".to_owned()),
            ("SOURCE_DATE_EPOCH", self.source_date.to_string()),
            // systemd's own tools then change files and talk to nobody.
            ("SYSTEMD_OFFLINE", "1".to_owned()),
        ];
        fixed
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .chain(more)
            .collect()
    }

    fn send(
        &mut self,
        argv: Vec<String>,
        env: Vec<(String, String)>,
        folder: &str,
        listen: Listen,
        watch: &mut dyn FnMut(&str),
    ) -> Result<Run, Fault> {
        let talk = |error: std::io::Error| Fault::Talk {
            reason: error.to_string(),
        };
        let command = Command {
            argv,
            env,
            folder: folder.to_owned(),
            is_dpkg: listen == Listen::ToDpkg,
        };
        let commands = self.commands.as_mut().expect("open until `end`");
        protocol::send(commands, &command).map_err(talk)?;
        loop {
            match protocol::receive(&mut self.replies).map_err(talk)? {
                Some(ScriptReply::Configuring(package)) => watch(&package),
                Some(ScriptReply::Ended {
                    is_success,
                    status,
                    package,
                    output,
                }) => {
                    return Ok(Run {
                        is_success,
                        status,
                        package,
                        output: crate::exec::escape(output.trim()),
                    });
                }
                Some(ScriptReply::Failed(fault)) => return Err(fault),
                other => {
                    return Err(Fault::Talk {
                        reason: format!("unexpected answer {other:?}"),
                    });
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Listen {
    Quietly,
    ToDpkg,
}

impl Drop for ScriptRunner {
    fn drop(&mut self) {
        // After an error: whatever it is doing.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
