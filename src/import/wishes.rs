//! What the user wants otherwise than the descriptor says.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::descriptor::Paths;
use crate::descriptor::Firmware;
use crate::units::ByteSize;

pub use crate::descriptor::libvirt::{Bus, Chipset as Board};

/// Wishes; each may be missing.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// The guest's name.
    pub name: Option<String>,
    /// Its UUID; libvirt makes one up.
    pub uuid: Option<String>,
    /// Memory now and at most.
    pub memory: Option<Memory>,
    /// Virtual processors.
    pub vcpus: Option<u32>,
    /// Host processors that they run on, in libvirt's notation.
    pub cpuset: Option<String>,
    /// `host-passthrough`, `host-model`, `maximum`, or a model's name.
    pub cpu: Option<String>,
    /// The first network cards; the rest goes to `default_network`.
    pub nics: NicWishes,
    /// Where a network card goes that nobody asked about.
    pub default_network: Network,
    /// Other networks instead of those called so.
    pub network_map: BTreeMap<String, Network>,
    /// A screen.
    pub graphics: Option<Graphics>,
    /// The boot descriptor, from 0; `None` for the first that fits.
    pub boot: Option<usize>,
    /// The operating system, by libosinfo's id.
    pub os: Option<String>,
    /// `None`: the first of the descriptor's that the host has.
    pub firmware: Option<Firmware>,
    /// The board.
    pub board: Option<Board>,
    /// The bus of its disks.
    pub bus: Option<Bus>,
    /// What runs the guest's instructions.
    pub virt: Virt,
    /// How disks are copied.
    pub clone: CloneKind,
    /// Sizes of disks, by id.
    pub sizes: BTreeMap<String, ByteSize>,
    /// The config disk.
    pub config: Config,
    /// The folder in which the guest's folder is made.
    pub storage: PathBuf,
    /// Whether the host starts the guest when it starts itself.
    pub autostart: bool,
    /// Which paths of the descriptor are followed.
    pub paths: Paths,
    /// Features that are left out: `acpi`, `apic`.
    pub without: Vec<&'static str>,
}

/// How a config disk is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Of which site.toml.
    pub site: PathBuf,
    /// The words of the command, before the name of its output.
    pub command: Vec<String>,
}

/// Memory of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// At the start.
    pub now: ByteSize,
    /// At most.
    pub most: ByteSize,
}

impl Memory {
    /// As good as none.
    pub const LEAST: Self = Self {
        now: ByteSize::from_mib(1),
        most: ByteSize::from_mib(1),
    };
}

/// Network cards that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NicWishes {
    /// As many as the descriptor says.
    #[default]
    Descriptor,
    /// None at all.
    None,
    /// These first.
    First(Vec<NicWish>),
}

/// A network card that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicWish {
    /// Where it goes; `None` for the default network.
    pub network: Option<Network>,
    /// Its model.
    pub model: Option<String>,
    /// Its address.
    pub mac: Option<String>,
}

/// Where a network card goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// A network of libvirt.
    Named(String),
    /// A bridge of the host.
    Bridge(String),
    /// QEMU's own, behind the host's.
    User,
}

/// What a screen is shown by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Graphics {
    /// No screen.
    None,
    /// VNC; port and address, where they are set.
    Vnc {
        /// The port.
        port: Option<u16>,
        /// The address.
        listen: Option<String>,
        /// The keyboard.
        keymap: Option<String>,
    },
    /// SPICE.
    Spice,
    /// A window of the host.
    Sdl,
}

/// What runs a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Virt {
    /// KVM where it works, which is found out by using it.
    Auto,
    /// KVM or nothing.
    Kvm,
    /// QEMU's translator.
    Qemu,
}

/// How a disk is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloneKind {
    /// A full copy, which shares blocks where the file system can.
    Full,
    /// Only what changes, on top of the master, which has to stay.
    Overlay,
    /// A copy that shares blocks, or nothing.
    Reflink,
}

impl CloneKind {
    /// The word on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Overlay => "overlay",
            Self::Reflink => "reflink",
        }
    }
}

/// The config disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Config {
    /// As the descriptor says.
    Descriptor,
    /// None.
    None,
    /// A copy of this volume, writable.
    Volume(PathBuf),
    /// The same of a volume that was just made, and will be gone.
    Made {
        /// The volume.
        volume: PathBuf,
        /// How it was made.
        recipe: Recipe,
    },
    /// A copy of this CD.
    Cd(PathBuf),
}
