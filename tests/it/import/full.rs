//! The reference appliance, imported with a config disk, gets ready.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Small, succeeds, virt_image};
use crate::support::appliance::{Address, appliance, config_disk, site};
use crate::support::guests::{Turn, ssh_key};
use crate::support::libvirt::Libvirt;
use crate::support::{digest_of, find_program, run, skip, temp_folder, text_of};

/// Emulated machines need time.
const PATIENCE: &str = "400";

/// Guests so far: several are there at the same time.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Imports the appliance that `descriptor` describes, waits until it is
/// ready, and removes it again.
fn gets_ready(libvirt: &Libvirt, descriptor: &Path, args: &[&str], firmware: &str) {
    let folder = temp_folder();
    let Some((_, public)) = ssh_key(folder.path()) else {
        return;
    };
    let config = config_disk(folder.path(), &site("imported", &public, Address::Dhcp)).path;
    gets_ready_with(libvirt, descriptor, &config, args, firmware, "test");
}

/// The same with this config disk, whose id the console shows.
fn gets_ready_with(
    libvirt: &Libvirt,
    descriptor: &Path,
    config: &Path,
    args: &[&str],
    firmware: &str,
    named: &str,
) {
    let folder = temp_folder();
    let master = appliance().file("reference.qcow2");
    let name = format!("ready-{}", COUNT.fetch_add(1, Ordering::Relaxed));
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
        .arg(config)
        .args(args)
        .current_dir("/");
    let said = succeeds(&mut import);
    let wanted = match firmware {
        "uefi-secure" => "fw=uefi sb=1".to_owned(),
        other => format!("fw={other} sb=0"),
    };
    let line = said.lines().find(|line| line.contains("VA state=ready"));
    let line = line.unwrap_or_else(|| panic!("not ready:\n{said}"));
    assert!(line.contains(&wanted), "no {wanted} in {line}");
    let shown = format!("configuration: {named} serial 1");
    let console = storage.join(&name).join("console.log");
    let said = std::fs::read(console).expect("a log");
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains(&shown), "no `{shown}` in\n{said}");
    let told = format!("import: {firmware} {args:?}: {}\n", line.trim());
    // Not eprintln, which the test runner captures.
    let _written = rustix::io::write(rustix::stdio::stderr(), told.as_bytes());
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

/// The pairs that the tests beside this one leave out.
#[test]
fn the_reference_appliance_gets_ready_under_bios_with_virtio_and_uefi_with_ide() {
    let Some(libvirt) = Libvirt::for_boots() else {
        return;
    };
    let descriptor = appliance().file("appliance.xml");
    for (firmware, bus) in [("bios", "virtio"), ("uefi", "ide")] {
        let args = ["--clone", "overlay", "--bus", bus, "--machine", "pc"];
        gets_ready(&libvirt, &descriptor, &args, firmware);
    }
}

/// With the advice of the descriptor, on the other board too, and with Secure
/// Boot. Boots take long: `ci/nightly.d/import` asks for these.
#[test]
#[ignore = "five boots more: ci/nightly.d/import"]
fn every_firmware_gets_it_ready_from_every_bus() {
    let Some(libvirt) = Libvirt::for_boots() else {
        return;
    };
    let descriptor = appliance().file("appliance.xml");
    for (firmware, bus, machine) in [
        ("bios", "virtio", "q35"),
        ("bios", "ide", "pc"),
        ("uefi", "virtio", "q35"),
        ("uefi", "ide", "pc"),
        ("uefi-secure", "virtio", "q35"),
    ] {
        let args = ["--clone", "overlay", "--bus", bus, "--machine", machine];
        gets_ready(&libvirt, &descriptor, &args, firmware);
    }
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
