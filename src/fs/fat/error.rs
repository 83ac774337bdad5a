//! What FAT cannot hold, said before anything is written.

use std::io;

use super::FatKind;
use crate::tree::TreePath;
use crate::units::{ByteSize, ExitClass};

/// Why a FAT volume could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FatError {
    /// Not 1 to 11 characters of those that a label may hold.
    #[error("`{}` is not a FAT volume label", label.escape_default())]
    Label {
        /// The text.
        label: String,
    },
    /// No cluster size gives this kind of FAT on a volume of this size.
    #[error("a {kind} volume cannot have {size}: it has {least} to {most}")]
    Size {
        /// What was asked for.
        kind: FatKind,
        /// What the volume has.
        size: ByteSize,
        /// The smallest volume of this kind.
        least: ByteSize,
        /// The largest volume of this kind.
        most: ByteSize,
    },
    /// A name that FAT cannot hold.
    #[error("FAT cannot hold the name `{path}`: {fault}")]
    Name {
        /// The file or directory.
        path: TreePath,
        /// What is wrong with its last component.
        fault: NameFault,
    },
    /// Two names that FAT takes for one, since it ignores case.
    #[error("FAT takes `{second}` and `{first}` for the same name")]
    SameName {
        /// The one that comes first.
        first: TreePath,
        /// The other.
        second: TreePath,
    },
    /// A name that another entry has already, as the short name that FAT made
    /// for it.
    #[error("FAT cannot hold the name `{path}`: it is the short name of another file there")]
    ShortName {
        /// The one that comes later.
        path: TreePath,
    },
    /// Neither a file nor a directory.
    #[error("FAT cannot hold `{path}`: it is a {what}")]
    Unsupported {
        /// Where it is.
        path: TreePath,
        /// What it is.
        what: &'static str,
    },
    /// A file of 4 GiB or more.
    #[error("FAT cannot hold `{path}`: it has {size}, and a file ends below 4 GiB")]
    FileTooLarge {
        /// The file.
        path: TreePath,
        /// Its length.
        size: ByteSize,
    },
    /// More names than a directory can hold.
    #[error(
        "FAT cannot hold {}: it needs {needed} slots and has {most}",
        directory(path)
    )]
    DirectoryFull {
        /// The directory; empty for the root.
        path: TreePath,
        /// Slots that its names need.
        needed: u64,
        /// Slots that it can have.
        most: u64,
    },
    /// The content is larger than the volume.
    #[error("FAT volume `{label}` needs {needed} for its content, but has {left}")]
    NoRoom {
        /// The volume's label.
        label: String,
        /// Clusters of all files and directories.
        needed: ByteSize,
        /// All clusters of the volume.
        left: ByteSize,
    },
    /// The FAT library refused, or what it wrote is not what was planned.
    #[error("cannot build FAT volume `{label}`")]
    Build {
        /// The volume's label.
        label: String,
        /// What the library says.
        source: io::Error,
    },
}

fn directory(path: &TreePath) -> String {
    if path.is_root() {
        "the names of the root directory".to_owned()
    } else {
        format!("the names of directory `{path}`")
    }
}

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameFault {
    /// Not UTF-8, so it has no UTF-16 form.
    #[error("it is not UTF-8")]
    NotText,
    /// More than 255 bytes: so many.
    #[error("it has {0} bytes in UTF-8, and a name has at most 255")]
    TooLong(usize),
    /// A character that long names exclude.
    #[error("it contains `{}`", .0.escape_default())]
    Character(char),
    /// FAT drops dots and spaces at the end.
    #[error("it ends with a dot or a space")]
    Ending,
}

impl FatError {
    /// A stable name of the kind of error, kebab-case.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Label { .. } => "fat-label",
            Self::Size { .. } => "fat-size",
            Self::Name { .. } => "fat-name",
            Self::SameName { .. } => "fat-same-name",
            Self::ShortName { .. } => "fat-short-name",
            Self::Unsupported { .. } => "fat-unsupported",
            Self::FileTooLarge { .. } => "fat-file-too-large",
            Self::DirectoryFull { .. } => "fat-directory-full",
            Self::NoRoom { .. } => "fat-no-room",
            Self::Build { .. } => "fat-build",
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Label { .. } => {
                "use 1 to 11 of the letters A to Z, digits, and `-`, `_`, for example \"VACONFIG\""
            }
            Self::Size { .. } => "choose another size, or leave the kind of FAT out",
            Self::Name { .. } | Self::SameName { .. } | Self::ShortName { .. } => "rename the file",
            Self::Unsupported { .. } => "replace it by a file, or leave it out",
            Self::FileTooLarge { .. } => "split the file, or put it on an ext4 volume",
            Self::DirectoryFull { .. } => "spread the files over several directories",
            Self::NoRoom { .. } => "make the volume larger, or put less on it",
            Self::Build { .. } => return None,
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
