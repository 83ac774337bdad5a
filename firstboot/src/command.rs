//! The command line of the agent and of the operator's command `appliance`.

use std::ffi::OsString;
use std::process::ExitCode;

/// Exit status of a command line that makes no sense, as in `sysexits.h`.
const USAGE: u8 = 64;

/// Runs what the arguments ask for; the first one is the program's name.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let given: Vec<OsString> = args.skip(1).collect();
    eprintln!("appliance: unknown command {given:?}");
    ExitCode::from(USAGE)
}
