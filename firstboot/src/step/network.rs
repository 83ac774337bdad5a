//! Interfaces, name servers: files of systemd-networkd.
//!
//! They are made at every start under `/run`, from the generation, so that
//! nothing of an older configuration can be left. Interfaces are matched by
//! address, slot or name, never by whether they are there yet: udev has not
//! renamed them when this runs.

use std::fmt::Write as _;

use consign_schema::{Bond, Dns, HostName, Link, NicMatch, Problem, SiteConfig, Vlan, VlanParent};

use super::{Feature, Machine};
use crate::item::Item;
use crate::root::Root;

/// Where files of systemd-networkd are made.
pub const FOLDER: &str = "/run/systemd/network";
/// What the names of interfaces' own files begin with; a number follows.
pub const INTERFACE: &str = "20-consign-";
/// The file for a configuration that names no interface.
pub const DEFAULT: &str = "90-consign-default.network";
/// What resolvers read; `/etc/resolv.conf` leads here where systemd-resolved
/// is not in the image.
pub const RESOLV: &str = "/run/consign/resolv.conf";
/// Says to `appliance-resolv.service` that nobody has to learn name servers.
const RESOLV_FIXED: &str = "/run/consign/resolv.fixed";
/// Ethernet hardware; `Kind` names software devices.
const ANY_ETHERNET: &str = "Type=ether\nKind=!*";
/// PCI class 2: network controllers.
const PCI_NETWORK: &str = "0x02";
/// `VMBus` class of Hyper-V's network devices (Linux `include/linux/hyperv.h`).
const VMBUS_NETWORK: &str = "f8615163-df3e-46c5-913f-f2d2f965ed0e";
const HEAD: &str = "# Made by the first-boot agent from site.toml at every start.\n";

/// The network devices of a machine, as the buses show them: whether a driver
/// is loaded does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// PCI addresses of network controllers, in their order.
    pub pci: Vec<String>,
    /// How many there are on buses without places: Hyper-V, Xen, virtio-mmio.
    pub others: usize,
}

impl Interfaces {
    /// Looks at the buses.
    pub fn look(root: &Root) -> Self {
        let devices = |bus: &str| {
            root.list(&format!("/sys/bus/{bus}/devices"))
                .unwrap_or_default()
        };
        let value = |bus: &str, device: &str, name: &str| {
            let path = format!("/sys/bus/{bus}/devices/{device}/{name}");
            root.read_text(&path, 4096)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let is_pci_nic = |device: &String| value("pci", device, "class").starts_with(PCI_NETWORK);
        let vmbus = devices("vmbus");
        let vmbus = vmbus
            .iter()
            .filter(|device| value("vmbus", device, "class_id").contains(VMBUS_NETWORK));
        let xen = devices("xen");
        let xen = xen.iter().filter(|device| device.starts_with("vif-"));
        Self {
            pci: devices("pci").into_iter().filter(is_pci_nic).collect(),
            others: vmbus.count() + xen.count() + mmio_nics(root),
        }
    }

    /// How systemd-networkd finds the interface in a place, from 1; or why
    /// it cannot be found so.
    fn match_lines(&self, place: u8) -> Result<String, String> {
        let count = self.pci.len() + self.others;
        if usize::from(place) > count {
            let plural = if count == 1 { "" } else { "s" };
            return Err(format!("the machine has {count} network interface{plural}"));
        }
        if count == 1 {
            return Ok(ANY_ETHERNET.to_owned());
        }
        match self.pci.get(usize::from(place) - 1) {
            Some(address) => Ok(format!("Path=pci-{address}")),
            None => Err("the interfaces of this machine have no fixed order".to_owned()),
        }
    }
}

/// virtio devices of type 1 that no PCI device carries.
fn mmio_nics(root: &Root) -> usize {
    let folder = "/sys/bus/virtio/devices";
    let devices = root.list(folder).unwrap_or_default();
    let is_nic = |device: &&String| {
        let kind = root
            .read_text(&format!("{folder}/{device}/device"), 64)
            .unwrap_or_default();
        let is_on_pci = root.exists(&format!("{folder}/{device}/../class"));
        kind.trim() == "0x0001" && !is_on_pci
    };
    devices.iter().filter(is_nic).count()
}

/// Files of systemd-networkd, and `resolv.conf` where nobody else makes it.
///
/// # Errors
///
/// An interface that the machine does not have.
pub fn decide(site: &SiteConfig, machine: &Machine) -> Result<Vec<Item>, Vec<Problem>> {
    let (ports, problems) = ports(site, &machine.interfaces);
    let is_silent = site.nics.is_empty() && site.bonds.is_empty() && site.vlans.is_empty();
    let mut items = if is_silent {
        vec![default_network(&site.dns)]
    } else {
        networks(site, &ports)
    };
    if !machine.has.contains(&Feature::Resolved) && !site.dns.servers.is_empty() {
        items.push(Item::text(RESOLV, 0o644, resolv_conf(&site.dns)));
        items.push(Item::text(RESOLV_FIXED, 0o644, String::new()));
    }
    if problems.is_empty() {
        Ok(items)
    } else {
        Err(problems)
    }
}

/// Without `[[nic]]`: DHCP and router advertisements on all that is Ethernet.
fn default_network(dns: &Dns) -> Item {
    let mut text = format!("{HEAD}[Match]\n{ANY_ETHERNET}\n\n[Network]\nDHCP=yes\n");
    push_dns(&mut text, dns);
    Item::text(format!("{FOLDER}/{DEFAULT}"), 0o644, text)
}

/// An interface: what it matches, its own settings, what is on top of it.
#[derive(Default)]
struct Port<'s> {
    matches: String,
    own: Option<&'s Link>,
    bond: Option<&'s str>,
    vlans: Vec<Tagged<'s>>,
}

/// A VLAN's device.
struct Tagged<'s> {
    name: String,
    id: u16,
    link: &'s Link,
}

/// Every interface that the file means, in its order, and what cannot be found.
fn ports<'s>(site: &'s SiteConfig, interfaces: &Interfaces) -> (Vec<Port<'s>>, Vec<Problem>) {
    let (mut ports, mut problems) = (Vec::<Port<'s>>::new(), Vec::new());
    let mut names: Vec<String> = site.vlans.iter().map(|vlan| vlan.name.clone()).collect();
    let mut port =
        |matches: &NicMatch, key: &str, change: &mut dyn FnMut(&mut Port<'s>)| match match_lines(
            matches, interfaces,
        ) {
            Ok(lines) => {
                let at = ports.iter().position(|port| port.matches == lines);
                let at = at.unwrap_or_else(|| {
                    ports.push(Port {
                        matches: lines,
                        ..Port::default()
                    });
                    ports.len() - 1
                });
                if let Some(port) = ports.get_mut(at) {
                    change(port);
                }
            }
            Err(message) => {
                let remedy = "name the interface by `mac`, or attach it to the machine";
                problems.push(site.problem(key, &message, remedy));
            }
        };
    for (number, nic) in (1..).zip(&site.nics) {
        let key = format!("nic[{number}].match.slot");
        port(&nic.matches, &key, &mut |port| match nic.vlan {
            None => port.own = Some(&nic.link),
            Some(id) => {
                let name = free_name(id, &names);
                names.push(name.clone());
                let link = &nic.link;
                port.vlans.push(Tagged { name, id, link });
            }
        });
    }
    for bond in &site.bonds {
        for member in &bond.members {
            let key = format!("bond.{}.members", bond.name);
            port(member, &key, &mut |port| port.bond = Some(&bond.name));
        }
    }
    for vlan in &site.vlans {
        if let VlanParent::Nic(matches) = &vlan.on {
            let key = format!("vlan.{}.match.slot", vlan.name);
            port(matches, &key, &mut |port| port.vlans.push(tagged(vlan)));
        }
    }
    (ports, problems)
}

fn tagged(vlan: &Vlan) -> Tagged<'_> {
    Tagged {
        name: vlan.name.clone(),
        id: vlan.id,
        link: &vlan.link,
    }
}

/// The same VLAN on two interfaces makes two devices.
fn free_name(id: u16, taken: &[String]) -> String {
    let plain = format!("vlan{id}");
    let numbered = (2..).map(|number| format!("{plain}-{number}"));
    std::iter::once(plain.clone())
        .chain(numbered)
        .find(|name| !taken.contains(name))
        .unwrap_or(plain)
}

/// Files of the interfaces, each after those of the devices on top of it,
/// which share its hardware address.
fn networks(site: &SiteConfig, ports: &[Port<'_>]) -> Vec<Item> {
    let mut items = Vec::new();
    for bond in &site.bonds {
        items.extend(bond_files(site, bond));
    }
    for (number, port) in (1..).zip(ports) {
        for vlan in &port.vlans {
            items.extend(vlan_files(vlan, &site.dns));
        }
        let mut text = format!("{HEAD}[Match]\n{}\n", port.matches);
        push_network(&mut text, port.own, port.bond, &port.vlans, &site.dns);
        items.push(Item::text(
            format!("{FOLDER}/{INTERFACE}{number}.network"),
            0o644,
            text,
        ));
    }
    items
}

/// A bond's device and settings, and the VLANs on it.
fn bond_files(site: &SiteConfig, bond: &Bond) -> Vec<Item> {
    let name = &bond.name;
    let is_on_it = |vlan: &&Vlan| matches!(&vlan.on, VlanParent::Bond(bond) if bond == name);
    let vlans: Vec<Tagged<'_>> = site.vlans.iter().filter(is_on_it).map(tagged).collect();
    let mut items: Vec<Item> = vlans
        .iter()
        .flat_map(|vlan| vlan_files(vlan, &site.dns))
        .collect();
    let mode = bond.mode.name();
    let device = format!(
        "{HEAD}[NetDev]\nName={name}\nKind=bond\n\n[Bond]\nMode={mode}\nMIIMonitorSec=100ms\n"
    );
    items.push(Item::text(
        format!("{FOLDER}/15-consign-{name}.netdev"),
        0o644,
        device,
    ));
    let mut text = format!("{HEAD}[Match]\nName={name}\n");
    let link = &bond.link;
    let has_addresses = link.dhcp4 || link.dhcp6 || !link.addresses.is_empty();
    push_network(
        &mut text,
        has_addresses.then_some(link),
        None,
        &vlans,
        &site.dns,
    );
    items.push(Item::text(
        format!("{FOLDER}/15-consign-{name}.network"),
        0o644,
        text,
    ));
    items
}

/// A VLAN's device and settings.
fn vlan_files(vlan: &Tagged<'_>, dns: &Dns) -> [Item; 2] {
    let Tagged { name, id, link } = vlan;
    let device = format!("{HEAD}[NetDev]\nName={name}\nKind=vlan\n\n[VLAN]\nId={id}\n");
    let mut text = format!("{HEAD}[Match]\nName={name}\n");
    push_network(&mut text, Some(link), None, &[], dns);
    [
        Item::text(format!("{FOLDER}/10-consign-{name}.netdev"), 0o644, device),
        Item::text(format!("{FOLDER}/10-consign-{name}.network"), 0o644, text),
    ]
}

/// What follows `[Match]`.
fn push_network(
    text: &mut String,
    own: Option<&Link>,
    bond: Option<&str>,
    vlans: &[Tagged<'_>],
    dns: &Dns,
) {
    if let Some(mtu) = own.and_then(|link| link.mtu) {
        let _ = write!(text, "\n[Link]\nMTUBytes={mtu}\n");
    }
    text.push_str("\n[Network]\n");
    for vlan in vlans {
        let _ = writeln!(text, "VLAN={}", vlan.name);
    }
    match (own, bond) {
        (_, Some(bond)) => {
            let _ = writeln!(text, "Bond={bond}");
        }
        (Some(link), None) => push_settings(text, link, dns),
        // It only carries its VLANs.
        (None, None) => text.push_str("LinkLocalAddressing=no\nIPv6AcceptRA=no\n"),
    }
}

/// The lines of `[Match]`, or why there are none.
fn match_lines(matches: &NicMatch, interfaces: &Interfaces) -> Result<String, String> {
    match matches {
        // Devices made on top of an interface share its address.
        NicMatch::Mac(mac) => Ok(format!("MACAddress={mac}\nKind=!*")),
        NicMatch::Position(place) => interfaces.match_lines(*place),
        NicMatch::Slot(slot) => Ok(format!("Path=pci-{slot}")),
        NicMatch::Name(name) => Ok(format!("Name={name}")),
        _ => Err("this agent does not know this way to name an interface".to_owned()),
    }
}

fn push_settings(text: &mut String, link: &Link, dns: &Dns) {
    let dhcp = match (link.dhcp4, link.dhcp6) {
        (true, true) => "yes",
        (true, false) => "ipv4",
        (false, true) => "ipv6",
        (false, false) => "no",
    };
    let _ = writeln!(text, "DHCP={dhcp}");
    for address in &link.addresses {
        let _ = writeln!(text, "Address={address}");
    }
    for gateway in &link.gateways {
        let _ = writeln!(text, "Gateway={gateway}");
    }
    push_dns(text, dns);
}

/// For systemd-resolved, where the image has it.
fn push_dns(text: &mut String, dns: &Dns) {
    for server in &dns.servers {
        let _ = writeln!(text, "DNS={server}");
    }
    if !dns.search.is_empty() {
        let names: Vec<&str> = dns.search.iter().map(HostName::as_str).collect();
        let _ = writeln!(text, "Domains={}", names.join(" "));
    }
}

fn resolv_conf(dns: &Dns) -> String {
    let servers: Vec<String> = dns.servers.iter().map(ToString::to_string).collect();
    let search: Vec<&str> = dns.search.iter().map(HostName::as_str).collect();
    resolv_text(&servers, &search)
}

/// The text of resolv.conf(5).
fn resolv_text(servers: &[impl AsRef<str>], search: &[&str]) -> String {
    let mut text = "# Made by the first-boot agent.\n".to_owned();
    for server in servers {
        let _ = writeln!(text, "nameserver {}", server.as_ref());
    }
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    text
}

/// `resolv.conf` from what systemd-networkd learnt by DHCP, as it writes it
/// to `/run/systemd/netif/state`; nothing when it learnt no server.
pub fn resolv_from_networkd(state: &str) -> Option<String> {
    let field = |key: &str| {
        let line = state
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let is_plain = |word: &&str| {
            word.bytes()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b':' | b'-' | b'_' | b'%'))
        };
        line.into_iter()
            .flat_map(str::split_ascii_whitespace)
            .filter(is_plain)
            .collect::<Vec<_>>()
    };
    let servers: Vec<&str> = field("DNS").into_iter().take(3).collect();
    (!servers.is_empty()).then(|| resolv_text(&servers, &field("DOMAINS")))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{machine, paths, site, text_of};
    use super::*;

    fn body<'i>(items: &'i [Item], name: &str) -> &'i str {
        let text = text_of(items, &format!("{FOLDER}/{name}")).expect(name);
        text.strip_prefix(HEAD).expect("the head")
    }

    #[test]
    fn without_interfaces_all_ethernet_gets_dhcp() {
        let items = decide(&site(""), &machine()).expect("decided");
        assert_eq!(
            paths(&items),
            ["/run/systemd/network/90-consign-default.network"]
        );
        assert_eq!(
            body(&items, "90-consign-default.network"),
            "[Match]\nType=ether\nKind=!*\n\n[Network]\nDHCP=yes\n"
        );
    }

    #[test]
    fn fixed_addresses_are_written_with_gateway_and_servers() {
        let text = "[[nic]]\nmatch = { mac = \"52:54:00:12:34:56\" }\naddress = [\"10.1.2.10/24\", \"fd00::10/64\"]\ngateway = [\"10.1.2.1\", \"fd00::1\"]\nmtu = 9000\n[dns]\nservers = [\"10.1.2.1\"]\nsearch = [\"example.org\"]\n";
        let items = decide(&site(text), &machine()).expect("decided");
        assert_eq!(
            body(&items, "20-consign-1.network"),
            "[Match]\nMACAddress=52:54:00:12:34:56\nKind=!*\n\n[Link]\nMTUBytes=9000\n\n[Network]\nDHCP=no\nAddress=10.1.2.10/24\nAddress=fd00::10/64\nGateway=10.1.2.1\nGateway=fd00::1\nDNS=10.1.2.1\nDomains=example.org\n"
        );
        assert_eq!(
            text_of(&items, RESOLV),
            Some("# Made by the first-boot agent.\nnameserver 10.1.2.1\nsearch example.org\n")
        );
        let mut resolved = machine();
        resolved.has.insert(Feature::Resolved);
        let items = decide(&site(text), &resolved).expect("decided");
        assert_eq!(text_of(&items, RESOLV), None);
    }

    #[test]
    fn vlans_ride_on_the_interface_they_match() {
        let text = "[[nic]]\nmatch = { slot = \"00:03.0\" }\ndhcp4 = true\nvlan = 7\n[[nic]]\nmatch = { name = \"eth1\" }\ndhcp6 = true\nvlan = 7\n[[nic]]\nmatch = { name = \"eth1\" }\ndhcp4 = true\n";
        let items = decide(&site(text), &machine()).expect("decided");
        assert_eq!(
            paths(&items),
            [
                "/run/systemd/network/10-consign-vlan7.netdev",
                "/run/systemd/network/10-consign-vlan7.network",
                "/run/systemd/network/20-consign-1.network",
                "/run/systemd/network/10-consign-vlan7-2.netdev",
                "/run/systemd/network/10-consign-vlan7-2.network",
                "/run/systemd/network/20-consign-2.network",
            ]
        );
        assert_eq!(
            body(&items, "10-consign-vlan7-2.netdev"),
            "[NetDev]\nName=vlan7-2\nKind=vlan\n\n[VLAN]\nId=7\n"
        );
        assert_eq!(
            body(&items, "20-consign-1.network"),
            "[Match]\nPath=pci-0000:00:03.0\n\n[Network]\nVLAN=vlan7\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
        );
        assert_eq!(
            body(&items, "20-consign-2.network"),
            "[Match]\nName=eth1\n\n[Network]\nVLAN=vlan7-2\nDHCP=ipv4\n"
        );
    }

    #[test]
    fn a_bond_has_its_members_and_carries_vlans() {
        let text = "[bond.bond0]\nmode = \"802.3ad\"\nmembers = [{ slot = 1 }, { slot = 2 }]\n\
            [vlan.office]\nid = 7\nbond = \"bond0\"\naddress = [\"10.1.2.10/24\"]\n";
        let items = decide(&site(text), &machine()).expect("decided");
        assert_eq!(
            body(&items, "15-consign-bond0.netdev"),
            "[NetDev]\nName=bond0\nKind=bond\n\n[Bond]\nMode=802.3ad\nMIIMonitorSec=100ms\n"
        );
        assert_eq!(
            body(&items, "15-consign-bond0.network"),
            "[Match]\nName=bond0\n\n[Network]\nVLAN=office\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
        );
        assert_eq!(
            body(&items, "10-consign-office.network"),
            "[Match]\nName=office\n\n[Network]\nDHCP=no\nAddress=10.1.2.10/24\n"
        );
        for (number, address) in [(1, "0000:00:03.0"), (2, "0000:01:00.0")] {
            assert_eq!(
                body(&items, &format!("20-consign-{number}.network")),
                format!("[Match]\nPath=pci-{address}\n\n[Network]\nBond=bond0\n")
            );
        }
    }

    #[test]
    fn places_follow_the_pci_addresses() {
        let lines = |pci: &[&str], others, place| {
            let pci = pci.iter().map(|address| (*address).to_owned()).collect();
            Interfaces { pci, others }.match_lines(place)
        };
        let two = ["0000:00:03.0", "0000:01:00.0"];
        assert_eq!(lines(&two, 0, 2).as_deref(), Ok("Path=pci-0000:01:00.0"));
        assert_eq!(
            lines(&two, 0, 3),
            Err("the machine has 2 network interfaces".into())
        );
        assert_eq!(lines(&[], 1, 1).as_deref(), Ok(ANY_ETHERNET));
        assert_eq!(lines(&two[..1], 0, 1).as_deref(), Ok(ANY_ETHERNET));
        assert!(lines(&[], 2, 1).is_err());
        assert_eq!(
            lines(&[], 0, 1),
            Err("the machine has 0 network interfaces".into())
        );
    }

    #[test]
    fn a_missing_interface_is_said_at_its_place() {
        let text = "[[nic]]\nmatch = { slot = 3 }\ndhcp4 = true\n";
        let problems = decide(&site(text), &machine()).expect_err("there are two");
        let places: Vec<_> = problems
            .iter()
            .map(|problem| (problem.line, problem.column))
            .collect();
        assert_eq!(places, [(6, 18)]);
    }

    #[test]
    fn devices_are_found_on_every_bus() {
        let system = crate::root::testing::Folder::with(&[
            ("/sys/bus/pci/devices/0000:00:03.0/class", "0x020000\n"),
            ("/sys/bus/pci/devices/0000:00:04.0/class", "0x010000\n"),
            (
                "/sys/bus/vmbus/devices/a/class_id",
                "{f8615163-df3e-46c5-913f-f2d2f965ed0e}\n",
            ),
            (
                "/sys/bus/vmbus/devices/b/class_id",
                "{32412632-86cb-44a2-9b5c-50d1417354f5}\n",
            ),
            ("/sys/bus/xen/devices/vif-0/nodename", ""),
            ("/sys/bus/virtio/devices/virtio0/device", "0x0001\n"),
            ("/sys/bus/virtio/devices/virtio1/device", "0x0002\n"),
        ]);
        let found = Interfaces::look(&system.root);
        assert_eq!(
            found,
            Interfaces {
                pci: vec!["0000:00:03.0".into()],
                others: 3
            }
        );
    }

    #[test]
    fn servers_learnt_by_dhcp_become_a_resolv_conf() {
        let state = "# private\nOPER_STATE=routable\nDNS=10.0.2.3 fec0::3\nDOMAINS=example.org\n";
        assert_eq!(
            resolv_from_networkd(state).as_deref(),
            Some(
                "# Made by the first-boot agent.\nnameserver 10.0.2.3\nnameserver fec0::3\nsearch example.org\n"
            )
        );
        assert_eq!(resolv_from_networkd("OPER_STATE=off\n"), None);
        assert_eq!(resolv_from_networkd("DNS=1.2.3.4$(x)\n"), None);
    }
}
