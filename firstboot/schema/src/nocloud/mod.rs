//! A `CIDATA` medium, as cloud-init's `NoCloud` reads it, as a site
//! configuration. What cannot be said in `site.toml` is refused at its line:
//! nothing is accepted and then ignored.
//!
//! Source: cloud-init's documentation of `NoCloud`, of the modules named here
//! and of network configuration versions 1 and 2.

mod network;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::ovf::quoted;
use crate::problem::{Code, Problem};
use crate::report::{Finding, Report, shown};
use crate::yaml::{Entry, Node, Value, read};
use network::network_config;

/// The first line of a `user-data` that is a configuration.
const HEAD: &str = "#cloud-config";

/// The texts of a `CIDATA` medium; empty where a file is not there.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCloud<'t> {
    /// `meta-data`.
    pub meta_data: &'t str,
    /// `user-data`.
    pub user_data: &'t str,
    /// `network-config`.
    pub network_config: &'t str,
}

/// Writes what the texts say as a `site.toml`.
///
/// # Errors
///
/// The name of the file that cannot be taken, and every problem in it.
pub fn convert_no_cloud(texts: NoCloud<'_>) -> Result<String, (&'static str, Vec<Problem>)> {
    let mut site = Site::default();
    for (name, text, convert) in [
        ("meta-data", texts.meta_data, meta_data as Convert),
        ("user-data", texts.user_data, user_data),
        ("network-config", texts.network_config, network_config),
    ] {
        if text.trim().is_empty() {
            continue;
        }
        let mut report = Report::new(text);
        if name == "user-data" && !text.starts_with(HEAD) {
            let finding = Finding::new(Code::InvalidValue, "only #cloud-config is understood")
                .allowed(HEAD)
                .remedy("write a site.toml for this appliance");
            report.note(&(0..0), "", finding);
        } else {
            let node = read(text).map_err(|problems| (name, problems))?;
            convert(&node, &mut site, &mut report);
        }
        if !report.is_clean() {
            return Err((name, report.into_problems()));
        }
    }
    Ok(site.text())
}

type Convert = fn(&Node, &mut Site, &mut Report<'_>);

/// What has been said so far: tables, each with its lines.
#[derive(Debug, Default)]
struct Site {
    id: Option<String>,
    tables: BTreeMap<String, Vec<String>>,
    lists: Vec<(&'static str, Vec<String>)>,
}

impl Site {
    fn put(&mut self, table: &str, key: &str, value: &str) {
        let lines = self.tables.entry(table.to_owned()).or_default();
        let start = format!("{key} = ");
        lines.retain(|line| !line.starts_with(&start));
        lines.push(format!("{start}{value}"));
    }

    fn text(&self) -> String {
        let id = self.id.as_deref().unwrap_or("nocloud");
        let mut text = format!(
            "# Converted from a CIDATA medium.\nschema = 1\n[config]\nid = {}\nserial = 1\n",
            quoted(id)
        );
        let tables = self.tables.iter();
        let tables = tables.map(|(name, lines)| (format!("[{name}]"), lines));
        let lists = self.lists.iter();
        let lists = lists.map(|(name, lines)| (format!("[[{name}]]"), lines));
        for (head, lines) in tables.chain(lists) {
            let _ = write!(text, "{head}\n{}\n", lines.join("\n"));
        }
        text
    }
}

fn refuse(node: &Node, key: &str, message: &str, report: &mut Report<'_>) {
    refuse_at(node.at, key, message, report);
}

fn refuse_at(at: usize, key: &str, message: &str, report: &mut Report<'_>) {
    let finding = Finding::new(Code::NotAllowed, message)
        .remedy("delete it, or write a site.toml for this appliance");
    report.note(&(at..at), key, finding);
}

fn unknown(Entry { key, at, .. }: &Entry, report: &mut Report<'_>) {
    let message = format!(
        "`{}` has no counterpart in a site configuration",
        shown(key)
    );
    refuse_at(*at, key, &message, report);
}

fn field<'n>(fields: &'n [Entry], key: &str) -> Option<&'n Entry> {
    fields.iter().find(|entry| entry.key == key)
}

fn entries<'n>(node: &'n Node, key: &str, report: &mut Report<'_>) -> &'n [Entry] {
    match &node.value {
        Value::Map(entries) => entries,
        Value::Null => &[],
        _ => {
            refuse(node, key, "a mapping is expected here", report);
            &[]
        }
    }
}

fn text<'n>(node: &'n Node, key: &str, report: &mut Report<'_>) -> Option<&'n str> {
    if let Value::Text(text, _) = &node.value {
        return Some(text);
    }
    refuse(node, key, "a text is expected here", report);
    None
}

fn boolean(node: &Node, key: &str, report: &mut Report<'_>) -> Option<bool> {
    let said = match &node.value {
        Value::Text(text, false) => text.to_ascii_lowercase(),
        _ => String::new(),
    };
    match said.as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => {
            refuse(node, key, "true or false is expected here", report);
            None
        }
    }
}

/// The texts of a list, or of a single text.
fn texts(node: &Node, key: &str, report: &mut Report<'_>) -> Vec<String> {
    match &node.value {
        Value::Text(text, _) => vec![text.clone()],
        Value::List(items) => items
            .iter()
            .filter_map(|item| text(item, key, report).map(str::to_owned))
            .collect(),
        Value::Null => Vec::new(),
        Value::Map(_) => {
            refuse(node, key, "a list of texts is expected here", report);
            Vec::new()
        }
    }
}

fn list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

fn meta_data(node: &Node, site: &mut Site, report: &mut Report<'_>) {
    for entry in entries(node, "", report) {
        let Entry { key, value, .. } = entry;
        match key.as_str() {
            "instance-id" => {
                let id = text(value, key, report).map(|id| {
                    let small = id.to_ascii_lowercase();
                    let mapped = small.chars().map(|c| {
                        let is_plain = c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
                        if is_plain { c } else { '-' }
                    });
                    mapped.collect::<String>()
                });
                site.id = id;
            }
            "local-hostname" | "hostname" => {
                if let Some(name) = text(value, key, report) {
                    site.put("system", "hostname", &quoted(name));
                }
            }
            _ => unknown(entry, report),
        }
    }
}

fn user_data(node: &Node, site: &mut Site, report: &mut Report<'_>) {
    for entry in entries(node, "", report) {
        let Entry { key, value, .. } = entry;
        match key.as_str() {
            "hostname" | "fqdn" | "timezone" | "locale" => {
                // The longer name says more, wherever it stands.
                let has_fqdn = field(entries(node, "", report), "fqdn").is_some();
                let name = if key == "fqdn" { "hostname" } else { key };
                if let Some(found) = text(value, key, report)
                    && !(key == "hostname" && has_fqdn)
                {
                    site.put("system", name, &quoted(found));
                }
            }
            "users" => users(value, site, report),
            "ssh_authorized_keys" => {
                let keys = texts(value, key, report);
                site.put("user.admin", "ssh_keys", &list(&keys));
                site.put("user.admin", "sudo", "true");
            }
            "ca_certs" | "ca-certs" => authorities(value, site, report),
            "ntp" => clocks(value, site, report),
            _ => unknown(entry, report),
        }
    }
}

fn authorities(node: &Node, site: &mut Site, report: &mut Report<'_>) {
    for entry in entries(node, "ca_certs", report) {
        let Entry { key, value, .. } = entry;
        if key != "trusted" {
            unknown(entry, report);
            continue;
        }
        for pem in texts(value, key, report) {
            site.lists
                .push(("ca", vec![format!("pem = {}", multi_line(&pem))]));
        }
    }
}

/// A basic string may say line ends as `\n`.
fn multi_line(text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| quoted(line.trim()).trim_matches('"').to_owned())
        .collect();
    format!("\"{}\\n\"", lines.join("\\n"))
}

fn clocks(node: &Node, site: &mut Site, report: &mut Report<'_>) {
    let mut servers = Vec::new();
    for entry in entries(node, "ntp", report) {
        let Entry { key, value, .. } = entry;
        match key.as_str() {
            "servers" | "pools" => servers.extend(texts(value, key, report)),
            "enabled" => {
                if boolean(value, key, report) == Some(false) {
                    refuse(value, key, "the clock is always kept", report);
                }
            }
            _ => unknown(entry, report),
        }
    }
    if !servers.is_empty() {
        site.put("ntp", "servers", &list(&servers));
    }
}

fn users(node: &Node, site: &mut Site, report: &mut Report<'_>) {
    let Value::List(items) = &node.value else {
        return refuse(node, "users", "a list of users is expected here", report);
    };
    for item in items {
        if let Value::Text(_, _) = &item.value {
            refuse(item, "users", "this appliance has no default user", report);
            continue;
        }
        user(item, site, report);
    }
}

fn user(node: &Node, site: &mut Site, report: &mut Report<'_>) {
    let fields = entries(node, "users", report);
    let name = field(fields, "name");
    let Some(name) = name.and_then(|entry| text(&entry.value, "name", report)) else {
        return refuse(node, "users", "a user has no name", report);
    };
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
    if !is_name {
        return refuse(node, "users", "this is not a user's name", report);
    }
    let table = format!("user.{name}");
    let mut is_locked = None;
    let mut has_hash = false;
    for entry in fields {
        let Entry { key, value, .. } = entry;
        match key.as_str() {
            "name" => {}
            "ssh_authorized_keys" | "ssh-authorized-keys" => {
                site.put(&table, "ssh_keys", &list(&texts(value, key, report)));
            }
            "passwd" | "hashed_passwd" | "hashed-passwd" => {
                has_hash = true;
                if let Some(hash) = text(value, key, report) {
                    site.put(&table, "password_hash", &quoted(hash));
                }
            }
            "lock_passwd" | "lock-passwd" => is_locked = boolean(value, key, report),
            "sudo" => sudo(value, &table, site, report),
            "groups" => {
                let groups = texts(value, key, report);
                let mut names = groups
                    .iter()
                    .flat_map(|text| text.split(','))
                    .map(str::trim);
                if names.all(|name| name == "sudo") {
                    site.put(&table, "sudo", "true");
                } else {
                    refuse(value, key, "only the group sudo has a counterpart", report);
                }
            }
            _ => unknown(entry, report),
        }
    }
    // cloud-init locks passwords unless it is told otherwise.
    if has_hash && is_locked != Some(false) {
        refuse(node, "users", "the password of this user is locked", report);
    }
}

fn sudo(node: &Node, table: &str, site: &mut Site, report: &mut Report<'_>) {
    let rules = texts(node, "sudo", report);
    let is_full = |rule: &String| {
        let words: Vec<&str> = rule.split_whitespace().collect();
        let rule = words.join(" ");
        matches!(
            rule.as_str(),
            "ALL=(ALL) NOPASSWD:ALL"
                | "ALL=(ALL) NOPASSWD: ALL"
                | "ALL=(ALL:ALL) NOPASSWD:ALL"
                | "ALL=(ALL) ALL"
                | "ALL=(ALL:ALL) ALL"
        )
    };
    match rules.as_slice() {
        [rule] if rule == "false" => {}
        [_, ..] if rules.iter().all(is_full) => site.put(table, "sudo", "true"),
        _ => refuse(node, "sudo", "only full sudo has a counterpart", report),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Policy, check};

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

    fn converted(texts: NoCloud<'_>) -> crate::SiteConfig {
        let text = convert_no_cloud(texts).unwrap_or_else(|error| panic!("{error:#?}"));
        check(&text, &[], &Policy::default()).unwrap_or_else(|error| panic!("{text}\n{error:#?}"))
    }

    #[test]
    fn a_usual_medium_becomes_a_configuration() {
        let user_data = format!(
            "#cloud-config\nfqdn: web-1.example.org\nhostname: web-1\ntimezone: Europe/Berlin\n\
             users:\n  - name: ann\n    sudo: ALL=(ALL) NOPASSWD:ALL\n    ssh_authorized_keys:\n      - {KEY} ann\n\
             ssh_authorized_keys: [\"{KEY}\"]\nntp:\n  servers: [time.example.org]\n"
        );
        let site = converted(NoCloud {
            meta_data: "instance-id: iid_Local01\nlocal-hostname: other\n",
            user_data: &user_data,
            network_config: "version: 2\nethernets:\n  eth0:\n    match: {macaddress: '52:54:00:12:34:56'}\n    addresses: [10.1.2.10/24]\n    routes:\n      - to: default\n        via: 10.1.2.1\n    nameservers:\n      addresses: [10.1.2.1]\n      search: [example.org]\n",
        });
        assert_eq!(site.id.as_str(), "iid-local01");
        let name = site.system.hostname.as_ref().map(crate::HostName::as_str);
        assert_eq!(name, Some("web-1.example.org"));
        assert_eq!(site.users.len(), 2);
        assert!(site.users.iter().all(|user| user.sudo));
        assert_eq!(site.nics[0].link.gateways.len(), 1);
        assert_eq!(site.dns.search.len(), 1);
    }

    #[test]
    fn version_1_of_the_network_is_converted() {
        let site = converted(NoCloud {
            network_config: "version: 1\nconfig:\n  - type: physical\n    name: eth0\n    mac_address: '52:54:00:12:34:56'\n    mtu: 1400\n    subnets:\n      - type: static\n        address: 10.1.2.10\n        netmask: 255.255.255.0\n        gateway: 10.1.2.1\n      - type: dhcp6\n  - type: nameserver\n    address: [10.1.2.1]\n",
            ..NoCloud::default()
        });
        let nic = &site.nics[0];
        assert_eq!(nic.link.addresses[0].to_string(), "10.1.2.10/24");
        assert_eq!((nic.link.mtu, nic.link.dhcp6), (Some(1400), true));
        assert_eq!(site.dns.servers.len(), 1);
    }

    #[test]
    fn what_has_no_counterpart_is_refused_at_its_line() {
        for (name, text, line) in [
            (
                "user-data",
                "#cloud-config\nhostname: a\nruncmd:\n  - reboot\n",
                3,
            ),
            ("user-data", "#cloud-config\nwrite_files: []\n", 2),
            ("user-data", "#cloud-config\npackages: [x]\n", 2),
            ("user-data", "#cloud-config\nbootcmd: [x]\n", 2),
            ("user-data", "#!/bin/sh\nreboot\n", 1),
            ("user-data", "#include\nhttp://x\n", 1),
            ("user-data", "#cloud-config\nusers: [default]\n", 2),
            (
                "user-data",
                "#cloud-config\nusers:\n  - name: a\n    shell: /bin/zsh\n",
                4,
            ),
            (
                "user-data",
                "#cloud-config\nusers:\n  - name: a\n    sudo: ALL=(ALL) /bin/ls\n",
                4,
            ),
            ("user-data", "#cloud-config\nusers:\n  - name: 'a]'\n", 3),
            (
                "user-data",
                "#cloud-config\nusers:\n  - name: a\n    passwd: x\n",
                3,
            ),
            ("user-data", "#cloud-config\nntp: {enabled: false}\n", 2),
            ("meta-data", "instance-id: a\npublic-keys: x\n", 2),
            ("network-config", "version: 3\nethernets: {}\n", 2),
            ("network-config", "version: 2\nbonds:\n  b: {}\n", 2),
            (
                "network-config",
                "version: 2\nethernets:\n  e:\n    set-name: x\n",
                4,
            ),
            (
                "network-config",
                "version: 2\nethernets:\n  e:\n    routes: [{to: 10.0.0.0/8, via: 10.0.0.1}]\n",
                4,
            ),
            ("network-config", "version: 1\nconfig:\n  - type: bond\n", 3),
        ] {
            let mut texts = NoCloud::default();
            match name {
                "user-data" => texts.user_data = text,
                "meta-data" => texts.meta_data = text,
                _ => texts.network_config = text,
            }
            let (file, problems) = convert_no_cloud(texts).expect_err(text);
            assert_eq!(
                (file, problems[0].line),
                (name, line),
                "{text}: {problems:?}"
            );
        }
    }

    #[test]
    fn a_refused_key_is_told_at_its_own_place() {
        for (user_data, network_config, place) in [
            ("#cloud-config\nhostname: a\npackages:\n  - x\n", "", (3, 1)),
            ("#cloud-config\nntp:\n  pool:\n\n   - x\n", "", (3, 3)),
            (
                "#cloud-config\nntp: {servers: [a], pool: [b]}\n",
                "",
                (2, 21),
            ),
            (
                "#cloud-config\nwrite_files:\n\n  # why\n  - path: /x\n",
                "",
                (2, 1),
            ),
            (
                "",
                "version: 2\nethernets:\n  e:\n    set-name:\n      x\n",
                (4, 5),
            ),
        ] {
            let texts = NoCloud {
                user_data,
                network_config,
                ..NoCloud::default()
            };
            let (_, problems) = convert_no_cloud(texts).expect_err("refused");
            let found = (problems[0].line, problems[0].column);
            assert_eq!(found, place, "{user_data}{network_config}: {problems:?}");
        }
    }

    #[test]
    fn one_document_may_begin_with_its_marker() {
        let site = converted(NoCloud {
            user_data: "#cloud-config\n---\nhostname: web-1\n",
            ..NoCloud::default()
        });
        assert!(site.system.hostname.is_some());
        let (_, problems) = convert_no_cloud(NoCloud {
            user_data: "#cloud-config\n---\nhostname: web-1\n---\nhostname: web-2\n",
            ..NoCloud::default()
        })
        .expect_err("two documents");
        assert_eq!(problems[0].line, 4);
    }

    #[test]
    fn values_cannot_write_keys() {
        let text = convert_no_cloud(NoCloud {
            user_data: "#cloud-config\nhostname: \"a\\\"\\n[user.root]\\nx = \\\"\"\n",
            ..NoCloud::default()
        });
        let text = text.expect("converted");
        let problems = check(&text, &[], &Policy::default()).expect_err("no host name");
        assert_eq!(problems.len(), 1, "{problems:?}");
    }
}
