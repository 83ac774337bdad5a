//! The firmwares that a guest on this host can start by.

use std::path::Path;

use crate::descriptor::Firmware;
use crate::machine::firmware;

/// Firmwares that guests on this host can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostFirmware {
    bios: bool,
    uefi: bool,
    secure: bool,
}

/// Where distributions keep `SeaBIOS`.
const BIOS: [&str; 5] = [
    "usr/share/seabios/bios-256k.bin",
    "usr/share/qemu/bios-256k.bin",
    "usr/share/seavgabios/bios-256k.bin",
    "usr/share/qemu-kvm/bios-256k.bin",
    "usr/local/share/qemu/bios-256k.bin",
];

impl HostFirmware {
    /// Looks below `root`.
    #[must_use]
    pub fn find(root: &Path) -> Self {
        use crate::machine::Firmware as Kind;
        let has = |kind| firmware::find(kind, root).is_ok();
        Self {
            bios: BIOS.iter().any(|path| root.join(path).is_file()),
            uefi: has(Kind::Uefi),
            secure: has(Kind::UefiSecure),
        }
    }

    /// As if it had all, for guests that have their own already.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            bios: true,
            uefi: true,
            secure: true,
        }
    }

    pub(super) fn has(self, firmware: Firmware) -> bool {
        match firmware {
            Firmware::Bios => self.bios,
            Firmware::Uefi => self.uefi,
            Firmware::UefiSecure => self.secure,
        }
    }

    pub(super) fn names(self) -> String {
        match (self.bios, self.uefi || self.secure) {
            (true, true) => "BIOS and UEFI without Secure Boot".into(),
            (true, false) => "BIOS".into(),
            (false, true) => "UEFI".into(),
            (false, false) => "no firmware that is known".into(),
        }
    }
}
