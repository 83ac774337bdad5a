//! What a CD cannot hold, said before anything is written.

use crate::tree::TreePath;
use crate::units::{ByteSize, ExitClass};

use super::format::{JOLIET_UNITS, MAX_DIRECTORIES, MAX_LEVELS};

/// Why an ISO 9660 volume could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IsoError {
    /// Not 1 to 16 of the characters that a label may hold.
    #[error("`{}` is not a CD volume label", label.escape_default())]
    Label {
        /// The text.
        label: String,
    },
    /// A name that Joliet cannot hold.
    #[error("a CD cannot hold the name `{path}`: {fault}")]
    Name {
        /// The file or directory.
        path: TreePath,
        /// What is wrong with its last component.
        fault: NameFault,
    },
    /// Neither a file nor a directory.
    #[error("a CD cannot hold `{path}`: it is a {what}")]
    Unsupported {
        /// Where it is.
        path: TreePath,
        /// What it is.
        what: &'static str,
    },
    /// A file of 4 GiB or more.
    #[error("a CD cannot hold `{path}`: it has {size}, and a file ends below 4 GiB")]
    FileTooLarge {
        /// The file.
        path: TreePath,
        /// Its length.
        size: ByteSize,
    },
    /// A directory too far from the root.
    #[error("a CD cannot hold `{path}`: it is more than {MAX_LEVELS} levels deep")]
    TooDeep {
        /// The directory.
        path: TreePath,
    },
    /// More directories than 16 bits can number.
    #[error("a CD cannot hold {count} directories: {MAX_DIRECTORIES} is the limit")]
    TooManyDirectories {
        /// How many there are.
        count: usize,
    },
    /// A directory of 4 GiB, or a volume of 8 TiB.
    #[error("a CD cannot hold {size} of files and directories")]
    TooLarge {
        /// What they take.
        size: ByteSize,
    },
}

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameFault {
    /// Not UTF-8, so it has no UTF-16 form.
    #[error("it is not UTF-8")]
    NotText,
    /// More than 64 UTF-16 units.
    #[error("it has {units} characters, and {JOLIET_UNITS} is the limit")]
    TooLong {
        /// UTF-16 units in the name.
        units: usize,
    },
    /// A character that Joliet excludes.
    #[error("it contains `{}`", .0.escape_default())]
    Character(char),
}

impl IsoError {
    /// A stable name of the kind of error, kebab-case.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Label { .. } => "iso-label",
            Self::Name { .. } => "iso-name",
            Self::Unsupported { .. } => "iso-unsupported",
            Self::FileTooLarge { .. } => "iso-file-too-large",
            Self::TooDeep { .. } => "iso-too-deep",
            Self::TooManyDirectories { .. } => "iso-too-many-directories",
            Self::TooLarge { .. } => "iso-too-large",
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Label { .. } => {
                "use 1 to 16 of the letters A to Z, digits, and `_`, for example \"VACONFIG\""
            }
            Self::Name { .. } => "rename the file",
            Self::Unsupported { .. } => "replace it by a file, or leave it out",
            Self::FileTooLarge { .. } => "split the file, or put it on an ext4 volume",
            Self::TooDeep { .. } => "move it nearer to the root",
            Self::TooManyDirectories { .. } => "use fewer directories",
            Self::TooLarge { .. } => "put less on it",
        };
        Some(hint.to_owned())
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::Label { .. } => ExitClass::Usage,
            _ => ExitClass::Build,
        }
    }
}
