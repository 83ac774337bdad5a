//! A guest, decided: its files, devices and names. Nothing is decided here any
//! more, and nothing written.

use std::path::{Path, PathBuf};

use super::descriptor::{BootKind, Checksum, DiskFormat, Usage};
use super::error::ImportError;
use super::master::Master;
use super::wishes::{Board, Bus, Graphics, Memory, Network, Recipe, Virt};
use crate::descriptor::Firmware;
use crate::digest::Digest;
use crate::release::manifest::Manifest;
use crate::report::Reporter;
use crate::units::ByteSize;

/// The id that a config disk has in descriptors.
pub(super) const CONFIG: &str = "config";

/// A guest, decided.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, each a claim with a name"
)]
pub struct Plan {
    /// The descriptor, absolute.
    pub descriptor: PathBuf,
    /// Digest of the descriptor.
    pub digest: Digest,
    /// The appliance's version.
    pub version: Option<String>,
    /// The guest's name.
    pub name: String,
    /// The folder of its files.
    pub folder: PathBuf,
    /// Index of the boot descriptor that is followed.
    pub boot: usize,
    /// Its kind.
    pub kind: BootKind,
    /// The architecture.
    pub arch: String,
    /// Its UUID, where it was asked for.
    pub uuid: Option<String>,
    /// Memory.
    pub memory: Memory,
    /// Virtual processors.
    pub vcpus: u32,
    /// Host processors for them.
    pub cpuset: Option<String>,
    /// The processor's model, where it was asked for.
    pub cpu: Option<String>,
    /// The board.
    pub board: Board,
    /// The bus of its disks.
    pub bus: Bus,
    /// What starts before the disk.
    pub firmware: Firmware,
    /// What runs it.
    pub virt: Virt,
    /// Its disks, in device order.
    pub disks: Vec<PlannedDisk>,
    /// Its network cards.
    pub nics: Vec<Nic>,
    /// Its screen.
    pub graphics: Graphics,
    /// A kernel beside the disk.
    pub kernel: Option<PlannedKernel>,
    /// Whether it boots from the CD.
    pub from_cdrom: bool,
    /// Whether Xen's `pygrub` finds the kernel.
    pub is_pygrub: bool,
    /// The operating system's id.
    pub os: Option<String>,
    /// Features: `acpi`, `apic`, `pae`.
    pub features: Vec<String>,
    /// Whether the host starts it.
    pub autostart: bool,
    /// Whether the descriptor has advice for a modern host.
    pub is_modern: bool,
    /// Whether every file is held against a signed manifest.
    pub is_pinned: bool,
    /// What is odd, and does not hinder.
    pub remarks: Vec<String>,
}

/// A disk, decided.
#[derive(Debug)]
pub struct PlannedDisk {
    /// Its name in the descriptor.
    pub id: String,
    /// Whose content it is.
    pub usage: Usage,
    /// The device's name: `vda`.
    pub target: String,
    /// Its bus.
    pub bus: Bus,
    /// Whether it is a CD.
    pub is_cd: bool,
    /// The file that is made.
    pub path: PathBuf,
    /// QEMU's name of its format.
    pub format: &'static str,
    /// What the guest sees.
    pub size: ByteSize,
    /// Whether the guest's size is larger than the master's.
    pub grows: bool,
    /// Whether the command line named its content.
    pub is_asked: bool,
    /// How its master was made, when that is gone after the import.
    pub recipe: Option<Recipe>,
    /// How it is made.
    pub make: Make,
}

/// How a disk is made.
#[derive(Debug)]
pub enum Make {
    /// A copy of the file.
    Copy {
        /// The file.
        master: Master,
        /// Its checksum.
        checksum: Option<Checksum>,
        /// Whether it has to share blocks.
        reflink: bool,
    },
    /// The disk inside of the file, as a raw one.
    Convert {
        /// The file.
        master: Master,
        /// Its checksum.
        checksum: Option<Checksum>,
        /// Its format.
        format: DiskFormat,
    },
    /// Changes on top of the file.
    Overlay {
        /// The file.
        master: Master,
        /// Its checksum.
        checksum: Option<Checksum>,
        /// Its format.
        format: DiskFormat,
    },
    /// Zeros.
    Blank,
    /// It is there already.
    Kept,
}

impl PlannedDisk {
    /// The file that it is made of, as the user knows it.
    #[must_use]
    pub fn origin(&self) -> Option<&Path> {
        let master = self.make.master().map(|(master, _)| master.path.as_path());
        let recipe = self.recipe.as_ref();
        recipe.map(|recipe| recipe.site.as_path()).or(master)
    }
}

impl Make {
    /// The file that it is made of, with its checksum.
    #[must_use]
    pub fn master(&self) -> Option<(&Master, Option<&Checksum>)> {
        match self {
            Self::Copy {
                master, checksum, ..
            }
            | Self::Convert {
                master, checksum, ..
            }
            | Self::Overlay {
                master, checksum, ..
            } => Some((master, checksum.as_ref())),
            Self::Blank | Self::Kept => None,
        }
    }

    /// In one word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Copy { reflink: false, .. } => "copy",
            Self::Copy { reflink: true, .. } => "reflink",
            Self::Convert { .. } => "convert",
            Self::Overlay { .. } => "overlay",
            Self::Blank => "blank",
            Self::Kept => "kept",
        }
    }
}

/// A kernel, decided.
#[derive(Debug)]
pub struct PlannedKernel {
    /// The kernel, and the file that is made.
    pub kernel: (Master, PathBuf),
    /// The initial RAM file system, and the file that is made.
    pub initrd: Option<(Master, PathBuf)>,
    /// The command line.
    pub cmdline: String,
}

/// A network card, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Where it goes.
    pub network: Network,
    /// Its model.
    pub model: String,
    /// Its address, where it was asked for.
    pub mac: Option<String>,
}

impl Plan {
    /// Holds the descriptor and every file beside it against a manifest that
    /// was verified: from now on their checksums are the manifest's.
    ///
    /// # Errors
    ///
    /// [`ImportError::NotListed`], [`ImportError::Changed`].
    pub fn pin(&mut self, manifest: &Manifest) -> Result<(), ImportError> {
        let folder = self.descriptor.parent().map(Path::to_owned);
        let line = |path: &Path| {
            let name = path.file_name()?.to_str()?;
            let is_beside = path.parent() == folder.as_deref();
            let file = manifest.files.iter().find(|file| file.name == name);
            file.filter(|_| is_beside).map(|file| file.sha256)
        };
        let listed = |path: &Path| {
            line(path).ok_or_else(|| ImportError::NotListed {
                path: path.to_owned(),
            })
        };
        if listed(&self.descriptor)? != self.digest {
            return Err(ImportError::Changed {
                id: "descriptor".into(),
                path: self.descriptor.clone(),
            });
        }
        for disk in self.disks.iter_mut().filter(|disk| !disk.is_asked) {
            if let Make::Copy {
                master, checksum, ..
            }
            | Make::Convert {
                master, checksum, ..
            }
            | Make::Overlay {
                master, checksum, ..
            } = &mut disk.make
            {
                *checksum = Some(Checksum::Sha256(listed(&master.path)?));
            }
        }
        if let Some(kernel) = &self.kernel {
            for (master, _) in std::iter::once(&kernel.kernel).chain(&kernel.initrd) {
                let digest = listed(&master.path)?;
                master.verify(&Checksum::Sha256(digest), &crate::report::Silent)?;
            }
        }
        self.is_pinned = true;
        Ok(())
    }

    /// Sees that every master of an overlay has a checksum: the guest needs
    /// it for ever as it is now.
    ///
    /// # Errors
    ///
    /// [`ImportError::Read`].
    pub(super) fn digest_overlays(&mut self, reporter: &dyn Reporter) -> Result<(), ImportError> {
        for disk in &mut self.disks {
            if let Make::Overlay {
                master,
                checksum: checksum @ None,
                ..
            } = &mut disk.make
            {
                *checksum = Some(Checksum::Sha256(master.sha256(reporter)?));
            }
        }
        Ok(())
    }

    /// Compares every file that has a checksum with it.
    ///
    /// # Errors
    ///
    /// [`ImportError::Checksum`].
    pub fn verify(&self, reporter: &dyn Reporter) -> Result<(), ImportError> {
        reporter.started("verify");
        for disk in &self.disks {
            if let Some((master, Some(checksum))) = disk.make.master() {
                master.verify(checksum, reporter)?;
            }
        }
        reporter.finished("verify", crate::report::Outcome::Done, "");
        Ok(())
    }
}
