//! Addresses of interfaces and of other machines.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::document::{Found, Section};
use crate::name::{HostName, text_type};
use crate::report::{Finding, Report};

/// A hardware address of six bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    pub(crate) fn parse(text: &str) -> Result<Self, Finding> {
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
    pub(crate) fn parse(text: &str) -> Result<Self, Finding> {
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
    pub(crate) fn is_edge(self, address: IpAddr) -> bool {
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

/// A network by its first address and its length, such as `10.0.0.0/8`.
pub(crate) fn parse_network(text: &str) -> Result<(), Finding> {
    let is_network = text.split_once('/').is_some_and(|(address, prefix)| {
        let is_number = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let length = prefix.parse::<u8>().ok().filter(|_| is_number);
        address.parse::<IpAddr>().is_ok_and(|address| {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            length.is_some_and(|length| length <= bits)
        })
    });
    if is_network {
        return Ok(());
    }
    Err(Finding::invalid("this is not a network").remedy("write for example \"10.0.0.0/8\""))
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

pub(crate) fn boolean(
    section: &mut Section<'_>,
    key: &'static str,
    report: &mut Report<'_>,
) -> bool {
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
}
