//! What the tests share: foreign judges, temporary folders, where things are.
//!
//! In: a file that we wrote. Out: the verdict of somebody else's program. A
//! program that is missing is a failure where `CI` is set and a loud
//! `SKIPPED:` elsewhere, never a silent pass.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests call foreign programs and ask whether they run in CI"
)]
#![allow(dead_code, reason = "each test file uses its part of it")]

pub(crate) mod appliance;
pub(crate) mod cached_mirror;
mod checker;
pub(crate) mod guests;
pub(crate) mod libvirt;
mod mount;
pub(crate) mod other_place;
pub(crate) mod sample;
pub(crate) mod sector;
pub(crate) mod vendor;
pub(crate) mod volume;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use consign::digest::{Digest, Hasher};

#[allow(unused_imports, reason = "each test file uses its part of it")]
pub(crate) use {checker::Checker, mount::LoopMount};

/// The folder of the root package.
pub(crate) fn repo_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Panics unless `text` is what the file `name` under `tests/golden` holds.
///
/// `CONSIGN_BLESS=1` writes the file instead; look at the difference, and
/// write a line for the change log.
#[track_caller]
pub(crate) fn golden(name: &str, text: &str) {
    let path = repo_root().join("tests/golden").join(name);
    if std::env::var_os("CONSIGN_BLESS").is_some() {
        std::fs::write(&path, text).expect("the golden file can be written");
    }
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("no golden file {}: {error}", path.display()));
    assert!(
        text == expected,
        "{} has changed (CONSIGN_BLESS=1 accepts):\n{text}",
        path.display()
    );
}

/// The `consign` program that was built for these tests.
pub(crate) fn consign_path() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_consign"))
}

/// The `consign` program, ready for arguments.
pub(crate) fn consign() -> Command {
    let mut command = Command::new(consign_path());
    command.stdin(Stdio::null());
    // In CI a build insists on a lock; tests say so themselves.
    command.env_remove("CI");
    command
}

/// A folder that is gone when the value is.
pub(crate) type TestFolder = tempfile::TempDir;

/// Makes a [`TestFolder`].
pub(crate) fn temp_folder() -> TestFolder {
    tempfile::Builder::new()
        .prefix("consign-test-")
        .tempdir()
        .expect("a temporary folder can be made")
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a missing program is a failure.
pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// How many random inputs a property gets: `usual`, or where a long run sets
/// `PROPTEST_CASES`, in proportion; that is the number for a usual 500.
pub(crate) fn cases(usual: u32) -> u32 {
    std::env::var_os("PROPTEST_CASES")
        .and_then(|count| count.to_str()?.parse::<u32>().ok())
        .map_or(usual, |count| (count * usual).div_ceil(500))
}

/// Says that a test cannot run here, and why. In CI that is a failure.
pub(crate) fn skip(reason: &str) {
    assert!(!in_ci(), "cannot be skipped in CI: {reason}");
    note(reason);
}

/// Says that a part of a test cannot run on this machine, whatever is
/// installed. Not a failure even in CI: only for what the kernel lacks.
pub(crate) fn note(reason: &str) {
    // Not eprintln: the test runner captures that, and a captured skip is a silent one.
    let line = format!("SKIPPED: {reason}\n");
    let _written = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
}

/// A foreign program with the C locale and UTC, or [`skip`].
///
/// Looks beyond `PATH` into the folders of administration, which an ordinary
/// user's `PATH` lacks.
pub(crate) fn program(name: &str, package: &str) -> Option<Command> {
    let Some(path) = find_program(name) else {
        skip(&format!("no `{name}`: apt-get install {package}"));
        return None;
    };
    let mut command = Command::new(path);
    command.env("LC_ALL", "C").env("TZ", "UTC");
    command.stdin(Stdio::null());
    Some(command)
}

/// `PATH`, and behind it the folders of administration.
pub(crate) fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

/// The digest of a file.
pub(crate) fn digest_of(path: &Path) -> Digest {
    let mut hasher = Hasher::new();
    let mut file = std::fs::File::open(path).expect("the file can be opened");
    std::io::copy(&mut file, &mut hasher).expect("the file can be read");
    hasher.finish()
}

/// Where `name` is in the [`search_path`].
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path())
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Copies a program that is run from its new place. Not in this process: a
/// child that another test starts meanwhile would hold the copy open for
/// writing, and it could not be run ("Text file busy").
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let mut copy = program("cp", "coreutils").expect("it is everywhere");
    must_run(copy.arg(from).arg(to));
}

/// Runs `command` and panics with all it said when it does not end well.
pub(crate) fn must_run(command: &mut Command) -> Output {
    let output = run(command);
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{}",
        output.status,
        text_of(&output)
    );
    output
}

/// Runs `command` to its end, however that is.
pub(crate) fn run(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} would not start: {error}"))
}

/// Standard output, then standard error.
pub(crate) fn text_of(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}
