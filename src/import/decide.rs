//! Where decisions end: from a descriptor and wishes to one guest. Nothing is
//! written here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::descriptor::{self, Boot, BootKind, Checksum, Descriptor, DiskFormat, Paths, Usage};
use super::devices::{file_name, name_devices};
use super::error::ImportError;
use super::host_firmware::HostFirmware;
use super::master::{Folder, Master, read_bounded};
use super::plan::{CONFIG, Make, Nic, Plan, PlannedDisk, PlannedKernel};
use super::wishes::{
    Board, Bus, CloneKind, Config, Graphics, Memory, Network, NicWish, NicWishes, Wishes,
};
use crate::descriptor::Firmware;
use crate::digest::Digest;

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
