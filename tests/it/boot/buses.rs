//! The disk behind every controller that QEMU can imitate: GRUB reads it
//! through the firmware, our initramfs finds it with a driver of its own.

use consign::machine::{Bus, Chipset, Firmware, GuestSpec};

use crate::support::appliance::appliance;
use crate::support::guests::TestGuest;

fn mounts_its_root(bus: Bus) {
    let mut spec = GuestSpec::new(Firmware::Bios);
    spec.bus = bus;
    if bus == Bus::Ide {
        spec.chipset = Chipset::Pc;
    }
    spec.disks = vec![appliance().disk()];
    let Some(mut guest) = TestGuest::start(&spec) else {
        return;
    };
    guest.says("consign: root mounted");
    guest.report(&format!("root mounted from {}", bus.name()));
}

#[test]
fn root_is_found_behind_virtio_scsi() {
    mounts_its_root(Bus::VirtioScsi);
}

#[test]
fn root_is_found_behind_nvme() {
    mounts_its_root(Bus::Nvme);
}

#[test]
fn root_is_found_behind_ahci() {
    mounts_its_root(Bus::Ahci);
}

#[test]
fn root_is_found_behind_pvscsi() {
    mounts_its_root(Bus::Pvscsi);
}

#[test]
fn root_is_found_behind_lsi53c895a() {
    mounts_its_root(Bus::Lsi53c895a);
}

#[test]
fn root_is_found_behind_mptsas1068() {
    mounts_its_root(Bus::Mptsas1068);
}

#[test]
fn root_is_found_behind_megasas() {
    mounts_its_root(Bus::Megasas);
}

#[test]
fn root_is_found_behind_usb_storage() {
    mounts_its_root(Bus::UsbStorage);
}

#[test]
fn root_is_found_behind_ide() {
    mounts_its_root(Bus::Ide);
}
