//! The `consign` command: become the sandbox if asked, else parse, run, exit.

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all, and with one thread: this process may be part of a sandbox.
    let first = std::env::args_os().nth(1);
    if let Some(ended) = consign::layer::sandbox::child_main(first.as_deref()) {
        return ended;
    }
    consign::cli::run(std::env::args_os())
}
