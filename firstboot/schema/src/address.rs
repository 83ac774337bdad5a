//! Network interfaces and their addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use toml::de::DeValue;

use crate::document::{Found, Section};
use crate::name::{HostName, text_type};
use crate::problem::Code;
use crate::report::{Finding, Report};

/// Addresses of one interface at most.
const MAX_ADDRESSES: usize = 32;
/// Interfaces at most.
pub(crate) const MAX_NICS: usize = 64;
/// Smallest link that carries IPv6 (RFC 8200 section 5).
const MIN_IPV6_MTU: i64 = 1280;

/// A hardware address of six bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    fn parse(text: &str) -> Result<Self, Finding> {
        let refuse = |message: &str| {
            Err(Finding::invalid(message)
                .allowed("six pairs of hexadecimal digits")
                .remedy("write it as \"52:54:00:12:34:56\""))
        };
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts.next().unwrap_or_default();
            let is_pair = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            *byte = match u8::from_str_radix(part, 16) {
                Ok(byte) if is_pair => byte,
                _ => return refuse("this is not a hardware address"),
            };
        }
        if parts.next().is_some() {
            return refuse("this is not a hardware address");
        }
        if bytes == [0; 6] || bytes[0] & 1 != 0 {
            return refuse("this hardware address cannot belong to one interface");
        }
        Ok(Self(bytes))
    }

    /// The bytes in the order of transmission.
    #[must_use]
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

/// An interface's address with the length of its network prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IpNet {
    /// The address of the interface itself.
    pub address: IpAddr,
    /// Bits of the network, 1 to 32 or 1 to 128.
    pub prefix: u8,
}

impl IpNet {
    fn parse(text: &str) -> Result<Self, Finding> {
        let refuse = |message: &str, remedy: &str| {
            Err(Finding::invalid(message)
                .allowed("an address and the length of its network, such as 10.1.2.10/24")
                .remedy(remedy))
        };
        let Some((address, prefix)) = text.split_once('/') else {
            return match text.parse::<IpAddr>() {
                Ok(_) => refuse(
                    "the address has no network length",
                    "add the length, for example \"/24\"",
                ),
                Err(_) => refuse("this is not an address", "write it as \"10.1.2.10/24\""),
            };
        };
        let Ok(address) = address.parse::<IpAddr>() else {
            return refuse("this is not an address", "write it as \"10.1.2.10/24\"");
        };
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix.parse::<u8>() {
            Ok(length) if (1..=bits).contains(&length) && !prefix.starts_with(['+', '0']) => length,
            _ => {
                return refuse(
                    &format!("the network length is not a number from 1 to {bits}"),
                    "write the number of bits, for example \"/24\" for 255.255.255.0",
                );
            }
        };
        let net = Self { address, prefix };
        if !is_host(address) {
            return refuse(
                "this address cannot belong to an interface",
                "write the machine's own address",
            );
        }
        if net.is_edge(address) {
            return refuse(
                "this is the network's own or its broadcast address",
                "write the machine's own address within the network",
            );
        }
        Ok(net)
    }

    /// Whether `other` lies in the same network.
    #[must_use]
    pub fn contains(self, other: IpAddr) -> bool {
        let (Some(a), Some(b)) = (self.network(self.address), self.network(other)) else {
            return false;
        };
        self.address.is_ipv4() == other.is_ipv4() && a == b
    }

    /// The network's bits of `address`, right-aligned.
    fn network(self, address: IpAddr) -> Option<u128> {
        match address {
            IpAddr::V4(v4) => {
                u128::from(v4.to_bits()).checked_shr(32 - u32::from(self.prefix.min(32)))
            }
            IpAddr::V6(v6) => v6.to_bits().checked_shr(128 - u32::from(self.prefix)),
        }
    }

    /// Whether `address`, of this network, is its first or its last IPv4
    /// address; networks of one or two addresses have no such (RFC 3021).
    fn is_edge(self, address: IpAddr) -> bool {
        let IpAddr::V4(v4) = address else {
            return false;
        };
        if self.prefix >= 31 {
            return false;
        }
        let host = u32::MAX >> self.prefix;
        matches!(v4.to_bits() & host, bits if bits == 0 || bits == host)
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Whether one machine can own or be reached at the address.
fn is_host(address: IpAddr) -> bool {
    let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    match address {
        IpAddr::V4(v4) => {
            !special && v4 != Ipv4Addr::BROADCAST && v4.octets()[0] != 0 && v4.octets()[0] < 224
        }
        IpAddr::V6(v6) => !special && v6.to_ipv4_mapped().is_none() && v6 != Ipv6Addr::UNSPECIFIED,
    }
}

pub(crate) fn parse_host_address(text: &str) -> Result<IpAddr, Finding> {
    let example = "write an address such as \"10.1.2.1\" or \"fd00::1\"";
    match text.parse::<IpAddr>() {
        Ok(address) if is_host(address) => Ok(address),
        Ok(_) => Err(Finding::invalid("this address cannot belong to one machine").remedy(example)),
        Err(_) if text.contains('/') => Err(Finding::invalid(
            "an address without a network length is expected here",
        )
        .remedy(example)),
        Err(_) => Err(Finding::invalid("this is not an address").remedy(example)),
    }
}

/// Another machine, by name or by address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(String);
text_type!(Endpoint);

impl Endpoint {
    pub(crate) fn parse(text: &str) -> Result<Self, Finding> {
        let looks_like_address = text.contains(':') || text.ends_with(|c: char| c.is_ascii_digit());
        if looks_like_address && let Ok(address) = parse_host_address(text) {
            return Ok(Self(address.to_string()));
        }
        HostName::parse(text)
            .map(|name| Self(name.to_string()))
            .map_err(|_| {
                Finding::invalid("this is neither a host name nor an address")
                    .remedy("write a name such as \"time.example.org\" or an address")
            })
    }
}

/// Which interface a `[[nic]]` table means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum NicMatch {
    /// The one with this hardware address.
    Mac(MacAddr),
    /// The one in this place, from 1, in the order of the PCI addresses.
    Position(u8),
    /// The one at this PCI address, written as `0000:00:03.0`.
    Slot(String),
    /// Those whose name matches; `*`, `?` and `[..]` as in a shell.
    Name(String),
}

impl NicMatch {
    fn read(found: Found<&DeValue<'_>>, report: &mut Report<'_>) -> Option<Self> {
        let mut section = found.table(report)?;
        let mac = section.get("mac").map(|found| {
            let text = found.text(report)?;
            parsed(text, MacAddr::parse, report).map(|found| Self::Mac(found.value))
        });
        let slot = section.get("slot").map(|found| {
            if let DeValue::Integer(_) = found.value {
                let place = found.integer(&(1..=64), report)?;
                return u8::try_from(place.value).ok().map(Self::Position);
            }
            let text = found.text(report)?;
            parsed(text, parse_slot, report).map(|found| Self::Slot(found.value))
        });
        let name = section.get("name").map(|found| {
            let text = found.text(report)?;
            parsed(text, parse_pattern, report).map(|found| Self::Name(found.value))
        });
        let given: Vec<Option<Self>> = [mac, slot, name].into_iter().flatten().collect();
        if given.len() != 1 {
            let message = if given.is_empty() {
                "the interface is not named"
            } else {
                "the interface is named in two ways"
            };
            let finding = Finding::new(Code::Conflict, message)
                .allowed("one of mac, slot, name")
                .remedy("write for example match = { slot = 1 }");
            section.note(report, finding);
        }
        section.finish(report);
        given.into_iter().next().flatten()
    }
}

/// A PCI address: domain (may be left out), bus, device, function.
fn parse_slot(text: &str) -> Result<String, Finding> {
    let full = match text.split(':').count() {
        2 => format!("0000:{text}"),
        _ => text.to_owned(),
    };
    // Every digit stands for itself, every other character for its place.
    let shape: String = full
        .chars()
        .map(|c| {
            if matches!(c, '0'..='9' | 'a'..='f') {
                'x'
            } else {
                c
            }
        })
        .collect();
    let is_slot = shape == "xxxx:xx:xx.x";
    if is_slot {
        return Ok(full);
    }
    Err(Finding::invalid("this is not a PCI address")
        .allowed("a number from 1, or domain:bus:device.function in small hexadecimal digits")
        .remedy("write 1 for the first interface, or an address such as \"0000:00:03.0\""))
}

fn parse_pattern(text: &str) -> Result<String, Finding> {
    let is_pattern = (1..=15).contains(&text.len())
        && text.bytes().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'.' | b'_' | b'-' | b'*' | b'?' | b'[' | b']')
        });
    if !is_pattern {
        return Err(Finding::invalid("this is not the name of an interface")
            .allowed("up to 15 letters, digits, `.`, `_`, `-`, and the patterns `*`, `?`, `[..]`")
            .remedy("write a name such as \"eth0\" or a pattern such as \"en*\""));
    }
    if text == "lo" {
        return Err(
            Finding::invalid("the loopback interface is not configured here")
                .remedy("name a network interface"),
        );
    }
    Ok(text.to_owned())
}

/// One `[[nic]]` table: how an interface, or one VLAN on it, is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The interface.
    pub matches: NicMatch,
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
    /// VLAN 1 to 4094; the settings are those of the VLAN then.
    pub vlan: Option<u16>,
}

/// A [`Nic`] being checked: what later rules need places for.
pub(crate) struct ReadNic<'d> {
    pub(crate) nic: Nic,
    pub(crate) section: Section<'d>,
    pub(crate) addresses: Vec<Found<IpNet>>,
    /// Empty where something about them has been said.
    pub(crate) gateways: Vec<Found<IpAddr>>,
}

/// Reads one `[[nic]]` table; `None` when too little of it is right to go on.
pub(crate) fn read_nic<'d>(
    mut section: Section<'d>,
    report: &mut Report<'_>,
) -> Option<ReadNic<'d>> {
    // Most machines have one interface, and nobody should have to name it.
    let matches = match section.get("match") {
        Some(found) => NicMatch::read(found, report),
        None => Some(NicMatch::Position(1)),
    };
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
    let vlan = section
        .get("vlan")
        .and_then(|found| found.integer(&(1..=4094), report));
    if report.count() > before {
        // What is wrong already must not be told a second time.
    } else if !is_set {
        let finding = Finding::new(Code::MissingKey, "the interface gets no address")
            .allowed("dhcp4, dhcp6, address")
            .remedy("add dhcp4 = true, or address = [\"10.1.2.10/24\"]");
        section.note(report, finding);
    } else if !addresses.is_empty() || dhcp4 || dhcp6 {
        check_gateways(&addresses, &gateways, report);
    } else {
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
    let nic = Nic {
        matches: matches?,
        dhcp4,
        dhcp6,
        addresses: addresses.iter().map(|found| found.value).collect(),
        gateways: gateways.iter().map(|found| found.value).collect(),
        mtu: mtu.and_then(|found| u32::try_from(found.value).ok()),
        vlan: vlan.and_then(|found| u16::try_from(found.value).ok()),
    };
    Some(ReadNic {
        nic,
        section,
        addresses,
        gateways: if is_right { gateways } else { Vec::new() },
    })
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

/// Rules between the interfaces: none configured twice, no address doubled.
pub(crate) fn check_together(nics: &[ReadNic<'_>], report: &mut Report<'_>) {
    for (at, this) in nics.iter().enumerate() {
        let before = nics.get(..at).unwrap_or_default();
        let same = |other: &&ReadNic<'_>| {
            other.nic.matches == this.nic.matches && other.nic.vlan == this.nic.vlan
        };
        if before.iter().any(|other| same(&other)) {
            let finding = Finding::new(
                Code::Conflict,
                "this interface has a `[[nic]]` table already",
            )
            .remedy("merge the two tables, or give one of them a `vlan`");
            this.section.note(report, finding);
        }
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

fn boolean(section: &mut Section<'_>, key: &'static str, report: &mut Report<'_>) -> bool {
    section
        .get(key)
        .and_then(|found| found.boolean(report))
        .is_some_and(|found| found.value)
}

/// Every text under `key`, parsed; those that are wrong are noted and left out.
pub(crate) fn all<T>(
    section: &mut Section<'_>,
    key: &'static str,
    max: usize,
    parse: fn(&str) -> Result<T, Finding>,
    report: &mut Report<'_>,
) -> Vec<Found<T>> {
    let texts = section.get(key).map(|found| found.texts(max, report));
    let texts = texts.unwrap_or_default();
    texts
        .into_iter()
        .filter_map(|text| parsed(text, parse, report))
        .collect()
}

/// `found` parsed; what is wrong with it is noted.
pub(crate) fn parsed<T>(
    found: Found<&str>,
    parse: fn(&str) -> Result<T, Finding>,
    report: &mut Report<'_>,
) -> Option<Found<T>> {
    match parse(found.value) {
        Ok(value) => Some(found.replace(value)),
        Err(finding) => {
            found.note(report, finding);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_know_their_members() {
        let net = IpNet::parse("10.1.2.10/24").ok();
        let contains =
            |text: &str| net.is_some_and(|net| text.parse().is_ok_and(|ip| net.contains(ip)));
        assert!(contains("10.1.2.1") && !contains("10.1.3.1") && !contains("fd00::1"));
        let point = IpNet::parse("192.0.2.1/31").ok();
        assert!(point.is_some_and(|net| net.contains(IpAddr::from([192, 0, 2, 0]))));
    }

    #[test]
    fn addresses_that_no_interface_has_are_refused() {
        for bad in [
            "10.1.2.0/24",
            "10.1.2.255/24",
            "127.0.0.1/8",
            "224.0.0.1/4",
            "0.0.0.0/1",
            "10.1.2.3/33",
            "10.1.2.3/0",
            "10.1.2.3/024",
            "::1/128",
            "::ffff:10.0.0.1/96",
            "10.1.2.3",
            "10.1.2/24",
            "fd00::1/129",
            "fd00::1",
            "10.1.2.3/255.255.255.0",
        ] {
            assert!(IpNet::parse(bad).is_err(), "{bad}");
        }
        for good in ["10.1.2.3/32", "fd00::1/64", "192.0.2.0/31", "fe80::1/64"] {
            assert!(IpNet::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn hardware_addresses_have_two_spellings() {
        let mac = MacAddr::parse("52-54-00-AB-cd-01").ok();
        assert_eq!(
            mac.map(|mac| mac.to_string()).as_deref(),
            Some("52:54:00:ab:cd:01")
        );
        for bad in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:5g",
            "+1:54:00:12:34:56",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
        ] {
            assert!(MacAddr::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn slots_are_pci_addresses() {
        assert_eq!(parse_slot("00:03.0").ok().as_deref(), Some("0000:00:03.0"));
        assert_eq!(
            parse_slot("0000:0a:1f.7").ok().as_deref(),
            Some("0000:0a:1f.7")
        );
        for bad in [
            "",
            "3",
            "00:03",
            "00:03:0",
            "0000:00:03.0.1",
            "00.03.0",
            "0000:00.03:0",
        ] {
            assert!(parse_slot(bad).is_err(), "{bad}");
        }
    }
}
