//! Descriptors: what a host must know to run the image.
//!
//! In: a [`Machine`] (facts that the plan decided) and [`DiskFacts`] (what the
//! image writers left behind). Out: `appliance.xml`, libvirt's domain, what an
//! OVA holds beside its disks, and a text on how to import the machine. All
//! are pure functions: the same facts give the same bytes.
//! Never here: choices, clocks, other people's descriptors (that is `import`).
//! Checked by: xmllint, a second reading that ignores every `va:` item, and
//! golden texts (`tests/it/formats/descriptor.rs`).

mod element;
pub mod libvirt;
pub mod ovf;
pub mod text;
pub mod virt_image;

use std::io;
use std::path::{Path, PathBuf};

pub use consign_schema::PropertyKind;

use crate::artifact::{Artifact, ArtifactKind, Draft, write_drafts};
use crate::digest::{ContentRoot, Digest};
use crate::image::ImageFormat;
use crate::units::{ByteSize, ExitClass};

/// The name of the virt-image descriptor in the output folder.
pub const VIRT_IMAGE_FILE: &str = "appliance.xml";

/// Prefix and name of the namespace for what other formats cannot say.
const NAMESPACE: (&str, &str) = ("va", "urn:consign:appliance:1");

/// The name of the text on how to import and start the machine.
pub const IMPORT_FILE: &str = "IMPORT.txt";

/// The file name under which a config disk is looked for beside the descriptor.
pub const CONFIG_DISK_FILE: &str = "site.img";

/// What a host has to know about the machine, besides its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The guest's name: `[A-Za-z0-9][A-Za-z0-9_.-]*`, which every importer
    /// since 2007 accepts.
    pub name: String,
    /// The appliance's version.
    pub version: String,
    /// One line for people.
    pub label: String,
    /// Some lines for people; may be empty.
    pub description: String,
    /// Memory; written in whole MiB, rounded up.
    pub memory: ByteSize,
    /// Virtual processors, at least 1.
    pub vcpus: u32,
    /// Network interfaces; may be 0.
    pub nics: u32,
    /// Whether the guest is given a screen.
    pub display: Display,
    /// Firmwares that the disk boots under, the preferred one first.
    pub firmware: Vec<Firmware>,
    /// Disks that the customer's host makes, in the order of attachment. The
    /// config disk is not among them.
    pub user_disks: Vec<UserDisk>,
    /// The disk with the customer's configuration.
    pub config: ConfigDisk,
    /// Consoles that the guest logs to, by the kernel's names (`ttyS0`).
    pub consoles: Vec<String>,
    /// The guest's operating system by libosinfo's short id (`debian12`).
    pub os_id: String,
    /// Who made it; may be empty.
    pub vendor: String,
    /// The licence that who imports it agrees to.
    pub eula: Option<String>,
    /// What a hypervisor may ask for and the agent understands.
    pub properties: Vec<Property>,
    /// The build plan's digest.
    pub build: Digest,
}

/// A property of the machine's OVF environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// Its name: letters, digits, `_`, `.` and `-`.
    pub name: String,
    /// The key of the site configuration that it becomes.
    pub label: String,
    /// What it means, for people.
    pub description: String,
    /// How its text is read.
    pub kind: PropertyKind,
}

/// Files for hosts that load the kernel themselves, beside the descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Direct {
    /// The kernel's file.
    pub kernel: String,
    /// The initramfs's file.
    pub initrd: String,
    /// The kernel's command line.
    pub command_line: String,
}

/// Whether a guest has a screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Display {
    /// None: serial console only.
    Headless,
    /// One, reached through the host (VNC or SPICE).
    Screen,
}

/// A firmware that the disk boots under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// PC BIOS (`SeaBIOS`).
    Bios,
    /// UEFI without Secure Boot.
    Uefi,
    /// UEFI that enforces Secure Boot with Microsoft's certificates.
    UefiSecure,
}

/// A disk that is made, empty, on the customer's host and outlives upgrades.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserDisk {
    /// Its name within the descriptor; `system` and `config` are taken.
    pub id: String,
    /// Its size; written in whole MiB, rounded up.
    pub size: ByteSize,
}

/// The disk that brings the customer's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigDisk {
    /// The volume label that the agent looks for.
    pub label: String,
    /// The version of the site configuration's schema.
    pub schema: u32,
    /// Its size; written in whole MiB, rounded up.
    pub size: ByteSize,
}

/// One image file of the system disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFacts {
    /// File name without folders.
    pub file: String,
    /// Its format.
    pub format: ImageFormat,
    /// The size that the guest sees.
    pub size: ByteSize,
    /// Digest of the file; `None` for a raw disk unless it was asked for.
    pub digest: Option<Digest>,
    /// The root over the logical content, the same in every format.
    pub content_root: Option<ContentRoot>,
}

impl Firmware {
    /// The word in descriptors and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
            Self::UefiSecure => "uefi-secure",
        }
    }
}

impl Machine {
    /// The name of a disk's file beside the descriptor.
    #[must_use]
    pub fn user_disk_file(&self, disk: &UserDisk) -> String {
        format!("{}-{}.raw", self.name, disk.id)
    }

    /// The firmware that the guest is given where nobody chooses.
    #[must_use]
    pub fn first_firmware(&self) -> Firmware {
        self.firmware.first().copied().unwrap_or(Firmware::Bios)
    }

    /// The name of libvirt's descriptor in the output folder.
    #[must_use]
    pub fn libvirt_file(&self) -> String {
        format!("{}.libvirt.xml", self.name)
    }
}

/// Why a descriptor could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptorError {
    /// A name that some importer refuses.
    #[error("`{}` is no name for a machine or a disk", name.escape_debug())]
    Name {
        /// The name.
        name: String,
    },
    /// Two disks of one name.
    #[error("two disks are called `{id}`")]
    DiskTwice {
        /// The name.
        id: String,
    },
    /// More disks than a controller of an OVA has places.
    #[error("an OVA holds at most {most} disks besides the system's")]
    TooManyDisks {
        /// The most.
        most: usize,
    },
    /// Text that XML 1.0 cannot hold.
    #[error("{field} `{}` has a control character", text.escape_debug())]
    Text {
        /// Which text.
        field: &'static str,
        /// The text.
        text: String,
    },
    /// No image to describe.
    #[error("`{name}` has no disk image to describe")]
    NoDisk {
        /// The machine.
        name: String,
    },
    /// A descriptor could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DescriptorError {
    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Name { .. } => "descriptor-name",
            Self::DiskTwice { .. } => "descriptor-disk-twice",
            Self::TooManyDisks { .. } => "descriptor-disks",
            Self::Text { .. } => "descriptor-text",
            Self::NoDisk { .. } => "descriptor-no-disk",
            Self::Write { .. } => "descriptor-write",
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Name { .. } => Some(
                "begin with a letter or digit, go on with letters, digits, `_`, `.` and `-`".into(),
            ),
            Self::DiskTwice { .. } => {
                Some("rename one; `system` and `config` are always taken".into())
            }
            Self::TooManyDisks { .. } => Some("take `ova` out of the formats".into()),
            Self::Text { .. } => Some("write plain text; line breaks and tabs are fine".into()),
            Self::NoDisk { .. } => Some("ask for at least one format, for example qcow2".into()),
            Self::Write { .. } => None,
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::NoDisk { .. } | Self::Write { .. } => ExitClass::Build,
            _ => ExitClass::Usage,
        }
    }
}

/// Checks what no renderer may assume.
fn check(machine: &Machine) -> Result<(), DescriptorError> {
    let mut ids = vec!["system", "config"];
    check_name(&machine.name)?;
    for disk in &machine.user_disks {
        check_name(&disk.id)?;
        if ids.contains(&disk.id.as_str()) {
            return Err(DescriptorError::DiskTwice {
                id: disk.id.clone(),
            });
        }
        ids.push(&disk.id);
    }
    for (field, text) in [
        ("version", &machine.version),
        ("label", &machine.label),
        ("description", &machine.description),
        ("config label", &machine.config.label),
        ("os id", &machine.os_id),
        ("vendor", &machine.vendor),
    ] {
        check_text(field, text)?;
    }
    for property in &machine.properties {
        check_name(&property.name)?;
        check_text("property", &property.label)?;
        check_text("property", &property.description)?;
    }
    if let Some(eula) = &machine.eula {
        check_text("eula", eula)?;
    }
    for console in &machine.consoles {
        check_text("console", console)?;
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), DescriptorError> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let is_well = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if starts_well && name.chars().all(is_well) {
        Ok(())
    } else {
        Err(DescriptorError::Name {
            name: name.to_owned(),
        })
    }
}

/// Production `Char` of XML 1.0, section 2.2, less the C1 controls.
fn check_text(field: &'static str, text: &str) -> Result<(), DescriptorError> {
    let is_bad = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{fffe}' | '\u{ffff}')
    };
    if text.contains(is_bad) {
        return Err(DescriptorError::Text {
            field,
            text: text.to_owned(),
        });
    }
    Ok(())
}

/// How gladly a descriptor names an image, the lowest first; `None` for
/// formats that descriptors have no word for.
const fn rank(format: ImageFormat) -> Option<u8> {
    match format {
        ImageFormat::Qcow2 => Some(0),
        ImageFormat::Raw => Some(1),
        ImageFormat::Vmdk => Some(2),
        _ => None,
    }
}

/// The image that a descriptor names: qcow2 before raw before VMDK.
fn preferred<'a>(
    machine: &Machine,
    disks: &'a [DiskFacts],
) -> Result<&'a DiskFacts, DescriptorError> {
    disks
        .iter()
        .filter(|disk| rank(disk.format).is_some())
        .min_by_key(|disk| rank(disk.format))
        .ok_or_else(|| DescriptorError::NoDisk {
            name: machine.name.clone(),
        })
}

/// The names of the files of [`drafts`] for images of these formats, in their
/// order.
#[must_use]
pub fn file_names(machine: &Machine, formats: &[ImageFormat]) -> Vec<String> {
    let mut names = Vec::new();
    if formats.iter().any(|format| rank(*format).is_some()) {
        names.extend([VIRT_IMAGE_FILE.to_owned(), machine.libvirt_file()]);
    }
    names.push(IMPORT_FILE.to_owned());
    names
}

/// `appliance.xml`, `NAME.libvirt.xml` and `IMPORT.txt` for `folder`; the text
/// alone where no image has a format that descriptors have a word for.
///
/// # Errors
///
/// Any [`DescriptorError`] but [`DescriptorError::Write`].
pub fn drafts(
    machine: &Machine,
    disks: &[DiskFacts],
    direct: Option<&Direct>,
    folder: &Path,
) -> Result<Vec<Draft>, DescriptorError> {
    let draft = |name: &str, kind, text: String| Draft {
        path: folder.join(name),
        kind,
        bytes: text.into_bytes(),
    };
    let mut drafts = Vec::new();
    if disks.iter().any(|disk| rank(disk.format).is_some()) {
        let xml = virt_image::render(machine, disks, direct)?;
        let domain = libvirt::render_template(machine, disks)?;
        drafts.push(draft(VIRT_IMAGE_FILE, ArtifactKind::Descriptor, xml));
        drafts.push(draft(
            &machine.libvirt_file(),
            ArtifactKind::Descriptor,
            domain,
        ));
    }
    let text = text::render(machine, disks)?;
    drafts.push(draft(IMPORT_FILE, ArtifactKind::Text, text));
    Ok(drafts)
}

/// Writes the files of [`drafts`] into `folder`.
///
/// # Errors
///
/// Any [`DescriptorError`]; nothing is written unless all can be rendered.
pub fn write_all(
    machine: &Machine,
    disks: &[DiskFacts],
    direct: Option<&Direct>,
    folder: &Path,
) -> Result<Vec<Artifact>, DescriptorError> {
    let drafts = drafts(machine, disks, direct, folder)?;
    write_drafts(&drafts).map_err(|(path, source)| DescriptorError::Write { path, source })?;
    Ok(drafts.iter().map(Draft::artifact).collect())
}

#[cfg(test)]
pub(crate) mod sample {
    //! Facts to render in tests.

    use super::*;

    pub(crate) fn machine() -> Machine {
        Machine {
            name: "wiki".into(),
            version: "1.2.0".into(),
            label: "Wiki & notes".into(),
            description: "Pages <for> a team.".into(),
            memory: ByteSize::from_mib(1024),
            vcpus: 2,
            nics: 1,
            display: Display::Screen,
            firmware: vec![Firmware::UefiSecure, Firmware::Uefi, Firmware::Bios],
            user_disks: vec![UserDisk {
                id: "data".into(),
                size: ByteSize::from_mib(8192),
            }],
            config: ConfigDisk {
                label: "VACONFIG".into(),
                schema: 1,
                size: ByteSize::from_mib(16),
            },
            consoles: vec!["tty0".into(), "hvc0".into(), "ttyS0".into()],
            os_id: "debian12".into(),
            vendor: String::new(),
            eula: None,
            properties: vec![],
            build: Digest::of(b"plan"),
        }
    }

    pub(crate) fn disks() -> Vec<DiskFacts> {
        let facts = |file: &str, format, digest| DiskFacts {
            file: file.into(),
            format,
            size: ByteSize::from_mib(4096),
            digest,
            content_root: None,
        };
        vec![
            facts("wiki.raw", ImageFormat::Raw, None),
            facts("wiki.qcow2", ImageFormat::Qcow2, Some(Digest::of(b"image"))),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_importers_refuse_is_refused() {
        for name in ["", " wiki", "wiki\n", "-wiki", "a/b", "wörter"] {
            let machine = Machine {
                name: name.into(),
                ..sample::machine()
            };
            let error = virt_image::render(&machine, &sample::disks(), None).expect_err(name);
            assert_eq!(error.slug(), "descriptor-name");
        }
    }

    #[test]
    fn a_control_character_is_named() {
        let machine = Machine {
            label: "bell\u{7}".into(),
            ..sample::machine()
        };
        let error = virt_image::render(&machine, &sample::disks(), None).expect_err("a bell");
        assert_eq!(
            error.to_string(),
            "label `bell\\u{7}` has a control character"
        );
    }

    #[test]
    fn two_disks_cannot_share_a_name() {
        let machine = Machine {
            user_disks: vec![UserDisk {
                id: "config".into(),
                size: ByteSize::from_mib(1),
            }],
            ..sample::machine()
        };
        let error = virt_image::render(&machine, &sample::disks(), None).expect_err("taken");
        assert_eq!(error.to_string(), "two disks are called `config`");
    }

    #[test]
    fn without_an_image_there_is_no_descriptor() {
        let error = virt_image::render(&sample::machine(), &[], None).expect_err("no disk");
        assert_eq!(error.to_string(), "`wiki` has no disk image to describe");
    }
}
