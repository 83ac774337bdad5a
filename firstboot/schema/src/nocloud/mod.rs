//! A `CIDATA` medium, as cloud-init's `NoCloud` reads it, as a site
//! configuration. What cannot be said in `site.toml` is refused at its line:
//! nothing is accepted and then ignored.
//!
//! Source: cloud-init's documentation of `NoCloud`, of the modules named here
//! and of network configuration versions 1 and 2.

mod network;
mod output;
#[cfg(test)]
mod tests;

use crate::policy::Policy;
use crate::problem::{Code, Problem};
use crate::report::{Finding, Report, shown};
use crate::site::check;
use crate::text::quoted;
use crate::yaml::{Entry, Node, Value, read};
use network::network_config;
use output::{Mark, Said, Site, Table};

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

/// The place of `user-data` in the order of the files: it is told of what has
/// no place of its own.
const USER_DATA: usize = 1;

/// The user that top-level keys belong to, as the default user of cloud-init.
const DEFAULT_USER: &str = "user.admin";

/// Writes what the texts say as a `site.toml`.
///
/// # Errors
///
/// The name of the file that cannot be taken, and every problem in it.
pub fn convert_no_cloud(texts: NoCloud<'_>) -> Result<String, (&'static str, Vec<Problem>)> {
    let mut site = Site::default();
    let mut reports = Vec::new();
    set_id("nocloud", 0, &mut site);
    for (file, (name, text, convert)) in [
        ("meta-data", texts.meta_data, meta_data as Convert),
        ("user-data", texts.user_data, user_data),
        ("network-config", texts.network_config, network_config),
    ]
    .into_iter()
    .enumerate()
    {
        site.file = file;
        let mut report = Report::new(text);
        if text.trim().is_empty() {
            // The medium has no such file.
        } else if name == "user-data" && !text.starts_with(HEAD) {
            let finding = Finding::new(Code::InvalidValue, "only #cloud-config is understood")
                .allowed(HEAD)
                .remedy("write a site.toml for this appliance");
            report.note(&(0..0), "", finding);
        } else {
            let node = read(text).map_err(|problems| (name, problems))?;
            convert(&node, &mut site, &mut report);
        }
        reports.push((name, report));
    }
    let (text, marks) = site.write();
    judge(&text, &marks, &mut reports);
    match reports.into_iter().find(|(_, report)| !report.is_clean()) {
        Some((name, report)) => Err((name, report.into_problems())),
        None => Ok(text),
    }
}

/// Judges the result as a site configuration. What is wrong with it is told
/// where it was said: nobody has the result.
fn judge(text: &str, marks: &[Mark], reports: &mut [(&'static str, Report<'_>)]) {
    let Err(problems) = check(text, &[], &Policy::default()) else {
        return;
    };
    let is_whole = reports.iter().all(|(_, report)| report.is_clean());
    let written = Report::new(text);
    for problem in problems {
        // What was refused is not in the result: only values can be judged then.
        if !is_whole && problem.code != Code::InvalidValue {
            continue;
        }
        let start = written.offset(problem.line, problem.column);
        let before = marks.partition_point(|mark| mark.start <= start);
        let mark = before.checked_sub(1).and_then(|last| marks.get(last));
        let (file, at) = mark.map_or((USER_DATA, 0), |mark| (mark.file, mark.at));
        if let Some((_, report)) = reports.get_mut(file) {
            report.retell(at, problem);
        }
    }
}

type Convert = fn(&Node, &mut Site, &mut Report<'_>);

fn set_id(id: &str, at: usize, site: &mut Site) {
    let table = site.table("config", at);
    table.set("id", quoted(id), at);
    table.set("serial", "1".to_owned(), at);
}

fn refuse(at: usize, key: &str, message: &str, report: &mut Report<'_>) {
    let finding = Finding::new(Code::NotAllowed, message)
        .remedy("delete it, or write a site.toml for this appliance");
    report.note(&(at..at), key, finding);
}

fn unknown(Entry { key, at, .. }: &Entry, report: &mut Report<'_>) {
    let message = format!(
        "`{}` has no counterpart in a site configuration",
        shown(key)
    );
    refuse(*at, key, &message, report);
}

/// For a key that has two spellings, which are both there.
fn doubled(Entry { key, at, .. }: &Entry, report: &mut Report<'_>) {
    refuse(
        *at,
        key,
        "this is said already, by another spelling of the key",
        report,
    );
}

fn field<'n>(fields: &'n [Entry], key: &str) -> Option<&'n Entry> {
    fields.iter().find(|entry| entry.key == key)
}

fn entries<'n>(node: &'n Node, key: &str, report: &mut Report<'_>) -> &'n [Entry] {
    match &node.value {
        Value::Map(entries) => entries,
        Value::Null => &[],
        _ => {
            refuse(node.at, key, "a mapping is expected here", report);
            &[]
        }
    }
}

fn scalar(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Text(text, _) => Some(text),
        _ => None,
    }
}

fn text<'n>(node: &'n Node, key: &str, report: &mut Report<'_>) -> Option<&'n str> {
    let found = scalar(node);
    if found.is_none() {
        refuse(node.at, key, "a text is expected here", report);
    }
    found
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
            refuse(node.at, key, "true or false is expected here", report);
            None
        }
    }
}

/// The texts of a list, or a single text.
fn texts(node: &Node, key: &str, report: &mut Report<'_>) -> Vec<Said> {
    let nodes = match &node.value {
        Value::Text(_, _) => std::slice::from_ref(node),
        Value::List(items) => items,
        Value::Null => &[],
        Value::Map(_) => {
            refuse(node.at, key, "a list of texts is expected here", report);
            &[]
        }
    };
    let said = |node: &Node| {
        let text = text(node, key, report)?.to_owned();
        Some(Said { text, at: node.at })
    };
    nodes.iter().filter_map(said).collect()
}

fn meta_data(node: &Node, site: &mut Site, report: &mut Report<'_>) {
    let fields = entries(node, "", report);
    let local = field(fields, "local-hostname").and_then(|local| scalar(&local.value));
    for entry in fields {
        let Entry { key, at, value } = entry;
        match key.as_str() {
            "instance-id" => {
                if let Some(id) = text(value, key, report) {
                    set_id(&identifier(id), value.at, site);
                }
            }
            "hostname" if local.is_some() && local != scalar(value) => {
                let message = "`local-hostname` gives the machine another name";
                refuse(*at, key, message, report);
            }
            "local-hostname" | "hostname" => setting("hostname", entry, site, report),
            _ => unknown(entry, report),
        }
    }
}

/// An instance's identifier in the characters that ours have.
fn identifier(id: &str) -> String {
    let small = id.to_ascii_lowercase();
    let mapped = small.chars().map(|c| {
        let is_plain = c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        if is_plain { c } else { '-' }
    });
    mapped.collect()
}

/// A text below `[system]`.
fn setting(name: &'static str, entry: &Entry, site: &mut Site, report: &mut Report<'_>) {
    let Entry { key, value, .. } = entry;
    if let Some(found) = text(value, key, report) {
        let table = site.table("system", value.at);
        table.set(name, quoted(found), value.at);
    }
}

fn user_data(node: &Node, site: &mut Site, report: &mut Report<'_>) {
    let fields = entries(node, "", report);
    for entry in fields {
        let Entry { key, value, .. } = entry;
        match key.as_str() {
            "hostname" => host_name(entry, field(fields, "fqdn"), site, report),
            "fqdn" => setting("hostname", entry, site, report),
            "timezone" => setting("timezone", entry, site, report),
            "locale" => setting("locale", entry, site, report),
            "users" => users(value, site, report),
            // After the users: one of them may be the default user.
            "ssh_authorized_keys" => {}
            "ca_certs" | "ca-certs" => authorities(value, site, report),
            "ntp" => clocks(value, site, report),
            _ => unknown(entry, report),
        }
    }
    if let Some(entry) = field(fields, "ssh_authorized_keys") {
        default_keys(entry, site, report);
    }
    if report.is_clean() {
        refuse_without_login(site, report);
    }
}

/// `fqdn` says more than `hostname`, which can only be its beginning then.
fn host_name(entry: &Entry, fqdn: Option<&Entry>, site: &mut Site, report: &mut Report<'_>) {
    let Some(fqdn) = fqdn.and_then(|fqdn| scalar(&fqdn.value)) else {
        return setting("hostname", entry, site, report);
    };
    let Some(name) = text(&entry.value, &entry.key, report) else {
        return;
    };
    let rest = fqdn.strip_prefix(name);
    if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
        let message = "`fqdn` gives the machine another name";
        refuse(entry.value.at, &entry.key, message, report);
    }
}

/// Keys of the default user. Where `users` has this user, it says whether the
/// user may become root.
fn default_keys(entry: &Entry, site: &mut Site, report: &mut Report<'_>) {
    let keys = texts(&entry.value, &entry.key, report);
    let is_described = site.has(DEFAULT_USER);
    if !keys.is_empty() && !is_described {
        let table = site.table(DEFAULT_USER, entry.at);
        table.set("sudo", "true".to_owned(), entry.at);
    }
    site.join(DEFAULT_USER, "ssh_keys", keys);
}

fn refuse_without_login(site: &Site, report: &mut Report<'_>) {
    for (name, table) in &site.tables {
        let can_log_in = table.has("ssh_keys") || table.has("password_hash");
        if name.starts_with("user.") && !can_log_in {
            let message = "this user has neither an SSH key nor a password";
            refuse(table.at, "users", message, report);
        }
    }
}

fn authorities(node: &Node, site: &mut Site, report: &mut Report<'_>) {
    for entry in entries(node, "ca_certs", report) {
        if entry.key != "trusted" {
            unknown(entry, report);
            continue;
        }
        for pem in texts(&entry.value, &entry.key, report) {
            let mut table = Table::new(site.file, pem.at);
            table.set("pem", multi_line(&pem.text), pem.at);
            site.lists.push(("ca", table));
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
    for entry in entries(node, "ntp", report) {
        let Entry { key, value, .. } = entry;
        match key.as_str() {
            "servers" | "pools" => site.join("ntp", "servers", texts(value, key, report)),
            "enabled" => {
                if boolean(value, key, report) == Some(false) {
                    refuse(value.at, key, "the clock is always kept", report);
                }
            }
            _ => unknown(entry, report),
        }
    }
}

fn users(node: &Node, site: &mut Site, report: &mut Report<'_>) {
    let Value::List(items) = &node.value else {
        return refuse(node.at, "users", "a list of users is expected here", report);
    };
    for item in items {
        if scalar(item).is_some() {
            let message = "this appliance has no default user";
            refuse(item.at, "users", message, report);
            continue;
        }
        user(item, site, report);
    }
}

fn user(node: &Node, site: &mut Site, report: &mut Report<'_>) {
    let fields = entries(node, "users", report);
    let Some(named) = field(fields, "name") else {
        return refuse(node.at, "users", "a user has no name", report);
    };
    let at = named.value.at;
    let Some(name) = text(&named.value, "name", report) else {
        return;
    };
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
    if !is_name {
        return refuse(at, "users", "this is not a user's name", report);
    }
    let table = format!("user.{name}");
    if site.has(&table) {
        return refuse(at, "users", "this user stands in the list already", report);
    }
    user_fields(fields, site.table(&table, at), report);
}

fn user_fields(fields: &[Entry], table: &mut Table, report: &mut Report<'_>) {
    let mut is_locked = None;
    for entry in fields {
        let Entry { key, value, at } = entry;
        match key.as_str() {
            "name" => {}
            "ssh_authorized_keys" | "ssh-authorized-keys" => {
                table.join("ssh_keys", texts(value, key, report));
            }
            "passwd" | "hashed_passwd" | "hashed-passwd" if table.has("password_hash") => {
                doubled(entry, report);
            }
            "passwd" | "hashed_passwd" | "hashed-passwd" => {
                if let Some(hash) = text(value, key, report) {
                    table.set("password_hash", quoted(hash), value.at);
                }
            }
            "lock_passwd" | "lock-passwd" if is_locked.is_some() => doubled(entry, report),
            "lock_passwd" | "lock-passwd" => is_locked = boolean(value, key, report),
            "sudo" => sudo(value, table, report),
            "groups" => groups(value, *at, table, report),
            _ => unknown(entry, report),
        }
    }
    // cloud-init locks passwords unless it is told otherwise.
    if table.has("password_hash") && is_locked != Some(false) {
        let message = "the password of this user is locked";
        refuse(table.at, "users", message, report);
    }
}

fn groups(node: &Node, at: usize, table: &mut Table, report: &mut Report<'_>) {
    let groups = texts(node, "groups", report);
    let names = groups.iter().flat_map(|said| said.text.split(','));
    if !names.map(str::trim).all(|name| name == "sudo") {
        let message = "only the group sudo has a counterpart";
        refuse(node.at, "groups", message, report);
    } else if !groups.is_empty() {
        table.set("sudo", "true".to_owned(), at);
    }
}

fn sudo(node: &Node, table: &mut Table, report: &mut Report<'_>) {
    let rules = texts(node, "sudo", report);
    let is_full = |rule: &Said| {
        let words: Vec<&str> = rule.text.split_whitespace().collect();
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
        [rule] if rule.text == "false" => {}
        [_, ..] if rules.iter().all(is_full) => table.set("sudo", "true".to_owned(), node.at),
        _ => {
            let message = "only full sudo has a counterpart";
            refuse(node.at, "sudo", message, report);
        }
    }
}
