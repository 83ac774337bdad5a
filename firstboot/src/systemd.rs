//! The one door to other programs: systemctl, journalctl, and those that make
//! file systems; and what they say.

use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::manager::Manager;

const SYSTEMCTL: &str = "/usr/bin/systemctl";
const JOURNALCTL: &str = "/usr/bin/journalctl";
const SYSTEMD_RUN: &str = "/usr/bin/systemd-run";
/// This program, as the manager starts it.
const AGENT: &str = "/usr/lib/consign/consign-firstboot";
/// The target behind the fence.
pub const READY_TARGET: &str = "appliance-ready.target";
/// How long a start of everything may take before it is looked at anyway.
const PATIENCE: Duration = Duration::from_mins(10);
/// How long what is asked for may take: longer than any hook.
const END: Duration = Duration::from_mins(15);
/// How often the manager is asked whether it has started everything: at its
/// socket, and by a program.
const LOOK: Duration = Duration::from_millis(200);
const LOOK_BY_PROGRAM: Duration = Duration::from_secs(1);

/// A program that has to do its work.
#[derive(Debug, Clone, Copy)]
pub enum Program {
    /// mkfs.ext4.
    MakeExt4,
    /// mkfs.xfs.
    MakeXfs,
    /// `xfs_growfs`.
    GrowXfs,
}

impl Program {
    /// Where Debian has it.
    pub fn path(self) -> &'static str {
        match self {
            Self::MakeExt4 => "/usr/sbin/mkfs.ext4",
            Self::MakeXfs => "/usr/sbin/mkfs.xfs",
            Self::GrowXfs => "/usr/sbin/xfs_growfs",
        }
    }
}

/// Lets a program do its work.
///
/// # Errors
///
/// When it is missing or fails.
pub fn must(program: Program, words: &[&str]) -> io::Result<()> {
    if run(program.path(), words)?.is_success {
        return Ok(());
    }
    Err(io::Error::other(format!("{} failed", program.path())))
}

/// What systemctl is asked to do.
#[derive(Debug, Clone, Copy)]
pub enum Request<'u> {
    /// Start a unit and wait until it has started or failed.
    Start(&'u str),
    /// Start a unit, and do not wait for that.
    Begin(&'u str),
    /// End a unit and all of its processes, and wait for that.
    Stop(&'u str),
    /// Restart a unit, if it runs.
    TryRestart(&'u str),
    /// Read the units again.
    Reload,
    /// Restart the machine.
    Reboot,
}

/// Asks systemd for something, and waits no longer than [`END`].
///
/// # Errors
///
/// When systemctl is missing or says no, or does not end.
pub fn ask(request: Request<'_>) -> io::Result<()> {
    let (words, unit): (&[&str], &str) = match request {
        Request::Reload => return systemctl_must(&["daemon-reload"]),
        Request::Start(unit) => (&["start"], unit),
        Request::Begin(unit) => (&["--no-block", "start"], unit),
        Request::Stop(unit) => (&["stop"], unit),
        Request::TryRestart(unit) => (&["try-restart"], unit),
        Request::Reboot => (&["--no-block", "start"], "reboot.target"),
    };
    systemctl_must(&[words, &["--", unit]].concat())
}

fn systemctl_must(words: &[&str]) -> io::Result<()> {
    if ends_well(SYSTEMCTL, words, END)? {
        return Ok(());
    }
    let words = words.join(" ");
    Err(io::Error::other(format!("systemctl {words} failed")))
}

/// Has the manager run the agent with these words once, after some seconds,
/// whatever becomes of who asked. `unit` names the timer and the service.
///
/// # Errors
///
/// When systemd-run is missing or says no.
pub fn run_later(unit: &str, seconds: u32, words: &[&str]) -> io::Result<()> {
    let options = later(unit, seconds);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    if run(SYSTEMD_RUN, &[&options, words].concat())?.is_success {
        return Ok(());
    }
    Err(io::Error::other("systemd-run failed"))
}

fn later(unit: &str, seconds: u32) -> [String; 8] {
    [
        "--quiet".to_owned(),
        // A failure leaves no unit in the way of the next.
        "--collect".to_owned(),
        format!("--unit={unit}"),
        format!("--on-active={seconds}"),
        "--timer-property=AccuracySec=1s".to_owned(),
        "--property=Type=oneshot".to_owned(),
        "--".to_owned(),
        AGENT.to_owned(),
    ]
}

/// Waits until the start is over; the word for how it ended: `running`,
/// `degraded`, or another of `systemctl is-system-running`.
pub fn wait_until_started() -> String {
    let end = Instant::now() + PATIENCE;
    let mut manager = Manager::connect();
    loop {
        let asked = match &mut manager {
            Ok(manager) => manager.state(),
            Err(_) => Err(io::ErrorKind::NotConnected.into()),
        };
        let state = asked.unwrap_or_else(|_| {
            manager = Err(io::ErrorKind::NotConnected.into());
            systemctl(&["is-system-running"])
                .map(|output| output.text.trim().to_owned())
                .unwrap_or_default()
        });
        let is_over = !matches!(state.as_str(), "" | "initializing" | "starting");
        if is_over || Instant::now() > end {
            return if state.is_empty() {
                "unknown".to_owned()
            } else {
                state
            };
        }
        std::thread::sleep(if manager.is_ok() {
            LOOK
        } else {
            LOOK_BY_PROGRAM
        });
    }
}

/// Stands among the units that failed where nobody says which did.
pub const SILENT: &str = "systemd";

/// Units that failed, sorted by name.
pub fn failed_units() -> Vec<String> {
    let list = [
        "list-units",
        "--failed",
        "--plain",
        "--no-legend",
        "--full",
        "--no-pager",
    ];
    let Some(output) = systemctl(&list).ok().filter(|output| output.is_success) else {
        return vec![SILENT.to_owned()];
    };
    let first = |line: &str| line.split_ascii_whitespace().next().map(str::to_owned);
    output.text.lines().filter_map(first).collect()
}

/// What the agent's own units said since the start.
pub fn own_journal() -> String {
    let list = [
        "-b",
        "--no-pager",
        "-q",
        "-n",
        "2000",
        "-u",
        "appliance-config.service",
        "-u",
        "appliance-verify.service",
    ];
    run(JOURNALCTL, &list)
        .map(|output| output.text)
        .unwrap_or_default()
}

struct Output {
    is_success: bool,
    text: String,
}

fn systemctl(args: &[&str]) -> io::Result<Output> {
    run(SYSTEMCTL, args)
}

#[expect(
    clippy::disallowed_types,
    reason = "this is the agent's only door to a program"
)]
fn command(program: &str, args: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command.args(args).env_clear().env("LC_ALL", "C");
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    command
}

/// Whether a program that prints nothing ends well. One that does not end is
/// ended.
fn ends_well(program: &str, args: &[&str], patience: Duration) -> io::Result<bool> {
    let mut child = command(program, args).stdout(Stdio::null()).spawn()?;
    let Ok(fd) = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) else {
        return Ok(child.wait()?.success());
    };
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) if !left.is_zero() => {}
            Err(Errno::INTR) => {}
            Ok(0) => {
                child.kill()?;
                child.wait()?;
                return Err(io::ErrorKind::TimedOut.into());
            }
            Ok(_) => return Ok(child.wait()?.success()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn run(program: &str, args: &[&str]) -> io::Result<Output> {
    let output = command(program, args).output()?;
    Ok(Output {
        is_success: output.status.success(),
        text: String::from_utf8_lossy(&output.stdout).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let begin = Instant::now();
        let ends = |word, patience| ends_well(word, &["60"], Duration::from_millis(patience));
        let error = ends("/bin/sleep", 100).expect_err("a minute is longer");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() < Duration::from_secs(30));
        assert!(ends("/bin/true", 60_000).expect("it runs"));
        assert!(!ends("/bin/false", 60_000).expect("it runs"));
        assert!(ends("/bin/nobody", 60_000).is_err());
    }

    #[test]
    fn the_manager_has_all_that_it_needs_to_run_the_agent_later() {
        assert_eq!(
            later("appliance-x", 90).join(" "),
            "--quiet --collect --unit=appliance-x --on-active=90 \
             --timer-property=AccuracySec=1s --property=Type=oneshot -- \
             /usr/lib/consign/consign-firstboot"
        );
    }
}
