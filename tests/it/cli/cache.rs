//! `consign cache push` and `pull` between two caches by way of a real
//! registry, and a build of what was pulled: an ordinary process, without a
//! namespace or a mount. `consign why` on the same layers.
#![expect(
    clippy::disallowed_types,
    reason = "strace watches, a registry stands between"
)]

use std::path::Path;
use std::process::Command;

use crate::layer::registry::Registry;
use crate::support::appliance::appliance;
use crate::support::{
    consign, consign_path, must_run, program, repo_root, run, temp_folder, text_of,
};

fn consign_here() -> Command {
    let mut command = consign();
    command.current_dir(repo_root());
    command
}

/// A file of the top layer, longer than 256 bytes.
const PAGE: &str = "layers/app/files/etc/nginx/nginx.conf";

/// What is asked of the kernel that an ordinary process never asks.
const SPECIAL: [&str; 7] = [
    "unshare(",
    "setns(",
    "mount(",
    "pivot_root(",
    "chroot(",
    "CLONE_NEWUSER",
    "CLONE_NEWNS",
];

#[test]
fn a_build_of_pulled_layers_is_an_ordinary_process() {
    let folder = temp_folder();
    let Some(registry) = Registry::start(folder.path(), "") else {
        return;
    };
    let Some(mut strace) = program("strace", "strace") else {
        return;
    };
    let built = appliance();
    let repository = format!("{}/team/layers", registry.host);
    let pushed = must_run(consign_here().args(["cache", "push", &repository]));
    let said = String::from_utf8_lossy(&pushed.stdout).into_owned();
    assert!(said.contains("base"), "{said}");
    assert!(!said.contains("does not have it"), "{said}");

    let cache = folder.path().join("cache");
    must_run(
        consign_here()
            .args(["cache", "pull", &repository, "--cache"])
            .arg(&cache),
    );
    let log = folder.path().join("trace");
    let out = folder.path().join("out");
    must_run(
        strace
            .args(["-f", "-qq", "-o"])
            .arg(&log)
            .args([
                "-e",
                "trace=unshare,setns,mount,move_mount,pivot_root,chroot,clone,clone3",
            ])
            .args(["-e", "signal=none"])
            .arg(consign_path())
            .args(["build", "--locked", "--offline", "--format", "qcow2", "-o"])
            .arg(&out)
            .arg("--cache")
            .arg(&cache)
            .current_dir(repo_root()),
    );
    let trace = std::fs::read_to_string(&log).expect("a trace");
    assert!(trace.contains("clone"), "it has threads: the watch works");
    let special: Vec<&str> = trace
        .lines()
        .filter(|line| SPECIAL.iter().any(|word| line.contains(word)))
        .collect();
    assert_eq!(special, [""; 0]);
    let bytes = |path: &Path| std::fs::read(path).expect("an image");
    assert!(
        bytes(&out.join("reference.qcow2")) == bytes(&built.file("reference.qcow2")),
        "the same image, whoever made its layers"
    );

    // A cached layer is digested beside the work: what turns out to be
    // damaged is made again before any file gets its name.
    let page = std::fs::read(repo_root().join(PAGE)).expect("a file of the top layer");
    poison(&cache.join("blobs/sha256"), &page);
    std::fs::remove_dir_all(&out).expect("the output");
    let again = must_run(
        consign_here()
            .args(["build", "--locked", "--offline", "--format", "qcow2", "-o"])
            .arg(&out)
            .arg("--cache")
            .arg(&cache),
    );
    let said = text_of(&again);
    assert_eq!(
        said.matches("damaged and is made again").count(),
        1,
        "{said}"
    );
    assert!(
        bytes(&out.join("reference.qcow2")) == bytes(&built.file("reference.qcow2")),
        "the same image, whatever happened to the cache"
    );
}

/// Changes a byte of `content` in the object that holds it.
fn poison(objects: &Path, content: &[u8]) {
    let mut poisoned = 0;
    for object in consign::tree::list_folder(objects).expect("the objects") {
        let mut bytes = std::fs::read(&object.path).expect("an object");
        let mut windows = bytes.chunks_exact(512);
        let begins = |block: &[u8]| content.starts_with(block.split_at(256).0);
        if let Some(at) = windows.position(begins) {
            bytes[at * 512] ^= 1;
            std::fs::write(&object.path, bytes).expect("a poisoned object");
            poisoned += 1;
        }
    }
    assert_eq!(poisoned, 1, "one layer has the file");
}

#[test]
fn why_names_layer_and_package() {
    appliance();
    let why = |path: &str| {
        let output = must_run(consign_here().args(["why", path, "--format", "json"]));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        json
    };
    let nginx = why("/usr/sbin/nginx");
    assert_eq!(nginx["layer"], "web");
    assert_eq!(nginx["package"]["name"], "nginx");
    // By the other name of a merged /usr, and of a package that still uses it.
    let shell = why("/bin/sh");
    assert_eq!(shell["path"], "/usr/bin/sh");
    assert_eq!(shell["package"]["name"], "dash");
    let page = why("/usr/lib/consign/roles/web/role.toml");
    assert_eq!(
        (&page["layer"], &page["kind"]),
        (&"app".into(), &"files".into())
    );
    let made = why("/etc/passwd");
    assert_eq!(made["layer"], "base");
    assert!(made["package"].is_null(), "{made}");

    let text = must_run(consign_here().args(["why", "/usr/sbin/nginx"]));
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("\n  layer    web (packages)\n"), "{text}");
    let output = run(consign_here().args(["why", "/etc/ssh/ssh_host_rsa_key"]));
    let said = text_of(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("clean-image rule `ssh-host-keys`"), "{said}");
}
