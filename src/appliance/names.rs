//! Names that other programs must be able to read: checked once, here.

use std::fmt;

/// Why a text is not a name of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameError {
    Empty,
    TooLong,
    First(char),
    Character(char),
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident: $kind:literal, $limit:literal, $rule:ident, $allowed:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// What it is called in messages.
            pub(super) const KIND: &str = $kind;
            /// What it may be made of, for messages.
            pub(super) const ALLOWED: &str = $allowed;

            pub(super) fn check(text: &str) -> Result<Self, NameError> {
                judge(text, $limit, $rule).map(|()| Self(text.to_owned()))
            }

            /// The name, if `text` is one.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Self::check(text).ok()
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}

names! {
    /// Name of an appliance or a disk: `[A-Za-z0-9][A-Za-z0-9_.-]*`, at most
    /// 64 characters. It is a file name and a guest's name wherever the image
    /// goes.
    Name: "name", 64, in_name,
        "letters, digits, `_`, `.` and `-`, and begins with a letter or digit";
    /// A version: as [`Name`], and `+` and `~`.
    Version: "version", 64, in_version,
        "letters, digits, `_`, `.`, `-`, `+` and `~`, and begins with a letter or digit";
    /// Name of a layer: lower-case letters, digits and `-`, at most 64.
    LayerName: "layer name", 64, in_layer,
        "lower-case letters, digits and `-`, and begins with a letter or digit";
    /// What the lock calls a repository: lower-case letters, digits and `-`, at
    /// most 64.
    RepositoryName: "repository name", 64, in_layer,
        "lower-case letters, digits and `-`, and begins with a letter or digit";
    /// Code name of a release: `bookworm`.
    Suite: "suite", 64, in_suite,
        "lower-case letters, digits, `.` and `-`, and begins with a letter or digit";
    /// Name of a binary package (Debian Policy 5.6.1).
    PackageName: "package name", 128, in_package,
        "lower-case letters, digits, `+`, `.` and `-`, and begins with a letter or digit";
    /// Base address of a repository: `http://`, `https://` or `file:/`.
    Mirror: "mirror", 1024, in_address,
        "printable ASCII characters without spaces";
}

fn judge(text: &str, limit: usize, belongs: fn(char) -> bool) -> Result<(), NameError> {
    let first = text.chars().next().ok_or(NameError::Empty)?;
    let odd = |c: &char| !belongs(*c);
    match text.chars().find(odd) {
        Some(odd) => Err(NameError::Character(odd)),
        None if !first.is_ascii_alphanumeric() => Err(NameError::First(first)),
        None if text.len() > limit => Err(NameError::TooLong),
        None => Ok(()),
    }
}

fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

fn in_version(c: char) -> bool {
    in_name(c) || matches!(c, '+' | '~')
}

fn in_layer(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
}

fn in_suite(c: char) -> bool {
    in_layer(c) || c == '.'
}

fn in_package(c: char) -> bool {
    in_layer(c) || matches!(c, '+' | '.')
}

fn in_address(c: char) -> bool {
    c.is_ascii_graphic()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_descriptor_profile() {
        for good in ["a", "Wiki-2.0_x", "0"] {
            assert!(Name::parse(good).is_some(), "{good}");
        }
        for bad in ["", ".a", "-a", "a b", "a/b", "ä", "a\n", &"a".repeat(65)] {
            assert!(Name::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_first_odd_character_is_named() {
        assert_eq!(Name::check("my wiki!"), Err(NameError::Character(' ')));
        assert_eq!(Name::check("-x"), Err(NameError::First('-')));
        assert_eq!(LayerName::check("Web"), Err(NameError::Character('W')));
    }
}
