//! Where decisions end: from a descriptor and wishes to one guest, whose
//! files, devices and names are all decided. Nothing is written here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::descriptor::{self, Boot, BootKind, Checksum, Descriptor, DiskFormat, Paths, Usage};
use super::error::ImportError;
use super::master::{Folder, Master, read_bounded};
use super::wishes::{
    Board, Bus, CloneKind, Config, Graphics, Memory, Network, NicWish, NicWishes, Recipe, Virt,
    Wishes,
};
use crate::descriptor::Firmware;
use crate::digest::Digest;
use crate::machine::firmware;
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

    fn has(self, firmware: Firmware) -> bool {
        match firmware {
            Firmware::Bios => self.bios,
            Firmware::Uefi => self.uefi,
            Firmware::UefiSecure => self.secure,
        }
    }

    fn names(self) -> String {
        match (self.bios, self.uefi || self.secure) {
            (true, true) => "BIOS and UEFI without Secure Boot".into(),
            (true, false) => "BIOS".into(),
            (false, true) => "UEFI".into(),
            (false, false) => "no firmware that is known".into(),
        }
    }
}

/// Reads the descriptor and decides.
///
/// # Errors
///
/// [`ImportError`] for a descriptor that is wrong, and for wishes that it, or
/// the host's firmware, cannot fulfil.
pub fn plan(path: &Path, wishes: Wishes, host: HostFirmware) -> Result<Plan, ImportError> {
    let (described, digest) = described(path, wishes.paths)?;
    let folder = Folder::of(path, wishes.paths)?;
    let absolute = folder.path().join(path.file_name().unwrap_or_default());
    let planner = Planner {
        described,
        wishes,
        folder,
        remarks: Vec::new(),
    };
    planner.plan(absolute, digest, host)
}

/// The descriptor at `path`, with its digest.
pub(super) fn described(path: &Path, paths: Paths) -> Result<(Descriptor, Digest), ImportError> {
    let read = |source| ImportError::Read {
        path: path.to_owned(),
        source,
    };
    let bytes = read_bounded(path, super::xml::MAX_BYTES).map_err(read)?;
    let described =
        descriptor::read(&bytes, paths).map_err(|findings| ImportError::Descriptor {
            path: path.to_owned(),
            findings,
        })?;
    Ok((described, Digest::of(&bytes)))
}

struct Planner {
    described: Descriptor,
    wishes: Wishes,
    folder: Folder,
    remarks: Vec<String>,
}

impl Planner {
    fn plan(
        mut self,
        descriptor: PathBuf,
        digest: Digest,
        host: HostFirmware,
    ) -> Result<Plan, ImportError> {
        let name = self.name()?;
        let memory = self.memory()?;
        let (index, boot) = self.boot()?;
        let (board, bus) = self.board_and_bus(boot.kind)?;
        let firmware = self.firmware(&boot, host)?;
        let folder = self.wishes.storage.join(&name);
        let disks = self.disks(&boot, board, bus, &folder)?;
        let nics = self.nics(board, bus);
        let kernel = self.kernel(&boot, &folder)?;
        Ok(Plan {
            descriptor,
            digest,
            version: self.described.version.clone(),
            name,
            folder,
            boot: index,
            kind: boot.kind,
            features: self.features(&boot),
            arch: boot.arch,
            uuid: self.wishes.uuid.clone(),
            memory,
            vcpus: self.wishes.vcpus.unwrap_or(self.described.vcpus),
            cpuset: self.wishes.cpuset.clone(),
            cpu: self.wishes.cpu.clone(),
            board,
            bus,
            firmware,
            virt: self.wishes.virt,
            disks,
            nics,
            graphics: self.graphics(),
            kernel,
            from_cdrom: boot.from_cdrom,
            is_pygrub: boot.is_pygrub,
            os: self.os().map(str::to_owned),
            autostart: self.wishes.autostart,
            is_modern: self.described.advice.is_there,
            is_pinned: false,
            remarks: self.remarks,
        })
    }

    fn name(&self) -> Result<String, ImportError> {
        let name = self.wishes.name.as_ref();
        let name = name.or(self.described.name.as_ref());
        let name = name.ok_or(ImportError::NoName)?.clone();
        if descriptor::is_guest_name(&name) {
            Ok(name)
        } else {
            Err(ImportError::Name { name })
        }
    }

    fn memory(&self) -> Result<Memory, ImportError> {
        if let Some(memory) = self.wishes.memory {
            return Ok(memory);
        }
        let now = self.described.memory.ok_or(ImportError::NoMemory)?;
        Ok(Memory { now, most: now })
    }

    /// The boot descriptor: the wished one, else the first for a machine that
    /// QEMU on this host makes.
    fn boot(&self) -> Result<(usize, Boot), ImportError> {
        let boots = &self.described.boots;
        if let Some(index) = self.wishes.boot {
            let boot = boots.get(index).cloned();
            let count = boots.len();
            return boot
                .map(|boot| (index, boot))
                .ok_or(ImportError::NoSuchBoot { index, count });
        }
        let fits = |boot: &Boot| {
            let known = |feature: &str| matches!(feature, "acpi" | "apic" | "pae");
            boot.kind == BootKind::Hvm
                && matches!(boot.arch.as_str(), "x86_64" | "i686")
                && boot.features.iter().all(|(name, _)| known(name))
        };
        let first = boots.iter().position(fits);
        match first.and_then(|index| Some((index, boots.get(index)?.clone()))) {
            Some(found) => Ok(found),
            None => Err(ImportError::NoBoot {
                kinds: boots.iter().map(kind_name).collect(),
            }),
        }
    }

    fn features(&self, boot: &Boot) -> Vec<String> {
        let usual: &[&str] = match boot.kind {
            BootKind::Hvm => &["acpi", "apic", "pae"],
            BootKind::Xen => &[],
        };
        let mut features: Vec<String> = usual.iter().map(|&name| name.to_owned()).collect();
        for (name, is_on) in &boot.features {
            features.retain(|feature| feature != name);
            if *is_on && matches!(name.as_str(), "acpi" | "apic" | "pae") {
                features.push(name.clone());
            }
        }
        features.retain(|feature| !self.wishes.without.contains(&feature.as_str()));
        features.sort();
        features
    }

    fn os(&self) -> Option<&str> {
        let advised = self.described.advice.os.as_deref();
        self.wishes.os.as_deref().or(advised)
    }

    fn board_and_bus(&mut self, kind: BootKind) -> Result<(Board, Bus), ImportError> {
        if kind == BootKind::Xen {
            return Ok((Board::Pc, Bus::Xen));
        }
        let advice = &self.described.advice;
        let advised_bus = match advice.bus.as_deref() {
            Some("virtio") => Some(Bus::Virtio),
            Some("scsi") => Some(Bus::Scsi),
            Some("sata") => Some(Bus::Sata),
            Some("ide") => Some(Bus::Ide),
            _ => None,
        };
        let is_linux = self.wishes.os.as_deref().is_some_and(knows_virtio);
        let advised_board = match advice.chipset.as_deref() {
            Some("q35") => Some(Board::Q35),
            Some("pc") => Some(Board::Pc),
            _ => is_linux.then_some(Board::Q35),
        };
        let bus = self.wishes.bus.or(advised_bus);
        let board = match (self.wishes.board, bus) {
            (Some(board), _) => board,
            (None, Some(Bus::Ide)) => Board::Pc,
            (None, _) => advised_board.unwrap_or(Board::Pc),
        };
        let bus = bus.unwrap_or(match board {
            _ if is_linux => Bus::Virtio,
            Board::Q35 => Bus::Sata,
            Board::Pc => Bus::Ide,
        });
        if (board, bus) == (Board::Q35, Bus::Ide) {
            return Err(ImportError::NoBus {
                board: board.name(),
                bus: bus.name(),
            });
        }
        Ok((board, bus))
    }

    fn firmware(&self, boot: &Boot, host: HostFirmware) -> Result<Firmware, ImportError> {
        if boot.kind == BootKind::Xen {
            return Ok(Firmware::Bios);
        }
        let advised = self.described.advice.firmware.as_slice();
        let wanted: Vec<Firmware> = match self.wishes.firmware {
            Some(firmware) => vec![firmware],
            None if advised.is_empty() => vec![Firmware::Bios],
            None => advised.to_vec(),
        };
        let found = wanted.iter().find(|firmware| host.has(**firmware));
        found.copied().ok_or_else(|| ImportError::NoFirmware {
            wanted: wanted
                .iter()
                .map(|firmware| match firmware {
                    Firmware::Bios => "BIOS",
                    Firmware::Uefi => "UEFI",
                    Firmware::UefiSecure => "UEFI with Secure Boot",
                })
                .collect::<Vec<_>>()
                .join(" or "),
            found: host.names(),
        })
    }

    fn disks(
        &mut self,
        boot: &Boot,
        board: Board,
        bus: Bus,
        folder: &Path,
    ) -> Result<Vec<PlannedDisk>, ImportError> {
        self.check_sizes()?;
        let mut drives: Vec<(usize, Option<String>)> = Vec::new();
        for (index, target) in &boot.drives {
            if !drives.iter().any(|(other, _)| other == index) {
                drives.push((*index, target.clone()));
            }
        }
        if self.wishes.config != Config::Descriptor {
            drives.retain(|(index, _)| !self.is_config(*index));
        }
        let mut names = BTreeSet::new();
        let mut disks = Vec::new();
        let mut wished_targets = Vec::new();
        for (index, target) in drives {
            let Some(disk) = self.described.disks.get(index).cloned() else {
                continue;
            };
            let is_cd = disk.format == DiskFormat::Iso;
            disks.push(self.disk(disk, is_cd, folder, &mut names)?);
            wished_targets.push(target);
        }
        if let Some(disk) = self.config_disk(folder, &mut names)? {
            disks.push(disk);
            wished_targets.push(None);
        }
        name_devices(&mut disks, &wished_targets, board, bus)?;
        Ok(disks)
    }

    fn is_config(&self, index: usize) -> bool {
        let disk = self.described.disks.get(index);
        disk.is_some_and(|disk| disk.id == CONFIG && disk.usage == Usage::User)
    }

    fn check_sizes(&self) -> Result<(), ImportError> {
        let known = || self.described.disks.iter().map(|disk| disk.id.clone());
        match self
            .wishes
            .sizes
            .keys()
            .find(|id| !known().any(|other| other == **id))
        {
            Some(id) => Err(ImportError::NoSuchDisk {
                id: id.clone(),
                known: known().collect(),
            }),
            None => Ok(()),
        }
    }

    fn disk(
        &mut self,
        disk: descriptor::Disk,
        is_cd: bool,
        folder: &Path,
        names: &mut BTreeSet<String>,
    ) -> Result<PlannedDisk, ImportError> {
        let wished = self.wishes.sizes.get(&disk.id).copied();
        let master = self.folder.file(&disk.id, &disk.file)?;
        let Some(master) = master else {
            let size = wished.or(disk.size);
            return match size {
                Some(size) if disk.usage != Usage::System && !is_cd => Ok(PlannedDisk {
                    path: folder.join(file_name(&disk.id, "raw", names)),
                    id: disk.id,
                    usage: disk.usage,
                    target: String::new(),
                    bus: Bus::Virtio,
                    is_cd: false,
                    format: "raw",
                    size,
                    grows: false,
                    is_asked: false,
                    recipe: None,
                    make: Make::Blank,
                }),
                _ => Err(ImportError::NoFile {
                    path: self.folder.path().join(&disk.file),
                    id: disk.id,
                }),
            };
        };
        if master.is_in_use() {
            return Err(ImportError::InUse {
                id: disk.id,
                path: master.path,
            });
        }
        let inside = master.disk(disk.format)?;
        let size = wished.unwrap_or(inside.size);
        if size < inside.size {
            return Err(ImportError::Shrink {
                id: disk.id,
                size: inside.size,
                wanted: size,
            });
        }
        self.remark_on(&disk, &master);
        if self.wishes.clone == CloneKind::Overlay && disk.usage == Usage::System && !is_cd {
            self.remarks.push(format!(
                "disk `{}` lies on `{}`, which must stay as it is; `virt-image start` and the \
                 guest's start.sh look at that, `virsh start` and autostart cannot",
                disk.id,
                master.path.display()
            ));
        }
        let checksum = disk.checksum.clone();
        let is_system = disk.usage == Usage::System && !is_cd;
        let (make, format) = match (self.wishes.clone, disk.format) {
            (CloneKind::Overlay, format) if is_system => (
                Make::Overlay {
                    master,
                    checksum,
                    format,
                },
                "qcow2",
            ),
            // QEMU writes neither of them in place.
            (_, format @ DiskFormat::Vmdk) => (
                Make::Convert {
                    master,
                    checksum,
                    format,
                },
                "raw",
            ),
            (clone, format) => (
                Make::Copy {
                    master,
                    checksum,
                    reflink: clone == CloneKind::Reflink,
                },
                if format == DiskFormat::Iso {
                    "raw"
                } else {
                    format.name()
                },
            ),
        };
        let extension = if is_cd { "iso" } else { format };
        Ok(PlannedDisk {
            path: folder.join(file_name(&disk.id, extension, names)),
            id: disk.id,
            usage: disk.usage,
            target: String::new(),
            bus: Bus::Virtio,
            is_cd,
            format,
            size,
            grows: size > inside.size,
            is_asked: false,
            recipe: None,
            make,
        })
    }

    fn remark_on(&mut self, disk: &descriptor::Disk, master: &Master) {
        if disk.usage == Usage::System && disk.checksum.is_none() {
            self.remarks.push(format!(
                "disk `{}` has no checksum: damage would go unnoticed",
                disk.id
            ));
        }
        if let Some(Checksum::Sha1(_)) = disk.checksum {
            self.remarks.push(format!(
                "disk `{}` has a sha1 checksum, which tells accidents only",
                disk.id
            ));
        }
        if disk.format == DiskFormat::Raw && master.begins_like_qcow2() {
            self.remarks.push(format!(
                "disk `{}` is imported as raw, as the descriptor says, but looks like qcow2",
                disk.id
            ));
        }
    }

    fn config_disk(
        &self,
        folder: &Path,
        names: &mut BTreeSet<String>,
    ) -> Result<Option<PlannedDisk>, ImportError> {
        let (path, is_cd) = match &self.wishes.config {
            Config::Descriptor | Config::None => return Ok(None),
            Config::Volume(path) | Config::Made { volume: path, .. } => (path, false),
            Config::Cd(path) => (path, true),
        };
        let recipe = match &self.wishes.config {
            Config::Made { recipe, .. } => Some(recipe.clone()),
            _ => None,
        };
        let master = Master::open(CONFIG, path)?;
        let extension = if is_cd { "iso" } else { "raw" };
        Ok(Some(PlannedDisk {
            id: CONFIG.into(),
            usage: Usage::User,
            target: String::new(),
            bus: Bus::Virtio,
            is_cd,
            path: folder.join(file_name(CONFIG, extension, names)),
            format: "raw",
            size: master.size,
            grows: false,
            is_asked: true,
            recipe,
            make: Make::Copy {
                master,
                checksum: None,
                reflink: false,
            },
        }))
    }

    fn nics(&self, board: Board, bus: Bus) -> Vec<Nic> {
        let usual = match (bus, board) {
            (Bus::Virtio | Bus::Scsi, _) => "virtio",
            (_, Board::Q35) => "e1000e",
            (_, Board::Pc) => "rtl8139",
        };
        let model = self.described.advice.nic.as_deref().unwrap_or(usual);
        let wishes: &[NicWish] = match &self.wishes.nics {
            NicWishes::None => return Vec::new(),
            NicWishes::Descriptor => &[],
            NicWishes::First(wishes) => wishes,
        };
        let count = wishes.len().max(self.described.nics);
        let nics = (0..count).map(|index| {
            let wish = wishes.get(index);
            let network = wish.and_then(|wish| wish.network.clone());
            let network = network.unwrap_or_else(|| self.wishes.default_network.clone());
            let network = match &network {
                Network::Named(name) => self.wishes.network_map.get(name).cloned(),
                _ => None,
            }
            .unwrap_or(network);
            Nic {
                network,
                model: wish
                    .and_then(|wish| wish.model.clone())
                    .unwrap_or_else(|| model.to_owned()),
                mac: wish.and_then(|wish| wish.mac.clone()),
            }
        });
        nics.collect()
    }

    fn graphics(&self) -> Graphics {
        let advised = if self.described.has_screen {
            Graphics::Vnc {
                port: None,
                listen: None,
                keymap: None,
            }
        } else {
            Graphics::None
        };
        self.wishes.graphics.clone().unwrap_or(advised)
    }

    fn kernel(&self, boot: &Boot, folder: &Path) -> Result<Option<PlannedKernel>, ImportError> {
        let Some(kernel) = &boot.kernel else {
            return Ok(None);
        };
        let open = |id: &str, name: &str| {
            self.folder
                .file(id, name)?
                .ok_or_else(|| ImportError::NoFile {
                    id: id.to_owned(),
                    path: self.folder.path().join(name),
                })
        };
        let initrd = boot.initrd.as_ref();
        let initrd = initrd.map(|name| open("initrd", name)).transpose()?;
        Ok(Some(PlannedKernel {
            kernel: (open("kernel", kernel)?, folder.join("kernel")),
            initrd: initrd.map(|initrd| (initrd, folder.join("initrd"))),
            cmdline: boot.cmdline.clone().unwrap_or_default(),
        }))
    }
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

fn kind_name(boot: &Boot) -> String {
    format!("{} on {}", boot.kind.name(), boot.arch)
}

/// Systems whose kernels have had virtio for ten years.
fn knows_virtio(os: &str) -> bool {
    const FAMILIES: [&str; 12] = [
        "debian", "ubuntu", "fedora", "rhel", "centos", "rocky", "alma", "opensuse", "sle", "arch",
        "alpine", "linux",
    ];
    FAMILIES.iter().any(|family| os.starts_with(family))
}

/// A file name made of a disk's name, used by no other disk.
fn file_name(id: &str, extension: &str, names: &mut BTreeSet<String>) -> String {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let mut stem: String = id
        .chars()
        .map(|c| if is_safe(c) { c } else { '_' })
        .take(100)
        .collect();
    if let Some(short) = stem.strip_suffix(&format!(".{extension}")) {
        stem = short.to_owned();
    }
    let stem = stem.trim_start_matches('.');
    let mut name = format!("{stem}.{extension}");
    let mut count = 1;
    while stem.is_empty() || !names.insert(name.clone()) {
        count += 1;
        name = format!("{stem}-{count}.{extension}");
        if stem.is_empty() && names.insert(name.clone()) {
            break;
        }
    }
    name
}

/// Gives each disk a bus and a device name: a wished name where it is one of
/// that bus, else the first that is free.
fn name_devices(
    disks: &mut [PlannedDisk],
    wished: &[Option<String>],
    board: Board,
    bus: Bus,
) -> Result<(), ImportError> {
    for disk in disks.iter_mut() {
        disk.bus = match (disk.is_cd, bus, board) {
            (true, Bus::Virtio, Board::Q35) => Bus::Sata,
            (true, Bus::Virtio, Board::Pc) => Bus::Ide,
            (_, bus, _) => bus,
        };
    }
    let mut taken = BTreeSet::new();
    for (disk, wish) in disks.iter_mut().zip(wished) {
        let rest = wish
            .as_deref()
            .and_then(|wish| wish.strip_prefix(disk.bus.prefix()));
        let is_letter = |rest: &str| matches!(rest.as_bytes(), [b'a'..=b'x']);
        if let (Some(wish), Some(rest)) = (wish, rest)
            && is_letter(rest)
            && taken.insert(wish.clone())
        {
            disk.target.clone_from(wish);
        }
    }
    for disk in disks.iter_mut().filter(|disk| disk.target.is_empty()) {
        let mut free = (b'a'..=b'x')
            .map(|letter| format!("{}{}", disk.bus.prefix(), char::from(letter)))
            .filter(|name| !taken.contains(name));
        disk.target = free.next().unwrap_or_default();
        taken.insert(disk.target.clone());
    }
    for bus in [Bus::Ide, Bus::Sata, Bus::Virtio, Bus::Scsi, Bus::Xen] {
        let count = disks.iter().filter(|disk| disk.bus == bus).count();
        let last = |disk: &PlannedDisk| {
            let letter = disk.target.bytes().next_back().unwrap_or(b'a');
            usize::from(letter.saturating_sub(b'a')) + 1
        };
        let highest = disks.iter().filter(|disk| disk.bus == bus).map(last).max();
        let count = count.max(highest.unwrap_or(0));
        if count > bus.most() {
            return Err(ImportError::BusFull {
                bus: bus.name(),
                count,
                most: bus.most(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(id: &str, is_cd: bool) -> PlannedDisk {
        PlannedDisk {
            id: id.into(),
            usage: Usage::User,
            target: String::new(),
            bus: Bus::Virtio,
            is_cd,
            path: id.into(),
            format: "raw",
            size: ByteSize::from_mib(1),
            grows: false,
            is_asked: false,
            recipe: None,
            make: Make::Blank,
        }
    }

    fn targets(count: usize, wished: &[Option<&str>], board: Board, bus: Bus) -> Vec<String> {
        let mut disks: Vec<_> = (0..count).map(|n| disk(&n.to_string(), n == 2)).collect();
        let mut wished: Vec<_> = wished.iter().map(|wish| wish.map(str::to_owned)).collect();
        wished.resize(count, None);
        name_devices(&mut disks, &wished, board, bus).expect("room");
        disks.into_iter().map(|disk| disk.target).collect()
    }

    #[test]
    fn wished_device_names_count_where_they_fit_the_bus() {
        let wished = [Some("hda"), Some("hdd"), None];
        assert_eq!(
            targets(3, &wished, Board::Pc, Bus::Ide),
            ["hda", "hdd", "hdb"]
        );
        assert_eq!(
            targets(3, &wished, Board::Q35, Bus::Virtio),
            ["vda", "vdb", "sda"]
        );
        assert_eq!(
            targets(3, &wished, Board::Pc, Bus::Virtio),
            ["vda", "vdb", "hda"]
        );
        let twice = [Some("hdb"), Some("hdb")];
        assert_eq!(targets(2, &twice, Board::Pc, Bus::Ide), ["hdb", "hda"]);
    }

    #[test]
    fn five_disks_are_too_many_for_ide() {
        let mut disks: Vec<_> = (0..5).map(|n| disk(&n.to_string(), false)).collect();
        let wished = vec![None; 5];
        let error = name_devices(&mut disks, &wished, Board::Pc, Bus::Ide).expect_err("full");
        assert_eq!(error.to_string(), "5 disks on ide, which takes 4");
    }

    #[test]
    fn file_names_are_safe_and_differ() {
        let mut names = BTreeSet::new();
        let mut name = |id| file_name(id, "raw", &mut names);
        assert_eq!(name("a.raw"), "a.raw");
        assert_eq!(name("a"), "a-2.raw");
        assert_eq!(name("../../x y"), "_.._x_y.raw");
        assert_eq!(name(".raw"), "-2.raw");
    }
}
