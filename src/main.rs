//! The `consign` command: parse, run, draw the error, exit code.

fn main() {}
