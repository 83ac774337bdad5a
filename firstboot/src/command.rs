//! The command line of the agent and of the operator's command `appliance`.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use consign_schema::MAX_SIZE;

use crate::boot;
use crate::configure;
use crate::generation::Generation;
use crate::item::Item;
use crate::media::child;
use crate::root::{Access, Root};
use crate::state::State;
use crate::status::{FileProblems, Status, code};
use crate::step::network::{RESOLV, resolv_from_networkd};

/// Exit status of a command line that makes no sense, as in `sysexits.h`.
const USAGE: u8 = 64;
/// Exit status when a file to validate cannot be read (`EX_NOINPUT`).
const NO_INPUT: u8 = 66;
/// How often `status --wait` looks.
const LOOK: Duration = Duration::from_millis(250);

const HELP: &str = "\
usage: appliance status [--json] [--wait]   what this machine is
       appliance validate FILE              judge a site configuration as this
                                            machine would
       appliance --version

Exit status of `status`: 0 ready, 10 waiting for a configuration, 20 invalid
configuration, 22 not allowed by the vendor, 31 apply failed (fenced),
41 degraded, 70 internal fault, 75 not known yet (never with --wait).
";

/// Runs what the arguments ask for; the first one is the program's name.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = args
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let [child::COMMAND, words @ ..] = words.as_slice() {
        child::run(words);
    }
    let root = match Root::open(Path::new("/")) {
        Ok(root) => root,
        Err(error) => {
            eprintln!("appliance: cannot open the root directory: {error}");
            return ExitCode::from(code::INTERNAL);
        }
    };
    match words.as_slice() {
        // Started by systemd.
        ["config"] => boot::config(&root),
        ["verify"] => boot::verify(&root),
        ["resolv"] => resolv(&root),
        // Asked by people and programs.
        ["status", flags @ ..] => status(&root, flags),
        ["validate", file] => validate(&root, file),
        ["--version"] => {
            println!("appliance {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["--help" | "help"] => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{HELP}");
            ExitCode::from(USAGE)
        }
    }
}

fn status(root: &Root, flags: &[&str]) -> ExitCode {
    if flags
        .iter()
        .any(|flag| !matches!(*flag, "--json" | "--wait"))
    {
        eprint!("{HELP}");
        return ExitCode::from(USAGE);
    }
    let found = loop {
        let found = Status::load(root);
        let is_final = found.as_ref().is_some_and(Status::is_final);
        if is_final || !flags.contains(&"--wait") {
            break found;
        }
        std::thread::sleep(LOOK);
    };
    let Some(status) = found else {
        eprintln!("appliance: the first-boot agent has not run yet");
        return ExitCode::from(code::NOT_YET);
    };
    if flags.contains(&"--json") {
        println!("{}", status.json());
    } else {
        for line in status.lines() {
            println!("{line}");
        }
    }
    ExitCode::from(status.code)
}

fn validate(root: &Root, file: &str) -> ExitCode {
    let bytes = match read_bounded(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!("appliance: cannot read {file}: {error}");
            return ExitCode::from(NO_INPUT);
        }
    };
    match configure::judge(root, &bytes, file) {
        Ok((site, _)) => {
            println!("{file}: {} serial {} is valid", site.id, site.serial);
            ExitCode::SUCCESS
        }
        Err(refused) => {
            for line in refused.files.iter().flat_map(FileProblems::lines) {
                eprintln!("{line}");
            }
            ExitCode::from(refused.code())
        }
    }
}

/// The whole file, or a little more than is allowed.
fn read_bounded(file: &str) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(file)?
        .take(MAX_SIZE as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes `resolv.conf` from what systemd-networkd learnt by DHCP, unless the
/// configuration has fixed servers. Run whenever networkd's state changes.
fn resolv(root: &Root) -> ExitCode {
    let state = State::load(root).ok().flatten();
    let generation = state.and_then(|state| Generation::load(root, &state).ok());
    let is_fixed = generation.is_some_and(|generation| {
        let mut items = generation.items.iter();
        items.any(|item| matches!(item, Item::File { path, .. } if path == RESOLV))
    });
    if is_fixed {
        return ExitCode::SUCCESS;
    }
    let state = root
        .read_text("/run/systemd/netif/state", MAX_SIZE)
        .unwrap_or_default();
    let Some(text) = resolv_from_networkd(&state) else {
        return ExitCode::SUCCESS;
    };
    match root.put(RESOLV, text.as_bytes(), Access::own(0o644)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write {RESOLV}: {error}");
            ExitCode::FAILURE
        }
    }
}
