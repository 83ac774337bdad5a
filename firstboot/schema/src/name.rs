//! Names of hosts, time zones and locales.

use std::fmt;

use crate::report::Finding;

macro_rules! text_type {
    ($name:ident) => {
        impl $name {
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
    };
}
pub(crate) use text_type;

/// A host name, alone or with its domain, as RFC 1123 section 2.1 allows:
/// labels of letters, digits and hyphens, joined by dots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostName(String);
text_type!(HostName);

/// Length of a kernel host name at most (`HOST_NAME_MAX`).
const MAX_OWN_NAME: usize = 64;

impl HostName {
    /// A name of another host, at most 253 characters.
    pub(crate) fn parse(text: &str) -> Result<Self, Finding> {
        Self::parse_up_to(text, 253)
    }

    /// The machine's own name, at most 64 characters.
    pub(crate) fn parse_own(text: &str) -> Result<Self, Finding> {
        let name = Self::parse_up_to(text, MAX_OWN_NAME)?;
        if name.short().eq_ignore_ascii_case("localhost") {
            return Err(Finding::invalid("`localhost` cannot name a machine")
                .remedy("choose a name of its own, for example \"web-1\""));
        }
        Ok(name)
    }

    fn parse_up_to(text: &str, max: usize) -> Result<Self, Finding> {
        let refuse = |message: String| {
            Err(Finding::invalid(message)
                .allowed("letters, digits and hyphens, in labels joined by dots")
                .remedy("write a name such as \"web-1\" or \"web-1.example.org\""))
        };
        if text.is_empty() {
            return refuse("the host name is empty".into());
        }
        if text.len() > max {
            return refuse(format!("the host name is longer than {max} characters"));
        }
        for label in text.split('.') {
            if label.is_empty() {
                return refuse("the host name has an empty label".into());
            }
            if label.len() > 63 {
                return refuse("a label of the host name is longer than 63 characters".into());
            }
            if let Some(c) = label
                .chars()
                .find(|c| !c.is_ascii_alphanumeric() && *c != '-')
            {
                let what = if c == '_' {
                    "an underscore"
                } else {
                    "a character that is not allowed"
                };
                return refuse(format!("the host name contains {what}"));
            }
            if label.starts_with('-') || label.ends_with('-') {
                return refuse("a label of the host name begins or ends with a hyphen".into());
            }
        }
        let last = text.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit()) {
            return refuse("the host name ends in a number, as an address does".into());
        }
        Ok(Self(text.to_owned()))
    }

    /// The first label.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.split('.').next().unwrap_or_default()
    }

    /// What follows the first label and its dot, if anything.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.0.split_once('.').map(|(_, domain)| domain)
    }
}

/// A time zone by its name in the zone database, such as `Europe/Berlin`.
/// Its shape is checked here; whether the image has it, by the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeZone(String);
text_type!(TimeZone);

impl TimeZone {
    pub(crate) fn parse(text: &str) -> Result<Self, Finding> {
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+'))
        };
        let is_zone = text.len() <= 64 && text.split('/').count() <= 3 && text.split('/').all(part);
        if is_zone {
            return Ok(Self(text.to_owned()));
        }
        Err(Finding::invalid("this is not the name of a time zone")
            .allowed("a name of the zone database")
            .remedy("write a name such as \"Europe/Berlin\" or \"UTC\""))
    }
}

/// A locale in UTF-8, such as `de_DE.UTF-8` or `C.UTF-8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locale(String);
text_type!(Locale);

impl Locale {
    pub(crate) fn parse(text: &str) -> Result<Self, Finding> {
        let is_language = |text: &str| {
            let (language, country) = text.split_once('_').unwrap_or((text, "XX"));
            (2..=3).contains(&language.len())
                && language.bytes().all(|byte| byte.is_ascii_lowercase())
                && country.len() == 2
                && country.bytes().all(|byte| byte.is_ascii_uppercase())
        };
        let is_modifier =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase());
        let is_locale = match text.split_once('.') {
            None => matches!(text, "C" | "POSIX"),
            Some((base, charset)) => {
                let (charset, modifier) = charset.split_once('@').unwrap_or((charset, "none"));
                (base == "C" || is_language(base)) && charset == "UTF-8" && is_modifier(modifier)
            }
        };
        if is_locale {
            return Ok(Self(text.to_owned()));
        }
        Err(Finding::invalid("this is not the name of a UTF-8 locale")
            .allowed("language_COUNTRY.UTF-8, or C.UTF-8")
            .remedy("write a name such as \"de_DE.UTF-8\" or \"C.UTF-8\""))
    }
}

/// A keyboard layout of the console, such as `de` or `de-latin1`.
/// Its shape is checked here; whether the image has it, by the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keymap(String);
text_type!(Keymap);

impl Keymap {
    pub(crate) fn parse(text: &str) -> Result<Self, Finding> {
        let is_keymap = (2..=40).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+'));
        if is_keymap {
            return Ok(Self(text.to_owned()));
        }
        Err(
            Finding::invalid("this is not the name of a keyboard layout")
                .allowed("letters, digits, `-`, `_` and `+`, 40 at most")
                .remedy("write a name such as \"us\" or \"de-latin1\""),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_follow_rfc_1123() {
        for good in [
            "a",
            "web-1",
            "3com",
            "Web-1.Example.org",
            "1.a",
            "xn--bcher-kva.example",
        ] {
            assert!(HostName::parse(good).is_ok(), "{good}");
        }
        let long = format!("{}.org", "a".repeat(64));
        for bad in [
            "", ".", "a.", "-a", "a-", "a_b", "a b", "ü", "10.0.0.1", "a..b", &long,
        ] {
            assert!(HostName::parse(bad).is_err(), "{bad}");
        }
        assert!(HostName::parse_own(&"a.".repeat(40)).is_err());
        assert!(HostName::parse_own("localhost").is_err());
    }

    #[test]
    fn host_names_know_their_domain() {
        let name = HostName::parse("web-1.example.org").ok();
        let name = name.as_ref();
        assert_eq!(name.map(HostName::short), Some("web-1"));
        assert_eq!(name.and_then(HostName::domain), Some("example.org"));
    }

    #[test]
    fn zones_cannot_leave_the_zone_database() {
        for good in [
            "UTC",
            "Europe/Berlin",
            "Etc/GMT+5",
            "America/Argentina/Buenos_Aires",
        ] {
            assert!(TimeZone::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "../etc/passwd",
            "/UTC",
            "Europe/",
            "Europe//Berlin",
            "a/b/c/d",
            "UTC\0",
        ] {
            assert!(TimeZone::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn locales_are_utf_8() {
        for good in [
            "C",
            "POSIX",
            "C.UTF-8",
            "en_US.UTF-8",
            "ca_ES.UTF-8@valencia",
        ] {
            assert!(Locale::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "en_US", "en_US.ISO-8859-1", "EN_us.UTF-8", "../x.UTF-8"] {
            assert!(Locale::parse(bad).is_err(), "{bad}");
        }
    }
}
