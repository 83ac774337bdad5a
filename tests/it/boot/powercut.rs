//! A sample of what `ci/nightly.d/firstboot-powercut` sweeps: one recorded
//! first boot on a disk that has grown, cut at 20 of its writes and while it
//! grows, in three ways each; some machines started again, one of them a clone
//! of the disk as it was delivered.

use crate::support::appliance::{appliance, config_disk};
use crate::support::guests::Turn;
use crate::support::{must_run, program, repo_root, temp_folder};

const SITE: &str = include_str!("../../fixtures/powercut.toml");

#[test]
fn a_first_boot_survives_a_power_cut_at_any_write() {
    for (tool, package) in [
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("debugfs", "e2fsprogs"),
        ("sgdisk", "gdisk"),
        ("strace", "strace"),
        ("python3", "python3"),
    ] {
        if program(tool, package).is_none() {
            return;
        }
    }
    let folder = temp_folder();
    let config = config_disk(folder.path(), SITE);
    let disk = appliance().file("reference.raw");
    let _turn = Turn::wait();
    let mut tool = program("python3", "python3").expect("it is there");
    tool.arg(repo_root().join("tests/powercut"))
        .env("TMPDIR", folder.path())
        .arg("--disk")
        .arg(disk)
        .arg("--config")
        .arg(&config.path)
        .args(["--states", "60", "--boots", "3", "--selftest"])
        .args(["--grow", "100", "--unread", "1", "--jobs", "1"]);
    let said = must_run(&mut tool).stderr;
    let said = String::from_utf8_lossy(&said);
    for words in [
        " 0 bad",
        "damage is noticed",
        "shares nothing with the first",
        " booted again, 1 different ends",
    ] {
        assert!(said.contains(words), "no `{words}` in {said}");
    }
    let is_unseen = said.contains("in 0 the journal alone tells");
    assert!(!is_unseen, "no cut while it grows: {said}");
}
