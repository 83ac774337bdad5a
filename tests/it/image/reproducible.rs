//! The same bytes, whoever builds, wherever and in whatever surroundings;
//! and a build needs no root and no mounts.
#![expect(
    clippy::disallowed_types,
    reason = "the test starts consign as another user"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use consign::digest::Digest;

use crate::support::appliance::appliance;
use crate::support::{
    TestFolder, consign_path, digest_of, is_root, must_run, program, repo_root, skip, temp_folder,
    text_of,
};

/// The user that `ci/install` makes.
const USER: &str = "consign-test";

/// Where a build in a checkout leaves the agent.
const AGENT: &str = "target/x86_64-unknown-linux-gnu/firstboot/consign-firstboot";

/// A folder that the test user owns: a copy of the sources that a build
/// reads, the builder and the agent.
struct OtherPlace {
    folder: TestFolder,
}

impl OtherPlace {
    /// `None`, said loudly, where there is no such user or we may not become it.
    fn make() -> Option<Self> {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        if !is_root() || !passwd.lines().any(|line| line.starts_with(USER)) {
            skip(&format!(
                "cannot become {USER}: run ci/install and the tests as root"
            ));
            return None;
        }
        let folder = temp_folder();
        let place = Self { folder };
        let source = place.path("an other place");
        fs::create_dir(&source).expect("a folder");
        let mut copy = program("cp", "coreutils")?;
        must_run(
            copy.arg("-a")
                .args(["appliance.toml", "layers"].map(|name| repo_root().join(name)))
                .arg(consign_path())
                .arg(&source),
        );
        let agent = repo_root().join(AGENT);
        fs::copy(agent, source.join("consign-firstboot")).expect("the first build made the agent");
        let lock = repo_root().join("appliance.lock");
        fs::copy(lock, source.join("appliance.lock")).expect("the first build left a lock");
        let mut chown = program("chown", "coreutils")?;
        must_run(chown.args(["-R", USER]).arg(place.folder.path()));
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(place.folder.path(), mode).expect("our folder");
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts `program` as the test user, in surroundings of its own.
    fn as_user(&self, command: &str) -> Option<Command> {
        let mut setpriv = program("setpriv", "util-linux")?;
        setpriv
            .args([
                "--reuid",
                USER,
                "--regid",
                USER,
                "--init-groups",
                "--reset-env",
            ])
            .args(["--", "/usr/bin/env", "-i"])
            .args(["PATH=/usr/bin:/bin", "TZ=Pacific/Chatham", "LC_ALL=C.UTF-8"])
            .arg(format!("HOME={}", self.folder.path().display()))
            .args([
                "RAYON_NUM_THREADS=1",
                "sh",
                "-c",
                &format!("umask 077; {command}"),
            ])
            .current_dir(self.path("an other place"));
        Some(setpriv)
    }
}

fn digests(folder: &Path) -> BTreeMap<String, Digest> {
    consign::tree::list_folder(folder)
        .expect("the output folder")
        .into_iter()
        .filter(|file| file.metadata.is_file())
        // The stamp of the nothing-changed path holds times of files.
        .filter(|file| !file.name.to_string_lossy().starts_with('.'))
        .map(|file| {
            (
                file.name.to_string_lossy().into_owned(),
                digest_of(&file.path),
            )
        })
        .collect()
}

#[test]
fn an_ordinary_user_elsewhere_builds_the_same_bytes_without_mounts() {
    let first = digests(
        appliance()
            .file("reference.raw")
            .parent()
            .expect("a folder"),
    );
    let Some(place) = OtherPlace::make() else {
        return;
    };
    let build = "./consign build -o 'the output' --progress plain";
    let Some(mut first_build) = place.as_user(build) else {
        return;
    };
    must_run(&mut first_build);
    let second = digests(&place.path("an other place/the output"));
    assert_eq!(first, second);

    // With its layers cached a build is plain file input and output.
    let clean = "rm -r 'the output'";
    let calls = "mount,umount2,unshare,setns,pivot_root,chroot,move_mount,fsmount,open_tree";
    let traced =
        format!("{clean}; strace -f -qq -e trace={calls} -o ../calls {build} && cat ../calls");
    let Some(mut second_build) = place.as_user(&traced) else {
        return;
    };
    if program("strace", "strace").is_none() {
        return;
    }
    let output = must_run(&mut second_build);
    let called = String::from_utf8_lossy(&output.stdout);
    assert!(
        !called.contains('('),
        "system calls:\n{called}\n{}",
        text_of(&output)
    );
    assert_eq!(digests(&place.path("an other place/the output")), first);
}
