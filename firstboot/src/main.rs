//! The first-boot agent and the initramfs `/init`, in one static binary.
//!
//! Three lives: process 1 of the initramfs ([`init`]), the services of
//! `appliance-config` and `appliance-verify`, and the operator's command
//! `appliance`. Which one it is shows in the process number and in the
//! command line, never in the environment.

/// As `println!`, but whoever closed the other end stops nothing.
macro_rules! tell {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// As `eprintln!`, but whoever closed the other end stops nothing.
macro_rules! complain {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

mod accounts;
mod addresses;
mod age;
mod base64;
mod boot;
mod bundle;
mod bundle_tar;
mod command;
mod configure;
mod console;
mod data_disk;
mod digest;
mod facts;
mod generation;
mod hook;
mod image;
mod init;
mod inventory;
mod item;
mod manager;
mod media;
mod neighbours;
mod netlink;
mod root;
mod secrets;
mod state;
mod status;
mod step;
mod sys;
mod systemd;
mod text;
mod trust;
mod write_back;

use std::process::ExitCode;

fn main() -> ExitCode {
    if rustix::process::getpid().is_init() {
        init::run();
    }
    command::run(std::env::args_os())
}
