//! What is wrong with a medium, said so that its owner can act.

use std::fmt;
use std::io;

/// Why a medium cannot be read. Names in it are escaped.
#[derive(Debug)]
#[non_exhaustive]
pub enum Damage {
    /// It is not this file system at all.
    NotThis,
    /// The device could not be read.
    Unreadable(io::Error),
    /// The volume says it is longer than its device.
    Truncated {
        /// Bytes that it says it has.
        says: u64,
        /// Bytes of the device.
        has: u64,
    },
    /// A chain of clusters, extents or records comes back to itself.
    Loop {
        /// Whose chain.
        name: String,
    },
    /// A chain leads to a place that is free, bad or not there.
    BrokenChain {
        /// Whose chain.
        name: String,
    },
    /// A chain ends before the file's length.
    TooShort {
        /// The file.
        name: String,
        /// Bytes that it says it has.
        says: u64,
    },
    /// The file is longer than what is read.
    TooLong {
        /// The file.
        name: String,
        /// Bytes that it says it has.
        says: u64,
        /// Bytes that are read at most.
        limit: u64,
    },
    /// A folder has too many slots.
    FolderTooLong {
        /// The folder.
        name: String,
    },
    /// More known files than anybody needs.
    TooManyNames,
    /// Two files with one name.
    SameName {
        /// The name.
        name: String,
    },
    /// A name that no file system of this kind may hold.
    BadName {
        /// The name.
        name: String,
    },
    /// A known name that is not a file.
    NotAFile {
        /// The name.
        name: String,
        /// What it is: `a symbolic link`.
        what: &'static str,
    },
    /// The file system uses what is not read here.
    Feature {
        /// What: `an encrypted folder`.
        what: String,
    },
    /// A structure says what cannot be.
    Nonsense {
        /// Which.
        what: &'static str,
    },
    /// Nobody takes the bytes any more.
    Sink(io::Error),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThis => f.write_str("has another file system"),
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Self::Truncated { says, has } => {
                write!(
                    f,
                    "is cut off: its file system has {says} bytes, the device {has}"
                )
            }
            Self::Loop { name } => {
                write!(f, "is damaged: the clusters of `{name}` run in a circle")
            }
            Self::BrokenChain { name } => {
                write!(f, "is damaged: the clusters of `{name}` lead nowhere")
            }
            Self::TooShort { name, says } => {
                write!(f, "is damaged: `{name}` has less than its {says} bytes")
            }
            Self::TooLong { name, says, limit } => {
                write!(
                    f,
                    "has a file that is too long: `{name}` has {says} bytes of at most {limit}"
                )
            }
            Self::FolderTooLong { name } => {
                write!(f, "has too many files in `{name}`; use a medium of its own")
            }
            Self::TooManyNames => f.write_str("has too many files; use a medium of its own"),
            Self::SameName { name } => write!(f, "is damaged: there are two files `{name}`"),
            Self::BadName { name } => write!(f, "is damaged: no medium may hold the name `{name}`"),
            Self::NotAFile { name, what } => {
                write!(f, "has {what} with the name `{name}`; copy the file itself")
            }
            Self::Feature { what } => write!(f, "has {what}, which is not read; format it as FAT"),
            Self::Nonsense { what } => write!(f, "is damaged: its {what} cannot be"),
            Self::Sink(error) => write!(f, "was read in vain: {error}"),
        }
    }
}
