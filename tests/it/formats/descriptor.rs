//! The virt-image descriptor and the text beside it.
//!
//! The historic parser is gone from every distribution, so its way of reading
//! is repeated here: elements are looked up without namespaces, so whatever
//! has a prefix does not exist.

use std::fmt::Write as _;
use std::path::Path;

use consign::artifact::Artifact;
use consign::descriptor::libvirt::{
    Access, Bus, Chipset, Device, Domain, DomainDisk, Kernel, Nic, NicSource, Virt,
};
use consign::descriptor::{
    ConfigDisk, Direct, DiskFacts, Display, Firmware, Machine, Property, PropertyKind, UserDisk,
    libvirt, text, virt_image, write_all,
};
use consign::digest::{ContentRoot, Digest};
use consign::image::ImageFormat;
use consign::units::ByteSize;
use xml::reader::{EventReader, XmlEvent};

use crate::support::{Checker, golden, temp_folder};

pub(super) fn machine() -> Machine {
    Machine {
        name: "wiki".into(),
        version: "1.2.0".into(),
        label: "Wiki & notes".into(),
        description: "Pages <for> a team.\nÜber alles, with \"quotes\".".into(),
        memory: ByteSize::from_mib(1024),
        vcpus: 2,
        nics: 2,
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
        vendor: "Example Ltd".into(),
        eula: Some("Use it.\n\n\tAs you like.\n".into()),
        properties: vec![
            property("hostname", "system.hostname", PropertyKind::Text),
            property("dhcp", "nic.dhcp4", PropertyKind::Boolean),
        ],
        build: Digest::of(b"plan"),
    }
}

fn property(name: &str, key: &str, kind: PropertyKind) -> Property {
    Property {
        name: name.into(),
        label: key.into(),
        description: format!("What \"{name}\" is & does."),
        kind,
    }
}

fn direct() -> Direct {
    Direct {
        kernel: "vmlinuz".into(),
        initrd: "initrd".into(),
        command_line: "root=PARTUUID=1 console=hvc0 a=\"b & c\"".into(),
    }
}

fn disks() -> Vec<DiskFacts> {
    let facts = |file: &str, format, digest| DiskFacts {
        file: file.into(),
        format,
        size: ByteSize::from_mib(4096),
        digest,
        content_root: Some(ContentRoot(Digest::of(b"content"))),
    };
    vec![
        facts("wiki.raw", ImageFormat::Raw, None),
        facts("wiki.qcow2", ImageFormat::Qcow2, Some(Digest::of(b"image"))),
    ]
}

/// What a reader without namespaces sees: one line for each element with its
/// path, attributes in order and its text.
fn plain_meaning(document: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut path: Vec<String> = Vec::new();
    let mut hidden = 0_u32;
    for event in EventReader::new(document.as_bytes()) {
        match event.expect("well-formed") {
            XmlEvent::StartElement {
                name, attributes, ..
            } => {
                if hidden > 0 || name.namespace.is_some() {
                    hidden += 1;
                    continue;
                }
                path.push(name.local_name);
                let mut line = path.join("/");
                for attribute in attributes {
                    if attribute.name.namespace.is_none() {
                        let name = attribute.name.local_name;
                        write!(line, " {name}={:?}", attribute.value).expect("a string");
                    }
                }
                lines.push(line);
            }
            XmlEvent::Characters(text) if hidden == 0 => {
                let line = lines.last_mut().expect("text is in an element");
                write!(line, " {text:?}").expect("a string");
            }
            XmlEvent::EndElement { .. } if hidden > 0 => hidden -= 1,
            XmlEvent::EndElement { .. } => {
                path.pop();
            }
            _ => {}
        }
    }
    lines
}

/// The document without its `va` items, cut out as text. Relies on the
/// renderer's layout: one element a line.
fn without_va(document: &str) -> String {
    let mut kept = String::new();
    for line in document.lines() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("<va:") || trimmed.starts_with("</va:") {
            continue;
        }
        let mut line = line.replace(" xmlns:va=\"urn:consign:appliance:1\"", "");
        while let Some(start) = line.find(" va:") {
            let value = start + line[start..].find('"').expect("a value") + 1;
            let end = value + line[value..].find('"').expect("its end") + 1;
            line.replace_range(start..end, "");
        }
        kept.push_str(&line);
        kept.push('\n');
    }
    kept
}

#[test]
fn the_descriptor_is_the_golden_one() {
    let xml = virt_image::render(&machine(), &disks(), Some(&direct())).expect("renders");
    golden("descriptor/wiki.xml", &xml);
}

#[test]
fn the_text_is_the_golden_one() {
    let of = |format: ImageFormat| DiskFacts {
        file: format!("wiki.{format}"),
        format,
        ..disks().remove(1)
    };
    let mut all = disks();
    all.extend([ImageFormat::Vhdx, ImageFormat::Ova].map(of));
    let text = text::render(&machine(), &all).expect("renders");
    golden("descriptor/wiki.txt", &text);
}

#[test]
fn a_reader_without_namespaces_sees_a_machine_that_boots() {
    let xml = virt_image::render(&machine(), &disks(), Some(&direct())).expect("renders");
    let expected = [
        "image",
        r#"image/name version="1.2.0" "wiki""#,
        r#"image/label "Wiki & notes""#,
        r#"image/description "Pages <for> a team.\nÜber alles, with \"quotes\".""#,
        "image/domain",
        r#"image/domain/boot type="hvm""#,
        "image/domain/boot/guest",
        r#"image/domain/boot/guest/arch "x86_64""#,
        "image/domain/boot/os",
        r#"image/domain/boot/os/loader dev="hd""#,
        r#"image/domain/boot/drive disk="system""#,
        r#"image/domain/boot/drive disk="data""#,
        r#"image/domain/boot/drive disk="config""#,
        r#"image/domain/boot type="xen""#,
        "image/domain/boot/guest",
        r#"image/domain/boot/guest/arch "x86_64""#,
        "image/domain/boot/os",
        r#"image/domain/boot/os/kernel "vmlinuz""#,
        r#"image/domain/boot/os/initrd "initrd""#,
        r#"image/domain/boot/os/cmdline "root=PARTUUID=1 console=hvc0 a=\"b & c\"""#,
        r#"image/domain/boot/drive disk="system""#,
        r#"image/domain/boot/drive disk="data""#,
        r#"image/domain/boot/drive disk="config""#,
        "image/domain/devices",
        r#"image/domain/devices/vcpu "2""#,
        r#"image/domain/devices/memory "1048576""#,
        "image/domain/devices/interface",
        "image/domain/devices/interface",
        "image/domain/devices/graphics",
        "image/storage",
        r#"image/storage/disk id="system" file="wiki.qcow2" format="qcow2" size="4096" use="system""#,
        &format!(
            r#"image/storage/disk/checksum type="sha256" "{}""#,
            Digest::of(b"image").hex()
        ),
        r#"image/storage/disk id="data" file="wiki-data.raw" format="raw" size="8192" use="user""#,
        r#"image/storage/disk id="config" file="site.img" format="raw" size="16" use="user""#,
    ];
    assert_eq!(plain_meaning(&xml), expected);
}

#[test]
fn stripping_what_is_ours_leaves_the_plain_meaning_unchanged() {
    let xml = virt_image::render(&machine(), &disks(), Some(&direct())).expect("renders");
    let stripped = without_va(&xml);
    assert!(!stripped.contains("va:"), "{stripped}");
    assert_eq!(plain_meaning(&stripped), plain_meaning(&xml));
}

#[test]
fn xmllint_accepts_the_descriptor_but_not_a_shortened_one() {
    let folder = temp_folder();
    let written = write_all(&machine(), &disks(), None, folder.path()).expect("written");
    let names: Vec<_> = written.iter().map(Artifact::file_name).collect();
    assert_eq!(names, ["appliance.xml", "wiki.libvirt.xml", "IMPORT.txt"]);
    let descriptor = folder.path().join("appliance.xml");
    Checker::Xmllint.accepts(&descriptor);
    let xml = std::fs::read_to_string(&descriptor).expect("read");
    let short = folder.path().join("short.xml");
    std::fs::write(&short, &xml[..xml.len() - 5]).expect("write");
    Checker::Xmllint.rejects(&short);
}

#[test]
fn the_domain_is_the_golden_one() {
    let xml = libvirt::render_template(&machine(), &disks()).expect("renders");
    golden("descriptor/wiki.libvirt.xml", &xml);
}

/// Every kind of guest that a domain can say.
fn domains() -> Vec<Domain> {
    let mut all = Vec::new();
    for firmware in [Firmware::Bios, Firmware::Uefi, Firmware::UefiSecure] {
        let machine = Machine {
            firmware: vec![firmware],
            ..machine()
        };
        all.push(Domain::template(&machine, &disks()).expect("a domain"));
    }
    let bare = Machine {
        label: "two\nlines".into(),
        description: String::new(),
        nics: 0,
        display: Display::Headless,
        user_disks: vec![],
        os_id: "plan9".into(),
        ..machine()
    };
    all.push(Domain::template(&bare, &disks()).expect("a domain"));
    // What an importer fills in.
    let mut imported = all[0].clone();
    imported.uuid = Some("7a2b5c7e-2f3c-4a7e-9b1d-0c8f1e2d3a4b".into());
    imported.virt = Virt::Qemu;
    imported.chipset = Chipset::Pc;
    imported.boot = Device::CdRom;
    imported.serial_log = Some("/var/log/wiki.log".into());
    imported.kernel = Some(Kernel {
        kernel: "/srv/vmlinuz".into(),
        initrd: Some("/srv/initrd".into()),
        command_line: Some("root=PARTUUID=1 console=hvc0".into()),
    });
    for bus in [Bus::Virtio, Bus::Scsi, Bus::Sata, Bus::Ide] {
        imported.disks.push(DomainDisk {
            serial: Some("consign-config".into()),
            access: Access::ReadOnly,
            ..DomainDisk::new("/srv/a & b/\"disk\".raw", "raw", bus)
        });
    }
    imported.disks.push(DomainDisk {
        device: Device::CdRom,
        ..DomainDisk::new("/srv/tools.iso", "raw", Bus::Ide)
    });
    let nic = |source, mac: Option<&str>| Nic {
        source,
        model: "e1000".into(),
        mac: mac.map(str::to_owned),
    };
    imported.nics = vec![
        nic(NicSource::Network("office".into()), None),
        nic(NicSource::Bridge("br0".into()), Some("52:54:00:12:34:56")),
        nic(NicSource::User, None),
    ];
    all.push(imported);
    all
}

#[test]
fn libvirts_schema_accepts_every_domain_but_not_a_damaged_one() {
    let folder = temp_folder();
    let file = folder.path().join("domain.xml");
    for domain in domains() {
        let xml = libvirt::render(&domain).expect("renders");
        std::fs::write(&file, &xml).expect("write");
        Checker::LibvirtDomain.accepts(&file);
        for (good, bad) in [
            ("<memory unit=\"MiB\">", "<memory unit=\"MoB\">"),
            ("bus=\"virtio\"", "bus=\"virtual\""),
            ("<source file=\"/", "<source file=\""),
            ("arch=\"x86_64\"", "arch=\"x86 64\""),
        ] {
            let damaged = xml.replacen(good, bad, 1);
            assert_ne!(damaged, xml, "no {good} in\n{xml}");
            std::fs::write(&file, damaged).expect("write");
            Checker::LibvirtDomain.rejects(&file);
        }
    }
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let error =
        write_all(&machine(), &disks(), None, Path::new("/nonexistent")).expect_err("no folder");
    assert_eq!(
        error.to_string(),
        "cannot write `/nonexistent/appliance.xml`"
    );
    assert_eq!(error.class().code(), 1);
}
