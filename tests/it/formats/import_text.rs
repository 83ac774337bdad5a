//! The commands of `IMPORT.txt`, taken from the text and run as they stand.
#![expect(
    clippy::disallowed_types,
    reason = "tests call foreign programs themselves"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use consign::descriptor::{DiskFacts, Display, Firmware, Machine, UserDisk, text, virt_image};
use consign::image::ImageFormat;
use consign::units::ByteSize;

use super::descriptor::machine;
use crate::support::libvirt::Libvirt;
use crate::support::sector::{Then, boot_sector};
use crate::support::{
    consign_path, digest_of, must_run, program, search_path, temp_folder, text_of,
};

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

/// The part of the text that is said to be run by us.
fn said_to_be_run(text: &str) -> Vec<String> {
    let (_, behind) = text.split_once("RUN BY OUR TESTS").expect("a title");
    let (part, _) = behind
        .split_once("FROM THE DOCUMENTATION")
        .expect("a title");
    commands(part, "With consign")
}

fn wait_for(log: &Path, words: &str) {
    let deadline = Instant::now() + Duration::from_mins(2);
    loop {
        let said = fs::read(log).unwrap_or_default();
        if String::from_utf8_lossy(&said).contains(words) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "no `{words}` in {}",
            log.display()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a command of the text where the tests' libvirt is the system's.
#[track_caller]
fn run_as_it_stands(libvirt: &Libvirt, line: &str, folder: &Path) -> String {
    let bin = consign_path().parent().expect("its folder").to_owned();
    let path =
        std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&search_path())));
    let mut command = libvirt.as_the_systems(line);
    command
        .env("PATH", path.expect("a path"))
        .current_dir(folder);
    command
        .env_remove("LIBVIRT_DEFAULT_URI")
        .stdin(Stdio::null());
    text_of(&must_run(&mut command))
}

/// Everything under that title but QEMU's own line, which has a test above:
/// as it stands in the text, in a folder as it is handed over.
#[test]
fn what_is_said_to_be_run_is_run() {
    let Some(libvirt) = Libvirt::alone() else {
        return;
    };
    for (name, package) in [("virt-install", "virtinst"), ("virt-v2v", "virt-v2v")] {
        if program(name, package).is_none() {
            return;
        }
    }
    let folder = temp_folder();
    let at = |name: &str| folder.path().join(name);
    // No network of a host is asked for: there may be none to attach to.
    let machine = Machine {
        nics: 0,
        display: Display::Headless,
        ..small_machine()
    };
    super::ova::of_machine(&machine, folder.path());
    fs::write(at("wiki.raw"), boot_sector(SAYS, Then::Stops)).expect("write");
    let master = digest_of(&at("wiki.raw"));
    let system = DiskFacts {
        digest: Some(master),
        ..disk()
    };
    let ova = DiskFacts {
        file: "wiki.ova".into(),
        format: ImageFormat::Ova,
        ..disk()
    };
    let disks = [system, ova];
    let descriptor = virt_image::render(&machine, &disks, None).expect("renders");
    fs::write(at("appliance.xml"), descriptor).expect("write");
    let site = "schema = 1\n[config]\nid = \"text\"\nserial = 1\n[system]\nhostname = \"text\"\n";
    fs::write(at("site.toml"), site).expect("write");
    fs::write(at("site.img"), vec![0; 1 << 20]).expect("write");
    let pools = libvirt.ask(&["pool-list", "--all", "--name"]);

    let text = text::render(&machine, &disks).expect("renders");
    let mut seen = BTreeSet::new();
    for line in said_to_be_run(&text) {
        let program = line.split(' ').next().expect("a word").to_owned();
        match program.as_str() {
            "virt-image" => {
                run_as_it_stands(&libvirt, &line, folder.path());
                let files = libvirt.state_folder().join("images/wiki");
                wait_for(&files.join("console.log"), SAYS);
                assert!(files.join("config.raw").is_file());
                let remove = "virt-image remove wiki --force";
                run_as_it_stands(&libvirt, remove, folder.path());
                assert_eq!(digest_of(&at("wiki.raw")), master);
            }
            "virt-install" => {
                run_as_it_stands(&libvirt, &line, folder.path());
                assert_eq!(libvirt.ask(&["domstate", "wiki"]), "running");
            }
            // A console ends with its guest; it wants a terminal.
            "virsh" => {
                let line = format!(
                    "(sleep 2; virsh --connect qemu:///system destroy wiki) >&2 & \
                     sleep 4 | script -qec '{line}' /dev/null || true"
                );
                let said = run_as_it_stands(&libvirt, &line, folder.path());
                assert!(said.contains("Connected to domain 'wiki'"), "{said}");
                libvirt.ask(&["undefine", "wiki"]);
            }
            "virt-v2v" => {
                let said = run_as_it_stands(&libvirt, &line, folder.path());
                assert!(said.contains("source name: wiki"), "{said}");
            }
            "truncate" => drop(run_as_it_stands(&libvirt, &line, folder.path())),
            "qemu-system-x86_64" => {}
            other => panic!("nobody runs {other}: {line}"),
        }
        seen.insert(program);
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
    for pool in libvirt
        .ask(&["pool-list", "--all", "--name"])
        .split_whitespace()
    {
        if !pools.contains(pool) {
            libvirt.ask(&["pool-destroy", pool]);
            libvirt.ask(&["pool-undefine", pool]);
        }
    }
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
