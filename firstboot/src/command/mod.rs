//! The command line of the agent and of the operator's command `appliance`.

mod arguments;
mod change;
mod report;
mod secret;
mod trial;

pub use report::bundle as support_bundle;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use consign_schema::{MAX_SIZE, NoCloud, convert_no_cloud, decode};

use self::arguments::{Arguments, HELP, USAGE, is_help, misused};
use crate::boot;
use crate::configure;
use crate::generation::Generation;
use crate::item::Item;
use crate::media::child;
use crate::root::{Access, Root};
use crate::state::State;
use crate::status::{FileProblems, Standing, Status, code, verdict_json};
use crate::step::network::{RESOLV, resolv_from_networkd};

/// Exit status when a file to validate cannot be read (`EX_NOINPUT`).
const NO_INPUT: u8 = 66;
/// How often `status --wait` looks.
const LOOK: Duration = Duration::from_millis(250);

/// Made with the image, for its roles.
const SCHEMA: &str = "/usr/lib/consign/site.schema.json";

/// The root that a command works on.
#[derive(Debug)]
struct Place {
    root: Root,
    /// Whether it is the running system, with a service manager and a kernel.
    is_system: bool,
}

/// Runs what the arguments ask for; the first one is the program's name.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = args
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let [child::COMMAND, words @ ..] = words.as_slice() {
        child::run(words);
    }
    #[cfg(target_arch = "x86_64")]
    if let [child::GUESTINFO] = words.as_slice() {
        child::run_guestinfo();
    }
    if is_help(&words) {
        tell!("{}", HELP.trim_end());
        return ExitCode::SUCCESS;
    }
    let mut folder = "/";
    if let ["--root", given, ..] = words.as_slice() {
        folder = given;
        words.drain(..2);
    }
    let Some((command, rest)) = words.split_first() else {
        complain!("{}", HELP.trim_end());
        return ExitCode::from(USAGE);
    };
    let arguments = match Arguments::parse(command, rest) {
        Ok(arguments) => arguments,
        Err(wrong) => return misused(&wrong),
    };
    let root = match Root::open(Path::new(folder)) {
        Ok(root) => root,
        Err(error) => {
            complain!("appliance: cannot open {folder}: {error}");
            return ExitCode::from(code::INTERNAL);
        }
    };
    let is_system = folder == "/";
    let place = Place { root, is_system };
    dispatch(&place, command, &arguments)
        .unwrap_or_else(|| misused(&format!("`{command}` is for the running system only")))
}

fn dispatch(place: &Place, command: &str, arguments: &Arguments<'_>) -> Option<ExitCode> {
    let root = &place.root;
    Some(match (command, arguments.words.as_slice()) {
        // Started by systemd.
        ("config", []) if place.is_system => boot::config(root),
        ("config", []) => boot::config_folder(root),
        ("verify", []) if place.is_system => boot::verify(root),
        ("resolv", []) => resolv(root),
        (trial::COMMAND, [digest]) => trial::run(place, digest),
        // Asked by people and programs.
        ("status", []) => status(root, arguments),
        ("validate", [file]) => validate(root, file, arguments),
        ("plan", [] | [_]) => change::run_plan(place, arguments),
        ("apply", [] | [_]) => change::run_apply(place, arguments),
        ("confirm", []) => change::run_confirm(place),
        ("rollback", []) => change::run_rollback(place),
        ("factory-reset", []) => change::run_reset(place, arguments),
        ("schema", []) => schema(root),
        ("secret", [name]) => secret::run(place, name),
        ("convert", [folder]) => convert(folder),
        ("report", []) => report::run_report(root),
        ("facts", []) => report::run_facts(root),
        ("support-bundle", [] | [_]) => report::run_bundle(root, arguments.words.first().copied()),
        ("--version", []) => {
            tell!("appliance {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => return None,
    })
}

fn status(root: &Root, arguments: &Arguments<'_>) -> ExitCode {
    let found = loop {
        let found = Status::load(root);
        let is_final = found.as_ref().is_some_and(Status::is_final);
        if is_final || !arguments.has("--wait") {
            break found;
        }
        std::thread::sleep(LOOK);
    };
    let Some(status) = found else {
        let why = "the first-boot agent has not run yet";
        if arguments.has("--json") {
            tell!(
                "{}",
                Status::new(Standing::Starting, code::NOT_YET, why).json()
            );
        }
        complain!("appliance: {why}");
        return ExitCode::from(code::NOT_YET);
    };
    if arguments.has("--json") {
        tell!("{}", status.json());
    } else {
        for line in status.lines() {
            tell!("{line}");
        }
    }
    ExitCode::from(status.code)
}

/// `schema`: what the builder made of the roles of this image.
fn schema(root: &Root) -> ExitCode {
    match root.read(SCHEMA, 4 * MAX_SIZE) {
        Ok(Some(bytes)) => {
            tell!("{}", String::from_utf8_lossy(&bytes).trim_end());
            ExitCode::SUCCESS
        }
        Ok(None) => no_input(SCHEMA, &std::io::ErrorKind::NotFound.into()),
        Err(error) => no_input(SCHEMA, &error),
    }
}

/// `convert FOLDER`: what the agent would make of a `CIDATA` medium with these
/// files, so that people can go on with the result.
fn convert(folder: &str) -> ExitCode {
    let mut texts = [const { String::new() }; 3];
    let names = ["meta-data", "user-data", "network-config"];
    for (text, name) in texts.iter_mut().zip(names) {
        let file = format!("{folder}/{name}");
        match read_bounded(&file) {
            Ok(bytes) => match decode(&bytes) {
                Ok(decoded) => decoded.clone_into(text),
                Err(problems) => {
                    show_problems(&[FileProblems::of(&file, &problems)]);
                    return ExitCode::from(code::INVALID);
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return no_input(&file, &error),
        }
    }
    let [meta_data, user_data, network_config] = &texts;
    if texts.iter().all(String::is_empty) {
        return no_input(folder, &std::io::ErrorKind::NotFound.into());
    }
    let texts = NoCloud {
        meta_data,
        user_data,
        network_config,
    };
    match convert_no_cloud(texts) {
        Ok(site) => {
            tell!("{}", site.trim_end());
            ExitCode::SUCCESS
        }
        Err((name, problems)) => {
            show_problems(&[FileProblems::of(&format!("{folder}/{name}"), &problems)]);
            ExitCode::from(code::INVALID)
        }
    }
}

fn validate(root: &Root, file: &str, arguments: &Arguments<'_>) -> ExitCode {
    let judged = match read_bounded(file) {
        Ok(bytes) => configure::examine(root, &bytes, file),
        Err(error) if arguments.has("--json") => {
            let problem = FileProblems::whole(file, "unreadable", &error.to_string(), "");
            tell!("{}", verdict_json(NO_INPUT, &[problem]));
            return ExitCode::from(NO_INPUT);
        }
        Err(error) => return no_input(file, &error),
    };
    let (code, files) = match judged {
        Ok(site) if !arguments.has("--json") => {
            tell!("{file}: {} serial {} is valid", site.id, site.serial);
            return ExitCode::SUCCESS;
        }
        Ok(_) => (code::READY, Vec::new()),
        Err(refused) => (refused.code(), refused.files),
    };
    if arguments.has("--json") {
        tell!("{}", verdict_json(code, &files));
    } else {
        show_problems(&files);
    }
    ExitCode::from(code)
}

fn show_problems(files: &[FileProblems]) {
    for line in files.iter().flat_map(FileProblems::lines) {
        complain!("{line}");
    }
}

fn no_input(file: &str, error: &std::io::Error) -> ExitCode {
    complain!("appliance: cannot read {file}: {error}");
    ExitCode::from(NO_INPUT)
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
            complain!("cannot write {RESOLV}: {error}");
            ExitCode::FAILURE
        }
    }
}
