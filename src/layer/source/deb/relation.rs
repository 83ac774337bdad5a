//! Relations between packages: `libc6 (>= 2.36) | libc6.1, python3:any`.
//!
//! Source: Debian Policy 7.1 and 7.5.

use std::cmp::Ordering;
use std::fmt;

use super::version::Version;

/// `NAME[:ARCH] [(OPERATOR VERSION)]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Relation<'a> {
    /// Package, real or virtual.
    pub(super) name: &'a str,
    /// `any`, `native` or an architecture.
    pub(super) architecture: Option<&'a str>,
    /// What its version must be.
    pub(super) version: Option<(Operator, Version<'a>)>,
}

/// How a version is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    /// `<<`
    Earlier,
    /// `<=`, and `<` of old
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`, and `>` of old
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Operator {
    /// Whether `version` OPERATOR `bound` holds.
    fn holds(self, version: Version<'_>, bound: Version<'_>) -> bool {
        let order = version.cmp(&bound);
        match self {
            Self::Earlier => order == Ordering::Less,
            Self::EarlierOrEqual => order != Ordering::Greater,
            Self::Equal => order == Ordering::Equal,
            Self::LaterOrEqual => order != Ordering::Less,
            Self::Later => order == Ordering::Greater,
        }
    }

    fn split(text: &str) -> Option<(Self, &str)> {
        // The longer ones first.
        let operators = [
            ("<<", Self::Earlier),
            ("<=", Self::EarlierOrEqual),
            (">=", Self::LaterOrEqual),
            (">>", Self::Later),
            ("=", Self::Equal),
            ("<", Self::EarlierOrEqual),
            (">", Self::LaterOrEqual),
        ];
        operators
            .into_iter()
            .find_map(|(sign, operator)| Some((operator, text.strip_prefix(sign)?)))
    }
}

impl<'a> Relation<'a> {
    /// Parses one relation; `None` when it is malformed.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim();
        let (head, version) = match text.split_once('(') {
            None => (text, None),
            Some((head, rest)) => {
                let (operator, bound) = Operator::split(rest.strip_suffix(')')?.trim())?;
                (
                    head.trim_end(),
                    Some((operator, Version::parse(bound.trim())?)),
                )
            }
        };
        let (name, architecture) = match head.split_once(':') {
            Some((name, architecture)) => (name, Some(architecture)),
            None => (head, None),
        };
        let is_plain = is_package_name(name) && architecture.is_none_or(is_package_name);
        is_plain.then_some(Self {
            name,
            architecture,
            version,
        })
    }

    /// Whether a package of this name and version meets it.
    pub(super) fn accepts(&self, version: Version<'_>) -> bool {
        self.version
            .is_none_or(|(operator, bound)| operator.holds(version, bound))
    }

    /// Whether a `Provides` with or without a version meets it: one without
    /// meets only relations without.
    pub(super) fn accepts_provided(&self, version: Option<Version<'_>>) -> bool {
        match (self.version, version) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(_), Some(version)) => self.accepts(version),
        }
    }

    /// Whether it can be met by packages of the one architecture there is.
    pub(super) fn is_for(&self, architecture: &str) -> bool {
        matches!(self.architecture, None | Some("any" | "native" | "all"))
            || self.architecture == Some(architecture)
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(architecture) = self.architecture {
            write!(f, ":{architecture}")?;
        }
        let Some((operator, version)) = self.version else {
            return Ok(());
        };
        let sign = match operator {
            Operator::Earlier => "<<",
            Operator::EarlierOrEqual => "<=",
            Operator::Equal => "=",
            Operator::LaterOrEqual => ">=",
            Operator::Later => ">>",
        };
        write!(f, " ({sign} {version})")
    }
}

/// Policy 5.6.7, and upper case and `_`, which some vendors use.
pub(super) fn is_package_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte);
    text.bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(is_plain)
}

/// The parts of a relation field, by commas: dependencies that all must hold.
pub(super) fn clauses(field: &str) -> impl Iterator<Item = &str> {
    field
        .split(',')
        .map(str::trim)
        .filter(|clause| !clause.is_empty())
}

/// The alternatives of one dependency, in order; `None` when one of them is
/// malformed.
pub(super) fn alternatives(clause: &str) -> Option<Vec<Relation<'_>>> {
    clause.split('|').map(Relation::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_has_alternatives_in_order() {
        let found = alternatives("libc6 (>= 2.36)|foo:any (<<1:2~) | bar").expect("it parses");
        let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["libc6 (>= 2.36)", "foo:any (<< 1:2~)", "bar"]);
        assert_eq!(
            clauses("a, b | c,,\n d ,").collect::<Vec<_>>(),
            ["a", "b | c", "d"]
        );
    }

    #[test]
    fn operators_hold_as_policy_says() {
        let holds = |relation: &str, version: &str| {
            let relation = Relation::parse(relation).expect("a relation");
            relation.accepts(Version::parse(version).expect("a version"))
        };
        assert!(holds("a (<< 2)", "1") && !holds("a (<< 2)", "2"));
        assert!(holds("a (< 2)", "2") && !holds("a (<= 2)", "3"));
        assert!(holds("a (= 2)", "2") && !holds("a (= 2)", "2-1"));
        assert!(holds("a (> 2)", "2") && !holds("a (>= 2)", "2~"));
        assert!(holds("a (>> 2)", "2-1") && !holds("a (>> 2)", "2"));
        assert!(holds("a", "0"));
    }

    #[test]
    fn a_provides_without_a_version_meets_no_version() {
        let relation = Relation::parse("a (>= 1)").expect("a relation");
        assert!(!relation.accepts_provided(None));
        assert!(relation.accepts_provided(Version::parse("1")));
        assert!(
            Relation::parse("a")
                .expect("a relation")
                .accepts_provided(None)
        );
    }

    #[test]
    fn malformed_relations_are_refused() {
        for text in [
            "",
            "a (1)",
            "a (>= )",
            "a (>= 1",
            "(>= 1)",
            "a b",
            "-a",
            "a (~ 1)",
            "a:",
            "a:\u{1b}[31m",
        ] {
            assert_eq!(Relation::parse(text), None, "{text}");
        }
    }

    #[test]
    fn foreign_architectures_cannot_be_met() {
        let is_for = |text| Relation::parse(text).expect("a relation").is_for("amd64");
        assert!(is_for("a") && is_for("a:any") && is_for("a:amd64"));
        assert!(!is_for("a:i386"));
    }
}
