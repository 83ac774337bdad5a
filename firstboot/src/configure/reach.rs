//! Whether the network that a configuration describes has come up: addresses
//! on its links, routes by DHCP, gateways that answer.
//!
//! What is wanted stands in the files of systemd-networkd that the generation
//! has. Which link has which file, networkd says; everything else the kernel.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::addresses;
use crate::item::Item;
use crate::neighbours;
use crate::root::Root;
use crate::step::network::{DEFAULT, FOLDER, INTERFACE};

const LINKS: &str = "/run/systemd/netif/links";
const DEVICES: &str = "/sys/class/net";
const ROUTES: &str = "/proc/net/route";
/// A file of the kernel's or of networkd's is never longer.
const MAX_SIZE: usize = 1 << 20;
/// In this time networkd, just restarted, has begun to take away what an older
/// configuration set.
const BEGIN: Duration = Duration::from_secs(2);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// What one `.network` file of the generation asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// The file's name, without its folder.
    file: String,
    addresses: Vec<IpAddr>,
    gateways: Vec<IpAddr>,
    dhcp4: bool,
    dhcp6: bool,
    /// It is that of an interface itself, and the configuration before has the
    /// very same. What a bond or VLAN is on stands in other files.
    is_old: bool,
}

/// A link of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Link {
    number: u32,
    name: String,
    /// The `.network` file that it has.
    file: String,
    /// Whether networkd says anything about it.
    is_known: bool,
    has_carrier: bool,
}

/// What is there at one moment.
#[derive(Debug, Default)]
struct Seen {
    links: Vec<Link>,
    addresses: Vec<(u32, IpAddr)>,
    /// `/proc/net/route`.
    routes: String,
    /// Who has answered since the check began.
    answered: Vec<(u32, IpAddr)>,
}

/// What does not work of the links in `items`, after `patience` at most.
/// `before` is what was there until now.
pub fn fault(root: &Root, items: &[Item], before: &[Item], patience: Duration) -> Option<String> {
    let wanted = wanted(items, before);
    if wanted.is_empty() {
        return None;
    }
    std::thread::sleep(BEGIN);
    let begin = Instant::now();
    let mut asked = Vec::new();
    loop {
        let seen = look(root, begin.elapsed());
        let fault = lack(&wanted, &seen);
        if fault.is_none() || begin.elapsed() >= patience {
            return fault;
        }
        for gateway in gateways(&wanted, &seen) {
            if !asked.contains(&gateway) {
                neighbours::forget(gateway.1);
                asked.push(gateway);
            }
            neighbours::poke(gateway.0, gateway.1);
        }
        std::thread::sleep(PAUSE);
    }
}

/// The files that ask for addresses. A machine whose interfaces nobody names
/// may be where there is no DHCP: then it had no address before either.
fn wanted(items: &[Item], before: &[Item]) -> Vec<Wanted> {
    let mut all = Vec::new();
    let is_old = |item: &&Item| item.place().ends_with(DEFAULT) && before.contains(item);
    for item in items.iter().filter(|item| !is_old(item)) {
        let Item::File { path, bytes, .. } = item else {
            continue;
        };
        let file = path.strip_prefix(FOLDER).unwrap_or_default();
        let Some(file) = file.strip_prefix('/').filter(|it| it.ends_with(".network")) else {
            continue;
        };
        let mut wanted = Wanted {
            file: file.to_owned(),
            is_old: file.starts_with(INTERFACE) && before.contains(item),
            ..Wanted::default()
        };
        for line in String::from_utf8_lossy(bytes).lines() {
            match line.split_once('=') {
                Some(("Address", net)) => {
                    let address = net.split('/').next().unwrap_or_default();
                    wanted.addresses.extend(address.parse::<IpAddr>());
                }
                Some(("Gateway", gateway)) => wanted.gateways.extend(gateway.parse::<IpAddr>()),
                Some(("DHCP", which)) => {
                    wanted.dhcp4 = matches!(which, "yes" | "ipv4");
                    wanted.dhcp6 = matches!(which, "yes" | "ipv6");
                }
                _ => {}
            }
        }
        if wanted.dhcp4 || wanted.dhcp6 || !wanted.addresses.is_empty() {
            all.push(wanted);
        }
    }
    all
}

fn look(root: &Root, time: Duration) -> Seen {
    let number = |name: &String| {
        let text = root.read_text(&format!("{DEVICES}/{name}/ifindex"), 64);
        text.ok()?.trim().parse::<u32>().ok()
    };
    let link = |name: String| {
        let number = number(&name)?;
        let state = root.read_text(&format!("{LINKS}/{number}"), MAX_SIZE);
        let state = state.unwrap_or_default();
        let file = state
            .lines()
            .find_map(|line| line.strip_prefix("NETWORK_FILE="));
        let file = file.and_then(|path| path.rsplit('/').next());
        // A link that is down does not say.
        let carrier = root.read_text(&format!("{DEVICES}/{name}/carrier"), 64);
        Some(Link {
            number,
            file: file.unwrap_or_default().to_owned(),
            is_known: state.contains("ADMIN_STATE="),
            has_carrier: carrier.is_ok_and(|text| text.trim() == "1"),
            name,
        })
    };
    let names = root.list(DEVICES).unwrap_or_default();
    Seen {
        links: names.into_iter().filter_map(link).collect(),
        addresses: addresses::on_links(),
        routes: root.read_text(ROUTES, MAX_SIZE).unwrap_or_default(),
        answered: neighbours::answered_within(time),
    }
}

/// The gateways that must answer: those of the files, and those that DHCP gave;
/// each with the number of the link that it is on, 0 where nobody says.
fn gateways(wanted: &[Wanted], seen: &Seen) -> Vec<(u32, IpAddr)> {
    let mut all = Vec::new();
    for wanted in wanted {
        let links = || links_of(wanted, seen).map(|link| link.number);
        let nowhere = links().next().is_none().then_some(0);
        for link in links().chain(nowhere) {
            all.extend(wanted.gateways.iter().map(|gateway| (link, *gateway)));
        }
        for link in links_of(wanted, seen).filter(|_| wanted.dhcp4) {
            let given = given_gateways(link, seen).into_iter();
            all.extend(given.map(|gateway| (link.number, gateway)));
        }
    }
    all
}

fn links_of<'s>(wanted: &Wanted, seen: &'s Seen) -> impl Iterator<Item = &'s Link> {
    let file = wanted.file.clone();
    seen.links
        .iter()
        .filter(move |link| link.file == file && link.has_carrier)
}

/// Gateways of default routes, as the kernel lists them (`proc_pid_net(5)`):
/// the numbers are in the machine's byte order.
fn given_gateways(link: &Link, seen: &Seen) -> Vec<IpAddr> {
    let gateway = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (name, net) = (words.next()?, words.next()?);
        let gateway = u32::from_str_radix(words.next()?, 16).ok()?;
        (name == link.name && net == "00000000" && gateway != 0)
            .then(|| Ipv4Addr::from(gateway.to_ne_bytes()).into())
    };
    seen.routes.lines().filter_map(gateway).collect()
}

/// The first thing that is wanted and not there.
fn lack(wanted: &[Wanted], seen: &Seen) -> Option<String> {
    // Where networkd does not say which link has which file, any link will do.
    if !seen.links.iter().any(|link| link.is_known) {
        let is_named = wanted.iter().any(|wanted| wanted.file != DEFAULT);
        if is_named && seen.addresses.is_empty() {
            return Some("the machine has no address".to_owned());
        }
        let is_silent =
            |(_, it): &(u32, IpAddr)| !seen.answered.iter().any(|(_, answered)| answered == it);
        let silent = gateways(wanted, seen).into_iter().find(is_silent);
        return silent.map(|(_, gateway)| silence(gateway));
    }
    let is_ours = |link: &Link| wanted.iter().any(|wanted| wanted.file == link.file);
    if !seen.links.iter().any(is_ours) {
        let is_new = |wanted: &Wanted| wanted.file != DEFAULT && !wanted.is_old;
        let fault = "no network interface is one that the configuration names";
        return wanted.iter().any(is_new).then(|| fault.to_owned());
    }
    for wanted in wanted {
        let of_links = links_of(wanted, seen).map(|link| lack_of(wanted, link, seen));
        let found: Vec<Option<String>> = of_links.collect();
        // Without `[[nic]]`, one of all interfaces is enough.
        let is_enough = wanted.file == DEFAULT && found.contains(&None);
        if let Some(fault) = found.into_iter().flatten().next().filter(|_| !is_enough) {
            return Some(fault);
        }
        let answers = |gateway: &&IpAddr| {
            links_of(wanted, seen).any(|link| seen.answered.contains(&(link.number, **gateway)))
        };
        // An interface that nobody plugged in, and nobody changed, says nothing.
        let is_idle = wanted.is_old && links_of(wanted, seen).next().is_none();
        let mut gateways = wanted.gateways.iter().filter(|_| !is_idle);
        if let Some(gateway) = gateways.find(|gateway| !answers(gateway)) {
            return Some(silence(*gateway));
        }
    }
    let has_carrier = |wanted: &Wanted| links_of(wanted, seen).next().is_some();
    let is_default = |wanted: &Wanted| wanted.file == DEFAULT;
    if wanted
        .iter()
        .any(|wanted| has_carrier(wanted) || is_default(wanted))
    {
        return None;
    }
    Some("none of its network interfaces has a link".to_owned())
}

fn silence(gateway: IpAddr) -> String {
    format!("the gateway {gateway} does not answer")
}

/// What a link lacks of what its file asks for.
fn lack_of(wanted: &Wanted, link: &Link, seen: &Seen) -> Option<String> {
    let name = &link.name;
    let own = seen.addresses.iter().filter(|(on, _)| *on == link.number);
    let own: Vec<IpAddr> = own.map(|(_, address)| *address).collect();
    if let Some(missing) = wanted.addresses.iter().find(|it| !own.contains(it)) {
        return Some(format!("{name} has not got the address {missing}"));
    }
    if !wanted.dhcp4 && !wanted.dhcp6 {
        return None;
    }
    let is_given = |address: &&IpAddr| {
        !wanted.addresses.contains(address)
            && if address.is_ipv4() {
                wanted.dhcp4
            } else {
                wanted.dhcp6
            }
    };
    let given: Vec<&IpAddr> = own.iter().filter(is_given).collect();
    if given.is_empty() {
        return Some(format!("{name} has got no address by DHCP"));
    }
    // IPv6 has its routes from the router that says how addresses are given.
    let mut lines = seen.routes.lines();
    let is_own = |line: &str| line.split_ascii_whitespace().next() == Some(name);
    if given.iter().all(|address| address.is_ipv4()) && !lines.any(is_own) {
        return Some(format!("{name} has got no route by DHCP"));
    }
    let mut gateways = given_gateways(link, seen).into_iter();
    let silent = gateways.find(|gateway| !seen.answered.contains(&(link.number, *gateway)));
    silent.map(silence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::testing::Folder;

    const STATIC: &str = "[Match]\nName=e*\n\n[Network]\nDHCP=no\nAddress=10.1.2.10/24\n\
        Gateway=10.1.2.1\nDNS=10.1.2.1\n";
    const DHCP: &str = "[Match]\nName=e*\n\n[Network]\nDHCP=yes\n";
    const ROUTED: &str = "Iface\tDestination\tGateway \tFlags\n\
        eth0\t00000000\t0102010A\t0003\neth0\t0002010A\t00000000\t0001\n";

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn wants(file: &str, text: &str) -> Vec<Wanted> {
        wanted(&[Item::text(format!("{FOLDER}/{file}"), 0o644, text)], &[])
    }

    /// eth0 with this file and this address.
    fn seen(file: &str, on: u32, own: &str) -> Seen {
        let eth0 = Link {
            number: 2,
            name: "eth0".into(),
            file: file.into(),
            is_known: !file.is_empty(),
            has_carrier: true,
        };
        Seen {
            links: vec![eth0],
            addresses: vec![(on, address(own))],
            ..Seen::default()
        }
    }

    fn says(wanted: &[Wanted], seen: &Seen, words: &str) {
        let said = lack(wanted, seen).unwrap_or_default();
        assert!(said.contains(words) && !said.is_empty(), "{said}");
    }

    #[test]
    fn a_fixed_address_is_on_its_link_and_its_gateway_answers_there() {
        let file = "20-consign-1.network";
        let wanted = wants(file, STATIC);
        let mut now = seen(file, 2, "10.1.2.10");
        says(&wanted, &now, "the gateway 10.1.2.1 does not answer");
        now.answered = vec![(3, address("10.1.2.1")), (2, address("10.1.2.2"))];
        says(&wanted, &now, "the gateway 10.1.2.1 does not answer");
        now.answered.push((2, address("10.1.2.1")));
        assert_eq!(lack(&wanted, &now), None);
        now.addresses = vec![(3, address("10.1.2.10")), (2, address("10.1.2.9"))];
        says(&wanted, &now, "eth0 has not got the address 10.1.2.10");
    }

    #[test]
    fn a_change_to_dhcp_needs_an_address_and_a_route() {
        let file = "20-consign-1.network";
        let wanted = wants(file, DHCP);
        let mut now = seen(file, 3, "10.1.2.77");
        says(&wanted, &now, "eth0 has got no address by DHCP");
        now = seen(file, 2, "10.1.2.77");
        says(&wanted, &now, "eth0 has got no route by DHCP");
        now.routes = ROUTED.into();
        if cfg!(target_endian = "big") {
            return;
        }
        assert_eq!(gateways(&wanted, &now), [(2, address("10.1.2.1"))]);
        says(&wanted, &now, "the gateway 10.1.2.1 does not answer");
        now.answered = vec![(2, address("10.1.2.1"))];
        assert_eq!(lack(&wanted, &now), None);
        // Only what was asked for: no IPv6 here.
        let wanted = wants(file, &DHCP.replace("yes", "ipv6"));
        says(&wanted, &now, "eth0 has got no address by DHCP");
    }

    #[test]
    fn links_that_are_not_there_ask_for_nothing_but_their_gateways() {
        let file = "20-consign-1.network";
        let one = wants(file, STATIC);
        let two = wants("20-consign-2.network", DHCP);
        let both: Vec<Wanted> = one.into_iter().chain(two).collect();
        let mut now = seen(file, 2, "10.1.2.10");
        now.answered = vec![(2, address("10.1.2.1"))];
        assert_eq!(lack(&both, &now), None);
        now.links.push(Link {
            number: 3,
            name: "eth1".into(),
            file: "20-consign-2.network".into(),
            is_known: true,
            has_carrier: true,
        });
        says(&both, &now, "eth1 has got no address by DHCP");
        now.links[1].has_carrier = false;
        assert_eq!(lack(&both, &now), None);
        now.links[0].has_carrier = false;
        says(&both, &now, "the gateway 10.1.2.1 does not answer");
        let two = wants("20-consign-2.network", DHCP);
        says(&two, &now, "none of its network interfaces has a link");
    }

    #[test]
    fn an_interface_that_is_not_plugged_in_asks_for_what_is_new() {
        let own = |number| format!("{INTERFACE}{number}.network");
        let item = |number| Item::text(format!("{FOLDER}/{}", own(number)), 0o644, STATIC);
        let mut now = seen(&own(1), 2, "10.1.2.10");
        now.answered = vec![(2, address("10.1.2.1"))];
        now.links.push(Link {
            number: 3,
            name: "eth1".into(),
            file: own(2),
            is_known: true,
            has_carrier: false,
        });
        let both = [item(1), item(2)];
        says(&wanted(&both, &both[..1]), &now, "does not answer");
        // What has moved to a port without a cable has the same file.
        let file = "15-consign-bond0.network";
        let bond = [Item::text(format!("{FOLDER}/{file}"), 0o644, STATIC)];
        now.links.push(Link {
            number: 4,
            name: "bond0".into(),
            file: file.into(),
            is_known: true,
            has_carrier: false,
        });
        says(&wanted(&bond, &bond), &now, "does not answer");
        assert_eq!(lack(&wanted(&both, &both), &now), None);
        // Plugged in, it has to work.
        now.links[1].has_carrier = true;
        says(&wanted(&both, &both), &now, "eth1 has not got the address");
    }

    #[test]
    fn without_interfaces_in_the_file_one_address_is_enough() {
        let wanted = wants(DEFAULT, DHCP);
        let mut now = seen(DEFAULT, 2, "10.1.2.77");
        now.routes = "eth0\t0002010A\t00000000\t0001\n".into();
        let mut eth1 = now.links[0].clone();
        eth1.number = 3;
        eth1.name = "eth1".into();
        now.links.push(eth1);
        assert_eq!(lack(&wanted, &now), None);
        now.addresses.clear();
        says(&wanted, &now, "eth0 has got no address by DHCP");
        now.links
            .iter_mut()
            .for_each(|link| link.has_carrier = false);
        assert_eq!(lack(&wanted, &now), None);
        // It was so before: whether there is DHCP does not depend on the change.
        let item = [Item::text(format!("{FOLDER}/{DEFAULT}"), 0o644, DHCP)];
        assert_eq!(super::wanted(&item, &item), []);
        let other = [Item::text(format!("{FOLDER}/{DEFAULT}"), 0o644, STATIC)];
        assert_eq!(super::wanted(&item, &other), wanted);
    }

    #[test]
    fn where_networkd_says_nothing_any_link_will_do() {
        let wanted = wants("20-consign-1.network", STATIC);
        let mut now = seen("", 2, "10.1.2.10");
        says(&wanted, &now, "the gateway 10.1.2.1 does not answer");
        now.answered = vec![(9, address("10.1.2.1"))];
        assert_eq!(lack(&wanted, &now), None);
        now.addresses.clear();
        says(&wanted, &now, "the machine has no address");
    }

    #[test]
    fn an_interface_that_nobody_has_is_not_another_one() {
        let file = "20-consign-1.network";
        // A wrong MAC address: the interface keeps the address that it had.
        let mut now = seen("", 2, "10.1.2.10");
        now.answered = vec![(2, address("10.1.2.1"))];
        now.links[0].is_known = true;
        says(
            &wants(file, STATIC),
            &now,
            "no network interface is one that",
        );
        // It was so before, or it is the vendor's to say.
        let item = [Item::text(format!("{FOLDER}/{file}"), 0o644, STATIC)];
        assert_eq!(lack(&wanted(&item, &item), &now), None);
        assert_eq!(lack(&wants(DEFAULT, DHCP), &now), None);
    }

    #[test]
    fn links_are_known_by_the_file_that_networkd_gave_them() {
        let folder = Folder::with(&[
            ("/sys/class/net/eth0/ifindex", "2\n"),
            ("/sys/class/net/eth0/carrier", "1\n"),
            ("/sys/class/net/eth1/ifindex", "3\n"),
            (
                "/run/systemd/netif/links/2",
                "ADMIN_STATE=configured\nNETWORK_FILE=/run/systemd/network/20-consign-1.network\n",
            ),
        ]);
        let links = look(&folder.root, Duration::ZERO).links;
        let eth0 = &seen("20-consign-1.network", 2, "10.1.2.10").links[0];
        assert_eq!(links.first(), Some(eth0));
        assert_eq!((links[1].number, links[1].has_carrier), (3, false));
    }
}
