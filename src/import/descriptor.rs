//! Reads a virt-image descriptor, ours or anybody's.
//!
//! Source: `virtinst/virtimage.py` of virt-manager 1.0, the only norm. What
//! that parser accepts is accepted here, with its quirks (the name of a disk
//! without a file, empty as good as missing, a `use` of any word), except:
//! document types, paths out of the folder, checksums of unknown types, disks
//! of one name, numbers beyond any machine. White space around names and
//! checksums is forgiven, as is a checksum in capitals.
//!
//! What stands in the namespace [`NAMESPACE`] is advice: without it there is
//! still a machine.

use std::fmt;
use std::path::{Component, Path};

use super::error::{Finding, Problem};
use super::xml::{Element, parse};
use crate::descriptor::Firmware;
use crate::digest::Digest;
use crate::units::{ByteSize, KIB, MIB};

/// The namespace of what the historic format cannot say.
const NAMESPACE: &str = "urn:consign:appliance:1";
/// The largest machine that is believed.
const MAX_MEMORY_KIB: u64 = 64 << 30;
const MAX_VCPUS: u32 = 1024;
const MAX_NICS: usize = 32;
const MAX_DISKS: usize = 64;
const MAX_BOOTS: usize = 32;
/// The largest disk that is believed, in MiB: 64 TiB.
const MAX_DISK_MIB: f64 = 67_108_864.0;
/// Longest name, path, kernel command line.
const MAX_TEXT: usize = 4096;

/// What a descriptor says.
#[derive(Debug, Clone, Default)]
pub struct Descriptor {
    /// The guest's name.
    pub name: Option<String>,
    /// The appliance's version.
    pub version: Option<String>,
    /// One line for people.
    pub label: Option<String>,
    /// Ways to boot it, in the order of preference.
    pub boots: Vec<Boot>,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory.
    pub memory: Option<ByteSize>,
    /// Network interfaces.
    pub nics: usize,
    /// Whether it wants a screen.
    pub has_screen: bool,
    /// Disks.
    pub disks: Vec<Disk>,
    /// Advice from our namespace.
    pub advice: Advice,
}

/// A way to boot.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Full virtualization or Xen's.
    pub kind: BootKind,
    /// Architecture, as libvirt calls it.
    pub arch: String,
    /// Features that the host must be able to have in that state.
    pub features: Vec<(String, bool)>,
    /// Whether Xen's `pygrub` finds the kernel in the disk.
    pub is_pygrub: bool,
    /// Whether it boots from the CD.
    pub from_cdrom: bool,
    /// A kernel beside the descriptor.
    pub kernel: Option<String>,
    /// Its initial RAM file system.
    pub initrd: Option<String>,
    /// Its command line.
    pub cmdline: Option<String>,
    /// Drives in device order: the index of a disk, and a device name.
    pub drives: Vec<(usize, Option<String>)>,
}

/// What virtualizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootKind {
    /// A whole machine.
    Hvm,
    /// A Xen guest.
    Xen,
}

impl BootKind {
    /// As the descriptor spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hvm => "hvm",
            Self::Xen => "xen",
        }
    }
}

/// A disk.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Its name in the descriptor.
    pub id: String,
    /// Path, relative to the descriptor.
    pub file: String,
    /// What the file is.
    pub format: DiskFormat,
    /// The size to make it with.
    pub size: Option<ByteSize>,
    /// Whose content it is.
    pub usage: Usage,
    /// Checksum of the file.
    pub checksum: Option<Checksum>,
}

/// Formats of the historic grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFormat {
    /// The disk's bytes.
    Raw,
    /// A CD.
    Iso,
    /// QEMU's first format.
    Qcow,
    /// QEMU's format.
    Qcow2,
    /// `VMware`'s.
    Vmdk,
    /// `VirtualBox`'s.
    Vdi,
}

impl DiskFormat {
    /// The name in descriptors, and QEMU's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Iso => "iso",
            Self::Qcow => "qcow",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
        }
    }
}

/// Whose content a disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// The vendor's: an upgrade replaces it.
    System,
    /// The customer's: an upgrade keeps it. Any unknown word means this.
    User,
    /// Nobody's.
    Scratch,
}

impl Usage {
    /// The word in descriptors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Scratch => "scratch",
        }
    }
}

/// A checksum of a whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checksum {
    /// SHA-256.
    Sha256(Digest),
    /// SHA-1: against accidents only.
    Sha1([u8; 20]),
}

impl Checksum {
    /// Reads what [`fmt::Display`] writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("sha1:") {
            Some(digits) => hex::<20>(digits).map(Self::Sha1),
            None => Digest::parse(text).map(Self::Sha256),
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => digest.fmt(f),
            Self::Sha1(bytes) => write!(f, "sha1:{}", super::master::hex(bytes)),
        }
    }
}

/// What only modern importers understand; all of it may be missing.
#[derive(Debug, Clone, Default)]
pub struct Advice {
    /// Whether there is any.
    pub is_there: bool,
    /// The operating system, by libosinfo's id.
    pub os: Option<String>,
    /// The board: `q35` or `pc`.
    pub chipset: Option<String>,
    /// The bus of its disks: `virtio`, `scsi`, `sata`, `ide`.
    pub bus: Option<String>,
    /// The model of its network cards.
    pub nic: Option<String>,
    /// Firmwares under which it boots, the preferred one first.
    pub firmware: Vec<Firmware>,
}

/// Which paths are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paths {
    /// Those within the descriptor's folder, without links.
    Contained,
    /// All.
    Trusted,
}

/// Reads a descriptor.
///
/// # Errors
///
/// All that is wrong with it; at least one finding.
pub fn read(bytes: &[u8], paths: Paths) -> Result<Descriptor, Vec<Finding>> {
    let root = parse(bytes).map_err(|finding| vec![finding])?;
    let mut reader = Reader {
        paths,
        findings: Vec::new(),
    };
    let descriptor = reader.image(&root);
    if reader.findings.is_empty() {
        Ok(descriptor)
    } else {
        reader.findings.sort_by_key(|finding| finding.place);
        Err(reader.findings)
    }
}

/// Whether a host accepts it as a guest's name, and a file system as a folder's.
pub(super) fn is_guest_name(name: &str) -> bool {
    let is_bad = |c: char| c.is_control() || c == '/' || c == '\\';
    // A number or a UUID is what libvirt calls another guest by.
    let digits = name.trim_start_matches('+');
    let hex: Vec<u8> = name.bytes().filter(|byte| *byte != b'-').collect();
    let is_uuid = hex.len() == 32 && hex.iter().all(u8::is_ascii_hexdigit);
    !digits.bytes().all(|byte| byte.is_ascii_digit())
        && !is_uuid
        && name.len() <= 200
        && !name.starts_with(['.', '-'])
        && !name.contains(is_bad)
        && name.trim() == name
}

struct Reader {
    paths: Paths,
    findings: Vec<Finding>,
}

impl Reader {
    fn say(&mut self, element: &Element, problem: Problem) {
        self.findings.push(Finding {
            place: element.place,
            element: element.name.clone(),
            problem,
        });
    }

    fn image(&mut self, root: &Element) -> Descriptor {
        if root.name != "image" {
            self.say(root, Problem::Root(root.name.clone()));
            return Descriptor::default();
        }
        let name = root.first("name");
        let text = |element: Option<&Element>| {
            let text = element.and_then(Element::text).map(str::trim);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let mut descriptor = Descriptor {
            name: text(name),
            version: name
                .and_then(|name| name.attribute("version"))
                .map(str::to_owned),
            label: text(root.first("label")),
            disks: self.storage(root),
            advice: advice(root),
            ..Descriptor::default()
        };
        if let (Some(element), Some(name)) = (name, &descriptor.name)
            && !is_guest_name(name)
        {
            self.say(element, Problem::Name(name.clone()));
        }
        let domains: Vec<&Element> = root.all("domain").collect();
        let [domain] = domains.as_slice() else {
            let problem = Problem::Count {
                name: "domain",
                found: domains.len(),
                wanted: "exactly one",
            };
            self.say(root, problem);
            return descriptor;
        };
        self.devices(domain, &mut descriptor);
        descriptor.boots = self.boots(domain, &descriptor.disks);
        descriptor
    }

    fn devices(&mut self, domain: &Element, descriptor: &mut Descriptor) {
        descriptor.vcpus = 1;
        let Some(devices) = domain.first("devices") else {
            return;
        };
        if let Some(vcpu) = devices.first("vcpu")
            && let Some(text) = vcpu.text()
        {
            match text.trim().parse() {
                Ok(count) if (1..=MAX_VCPUS).contains(&count) => descriptor.vcpus = count,
                _ => self.number(vcpu, "the number of processors", text, "1 to 1024"),
            }
        }
        if let Some(memory) = devices.first("memory")
            && let Some(text) = memory.text()
        {
            match text.trim().parse() {
                Ok(kib) if (1..=MAX_MEMORY_KIB).contains(&kib) => {
                    descriptor.memory = Some(ByteSize::from_bytes(kib * KIB));
                }
                _ => self.number(
                    memory,
                    "memory",
                    text,
                    "a whole number of KiB, up to 64 TiB",
                ),
            }
        }
        descriptor.nics = devices.all("interface").count();
        descriptor.has_screen = devices.first("graphics").is_some();
        if descriptor.nics > MAX_NICS {
            self.too_many(devices, "network interfaces", MAX_NICS);
        }
    }

    fn number(&mut self, element: &Element, what: &'static str, found: &str, wanted: &'static str) {
        let found = found.to_owned();
        self.say(
            element,
            Problem::Number {
                what,
                found,
                wanted,
            },
        );
    }

    fn too_many(&mut self, element: &Element, what: &'static str, most: usize) {
        self.say(element, Problem::TooMany { what, most });
    }

    fn storage(&mut self, root: &Element) -> Vec<Disk> {
        let mut disks: Vec<Disk> = Vec::new();
        let elements = root.all("storage").flat_map(|storage| storage.all("disk"));
        for element in elements {
            if disks.len() == MAX_DISKS {
                self.too_many(element, "disks", MAX_DISKS);
                break;
            }
            let disk = self.disk(element, disks.len());
            if disks.iter().any(|other| other.id == disk.id) {
                self.say(element, Problem::DiskTwice(disk.id));
            } else {
                disks.push(disk);
            }
        }
        disks
    }

    fn disk(&mut self, element: &Element, index: usize) -> Disk {
        // Without a file the historic parser makes up both, and not the same.
        let (id, file) = match element.attribute("file") {
            None => (format!("disk{index}.img"), format!("disk{}.img", index + 1)),
            Some(file) => {
                let id = element.attribute("id").unwrap_or(file);
                (id.to_owned(), file.to_owned())
            }
        };
        self.check_path(element, &file);
        if id.len() > MAX_TEXT {
            self.too_many(element, "bytes of a name", MAX_TEXT);
        }
        let usage = match element.attribute("use") {
            None | Some("system") => Usage::System,
            Some("scratch") => Usage::Scratch,
            Some(_) => Usage::User,
        };
        Disk {
            id,
            file,
            format: self.format(element),
            size: self.size(element),
            usage,
            checksum: self.checksum(element),
        }
    }

    fn check_path(&mut self, element: &Element, path: &str) {
        if path.len() > MAX_TEXT || path.contains('\0') {
            self.too_many(element, "bytes of a path", MAX_TEXT);
        }
        let is_inner = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if self.paths == Paths::Contained && !Path::new(path).components().all(is_inner) {
            self.say(element, Problem::Outside(path.to_owned()));
        }
    }

    fn format(&mut self, element: &Element) -> DiskFormat {
        match element.attribute("format") {
            None | Some("raw") => DiskFormat::Raw,
            Some("iso") => DiskFormat::Iso,
            Some("qcow") => DiskFormat::Qcow,
            Some("qcow2") => DiskFormat::Qcow2,
            Some("vmdk") => DiskFormat::Vmdk,
            Some("vdi") => DiskFormat::Vdi,
            Some(other) => {
                let problem = Problem::Unknown {
                    what: "the format",
                    found: other.to_owned(),
                    known: "raw, iso, qcow, qcow2, vmdk, vdi",
                };
                self.say(element, problem);
                DiskFormat::Raw
            }
        }
    }

    /// In MiB, and the historic parser takes fractions.
    fn size(&mut self, element: &Element) -> Option<ByteSize> {
        let text = element.attribute("size")?;
        match text.trim().parse::<f64>() {
            Ok(mib) if mib > 0.0 && mib <= MAX_DISK_MIB => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss,
                    reason = "positive and below 2^47, as just looked at"
                )]
                let bytes = (mib * MIB as f64).ceil() as u64;
                // Hosts want whole sectors.
                ByteSize::from_bytes(bytes).round_up(512)
            }
            _ => {
                self.number(element, "the size", text, "a number of MiB, up to 64 TiB");
                None
            }
        }
    }

    fn checksum(&mut self, element: &Element) -> Option<Checksum> {
        let (mut sha256, mut sha1) = (None, None);
        for sum in element.all("checksum") {
            let text = sum.text().unwrap_or_default().trim().to_ascii_lowercase();
            match sum.attribute("type").unwrap_or_default() {
                "sha256" => match hex::<32>(&text) {
                    Some(bytes) => sha256 = Some(Checksum::Sha256(Digest::from_bytes(bytes))),
                    None => self.say(sum, Problem::Checksum("sha256")),
                },
                "sha1" => match hex::<20>(&text) {
                    Some(bytes) => sha1 = Some(Checksum::Sha1(bytes)),
                    None => self.say(sum, Problem::Checksum("sha1")),
                },
                other => self.say(sum, Problem::ChecksumType(other.to_owned())),
            }
        }
        sha256.or(sha1)
    }

    fn boots(&mut self, domain: &Element, disks: &[Disk]) -> Vec<Boot> {
        let elements: Vec<&Element> = domain.all("boot").collect();
        if elements.is_empty() {
            let problem = Problem::Count {
                name: "boot",
                found: 0,
                wanted: "at least one",
            };
            self.say(domain, problem);
        }
        if elements.len() > MAX_BOOTS {
            self.too_many(domain, "<boot> elements", MAX_BOOTS);
            return Vec::new();
        }
        elements
            .into_iter()
            .map(|element| self.boot(element, disks))
            .collect()
    }

    fn boot(&mut self, element: &Element, disks: &[Disk]) -> Boot {
        let kind = match element.attribute("type") {
            Some("hvm") => BootKind::Hvm,
            Some("xen") => BootKind::Xen,
            other => {
                let problem = match other {
                    None => Problem::Missing("the attribute `type`"),
                    Some(found) => Problem::Unknown {
                        what: "the type",
                        found: found.to_owned(),
                        known: "hvm, xen",
                    },
                };
                self.say(element, problem);
                BootKind::Hvm
            }
        };
        let guest = element.first("guest");
        let arch = guest
            .and_then(|guest| guest.first("arch"))
            .and_then(Element::text);
        if arch.is_none() {
            self.say(element, Problem::Missing("<guest><arch>"));
        }
        let os = element.first("os");
        let text = |name| {
            let text = os.and_then(|os| os.first(name)).and_then(Element::text);
            text.map(|text| text.trim().to_owned())
        };
        let (kernel, initrd) = (text("kernel"), text("initrd"));
        for path in [&kernel, &initrd].into_iter().flatten() {
            self.check_path(element, path);
        }
        let loader = os.and_then(|os| os.first("loader"));
        Boot {
            kind,
            arch: arch_name(arch.unwrap_or_default()).to_owned(),
            features: guest.map_or_else(Vec::new, |guest| self.features(guest)),
            is_pygrub: loader.is_some_and(|loader| self.is_pygrub(loader)),
            from_cdrom: loader.is_some_and(|loader| self.is_from_cdrom(loader)),
            kernel,
            initrd,
            cmdline: text("cmdline"),
            drives: self.drives(element, disks),
        }
    }

    fn is_pygrub(&mut self, loader: &Element) -> bool {
        match loader.text() {
            None => false,
            Some("pygrub") => true,
            Some(other) => {
                let problem = Problem::Unknown {
                    what: "the loader",
                    found: other.to_owned(),
                    known: "pygrub",
                };
                self.say(loader, problem);
                false
            }
        }
    }

    fn is_from_cdrom(&mut self, loader: &Element) -> bool {
        match loader.attribute("dev") {
            None | Some("hd") => false,
            Some("cdrom") => true,
            Some(other) => {
                let problem = Problem::Unknown {
                    what: "the boot device",
                    found: other.to_owned(),
                    known: "hd, cdrom",
                };
                self.say(loader, problem);
                false
            }
        }
    }

    fn features(&mut self, guest: &Element) -> Vec<(String, bool)> {
        let lists: Vec<&Element> = guest.all("features").collect();
        let [list] = lists.as_slice() else {
            if !lists.is_empty() {
                let problem = Problem::Count {
                    name: "features",
                    found: lists.len(),
                    wanted: "at most one",
                };
                self.say(guest, problem);
            }
            return Vec::new();
        };
        let mut features = Vec::new();
        for feature in list.children.iter().filter(|one| one.namespace.is_none()) {
            let is_on = match feature.attribute("state") {
                None | Some("on") => true,
                Some("off") => false,
                Some(other) => {
                    let problem = Problem::Unknown {
                        what: "the state",
                        found: other.to_owned(),
                        known: "on, off",
                    };
                    self.say(feature, problem);
                    true
                }
            };
            features.push((feature.name.clone(), is_on));
        }
        features
    }

    fn drives(&mut self, boot: &Element, disks: &[Disk]) -> Vec<(usize, Option<String>)> {
        let mut drives = Vec::new();
        for drive in boot.all("drive") {
            if drives.len() == MAX_DISKS {
                self.too_many(drive, "drives", MAX_DISKS);
                break;
            }
            let Some(id) = drive.attribute("disk") else {
                self.say(drive, Problem::Missing("the attribute `disk`"));
                continue;
            };
            match disks.iter().position(|disk| disk.id == id) {
                Some(disk) => drives.push((disk, drive.attribute("target").map(str::to_owned))),
                None => self.say(drive, Problem::NoSuchDisk(id.to_owned())),
            }
        }
        drives
    }
}

/// Advice that is not understood is no advice.
fn advice(root: &Element) -> Advice {
    let Some(machine) = root.all_of(Some(NAMESPACE), "machine").next() else {
        return Advice::default();
    };
    let word = |name, attribute| {
        let element = machine.all_of(Some(NAMESPACE), name).next();
        let word = element.and_then(|element| element.attribute(attribute));
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        word.filter(|word| word.len() <= 64 && word.chars().all(is_word))
            .map(str::to_owned)
    };
    let firmware = |element: &Element| {
        let is_secure = element.attribute("secure-boot") == Some("on");
        match element.attribute("type")? {
            "bios" => Some(Firmware::Bios),
            "uefi" if is_secure => Some(Firmware::UefiSecure),
            "uefi" => Some(Firmware::Uefi),
            _ => None,
        }
    };
    Advice {
        is_there: true,
        os: word("os", "id"),
        chipset: word("chipset", "type"),
        bus: word("bus", "type"),
        nic: word("nic", "model"),
        firmware: machine
            .all_of(Some(NAMESPACE), "firmware")
            .filter_map(firmware)
            .take(8)
            .collect(),
    }
}

/// The names that libvirt knows.
fn arch_name(arch: &str) -> &str {
    match arch.trim() {
        "i386" | "i486" | "i586" => "i686",
        "amd64" => "x86_64",
        other => other,
    }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::virt_image;

    fn image(domain: &str, storage: &str) -> String {
        format!("<image>\n<name>x</name>\n{domain}\n<storage>\n{storage}\n</storage>\n</image>")
    }

    const BOOT: &str =
        "<domain><boot type='hvm'><guest><arch>x86_64</arch></guest></boot></domain>";

    fn findings(domain: &str, storage: &str) -> Vec<String> {
        let read = read(image(domain, storage).as_bytes(), Paths::Contained);
        let findings = read.err().unwrap_or_default();
        findings.iter().map(ToString::to_string).collect()
    }

    fn sound(domain: &str, storage: &str) -> Descriptor {
        read(image(domain, storage).as_bytes(), Paths::Contained).expect("sound")
    }

    #[test]
    fn our_own_descriptor_is_read_whole() {
        let machine = crate::descriptor::sample::machine();
        let xml =
            virt_image::render(&machine, &crate::descriptor::sample::disks(), None).expect("xml");
        let read = read(xml.as_bytes(), Paths::Contained).expect("sound");
        assert_eq!(read.name.as_deref(), Some(machine.name.as_str()));
        assert_eq!(read.memory, Some(machine.memory));
        assert_eq!(read.nics, machine.nics as usize);
        assert_eq!(read.advice.firmware, machine.firmware);
        assert_eq!(read.advice.bus.as_deref(), Some("virtio"));
        assert_eq!(read.boots[0].drives.len(), read.disks.len());
        assert!(matches!(read.disks[0].checksum, Some(Checksum::Sha256(_))));
    }

    #[test]
    fn quirks_of_the_historic_parser_are_kept() {
        let read = sound(
            BOOT,
            "<disk/><disk file='a' use='data' size='1.5'/><disk id='z'/>",
        );
        let names: Vec<_> = read
            .disks
            .iter()
            .map(|disk| (disk.id.as_str(), disk.file.as_str()))
            .collect();
        assert_eq!(
            names,
            [
                ("disk0.img", "disk1.img"),
                ("a", "a"),
                ("disk2.img", "disk3.img")
            ]
        );
        assert_eq!(read.disks[1].usage, Usage::User);
        let size = read.disks[1].size.expect("a size");
        assert_eq!(size, ByteSize::from_bytes(3 << 19));
        assert_eq!((read.vcpus, read.memory), (1, None));
    }

    #[test]
    fn i386_and_amd64_have_other_names() {
        for (written, name) in [
            ("i386", "i686"),
            (" amd64\n", "x86_64"),
            ("riscv64", "riscv64"),
        ] {
            let boot = BOOT.replace("x86_64", written);
            assert_eq!(sound(&boot, "").boots[0].arch, name);
        }
    }

    #[test]
    fn a_checksum_in_capitals_with_space_around_is_one() {
        let sum = format!(
            "<disk file='a'><checksum type='sha1'>x</checksum>\
             <checksum type='sha256'>\n {} </checksum></disk>",
            "AB".repeat(32)
        );
        assert_eq!(
            findings(BOOT, &sum),
            ["5:16: in <checksum>: this is no sha1 checksum"]
        );
        let read = sound(BOOT, &sum.replace(">x<", &format!(">{}<", "0a".repeat(20))));
        let expected = Checksum::Sha256(Digest::from_bytes([0xab; 32]));
        assert_eq!(read.disks[0].checksum, Some(expected));
    }

    #[test]
    fn hostile_descriptors_are_refused_with_element_and_line() {
        for (storage, expected) in [
            (
                "<disk file='../a'/>",
                "5:1: in <disk>: the path `../a` leads out of the descriptor's folder",
            ),
            (
                "<disk file='/etc/shadow'/>",
                "5:1: in <disk>: the path `/etc/shadow` leads out of the descriptor's folder",
            ),
            (
                "<disk file='a'/>\n<disk file='b' id='a'/>",
                "6:1: in <disk>: a second disk is called `a`",
            ),
            (
                "<disk file='a'><checksum type='sha512'>00</checksum></disk>",
                "5:16: in <checksum>: a checksum of the type `sha512` cannot be verified; known \
                 are sha256, sha1",
            ),
            (
                "<disk file='a' format='vhdx'/>",
                "5:1: in <disk>: the format is `vhdx`; known are raw, iso, qcow, qcow2, vmdk, vdi",
            ),
            (
                "<disk file='a' size='1e99'/>",
                "5:1: in <disk>: the size is `1e99` instead of a number of MiB, up to 64 TiB",
            ),
        ] {
            assert_eq!(findings(BOOT, storage), [expected]);
        }
        let crowd = "<disk file='a'/>"
            .repeat(1000)
            .replacen("file='a'", "file='b'", 1);
        assert!(!findings(BOOT, &crowd).is_empty());
    }

    #[test]
    fn trusted_paths_are_followed() {
        let text = image(BOOT, "<disk file='../a'/>");
        let read = read(text.as_bytes(), Paths::Trusted).expect("trusted");
        assert_eq!(read.disks[0].file, "../a");
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let domain = "<domain><boot type='kvm'><guest><features/><features/></guest>\
                      <os><loader dev='network'>/usr/share/OVMF.fd</loader></os>\
                      <drive disk='nix'/></boot>\
                      <devices><vcpu>0</vcpu><memory>1 GiB</memory></devices></domain>";
        assert_eq!(findings(domain, "").len(), 8);
    }

    #[test]
    fn a_domain_in_a_default_namespace_is_none() {
        let text = image(BOOT, "").replace("<image>", "<image xmlns='urn:x'>");
        let findings = read(text.as_bytes(), Paths::Contained).expect_err("invisible");
        let words = ": in <image>: 0 <domain> elements without a namespace instead of exactly one";
        let said = findings[0].to_string();
        assert!(said.starts_with("1:") && said.ends_with(words), "{said}");
    }

    /// Each byte of a sound descriptor, changed and cut off.
    #[test]
    fn no_damage_makes_the_reader_panic() {
        let machine = crate::descriptor::sample::machine();
        let xml =
            virt_image::render(&machine, &crate::descriptor::sample::disks(), None).expect("xml");
        let sound = xml.into_bytes();
        let mut refused = 0;
        for at in 0..sound.len() {
            for byte in [0, b'<', b'&', b'\'', b'9', 0xff] {
                let mut bytes = sound.clone();
                bytes[at] = byte;
                refused += usize::from(read(&bytes, Paths::Contained).is_err());
            }
            refused += usize::from(read(&sound[..at], Paths::Contained).is_err());
        }
        assert!(refused > sound.len());
    }

    #[test]
    fn names_that_lead_elsewhere_are_no_names() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "-x",
            " a",
            "a\n",
            "12",
            "+12",
            "01234567-89ab-cdef-0123-456789abcdef",
        ] {
            assert!(!is_guest_name(name), "{name:?}");
        }
        for name in ["a", "Größe 1", "a.b-c_d"] {
            assert!(is_guest_name(name), "{name}");
        }
    }
}
