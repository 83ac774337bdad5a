//! The first-boot agent and the initramfs `/init`, in one static binary.
//!
//! Three lives: process 1 of the initramfs ([`init`]), the services of
//! `appliance-config` and `appliance-verify`, and the operator's command
//! `appliance`. Which one it is shows in the process number and in the
//! command line, never in the environment.

mod command;
mod init;
mod media;
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    if rustix::process::getpid().is_init() {
        init::run();
    }
    command::run(std::env::args_os())
}
