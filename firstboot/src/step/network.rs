//! Interfaces, name servers: files of systemd-networkd.
//!
//! They are made at every start under `/run`, from the generation, so that
//! nothing of an older configuration can be left. Interfaces are matched by
//! address, slot or name, never by whether they are there yet: udev has not
//! renamed them when this runs.

use std::fmt::Write as _;

use consign_schema::{Dns, HostName, Nic, NicMatch, Problem, SiteConfig};

use super::{Feature, Machine};
use crate::item::Item;
use crate::root::Root;

const FOLDER: &str = "/run/systemd/network";
/// What resolvers read; `/etc/resolv.conf` leads here where systemd-resolved
/// is not in the image.
pub const RESOLV: &str = "/run/consign/resolv.conf";
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
    let mut problems = Vec::new();
    let mut items = if site.nics.is_empty() {
        vec![default_network(&site.dns)]
    } else {
        let mut lines = Vec::new();
        for (number, nic) in (1..).zip(&site.nics) {
            match match_lines(&nic.matches, &machine.interfaces) {
                Ok(found) => lines.push(found),
                Err(message) => {
                    let remedy = "name the interface by `mac`, or attach it to the machine";
                    problems.push(site.problem(
                        &format!("nic[{number}].match.slot"),
                        &message,
                        remedy,
                    ));
                }
            }
        }
        networks(&site.nics, &lines, &site.dns)
    };
    if !machine.has.contains(&Feature::Resolved) && !site.dns.servers.is_empty() {
        items.push(Item::text(RESOLV, 0o644, resolv_conf(&site.dns)));
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
    Item::text(format!("{FOLDER}/90-consign-default.network"), 0o644, text)
}

/// What a `[[nic]]` matches, its own settings, and its VLANs with their names.
type Parent<'n> = (&'n str, Option<&'n Nic>, Vec<(&'n Nic, String)>);

/// The interfaces by what they match, in the order of the file, each with its
/// own settings, if any, and those of its VLANs.
fn networks(nics: &[Nic], match_lines: &[String], dns: &Dns) -> Vec<Item> {
    let mut parents: Vec<Parent<'_>> = Vec::new();
    let mut vlan_names: Vec<String> = Vec::new();
    for (nic, lines) in nics.iter().zip(match_lines) {
        let at = parents.iter().position(|(found, ..)| found == lines);
        let at = at.unwrap_or_else(|| {
            parents.push((lines, None, Vec::new()));
            parents.len() - 1
        });
        let Some((_, own, vlans)) = parents.get_mut(at) else {
            continue;
        };
        match nic.vlan {
            None => *own = Some(nic),
            Some(id) => {
                // The same VLAN on two interfaces makes two devices.
                let again = vlan_names
                    .iter()
                    .filter(|name| name.split('-').next() == Some(&format!("vlan{id}")))
                    .count();
                let name = if again == 0 {
                    format!("vlan{id}")
                } else {
                    format!("vlan{id}-{}", again + 1)
                };
                vlan_names.push(name.clone());
                vlans.push((nic, name));
            }
        }
    }
    let mut items = Vec::new();
    for (number, (matches, own, vlans)) in (1..).zip(&parents) {
        for (nic, name) in vlans {
            items.extend(vlan(nic, name, dns));
        }
        items.push(parent(number, matches, *own, vlans, dns));
    }
    items
}

/// A VLAN's device and settings. Its files sort before its parent's, whose
/// hardware address it shares.
fn vlan(nic: &Nic, name: &str, dns: &Dns) -> [Item; 2] {
    let id = nic.vlan.unwrap_or_default();
    let device = format!("{HEAD}[NetDev]\nName={name}\nKind=vlan\n\n[VLAN]\nId={id}\n");
    let mut network = format!("{HEAD}[Match]\nName={name}\n");
    push_link(&mut network, nic);
    network.push_str("\n[Network]\n");
    push_settings(&mut network, nic, dns);
    [
        Item::text(format!("{FOLDER}/10-consign-{name}.netdev"), 0o644, device),
        Item::text(
            format!("{FOLDER}/10-consign-{name}.network"),
            0o644,
            network,
        ),
    ]
}

fn parent(
    number: usize,
    matches: &str,
    own: Option<&Nic>,
    vlans: &[(&Nic, String)],
    dns: &Dns,
) -> Item {
    let mut text = format!("{HEAD}[Match]\n{matches}\n");
    if let Some(nic) = own {
        push_link(&mut text, nic);
    }
    text.push_str("\n[Network]\n");
    for (_, name) in vlans {
        let _ = writeln!(text, "VLAN={name}");
    }
    match own {
        Some(nic) => push_settings(&mut text, nic, dns),
        // It only carries its VLANs.
        None => text.push_str("LinkLocalAddressing=no\nIPv6AcceptRA=no\n"),
    }
    Item::text(format!("{FOLDER}/20-consign-{number}.network"), 0o644, text)
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

fn push_link(text: &mut String, nic: &Nic) {
    if let Some(mtu) = nic.link.mtu {
        let _ = write!(text, "\n[Link]\nMTUBytes={mtu}\n");
    }
}

fn push_settings(text: &mut String, nic: &Nic, dns: &Dns) {
    let dhcp = match (nic.link.dhcp4, nic.link.dhcp6) {
        (true, true) => "yes",
        (true, false) => "ipv4",
        (false, true) => "ipv6",
        (false, false) => "no",
    };
    let _ = writeln!(text, "DHCP={dhcp}");
    for address in &nic.link.addresses {
        let _ = writeln!(text, "Address={address}");
    }
    for gateway in &nic.link.gateways {
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
