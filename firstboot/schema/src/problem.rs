//! One thing that is wrong in a file, said so that the reader can mend it.

use std::fmt;

/// Problems reported of one file at most; a file with more is not worth more lines.
pub const MAX_PROBLEMS: usize = 50;

/// The kind of a problem. The names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Code {
    /// The file is larger than allowed.
    TooLarge,
    /// The bytes are not UTF-8 text.
    NotText,
    /// A NUL or another control character.
    ControlCharacter,
    /// Not TOML.
    Syntax,
    /// The same key or table twice.
    DuplicateKey,
    /// `schema` names a version that this program does not know.
    UnknownSchema,
    /// A key that does not exist here.
    UnknownKey,
    /// A key that must be there is not.
    MissingKey,
    /// A value of another type.
    WrongType,
    /// A number outside its range, or too many or too few of something.
    OutOfRange,
    /// A value that is not what its key needs.
    InvalidValue,
    /// Two values that exclude each other.
    Conflict,
    /// A role that the image does not offer.
    UnknownRole,
    /// The vendor does not let a site set this.
    NotAllowed,
    /// Its dates say that it does not count any more.
    Expired,
    /// Its dates say that it does not count yet.
    NotYetValid,
    /// Right in itself, but not possible on this machine or with this image.
    Unavailable,
}

impl Code {
    /// The stable name, kebab-case.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::NotText => "not-text",
            Self::ControlCharacter => "control-character",
            Self::Syntax => "syntax",
            Self::DuplicateKey => "duplicate-key",
            Self::UnknownSchema => "unknown-schema",
            Self::UnknownKey => "unknown-key",
            Self::MissingKey => "missing-key",
            Self::WrongType => "wrong-type",
            Self::OutOfRange => "out-of-range",
            Self::InvalidValue => "invalid-value",
            Self::Conflict => "conflict",
            Self::UnknownRole => "unknown-role",
            Self::NotAllowed => "not-allowed",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Unavailable => "unavailable",
        }
    }
}

/// One thing that is wrong in a file.
///
/// No field ever holds the value that stands in the file, since that may be a
/// secret in the wrong place; keys are shortened and escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The kind.
    pub code: Code,
    /// Line in the file, from 1.
    pub line: u32,
    /// Column in characters, from 1; a byte-order mark does not count.
    pub column: u32,
    /// The key with its tables, such as `nic[1].gateway` (counted from 1);
    /// empty where no key is meant.
    pub key: String,
    /// What is wrong, one lower-case clause.
    pub message: String,
    /// What would be right, where that can be listed or described.
    pub allowed: Option<String>,
    /// What to do, one imperative sentence.
    pub remedy: String,
}

impl Problem {
    /// Puts problems into the order of the text.
    pub fn sort(problems: &mut [Self]) {
        problems.sort_by_key(|problem| (problem.line, problem.column, problem.code));
    }

    /// The problem in the lines that consoles and terminals show, `file`
    /// being the name to print.
    #[must_use]
    pub fn lines(&self, file: &str) -> Vec<String> {
        let mut lines = vec![format!("{file}:{}:{}: {self}", self.line, self.column)];
        if let Some(allowed) = &self.allowed {
            lines.push(format!("    allowed: {allowed}"));
        }
        if !self.remedy.is_empty() {
            lines.push(format!("    remedy: {}", self.remedy));
        }
        lines
    }
}

impl fmt::Display for Problem {
    /// Code and message, without the place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.code.slug(), self.message)
    }
}
