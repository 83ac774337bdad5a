//! The agent's machine-readable line on the guest's consoles.
//!
//! `VA state=ready system=running fw=bios sb=0 slot=a kernel=… ip=…`: words
//! `key=value`, separated by spaces, on a line of their own.

use std::collections::BTreeMap;
use std::fmt;

/// What the agent says about the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GuestState {
    /// In service.
    Ready,
    /// No configuration, or a wrong one: services do not start until there is one.
    Waiting,
    /// Held back: no slot is good, or the policy says no.
    Fenced,
    /// In service, but a unit failed.
    Degraded,
}

impl GuestState {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "ready" => Some(Self::Ready),
            "waiting" => Some(Self::Waiting),
            "fenced" => Some(Self::Fenced),
            "degraded" => Some(Self::Degraded),
            _ => None,
        }
    }
}

impl fmt::Display for GuestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Waiting => "waiting",
            Self::Fenced => "fenced",
            Self::Degraded => "degraded",
        })
    }
}

/// One such line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateLine {
    /// The state.
    pub state: GuestState,
    /// The other words, by key.
    pub fields: BTreeMap<String, String>,
    /// The line as it came, from `VA` on.
    pub text: String,
}

/// How a state line begins.
const START: &str = "VA state=";

impl StateLine {
    /// Finds a state line in a line of the console. Something may stand
    /// before it, since the kernel writes to the same console.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let start = line.rfind(START)?;
        let text = line.get(start..)?.trim_end().to_owned();
        let mut words = text.get(START.len()..)?.split_ascii_whitespace();
        let state = GuestState::parse(words.next()?)?;
        let fields = words
            .filter_map(|word| word.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Some(Self {
            state,
            fields,
            text,
        })
    }

    /// The value of one word, `fw` for example.
    #[must_use]
    pub fn field(&self, key: &str) -> Option<&str> {
        self.fields.get(key).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line = StateLine::parse(
            "[   12.3] x VA state=ready system=running fw=uefi sb=1 slot=a ip=10.0.2.15\r",
        )
        .expect("a state line");
        assert_eq!(line.state, GuestState::Ready);
        assert_eq!(line.field("sb"), Some("1"));
        assert_eq!(line.field("ip"), Some("10.0.2.15"));
        assert!(line.text.starts_with("VA state=ready system"));
        assert!(line.text.ends_with("10.0.2.15"));
    }

    #[test]
    fn other_lines_are_not_state_lines() {
        for line in [
            "",
            "VA state=",
            "VA state=happy",
            "VA is up",
            "va state=ready",
        ] {
            assert_eq!(StateLine::parse(line), None, "{line}");
        }
    }
}
