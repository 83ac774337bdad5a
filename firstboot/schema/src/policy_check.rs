//! Whether a policy means what there is: keys of a configuration, roles of the
//! image, limits that limit. One that is mistyped would limit nothing, and
//! nobody would notice before a customer does what the vendor forbids.

use crate::app::ParamKind;
use crate::describe::{KEYS, Takes};
use crate::document::{Found, Section, parse};
use crate::nearest::nearest;
use crate::policy::Policy;
use crate::problem::{Code, Problem};
use crate::report::{Finding, Report, shown};
use crate::role::Role;

/// Keys that every configuration has.
const ALWAYS: [&[&str]; 4] = [
    &["schema"],
    &["config"],
    &["config", "id"],
    &["config", "serial"],
];

/// What limits a key's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Text,
    /// Neither numbers nor texts, such as true and false.
    Other,
    /// Nobody knows, as without the roles.
    Any,
}

/// A key that a configuration may have; `*` is any name.
struct Key<'n> {
    path: Vec<&'n str>,
    kind: Kind,
}

/// Reads a `policy.toml` for an image with these roles; without any, what is
/// below `app` is taken as it is.
///
/// # Errors
///
/// Every problem of the text, and every name in it that nothing has.
pub fn check_policy(text: &str, roles: &[&Role]) -> Result<Policy, Vec<Problem>> {
    let policy = Policy::parse(text)?;
    let mut report = Report::new(text);
    let table = parse(text, &mut report);
    if let Some(table) = &table {
        judge(&mut Section::root(table), roles, &mut report);
    }
    if report.is_clean() {
        Ok(policy)
    } else {
        Err(report.into_problems())
    }
}

fn judge(root: &mut Section<'_>, roles: &[&Role], report: &mut Report<'_>) {
    let keys = keys(roles);
    for list in ["allowed", "required", "forbidden"] {
        let found = root.get(list).map(|found| found.texts(256, report));
        for pattern in found.into_iter().flatten() {
            if let Err(finding) = known(pattern.value, &keys) {
                pattern.note(report, finding);
            } else if list == "forbidden" && is_always(pattern.value) {
                let finding = Finding::invalid("every configuration has this key")
                    .remedy("delete it here: no configuration would be accepted");
                pattern.note(report, finding);
            }
        }
    }
    let chosen = root.get("roles").map(|found| found.texts(256, report));
    for name in chosen.into_iter().flatten() {
        let is_there = roles.is_empty() || roles.iter().any(|role| role.name == name.value);
        if !is_there {
            let message = format!("the appliance has no role `{}`", shown(name.value));
            let near = nearest(name.value, roles.iter().map(|role| role.name.as_str()));
            let remedy = near.map_or_else(|| "delete it".to_owned(), meant);
            name.note(report, Finding::invalid(message).remedy(remedy));
        }
    }
    for mut property in root.tables("property", 256, report) {
        let key = property.get("key").and_then(|found| found.text(report));
        if let Some(key) = key
            && let Err(finding) = known(key.value, &keys)
        {
            key.note(report, finding);
        }
    }
    for range in root.tables("range", 256, report) {
        judge_range(range, &keys, report);
    }
}

fn judge_range(mut range: Section<'_>, keys: &[Key<'_>], report: &mut Report<'_>) {
    let Some(key) = range.get("key").and_then(|found| found.text(report)) else {
        return;
    };
    let kinds = match known(key.value, keys) {
        Ok(kinds) => kinds,
        Err(finding) => {
            key.note(report, finding);
            return;
        }
    };
    let is_any = |wanted: Kind| kinds.iter().any(|kind| [wanted, Kind::Any].contains(kind));
    let mut bound = |name| {
        let found = range.get(name)?;
        found.integer(&(i64::MIN..=i64::MAX), report)
    };
    let (min, max) = (bound("min"), bound("max"));
    if let (Some(min), Some(max)) = (&min, &max)
        && min.value > max.value
    {
        let message = format!("no number is from {} to {}", min.value, max.value);
        let remedy = "exchange the two";
        max.note(report, Finding::invalid(message).remedy(remedy));
    }
    if let Some(bound) = min.or(max).filter(|_| !is_any(Kind::Number)) {
        note_idle(&key, &bound, "no number", report);
    }
    let values = range.get("values").filter(|_| !is_any(Kind::Text));
    if let Some(values) = values {
        note_idle(&key, &values, "no text", report);
    }
}

/// A limit that holds for no value of its key.
fn note_idle<T>(key: &Found<&str>, limit: &Found<T>, what: &str, report: &mut Report<'_>) {
    let message = format!("`{}` is {what}, and this limits nothing", shown(key.value));
    let finding = Finding::invalid(message)
        .allowed("min and max for numbers, values for texts")
        .remedy("delete it, or name the key that is to be limited");
    limit.note(report, finding);
}

fn meant(name: &str) -> String {
    format!("did you mean `{name}`?")
}

/// Every key of a configuration for these roles.
fn keys<'r>(roles: &[&'r Role]) -> Vec<Key<'r>> {
    let described = KEYS.iter().map(|key| Key {
        path: key
            .path
            .split('.')
            .map(|name| name.trim_end_matches("[]"))
            .collect(),
        kind: match key.takes {
            Takes::Number(..) => Kind::Number,
            Takes::Text(_)
            | Takes::Limited(..)
            | Takes::Lines
            | Takes::Choice(_)
            | Takes::Texts(..) => Kind::Text,
            Takes::Place(..) => Kind::Any,
            Takes::Boolean | Takes::Date => Kind::Other,
        },
    });
    let mut keys: Vec<Key<'r>> = described.collect();
    let schema = Key {
        path: vec!["schema"],
        kind: Kind::Number,
    };
    keys.push(schema);
    for param in roles.iter().flat_map(|role| &role.params) {
        keys.push(Key {
            path: vec!["app", &param.name],
            kind: match param.kind {
                ParamKind::Int { .. } | ParamKind::Port => Kind::Number,
                ParamKind::Bool => Kind::Other,
                _ => Kind::Text,
            },
        });
    }
    if roles.is_empty() {
        keys.push(Key {
            path: vec!["app", "*"],
            kind: Kind::Any,
        });
    }
    keys
}

/// What values the keys have that a pattern means; none of a table.
fn known(pattern: &str, keys: &[Key<'_>]) -> Result<Vec<Kind>, Finding> {
    let parts: Vec<&str> = pattern.split('.').collect();
    let mut left: Vec<&Key<'_>> = keys.iter().collect();
    for (depth, part) in parts.iter().enumerate() {
        let is_here = |key: &&&Key<'_>| {
            let name = key.path.get(depth);
            name.is_some_and(|name| *name == "*" || *part == "*" || name == part)
        };
        let next: Vec<&Key<'_>> = left.iter().filter(is_here).copied().collect();
        if next.is_empty() {
            let names = left.iter().filter_map(|key| key.path.get(depth).copied());
            let near = nearest(part, names);
            let message = format!("no configuration has a key `{}`", shown(pattern));
            let remedy = near.map_or_else(
                || "see `consign config schema` for those that there are".to_owned(),
                meant,
            );
            return Err(Finding::new(Code::UnknownKey, message).remedy(remedy));
        }
        left = next;
    }
    let leaves = left.iter().filter(|key| key.path.len() == parts.len());
    Ok(leaves.map(|key| key.kind).collect())
}

/// Whether a pattern means a key that every configuration has.
fn is_always(pattern: &str) -> bool {
    let parts: Vec<&str> = pattern.split('.').collect();
    ALWAYS.iter().any(|path| {
        let mut both = path.iter().zip(&parts);
        path.len() == parts.len() && both.all(|(name, part)| *part == "*" || name == part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "schema = 1\nname = \"web\"\ndescription = \"x\"\n\
        [param.listen_port]\ntype = \"port\"\ndefault = 80\n\
        [param.title]\ntype = \"string\"\n[param.is_open]\ntype = \"bool\"\ndefault = true\n";

    fn told(policy: &str) -> Vec<String> {
        let role = Role::parse(ROLE).expect("a role");
        let text = format!("schema = 1\n{policy}\n");
        let problems = check_policy(&text, &[&role]).err().unwrap_or_default();
        let line =
            |it: Problem| format!("{}:{}: {}; {}", it.line, it.column, it.message, it.remedy);
        problems.into_iter().map(line).collect()
    }

    #[test]
    fn what_there_is_may_be_named() {
        for good in [
            "forbidden = [\"user.root\", \"user.*.sudo\", \"nic.dhcp4\", \"disk\"]",
            "required = [\"user\", \"app.title\"]\nallowed = [\"config.serial\", \"app\"]",
            "roles = [\"web\"]",
            "[[range]]\nkey = \"app.listen_port\"\nmin = 1024\nmax = 2048",
            "[[range]]\nkey = \"system.timezone\"\nvalues = [\"UTC\"]",
            "[[range]]\nkey = \"nic.mtu\"\nmax = 1500",
            "[[property]]\nname = \"ip\"\nkey = \"nic.address\"\ntype = \"list\"",
        ] {
            assert_eq!(told(good), [""; 0], "{good}");
        }
        let policy = check_policy("schema = 1\nforbidden = [\"app.x\"]\n", &[]);
        assert!(policy.is_ok(), "without roles nobody knows");
    }

    #[test]
    fn what_there_is_not_limits_nothing_and_is_refused() {
        for (bad, place, message, remedy) in [
            (
                "forbidden = [\"sytem.hostname\"]",
                "2:14",
                "no configuration has a key `sytem.hostname`",
                "did you mean `system`?",
            ),
            (
                "forbidden = [\"user.*.passwordhash\"]",
                "2:14",
                "no configuration has a key `user.*.passwordhash`",
                "did you mean `password_hash`?",
            ),
            (
                "required = [\"system.hostname.x\"]",
                "2:13",
                "no configuration has a key `system.hostname.x`",
                "see `consign",
            ),
            (
                "roles = [\"webb\"]",
                "2:10",
                "the appliance has no role `webb`",
                "did you mean `web`?",
            ),
            (
                "forbidden = [\"config.*\"]",
                "2:14",
                "every configuration has this key",
                "delete it here",
            ),
            (
                "[[range]]\nkey = \"app.listen_prt\"\nmax = 5",
                "3:7",
                "no configuration has a key `app.listen_prt`",
                "did you mean `listen_port`?",
            ),
            (
                "[[range]]\nkey = \"app.title\"\nmin = 5",
                "4:7",
                "`app.title` is no number, and this limits nothing",
                "delete it",
            ),
            (
                "[[range]]\nkey = \"app.listen_port\"\nmin = 6\nmax = 5",
                "5:7",
                "no number is from 6 to 5",
                "exchange the two",
            ),
            (
                "[[range]]\nkey = \"app.listen_port\"\nvalues = [\"a\"]",
                "4:10",
                "`app.listen_port` is no text, and this limits nothing",
                "delete it",
            ),
            (
                "[[range]]\nkey = \"app.is_open\"\nmax = 1",
                "4:7",
                "`app.is_open` is no number",
                "delete it",
            ),
            (
                "[[range]]\nkey = \"user\"\nmax = 1",
                "4:7",
                "`user` is no number",
                "delete it",
            ),
            (
                "[[property]]\nname = \"x\"\nkey = \"nic.adress\"",
                "4:7",
                "no configuration has a key `nic.adress`",
                "did you mean `address`?",
            ),
        ] {
            let told = told(bad);
            assert_eq!(told.len(), 1, "{bad}: {told:?}");
            assert!(
                told[0].starts_with(&format!("{place}: {message}")),
                "{told:?}"
            );
            assert!(told[0].contains(remedy), "{told:?}");
        }
    }
}
