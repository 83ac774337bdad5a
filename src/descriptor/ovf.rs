//! OVF descriptors and what an OVA holds beside its disks.
//!
//! A profile of OVF 1.1 that `VMware`, `VirtualBox`, Proxmox and virt-v2v read:
//! memory in MiB (some take the number and ignore the unit), controllers and
//! network cards that all of them know, the firmware where `VMware` looks for
//! it, no element of OVF 2 and none of one vendor that another must know.
//! Elements of a device stand in the order of the alphabet, as the schema
//! wants them.
//!
//! Source: DMTF DSP0243 1.1; `VMware`'s `vmw:Config` as ovftool writes it.

use std::fmt::Write as _;
use std::io;

use super::element::Element;
use super::{DescriptorError, Firmware, Machine, Property, PropertyKind, check};
use crate::image::{Envelope, Member, PackedDisk};
use crate::units::{ByteSize, MIB};

/// The default namespace, and the one of attributes.
const OVF: &str = "http://schemas.dmtf.org/ovf/envelope/1";
const RASD: &str =
    "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData";
const VSSD: &str = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData";
const VMW: &str = "http://www.vmware.com/schema/ovf";
/// What a member of type VMDK is.
const STREAM: &str = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized";
/// The network that cards are connected to until somebody chooses.
const NETWORK: &str = "VM Network";
/// Disks are whole sectors.
const SECTOR: u64 = 512;
/// Places of a parallel SCSI bus without the controller's own.
const PLACES: [u8; 15] = [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15];

/// The algorithm of a manifest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ManifestSum {
    /// For everything of the last ten years.
    #[default]
    Sha256,
    /// For vCenter and `ESXi` up to 6.0.
    Sha1,
}

impl ManifestSum {
    /// The word that manifests and certificates begin their lines with.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA256",
            Self::Sha1 => "SHA1",
        }
    }
}

/// Signs the manifest of a package.
pub trait Seal: std::fmt::Debug + Send + Sync {
    /// The content of `NAME.cert` for the manifest called `name`.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being signed.
    fn certificate(&self, name: &str, manifest: &[u8], sum: ManifestSum) -> io::Result<Vec<u8>>;
}

/// An OVA of a machine.
#[derive(Debug)]
pub struct Package<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// How the manifest sums.
    pub sum: ManifestSum,
    /// Who signs the manifest.
    pub seal: Option<&'a dyn Seal>,
}

impl<'a> Package<'a> {
    /// A package of `machine`, checked.
    ///
    /// # Errors
    ///
    /// Any [`DescriptorError`] but `Write`.
    pub fn new(
        machine: &'a Machine,
        sum: ManifestSum,
        seal: Option<&'a dyn Seal>,
    ) -> Result<Self, DescriptorError> {
        check(machine)?;
        // One place is the system disk's.
        let most = PLACES.len() - 1;
        if machine.user_disks.len() > most {
            return Err(DescriptorError::TooManyDisks { most });
        }
        Ok(Self { machine, sum, seal })
    }
}

impl Envelope for Package<'_> {
    fn disk_name(&self) -> String {
        format!("{}.vmdk", self.machine.name)
    }

    fn empty_disks(&self) -> Vec<(String, ByteSize)> {
        let disks = self.machine.user_disks.iter();
        disks
            .map(|disk| {
                let name = format!("{}-{}.vmdk", self.machine.name, disk.id);
                (name, ByteSize::from_mib(disk.size.mib_ceil()))
            })
            .collect()
    }

    fn members(&self, disks: &[PackedDisk]) -> io::Result<Vec<Member>> {
        let name = &self.machine.name;
        let descriptor = Member {
            name: format!("{name}.ovf"),
            bytes: render(self.machine, disks).into_bytes(),
        };
        let manifest = Member {
            name: format!("{name}.mf"),
            bytes: manifest(self.sum, &descriptor, disks).into_bytes(),
        };
        let certificate = self.seal.map(|seal| {
            let bytes = seal.certificate(&manifest.name, &manifest.bytes, self.sum)?;
            Ok::<_, io::Error>(Member {
                name: format!("{name}.cert"),
                bytes,
            })
        });
        let certificate = certificate.transpose()?;
        Ok([descriptor, manifest]
            .into_iter()
            .chain(certificate)
            .collect())
    }
}

/// A line for each file, exactly as importers read it: no space before the
/// bracket, one behind the equals sign.
fn manifest(sum: ManifestSum, descriptor: &Member, disks: &[PackedDisk]) -> String {
    let of_descriptor = match sum {
        ManifestSum::Sha256 => crate::digest::Digest::of(&descriptor.bytes).hex(),
        ManifestSum::Sha1 => crate::image::Sha1Hex::of(&descriptor.bytes).to_string(),
    };
    let mut text = String::new();
    let mut line = |name: &str, hex: &str| {
        writeln!(text, "{}({name})= {hex}", sum.name()).expect("a string takes all");
    };
    line(&descriptor.name, &of_descriptor);
    for disk in disks {
        match sum {
            ManifestSum::Sha256 => line(&disk.file_name, &disk.sha256.hex()),
            ManifestSum::Sha1 => line(&disk.file_name, &disk.sha1.to_string()),
        }
    }
    text
}

/// Renders `NAME.ovf`. The machine was checked.
fn render(machine: &Machine, disks: &[PackedDisk]) -> String {
    let mut children = vec![references(disks), disk_section(disks)];
    if machine.nics > 0 {
        children.push(
            section("NetworkSection", "The networks").children_more([Element::new("Network")
                .attr("ovf:name", NETWORK)
                .children([Element::new("Description").text("Chosen at the import")])]),
        );
    }
    children.push(virtual_system(machine, disks.len()));
    Element::new("Envelope")
        .namespace("", OVF)
        .namespace("ovf", OVF)
        .namespace("rasd", RASD)
        .namespace("vmw", VMW)
        .namespace("vssd", VSSD)
        .children(children)
        .to_document()
}

/// An element with the `Info` that every section begins with.
fn section(name: &'static str, info: &str) -> Element {
    Element::new(name).children([Element::new("Info").text(info)])
}

fn references(disks: &[PackedDisk]) -> Element {
    let files = disks.iter().enumerate().map(|(number, disk)| {
        Element::new("File")
            .attr("ovf:href", &disk.file_name)
            .attr("ovf:id", format!("file{}", number + 1))
            .attr("ovf:size", disk.length.bytes().to_string())
    });
    Element::new("References").children(files)
}

fn disk_section(disks: &[PackedDisk]) -> Element {
    let disks = disks.iter().enumerate().map(|(number, disk)| {
        // Some importers understand no other way to write a unit.
        let (unit, word) = match disk.size.bytes() {
            bytes if bytes.is_multiple_of(MIB) => (MIB, "byte * 2^20"),
            _ => (SECTOR, "byte * 2^9"),
        };
        Element::new("Disk")
            .attr("ovf:capacity", (disk.size.bytes() / unit).to_string())
            .attr("ovf:capacityAllocationUnits", word)
            .attr("ovf:diskId", format!("vmdisk{}", number + 1))
            .attr("ovf:fileRef", format!("file{}", number + 1))
            .attr("ovf:format", STREAM)
    });
    section("DiskSection", "The disks").children_more(disks)
}

fn virtual_system(machine: &Machine, disks: usize) -> Element {
    let mut children = vec![Element::new("Name").text(&machine.name)];
    if !machine.description.is_empty() {
        children.push(
            section("AnnotationSection", "What it is")
                .children_more([Element::new("Annotation").text(&machine.description)]),
        );
    }
    children.push(product(machine));
    if let Some(eula) = &machine.eula {
        children.push(
            section("EulaSection", "The licence")
                .children_more([Element::new("License").text(eula)]),
        );
    }
    children.push(operating_system(&machine.os_id));
    children.push(hardware(machine, disks));
    section("VirtualSystem", "A virtual machine")
        .attr("ovf:id", &machine.name)
        .children_more(children)
}

fn product(machine: &Machine) -> Element {
    let mut children = vec![Element::new("Product").text(&machine.label)];
    if !machine.vendor.is_empty() {
        children.push(Element::new("Vendor").text(&machine.vendor));
    }
    children.push(Element::new("Version").text(&machine.version));
    children
        .push(Element::new("FullVersion").text(format!("{} {}", machine.name, machine.version)));
    if !machine.properties.is_empty() {
        children.push(Element::new("Category").text("Configuration"));
    }
    children.extend(machine.properties.iter().map(property));
    section("ProductSection", "What it is, and how it is configured").children_more(children)
}

/// A field of the form. Every one is a text to the hypervisor, since only a
/// text can be left empty, which means that nothing is configured by it.
fn property(property: &Property) -> Element {
    let choice = match property.kind {
        PropertyKind::Boolean => Some("ValueMap{\"\",\"true\",\"false\"}"),
        _ => None,
    };
    Element::new("Property")
        .attr("ovf:key", &property.name)
        .attr_if("ovf:qualifiers", choice)
        .attr("ovf:type", "string")
        .attr("ovf:userConfigurable", "true")
        .attr("ovf:value", "")
        .children([
            Element::new("Label").text(&property.label),
            Element::new("Description").text(&property.description),
        ])
}

/// Numbers are those of `CIM_OperatingSystem.OsType`; words are `VMware`'s. A
/// release that `VMware` does not know counts as the one before it.
fn operating_system(os_id: &str) -> Element {
    let (number, word) = match os_id {
        "debian11" => ("96", "debian11_64Guest"),
        "debian12" | "debian13" => ("96", "debian12_64Guest"),
        _ => ("101", "otherLinux64Guest"),
    };
    section("OperatingSystemSection", "The operating system")
        .attr("ovf:id", number)
        .attr("vmw:osType", word)
}

fn hardware(machine: &Machine, disks: usize) -> Element {
    let mut all = vec![system(machine)];
    let mut items = vec![
        processors(machine.vcpus),
        memory(machine.memory),
        // The words for SATA differ between VMware and VirtualBox; this one
        // is known to all.
        Item::new("SCSI controller", "6")
            .with("Address", "0")
            .with("ResourceSubType", "lsilogic"),
        Item::new("IDE controller", "5").with("Address", "0"),
    ];
    let (scsi, ide) = ((items.len() - 1).to_string(), items.len().to_string());
    items.extend(PLACES.iter().zip(1..=disks).map(|(place, number)| {
        Item::new(format!("Disk {number}"), "17")
            .with("AddressOnParent", place.to_string())
            .with("HostResource", format!("ovf:/disk/vmdisk{number}"))
            .with("Parent", &scsi)
    }));
    items.push(
        Item::new("CD drive", "15")
            .optional()
            .with("AddressOnParent", "0")
            .with("AutomaticAllocation", "false")
            .with("Parent", &ide)
            .with("ResourceSubType", "vmware.cdrom.remotepassthrough"),
    );
    items.extend((0..machine.nics).map(|number| {
        Item::new(format!("Network card {}", number + 1), "10")
            .with("AddressOnParent", (number + 7).to_string())
            .with("AutomaticAllocation", "true")
            .with("Connection", NETWORK)
            .with("ResourceSubType", "E1000")
    }));
    all.extend(
        (1_usize..)
            .zip(items)
            .map(|(number, item)| item.element(number)),
    );
    all.extend(config(machine));
    let transport = (!machine.properties.is_empty()).then_some("iso");
    section("VirtualHardwareSection", "The machine")
        .attr_if("ovf:transport", transport)
        .children_more(all)
}

/// Version 13 of `VMware`'s hardware is the first with Secure Boot.
fn system(machine: &Machine) -> Element {
    let kind = match machine.first_firmware() {
        Firmware::UefiSecure => "vmx-13",
        Firmware::Uefi | Firmware::Bios => "vmx-10",
    };
    Element::new("System").children([
        Element::new("vssd:ElementName").text("Virtual Hardware Family"),
        Element::new("vssd:InstanceID").text("0"),
        Element::new("vssd:VirtualSystemIdentifier").text(&machine.name),
        Element::new("vssd:VirtualSystemType").text(kind),
    ])
}

fn processors(count: u32) -> Item {
    Item::new(format!("{count} virtual CPU"), "3")
        .with("AllocationUnits", "hertz * 10^6")
        .with("VirtualQuantity", count.to_string())
}

fn memory(size: ByteSize) -> Item {
    let size = size.mib_ceil();
    Item::new(format!("{size} MB of memory"), "4")
        .with("AllocationUnits", "byte * 2^20")
        .with("VirtualQuantity", size.to_string())
}

/// What `VMware` is told beyond the standard.
fn config(machine: &Machine) -> Vec<Element> {
    let config = |key, value| {
        Element::new("vmw:Config")
            .attr("ovf:required", "false")
            .attr("vmw:key", key)
            .attr("vmw:value", value)
    };
    match machine.first_firmware() {
        Firmware::Bios => vec![config("firmware", "bios")],
        Firmware::Uefi => vec![config("firmware", "efi")],
        Firmware::UefiSecure => vec![
            config("firmware", "efi"),
            config("bootOptions.efiSecureBootEnabled", "true"),
        ],
    }
}

/// A device, its facts by the names of `CIM_ResourceAllocationSettingData`.
struct Item {
    facts: Vec<(&'static str, String)>,
    is_optional: bool,
}

/// The names of facts, in the order of the schema.
const FACTS: [(&str, &str); 11] = [
    ("Address", "rasd:Address"),
    ("AddressOnParent", "rasd:AddressOnParent"),
    ("AllocationUnits", "rasd:AllocationUnits"),
    ("AutomaticAllocation", "rasd:AutomaticAllocation"),
    ("Connection", "rasd:Connection"),
    ("ElementName", "rasd:ElementName"),
    ("HostResource", "rasd:HostResource"),
    ("InstanceID", "rasd:InstanceID"),
    ("Parent", "rasd:Parent"),
    ("ResourceSubType", "rasd:ResourceSubType"),
    ("ResourceType", "rasd:ResourceType"),
];
/// Comes last.
const QUANTITY: (&str, &str) = ("VirtualQuantity", "rasd:VirtualQuantity");

impl Item {
    fn new(name: impl Into<String>, kind: &str) -> Self {
        Self {
            facts: vec![
                ("ElementName", name.into()),
                ("ResourceType", kind.to_owned()),
            ],
            is_optional: false,
        }
    }

    fn with(mut self, fact: &'static str, value: impl AsRef<str>) -> Self {
        self.facts.push((fact, value.as_ref().to_owned()));
        self
    }

    /// Importers that do not know the device leave it out.
    fn optional(mut self) -> Self {
        self.is_optional = true;
        self
    }

    fn element(&self, number: usize) -> Element {
        let number = number.to_string();
        let value = |fact: &str| match fact {
            "InstanceID" => Some(number.as_str()),
            fact => {
                let mut facts = self.facts.iter();
                facts
                    .find(|(name, _)| *name == fact)
                    .map(|(_, value)| value.as_str())
            }
        };
        let children = FACTS
            .iter()
            .chain([&QUANTITY])
            .filter_map(|(fact, element)| Some(Element::new(element).text(value(fact)?)));
        Element::new("Item")
            .attr_if("ovf:required", self.is_optional.then_some("false"))
            .children(children)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::sample;
    use crate::digest::Digest;
    use crate::image::Sha1Hex;

    fn disks() -> Vec<PackedDisk> {
        let disk = |name: &str, mib| PackedDisk {
            file_name: name.into(),
            length: ByteSize::from_bytes(12_345),
            size: ByteSize::from_mib(mib),
            sha256: Digest::of(name.as_bytes()),
            sha1: Sha1Hex::of(name.as_bytes()),
        };
        vec![disk("wiki.vmdk", 4096), disk("wiki-data.vmdk", 8192)]
    }

    fn members(sum: ManifestSum) -> Vec<Member> {
        let machine = sample::machine();
        let package = Package::new(&machine, sum, None).expect("a package");
        package.members(&disks()).expect("members")
    }

    #[test]
    fn a_manifest_line_is_what_importers_read() {
        for (sum, digits) in [(ManifestSum::Sha256, 64), (ManifestSum::Sha1, 40)] {
            let members = members(sum);
            assert_eq!(members[0].name, "wiki.ovf");
            assert_eq!(members[1].name, "wiki.mf");
            let text = String::from_utf8(members[1].bytes.clone()).expect("text");
            let names: Vec<_> = text
                .lines()
                .map(|line| {
                    let (name, hex) = line.split_once(")= ").expect("an equals sign");
                    assert_eq!(hex.len(), digits);
                    name.strip_prefix(sum.name())
                        .and_then(|name| name.strip_prefix('('))
                })
                .collect();
            let all = ["wiki.ovf", "wiki.vmdk", "wiki-data.vmdk"].map(Some);
            assert_eq!(names, all);
        }
    }

    #[test]
    fn nothing_of_the_second_version_and_nothing_of_one_vendor_is_needed() {
        let members = members(ManifestSum::Sha256);
        let text = String::from_utf8(members[0].bytes.clone()).expect("text");
        for word in [
            "envelope/2",
            "StorageItem",
            "EthernetPortItem",
            "vbox:",
            ">32768<",
        ] {
            assert!(!text.contains(word), "{word} in\n{text}");
        }
        for line in text.lines().filter(|line| line.contains("<vmw:")) {
            assert!(line.contains("ovf:required=\"false\""), "{line}");
        }
    }

    #[test]
    fn more_disks_than_the_controller_has_places_are_refused() {
        let disk = |number| crate::descriptor::UserDisk {
            id: format!("data{number}"),
            size: ByteSize::from_mib(1),
        };
        let with = |count| Machine {
            user_disks: (0..count).map(disk).collect(),
            ..sample::machine()
        };
        let error = Package::new(&with(15), ManifestSum::Sha256, None).expect_err("too many");
        assert_eq!(error.slug(), "descriptor-disks");
        assert!(Package::new(&with(14), ManifestSum::Sha256, None).is_ok());
    }
}
