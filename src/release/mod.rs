//! What a release needs besides its images: so far the sums.
//!
//! In: the [`Artifact`](crate::artifact::Artifact)s of a build. Out: `SHA256SUMS`.
//! Never here: building, secrets in arguments or events.
//! Checked by: `sha256sum --check --strict` (`tests/it/formats/sums.rs`).

pub mod sums;

use std::io;
use std::path::PathBuf;

use crate::units::ExitClass;

/// Why a release could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// A file name that a list of sums cannot hold.
    #[error("the file name `{}` cannot stand in a list of sums", name.escape_debug())]
    FileName {
        /// The name.
        name: String,
    },
    /// The list could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ReleaseError {
    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::FileName { .. } => "release-file-name",
            Self::Write { .. } => "release-write",
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::FileName { .. } => {
                Some("name the appliance with letters, digits, `_`, `.` and `-`".into())
            }
            Self::Write { .. } => None,
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        ExitClass::Build
    }
}
