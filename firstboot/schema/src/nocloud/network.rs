//! `network-config` of a `CIDATA` medium: versions 1 and 2.

use std::net::Ipv4Addr;

use super::output::{Said, Site, Table};
use super::{boolean, entries, field, refuse, scalar, text, texts, unknown};
use crate::report::Report;
use crate::text::quoted;
use crate::yaml::{Entry, Node, Value};

pub(super) fn network_config(node: &Node, site: &mut Site, report: &mut Report<'_>) {
    let mut fields = entries(node, "", report);
    if let Some(inner) = field(fields, "network") {
        let beside = fields.iter().filter(|entry| entry.key != "network");
        beside.for_each(|entry| unknown(entry, report));
        fields = entries(&inner.value, "network", report);
    }
    let Some(first) = fields.first() else {
        return;
    };
    let version = field(fields, "version");
    let number = version.and_then(|version| scalar(&version.value));
    if !matches!(number, Some("1" | "2")) {
        let at = version.map_or(first.at, |version| version.value.at);
        return refuse(at, "version", "the version is neither 1 nor 2", report);
    }
    for entry in fields {
        let Entry { key, at, value } = entry;
        match (number, key.as_str()) {
            (_, "version") => {}
            (Some("2"), "ethernets") => {
                for device in entries(value, key, report) {
                    ethernet(device, site, report);
                }
            }
            (Some("2"), "renderer") => {
                let message = "the appliance has a renderer of its own";
                refuse(*at, key, message, report);
            }
            (Some("1"), "config") => version_1(value, site, report),
            _ => unknown(entry, report),
        }
    }
}

/// One device of version 2, as netplan has them. Without `match`, the name is
/// that of the interface.
fn ethernet(device: &Entry, site: &mut Site, report: &mut Report<'_>) {
    let before = report.count();
    let mut nic = Table::new(site.file, device.at);
    set_match(&mut nic, "name", &device.key, device.at);
    for entry in entries(&device.value, &device.key, report) {
        let Entry { key, value, .. } = entry;
        match key.as_str() {
            "match" => matched(entry, &mut nic, report),
            "dhcp4" => dhcp("dhcp4", value, &mut nic, report),
            "dhcp6" => dhcp("dhcp6", value, &mut nic, report),
            "addresses" => nic.join("address", texts(value, key, report)),
            "gateway4" | "gateway6" => nic.join("gateway", texts(value, key, report)),
            "routes" => nic.join("gateway", default_routes(value, report)),
            "mtu" => mtu(value, &mut nic, report),
            "nameservers" => {
                name_servers(entries(value, key, report), "addresses", site, report);
            }
            _ => unknown(entry, report),
        }
    }
    refuse_without_address(&nic, &device.key, before, report);
    site.lists.push(("nic", nic));
}

/// Refuses an interface without addresses, unless one of them was refused.
fn refuse_without_address(nic: &Table, key: &str, before: usize, report: &mut Report<'_>) {
    let has_address = ["dhcp4", "dhcp6", "address"].iter().any(|key| nic.has(key));
    if !has_address && report.count() == before {
        refuse(nic.at, key, "the interface gets no address", report);
    }
}

fn set_match(nic: &mut Table, kind: &str, text: &str, at: usize) {
    nic.set("match", format!("{{ {kind} = {} }}", quoted(text)), at);
}

/// An interface is meant by one thing here; netplan's other conditions must
/// all hold.
fn matched(entry: &Entry, nic: &mut Table, report: &mut Report<'_>) {
    let fields = entries(&entry.value, &entry.key, report);
    if fields.is_empty() {
        let message = "a match without conditions means every interface";
        refuse(entry.at, &entry.key, message, report);
    }
    for (nth, entry) in fields.iter().enumerate() {
        let Entry { key, at, value } = entry;
        let kind = match key.as_str() {
            "macaddress" => "mac",
            "name" => "name",
            _ => {
                unknown(entry, report);
                continue;
            }
        };
        if nth > 0 {
            let message = "an interface is meant by its macaddress or its name, not by both";
            refuse(*at, key, message, report);
        } else if let Some(found) = text(value, key, report) {
            set_match(nic, kind, found, value.at);
        }
    }
}

fn dhcp(key: &'static str, node: &Node, nic: &mut Table, report: &mut Report<'_>) {
    if let Some(is_on) = boolean(node, key, report) {
        let text = if is_on { "true" } else { "false" };
        nic.set(key, text.to_owned(), node.at);
    }
}

fn mtu(node: &Node, nic: &mut Table, report: &mut Report<'_>) {
    let Some(found) = text(node, "mtu", report) else {
        return;
    };
    match found.parse::<u32>() {
        Ok(number) => nic.set("mtu", number.to_string(), node.at),
        Err(_) => refuse(node.at, "mtu", "a number is expected here", report),
    }
}

fn default_routes(node: &Node, report: &mut Report<'_>) -> Vec<Said> {
    let Value::List(routes) = &node.value else {
        let message = "a list of routes is expected here";
        refuse(node.at, "routes", message, report);
        return Vec::new();
    };
    let mut gateways = Vec::new();
    for route in routes {
        let fields = entries(route, "routes", report);
        let to = field(fields, "to").and_then(|to| scalar(&to.value));
        let via = field(fields, "via").and_then(|via| Some((scalar(&via.value)?, via.value.at)));
        match (to, via) {
            (Some(to), Some((via, at))) if fields.len() == 2 && is_default(to, via) => {
                let text = via.to_owned();
                gateways.push(Said { text, at });
            }
            _ => {
                let message = "only default routes have a counterpart";
                refuse(route.at, "routes", message, report);
            }
        }
    }
    gateways
}

/// Whether the route leads to every address of the gateway's family.
fn is_default(to: &str, via: &str) -> bool {
    match to {
        "default" => true,
        "0.0.0.0/0" => !via.contains(':'),
        "::/0" => via.contains(':'),
        _ => false,
    }
}

/// Name servers of an interface or of the machine, which has one list here.
/// In version 1, where they are an `address`, their kind stands beside them.
fn name_servers(fields: &[Entry], servers: &str, site: &mut Site, report: &mut Report<'_>) {
    for entry in fields {
        let Entry { key, value, .. } = entry;
        if key == servers {
            site.join("dns", "servers", texts(value, key, report));
        } else if key == "search" {
            site.join("dns", "search", texts(value, key, report));
        } else if key != "type" || servers != "address" {
            unknown(entry, report);
        }
    }
}

fn version_1(node: &Node, site: &mut Site, report: &mut Report<'_>) {
    let Value::List(items) = &node.value else {
        let message = "a list of devices is expected here";
        return refuse(node.at, "config", message, report);
    };
    for item in items {
        let fields = entries(item, "config", report);
        let kind = field(fields, "type");
        match kind.and_then(|kind| scalar(&kind.value)) {
            Some("physical") => physical(item.at, fields, site, report),
            Some("nameserver") => name_servers(fields, "address", site, report),
            _ => {
                let at = kind.map_or(item.at, |kind| kind.value.at);
                let message = "only physical and nameserver have a counterpart";
                refuse(at, "type", message, report);
            }
        }
    }
}

/// A device of version 1. Beside a hardware address, its name is what
/// cloud-init would call it; nothing that is taken here refers to that name.
fn physical(at: usize, fields: &[Entry], site: &mut Site, report: &mut Report<'_>) {
    let before = report.count();
    let mut nic = Table::new(site.file, at);
    for entry in fields {
        let Entry { key, value, .. } = entry;
        match key.as_str() {
            "type" => {}
            "mac_address" => {
                if let Some(mac) = text(value, key, report) {
                    set_match(&mut nic, "mac", mac, value.at);
                }
            }
            "name" => {
                if let Some(name) = text(value, key, report)
                    && field(fields, "mac_address").is_none()
                {
                    set_match(&mut nic, "name", name, value.at);
                }
            }
            "mtu" => mtu(value, &mut nic, report),
            "subnets" => subnets(value, &mut nic, site, report),
            _ => unknown(entry, report),
        }
    }
    if field(fields, "mac_address").is_none() && field(fields, "name").is_none() {
        refuse(at, "config", "the interface has no name", report);
    }
    refuse_without_address(&nic, "config", before, report);
    site.lists.push(("nic", nic));
}

fn subnets(node: &Node, nic: &mut Table, site: &mut Site, report: &mut Report<'_>) {
    let Value::List(items) = &node.value else {
        return refuse(node.at, "subnets", "a list is expected here", report);
    };
    for item in items {
        let fields = entries(item, "subnets", report);
        let netmask = field(fields, "netmask");
        for entry in fields {
            let Entry { key, at, value } = entry;
            match key.as_str() {
                "type" => subnet_type(entry, nic, report),
                "address" => address(value, netmask, nic, report),
                "netmask" if field(fields, "address").is_some() => {}
                "netmask" => refuse(*at, key, "there is no address that it belongs to", report),
                "gateway" => nic.join("gateway", texts(value, key, report)),
                "dns_nameservers" => site.join("dns", "servers", texts(value, key, report)),
                "dns_search" => site.join("dns", "search", texts(value, key, report)),
                _ => unknown(entry, report),
            }
        }
    }
}

fn subnet_type(entry: &Entry, nic: &mut Table, report: &mut Report<'_>) {
    let at = entry.value.at;
    match scalar(&entry.value) {
        Some("dhcp" | "dhcp4") => nic.set("dhcp4", "true".to_owned(), at),
        Some("dhcp6") => nic.set("dhcp6", "true".to_owned(), at),
        Some("static" | "static6") => {}
        _ => {
            let message = "only dhcp, dhcp4, dhcp6, static and static6 have a counterpart";
            refuse(at, &entry.key, message, report);
        }
    }
}

/// An address with its network's length, which may come as a netmask.
fn address(node: &Node, netmask: Option<&Entry>, nic: &mut Table, report: &mut Report<'_>) {
    let Some(address) = text(node, "address", report) else {
        return;
    };
    let mut said = address.to_owned();
    if let Some(mask) = netmask {
        let Some(length) = scalar(&mask.value).and_then(mask_length) else {
            return refuse(mask.value.at, "netmask", "this is not a netmask", report);
        };
        said = format!("{}/{length}", address.split('/').next().unwrap_or_default());
        let is_fitting = !address.contains(':') && (!address.contains('/') || said == address);
        if !is_fitting {
            let message = "the netmask does not fit the address";
            return refuse(mask.value.at, "netmask", message, report);
        }
    }
    nic.join(
        "address",
        vec![Said {
            text: said,
            at: node.at,
        }],
    );
}

/// The bits of a netmask, which must all stand at its beginning.
fn mask_length(mask: &str) -> Option<u32> {
    let bits = mask.parse::<Ipv4Addr>().ok()?.to_bits();
    let length = bits.leading_ones();
    (length + bits.trailing_zeros() == 32).then_some(length)
}
