//! The reference appliance, imported with a config disk, gets ready.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Small, succeeds, virt_image};
use crate::support::appliance::{Address, appliance, config_disk, site};
use crate::support::guests::{Turn, ssh_key};
use crate::support::libvirt::Libvirt;
use crate::support::{digest_of, find_program, run, skip, temp_folder, text_of};

/// Emulated machines need time.
const PATIENCE: &str = "400";

/// Imports the appliance that `descriptor` describes, waits until it is
/// ready, and removes it again.
fn gets_ready(libvirt: &Libvirt, descriptor: &Path, args: &[&str], firmware: &str) {
    let folder = temp_folder();
    let Some((_, public)) = ssh_key(folder.path()) else {
        return;
    };
    let config = config_disk(folder.path(), &site("imported", &public, Address::Dhcp));
    let master = appliance().file("reference.qcow2");
    let name = format!("ready-{firmware}");
    let before = (digest_of(&master), libvirt.inventory_of(&name));
    let storage = folder.path().join("guests");
    let _turn = Turn::wait();
    let mut import = virt_image();
    import
        .arg(descriptor)
        .args([
            "--connect",
            &libvirt.uri,
            "--virt-type",
            "qemu",
            "-n",
            &name,
        ])
        .args([
            "-w",
            "user",
            "--wait-ready",
            PATIENCE,
            "--firmware",
            firmware,
        ])
        .arg("--storage")
        .arg(&storage)
        .arg("--config")
        .arg(&config.path)
        .args(args)
        .current_dir("/");
    let said = succeeds(&mut import);
    assert!(said.contains("VA state=ready"), "{said}");
    assert!(said.contains(&format!("fw={firmware}")), "{said}");
    let mut remove = virt_image();
    remove.args(["remove", &name, "--force", "--connect", &libvirt.uri]);
    succeeds(remove.arg("--storage").arg(&storage));
    assert_eq!((digest_of(&master), libvirt.inventory_of(&name)), before);
}

#[test]
fn the_reference_appliance_gets_ready_under_uefi_with_virtio() {
    let Some(libvirt) = Libvirt::for_boots() else {
        return;
    };
    let descriptor = appliance().file("appliance.xml");
    gets_ready(&libvirt, &descriptor, &["--clone", "overlay"], "uefi");
}

/// The appliance without its advice: what a historic importer made of it.
#[test]
fn without_advice_it_gets_ready_under_bios_with_ide() {
    let Some(libvirt) = Libvirt::for_boots() else {
        return;
    };
    let text = std::fs::read_to_string(appliance().file("appliance.xml")).expect("a descriptor");
    let plain = stripped(&text);
    assert!(!plain.contains("va:"), "{plain}");
    let folder = Small::new();
    folder.describe(&plain);
    let master = appliance().file("reference.qcow2");
    let copy = folder.file("reference.qcow2");
    std::fs::hard_link(&master, &copy)
        .or_else(|_| std::fs::copy(&master, &copy).map(drop))
        .expect("a copy");
    let xml = succeeds(
        folder
            .import(&["-p", "--virt-type", "qemu"])
            .args(["--connect", "none"]),
    );
    assert!(
        xml.contains("bus='ide'") && xml.contains("machine='pc'"),
        "{xml}"
    );
    gets_ready(&libvirt, &folder.descriptor(), &[], "bios");
}

/// Leaves out whatever has the prefix `va`; the descriptor has one element a line.
fn stripped(text: &str) -> String {
    let mut kept = String::new();
    let is_ours = |line: &str| line.starts_with("<va:") || line.starts_with("</va:");
    for line in text.lines().filter(|line| !is_ours(line.trim_start())) {
        let mut line = line.replace(" xmlns:va=\"urn:consign:appliance:1\"", "");
        while let Some(start) = line.find(" va:") {
            let value = start + line[start..].find('"').expect("a value") + 1;
            let end = value + line[value..].find('"').expect("its end") + 1;
            line.replace_range(start..end, "");
        }
        kept.push_str(&line);
        kept.push('\n');
    }
    kept
}

/// As printed for virt-install, run as it is.
#[test]
fn the_line_for_virt_install_gets_it_ready() {
    let Some(libvirt) = Libvirt::for_boots() else {
        return;
    };
    if find_program("virt-install").is_none() {
        skip("no `virt-install`: apt-get install virtinst");
        return;
    }
    let folder = temp_folder();
    let Some((_, public)) = ssh_key(folder.path()) else {
        return;
    };
    let config = config_disk(folder.path(), &site("installed", &public, Address::Dhcp));
    let storage = folder.path().join("guests");
    let mut emit = virt_image();
    emit.arg(appliance().file("appliance.xml"))
        .args(["--emit", "virt-install", "--connect", &libvirt.uri])
        .args([
            "--virt-type",
            "qemu",
            "-n",
            "installed",
            "-w",
            "user",
            "--firmware",
            "bios",
        ])
        .arg("--storage")
        .arg(&storage)
        .arg("--config")
        .arg(&config.path);
    let script = folder.path().join("install.sh");
    std::fs::write(&script, succeeds(&mut emit)).expect("written");
    let pools = libvirt.ask(&["pool-list", "--all", "--name"]);
    let _turn = Turn::wait();
    let output = run(Command::new("sh").arg(&script).current_dir("/"));
    assert!(output.status.success(), "{}", text_of(&output));
    let log: PathBuf = storage.join("installed/console.log");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(400);
    loop {
        let said = std::fs::read(&log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        if said.contains("VA state=ready") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{said}");
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    libvirt.ask(&["destroy", "installed"]);
    libvirt.ask(&["undefine", "installed", "--nvram"]);
    // virt-install makes a pool of the folder, which is why we do not.
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
