//! libvirt's domain XML.
//!
//! A [`Domain`] is a guest with every fact that libvirt has to be told, and
//! [`render`] is a pure function of it. [`Domain::template`] is the one of
//! `NAME.libvirt.xml`: no uuid, no MAC address, no emulator, no path of any
//! host. The schema insists on absolute paths, so its files stand below
//! [`PLACEHOLDER`]. An importer fills in what it knows.
//!
//! Source: <https://libvirt.org/formatdomain.html>; the schema is
//! `domain.rng` of libvirt 9, which judges the tests.

mod parts;

use super::element::Element;
use super::{
    CONFIG_DISK_FILE, DescriptorError, DiskFacts, Display, Firmware, Machine, NAMESPACE, check,
    check_name, check_text, preferred,
};
use crate::units::ByteSize;

pub use parts::{Access, Bus, Chipset, Device, DomainDisk, Kernel, Nic, NicSource, Presence, Virt};

/// The folder that a template's files are in: replace it with the real one.
pub const PLACEHOLDER: &str = "/FOLDER";
/// The prefix and the name of libosinfo's namespace.
pub const OSINFO: (&str, &str) = ("libosinfo", "http://libosinfo.org/xmlns/libvirt/domain/1.0");
/// The processor that libvirt's emulator imitates: wide vector units cost
/// time, and no Debian guest needs them.
pub const EMULATED_CPU: &str = "Nehalem";

/// A guest as libvirt is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Its identifier; libvirt makes one where there is none.
    pub uuid: Option<String>,
    /// One line for people; may be empty.
    pub title: String,
    /// Some lines for people; may be empty.
    pub description: String,
    /// The operating system by libosinfo's short id (`debian12`).
    pub os_id: Option<String>,
    /// What is remembered of where the guest came from: attributes of the
    /// element `va:appliance` in the domain's metadata. Names are XML names.
    pub origin: Vec<(&'static str, String)>,
    /// What runs it.
    pub virt: Virt,
    /// Memory; written in whole MiB, rounded up.
    pub memory: ByteSize,
    /// Virtual processors.
    pub vcpus: u32,
    /// The board.
    pub chipset: Chipset,
    /// The firmware.
    pub firmware: Firmware,
    /// The kind of disk that the firmware starts.
    pub boot: Device,
    /// Kernel, initramfs and command line, where the host loads them itself.
    pub kernel: Option<Kernel>,
    /// The disks, in the order of attachment.
    pub disks: Vec<DomainDisk>,
    /// The network interfaces.
    pub nics: Vec<Nic>,
    /// Whether the guest has a screen.
    pub display: Display,
    /// A file on the host that keeps what the serial console says.
    pub serial_log: Option<String>,
}

impl Domain {
    /// The guest that `machine` describes, on whatever host: files below
    /// [`PLACEHOLDER`], networks of the name `default`, KVM.
    ///
    /// # Errors
    ///
    /// Any [`DescriptorError`] but `Write`.
    pub fn template(machine: &Machine, disks: &[DiskFacts]) -> Result<Self, DescriptorError> {
        check(machine)?;
        let system = preferred(machine, disks)?;
        let at = |file: &str| format!("{PLACEHOLDER}/{file}");
        let nic = Nic {
            source: NicSource::Network("default".into()),
            model: "virtio".into(),
            mac: None,
        };
        let mut all = vec![DomainDisk::new(
            at(&system.file),
            system.format.name(),
            Bus::Virtio,
        )];
        all.extend(machine.user_disks.iter().map(|disk| {
            let file = machine.user_disk_file(disk);
            DomainDisk::new(at(&file), "raw", Bus::Virtio)
        }));
        all.push(DomainDisk {
            presence: Presence::Optional,
            ..DomainDisk::new(at(CONFIG_DISK_FILE), "raw", Bus::Virtio)
        });
        Ok(Self {
            name: machine.name.clone(),
            uuid: None,
            title: machine.label.clone(),
            description: machine.description.clone(),
            os_id: Some(machine.os_id.clone()),
            origin: vec![
                ("name", machine.name.clone()),
                ("version", machine.version.clone()),
                ("build", machine.build.to_string()),
            ],
            virt: Virt::Kvm,
            memory: machine.memory,
            vcpus: machine.vcpus,
            chipset: Chipset::Q35,
            firmware: machine.first_firmware(),
            boot: Device::Disk,
            kernel: None,
            disks: all,
            nics: vec![nic; machine.nics as usize],
            display: machine.display,
            serial_log: None,
        })
    }

    /// Refuses what XML cannot hold, wherever it came from.
    fn check(&self) -> Result<(), DescriptorError> {
        check_name(&self.name)?;
        let nics = self.nics.iter().flat_map(|nic| {
            let source = match &nic.source {
                NicSource::Network(name) | NicSource::Bridge(name) => Some(name),
                NicSource::User => None,
            };
            [source, Some(&nic.model), nic.mac.as_ref()]
        });
        let disks = self
            .disks
            .iter()
            .flat_map(|disk| [Some(&disk.file), Some(&disk.format), disk.serial.as_ref()]);
        let kernel = self.kernel.iter().flat_map(|kernel| {
            [
                Some(&kernel.kernel),
                kernel.initrd.as_ref(),
                kernel.command_line.as_ref(),
            ]
        });
        let groups: [(&str, Vec<&String>); 6] = [
            ("title", vec![&self.title]),
            ("description", vec![&self.description]),
            ("network", nics.flatten().collect()),
            ("disk", disks.flatten().collect()),
            ("kernel", kernel.flatten().collect()),
            (
                "origin",
                self.origin.iter().map(|(_, value)| value).collect(),
            ),
        ];
        let others = [&self.uuid, &self.os_id, &self.serial_log];
        for (field, texts) in groups {
            for text in texts {
                check_text(field, text)?;
            }
        }
        for text in others.into_iter().flatten() {
            check_text("domain", text)?;
        }
        Ok(())
    }
}

/// Renders `NAME.libvirt.xml`.
///
/// # Errors
///
/// Any [`DescriptorError`] but `Write`.
pub fn render_template(machine: &Machine, disks: &[DiskFacts]) -> Result<String, DescriptorError> {
    render(&Domain::template(machine, disks)?)
}

/// Renders the domain.
///
/// # Errors
///
/// [`DescriptorError::Name`] and [`DescriptorError::Text`].
pub fn render(domain: &Domain) -> Result<String, DescriptorError> {
    domain.check()?;
    let plain = |name, text: &str| Element::new(name).text(text);
    let mut children = vec![plain("name", &domain.name)];
    children.extend(domain.uuid.as_ref().map(|uuid| plain("uuid", uuid)));
    // libvirt refuses line breaks in titles.
    let title = domain
        .title
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    if !title.is_empty() {
        children.push(plain("title", &title));
    }
    if !domain.description.is_empty() {
        children.push(plain("description", &domain.description));
    }
    children.extend(metadata(domain));
    children.push(plain("memory", &domain.memory.mib_ceil().to_string()).attr("unit", "MiB"));
    children.push(plain("vcpu", &domain.vcpus.to_string()));
    children.push(os(domain));
    children.push(features(domain.firmware));
    children.push(cpu(domain.virt));
    children.push(Element::new("clock").attr("offset", "utc"));
    children.push(devices(domain));
    let root = Element::new("domain").attr("type", domain.virt.name());
    Ok(root.children(children).to_document())
}

fn metadata(domain: &Domain) -> Option<Element> {
    let mut children = Vec::new();
    if let Some(id) = domain.os_id.as_deref().and_then(osinfo_id) {
        let (prefix, name) = OSINFO;
        let os = Element::new("libosinfo:os").attr("id", id);
        children.push(
            Element::new("libosinfo:libosinfo")
                .namespace(prefix, name)
                .children([os]),
        );
    }
    if !domain.origin.is_empty() {
        let (prefix, name) = NAMESPACE;
        let mut appliance = Element::new("va:appliance").namespace(prefix, name);
        for (name, value) in &domain.origin {
            appliance = appliance.attr(name, value);
        }
        children.push(appliance);
    }
    (!children.is_empty()).then(|| Element::new("metadata").children(children))
}

/// libosinfo's long id for a short one, for the families whose ids follow a
/// rule.
#[must_use]
pub fn osinfo_id(short: &str) -> Option<String> {
    let split = short.find(|c: char| c.is_ascii_digit())?;
    let (family, release) = short.split_at(split);
    let base = match family {
        "debian" => "debian.org/debian",
        "ubuntu" => "ubuntu.com/ubuntu",
        "fedora" => "fedoraproject.org/fedora",
        "centos" | "centos-stream" => "centos.org/centos",
        "rhel" => "redhat.com/rhel",
        "linux" => "libosinfo.org/linux",
        _ => return None,
    };
    Some(format!("http://{base}/{release}"))
}

fn os(domain: &Domain) -> Element {
    let kind = Element::new("type")
        .attr("arch", "x86_64")
        .attr("machine", domain.chipset.name())
        .text("hvm");
    let feature = |name, enabled| {
        Element::new("feature")
            .attr("enabled", enabled)
            .attr("name", name)
    };
    let (features, secure) = match domain.firmware {
        Firmware::Bios => (vec![], None),
        Firmware::Uefi => (vec![feature("secure-boot", "no")], None),
        Firmware::UefiSecure => (
            vec![
                feature("secure-boot", "yes"),
                feature("enrolled-keys", "yes"),
            ],
            Some(Element::new("loader").attr("secure", "yes")),
        ),
    };
    let mut children = vec![kind];
    let mut os = Element::new("os");
    if !features.is_empty() {
        os = os.attr("firmware", "efi");
        children.push(Element::new("firmware").children(features));
    }
    children.extend(secure);
    if let Some(kernel) = &domain.kernel {
        children.push(Element::new("kernel").text(&kernel.kernel));
        let initrd = kernel.initrd.as_ref();
        children.extend(initrd.map(|path| Element::new("initrd").text(path)));
        let line = kernel.command_line.as_ref();
        children.extend(line.map(|line| Element::new("cmdline").text(line)));
    }
    children.push(Element::new("boot").attr("dev", domain.boot.boot()));
    os.children(children)
}

fn features(firmware: Firmware) -> Element {
    let mut children = vec![Element::new("acpi"), Element::new("apic")];
    if firmware == Firmware::UefiSecure {
        // Without it the guest could write the variables that Secure Boot trusts.
        children.push(Element::new("smm").attr("state", "on"));
    }
    Element::new("features").children(children)
}

fn cpu(virt: Virt) -> Element {
    match virt {
        Virt::Kvm => Element::new("cpu").attr("mode", "host-model"),
        Virt::Qemu => Element::new("cpu")
            .attr("mode", "custom")
            .attr("match", "exact")
            .children([Element::new("model")
                .attr("fallback", "allow")
                .text(EMULATED_CPU)]),
    }
}

fn devices(domain: &Domain) -> Element {
    let mut children = disks(&domain.disks);
    if domain.disks.iter().any(|disk| disk.bus == Bus::Scsi) {
        let controller = Element::new("controller").attr("type", "scsi");
        children.push(controller.attr("index", "0").attr("model", "virtio-scsi"));
    }
    children.extend(domain.nics.iter().map(nic));
    children.extend(consoles(domain));
    if domain.display == Display::Screen {
        let graphics = Element::new("graphics").attr("type", "vnc");
        children.push(graphics.attr("autoport", "yes").attr("listen", "127.0.0.1"));
        children.push(Element::new("video").children([Element::new("model").attr("type", "vga")]));
    }
    // Kernels have entropy at once, instead of gathering it from jitter.
    let source = Element::new("backend").attr("model", "random");
    children.push(
        Element::new("rng")
            .attr("model", "virtio")
            .children([source.text("/dev/urandom")]),
    );
    Element::new("devices").children(children)
}

/// Each disk with the next name of its bus's kind. Names are for libvirt
/// only: a guest must not depend on them.
fn disks(disks: &[DomainDisk]) -> Vec<Element> {
    let mut used: Vec<&str> = Vec::new();
    let place = |disk: &DomainDisk| {
        let prefix = disk.bus.prefix();
        let number = used.iter().filter(|other| **other == prefix).count();
        used.push(prefix);
        format!("{prefix}{}", letters(number))
    };
    let names: Vec<String> = disks.iter().map(place).collect();
    disks
        .iter()
        .zip(names)
        .map(|(disk, name)| one_disk(disk, &name))
        .collect()
}

fn one_disk(disk: &DomainDisk, target: &str) -> Element {
    let optional = (disk.presence == Presence::Optional).then_some("optional");
    let mut children = vec![
        Element::new("driver")
            .attr("name", "qemu")
            .attr("type", &disk.format),
        Element::new("source")
            .attr("file", &disk.file)
            .attr_if("startupPolicy", optional),
        Element::new("target")
            .attr("dev", target)
            .attr("bus", disk.bus.name()),
    ];
    if disk.access == Access::ReadOnly || disk.device == Device::CdRom {
        children.push(Element::new("readonly"));
    }
    let serial = disk.serial.as_ref();
    children.extend(serial.map(|serial| Element::new("serial").text(serial)));
    Element::new("disk")
        .attr("type", "file")
        .attr("device", disk.device.name())
        .children(children)
}

/// `a` to `z`, then `aa`: as the kernel counts disks.
fn letters(number: usize) -> String {
    const ALPHABET: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";
    let last = char::from(ALPHABET[number % ALPHABET.len()]);
    match number / ALPHABET.len() {
        0 => last.to_string(),
        more => format!("{}{last}", letters(more - 1)),
    }
}

fn nic(nic: &Nic) -> Element {
    let (kind, source) = match &nic.source {
        NicSource::Network(name) => ("network", Some(("network", name))),
        NicSource::Bridge(name) => ("bridge", Some(("bridge", name))),
        NicSource::User => ("user", None),
    };
    let mut children = Vec::new();
    let mac = nic.mac.as_ref();
    children.extend(mac.map(|mac| Element::new("mac").attr("address", mac)));
    children.extend(source.map(|(kind, name)| Element::new("source").attr(kind, name)));
    children.push(Element::new("model").attr("type", &nic.model));
    Element::new("interface")
        .attr("type", kind)
        .children(children)
}

/// A serial line, and a console of virtio: whichever the guest looks at.
fn consoles(domain: &Domain) -> [Element; 3] {
    let port = |name: &str, port: &str| {
        let target = Element::new("target");
        match name {
            "" => target.attr("port", port),
            kind => target.attr("type", kind).attr("port", port),
        }
    };
    let log = || {
        let path = domain.serial_log.as_ref();
        path.map(|path| Element::new("log").attr("file", path).attr("append", "off"))
    };
    let pty = |name, target: Element| {
        Element::new(name)
            .attr("type", "pty")
            .children(log().into_iter().chain([target]))
    };
    [
        pty("serial", port("", "0")),
        pty("console", port("serial", "0")),
        Element::new("console")
            .attr("type", "pty")
            .children([port("virtio", "1")]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::sample;

    #[test]
    fn a_template_names_nothing_of_any_host() {
        let xml = render_template(&sample::machine(), &sample::disks()).expect("renders");
        for word in ["<uuid", "<mac", "<emulator", "<nvram", "OVMF", "/usr/"] {
            assert!(!xml.contains(word), "{word} in\n{xml}");
        }
        let files = xml.matches("<source file=").count();
        assert_eq!(files, xml.matches("<source file=\"/FOLDER/").count());
        assert_eq!(files, 3);
    }

    #[test]
    fn disks_are_counted_as_the_kernel_does() {
        let counted = [0, 1, 25, 26, 27, 701, 702].map(letters);
        assert_eq!(counted, ["a", "b", "z", "aa", "ab", "zz", "aaa"]);
    }

    #[test]
    fn an_id_that_libosinfo_does_not_have_is_left_out() {
        assert_eq!(
            osinfo_id("debian12").as_deref(),
            Some("http://debian.org/debian/12")
        );
        assert_eq!(osinfo_id("debian"), None);
        assert_eq!(osinfo_id("plan9"), None);
    }

    #[test]
    fn a_path_with_a_control_character_is_refused() {
        let mut domain = Domain::template(&sample::machine(), &sample::disks()).expect("a domain");
        domain.disks[0].file = "/srv/a\u{1}.raw".into();
        let error = render(&domain).expect_err("XML cannot hold it");
        assert_eq!(
            error.to_string(),
            "disk `/srv/a\\u{1}.raw` has a control character"
        );
    }
}
