//! With every layer in the cache, a build is an ordinary process: it runs as
//! a user who may do nothing, asks for no namespace, mount or loop device, and
//! starts no program that changes its rights.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests call foreign programs and take the cache from the environment"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::appliance::appliance;
use crate::support::{
    consign_path, is_root, must_run, program, repo_root, search_path, skip, temp_folder,
};

/// A user with no name, no ids and no rights.
const NOBODY: &str = "65534";
/// Calls that an ordinary process does not make.
const CALLS: &str = "unshare,setns,clone,clone3,mount,umount2,pivot_root,chroot,ioctl,execve,socket,\
                     setuid,setresuid,setgroups,open_tree,move_mount,fsopen";

fn cache() -> PathBuf {
    let own = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache");
    own.unwrap_or_else(home).join("consign")
}

fn copy(from: &Path, to: &Path) {
    let mut copy = program("cp", "coreutils").expect("coreutils are everywhere");
    must_run(copy.args(["-a", "--reflink=auto"]).arg(from).arg(to));
}

#[test]
fn a_build_from_cached_layers_is_an_ordinary_process() {
    if !is_root() {
        skip("only root can become nobody");
        return;
    }
    let Some(mut strace) = program("strace", "strace") else {
        return;
    };
    let roots = std::fs::read_to_string(appliance().file("CONTENT-ROOTS")).expect("readable");
    let folder = temp_folder();
    let at = |name: &str| folder.path().join(name);
    for name in ["appliance.toml", "appliance.lock", "layers"] {
        copy(&repo_root().join(name), &at(name));
    }
    std::fs::create_dir(at("cache")).expect("folder");
    for name in ["layers", "blobs"] {
        copy(&cache().join(name), &at("cache").join(name));
    }
    copy(consign_path(), &at("consign"));
    let agent = repo_root().join("target/x86_64-unknown-linux-gnu/firstboot/consign-firstboot");
    copy(&agent, &at("agent"));
    let mut chown = Command::new("chown");
    must_run(chown.args(["-R", "65534:65534"]).arg(folder.path()));

    let log = folder.path().with_extension("strace");
    strace
        .args(["-f", "-qq", "--seccomp-bpf", "-o"])
        .arg(&log)
        .arg(format!("--trace={CALLS}"))
        .args([
            "setpriv",
            "--reuid",
            NOBODY,
            "--regid",
            NOBODY,
            "--clear-groups",
        ])
        .args(["--bounding-set=-all", "--no-new-privs", "--"])
        .arg(at("consign"))
        .args([
            "build",
            "--locked",
            "--offline",
            "--format",
            "raw",
            "-o",
            "out",
        ])
        .args(["--cache", "cache", "--agent", "agent"])
        .env_clear()
        .env("PATH", search_path())
        .current_dir(folder.path());
    must_run(&mut strace);
    let said = std::fs::read_to_string(&log).expect("the log");
    std::fs::remove_file(&log).expect("the log");

    let own = std::fs::read_to_string(at("out/CONTENT-ROOTS")).expect("readable");
    assert!(
        !own.is_empty() && own.lines().all(|line| roots.contains(line)),
        "{own}\n{roots}"
    );
    // setpriv's own calls come before consign is started.
    let start = format!("execve(\"{}\"", at("consign").display());
    let (_, consign) = said.split_once(&start).expect("consign is started");
    let (_, consign) = consign.split_once('\n').expect("it does something");
    let wrong: Vec<&str> = consign.lines().filter(|line| is_wrong(line)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        consign.contains("clone"),
        "the log shows no thread: is it one of consign?"
    );
}

/// Whether a call asks for something that an ordinary process does not need.
fn is_wrong(line: &str) -> bool {
    let is = |name: &str| line.contains(&format!(" {name}("));
    if is("clone") || is("clone3") {
        return line.contains("CLONE_NEW");
    }
    if is("ioctl") {
        return line.contains("LOOP_");
    }
    if is("execve") {
        return !line.contains("/apt-config\"");
    }
    if is("socket") {
        return line.contains("AF_INET");
    }
    CALLS.split(',').any(is)
}

#[test]
fn the_judge_of_calls_knows_what_is_wrong() {
    let wrong = [
        "1 unshare(CLONE_NEWUSER) = 0",
        "1 clone(child_stack=NULL, flags=CLONE_NEWNS|SIGCHLD) = 7",
        "1 execve(\"/usr/bin/newuidmap\", [], 0x7) = 0",
        "1 ioctl(4, LOOP_SET_FD, 3) = 0",
        "1 mount(\"a\", \"b\", \"c\", 0, NULL) = 0",
        "1 socket(AF_INET, SOCK_STREAM, 0) = 3",
    ];
    assert!(wrong.iter().all(|line| is_wrong(line)));
    let fine = [
        "1 clone3({flags=CLONE_VM|CLONE_THREAD}, 88) = 9",
        "1 ioctl(1, TCGETS, 0x7) = -1 ENOTTY",
        "1 +++ exited with 0 +++",
    ];
    assert!(!fine.iter().any(|line| is_wrong(line)));
}
