//! `network-config` of a `CIDATA` medium: versions 1 and 2.

use std::net::Ipv4Addr;

use super::{Site, boolean, entries, field, list, refuse, text, texts, unknown};
use crate::ovf::quoted;
use crate::report::Report;
use crate::yaml::{Entry, Node, Value};

pub(super) fn network_config(node: &Node, site: &mut Site, report: &mut Report<'_>) {
    let mut root = node;
    if let Some(entry) = field(entries(node, "", report), "network") {
        root = &entry.value;
    }
    let fields = entries(root, "network", report);
    let version = field(fields, "version");
    let version = version.and_then(|entry| text(&entry.value, "version", report));
    for entry in fields {
        let Entry { key, value, .. } = entry;
        match (version, key.as_str()) {
            (_, "version") => {}
            (Some("2"), "ethernets") => {
                for device in entries(value, key, report) {
                    ethernet(&device.key, &device.value, site, report);
                }
            }
            (Some("2"), "renderer") => {
                refuse(
                    value,
                    key,
                    "the appliance has a renderer of its own",
                    report,
                );
            }
            (Some("1"), "config") => version_1(value, site, report),
            (Some("1" | "2"), _) => unknown(entry, report),
            _ => refuse(value, key, "the version is neither 1 nor 2", report),
        }
    }
}

/// One device of version 2, as netplan has them.
fn ethernet(name: &str, node: &Node, site: &mut Site, report: &mut Report<'_>) {
    let mut nic = vec![format!("match = {{ name = {} }}", quoted(name))];
    let mut gateways = Vec::new();
    for entry in entries(node, name, report) {
        let Entry { key, value, .. } = entry;
        match key.as_str() {
            "match" => {
                for entry in entries(value, key, report) {
                    let Entry { key, value, .. } = entry;
                    let kind = match key.as_str() {
                        "macaddress" => "mac",
                        "name" => "name",
                        _ => {
                            unknown(entry, report);
                            continue;
                        }
                    };
                    if let Some(found) = text(value, key, report) {
                        nic[0] = format!("match = {{ {kind} = {} }}", quoted(found));
                    }
                }
            }
            "dhcp4" | "dhcp6" => {
                if let Some(is_on) = boolean(value, key, report) {
                    nic.push(format!("{key} = {is_on}"));
                }
            }
            "addresses" => nic.push(format!("address = {}", list(&texts(value, key, report)))),
            "gateway4" | "gateway6" => gateways.extend(texts(value, key, report)),
            "routes" => gateways.extend(default_routes(value, report)),
            "mtu" => nic.extend(number(value, key, report)),
            "nameservers" => name_servers(value, "addresses", "search", site, report),
            _ => unknown(entry, report),
        }
    }
    if !gateways.is_empty() {
        nic.push(format!("gateway = {}", list(&gateways)));
    }
    site.lists.push(("nic", nic));
}

fn number(node: &Node, key: &str, report: &mut Report<'_>) -> Option<String> {
    let found = text(node, key, report)?.parse::<u32>().ok();
    if found.is_none() {
        refuse(node, key, "a number is expected here", report);
    }
    found.map(|number| format!("{key} = {number}"))
}

fn default_routes(node: &Node, report: &mut Report<'_>) -> Vec<String> {
    let Value::List(routes) = &node.value else {
        refuse(node, "routes", "a list of routes is expected here", report);
        return Vec::new();
    };
    let mut gateways = Vec::new();
    for route in routes {
        let fields = entries(route, "routes", report);
        let is_default = field(fields, "to").is_some_and(|to| {
            matches!(&to.value.value, Value::Text(text, _) if matches!(text.as_str(), "default" | "0.0.0.0/0" | "::/0"))
        });
        match field(fields, "via") {
            Some(via) if is_default && fields.len() == 2 => {
                gateways.extend(text(&via.value, "via", report).map(str::to_owned));
            }
            _ => refuse(
                route,
                "routes",
                "only default routes have a counterpart",
                report,
            ),
        }
    }
    gateways
}

fn name_servers(
    node: &Node,
    servers: &str,
    search: &str,
    site: &mut Site,
    report: &mut Report<'_>,
) {
    for entry in entries(node, "nameservers", report) {
        let Entry { key, value, .. } = entry;
        let found = texts(value, key, report);
        if key == servers {
            site.put("dns", "servers", &list(&found));
        } else if key == search {
            site.put("dns", "search", &list(&found));
        } else if key != "type" {
            unknown(entry, report);
        }
    }
}

fn version_1(node: &Node, site: &mut Site, report: &mut Report<'_>) {
    let Value::List(items) = &node.value else {
        return refuse(node, "config", "a list of devices is expected here", report);
    };
    for item in items {
        let kind = field(entries(item, "config", report), "type");
        match kind.and_then(|kind| text(&kind.value, "type", report)) {
            Some("physical") => physical(item, site, report),
            Some("nameserver") => name_servers(item, "address", "search", site, report),
            _ => refuse(
                item,
                "type",
                "only physical and nameserver have a counterpart",
                report,
            ),
        }
    }
}

fn physical(node: &Node, site: &mut Site, report: &mut Report<'_>) {
    let mut nic = vec![String::new()];
    for entry in entries(node, "config", report) {
        let Entry { key, value, .. } = entry;
        match key.as_str() {
            "type" => {}
            "mac_address" => {
                if let Some(mac) = text(value, key, report) {
                    nic[0] = format!("match = {{ mac = {} }}", quoted(mac));
                }
            }
            "name" => {
                if let Some(name) = text(value, key, report)
                    && nic[0].is_empty()
                {
                    nic[0] = format!("match = {{ name = {} }}", quoted(name));
                }
            }
            "mtu" => nic.extend(number(value, key, report)),
            "subnets" => subnets(value, &mut nic, site, report),
            _ => unknown(entry, report),
        }
    }
    site.lists.push(("nic", nic));
}

fn subnets(node: &Node, nic: &mut Vec<String>, site: &mut Site, report: &mut Report<'_>) {
    let Value::List(items) = &node.value else {
        return refuse(node, "subnets", "a list is expected here", report);
    };
    let (mut addresses, mut gateways) = (Vec::new(), Vec::new());
    for item in items {
        let fields = entries(item, "subnets", report);
        let netmask = field(fields, "netmask");
        for entry in fields {
            let Entry { key, value, .. } = entry;
            let found = texts(value, key, report);
            let first = found.first().map(String::as_str).unwrap_or_default();
            match (key.as_str(), first) {
                ("type", "dhcp" | "dhcp4") => nic.push("dhcp4 = true".into()),
                ("type", "dhcp6") => nic.push("dhcp6 = true".into()),
                ("type", "static" | "static6") | ("netmask", _) => {}
                ("address", address) => {
                    let mask = netmask.and_then(|mask| text(&mask.value, "netmask", report));
                    addresses.push(with_prefix(address, mask));
                }
                ("gateway", _) => gateways.extend(found),
                ("dns_nameservers", _) => site.put("dns", "servers", &list(&found)),
                ("dns_search", _) => site.put("dns", "search", &list(&found)),
                _ => unknown(entry, report),
            }
        }
    }
    if !addresses.is_empty() {
        nic.push(format!("address = {}", list(&addresses)));
    }
    if !gateways.is_empty() {
        nic.push(format!("gateway = {}", list(&gateways)));
    }
}

/// The address with its network's length. A mask that is none stays, and is
/// refused with the address.
fn with_prefix(address: &str, mask: Option<&str>) -> String {
    let bits = mask
        .and_then(|mask| mask.parse::<Ipv4Addr>().ok())
        .map(Ipv4Addr::to_bits);
    match bits.filter(|bits| bits.leading_ones() + bits.trailing_zeros() == 32) {
        Some(bits) if !address.contains('/') => format!("{address}/{}", bits.leading_ones()),
        _ => address.to_owned(),
    }
}
