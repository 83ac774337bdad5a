//! Parameters of a role: their types, and the values that a site gives them.

use std::fmt;
use std::net::IpAddr;

use toml::de::DeValue;

use crate::address::{parse_host_address, parsed};
use crate::document::{Found, Section};
use crate::name::HostName;
use crate::problem::Code;
use crate::report::{Finding, Report};

/// Characters of a text parameter at most, unless its role says less.
const MAX_STRING: i64 = 1024;

/// What values a parameter takes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParamKind {
    /// One line of text.
    String {
        /// Characters at most.
        max: usize,
    },
    /// A whole number.
    Int {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// A TCP or UDP port, 1 to 65535.
    Port,
    /// True or false.
    Bool,
    /// One of these texts.
    Enum {
        /// The texts, at least one.
        values: Vec<String>,
    },
    /// The address of a machine, without a network length.
    Ip,
    /// The name of a machine.
    Hostname,
}

/// A parameter that a role takes from `[app]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Its key: letters, digits and `_`.
    pub name: String,
    /// One sentence for the person who fills it in.
    pub help: String,
    /// What it takes.
    pub kind: ParamKind,
    /// The value when the site gives none; without it, the site must.
    pub default: Option<ParamValue>,
}

/// A parameter's value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParamValue {
    /// Text.
    Text(String),
    /// A number, a port too.
    Int(i64),
    /// True or false.
    Bool(bool),
    /// An address.
    Ip(IpAddr),
}

impl fmt::Display for ParamValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Int(number) => number.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

impl ParamKind {
    /// Reads a `[param.NAME]` table up to its type.
    fn read(section: &mut Section<'_>, report: &mut Report<'_>) -> Option<Self> {
        let kinds = "string, int, port, bool, enum, ip, hostname";
        let kind = section
            .require("type", "type = \"string\"", report)?
            .text(report)?;
        let mut bound = |key, range: &_, default| {
            let found = section
                .get(key)
                .and_then(|found| found.integer(range, report));
            found.map_or(default, |found| found.value)
        };
        match kind.value {
            "string" => {
                let max = bound("max", &(1..=MAX_STRING), MAX_STRING);
                Some(Self::String {
                    max: usize::try_from(max).unwrap_or(1),
                })
            }
            "int" => {
                let all = i64::MIN..=i64::MAX;
                let (min, max) = (bound("min", &all, 0), bound("max", &all, i64::MAX));
                if min > max {
                    let finding =
                        Finding::new(Code::Conflict, "`min` is above `max`").remedy("swap them");
                    kind.note(report, finding);
                    return None;
                }
                Some(Self::Int { min, max })
            }
            "port" => Some(Self::Port),
            "bool" => Some(Self::Bool),
            "ip" => Some(Self::Ip),
            "hostname" => Some(Self::Hostname),
            "enum" => {
                let found = section.require("values", "values = [\"one\", \"two\"]", report)?;
                let place = found.clone().replace(());
                let values = found.texts(64, report);
                if values.is_empty() {
                    let finding = Finding::new(Code::OutOfRange, "an enum has no values")
                        .remedy("list its values as `values = [\"one\", \"two\"]`");
                    place.note(report, finding);
                    return None;
                }
                Some(Self::Enum {
                    values: values
                        .into_iter()
                        .map(|found| found.value.to_owned())
                        .collect(),
                })
            }
            _ => {
                let finding = Finding::invalid("this is not a type of parameter")
                    .allowed(kinds)
                    .remedy("write one of the types");
                kind.note(report, finding);
                None
            }
        }
    }

    /// The value `found` as this kind of parameter.
    fn value(&self, found: Found<&DeValue<'_>>, report: &mut Report<'_>) -> Option<ParamValue> {
        match self {
            Self::String { max } => {
                let text = found.text(report)?;
                if text.value.chars().count() > *max {
                    let message = format!("`{}` is longer than {max} characters", text.key);
                    let finding = Finding::new(Code::OutOfRange, message)
                        .allowed(format!("at most {max} characters"))
                        .remedy("shorten the text");
                    text.note(report, finding);
                    return None;
                }
                Some(ParamValue::Text(text.value.to_owned()))
            }
            Self::Int { min, max } => found
                .integer(&(*min..=*max), report)
                .map(|found| ParamValue::Int(found.value)),
            Self::Port => found
                .integer(&(1..=65_535), report)
                .map(|found| ParamValue::Int(found.value)),
            Self::Bool => found
                .boolean(report)
                .map(|found| ParamValue::Bool(found.value)),
            Self::Enum { values } => {
                let text = found.text(report)?;
                if !values.iter().any(|value| value == text.value) {
                    let near =
                        crate::nearest::nearest(text.value, values.iter().map(String::as_str));
                    let remedy = match near {
                        Some(near) => format!("write \"{near}\", if that is meant"),
                        None => "write one of the values".to_owned(),
                    };
                    let finding = Finding::invalid(format!("`{}` takes other values", text.key))
                        .allowed(values.join(", "))
                        .remedy(remedy);
                    text.note(report, finding);
                    return None;
                }
                Some(ParamValue::Text(text.value.to_owned()))
            }
            Self::Ip => parsed(found.text(report)?, parse_host_address, report)
                .map(|found| ParamValue::Ip(found.value)),
            Self::Hostname => parsed(found.text(report)?, HostName::parse, report)
                .map(|found| ParamValue::Text(found.value.to_string())),
        }
    }

    /// How an example of the value is written.
    fn example(&self) -> String {
        match self {
            Self::String { .. } => "\"text\"".to_owned(),
            Self::Int { min, .. } => min.to_string(),
            Self::Port => "8080".to_owned(),
            Self::Bool => "true".to_owned(),
            Self::Enum { values } => values
                .first()
                .map(|value| format!("\"{value}\""))
                .unwrap_or_default(),
            Self::Ip => "\"10.1.2.10\"".to_owned(),
            Self::Hostname => "\"db.example.org\"".to_owned(),
        }
    }
}

impl Param {
    /// Reads `[param.NAME]` of a role.
    pub(crate) fn read(
        name: &Found<&str>,
        mut section: Section<'_>,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let is_name = (1..=40).contains(&name.value.len())
            && name.value.starts_with(|c: char| c.is_ascii_lowercase())
            && name
                .value
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        if !is_name {
            let finding = Finding::invalid("this is not a parameter's name")
                .allowed("a small letter, then small letters, digits and `_`, 40 at most")
                .remedy("rename the parameter");
            name.note(report, finding);
        }
        let kind = ParamKind::read(&mut section, report);
        let help = section.get("help").and_then(|found| found.text(report));
        let default = section.get("default");
        let default = match (&kind, default) {
            (Some(kind), Some(found)) => kind.value(found, report),
            _ => None,
        };
        section.finish(report);
        Some(Self {
            name: name.value.to_owned(),
            help: help.map(|found| found.value.to_owned()).unwrap_or_default(),
            kind: kind?,
            default,
        })
    }

    /// The value that `[app]` gives, or the default.
    pub(crate) fn choose(
        &self,
        given: Option<Found<&DeValue<'_>>>,
        app: &Found<()>,
        report: &mut Report<'_>,
    ) -> Option<ParamValue> {
        if let Some(found) = given {
            return self.kind.value(found, report);
        }
        if self.default.is_none() {
            let key = format!("app.{}", self.name);
            let finding = Finding::new(Code::MissingKey, format!("the role needs `{key}`")).remedy(
                format!("add {} = {} below [app]", self.name, self.kind.example()),
            );
            report.note(&app.span, &key, finding);
        }
        self.default.clone()
    }
}
