//! What the file says of the medium that it came on: a licence beside it,
//! secrets beside it, a report that is written back.

use crate::address::{all, boolean, parsed};
use crate::disk::choice;
use crate::document::Section;
use crate::problem::Code;
use crate::report::{Finding, Report};

/// Secrets at most.
const MAX_SECRETS: usize = 64;
/// The folder of licences.
const LICENSES: &str = "license/";

/// `[license]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct License {
    /// The file on the medium, in small letters, such as `license/product.key`.
    pub file: String,
}

/// `[report]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reporting {
    /// Whether `report.json` is written back to a medium that can take it.
    pub write: bool,
}

impl Default for Reporting {
    fn default() -> Self {
        Self { write: true }
    }
}

/// Where a secret comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretSource {
    /// `secrets.age` beside the configuration.
    Age,
    /// Somebody types it at the console.
    Console,
}

impl SecretSource {
    pub(crate) const NAMES: &[(&str, Self)] =
        &[("secrets.age", Self::Age), ("console", Self::Console)];
}

/// A `[secret.NAME]` table: a credential of the role's services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretEntry {
    /// The credential's name: small letters, digits, `_` and `-`.
    pub name: String,
    /// Where it comes from.
    pub from: SecretSource,
    /// Its name in `secrets.age`; the credential's own without.
    pub entry: String,
    /// Services that get it; empty: all of the role.
    pub services: Vec<String>,
}

/// Reads `[license]`.
pub(crate) fn read_license(root: &mut Section<'_>, report: &mut Report<'_>) -> Option<License> {
    let mut section = root.table("license", report)?;
    let file = section
        .require("file", "file = \"product.key\"", report)
        .and_then(|found| found.text(report))
        .and_then(|found| parsed(found, parse_file, report));
    section.finish(report);
    Some(License { file: file?.value })
}

fn parse_file(text: &str) -> Result<String, Finding> {
    let small = text.to_ascii_lowercase();
    let name = small.strip_prefix(LICENSES).unwrap_or(&small);
    let is_name = (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if is_name {
        return Ok(format!("{LICENSES}{name}"));
    }
    Err(Finding::invalid("this is not a file of the folder license")
        .allowed("the name of a file: letters, digits, `.`, `_` and `-`, 64 at most")
        .remedy("copy the file into the folder license of the medium, and write its name"))
}

/// Reads `[report]`.
pub(crate) fn read_reporting(root: &mut Section<'_>, report: &mut Report<'_>) -> Reporting {
    let Some(mut section) = root.table("report", report) else {
        return Reporting::default();
    };
    let write = !section.has("write") | boolean(&mut section, "write", report);
    section.get("write");
    section.finish(report);
    Reporting { write }
}

/// Reads the tables below `[secret]`.
pub(crate) fn read_secrets(root: &mut Section<'_>, report: &mut Report<'_>) -> Vec<SecretEntry> {
    let Some(secrets) = root.table("secret", report) else {
        return Vec::new();
    };
    let mut read = Vec::new();
    for (at, (name, value)) in secrets.entries().enumerate() {
        if at == MAX_SECRETS {
            let finding = Finding::new(Code::OutOfRange, "there are more than 64 secrets")
                .remedy("delete those that are not needed");
            name.note(report, finding);
            break;
        }
        let name = parsed(name, parse_name, report);
        // A text here is most likely the secret itself.
        if value.value.is_str() {
            let finding = Finding::new(Code::NotAllowed, "secrets do not stand in this file")
                .allowed("[secret.NAME] with `from`")
                .remedy("encrypt it into secrets.age, and replace the secret: it has been seen");
            value.note(report, finding);
            continue;
        }
        let Some(section) = value.table(report) else {
            continue;
        };
        read.extend(name.and_then(|name| read_secret(name.value, section, report)));
    }
    read
}

fn read_secret(
    name: String,
    mut section: Section<'_>,
    report: &mut Report<'_>,
) -> Option<SecretEntry> {
    let from = section.get("from").map(|found| {
        let found = found.text(report)?;
        choice(&found, SecretSource::NAMES, "source of secrets", report)
    });
    let entry = section.get("entry").map(|found| {
        let found = found.text(report)?;
        parsed(found, parse_name, report).map(|found| found.value)
    });
    let services = all(
        &mut section,
        "services",
        32,
        crate::role::parse_unit,
        report,
    );
    section.finish(report);
    Some(SecretEntry {
        entry: entry.unwrap_or_else(|| Some(name.clone()))?,
        name,
        from: from.unwrap_or(Some(SecretSource::Age))?,
        services: services.into_iter().map(|found| found.value).collect(),
    })
}

fn parse_name(text: &str) -> Result<String, Finding> {
    let is_name = (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
    if is_name {
        return Ok(text.to_owned());
    }
    Err(Finding::invalid("this is not the name of a secret")
        .allowed("a small letter, then small letters, digits, `_` and `-`, 64 at most")
        .remedy("write for example [secret.db-password]"))
}
