//! What can be wrong with the vendor's files.

use std::io;
use std::path::PathBuf;

use super::diagnostic::{FileProblems, Style, escape};
use super::{FILE_NAME, LAYER_FILE_NAME};
use crate::units::{ByteSize, ExitClass};

/// Why there is no [`Appliance`](super::Appliance).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplianceError {
    /// The file does not exist.
    #[error("there is no `{}`", escape(&path.to_string_lossy()))]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The system would not give the file.
    #[error("cannot read `{}`", escape(&path.to_string_lossy()))]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Far longer than such a file can be.
    #[error("`{}` is larger than {}", escape(&path.to_string_lossy()), ByteSize::from_bytes(*limit))]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How long it may be, in bytes.
        limit: u64,
    },
    /// Not UTF-8.
    #[error("line {line} of `{}` is not UTF-8 text", escape(&path.to_string_lossy()))]
    NotText {
        /// The file.
        path: PathBuf,
        /// The first line that is not, from 1.
        line: usize,
    },
    /// Errors with a place in the source, all of them.
    #[error("{}", count(files))]
    Invalid {
        /// The files that have errors, `appliance.toml` first.
        files: Vec<FileProblems>,
    },
}

fn count(files: &[FileProblems]) -> String {
    let each: Vec<String> = files
        .iter()
        .map(|file| {
            let path = escape(&file.source().path().to_string_lossy());
            match file.count() {
                1 => format!("`{path}` has an error"),
                many => format!("`{path}` has {many} errors"),
            }
        })
        .collect();
    each.join(", ")
}

impl ApplianceError {
    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "appliance-missing",
            Self::Read { .. } => "appliance-unreadable",
            Self::TooLarge { .. } => "appliance-too-large",
            Self::NotText { .. } => "appliance-not-text",
            Self::Invalid { .. } => "appliance-invalid",
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => Some("run `consign init` to write a starter".into()),
            Self::TooLarge { .. } => Some(format!(
                "check that it is an `{FILE_NAME}` or `{LAYER_FILE_NAME}`; those have a few KiB"
            )),
            Self::NotText { .. } => Some("save the file as UTF-8".into()),
            Self::Read { .. } | Self::Invalid { .. } => None,
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        ExitClass::Usage
    }

    /// The errors drawn in their sources; empty for errors that have no place.
    #[must_use]
    pub fn draw(&self, style: Style) -> String {
        match self {
            Self::Invalid { files } => files.iter().map(|file| file.draw(style)).collect(),
            _ => String::new(),
        }
    }

    /// The same for programs.
    #[must_use]
    pub fn json(&self) -> Vec<serde_json::Value> {
        match self {
            Self::Invalid { files } => files.iter().flat_map(FileProblems::json).collect(),
            _ => Vec::new(),
        }
    }
}
