//! The one door to external programs.
//!
//! In: a [`Tool`] of a closed list, and arguments. Out: its standard output,
//! or one of three errors: missing, would not start, failed. Each program
//! runs with a cleared environment, the C locale and UTC; the last KiB of its
//! standard error is kept. Never here: a shell.
#![expect(clippy::disallowed_types, reason = "this room is the door")]

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::units::ExitClass;

/// A program that consign may call, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Tool {
    /// Boots an image for `consign boot`.
    QemuX86,
    /// Builds the agent in a source checkout.
    Cargo,
    /// Maps the user's subordinate user ids into the sandbox.
    NewUidMap,
    /// Maps the user's subordinate group ids into the sandbox.
    NewGidMap,
    /// Reads the host's apt settings.
    AptConfig,
    /// Ties a guest's life to ours, so that none is left behind.
    Setpriv,
    /// Talks to libvirt.
    Virsh,
    /// Makes and enlarges qcow2 disks of imported guests.
    QemuImg,
    /// Signs the manifest of an OVA with an X.509 key.
    OpenSsl,
    /// Signs a release with the user's OpenPGP key.
    Gpg,
    /// Ourselves, as the process that becomes the sandbox.
    Myself,
}

impl Tool {
    /// The file looked for in the search path.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::QemuX86 => "qemu-system-x86_64",
            Self::Cargo => "cargo",
            Self::NewUidMap => "newuidmap",
            Self::NewGidMap => "newgidmap",
            Self::AptConfig => "apt-config",
            Self::Setpriv => "setpriv",
            Self::Virsh => "virsh",
            Self::QemuImg => "qemu-img",
            Self::OpenSsl => "openssl",
            Self::Gpg => "gpg",
            Self::Myself => "consign",
        }
    }

    /// The Debian package that has it.
    #[must_use]
    pub fn package(self) -> &'static str {
        match self {
            Self::QemuX86 => "qemu-system-x86",
            Self::Cargo => "cargo",
            Self::NewUidMap | Self::NewGidMap => "uidmap",
            Self::AptConfig => "apt",
            Self::Setpriv => "util-linux",
            Self::Virsh => "libvirt-clients",
            Self::QemuImg => "qemu-utils",
            Self::OpenSsl => "openssl",
            Self::Gpg => "gnupg",
            Self::Myself => "consign",
        }
    }
}

/// What went wrong with an external program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// Not in the search path.
    #[error("`{}` is not installed", tool.program())]
    Missing {
        /// The program.
        tool: Tool,
    },
    /// Found, but the system would not start it.
    #[error("`{}` would not start", path.display())]
    WouldNotStart {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Started, and ended badly.
    #[error("`{}` ended with {status}: {}", tool.program(), last_words(stderr))]
    Failed {
        /// The program.
        tool: Tool,
        /// How it ended.
        status: ExitStatus,
        /// The last KiB of its standard error.
        stderr: String,
    },
    /// The pipe to or from it broke.
    #[error("cannot talk to `{}`", tool.program())]
    Talk {
        /// The program.
        tool: Tool,
        /// What the system said.
        source: io::Error,
    },
}

impl ExecError {
    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "tool-missing",
            Self::WouldNotStart { .. } => "tool-would-not-start",
            Self::Failed { .. } => "tool-failed",
            Self::Talk { .. } => "tool-broken-pipe",
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        ExitClass::Tool
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { tool } => {
                Some(format!("install it: apt-get install {}", tool.package()))
            }
            _ => None,
        }
    }
}

fn last_words(stderr: &str) -> String {
    let text = stderr.trim();
    if text.is_empty() {
        "it said nothing".into()
    } else {
        escape(text)
    }
}

/// Text from outside, fit for a terminal: control characters are escaped.
#[must_use]
pub fn escape(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                c.escape_default().to_string()
            } else {
                c.to_string()
            }
        })
        .collect()
}

/// How many bytes of standard error are kept.
const STDERR_KEPT: usize = 1024;

/// A call in the making.
#[derive(Debug, Clone)]
pub struct Call {
    tool: Tool,
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    is_apart: bool,
}

impl Call {
    /// Looks `tool` up in `search_path` (the value of `PATH`).
    ///
    /// # Errors
    ///
    /// [`ExecError::Missing`].
    pub fn find(tool: Tool, search_path: &OsStr) -> Result<Self, ExecError> {
        std::env::split_paths(search_path)
            .map(|folder| folder.join(tool.program()))
            .find(|path| path.is_file())
            .map(|path| Self::at(tool, path))
            .ok_or(ExecError::Missing { tool })
    }

    /// Calls `tool` at a known path.
    #[must_use]
    pub fn at(tool: Tool, path: PathBuf) -> Self {
        Self {
            tool,
            path,
            args: Vec::new(),
            env: Vec::new(),
            folder: None,
            is_apart: false,
        }
    }

    /// The same call through `setpriv`, so that the kernel kills the program
    /// when the thread that started it ends. Where there is no `setpriv`, the
    /// call stays as it is.
    #[must_use]
    pub fn tied_to_us(self, search_path: &OsStr) -> Self {
        let Ok(wrapper) = Self::find(Tool::Setpriv, search_path) else {
            return self;
        };
        Self {
            args: ["--pdeathsig".into(), "KILL".into(), "--".into()]
                .into_iter()
                .chain([self.path.into_os_string()])
                .chain(self.args)
                .collect(),
            path: wrapper.path,
            ..self
        }
    }

    /// The program's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// That the line to the program broke, as an error.
    #[must_use]
    pub fn broken_pipe(&self, source: io::Error) -> ExecError {
        ExecError::Talk {
            tool: self.tool,
            source,
        }
    }

    /// Adds one argument. Never a secret: arguments are public on the host.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: Into<OsString>>(mut self, args: impl IntoIterator<Item = I>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets one environment variable besides the locale and the zone.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets environment variables.
    #[must_use]
    pub fn envs(mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.env.extend(variables);
        self
    }

    /// Starts it in `folder`.
    #[must_use]
    pub fn in_folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Has the program run in a process group of its own, where a terminal's
    /// Ctrl-C does not end it.
    #[must_use]
    pub fn apart(mut self) -> Self {
        self.is_apart = true;
        self
    }

    /// The command with its environment, for those who start it themselves.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(&self.args)
            .env_clear()
            .env("LC_ALL", "C")
            .env("TZ", "UTC");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        if self.is_apart {
            command.process_group(0);
        }
        command
    }

    /// Starts it with the given ends and leaves it running.
    ///
    /// # Errors
    ///
    /// [`ExecError::WouldNotStart`].
    pub fn spawn(&self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Result<Child, ExecError> {
        self.command()
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => ExecError::Missing { tool: self.tool },
                _ => ExecError::WouldNotStart {
                    path: self.path.clone(),
                    source,
                },
            })
    }

    /// Runs it to its end with `input` on standard input and gives back its
    /// standard output.
    ///
    /// # Errors
    ///
    /// Any [`ExecError`]; an exit status other than 0 is `Failed`.
    pub fn run(&self, input: &[u8]) -> Result<Vec<u8>, ExecError> {
        let mut child = self.spawn(Stdio::piped(), Stdio::piped(), Stdio::piped())?;
        let talk = |source| self.broken_pipe(source);
        let mut stdin = child.stdin.take().expect("piped above");
        let mut stdout = child.stdout.take().expect("piped above");
        let mut stderr = child.stderr.take().expect("piped above");
        let (output, tail) = std::thread::scope(|scope| {
            let writer = scope.spawn(move || match stdin.write_all(input) {
                // A program that ends early has its own reason, and says it.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
                _ => Ok(()),
            });
            let tail = scope.spawn(move || read_tail(&mut stderr));
            let mut output = Vec::new();
            let read = stdout.read_to_end(&mut output);
            let tail = tail.join().expect("the reader does not panic")?;
            writer.join().expect("the writer does not panic")?;
            read?;
            Ok((output, tail))
        })
        .map_err(talk)?;
        let status = child.wait().map_err(talk)?;
        if status.success() {
            Ok(output)
        } else {
            Err(ExecError::Failed {
                tool: self.tool,
                status,
                stderr: tail,
            })
        }
    }
}

/// Reads to the end and keeps the last [`STDERR_KEPT`] bytes as text.
///
/// # Errors
///
/// What the reader reports.
pub fn read_tail(reader: &mut impl Read) -> io::Result<String> {
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok(String::from_utf8_lossy(&kept).into_owned());
        }
        kept.extend_from_slice(&buffer[..count]);
        let surplus = kept.len().saturating_sub(STDERR_KEPT);
        kept.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Call {
        Call::at(Tool::Myself, "/bin/sh".into()).args(["-c", script])
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let error = Call::find(Tool::QemuX86, OsStr::new("/nonexistent")).expect_err("not there");
        assert_eq!(error.to_string(), "`qemu-system-x86_64` is not installed");
        assert_eq!(
            error.hint().as_deref(),
            Some("install it: apt-get install qemu-system-x86")
        );
    }

    #[test]
    fn the_environment_is_cleared() {
        let output = shell("echo $LC_ALL $TZ ${HOME-none}")
            .run(b"")
            .expect("sh runs");
        assert_eq!(String::from_utf8_lossy(&output), "C UTC none\n");
    }

    #[test]
    fn a_failure_keeps_the_last_words() {
        let error = shell("cat; echo over >&2; exit 3")
            .run(b"x")
            .expect_err("it fails");
        assert_eq!(
            error.to_string(),
            "`consign` ended with exit status: 3: over"
        );
    }

    #[test]
    fn a_call_apart_leads_a_group_of_its_own() {
        let leads = "set -- $(cat /proc/$$/stat); [ $1 = $5 ] && echo leads || echo follows";
        let said = |call: Call| String::from_utf8(call.run(b"").expect("sh runs"));
        assert_eq!(said(shell(leads)).as_deref(), Ok("follows\n"));
        assert_eq!(said(shell(leads).apart()).as_deref(), Ok("leads\n"));
    }

    #[test]
    fn a_tied_call_still_runs_with_its_arguments() {
        let search_path = OsStr::new("/usr/bin:/bin");
        let call = shell("echo $0 $LC_ALL").tied_to_us(search_path);
        let output = call.run(b"").expect("sh runs");
        assert_eq!(String::from_utf8_lossy(&output), "/bin/sh C\n");
        let untied = shell("echo $0").tied_to_us(OsStr::new("/nonexistent"));
        assert_eq!(untied.run(b"").expect("sh runs"), b"/bin/sh\n");
    }

    #[test]
    fn large_input_and_output_do_not_dead_lock() {
        let input = vec![b'x'; 1 << 20];
        assert_eq!(shell("cat").run(&input).expect("cat").len(), 1 << 20);
    }
}
