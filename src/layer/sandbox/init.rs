//! `__sandbox-init`: pid 1 of the scripts.
#![expect(
    clippy::disallowed_types,
    reason = "it starts the target's own programs, which are no tools of the host"
)]

use std::io::{self, BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command as Program, ExitCode, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::dev::take_root;
use super::enter::die_with_parent;
use super::fault::Fault;
use super::protocol::{self, Command, ScriptReply};

/// How much of the output is kept.
const OUTPUT_KEPT: usize = 1024;

/// Takes the root that the first line names, then runs commands until the
/// input ends. When it ends, the kernel ends all that scripts left running.
pub(super) fn run() -> ExitCode {
    let mut input = io::stdin().lock();
    let mut output = io::stdout().lock();
    let ended = prepare(&mut input).and_then(|()| {
        protocol::send(&mut output, &ScriptReply::Ready).map_err(talk)?;
        while let Some(command) = protocol::receive::<Command>(&mut input).map_err(talk)? {
            let reply = run_command(&command, &mut output).map_err(|error| Fault::System {
                action: "start".into(),
                path: command.argv.first().cloned().unwrap_or_default(),
                reason: error.to_string(),
                is_full: false,
            })?;
            protocol::send(&mut output, &reply).map_err(talk)?;
        }
        Ok(())
    });
    let said = match ended {
        Ok(()) => Ok(()),
        Err(fault) => protocol::send(&mut output, &ScriptReply::Failed(fault)),
    };
    if said.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn talk(error: io::Error) -> Fault {
    Fault::Talk {
        reason: error.to_string(),
    }
}

fn prepare(input: &mut impl io::BufRead) -> Result<(), Fault> {
    let enter = |error: io::Error| Fault::Namespaces {
        reason: error.to_string(),
    };
    die_with_parent().map_err(enter)?;
    rustix::process::setsid().map_err(|error| enter(error.into()))?;
    rustix::system::sethostname(b"localhost").map_err(|error| enter(error.into()))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let root: Option<PathBuf> = protocol::receive(input).map_err(talk)?;
    let root = root.ok_or_else(|| Fault::Talk {
        reason: "no root was named".into(),
    })?;
    take_root(&root)
}

fn run_command(command: &Command, replies: &mut impl io::Write) -> io::Result<ScriptReply> {
    let (program, arguments) = command
        .argv
        .split_first()
        .ok_or_else(|| io::Error::other("no program was named"))?;
    let (reader, writer) = io::pipe()?;
    let mut call = Program::new(program);
    call.args(arguments)
        .env_clear()
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
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
            end_stragglers();
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
fn end_stragglers() {
    let processes = crate::tree::list_folder(std::path::Path::new("/proc")).unwrap_or_default();
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
    use std::os::unix::process::ExitStatusExt as _;
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
        if let Some(rest) = text.strip_prefix("dpkg: error processing package ") {
            self.package = rest.split(' ').next().map(str::to_owned);
        }
        if text == "Errors were encountered while processing:" {
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
        listener.hear(b"Errors were encountered while processing:\n");
        listener.keep(b" libc6:amd64\n");
        assert!(listener.kept.ends_with(b"last words\n"));
    }
}
