//! What the vendor of an image lets a site decide, as `policy.toml` says.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::document::{Section, parse};
use crate::problem::{Code, Problem};
use crate::report::{Finding, Report, shown};

/// The vendor's limits. The default limits nothing.
///
/// Keys are written as in a file, with `*` for any one name: `user.root`,
/// `user.*.password_hash`, `nic.vlan` (for every `[[nic]]`). A key stands for
/// everything below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Roles that a site may choose; empty: all of the image.
    pub roles: Vec<String>,
    /// Keys that must be there.
    pub required: Vec<String>,
    /// Keys that must not be there.
    pub forbidden: Vec<String>,
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
            let mut list = |key, parse: fn(&str) -> Result<String, Finding>| {
                let found = crate::address::all(&mut root, key, 64, parse, &mut report);
                found.into_iter().map(|found| found.value).collect()
            };
            let policy = Self {
                roles: list("roles", crate::role::parse_name),
                required: list("required", parse_pattern),
                forbidden: list("forbidden", parse_pattern),
            };
            root.finish(&mut report);
            policy
        });
        match policy {
            Some(policy) if report.is_clean() => Ok(policy),
            _ => Err(report.into_problems()),
        }
    }

    /// Notes every key of a site configuration that breaks the rules.
    pub(crate) fn judge(&self, table: &Spanned<DeTable<'_>>, report: &mut Report<'_>) {
        let mut present = Vec::new();
        collect(table.get_ref(), &mut Vec::new(), &mut present);
        for pattern in &self.forbidden {
            for (path, span) in present.iter().filter(|(path, _)| matches(pattern, path)) {
                let key = path.join(".");
                let message = format!("the appliance does not let a site set `{}`", shown(&key));
                let finding = Finding::new(Code::NotAllowed, message)
                    .remedy("delete it, or ask the vendor of the appliance");
                report.note(span, &key, finding);
            }
        }
        for pattern in &self.required {
            if !present.iter().any(|(path, _)| matches(pattern, path)) {
                let finding =
                    Finding::new(Code::NotAllowed, format!("the appliance needs `{pattern}`"))
                        .remedy("add it");
                report.note(&(0..0), pattern, finding);
            }
        }
    }
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

/// Every key with the names that lead to it; list indices are left out.
fn collect<'t>(
    table: &'t DeTable<'_>,
    above: &mut Vec<&'t str>,
    found: &mut Vec<(Vec<&'t str>, std::ops::Range<usize>)>,
) {
    for (name, value) in table {
        above.push(name.get_ref());
        found.push((above.clone(), name.span()));
        match value.get_ref() {
            DeValue::Table(table) => collect(table, above, found),
            DeValue::Array(array) => {
                for table in array.iter().filter_map(|item| item.get_ref().as_table()) {
                    collect(table, above, found);
                }
            }
            _ => {}
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
    }

    #[test]
    fn a_wrong_policy_is_refused() {
        for bad in [
            "",
            "schema = 1\nrole = []",
            "schema = 1\nforbidden = [\"a..b\"]",
            "schema = 2",
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
