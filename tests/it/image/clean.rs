//! What must not be in an image, looked for by somebody else's reader: any
//! identity, anything of the build host, litter.

use crate::support::appliance::appliance;
use crate::support::volume::{open, walk};

/// Parts of paths that no file of an image has, and why.
const UNWANTED: &[(&str, &str)] = &[
    ("/ssh_host_", "a host key shared by all customers"),
    ("/random-seed", "a seed shared by all customers"),
    ("/credential.secret", "a secret shared by all customers"),
    ("/dbus/machine-id", "an identity"),
    ("/aux-cache", "differs from build to build"),
    ("/var/lib/apt/lists/", "litter"),
    (".dpkg-new", "an unfinished installation"),
    (".dpkg-old", "litter"),
    ("/policy-rc.d", "forbids services at the customer's"),
    ("/__pycache__/", "differs from build to build"),
];

/// Folders that may be there if they are empty.
const EMPTY: &[&str] = &[
    "/tmp",
    "/run",
    "/proc",
    "/sys",
    "/dev",
    "/boot/efi",
    "/var/tmp",
];

#[test]
fn the_image_has_no_identity_and_no_litter() {
    let disk = appliance().file("reference.raw");
    let root = open(&disk, "root-a");
    let mut problems = Vec::new();
    let mut look = |path: &str| {
        for (part, why) in UNWANTED {
            if path.contains(part) {
                problems.push(format!("{path}: {why}"));
            }
        }
        for folder in EMPTY {
            if path
                .strip_prefix(folder)
                .is_some_and(|rest| rest.starts_with('/'))
            {
                problems.push(format!("{path}: {folder} should be empty"));
            }
        }
    };
    walk(&root, "/", &mut look);
    let var = open(&disk, "var");
    walk(&var, "/", &mut |path| look(&format!("/var{path}")));
    problems.retain(|problem| !problem.starts_with("/boot/efi:"));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_machine_id_is_an_empty_file() {
    let root = open(&appliance().file("reference.raw"), "root-a");
    assert_eq!(root.read("/etc/machine-id").expect("a file"), b"");
}

#[test]
fn nothing_of_the_build_host_is_in_the_image() {
    let root = open(&appliance().file("reference.raw"), "root-a");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let host = host.trim();
    for file in [
        "/etc/hostname",
        "/etc/hosts",
        "/etc/mailname",
        "/etc/resolv.conf",
    ] {
        let Ok(text) = root.read_to_string(file) else {
            continue;
        };
        let names_host = text.split_whitespace().any(|word| word == host);
        assert!(!names_host || host == "localhost", "{file}:\n{text}");
    }
    if let Ok(text) = root.read_to_string("/etc/resolv.conf") {
        assert!(!text.contains("nameserver"), "{text}");
    }
}
