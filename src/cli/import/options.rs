//! The options of an import, in the spellings of three generations.

use std::collections::BTreeMap;

use crate::descriptor::Firmware;
use crate::import::descriptor::Paths;
use crate::import::wishes::{
    Board, Bus, CloneKind, Graphics, Memory, Network, NicWish, NicWishes, Virt,
};
use crate::units::ByteSize;

/// What the guest is to be.
#[derive(Debug, Clone, Default, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
pub(super) struct GuestOptions {
    /// Its name, instead of the descriptor's.
    #[arg(short, long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Its UUID.
    #[arg(short, long, value_name = "UUID", value_parser = uuid)]
    pub(super) uuid: Option<String>,
    /// Memory in MiB, or with a unit; `,maxmemory=MIB` for more later.
    #[arg(short = 'r', long, visible_alias = "ram", value_name = "MIB", value_parser = memory)]
    pub(super) memory: Option<Memory>,
    /// Virtual processors.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) vcpus: Option<u32>,
    /// The processor: `host-passthrough`, `host-model`, `maximum`, or a model.
    #[arg(long, value_name = "MODEL", value_parser = word)]
    pub(super) cpu: Option<String>,
    #[arg(long, hide = true, value_parser = cpuset)]
    pub(super) cpuset: Option<String>,
    /// A network card: `NAME` of a network, `bridge=NAME`, `user`, `none`; with
    /// `,model=MODEL` and `,mac=MAC`. Repeat it for more.
    #[arg(short = 'w', long, value_name = "NETWORK", value_parser = network)]
    pub(super) network: Vec<NetworkOption>,
    /// A network card on this bridge.
    #[arg(short = 'b', long, value_name = "BRIDGE", value_parser = word, conflicts_with = "network")]
    pub(super) bridge: Vec<String>,
    /// The address of a network card.
    #[arg(short = 'm', long, value_name = "MAC", value_parser = mac)]
    pub(super) mac: Vec<String>,
    /// Another network instead of one called NAME: `NAME=bridge=br0`.
    #[arg(long, value_name = "NAME=NETWORK", value_parser = mapping)]
    pub(super) map_network: Vec<(String, Network)>,
    /// A screen: `vnc`, `spice`, `none`; with `,port=` and `,listen=`.
    #[arg(long, value_name = "TYPE", value_parser = graphics)]
    pub(super) graphics: Option<Graphics>,
    /// A screen by VNC.
    #[arg(long, conflicts_with = "graphics")]
    pub(super) vnc: bool,
    /// No screen.
    #[arg(long, conflicts_with_all = ["graphics", "vnc"])]
    pub(super) nographics: bool,
    #[arg(long, hide = true, conflicts_with = "graphics")]
    pub(super) sdl: bool,
    #[arg(long, hide = true, requires = "vnc")]
    pub(super) vncport: Option<u16>,
    #[arg(long, hide = true, requires = "vnc", value_parser = word)]
    pub(super) vnclisten: Option<String>,
    #[arg(short = 'k', long, hide = true, value_parser = word)]
    pub(super) keymap: Option<String>,
    /// The boot descriptor, counted from 0, instead of the first that fits.
    #[arg(long, value_name = "N")]
    pub(super) boot: Option<usize>,
    /// The operating system, by its short id (`debian12`).
    #[arg(long, value_name = "ID", value_parser = word)]
    pub(super) os_variant: Option<String>,
    #[arg(long, hide = true)]
    pub(super) os_type: Option<String>,
    #[arg(long, hide = true)]
    pub(super) noapic: bool,
    #[arg(long, hide = true)]
    pub(super) noacpi: bool,
    /// What starts before the disk; `auto` takes the first of the descriptor's
    /// that this host has.
    #[arg(long, value_enum, default_value_t = FirmwareOption::Auto)]
    pub(super) firmware: FirmwareOption,
    /// The board.
    #[arg(long, value_enum, value_name = "BOARD")]
    pub(super) machine: Option<BoardOption>,
    /// How disks are attached.
    #[arg(long, value_enum, value_name = "BUS")]
    pub(super) bus: Option<BusOption>,
    /// What runs the guest's instructions; `auto` uses KVM where a guest of
    /// five instructions runs in it.
    #[arg(long, value_enum, default_value_t = VirtOption::Auto)]
    pub(super) virt_type: VirtOption,
    /// How disks are copied. The vendor's files are never used in place.
    #[arg(long, value_enum, default_value_t = CloneOption::Full)]
    pub(super) clone: CloneOption,
    /// The size of a disk: `ID:size=20GiB`.
    #[arg(long, value_name = "ID:size=SIZE", value_parser = disk_size)]
    pub(super) disk: Vec<(String, ByteSize)>,
    /// Starts the guest whenever the host starts.
    #[arg(long)]
    pub(super) autostart: bool,
    /// Follows paths that lead out of the descriptor's folder, and links.
    #[arg(long)]
    pub(super) trust_paths: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum FirmwareOption {
    /// The first that fits.
    #[default]
    Auto,
    /// PC BIOS.
    Bios,
    /// UEFI without Secure Boot.
    Uefi,
    /// UEFI with Secure Boot, which verifies the kernel only.
    UefiSecure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum BoardOption {
    /// PCI Express.
    Q35,
    /// i440fx.
    Pc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum BusOption {
    /// virtio block devices.
    Virtio,
    /// virtio SCSI.
    Scsi,
    /// AHCI.
    Sata,
    /// Parallel ATA.
    Ide,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum VirtOption {
    /// KVM where it works.
    #[default]
    Auto,
    /// KVM.
    Kvm,
    /// Emulation.
    Qemu,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum CloneOption {
    /// A copy; it shares blocks where the file system can.
    #[default]
    Full,
    /// Only changes, on top of the vendor's file, which has to stay as it is.
    Overlay,
    /// A copy that shares blocks, or an error.
    Reflink,
}

impl CloneOption {
    pub(super) fn kind(self) -> CloneKind {
        match self {
            Self::Full => CloneKind::Full,
            Self::Overlay => CloneKind::Overlay,
            Self::Reflink => CloneKind::Reflink,
        }
    }
}

/// One `--network`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NetworkOption {
    None,
    One(NicWish),
}

impl GuestOptions {
    pub(super) fn nics(&self) -> NicWishes {
        if self.network.contains(&NetworkOption::None) {
            return NicWishes::None;
        }
        let mut wishes: Vec<NicWish> = Vec::new();
        for option in &self.network {
            if let NetworkOption::One(wish) = option {
                wishes.push(wish.clone());
            }
        }
        wishes.extend(self.bridge.iter().map(|name| NicWish {
            network: Some(Network::Bridge(name.clone())),
            model: None,
            mac: None,
        }));
        for (index, mac) in self.mac.iter().enumerate() {
            match wishes.get_mut(index) {
                Some(wish) => wish.mac = Some(mac.clone()),
                None => wishes.push(NicWish {
                    network: None,
                    model: None,
                    mac: Some(mac.clone()),
                }),
            }
        }
        if wishes.is_empty() {
            NicWishes::Descriptor
        } else {
            NicWishes::First(wishes)
        }
    }

    pub(super) fn map(&self) -> BTreeMap<String, Network> {
        self.map_network.iter().cloned().collect()
    }

    pub(super) fn screen(&self) -> Option<Graphics> {
        if self.nographics {
            return Some(Graphics::None);
        }
        if self.sdl {
            return Some(Graphics::Sdl);
        }
        if self.vnc {
            return Some(Graphics::Vnc {
                port: self.vncport,
                listen: self.vnclisten.clone(),
                keymap: self.keymap.clone(),
            });
        }
        self.graphics.clone()
    }

    pub(super) fn firmware(&self) -> Option<Firmware> {
        match self.firmware {
            FirmwareOption::Auto => None,
            FirmwareOption::Bios => Some(Firmware::Bios),
            FirmwareOption::Uefi => Some(Firmware::Uefi),
            FirmwareOption::UefiSecure => Some(Firmware::UefiSecure),
        }
    }

    pub(super) fn board(&self) -> Option<Board> {
        self.machine.map(|board| match board {
            BoardOption::Q35 => Board::Q35,
            BoardOption::Pc => Board::Pc,
        })
    }

    pub(super) fn bus(&self) -> Option<Bus> {
        self.bus.map(|bus| match bus {
            BusOption::Virtio => Bus::Virtio,
            BusOption::Scsi => Bus::Scsi,
            BusOption::Sata => Bus::Sata,
            BusOption::Ide => Bus::Ide,
        })
    }

    pub(super) fn virt(&self) -> Virt {
        match self.virt_type {
            VirtOption::Auto => Virt::Auto,
            VirtOption::Kvm => Virt::Kvm,
            VirtOption::Qemu => Virt::Qemu,
        }
    }

    pub(super) fn paths(&self) -> Paths {
        if self.trust_paths {
            Paths::Trusted
        } else {
            Paths::Contained
        }
    }

    pub(super) fn without(&self) -> Vec<&'static str> {
        let flags = [(self.noacpi, "acpi"), (self.noapic, "apic")];
        let on = flags.into_iter().filter(|(is_on, _)| *is_on);
        on.map(|(_, name)| name).collect()
    }
}

/// Words that go into XML and command lines.
fn word(text: &str) -> Result<String, String> {
    let is_plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '+' | ',');
    if !text.is_empty() && text.len() <= 128 && text.chars().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err("write letters, digits, `.`, `-`, `_`".into())
    }
}

fn cpuset(text: &str) -> Result<String, String> {
    let is_set = |c: char| c.is_ascii_digit() || matches!(c, ',' | '-' | '^');
    if !text.is_empty() && text.chars().all(is_set) {
        Ok(text.to_owned())
    } else {
        Err("write processors as `0-3,^2`".into())
    }
}

fn uuid(text: &str) -> Result<String, String> {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    let is_uuid =
        groups == [8, 4, 4, 4, 12] && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
    if is_uuid {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("write it as 01234567-89ab-cdef-0123-456789abcdef".into())
    }
}

fn mac(text: &str) -> Result<String, String> {
    let is_pair = |pair: &str| pair.len() == 2 && pair.chars().all(|c| c.is_ascii_hexdigit());
    let pairs: Vec<&str> = text.split(':').collect();
    if pairs.len() == 6 && pairs.iter().all(|pair| is_pair(pair)) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("write it as 52:54:00:12:34:56".into())
    }
}

/// Most memory that is believed.
const MOST_MEMORY: ByteSize = ByteSize::from_mib(64 << 20);

fn mebibytes(text: &str) -> Result<ByteSize, String> {
    let size = match text.parse::<u64>() {
        Ok(mib) if mib <= MOST_MEMORY.mib_ceil() => ByteSize::from_mib(mib),
        Ok(_) => return Err("that is more than any machine has".into()),
        Err(_) => ByteSize::parse(text).map_err(|error| error.to_string())?,
    };
    if size == ByteSize::ZERO || size > MOST_MEMORY {
        return Err("write 1 MiB to 64 TiB".into());
    }
    Ok(size)
}

fn memory(text: &str) -> Result<Memory, String> {
    let mut parts = text.split(',');
    let now = mebibytes(parts.next().unwrap_or_default())?;
    let mut most = now;
    for part in parts {
        match part.split_once('=') {
            Some(("maxmemory" | "maxmem", value)) => most = mebibytes(value)?,
            _ => return Err(format!("`{part}` is not known; known is maxmemory=MIB")),
        }
    }
    if most < now {
        return Err("maxmemory is less than the memory".into());
    }
    Ok(Memory { now, most })
}

/// `NAME`, `network=NAME`, `network:NAME`, `bridge=NAME`, `bridge:NAME`, `user`.
fn place(text: &str) -> Result<Network, String> {
    if text == "user" {
        return Ok(Network::User);
    }
    match text.split_once(['=', ':']) {
        Some(("network", name)) => Ok(Network::Named(word(name)?)),
        Some(("bridge", name)) => Ok(Network::Bridge(word(name)?)),
        Some((other, _)) => Err(format!(
            "`{other}` is not known; known are network, bridge, user"
        )),
        None => Ok(Network::Named(word(text)?)),
    }
}

fn network(text: &str) -> Result<NetworkOption, String> {
    let mut parts = text.split(',');
    let first = parts.next().unwrap_or_default();
    if first == "none" {
        return Ok(NetworkOption::None);
    }
    let mut wish = NicWish {
        network: Some(place(first)?),
        model: None,
        mac: None,
    };
    for part in parts {
        match part.split_once('=') {
            Some(("model", value)) => wish.model = Some(word(value)?),
            Some(("mac", value)) => wish.mac = Some(mac(value)?),
            _ => return Err(format!("`{part}` is not known; known are model=, mac=")),
        }
    }
    Ok(NetworkOption::One(wish))
}

fn mapping(text: &str) -> Result<(String, Network), String> {
    let (name, network) = text
        .split_once('=')
        .ok_or("write NAME=NETWORK, for example default=bridge=br0")?;
    Ok((word(name)?, place(network)?))
}

fn graphics(text: &str) -> Result<Graphics, String> {
    let mut parts = text.split(',');
    let (mut port, mut listen, mut keymap) = (None, None, None);
    let kind = parts.next().unwrap_or_default();
    for part in parts {
        match part.split_once('=') {
            Some(("port", value)) => {
                port = Some(value.parse().map_err(|_| format!("`{value}` is no port"))?);
            }
            Some(("listen", value)) => listen = Some(word(value)?),
            Some(("keymap", value)) => keymap = Some(word(value)?),
            _ => {
                return Err(format!(
                    "`{part}` is not known; known are port=, listen=, keymap="
                ));
            }
        }
    }
    match kind {
        "vnc" => Ok(Graphics::Vnc {
            port,
            listen,
            keymap,
        }),
        "spice" => Ok(Graphics::Spice),
        "sdl" => Ok(Graphics::Sdl),
        "none" => Ok(Graphics::None),
        other => Err(format!(
            "`{other}` is not known; known are vnc, spice, sdl, none"
        )),
    }
}

fn disk_size(text: &str) -> Result<(String, ByteSize), String> {
    let (id, size) = text
        .rsplit_once(":size=")
        .filter(|(id, _)| !id.is_empty())
        .ok_or("write ID:size=SIZE, for example data:size=20GiB")?;
    let size = ByteSize::parse(size).map_err(|error| error.to_string())?;
    let size = size.round_up(512).ok_or("that is too large")?;
    if size == ByteSize::ZERO || size > ByteSize::from_mib(64 << 20) {
        return Err("write up to 64TiB".into());
    }
    Ok((id.to_owned(), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_three_generations() {
        let one = |network| {
            NetworkOption::One(NicWish {
                network: Some(network),
                model: None,
                mac: None,
            })
        };
        for (text, network) in [
            ("default", Network::Named("default".into())),
            ("network:default", Network::Named("default".into())),
            ("network=isolated", Network::Named("isolated".into())),
            ("bridge:xenbr0", Network::Bridge("xenbr0".into())),
            ("bridge=br0", Network::Bridge("br0".into())),
            ("user", Network::User),
        ] {
            assert_eq!(super::network(text), Ok(one(network)), "{text}");
        }
        assert_eq!(network("none"), Ok(NetworkOption::None));
        let Ok(NetworkOption::One(wish)) = network("user,model=e1000,mac=52:54:00:AA:00:01") else {
            panic!("a card");
        };
        assert_eq!(wish.model.as_deref(), Some("e1000"));
        assert_eq!(wish.mac.as_deref(), Some("52:54:00:aa:00:01"));
        assert!(network("vhostuser=x").is_err());
        assert!(network("user,nonsense").is_err());
        assert!(network("a'b").is_err());
    }

    #[test]
    fn memory_is_mib_without_a_unit() {
        let of = |now, most| {
            Ok(Memory {
                now: ByteSize::from_mib(now),
                most: ByteSize::from_mib(most),
            })
        };
        assert_eq!(memory("64"), of(64, 64));
        assert_eq!(memory("128,maxmemory=256"), of(128, 256));
        assert_eq!(memory("1GiB"), of(1024, 1024));
        for wrong in [
            "",
            "0",
            "x",
            "99999999999999999999",
            "256,maxmemory=128",
            "1,y=2",
        ] {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_disk_may_have_a_colon_in_its_name() {
        let size = ByteSize::from_mib(1024);
        assert_eq!(disk_size("a:b:size=1GiB"), Ok(("a:b".into(), size)));
        for wrong in ["data", ":size=1GiB", "data:size=0", "data:size=x"] {
            assert!(disk_size(wrong).is_err(), "{wrong}");
        }
    }
}
