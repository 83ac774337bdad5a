//! The plan itself: every decision, made once.

use std::io::Read as _;
use std::path::Path;

use consign_schema::SCHEMA;

use super::drift::drift;
use super::error::PlanError;
use super::identity::Identity;
use super::layer;
use super::lock::Lock;
use super::partition::{self, Partitioned};
use crate::appliance::{
    Appliance, Architecture, Firmware, ImageKind, MachineFacts, Qcow2Compression,
};
use crate::boot::{self, BootSpec};
use crate::descriptor::ovf::ManifestSum;
use crate::descriptor::{self, ConfigDisk, Display, Machine, Property};
use crate::digest::Digest;
use crate::disk::DiskSpec;
use crate::fs::ext4::Ext4Options;
use crate::fs::fat::FatOptions;
use crate::image::{Compression, FileSum, ImageFormat, ImageSpec, ZstdLevel};
use crate::layer::spec::{LayerSpec, PackagePin, Recipe};
use crate::units::{ByteSize, Timestamp};

/// Consoles that the kernel logs to, by its own names.
const CONSOLES: [&str; 3] = ["tty0", "hvc0", "ttyS0"];
/// Name of the volume that the agent looks for.
const CONFIG_LABEL: &str = "VACONFIG";
/// Room for a site configuration, certificates and a small payload.
const CONFIG_SIZE: ByteSize = ByteSize::from_mib(16);
/// Bytes of a licence at most.
const LONGEST_EULA: u64 = 256 << 10;
/// Digits of the plan's digest that name a build inside the image.
const BUILD_ID: usize = 16;

/// What makes the image besides the appliance and its lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builder {
    /// Version of consign.
    pub version: String,
    /// Digest of the first-boot agent.
    pub agent: Digest,
}

/// Everything that determines the outputs, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildPlan {
    /// The appliance's name, which begins every output's.
    pub name: String,
    /// The appliance's version.
    pub version: String,
    /// What makes the image.
    pub builder: Builder,
    /// No time in the image is later.
    pub source_date: Timestamp,
    /// The layers, lowest first.
    pub layers: Vec<LayerSpec>,
    /// The layer that brings the boot loaders; not part of the tree.
    pub tools: LayerSpec,
    /// What the boot room is told.
    pub boot: BootSpec,
    /// The EFI system partition's volume.
    pub esp: FatOptions,
    /// The root's volume.
    pub root: Ext4Options,
    /// The volume of `/var`, where it is a partition of its own.
    pub var: Option<Ext4Options>,
    /// The disk and its partitions; the boot room's code is not in it yet.
    pub disk: DiskSpec,
    /// What is in each partition, in the order of the disk's.
    pub contents: Vec<Contents>,
    /// The disk images.
    pub images: Vec<ImageSpec>,
    /// What descriptors say.
    pub machine: Machine,
    /// How packages of machine and disk are made.
    pub package: PackageSpec,
    /// Which packages, from where.
    pub lock: Lock,
}

/// How an OVA is made, besides what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackageSpec {
    /// How its manifest sums.
    pub sum: ManifestSum,
    /// The certificate of the key that signs it, as PEM.
    pub certificate: Option<Vec<u8>>,
}

/// What a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contents {
    /// GRUB's core image.
    CoreImage,
    /// The EFI system partition.
    Esp,
    /// The root that ships.
    Root,
    /// Nothing, until the first update.
    Nothing,
    /// `/var`.
    Var,
}

/// What the command line wishes besides `appliance.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// These formats instead of the appliance's; empty for the appliance's.
    pub formats: Vec<ImageFormat>,
    /// The digest of raw images too, which takes a reading of every zero.
    pub raw_sums: bool,
    /// What the vendor's policy lets a hypervisor ask for.
    pub properties: Vec<Property>,
    /// How packages are made.
    pub package: PackageSpec,
}

impl BuildPlan {
    /// Decides everything. Reads what layers take from this host, to know its digest.
    ///
    /// # Errors
    ///
    /// [`PlanError::Drift`] when the lock answers another request, and those
    /// of reading and judging those files.
    pub fn resolve(
        appliance: &Appliance,
        lock: &Lock,
        builder: &Builder,
        wishes: &Wishes,
    ) -> Result<Self, PlanError> {
        let drift = drift(appliance, lock)?;
        if !drift.is_empty() {
            return Err(PlanError::Drift { drift });
        }
        let source_date = appliance
            .source_date
            .or(lock.newest_release())
            .ok_or(PlanError::NoSourceDate)?;
        let identity = Identity::new(&appliance.name, &appliance.version, &lock.digest());
        let layers = appliance
            .layers
            .iter()
            .map(|recipe| layer::decide(recipe, appliance, lock))
            .collect::<Result<_, _>>()?;
        let Partitioned {
            disk,
            contents,
            slots,
            esp,
            root,
            var,
        } = partition::lay_out(&appliance.disk, &identity, source_date)?;
        let images = images(appliance, wishes);
        check_sizes(&images, disk.size)?;
        let mut plan = Self {
            name: appliance.name.to_string(),
            version: appliance.version.to_string(),
            builder: builder.clone(),
            source_date,
            layers,
            tools: boot::tools_recipe(lock.tools.clone()),
            boot: BootSpec {
                name: appliance.name.to_string(),
                version: appliance.version.to_string(),
                build_id: String::new(),
                slots,
                kernel_parameters: appliance.boot.cmdline.clone(),
                source_date,
            },
            esp,
            root,
            var,
            disk,
            contents,
            images,
            machine: Self::machine(appliance, &wishes.properties)?,
            package: wishes.package.clone(),
            lock: lock.clone(),
        };
        let digest = plan.digest();
        plan.boot.build_id = digest.hex().chars().take(BUILD_ID).collect();
        plan.machine.build = digest;
        Ok(plan)
    }

    /// Whether every output that `appliance.toml` names can hold its disk.
    ///
    /// # Errors
    ///
    /// [`PlanError::Format`], and [`PlanError::DiskTooLarge`].
    pub fn check_outputs(appliance: &Appliance) -> Result<(), PlanError> {
        let least = appliance.disk.least().ok_or(PlanError::DiskTooLarge)?;
        let size = appliance.disk.size.unwrap_or(least);
        check_sizes(&images(appliance, &Wishes::default()), size)
    }

    /// The formats that `appliance.toml` names.
    #[must_use]
    pub fn formats(appliance: &Appliance) -> Vec<ImageFormat> {
        formats(appliance)
    }

    /// What descriptors say of the machine, before anything is built.
    ///
    /// # Errors
    ///
    /// [`PlanError::ReadFolder`] and [`PlanError::Eula`] for the licence.
    pub fn machine(appliance: &Appliance, properties: &[Property]) -> Result<Machine, PlanError> {
        let eula = appliance.eula.as_deref().map(read_eula).transpose()?;
        Ok(Machine {
            eula,
            properties: properties.to_vec(),
            ..machine(appliance)
        })
    }

    /// The packages of a layer, dependencies first; empty for files.
    #[must_use]
    pub fn pins(layer: &LayerSpec) -> &[PackagePin] {
        match &layer.recipe {
            Recipe::Packages(recipe) => &recipe.pins,
            Recipe::Tools(recipe) => &recipe.pins,
            _ => &[],
        }
    }
}

/// Before a layer is made: the writers would say the same, in the end.
fn check_sizes(images: &[ImageSpec], size: ByteSize) -> Result<(), PlanError> {
    images.iter().try_for_each(|image| {
        image.check_size(size).map_err(|source| PlanError::Format {
            source: Box::new(source),
        })
    })
}

/// The formats that `appliance.toml` names, as it names them.
fn formats(appliance: &Appliance) -> Vec<ImageFormat> {
    let written = appliance.outputs.formats.iter().map(|kind| match kind {
        ImageKind::Raw => ImageFormat::Raw,
        ImageKind::RawZst => ImageFormat::RawZst,
        ImageKind::Qcow2 => ImageFormat::Qcow2,
        ImageKind::Vmdk => ImageFormat::Vmdk,
        ImageKind::Vhdx => ImageFormat::Vhdx,
        ImageKind::Vhd => ImageFormat::Vhd,
        ImageKind::Ova => ImageFormat::Ova,
    });
    written.collect()
}

/// In the order of the formats' list, without repeats.
fn images(appliance: &Appliance, wishes: &Wishes) -> Vec<ImageSpec> {
    let mut formats: Vec<_> = if wishes.formats.is_empty() {
        formats(appliance)
    } else {
        wishes.formats.clone()
    };
    formats.sort_unstable();
    formats.dedup();
    let level = ZstdLevel::new(appliance.outputs.zstd_level).expect("the appliance was checked");
    let image = |format| {
        let mut spec = ImageSpec::new(appliance.name.as_str(), format);
        if format == ImageFormat::Qcow2 {
            spec.compression = match appliance.outputs.qcow2_compression {
                Qcow2Compression::Deflate => Compression::Deflate,
                Qcow2Compression::Zstd => Compression::Zstd(level),
            };
        } else if format == ImageFormat::RawZst {
            spec.compression = Compression::Zstd(level);
        }
        if wishes.raw_sums {
            spec.sum = FileSum::Compute;
        }
        spec
    };
    formats.into_iter().map(image).collect()
}

fn machine(appliance: &Appliance) -> Machine {
    let MachineFacts {
        memory,
        vcpus,
        nics,
        graphics,
        firmware,
        disks,
    } = &appliance.machine;
    let name = appliance.name.to_string();
    let user_disks = disks.iter().map(|disk| descriptor::UserDisk {
        id: disk.name.to_string(),
        size: disk.size,
    });
    Machine {
        version: appliance.version.to_string(),
        label: appliance.label.clone().unwrap_or_else(|| name.clone()),
        description: appliance.description.clone().unwrap_or_default(),
        memory: *memory,
        vcpus: vcpus.get(),
        nics: *nics,
        display: if *graphics {
            Display::Screen
        } else {
            Display::Headless
        },
        firmware: firmware.iter().map(|one| firmware_of(*one)).collect(),
        user_disks: user_disks.collect(),
        config: ConfigDisk {
            label: CONFIG_LABEL.into(),
            schema: u32::try_from(SCHEMA).expect("a small positive number"),
            size: CONFIG_SIZE,
        },
        consoles: CONSOLES.map(str::to_owned).to_vec(),
        os_id: os_id(appliance).into(),
        vendor: appliance.vendor.clone().unwrap_or_default(),
        eula: None,
        properties: Vec::new(),
        build: Digest::from_bytes([0; 32]),
        name,
    }
}

/// The text of the licence.
fn read_eula(path: &Path) -> Result<String, PlanError> {
    let failed = |source| PlanError::ReadFolder {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut file = file.take(LONGEST_EULA + 1);
    file.read_to_end(&mut bytes).map_err(failed)?;
    let text = String::from_utf8(bytes).ok();
    text.filter(|text| text.len() as u64 <= LONGEST_EULA)
        .map(|text| text.replace("\r\n", "\n"))
        .ok_or_else(|| PlanError::Eula {
            path: path.to_owned(),
        })
}

fn firmware_of(firmware: Firmware) -> descriptor::Firmware {
    match firmware {
        Firmware::Bios => descriptor::Firmware::Bios,
        Firmware::Uefi => descriptor::Firmware::Uefi,
        Firmware::UefiSecure => descriptor::Firmware::UefiSecure,
    }
}

/// libosinfo's short id; a release it may not know yet is some Linux.
fn os_id(appliance: &Appliance) -> &'static str {
    let Architecture::Amd64 = appliance.system.architecture;
    match appliance.system.suite.as_str() {
        "bullseye" => "debian11",
        "bookworm" => "debian12",
        "trixie" => "debian13",
        _ => "linux2022",
    }
}
