//! The parts of a guest, in the words of libvirt and of QEMU.

/// What runs a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Virt {
    /// The host's processor.
    Kvm,
    /// QEMU's emulation of one.
    Qemu,
}

/// The board of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chipset {
    /// PCI Express; no IDE.
    Q35,
    /// i440FX: the only board with IDE.
    Pc,
}

/// What a disk looks like to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// A hard disk.
    Disk,
    /// A CD: never written.
    CdRom,
}

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bus {
    /// virtio-blk.
    Virtio,
    /// virtio-scsi.
    Scsi,
    /// AHCI.
    Sata,
    /// IDE; [`Chipset::Pc`] only.
    Ide,
    /// Xen's, which only its guests have.
    Xen,
}

/// Whether the guest may write to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It may.
    ReadWrite,
    /// It may not.
    ReadOnly,
}

/// Whether a guest starts without a disk's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It does not.
    Needed,
    /// It does; the guest then has no such disk.
    Optional,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainDisk {
    /// The file: an absolute path on the host.
    pub file: String,
    /// Its format by QEMU's name (`raw`, `qcow2`); never probed.
    pub format: String,
    /// What it looks like.
    pub device: Device,
    /// How it is attached.
    pub bus: Bus,
    /// Whether it is written.
    pub access: Access,
    /// Whether its file may be missing.
    pub presence: Presence,
    /// The serial number that the guest sees.
    pub serial: Option<String>,
}

/// Files that the host loads into the guest's memory, by absolute path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The kernel.
    pub kernel: String,
    /// The initramfs.
    pub initrd: Option<String>,
    /// The kernel's command line.
    pub command_line: Option<String>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// What it is connected to.
    pub source: NicSource,
    /// Its model by QEMU's name (`virtio`, `e1000`).
    pub model: String,
    /// Its address; libvirt makes one where there is none.
    pub mac: Option<String>,
}

/// What a network interface is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NicSource {
    /// One of libvirt's networks.
    Network(String),
    /// A bridge of the host.
    Bridge(String),
    /// The host's own network, through QEMU: no privileges needed, nothing
    /// comes in.
    User,
}

impl Virt {
    /// libvirt's word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
        }
    }
}

impl Chipset {
    /// QEMU's word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q35 => "q35",
            Self::Pc => "pc",
        }
    }
}

impl Device {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::CdRom => "cdrom",
        }
    }

    pub(super) const fn boot(self) -> &'static str {
        match self {
            Self::Disk => "hd",
            Self::CdRom => "cdrom",
        }
    }
}

impl Bus {
    /// libvirt's word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::Scsi => "scsi",
            Self::Sata => "sata",
            Self::Ide => "ide",
            Self::Xen => "xen",
        }
    }

    /// What names of its disks begin with. A CD on virtio does not exist.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Virtio => "vd",
            Self::Scsi | Self::Sata => "sd",
            Self::Ide => "hd",
            Self::Xen => "xvd",
        }
    }

    /// How many disks an importer puts on it.
    #[must_use]
    pub const fn most(self) -> usize {
        match self {
            Self::Ide => 4,
            Self::Sata => 6,
            Self::Virtio | Self::Scsi | Self::Xen => 24,
        }
    }
}

impl DomainDisk {
    /// A hard disk that the guest needs and writes.
    #[must_use]
    pub fn new(file: impl Into<String>, format: impl Into<String>, bus: Bus) -> Self {
        Self {
            file: file.into(),
            format: format.into(),
            device: Device::Disk,
            bus,
            access: Access::ReadWrite,
            presence: Presence::Needed,
            serial: None,
        }
    }
}
