//! What is wrong before or during a build: one clear error, its exit code,
//! and nothing under a final name.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::formats::deb::server::{Fault, Server};
use crate::support::appliance::appliance;
use crate::support::cached_mirror::{CachedMirror, consign_cache};
use crate::support::other_place::{NOBODY, OtherPlace, USER, copy_folder};
use crate::support::{
    consign, consign_path, is_root, must_run, program, repo_root, run, skip, temp_folder, text_of,
};

/// Asserts that a call failed with this code, said all of these words on
/// standard error, and ended with one error and its hint.
#[track_caller]
fn fails(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{}", text_of(output));
    for word in words {
        assert!(said.contains(word), "no `{word}` in:\n{said}");
    }
    assert_eq!(said.matches("error[").count(), 1, "one error:\n{said}");
    assert!(!said.contains("panicked"), "{said}");
}

/// Asserts that a folder of outputs is not there, or empty.
#[track_caller]
fn holds_nothing(folder: &Path) {
    let found = consign::tree::list_folder(folder).unwrap_or_default();
    let names: Vec<_> = found.iter().map(|entry| &entry.name).collect();
    assert!(names.is_empty(), "{} holds {names:?}", folder.display());
}

/// Copies what a build reads into `folder`. `None`, said loudly, without cp.
fn copy_sources(folder: &Path) -> Option<()> {
    let mut copy = program("cp", "coreutils")?;
    let names = ["appliance.toml", "layers"].map(|name| repo_root().join(name));
    must_run(copy.arg("-a").args(names).arg(folder));
    Some(())
}

fn replace(file: &Path, old: &str, new: &str) {
    let text = fs::read_to_string(file).expect("a text");
    assert!(text.contains(old), "no `{old}` in {text}");
    fs::write(file, text.replace(old, new)).expect("write");
}

#[test]
fn without_an_appliance_the_starter_is_named() {
    let folder = temp_folder();
    let output = run(consign().arg("build").current_dir(folder.path()));
    fails(
        &output,
        2,
        &[
            "error[appliance-missing]: there is no `appliance.toml`",
            "hint: run `consign init`",
        ],
    );
    holds_nothing(folder.path());
}

#[test]
fn a_wrong_appliance_is_shown_where_it_is_wrong() {
    let folder = temp_folder();
    if copy_sources(folder.path()).is_none() {
        return;
    }
    replace(&folder.path().join("appliance.toml"), "suite =", "siute =");
    let output = run(consign().arg("build").current_dir(folder.path()));
    fails(
        &output,
        2,
        &[
            "unknown key `siute` in [system]",
            "did you mean `suite`?",
            "--> appliance.toml:",
            "error[appliance-invalid]",
        ],
    );
    holds_nothing(&folder.path().join("out"));
}

#[test]
fn a_mirror_that_nobody_answers_for_is_named() {
    let folder = temp_folder();
    if copy_sources(folder.path()).is_none() {
        return;
    }
    let output = run(consign()
        .args(["build", "--cache", "cache"])
        .env("CONSIGN_MIRROR", "http://127.0.0.1:1/debian")
        .current_dir(folder.path()));
    fails(
        &output,
        1,
        &[
            "error[source-unreachable]: cannot reach `127.0.0.1:1`",
            "hint: check the network, set http_proxy or Acquire::http::Proxy, or name another",
        ],
    );
    holds_nothing(&folder.path().join("out"));
    assert!(!folder.path().join("appliance.lock").exists());
}

#[test]
fn a_disk_too_small_says_by_how_much() {
    appliance();
    let folder = temp_folder();
    if copy_sources(folder.path()).is_none() {
        return;
    }
    let lock = repo_root().join("appliance.lock");
    fs::copy(lock, folder.path().join("appliance.lock")).expect("the lock");
    let mut text = fs::read_to_string(folder.path().join("appliance.toml")).expect("a text");
    text.push_str("\n[disk]\nroot = \"64MiB\"\n");
    fs::write(folder.path().join("appliance.toml"), text).expect("write");
    let output = run(consign()
        .args(["build", "--locked"])
        .current_dir(folder.path()));
    fails(
        &output,
        2,
        &[
            "cannot make the file system of partition `root-a`",
            "because: the files need a partition of ",
            "but it has 67108864 (64 MiB): ",
            " bytes too few",
            "hint: give the partition at least ",
        ],
    );
    holds_nothing(&folder.path().join("out"));
}

#[test]
fn a_disk_that_an_output_cannot_hold_is_refused_before_any_work() {
    appliance();
    let folder = temp_folder();
    if copy_sources(folder.path()).is_none() {
        return;
    }
    let file = folder.path().join("appliance.toml");
    let text = fs::read_to_string(&file).expect("a text");
    fs::write(&file, text + "\n[disk]\nsize = \"3TiB\"\n").expect("write");
    let words = [
        "error[image-too-large]: an output cannot hold the disk",
        "a disk of 3298534883328 bytes (3 TiB) does not fit vhd, which ends at ",
        "hint: make the disk smaller, or use one of: raw, raw.zst, qcow2, ",
    ];
    let lock = repo_root().join("appliance.lock");
    fs::copy(lock, folder.path().join("appliance.lock")).expect("the lock");
    let build = ["build", "--locked", "--format", "raw", "--format", "vhd"];
    fails(
        &run(consign().args(build).current_dir(folder.path())),
        2,
        &words,
    );
    holds_nothing(&folder.path().join("out"));
    let text = fs::read_to_string(&file).expect("a text");
    fs::write(&file, text + "\n[outputs]\nformats = [\"vhd\"]\n").expect("write");
    let check = run(consign().arg("check").current_dir(folder.path()));
    fails(&check, 2, &words);
}

#[test]
fn an_output_folder_of_others_is_refused_before_any_work() {
    let Some(place) = OtherPlace::of(USER) else {
        return;
    };
    for folder in ["/root/out", "/usr"] {
        let build = format!("./consign build -o {folder}");
        let Some(mut build) = place.shell(&[], &build) else {
            return;
        };
        let output = run(&mut build);
        let words = [
            "error[output-folder]: cannot write into the folder `/",
            "hint: choose a folder that you may write to, with `-o FOLDER`",
        ];
        fails(&output, 1, &words);
        assert!(!text_of(&output).contains("fetch"), "{}", text_of(&output));
    }
}

#[test]
fn without_subordinate_ids_the_command_that_gives_them_is_named() {
    let Some(place) = OtherPlace::of(NOBODY) else {
        return;
    };
    let debs = "debs";
    if copy_folder(&consign_cache().join(debs), &place.cache().join(debs)).is_none() {
        return;
    }
    // Without a choice it would go on in a machine of QEMU.
    let build = "./consign build --locked --sandbox userns -o out";
    let Some(mut build) = place.give_away().and_then(|()| place.shell(&[], build)) else {
        return;
    };
    let output = run(&mut build);
    fails(
        &output,
        4,
        &[
            "`/etc/subuid` gives user `nobody` 0 subordinate ids of 65535",
            "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 nobody",
        ],
    );
    holds_nothing(&place.source().join("out"));
}

#[test]
fn without_qemu_the_package_is_named() {
    if !is_root() {
        return skip("hiding /usr/bin takes root");
    }
    let folder = temp_folder();
    let (Some(mut unshare), image) = (program("unshare", "util-linux"), "wiki.raw") else {
        return;
    };
    fs::write(folder.path().join(image), [0; 512]).expect("an image");
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).expect("a folder");
    // The programs of the shell's own are enough from there on.
    let hide = |place: &str| format!("/usr/bin/mount --bind '{}' {place}", empty.display());
    let script = format!(
        "{} && {} && exec '{}' boot {image}",
        hide("/usr/local/bin"),
        hide("/usr/bin"),
        consign_path().display()
    );
    let output = run(unshare
        .args(["--mount", "/bin/sh", "-c", &script])
        .current_dir(folder.path()));
    fails(
        &output,
        4,
        &[
            "`qemu-system-x86_64` is not installed",
            "hint: install it: apt-get install qemu-system-x86",
        ],
    );
}

/// Debian's archive on loopback.
pub(crate) struct LocalMirror {
    server: Server,
    mirror: CachedMirror,
}

impl LocalMirror {
    /// What makes consign use it.
    pub(crate) fn variable(&self) -> String {
        format!("CONSIGN_MIRROR={}/debian", self.server.address())
    }
}

/// Lets builds of `place` fail in every way that touches the cache. What is
/// built with that cache afterwards must be what anybody builds. `None`, said
/// loudly, where that is not possible.
pub(crate) fn everything_goes_wrong(place: &OtherPlace) -> Option<LocalMirror> {
    let mirror = CachedMirror::new();
    let server = Server::start(mirror.path());
    let local = LocalMirror { server, mirror };
    let attempt = |command: &str| -> Option<Output> {
        let output = run(&mut place.shell(&[local.variable()], command)?);
        holds_nothing(&place.source().join("the output"));
        Some(output)
    };
    let build = "./consign build -o 'the output' --progress plain";
    let without_lock = format!("mv appliance.lock .. && {build}");
    let with_lock = "mv ../appliance.lock .";

    local.server.fail("bookworm/InRelease", Fault::Flip);
    let output = attempt(&without_lock)?;
    let words = [
        "error[source-bad-signature]: the package list of suite `bookworm` from",
        "is not properly signed",
    ];
    fails(&output, 3, &words);

    let layer = place.source().join("layers/web/layer.toml");
    replace(&layer, "nginx", "ngnix");
    let output = attempt(build)?;
    let words = [
        "error[source-unknown-package]: layer `web` asks for package `ngnix`",
        "`nginx`",
    ];
    fails(&output, 2, &words);
    replace(&layer, "ngnix", "nginx");
    assert!(!place.source().join("appliance.lock").exists());

    let package = local.mirror.packages.first().expect("packages");
    local.server.fail(package, Fault::Flip);
    let output = attempt(&format!("{with_lock} && {build} --locked"))?;
    let words = [
        "has digest `sha256:",
        "` is locked",
        "nothing of it was kept",
    ];
    fails(&output, 3, &words);
    Some(local)
}
