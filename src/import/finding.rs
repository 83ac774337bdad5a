//! What can be wrong in a descriptor, in a path of it, in the host's networks.

use std::fmt;

use super::xml::Place;
use crate::exec::escape;
use crate::report::Stop;

/// What is wrong at one place of a descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// The element.
    pub element: String,
    /// What.
    pub problem: Problem,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column } = self.place;
        let element = self.element.escape_debug();
        let problem = escape(&self.problem.to_string());
        write!(f, "{line}:{column}: in <{element}>: {problem}")
    }
}

/// What can be wrong in a descriptor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// No well-formed XML; the parser's words.
    #[error("this is no well-formed XML: {0}")]
    NotXml(String),
    /// A document type, whatever it declares.
    #[error("document types (<!DOCTYPE) are refused")]
    DocumentType,
    /// Elements within elements within elements.
    #[error("more than {most} elements within each other")]
    TooDeep {
        /// The cap.
        most: usize,
    },
    /// Too many of something.
    #[error("more than {most} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The cap.
        most: usize,
    },
    /// Another root.
    #[error("the root is `{0}` instead of `image`")]
    Root(String),
    /// Not exactly one element of a kind.
    #[error("{found} <{name}> elements without a namespace instead of {wanted}")]
    Count {
        /// The element.
        name: &'static str,
        /// How many there are.
        found: usize,
        /// How many there have to be.
        wanted: &'static str,
    },
    /// Something that has to be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value outside of a closed list.
    #[error("{what} is `{found}`; known are {known}")]
    Unknown {
        /// Of what.
        what: &'static str,
        /// The value.
        found: String,
        /// The list.
        known: &'static str,
    },
    /// No number, or one out of its range.
    #[error("{what} is `{found}` instead of {wanted}")]
    Number {
        /// Of what.
        what: &'static str,
        /// The value.
        found: String,
        /// The range, with its unit.
        wanted: &'static str,
    },
    /// Two disks of one name.
    #[error("a second disk is called `{0}`")]
    DiskTwice(String),
    /// A drive names a disk that does not exist.
    #[error("there is no disk `{0}` in <storage>")]
    NoSuchDisk(String),
    /// A path that leads out of the descriptor's folder.
    #[error("the path `{0}` leads out of the descriptor's folder")]
    Outside(String),
    /// A checksum of a kind that nobody could verify.
    #[error("a checksum of the type `{0}` cannot be verified; known are sha256, sha1")]
    ChecksumType(String),
    /// Not the digits of a checksum.
    #[error("this is no {0} checksum")]
    Checksum(&'static str),
    /// A name that no host accepts.
    #[error("`{0}` is no name for a guest")]
    Name(String),
}

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It, or a folder on the way, is a symbolic link.
    Link,
    /// A folder, a pipe, a device.
    NotAFile,
    /// It leads out of the folder.
    Outside,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Link => "goes through a symbolic link",
            Self::NotAFile => "is not a regular file",
            Self::Outside => "leads out of the descriptor's folder",
        })
    }
}

/// State of a network of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkState {
    /// Not there.
    Missing,
    /// There, and switched off.
    Inactive,
}

/// What to do about the first of them.
pub(super) fn remedy(findings: &[Finding]) -> String {
    let first = findings.first().map(|finding| &finding.problem);
    match first {
        Some(Problem::DocumentType) => "remove the <!DOCTYPE …> and write out its entities",
        Some(Problem::Outside(_)) => "if you trust the descriptor, allow it: `--trust-paths`",
        Some(Problem::ChecksumType(_)) => "write a sha256 checksum, or leave it out",
        Some(Problem::Name(_)) => "name it: `--name NAME`",
        _ => "ask whoever made the descriptor for a corrected one",
    }
    .into()
}

/// What somebody stopped it by.
pub(super) fn stopper(stop: Stop) -> &'static str {
    match stop {
        Stop::Interrupted => "Ctrl-C",
        Stop::Terminated => "SIGTERM",
    }
}

/// That somebody stopped it, and what is left.
pub(super) fn stopped(stop: Stop, running: Option<&str>) -> String {
    let by = stopper(stop);
    match running {
        Some(name) => format!(
            "stopped by {by} while waiting; the guest `{}` runs",
            name.escape_debug()
        ),
        None => format!("stopped by {by}; what was begun was taken back"),
    }
}

/// How many errors a descriptor has, in words.
pub(super) fn count(findings: usize) -> String {
    match findings {
        1 => "1 error".into(),
        more => format!("{more} errors"),
    }
}
