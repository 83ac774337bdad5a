//! The checked appliance: domain types only, no text left to interpret.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;

use super::layer::LayerRecipe;
use super::names::{Mirror, Name, Suite, Version};
use super::repository::{OwnRepository, VersionPin};
use crate::units::{ByteSize, MIB, Timestamp};

/// Partitions begin and end on multiples of this, in bytes.
pub(crate) const ALIGNMENT: u64 = MIB;

/// An appliance as its vendor described it, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appliance {
    /// The folder of the file that it was read from.
    pub folder: PathBuf,
    /// Names the outputs and the guest.
    pub name: Name,
    /// The vendor's version of the appliance.
    pub version: Version,
    /// One line for people.
    pub label: Option<String>,
    /// A paragraph for people.
    pub description: Option<String>,
    /// Who makes it, one line for people.
    pub vendor: Option<String>,
    /// A text file: the licence that who imports it agrees to.
    pub eula: Option<PathBuf>,
    /// No time in the image is later. `None`: the plan takes the newest
    /// repository's.
    pub source_date: Option<Timestamp>,
    /// What runs.
    pub system: System,
    /// Where packages come from besides the distribution, by name.
    pub repositories: Vec<OwnRepository>,
    /// Which versions of packages count, in the order written.
    pub pins: Vec<VersionPin>,
    /// How the disk is divided.
    pub disk: DiskLayout,
    /// What the loader is told.
    pub boot: BootSettings,
    /// What the machine should have.
    pub machine: MachineFacts,
    /// What is written.
    pub outputs: Outputs,
    /// `[values]`: the vendor's own texts for templates of files layers.
    pub values: BTreeMap<String, String>,
    /// The layers, lowest first; at least one is of packages, names differ.
    pub layers: Vec<LayerRecipe>,
}

/// `[system]`: what runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Whose packages.
    pub distribution: Distribution,
    /// Which release of them, by code name.
    pub suite: Suite,
    /// For which processor.
    pub architecture: Architecture,
    /// Where to fetch them; `None`: where the host does.
    pub mirror: Option<Mirror>,
    /// Which of the distribution's kernels.
    pub kernel: Kernel,
}

macro_rules! words {
    (
        $(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every value, in the order of the manual.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word that stands for it in files.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// Whose packages.
    Distribution {
        /// Debian.
        Debian = "debian",
    }
}

words! {
    /// For which processor; Debian's names.
    Architecture {
        /// 64-bit x86.
        Amd64 = "amd64",
    }
}

words! {
    /// Which of the distribution's kernels.
    Kernel {
        /// All drivers: boots wherever the architecture does.
        Generic = "generic",
        /// Smaller; virtio, Xen, Hyper-V and `NVMe` only: no SATA, no e1000, no USB.
        Cloud = "cloud",
    }
}

words! {
    /// A firmware that a machine may have.
    Firmware {
        /// PC BIOS.
        Bios = "bios",
        /// UEFI without Secure Boot.
        Uefi = "uefi",
        /// UEFI with Secure Boot on.
        UefiSecure = "uefi-secure",
    }
}

words! {
    /// A disk image's container.
    ImageKind {
        /// The disk's bytes, holes left out by the file system.
        Raw = "raw",
        /// The disk's bytes as a zstd stream.
        RawZst = "raw.zst",
        /// QEMU's, compressed.
        Qcow2 = "qcow2",
        /// The one of `VMware`, for transport.
        Vmdk = "vmdk",
        /// Hyper-V's.
        Vhdx = "vhdx",
        /// Azure's and older Hyper-V's, fixed.
        Vhd = "vhd",
        /// A package of machine and disk, for `VMware`, `VirtualBox` and Proxmox.
        Ova = "ova",
    }
}

words! {
    /// How the clusters of a qcow2 image are packed.
    Qcow2Compression {
        /// Every QEMU reads it.
        Deflate = "deflate",
        /// Smaller and faster; needs QEMU 5.1.
        Zstd = "zstd",
    }
}

impl Architecture {
    /// The name that kernels and descriptors use.
    #[must_use]
    pub const fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
        }
    }
}

/// `[disk]`: how the disk is divided. All sizes are whole mebibytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskLayout {
    /// One root or two.
    pub profile: DiskProfile,
    /// The EFI system partition.
    pub esp: ByteSize,
    /// Each root partition.
    pub root: ByteSize,
    /// The whole disk; `None`: as large as its partitions need. The last
    /// partition gets what is over.
    pub size: Option<ByteSize>,
}

/// How many root partitions there are, and where state lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskProfile {
    /// Two roots, of which one is empty until the first update; state on /var.
    Ab {
        /// The least size of /var.
        var: ByteSize,
    },
    /// One root that holds everything.
    Single,
}

impl DiskProfile {
    /// The word that stands for it in files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ab { .. } => "ab",
            Self::Single => "single",
        }
    }
}

impl DiskLayout {
    /// Room before the first partition: the partition table.
    pub const HEAD: ByteSize = ByteSize::from_bytes(ALIGNMENT);
    /// The partition of the BIOS loader.
    pub const BIOS: ByteSize = ByteSize::from_bytes(ALIGNMENT);
    /// Room after the last partition: the backup of the table.
    pub const TAIL: ByteSize = ByteSize::from_bytes(ALIGNMENT);

    /// The smallest disk that holds all partitions; `None` when it does not
    /// fit 64 bits.
    #[must_use]
    pub fn least(&self) -> Option<ByteSize> {
        let roots = match self.profile {
            DiskProfile::Ab { var } => [self.root, self.root, var],
            DiskProfile::Single => [self.root, ByteSize::ZERO, ByteSize::ZERO],
        };
        [Self::HEAD, Self::BIOS, self.esp, Self::TAIL]
            .into_iter()
            .chain(roots)
            .try_fold(0_u64, |sum, size| sum.checked_add(size.bytes()))
            .map(ByteSize::from_bytes)
    }
}

/// `[boot]`: what the loader is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootSettings {
    /// Words added to the kernel's command line; printable ASCII.
    pub cmdline: Vec<String>,
}

/// `[machine]`: what the machine should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineFacts {
    /// Recommended memory, whole mebibytes.
    pub memory: ByteSize,
    /// Virtual processors.
    pub vcpus: NonZeroU32,
    /// Network interfaces.
    pub nics: u32,
    /// Whether a screen is worth showing.
    pub graphics: bool,
    /// The firmwares it may have, best first; not empty, no repeats.
    pub firmware: Vec<Firmware>,
    /// Disks of the customer's, in order.
    pub disks: Vec<UserDisk>,
}

/// A `[[machine.disk]]`: shipped without content, kept over upgrades.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserDisk {
    /// Names it in the descriptor and its file.
    pub name: Name,
    /// Its size, whole mebibytes.
    pub size: ByteSize,
}

/// `[outputs]`: what is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outputs {
    /// The containers; not empty, no repeats, in the order of [`ImageKind::ALL`].
    pub formats: Vec<ImageKind>,
    /// How qcow2 is packed.
    pub qcow2_compression: Qcow2Compression,
    /// How hard zstd tries, for qcow2 and raw.zst: 1 (fast) to 19 (small).
    pub zstd_level: u8,
}
