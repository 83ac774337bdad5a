//! A conversion that is killed, or whose calls fail, at any moment: the file
//! under the final name is the old one, whole, and the next run is right.
//!
//! `strace` does the killing; whatever `consign` writes goes through the calls
//! that are counted here.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests call foreign programs"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{
    TestFolder, consign_path, digest_of, note, program, repo_root, run, temp_folder,
};

/// Whatever leaves bytes or names behind, and opens them.
const CALLS: [&str; 9] = [
    "openat",
    "write",
    "pwrite64",
    "ftruncate",
    "fchmod",
    "fsync",
    "linkat",
    "rename",
    "unlink",
];

const FORMATS: [&str; 7] = ["raw", "raw.zst", "qcow2", "vmdk", "vhdx", "vhd", "ova"];

/// A disk of 6 MiB, half of it holes, with bytes that do not pack well.
fn a_disk(folder: &Path) -> PathBuf {
    let path = folder.join("disk.raw");
    let mut state = 1_u64;
    let mut bytes = vec![0_u8; 6 << 20];
    for (number, chunk) in bytes.chunks_mut(8).enumerate() {
        if number / 100_000 % 2 == 0 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            chunk.copy_from_slice(&(state >> 13).to_le_bytes());
        }
    }
    fs::write(&path, bytes).expect("write");
    path
}

struct Ground {
    _folder: TestFolder,
    disk: PathBuf,
    out: PathBuf,
}

impl Ground {
    fn new() -> Self {
        let folder = temp_folder();
        let out = folder.path().join("out");
        fs::create_dir(&out).expect("make");
        Self {
            disk: a_disk(folder.path()),
            out,
            _folder: folder,
        }
    }

    fn target(&self, format: &str) -> PathBuf {
        self.out.join(format!("disk.{format}"))
    }

    fn convert(&self, mut command: Command, format: &str) -> Output {
        command.arg("convert").arg(&self.disk).args(["-O", format]);
        command.arg("-o").arg(self.target(format));
        if format == "ova" {
            let appliance = repo_root().join("appliance.toml");
            command.arg("--appliance").arg(appliance);
        }
        run(command.args(["--jobs", "2"]))
    }

    fn plainly(&self, format: &str) -> Output {
        self.convert(Command::new(consign_path()), format)
    }

    fn traced(&self, options: &[String], format: &str) -> Option<Output> {
        let mut strace = program("strace", "strace")?;
        strace
            .args(["-f", "-qq", "-o"])
            .arg(self.disk.with_extension("log"));
        strace.args(options).arg(consign_path());
        Some(self.convert(strace, format))
    }

    /// How often each call comes, on the thread where it comes most often.
    fn counted(&self, format: &str) -> Option<BTreeMap<&'static str, u32>> {
        self.traced(&[format!("-etrace={}", CALLS.join(","))], format)?;
        let log = fs::read_to_string(self.disk.with_extension("log")).expect("the log");
        let mut by_thread: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        for line in log.lines() {
            if let Some((thread, call)) = line.split_once(' ')
                && let Some((name, _)) = call.trim_start().split_once('(')
            {
                *by_thread.entry((thread, name)).or_default() += 1;
            }
        }
        let most = |wanted| {
            let counts = by_thread.iter().filter(|((_, name), _)| *name == wanted);
            counts.map(|(_, count)| *count).max()
        };
        Some(
            CALLS
                .iter()
                .filter_map(|name| Some((*name, most(*name)?)))
                .collect(),
        )
    }

    /// Names in the folder, hidden ones too: only a kill between the link and
    /// the rename can leave one of those.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.out).expect("read");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }
}

#[test]
fn a_conversion_that_is_cut_off_leaves_the_file_before_it() {
    let ground = Ground::new();
    if program("strace", "strace").is_none() {
        return note("strace cuts conversions off");
    }
    let mut cases = 0_usize;
    for format in FORMATS {
        let target = ground.target(format);
        let first = ground.plainly(format);
        assert!(first.status.success(), "{first:?}");
        let right = digest_of(&target);
        let calls = ground.counted(format).expect("looked for before");
        assert!(
            calls.contains_key("linkat") && calls.contains_key("fsync"),
            "{calls:?}"
        );
        for (call, count) in &calls {
            let ways = [
                ("signal=KILL", (*count).max(2) / 2),
                ("error=ENOSPC", *count),
                ("signal=KILL", *count),
                ("error=EIO", (*count).max(2) / 2),
            ];
            // Each call both ways; which moment goes round.
            let turn = cases / 2 % 2 * 2;
            for (way, moment) in &ways[turn..turn + 2] {
                let (way, moment) = (*way, *moment);
                // Once with nothing under the name, once with an older file.
                let old = cases / 4 % 2 == 1;
                if old {
                    fs::write(&target, "the file before").expect("write");
                } else if target.exists() {
                    fs::remove_file(&target).expect("remove");
                }
                let case = format!("{format}: {call} {moment} of {count}: {way}");
                let inject = format!("-einject={call}:{way}:when={moment}");
                let ended = ground
                    .traced(&["-etrace=none".into(), inject], format)
                    .expect("looked for before");
                cases += 1;
                let now = fs::read(&target).ok();
                let is_new = now.is_some() && digest_of(&target) == right;
                if ended.status.success() {
                    assert!(is_new, "{case}: said to be done");
                } else if !is_new {
                    let before = old.then(|| b"the file before".to_vec());
                    assert_eq!(now, before, "{case}: a partial file");
                }
                for name in ground.names() {
                    let hidden = name.starts_with(".consign-");
                    let between = way == "signal=KILL" && hidden;
                    assert!(
                        between || name == format!("disk.{format}"),
                        "{case}: {name}"
                    );
                    if between {
                        fs::remove_file(ground.out.join(name)).expect("remove");
                    }
                }
                if !ended.status.success() && way.starts_with("error") {
                    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
                    assert!(said.contains("error:"), "{case}: {said}");
                    assert!(!said.contains("panicked"), "{case}: {said}");
                }
            }
        }
        let last = ground.plainly(format);
        assert!(last.status.success(), "{last:?}");
        assert_eq!(digest_of(&target), right, "{format}");
        fs::remove_file(target).expect("remove");
    }
    assert!(cases >= 84, "{cases} cases");
}
