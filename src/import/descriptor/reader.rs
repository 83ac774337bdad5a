//! Reads a descriptor: all that is wrong is found, each with element and line.

use std::path::{Component, Path};

use super::{
    Advice, Boot, BootKind, Checksum, Descriptor, Disk, DiskFormat, Paths, Usage, hex,
    is_guest_name,
};
use crate::descriptor::Firmware;
use crate::digest::Digest;
use crate::import::finding::{Finding, Problem};
use crate::import::xml::{Element, parse};
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
