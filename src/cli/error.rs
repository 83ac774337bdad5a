//! What can go wrong on the command line itself.

use std::io;
use std::path::PathBuf;

use crate::units::ExitClass;

/// Why a subcommand could not do its part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// Standard output, or what stands for it, does not take text.
    #[error("cannot write to standard output")]
    Output {
        /// What the system said.
        source: io::Error,
    },
    /// A starter would overwrite something.
    #[error("`{}` exists already", path.display())]
    Exists {
        /// The file or folder.
        path: PathBuf,
    },
    /// Not a name for an appliance.
    #[error("`{}` is no name for an appliance", name.escape_debug())]
    Name {
        /// As it was given.
        name: String,
    },
    /// A file of the starter could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl CliError {
    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Output { .. } => "output-failed",
            Self::Exists { .. } => "init-exists",
            Self::Name { .. } => "init-name",
            Self::Write { .. } => "init-write",
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exists { .. } => Some(
                "choose another folder with `--folder`, or move it away; nothing was written"
                    .into(),
            ),
            Self::Name { .. } => Some(
                "begin with a letter or digit, go on with letters, digits, `_`, `.` and `-`; \
                 at most 64 characters"
                    .into(),
            ),
            Self::Output { .. } | Self::Write { .. } => None,
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::Exists { .. } | Self::Name { .. } => ExitClass::Usage,
            Self::Output { .. } | Self::Write { .. } => ExitClass::Build,
        }
    }
}

/// The error of writing to standard output.
pub(super) fn output(source: io::Error) -> CliError {
    CliError::Output { source }
}
