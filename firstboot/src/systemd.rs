//! The one door to other programs: systemctl, journalctl, and those that make
//! file systems; and what they say.

use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

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

/// Asks systemd for something.
///
/// # Errors
///
/// When systemctl is missing or says no.
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
    if systemctl(words)?.is_success {
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
            systemctl(&["is-system-running", "--wait"])
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
    let text = systemctl(&list)
        .map(|output| output.text)
        .unwrap_or_default();
    let first = |line: &str| line.split_ascii_whitespace().next().map(str::to_owned);
    text.lines().filter_map(first).collect()
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
fn run(program: &str, args: &[&str]) -> io::Result<Output> {
    let output = std::process::Command::new(program)
        .args(args)
        .env_clear()
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    Ok(Output {
        is_success: output.status.success(),
        text: String::from_utf8_lossy(&output.stdout).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
