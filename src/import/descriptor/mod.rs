//! Reads a virt-image descriptor, ours or anybody's.
//!
//! Source: `virtinst/virtimage.py` of virt-manager 1.0, the only norm. What
//! that parser accepts is accepted here, with its quirks (the name of a disk
//! without a file, empty as good as missing, a `use` of any word), except:
//! document types, paths out of the folder, checksums of unknown types, disks
//! of one name, numbers beyond any machine. White space around names and
//! checksums is forgiven, as is a checksum in capitals.
//!
//! What stands in the namespace `urn:consign:appliance:1` is advice: without it there is
//! still a machine.

mod reader;

use std::fmt;

use crate::descriptor::Firmware;
use crate::digest::Digest;
use crate::units::ByteSize;

pub use reader::read;

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
