//! Finds OVMF: one file of code, one template of variables.

use std::path::{Path, PathBuf};

use super::{Firmware, MachineError};

/// A UEFI firmware of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ovmf {
    /// Read-only code.
    pub code: PathBuf,
    /// Variables of a machine that never ran, with the certificates enrolled
    /// where Secure Boot is meant.
    pub variables: PathBuf,
}

/// Code and variables without Secure Boot, by distribution, the 4 MiB kind first.
const PLAIN: &[(&str, &str)] = &[
    // Debian, Ubuntu
    (
        "usr/share/OVMF/OVMF_CODE_4M.fd",
        "usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    ("usr/share/OVMF/OVMF_CODE.fd", "usr/share/OVMF/OVMF_VARS.fd"),
    // Fedora, CentOS
    (
        "usr/share/edk2/ovmf/OVMF_CODE.fd",
        "usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
    // Arch
    (
        "usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ),
    // openSUSE
    (
        "usr/share/qemu/ovmf-x86_64-4m-code.bin",
        "usr/share/qemu/ovmf-x86_64-4m-vars.bin",
    ),
];

/// Code that enforces Secure Boot, and variables with Microsoft's certificates.
const SECURE: &[(&str, &str)] = &[
    (
        "usr/share/OVMF/OVMF_CODE_4M.secboot.fd",
        "usr/share/OVMF/OVMF_VARS_4M.ms.fd",
    ),
    (
        "usr/share/OVMF/OVMF_CODE.secboot.fd",
        "usr/share/OVMF/OVMF_VARS.ms.fd",
    ),
    (
        "usr/share/edk2/ovmf/OVMF_CODE.secboot.fd",
        "usr/share/edk2/ovmf/OVMF_VARS.secboot.fd",
    ),
    (
        "usr/share/qemu/ovmf-x86_64-smm-ms-code.bin",
        "usr/share/qemu/ovmf-x86_64-smm-ms-vars.bin",
    ),
];

/// The firmware's files below `root`; `None` for BIOS, which QEMU brings along.
///
/// # Errors
///
/// [`MachineError::NoFirmware`].
pub fn find(firmware: Firmware, root: &Path) -> Result<Option<Ovmf>, MachineError> {
    let (known, kind) = match firmware {
        Firmware::Bios => return Ok(None),
        Firmware::Uefi => (PLAIN, "UEFI"),
        Firmware::UefiSecure => (SECURE, "Secure Boot UEFI"),
    };
    known
        .iter()
        .map(|(code, variables)| Ovmf {
            code: root.join(code),
            variables: root.join(variables),
        })
        .find(|ovmf| ovmf.code.is_file() && ovmf.variables.is_file())
        .map(Some)
        .ok_or(MachineError::NoFirmware { kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_without_its_variables_does_not_count() {
        let root = tempfile::tempdir().expect("folder");
        let folder = root.path().join("usr/share/OVMF");
        std::fs::create_dir_all(&folder).expect("folder");
        std::fs::write(folder.join("OVMF_CODE_4M.fd"), "").expect("file");
        let error = find(Firmware::Uefi, root.path()).expect_err("no variables");
        assert_eq!(error.slug(), "machine-no-firmware");
        std::fs::write(folder.join("OVMF_VARS_4M.fd"), "").expect("file");
        let ovmf = find(Firmware::Uefi, root.path())
            .expect("found")
            .expect("files");
        assert!(ovmf.variables.ends_with("OVMF_VARS_4M.fd"));
        let error = find(Firmware::UefiSecure, root.path()).expect_err("no Secure Boot");
        assert_eq!(
            error.to_string(),
            "no Secure Boot UEFI firmware for guests found on this host"
        );
    }

    #[test]
    fn bios_needs_no_files() {
        assert_eq!(
            find(Firmware::Bios, Path::new("/nonexistent")).expect("BIOS"),
            None
        );
    }
}
