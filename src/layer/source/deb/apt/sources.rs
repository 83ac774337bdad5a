//! `sources.list` and `*.sources`, both styles, as text and as files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::tree::list_folder;

use super::super::Keys;
use super::super::address::Address;
use super::super::error::SourceError;
use super::super::stanza::{fields, stanzas};
use super::{AptSettings, ValidTime};

/// One source of binary packages: each of its suites at each of its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceEntry {
    /// Addresses that can be used.
    pub addresses: Vec<Address>,
    /// Schemes of addresses that cannot: `cdrom`, `mirror+file`.
    pub other_schemes: Vec<String>,
    /// Suites as written.
    pub suites: Vec<String>,
    /// `main` and so on.
    pub components: Vec<String>,
    /// Architectures; empty when the host's own are meant.
    pub architectures: Vec<String>,
    /// `Signed-By`; empty when the general keyrings count.
    pub keys: Keys,
    /// `Trusted`.
    pub trust: Trust,
    /// `Check-Valid-Until`, when it is there; `Check-Date: no` switches it off
    /// as well.
    pub checks_expiry: Option<bool>,
    /// `Valid-Until-Min` and `Valid-Until-Max`.
    pub valid_time: ValidTime,
}

/// Whether a repository must be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It must, by a key of its keyrings.
    Signed,
    /// The host's owner wrote `trusted=yes`: its signature is not looked at.
    Blind,
}

/// Reads all sources of the host, in apt's order.
///
/// # Errors
///
/// [`SourceError::ReadHost`], [`SourceError::SourcesSyntax`]. A host without
/// sources gives none.
pub fn read_sources(settings: &AptSettings) -> Result<Vec<SourceEntry>, SourceError> {
    let mut entries = Vec::new();
    let mut files = vec![settings.sources_list.clone()];
    match list_folder(&settings.sources_folder) {
        Ok(found) => files.extend(found.into_iter().map(|entry| entry.path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => {
            let path = settings.sources_folder.clone();
            return Err(SourceError::ReadHost { path, source });
        }
    }
    for path in files {
        let style = path.extension().and_then(|extension| extension.to_str());
        let parse = match style {
            Some("list") => parse_list,
            Some("sources") => parse_deb822,
            _ => continue,
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => entries.extend(parse(&text, &path)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(SourceError::ReadHost { path, source }),
        }
    }
    Ok(entries)
}

/// Parses the one-line style.
pub(super) fn parse_list(text: &str, path: &Path) -> Result<Vec<SourceEntry>, SourceError> {
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let wrong = |problem: &str| SourceError::SourcesSyntax {
            path: path.to_owned(),
            line: index + 1,
            problem: problem.to_owned(),
        };
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some((kind, rest)) = line.split_once([' ', '\t']) else {
            match line {
                "" => continue,
                _ => return Err(wrong("an address and a suite are missing")),
            }
        };
        match kind {
            "deb" => {}
            "deb-src" => continue,
            _ => return Err(wrong("a source begins with `deb` or `deb-src`")),
        }
        let (options, rest) = match rest.trim_start().strip_prefix('[') {
            Some(rest) => rest
                .split_once(']')
                .ok_or_else(|| wrong("`]` is missing"))?,
            None => ("", rest),
        };
        let options = options
            .split_whitespace()
            .filter_map(|option| option.split_once('='))
            .map(|(name, value)| (list_option(name), value.replace(',', " ")))
            .collect();
        let mut words = rest.split_whitespace();
        let (Some(address), Some(suite)) = (words.next(), words.next()) else {
            return Err(wrong("an address and a suite are missing"));
        };
        let components = words.map(str::to_owned).collect();
        entries.push(entry(
            &options,
            [address],
            vec![suite.to_owned()],
            components,
        ));
    }
    Ok(entries)
}

/// The deb822 name of a one-line option.
fn list_option(name: &str) -> String {
    match name.to_ascii_lowercase().as_str() {
        "arch" => "architectures".into(),
        other => other.to_owned(),
    }
}

/// Parses the deb822 style.
pub(super) fn parse_deb822(text: &str, path: &Path) -> Result<Vec<SourceEntry>, SourceError> {
    // Comments may stand anywhere, inside of a value too. An emptied line
    // would end the stanza, so they go with their line ends.
    let text: String = text
        .split_inclusive('\n')
        .filter(|line| !line.starts_with('#'))
        .collect();
    let mut entries = Vec::new();
    for stanza in stanzas(&text) {
        let mut options = BTreeMap::new();
        for field in fields(stanza) {
            let (name, value) = field.map_err(|line| SourceError::SourcesSyntax {
                path: path.to_owned(),
                line,
                problem: "this is no field".into(),
            })?;
            options.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let list = |name: &str| -> Vec<String> {
            let value = options.get(name).map(String::as_str).unwrap_or_default();
            value.split_whitespace().map(str::to_owned).collect()
        };
        let is_enabled = boolean(options.get("enabled")).unwrap_or(true);
        if !is_enabled || !list("types").iter().any(|kind| kind == "deb") {
            continue;
        }
        let addresses = list("uris");
        let addresses = addresses.iter().map(String::as_str);
        entries.push(entry(
            &options,
            addresses,
            list("suites"),
            list("components"),
        ));
    }
    Ok(entries)
}

/// The entry that its options, by their lower-case deb822 names, describe.
fn entry<'a>(
    options: &BTreeMap<String, String>,
    written: impl IntoIterator<Item = &'a str>,
    suites: Vec<String>,
    components: Vec<String>,
) -> SourceEntry {
    let mut addresses = Vec::new();
    let mut other_schemes = Vec::new();
    for text in written {
        match Address::parse(text) {
            Some(address) => addresses.push(address),
            None => other_schemes.push(text.split(':').next().unwrap_or_default().to_owned()),
        }
    }
    let get = |name: &str| options.get(name);
    SourceEntry {
        addresses,
        other_schemes,
        suites,
        components,
        architectures: get("architectures")
            .map(|value| value.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default(),
        keys: get("signed-by")
            .map(|value| signed_by(value))
            .unwrap_or_default(),
        trust: match boolean(get("trusted")) {
            Some(true) => Trust::Blind,
            _ => Trust::Signed,
        },
        checks_expiry: match boolean(get("check-date")) {
            Some(false) => Some(false),
            _ => boolean(get("check-valid-until")),
        },
        valid_time: ValidTime {
            least: seconds(get("valid-until-min")),
            most: seconds(get("valid-until-max")),
        },
    }
}

/// A number of seconds for lists of any label.
fn seconds(value: Option<&String>) -> BTreeMap<String, i64> {
    let number = value.and_then(|text| text.trim().parse().ok());
    number
        .map(|number| (String::new(), number))
        .into_iter()
        .collect()
}

fn boolean(value: Option<&String>) -> Option<bool> {
    match value?.to_ascii_lowercase().as_str() {
        "yes" | "true" | "1" | "on" | "with" | "enable" => Some(true),
        "no" | "false" | "0" | "off" | "without" | "disable" => Some(false),
        _ => None,
    }
}

/// `Signed-By`: a key in full, paths, or fingerprints.
fn signed_by(value: &str) -> Keys {
    let mut keys = Keys::default();
    if value.contains("-----BEGIN") {
        // An empty line is written as ` .`.
        let lines = value
            .lines()
            .map(str::trim)
            .map(|line| if line == "." { "" } else { line });
        keys.inline.push(lines.collect::<Vec<_>>().join("\n"));
        return keys;
    }
    for word in value
        .split([' ', ',', '\n', '\t'])
        .filter(|word| !word.is_empty())
    {
        if word.starts_with('/') {
            keys.files.push(PathBuf::from(word));
        } else {
            keys.fingerprints
                .push(word.trim_end_matches('!').to_ascii_uppercase());
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<SourceEntry> {
        parse_list(text, Path::new("sources.list")).expect("it parses")
    }

    #[test]
    fn one_line_sources_have_options() {
        let text = "# comment\n\n\
            deb http://a.example/debian/ bookworm main contrib # trailing\n\
            deb-src http://a.example/debian bookworm main\n\
            deb [ arch=amd64,arm64 signed-by=/k/a.gpg,/k/b.asc trusted=yes \
            check-valid-until=no valid-until-max=99 ] https://b.example x/updates main\n\
            deb cdrom:[Debian]/ bookworm main\n";
        let entries = list(text);
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[0].suites, ["bookworm"]);
        assert_eq!(entries[0].components, ["main", "contrib"]);
        assert_eq!(entries[0].trust, Trust::Signed);
        assert_eq!(entries[1].architectures, ["amd64", "arm64"]);
        assert_eq!(
            entries[1].keys.files,
            [Path::new("/k/a.gpg"), Path::new("/k/b.asc")]
        );
        assert_eq!(entries[1].trust, Trust::Blind);
        assert_eq!(entries[1].checks_expiry, Some(false));
        assert_eq!(entries[1].valid_time.of("x"), (None, Some(99)));
        assert_eq!(entries[2].other_schemes, ["cdrom"]);
    }

    #[test]
    fn deb822_sources_have_several_suites_and_inline_keys() {
        let text = "# head\nTypes: deb deb-src\nURIs: http://a.example/debian\n# within\n\
            Suites: bookworm\n bookworm-updates\nComponents: main\nSigned-By:\n \
            -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n\
            \nEnabled: no\nTypes: deb\nURIs: http://b.example\nSuites: x\n\
            \nTypes: deb-src\nURIs: http://c.example\nSuites: x\n";
        let entries = parse_deb822(text, Path::new("x.sources")).expect("it parses");
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(
            entries[0].keys.inline,
            ["-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----"]
        );
    }

    #[test]
    fn signed_by_may_name_fingerprints() {
        let keys = signed_by("a7236886f3ccCAADF2F5 B8D2!,/k.gpg");
        assert_eq!(keys.fingerprints, ["A7236886F3CCCAADF2F5", "B8D2"]);
        assert_eq!(keys.files, [Path::new("/k.gpg")]);
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = parse_list(
            "\ndeb [arch=amd64 http://a.example x\n",
            Path::new("/e/x.list"),
        )
        .expect_err("no bracket");
        assert_eq!(error.to_string(), "`/e/x.list` line 2: `]` is missing");
    }
}
