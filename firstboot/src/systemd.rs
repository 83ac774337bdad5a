//! The one door to another program: systemctl, and what it says.

use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

const SYSTEMCTL: &str = "/usr/bin/systemctl";
/// The target behind the fence.
pub const READY_TARGET: &str = "appliance-ready.target";
/// How long a start of everything may take before it is looked at anyway.
const PATIENCE: Duration = Duration::from_mins(10);

/// What systemctl is asked to do.
#[derive(Debug, Clone, Copy)]
pub enum Request<'u> {
    /// Start a unit and wait until it has started or failed.
    Start(&'u str),
    /// Restart a unit, if it runs.
    TryRestart(&'u str),
}

/// Asks systemd for something.
///
/// # Errors
///
/// When systemctl is missing or says no.
pub fn ask(request: Request<'_>) -> io::Result<()> {
    let (words, unit): (&[&str], &str) = match request {
        Request::Start(unit) => (&["start"], unit),
        Request::TryRestart(unit) => (&["try-restart"], unit),
    };
    let output = systemctl(&[words, &["--", unit]].concat())?;
    if output.is_success {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "systemctl {} {unit} failed",
            words.join(" ")
        )))
    }
}

/// Waits until the start is over; the word for how it ended: `running`,
/// `degraded`, or another of `systemctl is-system-running`.
pub fn wait_until_started() -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let state = systemctl(&["is-system-running", "--wait"])
            .map(|output| output.text.trim().to_owned())
            .unwrap_or_default();
        let is_over = !matches!(state.as_str(), "" | "initializing" | "starting");
        if is_over || Instant::now() > end {
            return if state.is_empty() {
                "unknown".to_owned()
            } else {
                state
            };
        }
        std::thread::sleep(Duration::from_secs(1));
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

struct Output {
    is_success: bool,
    text: String,
}

#[expect(
    clippy::disallowed_types,
    reason = "this is the agent's only door to a program"
)]
fn systemctl(args: &[&str]) -> io::Result<Output> {
    let output = std::process::Command::new(SYSTEMCTL)
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
