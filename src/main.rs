//! The `consign` command: parse, run, draw the error, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all, and with one thread: this process may be part of a sandbox.
    let first = std::env::args_os().nth(1);
    if let Some(code) = consign::layer::sandbox::child_main(first.as_deref()) {
        return code;
    }
    ExitCode::SUCCESS
}
