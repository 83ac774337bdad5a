//! What the vendor of an image lets a site decide, as `policy.toml` says.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::disk::choice;
use crate::document::{Section, parse};
use crate::problem::{Code, Problem};
use crate::report::{Finding, Report, shown};

/// The vendor's limits. The default limits nothing but [`Self::channels`].
///
/// Keys are written as in a file, with `*` for any one name: `user.root`,
/// `user.*.password_hash`, `nic.vlan` (for every `[[nic]]`). A key stands for
/// everything below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Roles that a site may choose; empty: all of the image.
    pub roles: Vec<String>,
    /// Keys that a site may set; empty: all. `schema` and `config` always.
    pub allowed: Vec<String>,
    /// Keys that must be there.
    pub required: Vec<String>,
    /// Keys that must not be there.
    pub forbidden: Vec<String>,
    /// What values of a key are limited to.
    pub ranges: Vec<Range>,
    /// Whether a configuration must be signed.
    pub signature: SignatureNeed,
    /// Ways besides a config medium by which a configuration may come;
    /// [`Channel::DEFAULT`] where the policy names none.
    pub channels: Vec<Channel>,
    /// Foreign configurations that are converted.
    pub import: Vec<Import>,
    /// How properties of an OVF environment become keys.
    pub properties: Vec<Property>,
    /// The file that a site's licence becomes.
    pub license: Option<String>,
}

/// `[[range]]`: limits of one key's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The key.
    pub key: String,
    /// Numbers from here on.
    pub min: Option<i64>,
    /// Numbers up to here.
    pub max: Option<i64>,
    /// Texts; empty: all.
    pub values: Vec<String>,
}

/// Whether a configuration must be signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureNeed {
    /// Not the first one; later ones by the key that the first one brought.
    #[default]
    Later,
    /// Every one, the first one too.
    Always,
}

impl SignatureNeed {
    const NAMES: &[(&str, Self)] = &[("later", Self::Later), ("always", Self::Always)];
}

/// A way by which a configuration may come, besides a config medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Channel {
    /// A credential in SMBIOS strings of type 11.
    Smbios,
    /// A credential in QEMU's `fw_cfg`.
    FwCfg,
    /// The variable `guestinfo.appliance.config` of a machine of `VMware`'s.
    /// Any process in the machine can write it, and it lasts until the
    /// machine is off: only for who trusts all that runs in it.
    GuestInfo,
    /// `ovf-env.xml` on the CD that `VMware` attaches.
    Ovf,
}

impl Channel {
    /// Those that are open where a policy names none, in the order of their
    /// rank: what only the host of the machine can write.
    pub const DEFAULT: [Self; 3] = [Self::FwCfg, Self::Smbios, Self::Ovf];
    const NAMES: &[(&str, Self)] = &[
        ("fw_cfg", Self::FwCfg),
        ("smbios", Self::Smbios),
        ("guestinfo", Self::GuestInfo),
        ("ovf", Self::Ovf),
    ];
}

/// A foreign form of configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Import {
    /// A `CIDATA` medium, as cloud-init's `NoCloud` reads it.
    NoCloud,
}

impl Import {
    const NAMES: &[(&str, Self)] = &[("nocloud", Self::NoCloud)];
}

/// `[[property]]`: a property of an OVF environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// Its name there.
    pub name: String,
    /// The key that it becomes, such as `nic.address`.
    pub key: String,
    /// How its text is read.
    pub kind: PropertyKind,
}

/// How the text of a property is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PropertyKind {
    /// As it is.
    #[default]
    Text,
    /// As a whole number.
    Number,
    /// As `true` or `false`, in any case.
    Boolean,
    /// As texts with commas or spaces between them.
    List,
}

impl PropertyKind {
    const NAMES: &[(&str, Self)] = &[
        ("text", Self::Text),
        ("number", Self::Number),
        ("boolean", Self::Boolean),
        ("list", Self::List),
    ];
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            roles: Vec::new(),
            allowed: Vec::new(),
            required: Vec::new(),
            forbidden: Vec::new(),
            ranges: Vec::new(),
            signature: SignatureNeed::default(),
            channels: Channel::DEFAULT.to_vec(),
            import: Vec::new(),
            properties: Vec::new(),
            license: None,
        }
    }
}

impl Policy {
    /// Reads a `policy.toml`.
    ///
    /// # Errors
    ///
    /// Every problem of the text.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let mut report = Report::new(text);
        let table = parse(text, &mut report);
        let policy = table.as_ref().map(|table| {
            let mut root = Section::root(table);
            crate::site::read_schema(&mut root, &mut report);
            let policy = Self::read(&mut root, &mut report);
            root.finish(&mut report);
            policy
        });
        match policy {
            Some(policy) if report.is_clean() => Ok(policy),
            _ => Err(report.into_problems()),
        }
    }

    fn read(root: &mut Section<'_>, report: &mut Report<'_>) -> Self {
        let mut list = |key, parse: fn(&str) -> Result<String, Finding>| {
            let found = crate::address::all(root, key, 256, parse, report);
            found.into_iter().map(|found| found.value).collect()
        };
        let (roles, allowed) = (
            list("roles", crate::role::parse_name),
            list("allowed", parse_pattern),
        );
        let (required, forbidden) = (
            list("required", parse_pattern),
            list("forbidden", parse_pattern),
        );
        let signature = root.get("signature").and_then(|found| {
            let found = found.text(report)?;
            choice(&found, SignatureNeed::NAMES, "need of signatures", report)
        });
        let channels = choices(root, "channels", Channel::NAMES, "channel", report);
        let import = choices(root, "import", Import::NAMES, "form of import", report);
        let license = root.get("license").and_then(|found| {
            let found = found.text(report)?;
            let target = crate::address::parsed(found, crate::role::parse_target, report);
            target.map(|target| target.value)
        });
        let ranges = root.tables("range", 256, report);
        let properties = root.tables("property", 256, report);
        Self {
            roles,
            allowed,
            required,
            forbidden,
            ranges: ranges
                .into_iter()
                .filter_map(|section| Range::read(section, report))
                .collect(),
            signature: signature.unwrap_or_default(),
            channels: channels.unwrap_or_else(|| Channel::DEFAULT.to_vec()),
            import: import.unwrap_or_default(),
            properties: properties
                .into_iter()
                .filter_map(|section| Property::read(section, report))
                .collect(),
            license,
        }
    }

    /// Notes every key of a site configuration that breaks the rules.
    pub(crate) fn judge(&self, table: &Spanned<DeTable<'_>>, report: &mut Report<'_>) {
        let mut present = Vec::new();
        collect(table.get_ref(), &mut Vec::new(), &mut present);
        if !self.allowed.is_empty() {
            self.judge_allowed(&present, report);
        }
        for pattern in &self.forbidden {
            for found in present.iter().filter(|found| matches(pattern, &found.path)) {
                note_not_allowed(found, report);
            }
        }
        for pattern in &self.required {
            if !present.iter().any(|found| matches(pattern, &found.path)) {
                let finding =
                    Finding::new(Code::NotAllowed, format!("the appliance needs `{pattern}`"))
                        .remedy("add it");
                report.note(&(0..0), pattern, finding);
            }
        }
        for range in &self.ranges {
            for found in present
                .iter()
                .filter(|found| matches(&range.key, &found.path))
            {
                range.judge(found, report);
            }
        }
    }

    /// Of a table that is not allowed, only what stands in it is told, so
    /// that nothing is told twice.
    fn judge_allowed(&self, present: &[Present<'_>], report: &mut Report<'_>) {
        let always = ["schema", "config"];
        for found in present.iter().filter(|found| !found.is_table) {
            let is_free = found.path.first().is_some_and(|name| always.contains(name));
            let mut above = (1..=found.path.len()).filter_map(|depth| found.path.get(..depth));
            let is_allowed =
                above.any(|path| self.allowed.iter().any(|pattern| matches(pattern, path)));
            if !is_free && !is_allowed {
                note_not_allowed(found, report);
            }
        }
    }
}

fn note_not_allowed(found: &Present<'_>, report: &mut Report<'_>) {
    let key = found.path.join(".");
    let message = format!("the appliance does not let a site set `{}`", shown(&key));
    let finding = Finding::new(Code::NotAllowed, message)
        .remedy("delete it, or ask the vendor of the appliance");
    report.note(&found.span, &key, finding);
}

/// The values that a list of texts names; `None` when it is not there.
fn choices<T: Copy>(
    root: &mut Section<'_>,
    key: &'static str,
    names: &[(&str, T)],
    what: &str,
    report: &mut Report<'_>,
) -> Option<Vec<T>> {
    let found = root.get(key)?.texts(names.len(), report);
    let chosen = found.iter();
    Some(
        chosen
            .filter_map(|found| choice(found, names, what, report))
            .collect(),
    )
}

impl Range {
    fn read(mut section: Section<'_>, report: &mut Report<'_>) -> Option<Self> {
        let key = pattern_of(&mut section, report);
        let mut bound = |key| {
            let found = section.get(key)?;
            let found = found.integer(&(i64::MIN..=i64::MAX), report)?;
            Some(found.value)
        };
        let (min, max) = (bound("min"), bound("max"));
        let values = section.get("values").map(|found| found.texts(256, report));
        let values: Vec<String> = values
            .into_iter()
            .flatten()
            .map(|found| found.value.to_owned())
            .collect();
        if min.is_none() && max.is_none() && values.is_empty() {
            let finding = Finding::new(Code::MissingKey, "the range limits nothing")
                .allowed("min, max, values")
                .remedy("add for example max = 100");
            section.note(report, finding);
        }
        section.finish(report);
        Some(Self {
            key: key?,
            min,
            max,
            values,
        })
    }

    fn judge(&self, found: &Present<'_>, report: &mut Report<'_>) {
        let values: Vec<(&DeValue<'_>, std::ops::Range<usize>)> = match found.value {
            DeValue::Array(array) => {
                let items = array.iter();
                items.map(|item| (item.get_ref(), item.span())).collect()
            }
            value => vec![(value, found.value_span.clone())],
        };
        for (value, span) in values {
            let is_right = match value {
                DeValue::Integer(number) => {
                    let number = i64::from_str_radix(number.as_str(), number.radix());
                    number.is_ok_and(|number| {
                        self.min.is_none_or(|min| number >= min)
                            && self.max.is_none_or(|max| number <= max)
                    })
                }
                DeValue::String(text) => {
                    let text: &str = text;
                    self.values.is_empty() || self.values.iter().any(|value| value == text)
                }
                _ => true,
            };
            if !is_right {
                let key = found.path.join(".");
                let message = format!("the appliance limits `{}`", shown(&key));
                let finding = Finding::new(Code::NotAllowed, message)
                    .allowed(self.limits())
                    .remedy("write a value within the limits, or ask the vendor of the appliance");
                report.note(&span, &key, finding);
            }
        }
    }

    fn limits(&self) -> String {
        match (self.min, self.max) {
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("{min} or more"),
            (None, Some(max)) => format!("{max} or less"),
            (None, None) => self.values.join(", "),
        }
    }
}

impl Property {
    fn read(mut section: Section<'_>, report: &mut Report<'_>) -> Option<Self> {
        let name = section
            .require("name", "name = \"hostname\"", report)
            .and_then(|found| found.text(report));
        let key = pattern_of(&mut section, report);
        let kind = section.get("type").map(|found| {
            let found = found.text(report)?;
            choice(&found, PropertyKind::NAMES, "type of property", report)
        });
        section.finish(report);
        Some(Self {
            name: name?.value.to_owned(),
            key: key?,
            kind: kind.unwrap_or(Some(PropertyKind::Text))?,
        })
    }
}

fn pattern_of(section: &mut Section<'_>, report: &mut Report<'_>) -> Option<String> {
    let found = section.require("key", "key = \"system.hostname\"", report)?;
    let found = crate::address::parsed(found.text(report)?, parse_pattern, report)?;
    Some(found.value)
}

fn parse_pattern(text: &str) -> Result<String, Finding> {
    let is_part = |part: &str| {
        part == "*"
            || (!part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')))
    };
    if text.len() <= 128 && text.split('.').all(is_part) {
        return Ok(text.to_owned());
    }
    Err(Finding::invalid("this is not a key")
        .allowed("names joined by dots, `*` for any one name")
        .remedy("write for example \"user.*.password_hash\""))
}

/// Whether the pattern means exactly this path.
fn matches(pattern: &str, path: &[&str]) -> bool {
    let mut parts = pattern.split('.');
    let is_prefix = path.iter().all(|name| {
        parts
            .next()
            .is_some_and(|part| part == "*" || part == *name)
    });
    is_prefix && parts.next().is_none()
}

/// A key that a file has.
struct Present<'t> {
    /// The names that lead to it; list indices are left out.
    path: Vec<&'t str>,
    /// Where the key stands.
    span: std::ops::Range<usize>,
    value: &'t DeValue<'t>,
    value_span: std::ops::Range<usize>,
    /// Whether further keys stand below it.
    is_table: bool,
}

/// Every key with the names that lead to it.
fn collect<'t>(table: &'t DeTable<'t>, above: &mut Vec<&'t str>, found: &mut Vec<Present<'t>>) {
    for (name, value) in table {
        above.push(name.get_ref());
        let inner: Vec<&DeTable<'_>> = match value.get_ref() {
            DeValue::Table(table) => vec![table],
            DeValue::Array(array) => {
                let items = array.iter();
                items.filter_map(|item| item.get_ref().as_table()).collect()
            }
            _ => Vec::new(),
        };
        found.push(Present {
            path: above.clone(),
            span: name.span(),
            value: value.get_ref(),
            value_span: value.span(),
            is_table: !inner.is_empty(),
        });
        for table in inner {
            collect(table, above, found);
        }
        above.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_whole() {
        let text = "schema = 1\nroles = [\"web\"]\nrequired = [\"user\"]\nforbidden = [\"user.root\", \"user.*.sudo\"]\n";
        let policy = Policy::parse(text).expect("a good policy");
        assert_eq!(policy.roles, ["web"]);
        assert_eq!(policy.forbidden, ["user.root", "user.*.sudo"]);
        assert_eq!(Policy::parse("schema = 1").ok(), Some(Policy::default()));
        assert!(!Policy::default().channels.contains(&Channel::GuestInfo));
        let named = Policy::parse("schema = 1\nchannels = [\"guestinfo\"]").expect("good");
        assert_eq!(named.channels, [Channel::GuestInfo]);
        let text = "schema = 1\nsignature = \"always\"\nchannels = [\"ovf\"]\nimport = [\"nocloud\"]\n\
            [[range]]\nkey = \"app.port\"\nmin = 1024\n\
            [[property]]\nname = \"ip\"\nkey = \"nic.address\"\ntype = \"list\"\n";
        let policy = Policy::parse(text).expect("a good policy");
        assert_eq!(policy.signature, SignatureNeed::Always);
        assert_eq!(policy.channels, [Channel::Ovf]);
        assert_eq!(policy.import, [Import::NoCloud]);
        assert_eq!(policy.ranges[0].limits(), "1024 or more");
        assert_eq!(policy.properties[0].kind, PropertyKind::List);
    }

    #[test]
    fn a_wrong_policy_is_refused() {
        for bad in [
            "",
            "schema = 1\nrole = []",
            "schema = 1\nforbidden = [\"a..b\"]",
            "schema = 2",
            "schema = 1\nsignature = \"never\"",
            "schema = 1\nchannels = [\"mail\"]",
            "schema = 1\nimport = [\"ignition\"]",
            "schema = 1\n[[range]]\nkey = \"app.port\"",
            "schema = 1\n[[range]]\nmin = 1",
            "schema = 1\n[[property]]\nname = \"x\"",
        ] {
            assert!(Policy::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_mean_whole_keys() {
        assert!(matches("user.*.sudo", &["user", "ann", "sudo"]));
        assert!(!matches("user.*.sudo", &["user", "ann"]));
        assert!(!matches("user", &["user", "ann"]));
    }
}
