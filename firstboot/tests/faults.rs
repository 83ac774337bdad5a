//! Every file call of apply, confirm, rollback and factory-reset killed,
//! filled and broken, one at a time, on a folder that stands for a system.
//!
//! After each fault and the next start, the system is wholly the one before or
//! wholly the one after: never half of both. `CONSIGN_SWEEP=all` tries every
//! call (hours on a slow machine), `CONSIGN_SWEEP=rollback` those of one
//! operation; without it, a sample.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests call foreign programs and read how much they are to do"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const AGENT: &str = env!("CARGO_BIN_EXE_consign-firstboot");
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
/// Calls that touch files. Each is counted by itself.
const CALLS: [&str; 21] = [
    "openat",
    "openat2",
    "read",
    "pread64",
    "write",
    "pwrite64",
    "ftruncate",
    "fsync",
    "syncfs",
    "renameat",
    "unlinkat",
    "mkdirat",
    "symlinkat",
    "readlinkat",
    "newfstatat",
    "statx",
    "fstat",
    "fchmod",
    "fchown",
    "getdents64",
    "flock",
];
/// In a sample, one call of this many.
const STEP: usize = 29;

/// What is done to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    NoSpace,
    InputOutput,
}

impl Fault {
    const ALL: [Self; 3] = [Self::Kill, Self::NoSpace, Self::InputOutput];

    fn inject(self, call: &str, at: usize) -> String {
        let what = match self {
            Self::Kill => "signal=SIGKILL",
            Self::NoSpace => "error=ENOSPC",
            Self::InputOutput => "error=EIO",
        };
        format!("inject={call}:{what}:when={at}")
    }

    /// Calls that never report a full disk.
    fn is_possible(self, call: &str) -> bool {
        let never = [
            "read",
            "pread64",
            "readlinkat",
            "newfstatat",
            "statx",
            "fstat",
            "getdents64",
            "flock",
            "fchmod",
            "fchown",
            "unlinkat",
        ];
        self != Self::NoSpace || !never.contains(&call)
    }
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
    fs::write(path, text).expect("a file");
}

/// A system that nobody configured, and two configurations for it.
fn system(folder: &Path) -> PathBuf {
    let root = folder.join("delivered");
    for (path, text) in [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"),
        ("etc/group", "root:x:0:\nsudo:x:27:\n"),
        ("etc/shadow", "root:*:1::::::\n"),
        ("etc/gshadow", "root:*::\nsudo:*::\n"),
        ("etc/hosts", "127.0.0.1\tlocalhost\n"),
        ("etc/motd", "vendor\n"),
        ("etc/skel/.profile", "# profile\n"),
        ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        ("usr/bin/sudo", ""),
        (
            "usr/lib/consign/image.toml",
            "name = \"sample\"\nbuild = \"one\"\n",
        ),
        ("usr/lib/consign/roles/web/t.j2", "{{ app.title }}\n"),
        (
            "usr/lib/consign/roles/web/role.toml",
            "schema = 1\nname = \"web\"\ndescription = \"x\"\nservices = [\"nginx.service\"]\n\
             [param.title]\ntype = \"string\"\n\
             [[template]]\nsource = \"t.j2\"\ntarget = \"/etc/motd\"\ntype = \"text\"\n",
        ),
        (
            "var/lib/consign/machine-id",
            "0123456789abcdef0123456789abcdef\n",
        ),
    ] {
        write(&root, path, text);
    }
    let site = |serial: u32, rest: &str| {
        format!(
            "schema = 1\n[config]\nid = \"acme\"\nserial = {serial}\n[system]\n\
             hostname = \"web-{serial}\"\ntimezone = \"UTC\"\n[app]\ntitle = \"{serial}\"\n{rest}"
        )
    };
    let ann = format!("[user.ann]\nssh_keys = [\"{KEY}\"]\nsudo = true\n");
    let bob = format!("[user.bob]\nssh_keys = [\"{KEY}\"]\n");
    write(folder, "one.toml", &site(1, &ann));
    write(folder, "two.toml", &site(2, &bob));
    root
}

fn agent(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(AGENT);
    command.arg("--root").arg(root).args(arguments);
    command.stdin(input(root, arguments));
    command.output().expect("the agent runs")
}

/// The claim code comes from a pipe, and never from the command line.
fn input(root: &Path, arguments: &[&str]) -> Stdio {
    if !arguments.contains(&"--claim") {
        return Stdio::null();
    }
    let path = root.with_file_name("claim.txt");
    Stdio::from(fs::File::open(path).expect("the code"))
}

#[track_caller]
fn must(root: &Path, arguments: &[&str]) {
    let output = agent(root, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// What a configuration is on a system. Homes are not part of it: they outlive
/// their accounts, but not a reset.
const PLACES: [&str; 4] = [
    "etc",
    "run/consign/configured",
    "run/consign/services",
    "run/systemd",
];
const PLACES_OF_PEOPLE: [&str; 2] = ["home", "var/log/journal"];

/// What a system is: every path of these places with its kind, mode and content.
fn snapshot(root: &Path, places: &[&str]) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut open: Vec<PathBuf> = places.iter().map(|place| root.join(place)).collect();
    while let Some(path) = open.pop() {
        let Ok(metadata) = path.symlink_metadata() else {
            continue;
        };
        let mode = metadata.permissions().mode() & 0o7777;
        let what = if metadata.is_dir() {
            for entry in fs::read_dir(&path).expect("a folder") {
                open.push(entry.expect("an entry").path());
            }
            format!("folder {mode:o}")
        } else if metadata.is_symlink() {
            format!("link {}", fs::read_link(&path).expect("a link").display())
        } else {
            format!("{mode:o} {}", fs::read_to_string(&path).expect("text"))
        };
        found.insert(path.strip_prefix(root).expect("below").to_owned(), what);
    }
    found
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(done.expect("cp runs").success());
}

fn traced(options: &[&str], root: &Path, arguments: &[&str]) -> Option<Output> {
    let mut strace = Command::new("strace");
    // Stops at the calls that are looked at, and at no other.
    strace
        .args(["-f", "-qq", "--seccomp-bpf"])
        .args(options)
        .arg(AGENT);
    strace.arg("--root").arg(root).args(arguments);
    strace.stdin(input(root, arguments));
    match strace.output() {
        Ok(output) => Some(output),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "strace: {error}");
            eprintln!("SKIPPED: strace is missing: {error}");
            None
        }
    }
}

/// How often the operation makes each call.
fn count(start: &Path, work: &Path, arguments: &[&str]) -> Option<BTreeMap<&'static str, usize>> {
    copy(start, work);
    let log = work.with_extension("log");
    let trace = format!("trace={}", CALLS.join(","));
    let log_text = log.to_str().expect("UTF-8");
    let output = traced(&["-o", log_text, "-e", &trace], work, arguments)?;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    let text = fs::read_to_string(&log).expect("the log");
    let of = |call: &'static str| {
        let is_it = |line: &&str| {
            line.contains(&format!(" {call}(")) || line.starts_with(&format!("{call}("))
        };
        (call, text.lines().filter(is_it).count())
    };
    Some(CALLS.into_iter().map(of).collect())
}

/// An operation from a start, and every system that may be there afterwards.
struct Operation<'s> {
    name: &'static str,
    start: &'s Path,
    arguments: Vec<&'s str>,
    places: &'s [&'s str],
    allowed: Vec<(&'static str, BTreeMap<PathBuf, String>)>,
}

/// Breaks the operation at every call of the sweep; how many states were seen.
fn sweep(folder: &Path, operation: &Operation<'_>) -> Option<usize> {
    let work = folder.join("work");
    let counts = count(operation.start, &work, &operation.arguments)?;
    let step = if wanted().is_some() { 1 } else { STEP };
    let mut states = 0;
    let mut turn = 0_usize;
    let mut wrong = Vec::new();
    for fault in Fault::ALL {
        for (call, count) in &counts {
            if !fault.is_possible(call) {
                continue;
            }
            for at in 1..=*count {
                turn += 1;
                if !turn.is_multiple_of(step) {
                    continue;
                }
                states += 1;
                copy(operation.start, &work);
                let inject = fault.inject(call, at);
                let trace = format!("trace={call}");
                let output = traced(
                    &["-o", "/dev/null", "-e", &trace, "-e", &inject],
                    &work,
                    &operation.arguments,
                )?;
                let what = format!("{} {inject}", operation.name);
                assert!(
                    !String::from_utf8_lossy(&output.stderr).contains("panicked"),
                    "{what}: {output:?}"
                );
                // The next start, and the one after it, which changes nothing.
                agent(&work, &["config"]);
                let after = snapshot(&work, operation.places);
                agent(&work, &["config"]);
                let again = snapshot(&work, operation.places);
                let found = operation
                    .allowed
                    .iter()
                    .find(|(_, allowed)| *allowed == again);
                if found.is_none() {
                    let allowed = operation.allowed.iter();
                    let nearest: Vec<String> = allowed
                        .map(|(name, allowed)| format!("{name}: {}", difference(&again, allowed)))
                        .collect();
                    wrong.push(format!("{what}: differs from {}", nearest.join("; from ")));
                }
                if fault == Fault::Kill && after != again && operation.name != "apply" {
                    wrong.push(format!("{what}: the second start changed something"));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {states}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    eprintln!("faults: {}: {states} states, 0 bad", operation.name);
    Some(states)
}

/// The operation that is swept in full; `all` for every one.
fn wanted() -> Option<String> {
    std::env::var("CONSIGN_SWEEP").ok()
}

fn difference(one: &BTreeMap<PathBuf, String>, two: &BTreeMap<PathBuf, String>) -> String {
    let paths = one.keys().chain(two.keys());
    let mut differ: Vec<String> = paths
        .filter(|path| one.get(*path) != two.get(*path))
        .map(|path| path.display().to_string())
        .collect();
    differ.sort_unstable();
    differ.dedup();
    differ.join(", ")
}

/// A system that people have used, and what a reset makes of it.
fn lived_and_reset(folder: &Path, start: &Path) -> (PathBuf, PathBuf) {
    let (lived, reset) = (folder.join("lived"), folder.join("reset"));
    copy(start, &lived);
    write(&lived, "etc/hostname", "by somebody\n");
    must(&lived, &["config"]);
    write(&lived, "home/ann/letter", "x\n");
    write(&lived, "var/log/journal/0123/system.journal", "x\n");
    copy(&lived, &reset);
    must(&reset, &["factory-reset", "--yes"]);
    (lived, reset)
}

#[test]
fn no_fault_leaves_half_a_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let delivered = system(folder);
    let site = |name: &str| folder.join(name).to_str().expect("UTF-8").to_owned();
    let (one, two) = (site("one.toml"), site("two.toml"));
    // A clean walk through all states first.
    let first = folder.join("first");
    copy(&delivered, &first);
    must(&first, &["apply", &one]);
    let claimed = folder.join("claimed");
    copy(&first, &claimed);
    assert_eq!(agent(&claimed, &["apply", &two]).status.code(), Some(21));
    let claim = fs::read_to_string(claimed.join("var/lib/consign/claim")).expect("a code");
    write(folder, "claim.txt", &claim);
    let trial = folder.join("trial");
    copy(&claimed, &trial);
    must(&trial, &["apply", &two, "--claim"]);
    let second = folder.join("second");
    copy(&trial, &second);
    must(&second, &["confirm"]);
    let (nothing, with_one) = (snapshot(&delivered, &PLACES), snapshot(&first, &PLACES));
    let with_two = snapshot(&second, &PLACES);
    assert!(nothing != with_one && with_one != with_two);
    let back = folder.join("back");
    copy(&second, &back);
    must(&back, &["rollback"]);
    assert_eq!(difference(&snapshot(&back, &PLACES), &with_one), "");
    // What a delivered system is after a configuration has gone again.
    let all = [&PLACES[..], &PLACES_OF_PEOPLE].concat();
    let (lived, reset) = lived_and_reset(folder, &second);
    let (lived_in, without) = (snapshot(&lived, &all), snapshot(&reset, &all));
    let people = ["etc/hostname.local", "home/ann", "var/log/journal/0123"];
    for path in people.map(Path::new) {
        assert!(
            lived_in.contains_key(path) && !without.contains_key(path),
            "{path:?}"
        );
    }
    for path in [
        "etc/passwd",
        "etc/shadow",
        "etc/group",
        "etc/motd",
        "etc/hosts",
    ] {
        assert_eq!(
            without.get(Path::new(path)),
            nothing.get(Path::new(path)),
            "{path}"
        );
    }
    let (n, o, t) = (("delivered", nothing), ("one", with_one), ("two", with_two));
    let operations = [
        Operation {
            name: "first apply",
            start: &delivered,
            arguments: vec!["apply", &one],
            places: &PLACES,
            allowed: vec![n.clone(), o.clone()],
        },
        // Nobody confirmed it, so the second start has gone back.
        Operation {
            name: "apply",
            start: &claimed,
            arguments: vec!["apply", &two, "--claim"],
            places: &PLACES,
            allowed: vec![o.clone()],
        },
        Operation {
            name: "confirm",
            start: &trial,
            arguments: vec!["confirm"],
            places: &PLACES,
            allowed: vec![o.clone(), t.clone()],
        },
        Operation {
            name: "rollback",
            start: &second,
            arguments: vec!["rollback"],
            places: &PLACES,
            allowed: vec![o.clone(), t.clone()],
        },
        Operation {
            name: "reset",
            start: &lived,
            arguments: vec!["factory-reset", "--yes"],
            places: &all,
            allowed: vec![("reset", without), ("lived in", lived_in)],
        },
    ];
    let mut all = 0;
    for operation in &operations {
        let is_swept = wanted().is_none_or(|name| name == "all" || name == operation.name);
        if !is_swept {
            continue;
        }
        let Some(states) = sweep(folder, operation) else {
            return;
        };
        all += states;
    }
    assert!(all > 50, "only {all} states");
}
