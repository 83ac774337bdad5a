//! The ways to a root of one's own, in the order in which they are tried.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A way to get a place where packages are unpacked with their owners and
/// their scripts run as root. All give the same layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Driver {
    /// A user namespace that has all ids of a Debian system, and a mount
    /// namespace in it: subordinate ids for an ordinary user, each id itself
    /// for root.
    Userns,
    /// The other namespaces as root, without a user namespace.
    Root,
    /// A plain chroot as root, without mounts and without new namespaces:
    /// what an unprivileged container gives.
    Chroot,
    /// A machine in QEMU, which needs nothing of the host but its program: it
    /// boots the appliance's own kernel with consign as its only process.
    Vm,
}

impl Driver {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Self; 4] = [Self::Userns, Self::Root, Self::Chroot, Self::Vm];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Userns => "userns",
            Self::Root => "root",
            Self::Chroot => "chroot",
            Self::Vm => "vm",
        }
    }

    /// The driver of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|driver| driver.name() == name)
    }

    /// What it is, in one line.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        match self {
            Self::Userns => "user and mount namespaces, with subordinate ids or as root",
            Self::Root => "mount and other namespaces as root",
            Self::Chroot => "plain chroot as root, without mounts",
            Self::Vm => "a machine in QEMU, with the appliance's kernel",
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether programs in the sandbox may reach the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Network {
    /// A loopback device and nothing else.
    #[default]
    Off,
    /// The host's network, and its `resolv.conf` while a program runs.
    On,
}

/// What the process that runs programs is told before anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walls {
    pub(super) driver: Driver,
    pub(super) network: Network,
}

impl Walls {
    /// As arguments of a process.
    pub(super) fn arguments(self) -> [&'static str; 2] {
        let network = match self.network {
            Network::Off => "offline",
            Network::On => "online",
        };
        [self.driver.name(), network]
    }

    /// Out of the arguments of this process, behind the one that names it.
    pub(super) fn of_this_process() -> Option<Self> {
        let mut arguments = std::env::args().skip(2);
        let driver = Driver::parse(&arguments.next()?)?;
        let network = match arguments.next()?.as_str() {
            "offline" => Network::Off,
            "online" => Network::On,
            _ => return None,
        };
        Some(Self { driver, network })
    }
}
