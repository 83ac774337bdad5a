//! The commands of `IMPORT.txt`, taken from the text and run as they stand.
#![expect(
    clippy::disallowed_types,
    reason = "tests call foreign programs themselves"
)]

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use consign::descriptor::{DiskFacts, Firmware, Machine, UserDisk, text};
use consign::image::ImageFormat;
use consign::units::ByteSize;

use super::descriptor::machine;
use crate::support::sector::{Then, boot_sector};
use crate::support::{must_run, program, search_path, temp_folder};

const SAYS: &str = "hello from the disk";

fn small_machine() -> Machine {
    Machine {
        memory: ByteSize::from_mib(64),
        firmware: vec![Firmware::Bios],
        user_disks: vec![UserDisk {
            id: "data".into(),
            size: ByteSize::from_mib(3),
        }],
        ..machine()
    }
}

fn disk() -> DiskFacts {
    DiskFacts {
        file: "wiki.raw".into(),
        format: ImageFormat::Raw,
        size: ByteSize::from_mib(1),
        digest: None,
        content_root: None,
    }
}

/// The commands below the title, each on one line.
fn commands(text: &str, title: &str) -> Vec<String> {
    let start = text
        .find(title)
        .unwrap_or_else(|| panic!("no {title} in\n{text}"));
    let joined = text[start..].replace("\\\n", " ");
    let lines = joined.lines().filter_map(|line| line.strip_prefix("    "));
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

fn shell(line: &str, folder: &Path) -> Command {
    let mut shell = program("sh", "dash").expect("everywhere");
    shell.env("PATH", search_path()).current_dir(folder);
    shell.args(["-c", line]);
    shell
}

#[test]
fn the_command_for_qemu_starts_the_machine() {
    if program("qemu-system-x86_64", "qemu-system-x86").is_none() {
        return;
    }
    let text = text::render(&small_machine(), &[disk()]).expect("renders");
    let folder = temp_folder();
    fs::write(
        folder.path().join("wiki.raw"),
        boot_sector(SAYS, Then::Stops),
    )
    .expect("write");
    fs::write(folder.path().join("site.img"), vec![0; 1 << 20]).expect("write");
    let commands = commands(&text, "With QEMU");
    let made = commands
        .iter()
        .find(|it| it.starts_with("truncate"))
        .expect("a disk");
    must_run(&mut shell(made, folder.path()));
    assert_eq!(
        fs::metadata(folder.path().join("wiki-data.raw"))
            .expect("made")
            .len(),
        3 << 20
    );
    let qemu = commands
        .iter()
        .find(|it| it.starts_with("qemu-system"))
        .expect("a command");
    // KVM may be there and not work; a port may be taken.
    let qemu = qemu.replace("-accel kvm ", "").replace("1:8080", "1:0");
    let mut guest = shell(&format!("exec {qemu}"), folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut said = Vec::new();
    let mut output = guest.stdout.take().expect("piped");
    let mut piece = [0; 256];
    while !String::from_utf8_lossy(&said).contains(SAYS) {
        match output.read(&mut piece).expect("read") {
            0 => panic!("it ended: {}", String::from_utf8_lossy(&said)),
            count => said.extend_from_slice(&piece[..count]),
        }
    }
    guest.kill().expect("ended by us");
    guest.wait().expect("ended");
}

#[test]
fn the_commands_of_one_host_make_one_paragraph() {
    let text = text::render(&machine(), &[disk()]).expect("renders");
    for (title, program) in [
        ("With consign", "virt-image"),
        ("With virt-install", "virt-install"),
        ("Proxmox", "qm create"),
    ] {
        let first = commands(&text, title);
        let is_ours = |line: &&String| !line.starts_with("truncate");
        let first = first.iter().find(is_ours).expect("a command");
        assert!(first.starts_with(program), "{title}: {first}");
        assert!(!first.contains("  "), "{first}");
    }
}
