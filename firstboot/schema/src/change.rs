//! What a site configuration sets, and what a newer one changes.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use crate::document::parse;
use crate::report::{Report, shown};

/// Values that are never shown, by the last name of their key.
const HIDDEN: [&str; 1] = ["password_hash"];
/// Characters of a value that are shown.
const MAX_SHOWN: usize = 200;

/// One key that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key with its tables, such as `nic[1].gateway`.
    pub key: String,
    /// The value before; `None` where there was none.
    pub before: Option<String>,
    /// The value after; `None` where there is none.
    pub after: Option<String>,
}

/// The keys that differ between two texts, sorted. Hashes of passwords are
/// told as `(hidden)`. Texts that are not TOML have no keys.
#[must_use]
pub fn changes(before: &str, after: &str) -> Vec<Change> {
    let (mut old, new) = (values(before), values(after));
    let mut found = Vec::new();
    for (key, after) in new {
        let before = old.remove(&key);
        if before.as_ref() != Some(&after) {
            found.push(change(&key, before, Some(after)));
        }
    }
    let gone = old.into_iter();
    found.extend(gone.map(|(key, before)| change(&key, Some(before), None)));
    found.sort_by(|a, b| a.key.cmp(&b.key));
    found
}

fn change(key: &str, before: Option<String>, after: Option<String>) -> Change {
    let is_hidden = HIDDEN.iter().any(|name| key.ends_with(&format!(".{name}")));
    let show = |value: String| {
        if is_hidden {
            return "(hidden)".to_owned();
        }
        let line: String = value.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut short: String = line.chars().take(MAX_SHOWN).collect();
        if short.len() < line.len() {
            short.push('…');
        }
        short
    };
    Change {
        key: shown(key),
        before: before.map(show),
        after: after.map(show),
    }
}

/// Every key that has a value of its own, and the value as it is written.
fn values(text: &str) -> BTreeMap<String, String> {
    let mut report = Report::new(text);
    let mut found = BTreeMap::new();
    if let Some(table) = parse(text, &mut report) {
        collect(text, "", table.get_ref(), &mut found);
    }
    found
}

fn collect(text: &str, above: &str, table: &DeTable<'_>, found: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let key = if above.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{above}.{}", name.get_ref())
        };
        match value.get_ref() {
            DeValue::Table(table) => collect(text, &key, table, found),
            DeValue::Array(array) if array.iter().any(|item| item.get_ref().is_table()) => {
                for (at, item) in (1..).zip(array.iter()) {
                    if let DeValue::Table(table) = item.get_ref() {
                        collect(text, &format!("{key}[{at}]"), table, found);
                    }
                }
            }
            _ => {
                let written = text.get(value.span()).unwrap_or_default();
                found.insert(key, written.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_and_hashes_are_not_shown() {
        let before =
            "serial = 1\n[system]\nhostname = \"a\"\n[user.x]\npassword_hash = 'CANARY1'\n";
        let after = "serial = 2\n[user.x]\npassword_hash = 'CANARY2'\n[[nic]]\nmatch = { slot = 1 }\naddress = [\n  \"10.0.0.1/8\",\n]\n";
        let told: Vec<String> = changes(before, after)
            .into_iter()
            .map(|change| {
                let text = |value: Option<String>| value.unwrap_or_else(|| "-".into());
                format!(
                    "{} {} {}",
                    change.key,
                    text(change.before),
                    text(change.after)
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                "nic[1].address - [ \"10.0.0.1/8\", ]",
                "nic[1].match.slot - 1",
                "serial 1 2",
                "system.hostname \"a\" -",
                "user.x.password_hash (hidden) (hidden)",
            ]
        );
        assert!(changes(before, before).is_empty());
        assert!(changes("rubbish", "[").is_empty());
    }
}
