//! The `virt-image` command: `consign import` under the name that it had.

use std::process::ExitCode;

fn main() -> ExitCode {
    consign::cli::run_virt_image(std::env::args_os())
}
