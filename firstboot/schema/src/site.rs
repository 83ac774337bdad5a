//! `site.toml`: the whole file, and what [`check`] makes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use toml::Spanned;
use toml::de::DeTable;

use crate::account::{User, read_users};
use crate::address::{Endpoint, all, parse_host_address, parsed};
use crate::app::ParamValue;
use crate::certificate::{Certificate, read_authorities};
use crate::date::{End, Moment, moment};
use crate::disk::{Disk, read_disks};
use crate::document::{Found, Section, decode, parse};
use crate::facts::Facts;
use crate::link::{Bond, Links, Nic, Vlan, read_links};
use crate::medium::{License, Reporting, SecretEntry, read_license, read_reporting, read_secrets};
use crate::name::{HostName, Keymap, Locale, TimeZone, text_type};
use crate::nearest::nearest;
use crate::policy::Policy;
use crate::problem::{Code, Problem};
use crate::proxy::{Proxy, read_proxy};
use crate::report::{Finding, Report};
use crate::role::Role;
use crate::trust::read_trust;

/// The version of the file's form that this program reads.
pub const SCHEMA: i64 = 1;

/// A checked site configuration: every value is well formed and agrees with
/// the others, the role and the vendor's policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteConfig {
    /// `config.id`: which system this is, the same in all its configurations.
    pub id: ConfigId,
    /// `config.serial`: grows with each configuration of a system, from 1.
    pub serial: u64,
    /// `config.not_before`: it is refused before this moment.
    pub not_before: Option<Moment>,
    /// `config.not_after`: it is refused after this moment.
    pub not_after: Option<Moment>,
    /// `[system]`.
    pub system: System,
    /// `[[nic]]`, in the file's order; none: DHCP on every Ethernet interface.
    pub nics: Vec<Nic>,
    /// `[bond.NAME]`, by name.
    pub bonds: Vec<Bond>,
    /// `[vlan.NAME]`, by name.
    pub vlans: Vec<Vlan>,
    /// `[dns]`.
    pub dns: Dns,
    /// `[ntp]`.
    pub ntp: Ntp,
    /// `[proxy]`.
    pub proxy: Proxy,
    /// `[[ca]]`, in the file's order, none doubled.
    pub authorities: Vec<Certificate>,
    /// `[user.NAME]`, by name.
    pub users: Vec<User>,
    /// `[disk.NAME]`, by name.
    pub disks: Vec<Disk>,
    /// `[license]`.
    pub license: Option<License>,
    /// `[report]`.
    pub report: Reporting,
    /// `[secret.NAME]`, by name.
    pub secrets: Vec<SecretEntry>,
    /// `[trust]`: keys that later configurations must be signed by.
    pub keys: Vec<String>,
    /// The role, where the image has any.
    pub role: Option<String>,
    /// The role's parameters, defaults included.
    pub app: BTreeMap<String, ParamValue>,
    /// Where keys stand: line and column, both from 1.
    places: BTreeMap<String, (u32, u32)>,
}

impl SiteConfig {
    /// A problem with `key` that only the machine could see, at the key's place.
    #[must_use]
    pub fn problem(&self, key: &str, message: &str, remedy: &str) -> Problem {
        self.problem_of(Code::Unavailable, key, message, remedy)
    }

    /// As [`problem`](Self::problem), of another kind.
    #[must_use]
    pub fn problem_of(&self, code: Code, key: &str, message: &str, remedy: &str) -> Problem {
        let mut at = key;
        let place = loop {
            match (self.places.get(at), at.rsplit_once('.')) {
                (Some(place), _) => break *place,
                (None, Some((above, _))) => at = above,
                (None, None) => break (1, 1),
            }
        };
        Problem {
            code,
            line: place.0,
            column: place.1,
            key: key.to_owned(),
            message: message.to_owned(),
            allowed: None,
            remedy: remedy.to_owned(),
        }
    }

    /// Everything that the facts of a machine and of a medium contradict.
    /// What is not known is not judged.
    #[must_use]
    pub fn check_against(&self, facts: &Facts) -> Vec<Problem> {
        crate::facts::judge(self, facts)
    }
}

/// Which system a configuration is for: small letters, digits, `.` and `-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigId(String);
text_type!(ConfigId);

impl ConfigId {
    fn parse(text: &str) -> Result<Self, Finding> {
        let is_id = (1..=64).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && text
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'));
        if is_id {
            return Ok(Self(text.to_owned()));
        }
        Err(Finding::invalid("this is not an identifier")
            .allowed("small letters, digits, `.` and `-`, 64 at most")
            .remedy("write a name of the system such as \"acme-01\""))
    }
}

/// `[system]`; what is left out stays as the image has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct System {
    /// The machine's name.
    pub hostname: Option<HostName>,
    /// Its time zone.
    pub timezone: Option<TimeZone>,
    /// Its language.
    pub locale: Option<Locale>,
    /// The keyboard of its console.
    pub keymap: Option<Keymap>,
}

/// `[dns]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Name servers, at most three, since resolvers ask no more.
    pub servers: Vec<IpAddr>,
    /// Domains that short names are looked for in.
    pub search: Vec<HostName>,
}

/// `[ntp]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ntp {
    /// Time servers.
    pub servers: Vec<Endpoint>,
}

/// Judges a site configuration against the image's roles and its vendor's
/// policy. The whole judgement is here, but for what only the machine knows.
///
/// # Errors
///
/// Every problem, up to [`MAX_PROBLEMS`](crate::MAX_PROBLEMS), in the order
/// of the text. Errors of syntax hide later ones, as the tree behind them
/// cannot be trusted.
pub fn check(text: &str, roles: &[Role], policy: &Policy) -> Result<SiteConfig, Vec<Problem>> {
    let text = decode(text.as_bytes())?;
    let mut report = Report::new(text);
    let table = parse(text, &mut report);
    let site = table.as_ref().and_then(|table| {
        let site = read(table, roles, policy, &mut report);
        policy.judge(table, &mut report);
        site
    });
    match site {
        Some(site) if report.is_clean() => Ok(site),
        _ => Err(report.into_problems()),
    }
}

fn read(
    table: &Spanned<DeTable<'_>>,
    roles: &[Role],
    policy: &Policy,
    report: &mut Report<'_>,
) -> Option<SiteConfig> {
    let mut root = Section::root(table);
    read_schema(&mut root, report);
    let config = read_config(&mut root, report);
    let system = read_system(&mut root, report);
    let Links {
        nics, bonds, vlans, ..
    } = read_links(&mut root, report);
    let dns = read_dns(&mut root, report);
    let ntp = read_ntp(&mut root, report);
    let proxy = read_proxy(&mut root, report);
    let authorities = read_authorities(&mut root, report);
    let users = root.table("user", report);
    let users = users.map(|users| read_users(&users, report));
    let disks = read_disks(&mut root, report);
    let keys = read_trust(&mut root, report);
    let role = read_role(&mut root, roles, policy, report);
    let app = read_app(&mut root, role, report);
    let license = read_license(&mut root, report);
    let reporting = read_reporting(&mut root, report);
    let secrets = read_secrets(&mut root, report);
    root.finish(report);
    let config = config?;
    Some(SiteConfig {
        id: config.id,
        serial: config.serial,
        not_before: config.not_before,
        not_after: config.not_after,
        system,
        nics,
        bonds,
        vlans,
        dns,
        ntp,
        proxy,
        authorities,
        users: users.unwrap_or_default(),
        disks,
        license,
        report: reporting,
        secrets,
        keys,
        role: role.map(|role| role.name.clone()),
        app,
        places: places(table, report),
    })
}

/// Reads `schema`, which every file of ours begins with.
pub(crate) fn read_schema(root: &mut Section<'_>, report: &mut Report<'_>) {
    let Some(found) = root.require("schema", "schema = 1", report) else {
        return;
    };
    let Some(found) = found.integer(&(i64::MIN..=i64::MAX), report) else {
        return;
    };
    if found.value < 1 {
        let finding = Finding::new(Code::OutOfRange, "there is no such schema")
            .allowed(format!("{SCHEMA}"))
            .remedy(format!("write `schema = {SCHEMA}`"));
        found.note(report, finding);
    } else if found.value > SCHEMA {
        let message = format!(
            "this appliance is too old for the file: it knows schema {SCHEMA}, the file needs {} or newer",
            found.value
        );
        let finding = Finding::new(Code::UnknownSchema, message)
            .allowed(format!("{SCHEMA}"))
            .remedy(format!(
                "install an image that knows schema {}, or write the file for schema {SCHEMA}",
                found.value
            ));
        found.note(report, finding);
    }
}

/// `[config]`.
struct Config {
    id: ConfigId,
    serial: u64,
    not_before: Option<Moment>,
    not_after: Option<Moment>,
}

fn read_config(root: &mut Section<'_>, report: &mut Report<'_>) -> Option<Config> {
    let mut config = root
        .require("config", "[config] with id and serial", report)?
        .table(report)?;
    let id = config
        .require("id", "id = \"acme-01\"", report)
        .and_then(|found| found.text(report))
        .and_then(|found| parsed(found, ConfigId::parse, report));
    let serial = config
        .require("serial", "serial = 1", report)
        .and_then(|found| found.integer(&(1..=i64::MAX), report));
    let not_before = config.get("not_before");
    let not_before = not_before.and_then(|found| moment(found, End::First, report));
    let not_after = config.get("not_after");
    let not_after = not_after.and_then(|found| moment(found, End::Last, report));
    if let (Some(first), Some(last)) = (&not_before, &not_after)
        && first.value > last.value
    {
        let finding = Finding::new(Code::Conflict, "the file ends before it begins to count")
            .remedy("make `not_after` later than `not_before`");
        last.note(report, finding);
    }
    config.finish(report);
    Some(Config {
        id: id?.value,
        serial: serial?.value.unsigned_abs(),
        not_before: not_before.map(|found| found.value),
        not_after: not_after.map(|found| found.value),
    })
}

fn read_system(root: &mut Section<'_>, report: &mut Report<'_>) -> System {
    let Some(mut section) = root.table("system", report) else {
        return System::default();
    };
    let hostname = optional(&mut section, "hostname", HostName::parse_own, report);
    let timezone = optional(&mut section, "timezone", TimeZone::parse, report);
    let locale = optional(&mut section, "locale", Locale::parse, report);
    let keymap = optional(&mut section, "keymap", Keymap::parse, report);
    section.finish(report);
    System {
        hostname,
        timezone,
        locale,
        keymap,
    }
}

fn optional<T>(
    section: &mut Section<'_>,
    key: &'static str,
    parse: fn(&str) -> Result<T, Finding>,
    report: &mut Report<'_>,
) -> Option<T> {
    let text = section.get(key)?.text(report)?;
    parsed(text, parse, report).map(|found| found.value)
}

fn read_dns(root: &mut Section<'_>, report: &mut Report<'_>) -> Dns {
    let Some(mut section) = root.table("dns", report) else {
        return Dns::default();
    };
    let servers = all(&mut section, "servers", 3, parse_host_address, report);
    let search = all(&mut section, "search", 6, HostName::parse, report);
    section.finish(report);
    Dns {
        servers: servers.into_iter().map(|found| found.value).collect(),
        search: search.into_iter().map(|found| found.value).collect(),
    }
}

fn read_ntp(root: &mut Section<'_>, report: &mut Report<'_>) -> Ntp {
    let Some(mut section) = root.table("ntp", report) else {
        return Ntp::default();
    };
    let servers = all(&mut section, "servers", 8, Endpoint::parse, report);
    section.finish(report);
    Ntp {
        servers: servers.into_iter().map(|found| found.value).collect(),
    }
}

/// The role that the site chose, or the only one that there is.
fn read_role<'r>(
    root: &mut Section<'_>,
    roles: &'r [Role],
    policy: &Policy,
    report: &mut Report<'_>,
) -> Option<&'r Role> {
    let offered: Vec<&Role> = roles
        .iter()
        .filter(|role| policy.roles.is_empty() || policy.roles.contains(&role.name))
        .collect();
    let names: Vec<&str> = offered.iter().map(|role| role.name.as_str()).collect();
    let section = root.table("role", report);
    let Some(mut section) = section else {
        if offered.len() > 1 && !root.has("role") {
            let finding = Finding::new(
                Code::MissingKey,
                "the file does not say which role the machine has",
            )
            .allowed(names.join(", "))
            .remedy(format!(
                "add [role] with name = \"{}\"",
                names.first().copied().unwrap_or_default()
            ));
            report.note(&(0..0), "role", finding);
            return None;
        }
        return offered
            .first()
            .copied()
            .filter(|_| offered.len() == 1 && !root.has("role"));
    };
    let chosen = section
        .require("name", "name = \"web\"", report)
        .and_then(|found| found.text(report));
    section.finish(report);
    let chosen = chosen?;
    let role = offered
        .iter()
        .copied()
        .find(|role| role.name == chosen.value);
    if role.is_none() {
        note_unknown_role(&chosen, &names, report);
    }
    role
}

fn note_unknown_role(chosen: &Found<&str>, names: &[&str], report: &mut Report<'_>) {
    let finding = if names.is_empty() {
        Finding::new(Code::UnknownRole, "this appliance has no roles").remedy("delete [role]")
    } else {
        let remedy = match nearest(chosen.value, names.iter().copied()) {
            Some(near) => format!("write \"{near}\", if that is meant"),
            None => "write one of the roles".to_owned(),
        };
        Finding::new(Code::UnknownRole, "this appliance has no such role")
            .allowed(names.join(", "))
            .remedy(remedy)
    };
    chosen.note(report, finding);
}

fn read_app(
    root: &mut Section<'_>,
    role: Option<&Role>,
    report: &mut Report<'_>,
) -> BTreeMap<String, ParamValue> {
    let app = root.get("app");
    let place = Found {
        key: "app".to_owned(),
        span: app.as_ref().map_or(0..0, |found| found.span.clone()),
        value: (),
    };
    let is_given = app.is_some();
    let section = app.and_then(|found| found.table(report));
    if is_given && section.is_none() {
        return BTreeMap::new();
    }
    let Some(role) = role else {
        // Without a role nothing can be said about its parameters; that the
        // role is missing or unknown has been said.
        if let (Some(section), false) = (section, root.has("role")) {
            let finding = Finding::new(Code::Conflict, "there is no role that `[app]` belongs to")
                .remedy("choose a role with [role], or delete [app]");
            section.note(report, finding);
        }
        return BTreeMap::new();
    };
    let mut given: BTreeMap<&str, _> = section
        .iter()
        .flat_map(Section::entries)
        .map(|(name, value)| (name.value, value))
        .collect();
    let mut values = BTreeMap::new();
    for param in &role.params {
        let found = given.remove(param.name.as_str());
        if let Some(value) = param.choose(found, &place, report) {
            values.insert(param.name.clone(), value);
        }
    }
    if let Some(section) = section {
        let names: Vec<&str> = role
            .params
            .iter()
            .map(|param| param.name.as_str())
            .collect();
        section.finish_with(&names, report);
    }
    values
}

/// The place of every key of the first three levels.
fn places(table: &Spanned<DeTable<'_>>, report: &Report<'_>) -> BTreeMap<String, (u32, u32)> {
    let mut found = BTreeMap::new();
    let mut open = vec![(String::new(), table.get_ref())];
    while let Some((above, table)) = open.pop() {
        for (name, value) in table {
            let name_text: &str = name.get_ref();
            let key = if above.is_empty() {
                name_text.to_owned()
            } else {
                format!("{above}.{name_text}")
            };
            let start = if value.get_ref().is_table() {
                name.span().start
            } else {
                value.span().start
            };
            found.insert(key.clone(), report.position(start));
            if let Some(table) = value.get_ref().as_table() {
                open.push((key.clone(), table));
            }
            for (at, item) in value.get_ref().as_array().into_iter().flatten().enumerate() {
                let key = format!("{key}[{}]", at + 1);
                found.insert(key.clone(), report.position(item.span().start));
                if let Some(table) = item.get_ref().as_table() {
                    open.push((key, table));
                }
            }
        }
    }
    found
}
