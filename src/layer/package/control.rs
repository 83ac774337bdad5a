//! A package's control stanza and control files.

use std::collections::BTreeMap;

/// Fields of a stanza in dpkg's form (deb-control(5)), in the order of the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stanza {
    fields: Vec<(String, String)>,
}

impl Stanza {
    /// Reads one stanza; `None` when a line is no field and continues none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in text.lines() {
            if line.trim().is_empty() {
                continue;
            }
            if line.starts_with([' ', '\t']) {
                let (_, value) = fields.last_mut()?;
                value.push('\n');
                value.push_str(line);
            } else {
                let (name, value) = line.split_once(':')?;
                fields.push((name.to_owned(), value.trim().to_owned()));
            }
        }
        Some(Self { fields })
    }

    /// The value of a field; names differ by letters only.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Sets a field, after the first one when it is new.
    pub(crate) fn set(&mut self, name: &str, value: String) {
        let mut fields = self.fields.iter_mut();
        if let Some((_, old)) = fields.find(|(field, _)| field.eq_ignore_ascii_case(name)) {
            *old = value;
        } else {
            let at = self.fields.len().min(1);
            self.fields.insert(at, (name.to_owned(), value));
        }
    }

    /// Adds a field at the end.
    pub(crate) fn push(&mut self, name: &str, value: String) {
        self.fields.push((name.to_owned(), value));
    }

    /// The stanza with an empty line after it.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.fields {
            text.push_str(name);
            text.push(':');
            if !value.starts_with('\n') {
                text.push(' ');
            }
            text.push_str(value);
            text.push('\n');
        }
        text.push('\n');
        text
    }
}

/// Splits dpkg's status file into stanzas.
pub(crate) fn stanzas(text: &str) -> impl Iterator<Item = Option<Stanza>> {
    text.split("\n\n")
        .filter(|block| !block.trim().is_empty())
        .map(Stanza::parse)
}

/// One name of a relation field: `libc6 (>= 2.36) [amd64] | other`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) name: String,
    /// `<<`, `<=`, `=`, `>=` or `>>`, and the version.
    pub(crate) version: Option<(String, String)>,
}

/// The alternatives of each part of a relation field.
pub(crate) fn relations(value: &str) -> Vec<Vec<Relation>> {
    value
        .split(',')
        .filter(|part| !part.trim().is_empty())
        .map(|part| part.split('|').map(relation).collect())
        .collect()
}

fn relation(text: &str) -> Relation {
    let text = text.trim();
    let end = text
        .find(|c: char| c.is_whitespace() || matches!(c, '(' | '[' | '<' | ':'))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let version = rest.split_once('(').and_then(|(_, inside)| {
        let inside = inside.split_once(')')?.0.trim();
        let end = inside.find(|c: char| !matches!(c, '<' | '>' | '='))?;
        let (operator, version) = inside.split_at(end);
        Some((operator.to_owned(), version.trim().to_owned()))
    });
    Relation {
        name: name.to_owned(),
        version,
    }
}

/// deb-control(5): letters, digits, `+`, `-` and `.`, a letter or digit first.
/// Triggers may have letters of both kinds, `_` and `:` as well.
fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_' | ':');
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(is_plain)
}

/// A package's control archive.
#[derive(Debug, Clone, Default)]
pub(crate) struct Control {
    pub(crate) stanza: Stanza,
    /// The other control files by name, with bytes and mode.
    pub(crate) files: BTreeMap<String, (Vec<u8>, u16)>,
}

impl Control {
    /// Whether its names can be files of dpkg's database.
    ///
    /// # Errors
    ///
    /// What cannot.
    pub(crate) fn check(&self) -> Result<(), String> {
        let escaped = |text: &str| text.escape_default().to_string();
        if !is_name(self.package()) {
            return Err(format!("its name is `{}`", escaped(self.package())));
        }
        if !is_name(self.architecture()) {
            let architecture = escaped(self.architecture());
            return Err(format!("its architecture is `{architecture}`"));
        }
        for (_, trigger) in self.triggers() {
            if !trigger.starts_with('/') && !is_name(&trigger) {
                return Err(format!("it has a trigger `{}`", escaped(&trigger)));
            }
        }
        Ok(())
    }

    pub(crate) fn package(&self) -> &str {
        self.stanza.get("Package").unwrap_or_default()
    }

    pub(crate) fn version(&self) -> &str {
        self.stanza.get("Version").unwrap_or_default()
    }

    pub(crate) fn architecture(&self) -> &str {
        self.stanza.get("Architecture").unwrap_or_default()
    }

    pub(crate) fn is_essential(&self) -> bool {
        self.stanza.get("Essential") == Some("yes")
    }

    fn is_multi_arch_same(&self) -> bool {
        self.stanza.get("Multi-Arch") == Some("same")
    }

    /// The name of its files in dpkg's database, and in trigger files.
    pub(crate) fn database_name(&self) -> String {
        if self.is_multi_arch_same() {
            format!("{}:{}", self.package(), self.architecture())
        } else {
            self.package().to_owned()
        }
    }

    /// Names that satisfy dependencies: its own and the provided ones.
    pub(crate) fn names(&self) -> Vec<String> {
        let provides = self.stanza.get("Provides").unwrap_or_default();
        let others = relations(provides).into_iter().flatten();
        std::iter::once(self.package().to_owned())
            .chain(others.map(|relation| relation.name))
            .collect()
    }

    /// The relations of `Pre-Depends`, `Depends` and so on.
    pub(crate) fn relations(&self, field: &str) -> Vec<Vec<Relation>> {
        relations(self.stanza.get(field).unwrap_or_default())
    }

    /// The paths in `conffiles`, absolute; files to be removed are not among them.
    pub(crate) fn conffiles(&self) -> Vec<String> {
        let Some((bytes, _)) = self.files.get("conffiles") else {
            return Vec::new();
        };
        String::from_utf8_lossy(bytes)
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with('/'))
            .map(str::to_owned)
            .collect()
    }

    /// `interest` and `activate` directives of `triggers`, comments left out.
    pub(crate) fn triggers(&self) -> Vec<(String, String)> {
        let Some((bytes, _)) = self.files.get("triggers") else {
            return Vec::new();
        };
        String::from_utf8_lossy(bytes)
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default())
            .filter_map(|line| {
                let mut words = line.split_ascii_whitespace();
                Some((words.next()?.to_owned(), words.next()?.to_owned()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stanza_keeps_its_fields_and_their_lines() {
        let text = "Package: a\nVersion: 1\nDescription: short\n long\n .\n more\n";
        let mut stanza = Stanza::parse(text).expect("a stanza");
        stanza.set("Status", "install ok unpacked".into());
        stanza.push("Conffiles", "\n /etc/a abc".into());
        assert_eq!(
            stanza.to_text(),
            "Package: a\nStatus: install ok unpacked\nVersion: 1\nDescription: short\n long\n .\n \
             more\nConffiles:\n /etc/a abc\n\n"
        );
        assert!(Stanza::parse(" continues nothing").is_none());
        assert!(Stanza::parse("no field").is_none());
    }

    #[test]
    fn relations_lose_architectures_and_keep_versions() {
        let found = relations("libc6 (>= 2.36), a:any | b [amd64], c<!nocheck>");
        let names: Vec<Vec<&str>> = found
            .iter()
            .map(|part| part.iter().map(|one| one.name.as_str()).collect())
            .collect();
        assert_eq!(names, [vec!["libc6"], vec!["a", "b"], vec!["c"]]);
        assert_eq!(
            found[0][0].version,
            Some((">=".to_owned(), "2.36".to_owned()))
        );
    }
}
