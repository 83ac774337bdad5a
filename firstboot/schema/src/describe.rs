//! Every key of a `site.toml`, described: what it means, what it takes, an
//! example. Forms, samples and JSON Schemas are made of this table.
//!
//! The code that reads a file is what decides; a test compares the two, so
//! that neither can have a key that the other lacks.

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Takes {
    /// One line of text that matches a pattern (ECMA-262).
    Text(&'static str),
    /// The same, with so many characters at most, and never as another pattern.
    Limited(&'static str, usize, &'static str),
    /// Text of several lines.
    Lines,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A whole number.
    Number(i64, i64),
    /// A whole number, or a text that matches a pattern.
    Place(i64, i64, &'static str),
    /// True or false.
    Boolean,
    /// A date, or a date and time with its offset.
    Date,
    /// Texts that match a pattern, so many at most; one may stand alone.
    Texts(&'static str, usize),
}

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its path: `*` is a name that the file chooses, `[]` a list of tables.
    pub path: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// Whether its table must have it.
    pub required: bool,
    /// One sentence for the person who fills it in.
    pub help: &'static str,
    /// A value as it stands in a file.
    pub example: &'static str,
}

/// A table, and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Its path, as those of keys.
    pub path: &'static str,
    /// What its name may be, where the file chooses it.
    pub names: Option<Names>,
    /// One sentence.
    pub help: &'static str,
}

/// The names that a file may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// How they look.
    pub pattern: &'static str,
    /// One of them.
    pub example: &'static str,
    /// Those that belong to somebody else.
    pub taken: Taken,
}

/// Names that a file cannot choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Taken {
    /// None.
    None,
    /// These.
    Names(&'static [&'static str]),
    /// Those of a pattern.
    Pattern(&'static str),
}

/// Of these keys a table must have one at least.
pub const ALTERNATIVES: &[(&str, &[&str])] = &[
    ("nic[]", &["dhcp4", "dhcp6", "address"]),
    ("vlan.*", &["dhcp4", "dhcp6", "address"]),
    ("user.*", &["ssh_keys", "password_hash"]),
];

/// Lists of tables that their table must have: the fewest and the most.
pub const NEEDED_LISTS: &[(&str, usize, usize)] = &[("bond.*.members[]", 1, 16)];

/// How a date, or a date and time with its offset, is written.
pub const DATE: &str = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?([Zz]|[+-][0-9]{2}:[0-9]{2}))?$";

// No look-around: validators that use RE2 do without.
const HOST: &str = r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$";
/// `localhost`, and names that end in a number.
const NEVER_OWN_HOST: &str = r"^[Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt](\.|$)|(^|\.)[0-9]+$";
const ADDRESS: &str = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]+)$";
const NET: &str = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}/([1-9]|[12][0-9]|3[0-2])|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]+/([1-9][0-9]?|1[01][0-9]|12[0-8]))$";
const HOST_OR_ADDRESS: &str = r"^[A-Za-z0-9:.-]+$";
const MAC: &str = r"^[0-9A-Fa-f][02468ACEace]((:[0-9A-Fa-f]{2}){5}|(-[0-9A-Fa-f]{2}){5})$";
const PCI: &str = r"^([0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]$";
const DEVICE: &str = r"^[a-z][a-z0-9_.-]{0,14}$";
/// Names that the kernel and udev give to hardware.
const HARDWARE: &str = r"^(eth|en|wl|ww|ib|lo)(.*[0-9].*)?$";
const PROXY: &str = r"^https?://(\[[A-Za-z0-9:.-]+\]|[A-Za-z0-9:.-]+)(:[0-9]+)?/?$";
const UNIT: &str = r"^[A-Za-z0-9:_@][A-Za-z0-9:_.@-]*\.(service|socket|timer|path|target)$";
const SECRET: &str = r"^[a-z][a-z0-9_-]{0,63}$";
const SSH_KEY: &str = r"^ *(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\.com|sk-ecdsa-sha2-nistp256@openssh\.com) +[A-Za-z0-9+/]+={0,2}( |$)";
const SIGNER: &str = r"^(ssh-ed25519 +[A-Za-z0-9+/]+={0,2}( |$)|RW[A-Za-z0-9+/]{54}$)";
const HASH: &str = r"^\$(g?y\$[A-Za-z0-9./]+\$[A-Za-z0-9./]+\$[A-Za-z0-9./]{43}|6\$(rounds=[+0-9]+\$)?[A-Za-z0-9./]{1,16}\$[A-Za-z0-9./]{86}|5\$(rounds=[+0-9]+\$)?[A-Za-z0-9./]{1,16}\$[A-Za-z0-9./]{43}|2[aby]\$[+0-9][0-9]\$[A-Za-z0-9./]{53})$";
const MOUNT: &str = r"^/((data|srv)|(mnt|opt|var/lib)/[A-Za-z0-9._-]+)(/[A-Za-z0-9._-]+)*$";
const LICENSE: &str = r"^([Ll][Ii][Cc][Ee][Nn][Ss][Ee]/)?[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$";
const MODES: &[&str] = &[
    "active-backup",
    "802.3ad",
    "balance-xor",
    "balance-rr",
    "balance-tlb",
    "balance-alb",
];

/// The tables, in the order in which a person fills them in.
pub const TABLES: &[Table] = &[
    table("config", "Which configuration this is."),
    table("system", "The machine itself."),
    table(
        "nic[]",
        "A network interface. Without any, every interface uses DHCP.",
    ),
    named(
        "bond.*",
        names(DEVICE, "bond0", Taken::Pattern(HARDWARE)),
        "Several interfaces as one.",
    ),
    named(
        "vlan.*",
        names(DEVICE, "office", Taken::Pattern(HARDWARE)),
        "A VLAN.",
    ),
    table("dns", "Who knows the names of other machines."),
    table("ntp", "Who knows the time."),
    table("proxy", "How programs of the machine reach the web."),
    table("ca[]", "An authority that the machine is to trust."),
    named(
        "user.*",
        names(
            r"^[a-z_][a-z0-9_-]{0,31}$",
            "admin",
            Taken::Names(crate::account::TAKEN),
        ),
        "A person who may log in.",
    ),
    named(
        "disk.*",
        names(r"^[a-z][a-z0-9-]{0,15}$", "data", Taken::None),
        "A further disk of the machine.",
    ),
    table(
        "role",
        "What the machine is to be, where the appliance has several roles.",
    ),
    table(
        "license",
        "The licence, a file in the folder license of the medium.",
    ),
    table("report", "What the machine writes back to the medium."),
    table(
        "trust",
        "Who signs later configurations: without a signature they are refused.",
    ),
    named(
        "secret.*",
        names(SECRET, "db-password", Taken::None),
        "A secret that services get, and that does not stand in this file.",
    ),
];

const fn table(path: &'static str, help: &'static str) -> Table {
    Table {
        path,
        names: None,
        help,
    }
}

const fn named(path: &'static str, names: Names, help: &'static str) -> Table {
    Table {
        path,
        names: Some(names),
        help,
    }
}

const fn names(pattern: &'static str, example: &'static str, taken: Taken) -> Names {
    Names {
        pattern,
        example,
        taken,
    }
}

const fn key(path: &'static str, takes: Takes, example: &'static str, help: &'static str) -> Key {
    Key {
        path,
        takes,
        required: false,
        help,
        example,
    }
}

const fn needed(
    path: &'static str,
    takes: Takes,
    example: &'static str,
    help: &'static str,
) -> Key {
    Key {
        required: true,
        ..key(path, takes, example, help)
    }
}

use Takes::{Boolean, Choice, Date, Limited, Lines, Number, Place, Text, Texts};

const DHCP4: &str = "Whether IPv4 settings come by DHCP.";
const DHCP6: &str = "Whether IPv6 settings come by DHCP, besides router advertisements.";
const ADDRESSES: &str = "Fixed addresses with the lengths of their networks.";
const GATEWAYS: &str = "Default gateways: at most one IPv4 and one IPv6 address.";
const MTU: &str = "Largest packet in bytes.";
const BY_MAC: &str = "The interface with this hardware address.";
const BY_SLOT: &str =
    "The interface in this place, from 1, or at a PCI address such as 0000:00:03.0.";
const BY_NAME: &str = "The interfaces with such a name.";
const NAME: &str = r"^[A-Za-z0-9._*?\[\]-]{1,15}$";

/// The keys, in the order of their tables. Those of `app` are the role's.
pub const KEYS: &[Key] = &[
    needed(
        "schema",
        Number(1, crate::SCHEMA),
        "1",
        "The version of this file's form.",
    ),
    needed(
        "config.id",
        Text(r"^[a-z0-9][a-z0-9.-]{0,63}$"),
        "\"acme-01\"",
        "A name of the system, the same in all its configurations.",
    ),
    needed(
        "config.serial",
        Number(1, i64::MAX),
        "1",
        "Grows with each configuration; an older one is not taken.",
    ),
    key(
        "config.not_before",
        Date,
        "2026-01-01",
        "The file is refused before this day.",
    ),
    key(
        "config.not_after",
        Date,
        "2036-12-31",
        "The file is refused after this day.",
    ),
    key(
        "system.hostname",
        Limited(HOST, 64, NEVER_OWN_HOST),
        "\"web-1.example.org\"",
        "The machine's name.",
    ),
    key(
        "system.timezone",
        Text(r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z][A-Za-z0-9_+-]*){0,2}$"),
        "\"Europe/Berlin\"",
        "The time zone.",
    ),
    key(
        "system.locale",
        Text(r"^(C|POSIX|(C|[a-z]{2,3}(_[A-Z]{2})?)\.UTF-8(@[a-z]+)?)$"),
        "\"de_DE.UTF-8\"",
        "The language.",
    ),
    key(
        "system.keymap",
        Text(r"^[a-z][A-Za-z0-9_+-]{1,39}$"),
        "\"de-latin1\"",
        "The keyboard of the console.",
    ),
    key(
        "nic[].match.mac",
        Text(MAC),
        "\"52:54:00:12:34:56\"",
        BY_MAC,
    ),
    key("nic[].match.slot", Place(1, 64, PCI), "1", BY_SLOT),
    key("nic[].match.name", Text(NAME), "\"en*\"", BY_NAME),
    key("nic[].dhcp4", Boolean, "true", DHCP4),
    key("nic[].dhcp6", Boolean, "false", DHCP6),
    key(
        "nic[].address",
        Texts(NET, 32),
        "[\"10.1.2.10/24\"]",
        ADDRESSES,
    ),
    key(
        "nic[].gateway",
        Texts(ADDRESS, 2),
        "[\"10.1.2.1\"]",
        GATEWAYS,
    ),
    key("nic[].mtu", Number(576, 65_535), "1500", MTU),
    key(
        "nic[].vlan",
        Number(1, 4094),
        "7",
        "The VLAN that the settings are for.",
    ),
    key(
        "bond.*.mode",
        Choice(MODES),
        "\"active-backup\"",
        "How the bond shares its interfaces.",
    ),
    key(
        "bond.*.members[].mac",
        Text(MAC),
        "\"52:54:00:12:34:57\"",
        BY_MAC,
    ),
    key("bond.*.members[].slot", Place(1, 64, PCI), "2", BY_SLOT),
    key("bond.*.members[].name", Text(NAME), "\"enp*\"", BY_NAME),
    key("bond.*.dhcp4", Boolean, "true", DHCP4),
    key("bond.*.dhcp6", Boolean, "false", DHCP6),
    key(
        "bond.*.address",
        Texts(NET, 32),
        "[\"10.2.0.10/24\"]",
        ADDRESSES,
    ),
    key(
        "bond.*.gateway",
        Texts(ADDRESS, 2),
        "[\"10.2.0.1\"]",
        GATEWAYS,
    ),
    key("bond.*.mtu", Number(576, 65_535), "1500", MTU),
    needed("vlan.*.id", Number(1, 4094), "7", "The VLAN's number."),
    key(
        "vlan.*.bond",
        Text(DEVICE),
        "\"bond0\"",
        "The bond that carries it.",
    ),
    key(
        "vlan.*.match.mac",
        Text(MAC),
        "\"52:54:00:12:34:58\"",
        BY_MAC,
    ),
    key("vlan.*.match.slot", Place(1, 64, PCI), "3", BY_SLOT),
    key("vlan.*.match.name", Text(NAME), "\"eth*\"", BY_NAME),
    key("vlan.*.dhcp4", Boolean, "true", DHCP4),
    key("vlan.*.dhcp6", Boolean, "false", DHCP6),
    key(
        "vlan.*.address",
        Texts(NET, 32),
        "[\"10.7.0.10/24\"]",
        ADDRESSES,
    ),
    key(
        "vlan.*.gateway",
        Texts(ADDRESS, 2),
        "[\"10.7.0.1\"]",
        GATEWAYS,
    ),
    key("vlan.*.mtu", Number(576, 65_535), "1500", MTU),
    key(
        "dns.servers",
        Texts(ADDRESS, 3),
        "[\"10.1.2.1\"]",
        "Name servers, at most three.",
    ),
    key(
        "dns.search",
        Texts(HOST, 6),
        "[\"example.org\"]",
        "Domains that short names are looked for in.",
    ),
    key(
        "ntp.servers",
        Texts(HOST_OR_ADDRESS, 8),
        "[\"time.example.org\"]",
        "Time servers.",
    ),
    key(
        "proxy.http",
        Text(PROXY),
        "\"http://proxy.example.org:3128\"",
        "The proxy for http addresses.",
    ),
    key(
        "proxy.https",
        Text(PROXY),
        "\"http://proxy.example.org:3128\"",
        "The proxy for https addresses.",
    ),
    key(
        "proxy.no_proxy",
        Texts(r"^[A-Za-z0-9:./-]+$", 64),
        "[\".example.org\", \"10.0.0.0/8\"]",
        "What is reached without the proxy.",
    ),
    needed(
        "ca[].pem",
        Lines,
        "'''\n-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----\n'''",
        "The authority's certificate in PEM form.",
    ),
    key(
        "user.*.ssh_keys",
        Texts(SSH_KEY, 64),
        "[\"ssh-ed25519 AAAA... name\"]",
        "Public SSH keys that may log in.",
    ),
    key(
        "user.*.password_hash",
        Text(HASH),
        "'$6$...'",
        "A password hash, as `openssl passwd -6` prints it.",
    ),
    key(
        "user.*.sudo",
        Boolean,
        "true",
        "Whether the user may become root through sudo.",
    ),
    key(
        "disk.*.match.slot",
        Number(1, 64),
        "1",
        "The disk in this place, from 1.",
    ),
    key(
        "disk.*.match.serial",
        Text(r"^[!-~]([ -~]{0,126}[!-~])?$"),
        "\"S3Z8NB0K123456\"",
        "The disk with this serial number.",
    ),
    key(
        "disk.*.mount",
        Text(MOUNT),
        "\"/srv/data\"",
        "The folder where it appears; /srv and its name without.",
    ),
    key(
        "disk.*.fs",
        Choice(&["ext4", "xfs"]),
        "\"ext4\"",
        "Its file system.",
    ),
    key(
        "disk.*.use",
        Choice(&["format", "adopt"]),
        "\"format\"",
        "Whether a blank disk is formatted, or one with files is taken as it is.",
    ),
    key(
        "disk.*.grow",
        Boolean,
        "true",
        "Whether its file system grows with the disk.",
    ),
    key(
        "disk.*.min_size",
        Text(r"^0*[1-9][0-9]{0,5}\s*(MiB|GiB|TiB)$"),
        "\"10 GiB\"",
        "What it must have at least.",
    ),
    needed(
        "role.name",
        Text(r"^[a-z][a-z0-9-]{0,31}$"),
        "\"web\"",
        "The role.",
    ),
    needed(
        "license.file",
        Text(LICENSE),
        "\"product.key\"",
        "The file's name.",
    ),
    key(
        "report.write",
        Boolean,
        "true",
        "Whether report.json is written back to the medium.",
    ),
    key(
        "trust.keys",
        Texts(SIGNER, 16),
        "[\"ssh-ed25519 AAAA... owner\"]",
        "Keys of OpenSSH or minisign that sign later configurations.",
    ),
    key(
        "secret.*.from",
        Choice(&["secrets.age", "console"]),
        "\"secrets.age\"",
        "Where it comes from: secrets.age beside this file, or somebody who types it.",
    ),
    key(
        "secret.*.entry",
        Text(SECRET),
        "\"db-password\"",
        "Its name in secrets.age.",
    ),
    key(
        "secret.*.services",
        Texts(UNIT, 32),
        "[\"db.service\"]",
        "The services that get it; all of the role without.",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::{Code, Policy, check};

    /// The keys of each table as the table above has them, names being `*`.
    fn described() -> BTreeMap<String, BTreeSet<String>> {
        let mut tables: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for path in KEYS.iter().map(|key| key.path) {
            let mut path = path.replace("[]", "");
            while let Some((above, name)) = path.clone().rsplit_once('.') {
                tables
                    .entry(above.to_owned())
                    .or_default()
                    .insert(name.to_owned());
                path = above.to_owned();
            }
            tables.entry(String::new()).or_default().insert(path);
        }
        // The role's own.
        tables
            .entry(String::new())
            .or_default()
            .insert("app".to_owned());
        tables
    }

    /// What the reader knows of the table with this path.
    fn known(path: &str) -> BTreeSet<String> {
        let head = "schema = 1\n[config]\nid = \"a\"\nserial = 1\nzz = 1\n";
        let text = match path {
            "" => format!("zz = 1\n{head}"),
            "config" => head.to_owned(),
            "nic" | "ca" => format!("{head}[[{path}]]\nzz = 1\n"),
            "nic.match" => format!("{head}[[nic]]\nmatch = {{ zz = 1 }}\n"),
            "bond.*.members" => format!("{head}[bond.x]\nmembers = [{{ zz = 1 }}]\n"),
            _ => format!("{head}[{}]\nzz = 1\n", path.replace('*', "x")),
        };
        let problems = check(&text, &[], &Policy::default()).expect_err("zz is unknown");
        let wanted = match path {
            "nic" | "nic.match" | "ca" => path.replacen(
                path,
                &format!(
                    "{}[1]{}",
                    &path[..path.find('.').unwrap_or(path.len())],
                    path.find('.').map_or("", |at| &path[at..])
                ),
                1,
            ),
            "bond.*.members" => "bond.x.members[1]".to_owned(),
            _ => path.replace('*', "x"),
        };
        let wanted = if wanted.is_empty() {
            "zz".to_owned()
        } else {
            format!("{wanted}.zz")
        };
        let found = problems
            .iter()
            .find(|problem| problem.code == Code::UnknownKey && problem.key == wanted);
        let allowed = found.and_then(|problem| problem.allowed.clone());
        let allowed = allowed.unwrap_or_else(|| panic!("{wanted}: {problems:#?}"));
        allowed.split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn the_table_has_exactly_the_keys_that_are_read() {
        let tables = described();
        assert!(tables.len() > 15);
        for (path, names) in tables {
            // Tables whose names the file chooses take any.
            if names.contains("*") {
                continue;
            }
            assert_eq!(names, known(&path), "[{path}]");
        }
    }

    #[test]
    fn every_key_has_help_and_belongs_to_a_table() {
        for key in KEYS {
            assert!(key.help.ends_with('.'), "{}", key.path);
            let mut tables = TABLES.iter();
            let has_table = tables.any(|table| key.path.starts_with(&format!("{}.", table.path)));
            assert!(has_table || key.path == "schema", "{}", key.path);
        }
    }

    #[test]
    fn every_example_is_accepted_by_the_reader() {
        for key in KEYS {
            // These are shortened for people.
            if key.example.contains("...") {
                continue;
            }
            let text = format!("x = {}\n", key.example);
            assert!(toml::de::DeTable::parse(&text).is_ok(), "{}", key.path);
        }
    }
}
