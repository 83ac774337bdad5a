//! Guests in QEMU: firmware, devices, console, the ready line.
//!
//! In: a [`GuestSpec`]. Out: a running [`Guest`] whose console can be waited
//! for, or one whose console is the terminal. Images stay untouched unless the
//! spec says otherwise. Whether KVM works is found out by using it.
//! Never here: images of our own making, libvirt (that is `import`).
//! Checked by: unit tests of the arguments, boots of real kernels and of the
//! reference appliance (`tests/it/boot/`).

pub mod arguments;
pub mod console;
pub mod firmware;
pub mod guest;
pub mod kvm;
pub mod qmp;
pub mod state;

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

pub use guest::Guest;
pub use state::{GuestState, StateLine};

use crate::exec::{ExecError, escape};
use crate::units::{ByteSize, ExitClass};

/// A machine to run.
#[derive(Debug, Clone)]
pub struct GuestSpec {
    /// What starts before the disk.
    pub firmware: Firmware,
    /// The board.
    pub chipset: Chipset,
    /// How disks are attached.
    pub bus: Bus,
    /// Memory.
    pub memory: ByteSize,
    /// Virtual processors.
    pub cpus: u32,
    /// Disks, the one to boot from first.
    pub disks: Vec<Disk>,
    /// Kernel given by the host instead of a boot loader.
    pub kernel: Option<DirectKernel>,
    /// `None`: no network card.
    pub network: Option<Network>,
    /// Where the second console (`hvc0`) is written to. `None`: there is none.
    pub virtio_console: Option<PathBuf>,
    /// Whether a disk can be attached later.
    pub hot_plug: HotPlug,
}

impl GuestSpec {
    /// A machine as most hosts make them: q35, virtio, 1 GiB, one processor,
    /// no disk and no network yet.
    #[must_use]
    pub fn new(firmware: Firmware) -> Self {
        Self {
            firmware,
            chipset: Chipset::Q35,
            bus: Bus::VirtioBlk,
            memory: ByteSize::from_mib(1024),
            cpus: 1,
            disks: Vec::new(),
            kernel: None,
            network: None,
            virtio_console: None,
            hot_plug: HotPlug::Never,
        }
    }
}

/// What starts before the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// `SeaBIOS`.
    Bios,
    /// OVMF without Secure Boot.
    Uefi,
    /// OVMF that enforces Secure Boot with Microsoft's certificates.
    UefiSecure,
}

/// A board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chipset {
    /// PCI Express, since 2009.
    Q35,
    /// i440fx, the default of hosts that know no better.
    Pc,
}

/// How a disk is attached: what QEMU can imitate of what hypervisors offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// virtio block device.
    VirtioBlk,
    /// virtio SCSI.
    VirtioScsi,
    /// NVM Express.
    Nvme,
    /// SATA.
    Ahci,
    /// `VMware` paravirtual SCSI.
    Pvscsi,
    /// LSI 53C895A, parallel SCSI.
    Lsi53c895a,
    /// LSI SAS 1068, `VMware`'s "LSI Logic SAS".
    Mptsas1068,
    /// LSI `MegaRAID` SAS.
    Megasas,
    /// USB mass storage.
    UsbStorage,
    /// Parallel ATA; [`Chipset::Pc`] only.
    Ide,
}

impl Bus {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::VirtioBlk,
        Self::VirtioScsi,
        Self::Nvme,
        Self::Ahci,
        Self::Pvscsi,
        Self::Lsi53c895a,
        Self::Mptsas1068,
        Self::Megasas,
        Self::UsbStorage,
        Self::Ide,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VirtioBlk => "virtio-blk",
            Self::VirtioScsi => "virtio-scsi",
            Self::Nvme => "nvme",
            Self::Ahci => "ahci",
            Self::Pvscsi => "pvscsi",
            Self::Lsi53c895a => "lsi53c895a",
            Self::Mptsas1068 => "mptsas1068",
            Self::Megasas => "megasas",
            Self::UsbStorage => "usb-storage",
            Self::Ide => "ide",
        }
    }
}

/// A disk of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The image file.
    pub path: PathBuf,
    /// Its format; never probed.
    pub format: Format,
    /// What becomes of the guest's writes.
    pub writes: Writes,
}

/// Formats that QEMU is asked to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Raw.
    Raw,
    /// qcow2.
    Qcow2,
}

impl Format {
    /// QEMU's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// What becomes of a guest's writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// They are gone with the guest; the file is opened read-only.
    Discarded,
    /// They change the file.
    Kept,
}

/// A kernel that the host gives to the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectKernel {
    /// The kernel image.
    pub kernel: PathBuf,
    /// The initial RAM file system.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub command_line: String,
}

/// A network behind the host's, in user mode: the guest can be reached
/// through forwarded ports of the loopback address only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// The network that the guest sees; `None` for QEMU's own, 10.0.2.0/24.
    pub subnet: Option<Subnet>,
    /// Ports to forward.
    pub forwards: Vec<Forward>,
}

/// A network with the addresses that a guest's configuration expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// The guest's own address.
    pub guest: Ipv4Addr,
    /// Its gateway.
    pub gateway: Ipv4Addr,
    /// Length of the network's prefix, in bits; 28 at most, since QEMU wants
    /// room for its own addresses.
    pub prefix: u8,
}

/// One forwarded TCP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Port on 127.0.0.1.
    pub host: u16,
    /// The guest's address; `None` for the one that DHCP gives it.
    pub address: Option<Ipv4Addr>,
    /// The guest's port.
    pub guest: u16,
}

/// Whether a disk can be attached to the running guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HotPlug {
    /// No slot is kept for it.
    Never,
    /// One slot is kept.
    OneDisk,
}

/// Why a guest did not run, or did not get ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// QEMU is missing or would not start.
    #[error(transparent)]
    Qemu(#[from] ExecError),
    /// No UEFI firmware on this host.
    #[error("no {kind} firmware for guests found on this host")]
    NoFirmware {
        /// What was looked for.
        kind: &'static str,
    },
    /// Nothing to boot.
    #[error("there is no disk image in `{}`", folder.display())]
    NoImage {
        /// Where one was looked for.
        folder: PathBuf,
    },
    /// More than one thing to boot.
    #[error("`{}` has several disk images: {}", folder.display(), escape(&names.join(", ")))]
    SeveralImages {
        /// Where one was looked for.
        folder: PathBuf,
        /// Their names.
        names: Vec<String>,
    },
    /// A board without that bus.
    #[error("the q35 board has no {} bus for disks", bus.name())]
    NoSuchBus {
        /// The bus.
        bus: Bus,
    },
    /// An option of QEMU cannot hold the path.
    #[error("the path `{}` is not UTF-8", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// An image, a kernel or a log could not be opened.
    #[error("cannot open `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No free port on the loopback address.
    #[error("no free port on 127.0.0.1")]
    NoPort {
        /// What the system said.
        source: io::Error,
    },
    /// QEMU ended although nobody asked it to.
    #[error("QEMU ended with {status}{}", after_colon(stderr))]
    Ended {
        /// How it ended.
        status: std::process::ExitStatus,
        /// The last KiB of its standard error.
        stderr: String,
    },
    /// QEMU did not do as told.
    #[error("QEMU refused `{command}`: {}", escape(reason))]
    Refused {
        /// The command.
        command: String,
        /// QEMU's reason.
        reason: String,
    },
    /// The line to QEMU broke.
    #[error("cannot talk to QEMU")]
    Talk {
        /// What the system said.
        source: io::Error,
    },
    /// Time ran out.
    #[error("the guest did not get ready within {} s{}", limit.as_secs(), last_line(console))]
    NotReady {
        /// How long was waited.
        limit: Duration,
        /// The last lines of its console.
        console: String,
    },
    /// The guest switched off or broke down before it was ready.
    #[error("the guest went off before it was ready{}", last_line(console))]
    WentOff {
        /// The last lines of its console.
        console: String,
    },
    /// The guest said that it will not get ready by itself.
    #[error("the guest is {}: {}", line.state, escape(&line.text))]
    NotInService {
        /// What it said.
        line: StateLine,
    },
}

impl MachineError {
    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Qemu(error) => error.slug(),
            Self::NoFirmware { .. } => "machine-no-firmware",
            Self::NoImage { .. } => "machine-no-image",
            Self::SeveralImages { .. } => "machine-several-images",
            Self::NoSuchBus { .. } => "machine-no-such-bus",
            Self::Path { .. } => "machine-path",
            Self::Open { .. } => "machine-open",
            Self::NoPort { .. } => "machine-no-port",
            Self::Ended { .. } => "machine-qemu-ended",
            Self::Refused { .. } => "machine-qemu-refused",
            Self::Talk { .. } => "machine-qemu-broken-pipe",
            Self::NotReady { .. } => "guest-not-ready",
            Self::WentOff { .. } => "guest-went-off",
            Self::NotInService { .. } => "guest-not-in-service",
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Qemu(error) => error.hint(),
            Self::NoFirmware { .. } => Some("install it: apt-get install ovmf".into()),
            Self::NoImage { .. } => Some("run `consign build` first, or name an image".into()),
            Self::SeveralImages { .. } => Some("name one of them".into()),
            Self::NoSuchBus { .. } => Some("choose the pc board, or another bus".into()),
            Self::Path { .. } => Some("rename the file or the folder".into()),
            Self::NotReady { .. } => Some(
                "look at the console log; wait longer with `--wait-ready` where KVM does not work"
                    .into(),
            ),
            Self::NotInService { .. } => {
                Some("the guest's console says what it needs; correct `site.toml`".into())
            }
            Self::WentOff { .. } => Some("look at the console log".into()),
            _ => None,
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::Qemu(error) => error.class(),
            Self::NotReady { .. } | Self::WentOff { .. } | Self::NotInService { .. } => {
                ExitClass::Guest
            }
            Self::NoImage { .. }
            | Self::SeveralImages { .. }
            | Self::NoSuchBus { .. }
            | Self::Path { .. }
            | Self::Open { .. } => ExitClass::Usage,
            _ => ExitClass::Tool,
        }
    }
}

fn after_colon(text: &str) -> String {
    match text.trim() {
        "" => String::new(),
        text => format!(": {}", escape(text)),
    }
}

fn last_line(console: &str) -> String {
    match console.lines().rfind(|line| !line.trim().is_empty()) {
        Some(line) => format!("; its last line: {}", escape(line.trim())),
        None => "; its console is empty".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_is_late_says_its_last_line() {
        let error = MachineError::NotReady {
            limit: Duration::from_secs(90),
            console: "GRUB\nKernel panic\u{1b}[0m\n\n".into(),
        };
        assert_eq!(
            error.to_string(),
            "the guest did not get ready within 90 s; its last line: Kernel panic\\u{1b}[0m"
        );
        assert_eq!(error.class().code(), 5);
    }

    #[test]
    fn missing_firmware_names_its_package() {
        let error = MachineError::NoFirmware { kind: "UEFI" };
        assert_eq!(
            error.hint().as_deref(),
            Some("install it: apt-get install ovmf")
        );
        assert_eq!(error.class().code(), 4);
    }

    #[test]
    fn a_fenced_guest_is_quoted() {
        let line = StateLine::parse("VA state=fenced slot=b").expect("a state line");
        let error = MachineError::NotInService { line };
        assert_eq!(
            error.to_string(),
            "the guest is fenced: VA state=fenced slot=b"
        );
        assert_eq!(error.class().code(), 5);
    }
}
