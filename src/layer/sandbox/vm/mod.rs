//! The sandbox as a machine in QEMU: for hosts that give neither namespaces
//! nor root, at the price of an emulated processor.
//!
//! The machine has no disk and no network card. It boots the kernel of the
//! appliance with an initramfs of consign itself, the libraries that consign
//! runs with, and six drivers; its first process is [`guest`]. Requests and
//! answers go through one virtio port, and files that they name with them.
//!
//! Source: kernel parameters `rdinit=` and `--` (Linux
//! `admin-guide/kernel-parameters.rst`), QEMU's `virtserialport`.

pub(super) mod guest;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use tempfile::TempDir;

use super::refusal::SandboxRefusal;
use super::{ARG_VM, SandboxSettings};
use crate::exec::{Call, Tool};
use crate::layer::LayerError;
use crate::layer::package::files_of;
use crate::tree::TreePath;
use crate::tree::cpio::Archive;

/// Drivers of the port, by their file names.
const DRIVERS: [&str; 6] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_console",
];
/// Name of the port.
const PORT: &str = "consign";
/// Where the machine keeps consign, drivers and its work.
const PROGRAM: &str = "consign";
const DRIVER_FOLDER: &str = "drivers";
pub(super) const WORK: &str = "/work";
/// The time of files in the archive: nobody looks at it.
const NO_TIME: u32 = 0;
/// Memory: half of what the host has to spare, within these bounds.
const MEMORY: std::ops::RangeInclusive<u64> = (1 << 30)..=(8 << 30);

/// A machine that has been started, and the files it was started from.
pub(super) fn launch(settings: &SandboxSettings) -> Result<(Child, TempDir), LayerError> {
    let qemu = Call::find(Tool::QemuX86, &settings.search_path).map_err(|error| refused(&error))?;
    let kernel = settings.kernel.as_ref().filter(|path| path.is_file());
    let kernel = kernel.ok_or(SandboxRefusal::NoKernel)?;
    let folder = tempfile::tempdir().map_err(|error| refused(&error))?;
    let place = folder.path();
    write_files(kernel, settings, place).map_err(|reason| SandboxRefusal::Trial { reason })?;
    let memory = super::memory::available().unwrap_or(0) / 2;
    let memory = memory.clamp(*MEMORY.start(), *MEMORY.end()) >> 20;
    // An emulated timer may be late when the kernel checks it.
    let append =
        format!("console=ttyS0 quiet no_timer_check panic=-1 rdinit=/{PROGRAM} -- {ARG_VM}");
    let call = qemu
        .args([
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
        ])
        .args(["-smp", "2", "-m", &format!("{memory}M")])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .arg("-kernel")
        .arg(place.join("kernel"))
        .arg("-initrd")
        .arg(place.join("initrd"))
        .args(["-append", &append])
        .args(["-serial", "file:/proc/self/fd/2"])
        .args(["-device", "virtio-serial-pci"])
        .args(["-chardev", "stdio,id=talk,signal=off"])
        .args([
            "-device",
            &format!("virtserialport,chardev=talk,name={PORT}"),
        ])
        .tied_to_us(&settings.search_path);
    let child = call
        .spawn(Stdio::piped(), Stdio::piped(), Stdio::piped())
        .map_err(|error| refused(&error))?;
    Ok((child, folder))
}

fn refused(error: &dyn std::error::Error) -> SandboxRefusal {
    SandboxRefusal::Trial {
        reason: error.to_string(),
    }
}

/// Writes `kernel` and `initrd`.
fn write_files(package: &Path, settings: &SandboxSettings, place: &Path) -> Result<(), String> {
    let wanted = |path: &TreePath| {
        let name = String::from_utf8_lossy(path.name().unwrap_or_default()).into_owned();
        let is_driver = DRIVERS.iter().any(|driver| name == format!("{driver}.ko"));
        is_driver || (path.as_bytes().starts_with(b"boot/") && name.starts_with("vmlinuz-"))
    };
    let mut found = files_of(package, wanted)?;
    let kernel = found
        .keys()
        .find(|path| path.as_bytes().starts_with(b"boot/"))
        .cloned();
    let kernel = kernel.and_then(|path| found.remove(&path));
    let kernel = kernel.ok_or("the kernel's package has no kernel")?;
    let in_words = |error: io::Error| error.to_string();
    std::fs::write(place.join("kernel"), kernel).map_err(in_words)?;
    let drivers = found.into_iter().map(|(path, bytes)| {
        let name = String::from_utf8_lossy(path.name().unwrap_or_default()).into_owned();
        (name, bytes)
    });
    let archive = archive(drivers.collect(), &settings.program).map_err(in_words)?;
    std::fs::write(place.join("initrd"), archive).map_err(in_words)
}

fn archive(drivers: Vec<(String, Vec<u8>)>, program: &Path) -> io::Result<Vec<u8>> {
    let mut archive = Archive::new(NO_TIME);
    for folder in [
        "proc",
        "sys",
        "dev",
        "tmp",
        "work",
        "lib",
        "usr",
        DRIVER_FOLDER,
    ] {
        archive.directory(folder);
    }
    // Wherever the loader looks: the libraries are in one place.
    for (name, target) in [
        ("lib64", "lib"),
        ("usr/lib", "../lib"),
        ("usr/lib64", "../lib"),
        ("lib/x86_64-linux-gnu", "."),
    ] {
        archive.symlink(name, target);
    }
    archive.file(PROGRAM, 0o755, &std::fs::read(program)?);
    for library in libraries()? {
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        let bytes = std::fs::read(&library)?;
        archive.file(&format!("lib/{name}"), 0o755, &bytes);
    }
    for (name, bytes) in drivers {
        archive.file(&format!("{DRIVER_FOLDER}/{name}"), 0o644, &bytes);
    }
    Ok(archive.finish())
}

/// The loader and the libraries that this process runs with.
fn libraries() -> io::Result<Vec<PathBuf>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut found: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| line.split_once('/'))
        .map(|(_, path)| PathBuf::from(format!("/{path}")))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.contains(".so")
        })
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Where the file `number` of this talk is in the machine.
pub(super) fn place_of(number: u32) -> PathBuf {
    Path::new(WORK).join(format!("file-{number}"))
}
