//! What the loader decides: slots and their tries, and what Secure Boot
//! refuses. The guests are ended at the marker.

use consign::machine::{Disk, Firmware, GuestSpec};

use crate::support::appliance::{Esp, appliance};
use crate::support::guests::TestGuest;
use crate::support::temp_folder;

/// GRUB's environment block: a heading, lines, and `#` up to 1024 bytes.
pub(super) fn environment(lines: &[&str]) -> Vec<u8> {
    let mut block = b"# GRUB Environment Block\n".to_vec();
    for line in lines {
        block.extend(line.as_bytes());
        block.push(b'\n');
    }
    block.resize(1024, b'#');
    block
}

/// Where GRUB and the agent keep it.
pub(super) const ENVIRONMENT: &str = "/EFI/debian/grubenv";

fn spec(firmware: Firmware, disk: &Disk) -> GuestSpec {
    let mut spec = GuestSpec::new(firmware);
    spec.disks = vec![disk.clone()];
    spec
}

/// Puts a kernel into slot b, whose root stays empty, and lets it be tried
/// twice before slot a.
pub(super) fn try_slot_b(esp: &Esp) -> Option<()> {
    esp.make_folder("/slot-b")?;
    for name in ["vmlinuz", "initrd"] {
        let content = esp.read(&format!("/slot-a/{name}"))?;
        esp.write(&format!("/slot-b/{name}"), &content)?;
    }
    esp.write(
        ENVIRONMENT,
        &environment(&["order=b a", "good=a", "a_tries=ok", "b_tries=2"]),
    )
}

fn a_slot_that_never_works_is_given_up(firmware: Firmware) {
    let folder = temp_folder();
    let disk = appliance().copy(folder.path());
    let esp = Esp::of(&disk);
    if try_slot_b(&esp).is_none() {
        return;
    }
    for expected in ["slot=b next=1", "slot=b next=0", "slot=a next=ok"] {
        let Some(mut guest) = TestGuest::start(&spec(firmware, &disk)) else {
            return;
        };
        guest.says("slot=");
        guest.says(expected);
    }
    let left = esp.read(ENVIRONMENT).expect("mtools were there before");
    assert_eq!(left.len(), 1024);
    let left = String::from_utf8_lossy(&left);
    assert!(left.contains("\nb_tries=0\n"), "{left}");
    assert!(left.contains("\na_tries=ok\n"), "{left}");
}

#[test]
fn bios_gives_up_a_slot_after_its_tries() {
    a_slot_that_never_works_is_given_up(Firmware::Bios);
}

#[test]
fn uefi_gives_up_a_slot_after_its_tries() {
    a_slot_that_never_works_is_given_up(Firmware::Uefi);
}

#[test]
fn secure_boot_gives_up_a_slot_after_its_tries() {
    a_slot_that_never_works_is_given_up(Firmware::UefiSecure);
}

/// A PE32+ image without its signatures: entry 4 of the data directories is
/// cleared (PE format, "Optional Header Data Directories").
fn without_signature(mut image: Vec<u8>) -> Vec<u8> {
    let word = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().expect("4 bytes"));
    let optional = word(0x3c) as usize + 24;
    assert_eq!(&image[optional..optional + 2], [0x0b, 0x02], "PE32+");
    let entry = optional + 112 + 4 * 8;
    assert_ne!(word(entry + 4), 0, "it was signed");
    image[entry..entry + 8].fill(0);
    image
}

#[test]
fn secure_boot_refuses_an_unsigned_loader() {
    const LOADER: &str = "/EFI/BOOT/grubx64.efi";
    let folder = temp_folder();
    let disk = appliance().copy(folder.path());
    let esp = Esp::of(&disk);
    let Some(signed) = esp.read(LOADER) else {
        return;
    };
    esp.write(LOADER, &without_signature(signed));
    let Some(mut guest) = TestGuest::start(&spec(Firmware::UefiSecure, &disk)) else {
        return;
    };
    // shim draws "Verification failed: (0x1A) Security Violation" in a box. The
    // firmware drops characters of it where the host is busy; the box's
    // heading and its button are drawn more than once.
    guest.says("ERROR");
    guest.says(" OK ");
    let console = guest.console();
    for words in ["GRUB platform", "Linux version", "VA state"] {
        assert!(!console.contains(words), "{console}");
    }
}

#[test]
fn secure_boot_refuses_a_changed_kernel() {
    const KERNEL: &str = "/slot-a/vmlinuz";
    let folder = temp_folder();
    let disk = appliance().copy(folder.path());
    let esp = Esp::of(&disk);
    let Some(mut kernel) = esp.read(KERNEL) else {
        return;
    };
    let middle = kernel.len() / 2;
    kernel[middle] ^= 1;
    esp.write(KERNEL, &kernel);
    let Some(mut guest) = TestGuest::start(&spec(Firmware::UefiSecure, &disk)) else {
        return;
    };
    guest.says("bad shim signature");
    guest.says("Nothing on this disk can be started.");
    let console = guest.console();
    for words in ["root mounted", "VA state"] {
        assert!(!console.contains(words), "{console}");
    }
}
