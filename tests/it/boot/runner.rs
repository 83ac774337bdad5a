//! The runner itself, with guests of a few instructions: a boot sector that
//! writes a text to the serial line and then stops.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use consign::machine::guest::Qemu;
use consign::machine::{
    Bus, Chipset, Disk, Firmware, Format, Guest, GuestSpec, HotPlug, MachineError, Writes,
};

use crate::support::sector::{Then, boot_sector};
use crate::support::{TestFolder, digest_of, search_path, temp_folder};

fn disk(folder: &TestFolder, text: &str, then: Then) -> PathBuf {
    let path = folder.path().join("disk, raw.img");
    fs::write(&path, boot_sector(text, then)).expect("write");
    path
}

fn spec(path: &Path) -> GuestSpec {
    let mut spec = GuestSpec::new(Firmware::Bios);
    spec.memory = consign::units::ByteSize::from_mib(32);
    spec.disks = vec![Disk {
        path: path.to_owned(),
        format: Format::Raw,
        writes: Writes::Discarded,
    }];
    spec
}

fn start(spec: &GuestSpec) -> Option<Guest> {
    crate::support::program("qemu-system-x86_64", "qemu-system-x86")?;
    let qemu = Qemu::find_emulated(&search_path()).expect("QEMU is there");
    Some(qemu.start(spec, None).expect("the guest starts"))
}

const LIMIT: Duration = Duration::from_mins(1);

#[test]
fn a_ready_line_is_heard_on_both_boards() {
    let folder = temp_folder();
    let path = disk(&folder, "boot\r\nVA state=ready fw=bios\r\n", Then::Stops);
    let before = digest_of(&path);
    for (chipset, bus) in [(Chipset::Q35, Bus::VirtioBlk), (Chipset::Pc, Bus::Ide)] {
        let mut spec = spec(&path);
        (spec.chipset, spec.bus) = (chipset, bus);
        let Some(mut guest) = start(&spec) else {
            return;
        };
        let line = guest.wait_ready(LIMIT).expect("ready");
        assert_eq!(line.field("fw"), Some("bios"));
        assert!(guest.cpu_time().expect("stat") > Duration::ZERO);
    }
    assert_eq!(digest_of(&path), before);
}

#[test]
fn a_fenced_guest_is_not_waited_for() {
    let folder = temp_folder();
    let path = disk(&folder, "VA state=fenced slot=a\r\n", Then::Stops);
    let Some(mut guest) = start(&spec(&path)) else {
        return;
    };
    let error = guest.wait_ready(LIMIT).expect_err("fenced");
    assert_eq!(
        error.to_string(),
        "the guest is fenced: VA state=fenced slot=a"
    );
    assert_eq!(error.class().code(), 5);
}

#[test]
fn a_silent_guest_is_late_and_its_last_line_is_told() {
    let folder = temp_folder();
    let path = disk(&folder, "stuck here\r\n", Then::Stops);
    let Some(mut guest) = start(&spec(&path)) else {
        return;
    };
    guest.wait_text("stuck", LIMIT).expect("it got that far");
    let error = guest.wait_ready(Duration::from_secs(1)).expect_err("late");
    assert_eq!(
        error.to_string(),
        "the guest did not get ready within 1 s; its last line: stuck here"
    );
}

#[test]
fn a_guest_that_resets_went_off() {
    let folder = temp_folder();
    let path = disk(&folder, "panic\r\n", Then::Resets);
    let Some(mut guest) = start(&spec(&path)) else {
        return;
    };
    let error = guest.wait_ready(LIMIT).expect_err("gone");
    assert_eq!(error.slug(), "guest-went-off");
    assert_eq!(
        error.to_string(),
        "the guest went off before it was ready; its last line: panic"
    );
}

#[test]
fn a_disk_is_attached_only_where_a_slot_was_kept() {
    let folder = temp_folder();
    let path = disk(&folder, "up\r\n", Then::Stops);
    let late = folder.path().join("late.img");
    fs::write(&late, [0; 4096]).expect("write");
    let late = Disk {
        path: late,
        format: Format::Raw,
        writes: Writes::Kept,
    };
    let mut spec = spec(&path);
    let Some(mut guest) = start(&spec) else {
        return;
    };
    let error = guest.attach(&late).expect_err("no slot");
    assert_eq!(error.slug(), "machine-qemu-refused");
    guest.cut_power();
    spec.hot_plug = HotPlug::OneDisk;
    let Some(mut guest) = start(&spec) else {
        return;
    };
    guest.attach(&late).expect("attached");
}

#[test]
fn a_missing_image_is_named() {
    let spec = spec(Path::new("/nonexistent/wiki.qcow2"));
    if crate::support::program("qemu-system-x86_64", "qemu-system-x86").is_none() {
        return;
    }
    let qemu = Qemu::find_emulated(&search_path()).expect("QEMU is there");
    let error = qemu.start(&spec, None).expect_err("no image");
    assert_eq!(error.to_string(), "cannot open `/nonexistent/wiki.qcow2`");
    assert_eq!(error.class().code(), 2);
}

#[test]
fn an_image_of_another_format_is_told_in_the_words_of_qemu() {
    let folder = temp_folder();
    let path = disk(&folder, "", Then::Stops);
    let mut spec = spec(&path);
    spec.disks[0].format = Format::Qcow2;
    if crate::support::program("qemu-system-x86_64", "qemu-system-x86").is_none() {
        return;
    }
    let qemu = Qemu::find_emulated(&search_path()).expect("QEMU is there");
    let error = qemu.start(&spec, None).expect_err("no qcow2");
    assert!(matches!(error, MachineError::Ended { .. }), "{error}");
    assert!(error.to_string().contains("not in qcow2 format"), "{error}");
    assert_eq!(error.class().code(), 4);
}

#[test]
fn without_qemu_the_package_is_named() {
    let error = Qemu::find_emulated(&OsString::from("/nonexistent")).expect_err("no QEMU");
    assert_eq!(error.to_string(), "`qemu-system-x86_64` is not installed");
    assert_eq!(
        error.hint().as_deref(),
        Some("install it: apt-get install qemu-system-x86")
    );
    assert_eq!(error.class().code(), 4);
}
