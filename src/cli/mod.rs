//! The command line: the only room that reads the environment and prints.
//!
//! In: arguments and environment. Out: an exit code. Never here: work; each
//! subcommand is one file that calls the library.

mod boot;
mod check;
mod draw;
mod error;
mod init;
mod plan;
mod terminal;

pub use error::CliError;
