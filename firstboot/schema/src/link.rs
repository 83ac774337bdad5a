//! Interfaces, bonds and VLANs, and the addresses that each of them gets.

use std::net::IpAddr;

use crate::address::{IpNet, all, boolean, parse_host_address, parsed};
use crate::document::{Found, Section};
use crate::nic_match::NicMatch;
use crate::problem::Code;
use crate::report::{Finding, Report};

/// Addresses of one interface at most.
const MAX_ADDRESSES: usize = 32;
/// Interfaces at most; as many bonds, and as many VLANs.
const MAX_LINKS: usize = 64;
/// Members of one bond at most.
const MAX_MEMBERS: usize = 16;
/// Smallest link that carries IPv6 (RFC 8200 section 5).
const MIN_IPV6_MTU: i64 = 1280;

/// The addresses that an interface, a bond or a VLAN gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Whether IPv4 settings come by DHCP.
    pub dhcp4: bool,
    /// Whether IPv6 settings come by DHCP, besides router advertisements.
    pub dhcp6: bool,
    /// Fixed addresses, none doubled.
    pub addresses: Vec<IpNet>,
    /// Default gateways: at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Largest packet in bytes; the driver's default without.
    pub mtu: Option<u32>,
}

/// One `[[nic]]` table: how an interface, or one VLAN on it, is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The interface.
    pub matches: NicMatch,
    /// Its addresses.
    pub link: Link,
    /// VLAN 1 to 4094; the settings are those of the VLAN then.
    pub vlan: Option<u16>,
}

/// How a bond shares its members (Linux `Documentation/networking/bonding.rst`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BondMode {
    /// One member at a time; needs nothing of the switch.
    ActiveBackup,
    /// LACP; the switch must speak it on the same ports.
    Lacp,
    /// By a hash of the addresses, without LACP.
    BalanceXor,
    /// One packet after the other.
    BalanceRr,
    /// Outgoing traffic by load; needs nothing of the switch.
    BalanceTlb,
    /// Both directions by load; needs nothing of the switch.
    BalanceAlb,
}

impl BondMode {
    pub(crate) const NAMES: &[(&str, Self)] = &[
        ("active-backup", Self::ActiveBackup),
        ("802.3ad", Self::Lacp),
        ("balance-xor", Self::BalanceXor),
        ("balance-rr", Self::BalanceRr),
        ("balance-tlb", Self::BalanceTlb),
        ("balance-alb", Self::BalanceAlb),
    ];

    /// The kernel's and systemd-networkd's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        let named = Self::NAMES.iter().find(|(_, mode)| *mode == self);
        named.map_or("active-backup", |(name, _)| name)
    }

    fn parse(text: &str) -> Result<Self, Finding> {
        for (name, mode) in Self::NAMES {
            if *name == text {
                return Ok(*mode);
            }
        }
        let names: Vec<&str> = Self::NAMES.iter().map(|(name, _)| *name).collect();
        Err(Finding::invalid("this is not a way to bond interfaces")
            .allowed(names.join(", "))
            .remedy("write \"active-backup\", which needs nothing of the switch"))
    }
}

/// A `[bond.NAME]` table: several interfaces as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bond {
    /// Its name as a device, 15 characters at most.
    pub name: String,
    /// How it shares its members.
    pub mode: BondMode,
    /// Its interfaces, at least one, none doubled.
    pub members: Vec<NicMatch>,
    /// Its addresses; with none, only VLANs on it have some.
    pub link: Link,
}

/// What carries a VLAN.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum VlanParent {
    /// An interface.
    Nic(NicMatch),
    /// The bond of this name, which the file has.
    Bond(String),
}

/// A `[vlan.NAME]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vlan {
    /// Its name as a device, 15 characters at most.
    pub name: String,
    /// 1 to 4094.
    pub id: u16,
    /// What it is on.
    pub on: VlanParent,
    /// Its addresses.
    pub link: Link,
}

/// All links of a file.
#[derive(Debug, Default)]
pub(crate) struct Links {
    pub(crate) nics: Vec<Nic>,
    pub(crate) bonds: Vec<Bond>,
    pub(crate) vlans: Vec<Vlan>,
    /// Names of the bonds, those that are wrong too.
    bond_names: Vec<String>,
    /// Whether a bond's name is wrong, which may be the one that is meant.
    has_nameless_bond: bool,
}

/// A [`Link`] being checked: what later rules need places for.
struct ReadLink<'d> {
    section: Section<'d>,
    addresses: Vec<Found<IpNet>>,
    /// Empty where something about them has been said.
    gateways: Vec<Found<IpAddr>>,
}

/// Reads `[[nic]]`, `[bond]` and `[vlan]`, and judges them together.
pub(crate) fn read_links(root: &mut Section<'_>, report: &mut Report<'_>) -> Links {
    let mut links = Links::default();
    let mut read = Vec::new();
    for section in root.tables("nic", MAX_LINKS, report) {
        let (nic, link) = read_nic(section, report);
        note_same_nic(nic.as_ref(), &links.nics, &link, report);
        links.nics.extend(nic);
        read.push(link);
    }
    let mut names: Vec<String> = Vec::new();
    let before = report.count();
    let bonds = named(root, "bond", &mut names, report);
    links.has_nameless_bond = report.count() > before;
    links.bond_names.clone_from(&names);
    for (name, section) in bonds {
        let (bond, link) = read_bond(name, section, &links, report);
        links.bonds.extend(bond);
        read.push(link);
    }
    for (name, section) in named(root, "vlan", &mut names, report) {
        let (vlan, link) = read_vlan(name, section, &links, report);
        links.vlans.extend(vlan);
        read.push(link);
    }
    check_addresses(&read, report);
    for link in read {
        link.section.finish(report);
    }
    links
}

/// The tables of devices that the file names; names that cannot be are noted.
fn named<'d>(
    root: &mut Section<'d>,
    kind: &'static str,
    taken: &mut Vec<String>,
    report: &mut Report<'_>,
) -> Vec<(String, Section<'d>)> {
    let Some(section) = root.table(kind, report) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (name, value) in section.entries().take(MAX_LINKS) {
        let place = name.clone();
        let Some(name) = parsed(name, parse_device, report) else {
            continue;
        };
        if taken.contains(&name.value) {
            let finding = Finding::new(Code::Conflict, "a bond has this name already")
                .remedy("choose another name");
            place.note(report, finding);
        }
        if let Some(section) = value.table(report) {
            taken.push(name.value.clone());
            found.push((name.value, section));
        }
    }
    found
}

/// The name of a network device that is made here.
fn parse_device(text: &str) -> Result<String, Finding> {
    let is_name = (1..=15).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.'));
    // Names that the kernel and udev give to hardware.
    let hardware = ["eth", "en", "wl", "ww", "ib", "lo"];
    let is_hardware = hardware.iter().any(|prefix| {
        text.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.contains(|c: char| c.is_ascii_digit()))
    });
    if is_name && !is_hardware {
        return Ok(text.to_owned());
    }
    Err(Finding::invalid(if is_name {
        "interfaces of the machine have such names"
    } else {
        "this is not a name for a network device"
    })
    .allowed("a small letter, then small letters, digits, `.`, `_` and `-`, 15 at most")
    .remedy("write a name such as \"bond0\" or \"office\""))
}

fn read_match(section: &mut Section<'_>, report: &mut Report<'_>) -> Option<NicMatch> {
    // Most machines have one interface, and nobody should have to name it.
    match section.get("match") {
        Some(found) => NicMatch::read(found.table(report)?, report),
        None => Some(NicMatch::Position(1)),
    }
}

fn read_nic<'d>(mut section: Section<'d>, report: &mut Report<'_>) -> (Option<Nic>, ReadLink<'d>) {
    let matches = read_match(&mut section, report);
    let vlan = read_vlan_id(&mut section, "vlan", report);
    let (link, read) = read_link(section, Need::Addresses, report);
    let nic = matches.map(|matches| Nic {
        matches,
        link,
        vlan,
    });
    (nic, read)
}

fn read_vlan_id(
    section: &mut Section<'_>,
    key: &'static str,
    report: &mut Report<'_>,
) -> Option<u16> {
    let found = section.get(key)?.integer(&(1..=4094), report)?;
    u16::try_from(found.value).ok()
}

fn note_same_nic(nic: Option<&Nic>, before: &[Nic], link: &ReadLink<'_>, report: &mut Report<'_>) {
    let same = |other: &Nic| {
        nic.is_some_and(|nic| (&nic.matches, nic.vlan) == (&other.matches, other.vlan))
    };
    if before.iter().any(same) {
        let finding = Finding::new(
            Code::Conflict,
            "this interface has a `[[nic]]` table already",
        )
        .remedy("merge the two tables, or give one of them a `vlan`");
        link.section.note(report, finding);
    }
}

fn read_bond<'d>(
    name: String,
    mut section: Section<'d>,
    links: &Links,
    report: &mut Report<'_>,
) -> (Option<Bond>, ReadLink<'d>) {
    let mode = match section.get("mode") {
        Some(found) => found
            .text(report)
            .and_then(|found| parsed(found, BondMode::parse, report))
            .map(|found| found.value),
        None => Some(BondMode::ActiveBackup),
    };
    let has_members = section
        .require("members", "members = [{ slot = 1 }, { slot = 2 }]", report)
        .is_some();
    let mut members: Vec<NicMatch> = Vec::new();
    let before = report.count();
    let sections = section.tables("members", MAX_MEMBERS, report);
    if has_members && sections.is_empty() && report.count() == before {
        let finding = Finding::new(Code::OutOfRange, "a bond needs interfaces")
            .remedy("write members = [{ slot = 1 }, { slot = 2 }]");
        section.note(report, finding);
    }
    for member in sections {
        let place = member.place();
        let Some(matches) = NicMatch::read(member, report) else {
            continue;
        };
        let in_bond = |bond: &Bond| bond.members.contains(&matches);
        let is_doubled = members.contains(&matches) || links.bonds.iter().any(in_bond);
        let is_own = links.nics.iter().any(|nic| nic.matches == matches);
        if is_doubled || is_own {
            let finding = Finding::new(
                Code::Conflict,
                if is_doubled {
                    "this interface belongs to a bond already"
                } else {
                    "this interface has a `[[nic]]` table of its own"
                },
            )
            .remedy("name each interface once; the bond carries the addresses");
            place.note(report, finding);
        }
        members.push(matches);
    }
    let (link, read) = read_link(section, Need::Nothing, report);
    let bond = mode.map(|mode| Bond {
        name,
        mode,
        members,
        link,
    });
    (bond, read)
}

fn read_vlan<'d>(
    name: String,
    mut section: Section<'d>,
    links: &Links,
    report: &mut Report<'_>,
) -> (Option<Vlan>, ReadLink<'d>) {
    section.require("id", "id = 7", report);
    let id = read_vlan_id(&mut section, "id", report);
    let bond = section
        .get("bond")
        .map(|found| found.text(report))
        .map(|found| found.filter(|found| knows_bond(found, links, report)));
    if section.has("bond") && section.has("match") {
        let finding = Finding::new(Code::Conflict, "the VLAN is on two devices")
            .allowed("one of bond, match")
            .remedy("delete one of the two");
        section.note(report, finding);
    }
    let on = match bond {
        Some(found) => found.map(|found| VlanParent::Bond(found.value.to_owned())),
        None => read_match(&mut section, report).map(VlanParent::Nic),
    };
    section.get("match");
    let same = |vlan: &Vlan| Some(vlan.id) == id && Some(&vlan.on) == on.as_ref();
    let is_nic = |nic: &Nic| {
        nic.vlan.is_some() && nic.vlan == id && on == Some(VlanParent::Nic(nic.matches.clone()))
    };
    if links.vlans.iter().any(same) || links.nics.iter().any(is_nic) {
        let finding = Finding::new(Code::Conflict, "this VLAN has a table already")
            .remedy("merge the two tables");
        section.note(report, finding);
    }
    let (link, read) = read_link(section, Need::Addresses, report);
    let vlan = id.zip(on).map(|(id, on)| Vlan { name, id, on, link });
    (vlan, read)
}

fn knows_bond(found: &Found<&str>, links: &Links, report: &mut Report<'_>) -> bool {
    let names = &links.bond_names;
    let is_known = links.has_nameless_bond || names.iter().any(|name| name == found.value);
    if !is_known {
        let finding = Finding::new(Code::Conflict, "the file has no such bond")
            .allowed(names.join(", "))
            .remedy("add the bond, or write `match` for an interface");
        found.note(report, finding);
    }
    is_known
}

/// Whether a link may go without addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Addresses,
    Nothing,
}

fn read_link<'d>(
    mut section: Section<'d>,
    need: Need,
    report: &mut Report<'_>,
) -> (Link, ReadLink<'d>) {
    let is_set = ["dhcp4", "dhcp6", "address"]
        .iter()
        .any(|key| section.has(key));
    let before = report.count();
    let dhcp4 = boolean(&mut section, "dhcp4", report);
    let dhcp6 = boolean(&mut section, "dhcp6", report);
    let addresses = all(&mut section, "address", MAX_ADDRESSES, IpNet::parse, report);
    let gateways = all(&mut section, "gateway", 2, parse_host_address, report);
    let mtu = section
        .get("mtu")
        .and_then(|found| found.integer(&(576..=65_535), report));
    if report.count() > before {
        // What is wrong already must not be told a second time.
    } else if !addresses.is_empty() || dhcp4 || dhcp6 {
        check_gateways(&addresses, &gateways, report);
    } else if need == Need::Addresses && !is_set {
        let finding = Finding::new(Code::MissingKey, "the interface gets no address")
            .allowed("dhcp4, dhcp6, address")
            .remedy("add dhcp4 = true, or address = [\"10.1.2.10/24\"]");
        section.note(report, finding);
    } else if need == Need::Addresses {
        let finding = Finding::new(Code::Conflict, "DHCP is off, and there is no fixed address")
            .remedy("add dhcp4 = true, or address = [\"10.1.2.10/24\"]");
        section.note(report, finding);
    }
    if let Some(mtu) = &mtu {
        let carries_ipv6 = dhcp6 || addresses.iter().any(|found| found.value.address.is_ipv6());
        if carries_ipv6 && mtu.value < MIN_IPV6_MTU {
            let finding = Finding::new(Code::Conflict, "IPv6 needs packets of 1280 bytes or more")
                .allowed("1280 to 65535")
                .remedy("raise `mtu`, or leave the IPv6 address out");
            mtu.note(report, finding);
        }
    }
    let is_right = report.count() == before;
    let link = Link {
        dhcp4,
        dhcp6,
        addresses: addresses.iter().map(|found| found.value).collect(),
        gateways: gateways.iter().map(|found| found.value).collect(),
        mtu: mtu.and_then(|found| u32::try_from(found.value).ok()),
    };
    let read = ReadLink {
        section,
        addresses,
        gateways: if is_right { gateways } else { Vec::new() },
    };
    (link, read)
}

fn check_gateways(addresses: &[Found<IpNet>], gateways: &[Found<IpAddr>], report: &mut Report<'_>) {
    for (at, gateway) in gateways.iter().enumerate() {
        let family = |address: IpAddr| address.is_ipv4() == gateway.value.is_ipv4();
        if gateways.iter().take(at).any(|other| family(other.value)) {
            let finding = Finding::new(Code::Conflict, "there is a gateway of this family already")
                .allowed("one IPv4 and one IPv6 gateway")
                .remedy("delete one of them");
            gateway.note(report, finding);
            continue;
        }
        if addresses
            .iter()
            .any(|found| found.value.address == gateway.value)
        {
            let finding = Finding::new(Code::Conflict, "the gateway is the machine's own address")
                .remedy("write the router's address");
            gateway.note(report, finding);
            continue;
        }
        let is_link_local = matches!(gateway.value, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let mut nets = addresses
            .iter()
            .map(|found| found.value)
            .filter(|net| family(net.address))
            .peekable();
        let has_family = nets.peek().is_some();
        let reachable = nets.find(|net| net.contains(gateway.value));
        if is_link_local {
            continue;
        }
        if !has_family {
            let finding = Finding::new(
                Code::Conflict,
                "the gateway has no fixed address to go with it",
            )
            .remedy("add an `address` of the same family, or leave `gateway` to DHCP");
            gateway.note(report, finding);
        } else if reachable.is_none() {
            let finding = Finding::new(
                Code::Conflict,
                "the gateway is not in the network of any `address`",
            )
            .remedy("correct the gateway, or the length of the network after the `/`");
            gateway.note(report, finding);
        } else if reachable.is_some_and(|net| net.is_edge(gateway.value)) {
            let finding = Finding::new(
                Code::Conflict,
                "the gateway is the network's own or its broadcast address",
            )
            .remedy("write the router's address");
            gateway.note(report, finding);
        }
    }
}

/// Rules between the links: no address doubled, one default gateway a family.
fn check_addresses(links: &[ReadLink<'_>], report: &mut Report<'_>) {
    for (at, this) in links.iter().enumerate() {
        let before = links.get(..at).unwrap_or_default();
        for (nth, address) in this.addresses.iter().enumerate() {
            let own = this.addresses.iter().take(nth);
            let others = before.iter().flat_map(|other| other.addresses.iter());
            if own
                .chain(others)
                .any(|other| other.value.address == address.value.address)
            {
                let finding =
                    Finding::new(Code::Conflict, "this address stands in the file already")
                        .remedy("give each interface an address of its own");
                address.note(report, finding);
            }
        }
        for gateway in &this.gateways {
            let mut others = before.iter().flat_map(|other| &other.gateways);
            if others.any(|other| other.value.is_ipv4() == gateway.value.is_ipv4()) {
                let finding = Finding::new(
                    Code::Conflict,
                    "another interface has a default gateway already",
                )
                .remedy("keep the gateway on one interface");
                gateway.note(report, finding);
            }
        }
    }
}
