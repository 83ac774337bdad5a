//! Whatever fails while layers are made, and whenever a build is killed: the
//! store stays sound, the next build gives the same layers, nothing is left.
//!
//! `strace` makes single system calls fail, in every process of the sandbox as
//! well. A sample runs with every change, `CONSIGN_ALL_FAULTS=1` runs all.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests call foreign programs"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use consign::digest::Digest;
use consign::layer::source::deb::Base;
use consign::layer::spec::{FilesRecipe, LayerSpec, PackagePin, Recipe, ToolsRecipe};
use consign::layer::{DebSource as _, build_all};
use consign::plan::digest_of_folder;
use consign::report::{Event, Recorder};
use consign::tree::TreePath;
use serde::{Deserialize, Serialize};

use super::packages::{Archive, Files, must_skip, shop};
use crate::support::{consign_path, digest_of, note, program, temp_folder};

/// Tells the process of a build where it works.
const PLACE: &str = "CONSIGN_TEST_FAULTS";

/// How a build ended, as its process says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Ended {
    Well {
        digests: Vec<String>,
        warnings: Vec<String>,
    },
    Badly {
        slug: String,
        words: String,
        hint: Option<String>,
    },
}

/// What the builds of a test are made of.
struct Ground {
    folder: tempfile::TempDir,
    right: Vec<String>,
}

impl Ground {
    fn new() -> Self {
        let folder = temp_folder();
        let archive = Archive::open();
        let specs = archive.resolve(Base::Nothing, &[("tools", &["busybox-static"])]);
        let Recipe::Packages(recipe) = &specs[0].recipe else {
            panic!("packages only");
        };
        let debs = archive.fetch(&recipe.pins).expect("debs");
        let text = serde_json::to_vec(&(&recipe.pins, &debs)).expect("JSON");
        std::fs::write(folder.path().join("debs.json"), text).expect("write");
        let files = folder.path().join("files/etc");
        std::fs::create_dir_all(&files).expect("folders");
        for name in ["one", "two", "three"] {
            std::fs::write(files.join(name), name.repeat(5000)).expect("write");
        }
        let mut ground = Self {
            folder,
            right: Vec::new(),
        };
        match ground.build(None) {
            (_, Some(Ended::Well { digests, .. })) => ground.right = digests,
            other => panic!("{other:?}"),
        }
        ground
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn answer(&self) -> PathBuf {
        self.folder.path().join("answer")
    }

    /// The command that builds, in a process of its own.
    fn command(&self, strace: Option<&[String]>) -> Command {
        let tests = std::env::current_exe().expect("a path");
        let mut command = match strace {
            None => Command::new(tests),
            Some(options) => {
                let mut strace = program("strace", "strace").expect("looked for before");
                strace
                    .args(["-f", "-qq", "--seccomp-bpf"])
                    .args(options)
                    .arg(tests);
                strace
            }
        };
        command
            .args(["--exact", "layer::faults::part_that_builds", "--ignored"])
            .args(["--nocapture", "--test-threads=1"])
            .env(PLACE, self.folder.path())
            .stdin(Stdio::null());
        command
    }

    fn build(&self, strace: Option<&[String]>) -> (Output, Option<Ended>) {
        let answer = self.answer();
        if answer.exists() {
            std::fs::remove_file(&answer).expect("an old answer");
        }
        let output = self.command(strace).output().expect("it starts");
        let text = std::fs::read(&answer).ok();
        (
            output,
            text.and_then(|text| serde_json::from_slice(&text).ok()),
        )
    }

    fn forget_all(&self) {
        std::fs::remove_dir_all(self.store()).expect("the store of the build before");
    }

    /// What is wrong with the store, and with what the next build makes of it.
    fn trouble(&self) -> Option<String> {
        if let Some(wrong) = self.unsound() {
            return Some(wrong);
        }
        match self.build(None) {
            (_, Some(Ended::Well { digests, warnings })) if digests == self.right => {
                if !warnings.is_empty() {
                    return Some(format!("the next build warns: {warnings:?}"));
                }
            }
            (output, ended) => {
                let words = String::from_utf8_lossy(&output.stderr).into_owned();
                return Some(format!("the next build: {ended:?} {words}"));
            }
        }
        let left: Vec<_> = entries(&self.store().join("work"));
        (!left.is_empty()).then(|| format!("the next build leaves {left:?}"))
    }

    /// Whatever has a final name is what its name says.
    fn unsound(&self) -> Option<String> {
        for blob in entries(&self.store().join("blobs/sha256")) {
            let name = blob
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            if digest_of(&blob).hex() != name {
                return Some(format!("blob {name} is not what it says"));
            }
        }
        for record in entries(&self.store().join("layers")) {
            let text = std::fs::read(&record).expect("readable");
            if serde_json::from_slice::<serde_json::Value>(&text).is_err() {
                return Some(format!("record {} is torn", record.display()));
            }
        }
        None
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let list = std::fs::read_dir(folder).into_iter().flatten();
    list.map(|entry| entry.expect("readable").path()).collect()
}

/// Not a test of its own: the process of a build.
#[test]
#[ignore = "run by other tests, under strace"]
fn part_that_builds() {
    let place = PathBuf::from(std::env::var_os(PLACE).expect("told by the test"));
    let text = std::fs::read(place.join("debs.json")).expect("read");
    let (pins, debs): (Vec<PackagePin>, Vec<PathBuf>) =
        serde_json::from_slice(&text).expect("JSON");
    let ended = build_here(&place, pins, debs);
    let text = serde_json::to_vec(&ended).expect("JSON");
    let own = place.join(format!("answer-{}", std::process::id()));
    // The call that is to fail may be one of these. Others answer at the same time.
    for _ in 0..5 {
        let written = std::fs::write(&own, &text);
        if written.is_ok() && std::fs::rename(&own, place.join("answer")).is_ok() {
            return;
        }
    }
}

fn build_here(place: &Path, pins: Vec<PackagePin>, debs: Vec<PathBuf>) -> Ended {
    let badly = |slug: &str, words: String, hint: Option<String>| Ended::Badly {
        slug: slug.to_owned(),
        words,
        hint,
    };
    let folder = place.join("files");
    let digest = match digest_of_folder(&folder) {
        Ok(digest) => digest,
        Err(error) => return badly("plan", error.to_string(), Some("read above".into())),
    };
    let path = |text: &str| TreePath::parse(text.as_bytes()).expect("a path");
    let command = ["/bin/busybox", "cp", "/work/in", "/work/out"];
    let specs = [
        LayerSpec {
            name: "files".into(),
            recipe: Recipe::Files(FilesRecipe {
                folder,
                digest,
                rules: vec![],
                entries: vec![],
                remove: vec![],
                templates: vec![],
                values: [].into(),
            }),
            allow_secrets: vec![],
        },
        LayerSpec {
            name: "tools".into(),
            recipe: Recipe::Tools(ToolsRecipe {
                pins: pins.clone(),
                input: [(path("work/in"), b"content".repeat(1000))].into(),
                command: command.map(str::to_owned).to_vec(),
                keep: vec![path("work/out")],
            }),
            allow_secrets: vec![],
        },
    ];
    let store = place.join("store");
    let files = Files(pins.into_iter().zip(debs).collect());
    let opened = consign::layer::Store::open(&store);
    if let Err(error) = opened {
        return badly(error.slug(), in_full(&error), error.hint());
    }
    let recorder = Recorder::default();
    match build_all(&specs, &shop(&store, &files, consign_path()), &recorder) {
        Ok(layers) => Ended::Well {
            digests: layers
                .iter()
                .map(|layer| layer.diff_id.to_string())
                .collect(),
            warnings: warnings(&recorder.events()),
        },
        Err(error) => badly(error.slug(), in_full(&error), error.hint()),
    }
}

fn warnings(events: &[Event]) -> Vec<String> {
    let texts = events.iter().filter_map(|event| match event {
        Event::Warning { message, .. } => Some(message.clone()),
        _ => None,
    });
    texts.collect()
}

fn in_full(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Calls that touch the store or the root, and how they may fail.
const CALLS: [(&str, &[&str]); 15] = [
    ("write", &["error=ENOSPC", "error=EIO", "signal=SIGKILL"]),
    (
        "openat",
        &["error=EMFILE", "error=EACCES", "signal=SIGKILL"],
    ),
    ("openat2", &["error=EMFILE", "signal=SIGKILL"]),
    ("rename", &["error=EIO", "error=ENOSPC", "signal=SIGKILL"]),
    ("renameat", &["error=EIO", "signal=SIGKILL"]),
    ("linkat", &["error=ENOSPC", "signal=SIGKILL"]),
    ("fsync", &["error=EIO", "signal=SIGKILL"]),
    ("fdatasync", &["error=EIO", "signal=SIGKILL"]),
    ("mkdir", &["error=ENOSPC", "signal=SIGKILL"]),
    ("mkdirat", &["error=ENOSPC", "signal=SIGKILL"]),
    ("unlinkat", &["error=EIO", "signal=SIGKILL"]),
    ("fchmod", &["error=EIO", "signal=SIGKILL"]),
    ("chmod", &["error=EIO", "signal=SIGKILL"]),
    ("flock", &["error=EIO", "signal=SIGKILL"]),
    ("mount", &["error=EACCES", "signal=SIGKILL"]),
];

/// How often the busiest thread of a build makes each call.
fn counted(ground: &Ground) -> BTreeMap<String, u32> {
    ground.forget_all();
    let log = ground.folder.path().join("log");
    let names = CALLS.map(|(name, _)| name).join(",");
    let options = [
        "-o".to_owned(),
        log.display().to_string(),
        format!("-etrace={names}"),
    ];
    let (_, ended) = ground.build(Some(&options));
    assert!(matches!(ended, Some(Ended::Well { .. })), "{ended:?}");
    let text = String::from_utf8_lossy(&std::fs::read(&log).expect("the log")).into_owned();
    let mut by_thread: BTreeMap<(String, String), u32> = BTreeMap::new();
    for line in text.lines() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        if let Some((name, _)) = call.trim_start().split_once('(') {
            *by_thread
                .entry((name.to_owned(), thread.to_owned()))
                .or_default() += 1;
        }
    }
    let mut most: BTreeMap<String, u32> = BTreeMap::new();
    for ((name, _), count) in by_thread {
        let most = most.entry(name).or_default();
        *most = (*most).max(count);
    }
    most
}

/// All moments, or two of them: each way has its own.
fn moments(count: u32, all: bool, turn: usize, ways: usize) -> Vec<u32> {
    if all || count == 0 {
        return (1..=count).collect();
    }
    let (turn, ways) = (
        u32::try_from(turn).expect("a few"),
        u32::try_from(ways).expect("a few"),
    );
    let mut two = vec![(count * (turn + 1) / (ways + 1)).max(1), count];
    two.dedup();
    two
}

#[test]
fn whatever_fails_the_store_stays_sound_and_the_next_build_is_right() {
    if must_skip() || program("strace", "strace").is_none() {
        return;
    }
    let ground = Ground::new();
    let counts = counted(&ground);
    let all = std::env::var_os("CONSIGN_ALL_FAULTS").is_some();
    let mut wrong = Vec::new();
    let (mut cases, mut failed, mut killed) = (0, 0, 0);
    for (call, ways) in CALLS {
        let count = counts.get(call).copied().unwrap_or(0);
        for (turn, way) in ways.iter().enumerate() {
            for moment in moments(count, all, turn, ways.len()) {
                cases += 1;
                let name = format!("{call}:{way}:when={moment}");
                ground.forget_all();
                let options = [
                    "-o/dev/null".to_owned(),
                    format!("-etrace={call}"),
                    format!("-einject={name}"),
                ];
                let (output, ended) = ground.build(Some(&options));
                let words = String::from_utf8_lossy(&output.stderr);
                match &ended {
                    Some(Ended::Well { digests, .. }) if *digests != ground.right => {
                        wrong.push(format!("{name}: another layer"));
                    }
                    Some(Ended::Well { .. }) => {}
                    Some(Ended::Badly { words, .. }) if words.trim().is_empty() => {
                        wrong.push(format!("{name}: fails without a word"));
                    }
                    Some(Ended::Badly { slug, words, hint }) => {
                        failed += 1;
                        let is_pipe = [
                            "sandbox-talk",
                            "tool-broken-pipe",
                            "layer-program-failed",
                            "tool-failed",
                        ];
                        let is_told = hint.is_some()
                            || is_pipe.contains(&slug.as_str())
                            || !words.contains("No space left");
                        if !is_told {
                            wrong.push(format!("{name}: no hint: [{slug}] {words}"));
                        }
                    }
                    None => killed += 1,
                }
                if words.contains("panicked at src/") {
                    wrong.push(format!("{name}: {words}"));
                }
                wrong.extend(ground.trouble().map(|trouble| format!("{name}: {trouble}")));
            }
        }
    }
    note_figures(cases, failed, killed);
    assert!(
        wrong.is_empty(),
        "{} of {cases}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        cases >= 30 && failed >= 10 && killed >= 1,
        "{cases} {failed} {killed}"
    );
}

fn note_figures(cases: u32, failed: u32, killed: u32) {
    let line = format!("{cases} faults: {failed} builds failed with a message, {killed} killed\n");
    let _written = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
}

/// Ways to spoil a file.
type Spoil = (&'static str, fn(&Path));
const SPOILS: [Spoil; 6] = [
    ("flipped", |path| {
        let mut bytes = std::fs::read(path).expect("read");
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        std::fs::write(path, bytes).expect("write");
    }),
    ("truncated", |path| {
        let bytes = std::fs::read(path).expect("read");
        std::fs::write(path, &bytes[..bytes.len() / 2]).expect("write");
    }),
    ("emptied", |path| std::fs::write(path, b"").expect("write")),
    ("extended", |path| {
        let mut bytes = std::fs::read(path).expect("read");
        bytes.extend([0; 512]);
        std::fs::write(path, bytes).expect("write");
    }),
    ("swapped", |path| {
        let others = entries(path.parent().expect("a folder"));
        let other = others.iter().find(|other| *other != path).expect("another");
        std::fs::copy(other, path).map(drop).expect("copy");
    }),
    ("a folder", |path| {
        std::fs::remove_file(path).expect("remove");
        std::fs::create_dir(path).expect("folder");
    }),
];

#[test]
fn a_spoiled_object_is_made_again() {
    if must_skip() {
        return;
    }
    let ground = Ground::new();
    for folder in ["blobs/sha256", "layers"] {
        for (how, spoil) in SPOILS {
            let objects = entries(&ground.store().join(folder));
            assert_eq!(objects.len(), 2, "{folder}");
            spoil(&objects[0]);
            let (output, ended) = ground.build(None);
            let Some(Ended::Well { digests, warnings }) = ended else {
                let words = String::from_utf8_lossy(&output.stderr);
                panic!("{folder} {how}: {ended:?} {words}");
            };
            assert_eq!(digests, ground.right, "{folder} {how}");
            let is_said = warnings.iter().any(|text| text.contains("damaged"));
            assert!(is_said, "{folder} {how} is not said: {warnings:?}");
            assert_eq!(ground.unsound(), None, "{folder} {how}");
            assert_eq!(ground.trouble(), None, "{folder} {how}");
        }
    }
}

#[test]
fn eight_builds_share_a_store_and_some_are_killed() {
    if must_skip() {
        return;
    }
    let rounds = std::env::var("CONSIGN_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let ground = Ground::new();
    for round in 0..rounds.unwrap_or(1) {
        if round % 2 == 0 {
            ground.forget_all();
        } else if let Some(blob) = entries(&ground.store().join("blobs/sha256")).first() {
            SPOILS[usize::try_from(round).expect("small") / 2 % 5].1(blob);
        }
        one_round(&ground, round);
        assert_eq!(ground.trouble(), None, "round {round}");
    }
}

fn one_round(ground: &Ground, round: u32) {
    let mut builds: Vec<_> = (0..8)
        .map(|_| {
            let mut command = ground.command(None);
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            command.spawn().expect("it starts")
        })
        .collect();
    for (at, build) in builds.iter_mut().enumerate().filter(|(at, _)| at % 4 == 0) {
        let delay = 20 + 37 * u64::from(round) % 150 + 40 * at as u64;
        std::thread::sleep(std::time::Duration::from_millis(delay));
        // One that has ended already cannot be killed, and need not be.
        drop(build.kill());
    }
    for (at, build) in builds.into_iter().enumerate() {
        let output = build.wait_with_output().expect("it ends");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(
            at % 4 == 0 || output.status.success(),
            "round {round}: {words}"
        );
        assert!(
            !words.contains("panicked at src/"),
            "round {round}: {words}"
        );
    }
    let text = std::fs::read(ground.answer()).expect("an answer");
    let ended: Ended = serde_json::from_slice(&text).expect("whole");
    let Ended::Well { digests, .. } = ended else {
        panic!("round {round}: {ended:?}");
    };
    assert_eq!(digests, ground.right, "round {round}");
    assert_eq!(ground.unsound(), None, "round {round}");
}

/// Of the digests that the tests compare with.
#[test]
fn the_judge_of_stores_sees_damage() {
    if must_skip() {
        return;
    }
    let ground = Ground::new();
    assert_eq!(ground.unsound(), None);
    for (_, spoil) in &SPOILS[..5] {
        let blob = entries(&ground.store().join("blobs/sha256")).remove(0);
        let whole = std::fs::read(&blob).expect("read");
        spoil(&blob);
        assert!(ground.unsound().is_some());
        std::fs::write(&blob, whole).expect("write");
    }
    assert_ne!(Digest::of(b""), Digest::of(b"x"));
    if std::env::var_os("CONSIGN_ALL_FAULTS").is_none() {
        note("most faults: CONSIGN_ALL_FAULTS=1 runs every one");
    }
}
