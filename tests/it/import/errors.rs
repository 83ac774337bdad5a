//! What is refused or fails: its own words and remedy each, and nothing left.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use super::{Small, fails, virt_image};
use crate::support::libvirt::Libvirt;
use crate::support::{TestFolder, is_root, must_run, program, skip, temp_folder};

#[track_caller]
fn is_empty(folder: &Path) {
    let found = consign::tree::list_folder(folder).unwrap_or_default();
    let names: Vec<_> = found.iter().map(|entry| &entry.path).collect();
    assert!(names.is_empty(), "{names:?} are left");
}

/// An import into `storage` by QEMU alone, which changes the storage last.
fn plain(small: &Small, storage: &TestFolder) -> Command {
    let mut command = small.import(&["--connect", "none", "--virt-type", "qemu", "--noreboot"]);
    command.arg("--storage").arg(storage.path());
    command
}

/// A document that is refused says where.
#[test]
fn hostile_descriptors_are_refused_by_element_and_line() {
    let storage = temp_folder();
    let bomb = "<!DOCTYPE image [<!ENTITY a 'aaaaaaaaaa'>\n<!ENTITY b '&a;&a;&a;&a;&a;'>]>";
    let doctype = format!("{bomb}\n<image>&b;</image>");
    let deep = format!("<image>\n{}", "<a>".repeat(5000));
    let wide = format!("<image>\n<domain>{}", "<boot/>".repeat(50_000));
    for (text, words) in [
        (doctype.as_str(), "document types"),
        (
            &deep,
            ":2:94: in <a>: more than 32 elements within each other",
        ),
        (&wide, ":2:"),
        ("<image", "appliance.xml:1:"),
        ("", "appliance.xml:1:1: in <the document>"),
    ] {
        let small = Small::new();
        small.describe(text);
        let output = crate::support::run(&mut plain(&small, &storage));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains(words) && said.contains("appliance.xml:"),
            "{said}"
        );
        assert!(said.contains("error[import-descriptor]"), "{said}");
        is_empty(storage.path());
    }
    let small = Small::new();
    let long = "x".repeat(2 << 20);
    small.edit("<domain>", &format!("<label>{long}</label><domain>"));
    fails_without_hint(&mut plain(&small, &storage), "import-read");
    is_empty(storage.path());
}

#[track_caller]
fn fails_without_hint(command: &mut Command, slug: &str) {
    let output = crate::support::run(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("error[{slug}]")), "{said}");
    assert_eq!(output.status.code(), Some(2), "{said}");
}

#[test]
fn paths_that_lead_elsewhere_are_refused_unless_trusted() {
    let storage = temp_folder();
    let outside = temp_folder();
    let secret = outside.path().join("secret.raw");
    fs::write(&secret, vec![7; 4096]).expect("written");
    for file in [
        secret.to_str().expect("UTF-8"),
        "../secret.raw",
        "a/../../secret.raw",
    ] {
        let small = Small::new();
        small.edit("file=\"disk.raw\"", &format!("file=\"{file}\""));
        let hint = "--trust-paths";
        fails(
            &mut plain(&small, &storage),
            "import-descriptor",
            2,
            "1 error",
            hint,
        );
    }
    let small = Small::new();
    fs::remove_file(small.file("disk.raw")).expect("removed");
    symlink(&secret, small.file("disk.raw")).expect("a link");
    fails(
        &mut plain(&small, &storage),
        "import-path",
        2,
        "symbolic link",
        "--trust-paths",
    );
    let text = fs::read_to_string(small.descriptor()).expect("a descriptor");
    let sum = text
        .lines()
        .find(|line| line.contains("checksum"))
        .expect("a sum")
        .to_owned();
    small.edit(&sum, "");
    is_empty(storage.path());
    super::succeeds(plain(&small, &storage).arg("--trust-paths"));
    let copy = fs::read(storage.path().join("small/system.raw")).expect("a copy");
    assert_eq!(copy, vec![7; 4096]);
}

#[test]
fn images_that_need_another_file_are_refused() {
    let storage = temp_folder();
    let small = Small::new();
    fs::write(small.file("base.raw"), vec![0; 1 << 20]).expect("written");
    let make = |args: &[&str]| {
        let mut qemu_img = program("qemu-img", "qemu-utils")?;
        must_run(qemu_img.args(args).current_dir(small.path()));
        Some(())
    };
    let text = fs::read_to_string(small.descriptor()).expect("a descriptor");
    let start = text.find("<checksum").expect("a sum");
    let end = text.find("</checksum>").expect("its end") + "</checksum>".len();
    let without_sum = format!("{}{}", &text[..start], &text[end..]);
    for (format, args) in [
        (
            "qcow2",
            &["create", "-f", "qcow2", "-F", "raw", "-b", "base.raw", "x"][..],
        ),
        (
            "qcow2",
            &["create", "-f", "qcow2", "-o", "data_file=d.raw", "x", "1M"],
        ),
        (
            "vmdk",
            &[
                "create",
                "-f",
                "vmdk",
                "-o",
                "subformat=monolithicFlat",
                "x",
                "1M",
            ],
        ),
        (
            "qcow",
            &["create", "-f", "qcow", "-F", "raw", "-b", "base.raw", "x"],
        ),
    ] {
        if make(args).is_none() {
            return;
        }
        small.describe(&without_sum.replace(
            "file=\"disk.raw\" format=\"raw\"",
            &format!("file=\"x\" format=\"{format}\""),
        ));
        let output = crate::support::run(&mut plain(&small, &storage));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{args:?}");
        assert!(
            said.contains("disk `system`") && said.contains("hint: "),
            "{said}"
        );
        is_empty(storage.path());
    }
}

#[test]
fn the_hosts_failings_have_words_and_remedies_of_their_own() {
    let small = Small::new();
    let storage = temp_folder();
    let at = |uri: &str| {
        let mut command = small.import(&["--virt-type", "qemu", "--connect", uri]);
        command.arg("--storage").arg(storage.path());
        command
    };
    // libvirt absent, and down.
    fails(
        at("qemu:///system")
            .env("PATH", "/nonexistent")
            .env("HOME", "/"),
        if Path::new("/usr/bin/virsh").is_file() {
            "libvirt-down"
        } else {
            "libvirt-missing"
        },
        4,
        "",
        "--connect none",
    );
    let nowhere = "qemu+unix:///system?socket=/nonexistent/socket";
    fails(
        &mut at(nowhere),
        "libvirt-down",
        4,
        "/nonexistent",
        "--connect none",
    );
    fails(
        &mut at("qemu+ssh://host/system"),
        "import-remote",
        2,
        "host",
        "on that host",
    );
    // A bridge that is not there.
    fails(
        plain(&small, &storage).args(["-w", "bridge=nobr0"]),
        "import-bridge",
        4,
        "nobr0",
        "ip link",
    );
    // Bad storage.
    fails(
        &mut small.import(&[
            "--connect",
            "none",
            "--virt-type",
            "qemu",
            "--storage",
            "/proc/none",
        ]),
        "import-folder",
        1,
        "/proc/none",
        "--storage",
    );
    is_empty(storage.path());
}

/// A command in a mount namespace of its own, after `prepare`.
fn apart(prepare: &str, command: &Command) -> Option<Command> {
    apart_by(&format!("set -e\n{prepare}\nexec \"$@\""), command)
}

/// The same by a script that runs `"$@"` itself.
fn apart_by(script: &str, command: &Command) -> Option<Command> {
    if !is_root() {
        skip("a mount namespace needs root");
        return None;
    }
    let mut unshare = program("unshare", "util-linux")?;
    unshare
        .args(["-m", "--propagation", "private", "sh", "-c"])
        .arg(script)
        .arg("sh")
        .arg(command.get_program())
        .args(command.get_args());
    Some(unshare)
}

#[test]
fn without_virsh_nothing_but_the_remedy_is_said() {
    let small = Small::new();
    let storage = temp_folder();
    let mut command = small.import(&["--virt-type", "qemu", "--connect", "qemu:///system"]);
    command.arg("--storage").arg(storage.path());
    let hide =
        "for f in /usr/bin/virsh /bin/virsh; do [ ! -e $f ] || mount --bind /dev/null $f; done";
    let Some(mut hidden) = apart(hide, &command) else {
        return;
    };
    fails(
        &mut hidden,
        "libvirt-missing",
        4,
        "virsh",
        "apt-get install",
    );
    is_empty(storage.path());
}

#[test]
fn kvm_that_does_not_work_is_found_out_by_using_it() {
    let small = Small::new();
    let storage = temp_folder();
    let mut command = small.import(&["--virt-type", "kvm", "--connect", "none"]);
    command.arg("--storage").arg(storage.path());
    let broken = "[ ! -e /dev/kvm ] || mount --bind /dev/null /dev/kvm";
    let Some(mut broken) = apart(broken, &command) else {
        return;
    };
    fails(
        &mut broken,
        "import-kvm-broken",
        4,
        "KVM",
        "--virt-type qemu",
    );
    is_empty(storage.path());
}

#[test]
fn a_host_with_one_firmware_takes_it_or_says_so() {
    let small = Small::new();
    let storage = temp_folder();
    let dry = |args: &[&str]| {
        let mut command = small.import(&["--dry-run", "--connect", "none"]);
        command.arg("--storage").arg(storage.path()).args(args);
        command
    };
    let empty = temp_folder();
    let hide = |folders: &[&str]| {
        let lines: Vec<String> = folders
            .iter()
            .map(|folder| {
                format!(
                    "[ ! -d {folder} ] || mount --bind {} {folder}",
                    empty.path().display()
                )
            })
            .collect();
        lines.join("\n")
    };
    let no_bios = hide(&["/usr/share/seabios", "/usr/share/qemu"]);
    let no_uefi = hide(&["/usr/share/OVMF", "/usr/share/edk2"]);
    let Some(mut only_uefi) = apart(&no_bios, &dry(&[])) else {
        return;
    };
    fails(
        &mut only_uefi,
        "import-no-firmware",
        4,
        "only UEFI",
        "--firmware uefi",
    );
    let mut only_bios = apart(&no_uefi, &dry(&["--firmware", "uefi"])).expect("root");
    fails(&mut only_bios, "import-no-firmware", 4, "only BIOS", "ovmf");
    // An appliance that has both takes what there is.
    small.edit(
        "<va:firmware type=\"bios\"/>",
        "<va:firmware type=\"bios\"/><va:firmware type=\"uefi\"/>",
    );
    let mut either = apart(&no_bios, &dry(&[])).expect("root");
    assert!(super::succeeds(&mut either).contains("uefi firmware"));
}

#[test]
fn storage_that_fills_up_midway_is_left_empty() {
    let small = Small::new();
    let mount = temp_folder();
    let storage = mount.path().display();
    let import = |folder: &str| {
        let mut command = small.import(&["--connect", "none", "--virt-type", "qemu", "--noreboot"]);
        command.arg("--storage").arg(folder);
        command
    };
    let folder = format!("{storage}");
    // Room for the lock, the record and the first disk only.
    let tight = format!("mount -t tmpfs -o size=8m,nr_inodes=5 tmpfs {storage}");
    let look = format!("\"$@\"; code=$?; echo left: $(ls -A {folder}); exit $code");
    let Some(mut full) = apart_by(&format!("{tight}\n{look}"), &import(&folder)) else {
        return;
    };
    let (slug, words) = ("import-storage-full", "data.raw");
    fails(&mut full, slug, 1, words, "--storage");
    let output = crate::support::run(&mut full);
    assert_eq!(super::stdout(&output), "left:\n");
    // And what cannot fit is not begun.
    let small_room = format!("mount -t tmpfs -o size=64k tmpfs {storage}\n");
    let Some(mut none) = apart(&small_room, &import(&folder)) else {
        return;
    };
    fails(&mut none, "import-storage-full", 1, "left", "--storage");
}

#[test]
fn a_libvirt_that_refuses_the_user_says_which_group_helps() {
    let Some(libvirt) = Libvirt::alone() else {
        return;
    };
    let small = Small::new();
    let storage = temp_folder();
    let open = |path: &Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our folder");
    };
    for folder in [small.path(), &libvirt.folder("sock/.."), storage.path()] {
        open(folder);
    }
    let Some(mut setpriv) = program("setpriv", "util-linux") else {
        return;
    };
    // The program is somewhere that another user may not look into.
    let copy = storage.path().join("virt-image");
    fs::copy(virt_image().get_program(), &copy).expect("a copy");
    setpriv
        .args([
            "--reuid",
            "nobody",
            "--regid",
            "nogroup",
            "--clear-groups",
            "--",
        ])
        .arg(&copy)
        .arg(small.descriptor())
        .args([
            "--connect",
            &libvirt.uri,
            "--virt-type",
            "qemu",
            "--storage",
            "/tmp/none",
        ]);
    fails(
        &mut setpriv,
        "libvirt-denied",
        4,
        "refuses this user",
        "group libvirt",
    );
}
