//! Why an image could not be written.

use std::io;
use std::path::PathBuf;

use super::ImageFormat;
use crate::units::{ByteSize, ExitClass};

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// No image format has this name.
    #[error("`{}` is not an image format", name.escape_default())]
    UnknownFormat {
        /// The text.
        name: String,
    },
    /// Not a level of zstd that we offer.
    #[error("zstd has no level `{}`", level.escape_default())]
    UnknownLevel {
        /// The text.
        level: String,
    },
    /// The name of an image has a folder in it, or is empty.
    #[error("`{}` is not a file name", name.escape_default())]
    FileName {
        /// The name.
        name: String,
    },
    /// A name that a VMDK's descriptor cannot hold.
    #[error("a VMDK cannot be called `{}`", name.escape_default())]
    VmdkName {
        /// The name.
        name: String,
    },
    /// An OVA without a machine to describe.
    #[error("an OVA describes a machine, and there is none")]
    NoMachine,
    /// The disk does not fit the format.
    #[error(
        "a disk of {} bytes ({size}) does not fit {format}, which ends at {} bytes ({most})",
        size.bytes(),
        most.bytes()
    )]
    TooLarge {
        /// The format.
        format: ImageFormat,
        /// The disk's size.
        size: ByteSize,
        /// The format's limit.
        most: ByteSize,
    },
    /// The disk does not end on a sector.
    #[error("a disk of {} bytes does not end on a sector of 512 bytes", size.bytes())]
    PartialSector {
        /// The disk's size.
        size: ByteSize,
    },
    /// What the disk is made of could not be read.
    #[error("cannot read the disk at byte {offset}")]
    Read {
        /// Where on the disk.
        offset: u64,
        /// What the storage reports.
        source: io::Error,
    },
    /// A compression library refused.
    #[error("cannot pack the disk at byte {offset}")]
    Pack {
        /// Where on the disk.
        offset: u64,
        /// What the library says.
        source: io::Error,
    },
    /// What the disk is made of is not what it should be.
    #[error("what the disk is made of has been damaged in the cache")]
    Withdrawn,
    /// The image could not be written.
    #[error("cannot write disk image `{}`", path.display())]
    Write {
        /// Its final name.
        path: PathBuf,
        /// What the system reports.
        source: io::Error,
    },
}

impl ImageError {
    /// A stable name of the kind of error, kebab-case.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::UnknownFormat { .. } => "image-unknown-format",
            Self::UnknownLevel { .. } => "image-unknown-level",
            Self::FileName { .. } => "image-file-name",
            Self::VmdkName { .. } => "image-vmdk-name",
            Self::NoMachine => "image-no-machine",
            Self::TooLarge { .. } => "image-too-large",
            Self::PartialSector { .. } => "image-partial-sector",
            Self::Read { .. } => "image-read",
            Self::Pack { .. } => "image-pack",
            Self::Withdrawn => "image-withdrawn",
            Self::Write { .. } => "image-write",
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownFormat { .. } => {
                let names: Vec<&str> = ImageFormat::ALL.iter().map(|f| f.name()).collect();
                Some(format!("use one or several of: {}", names.join(", ")))
            }
            Self::UnknownLevel { .. } => Some("use a level from 1 to 19".to_owned()),
            Self::FileName { .. } => Some("name the file only; `-o` names the folder".to_owned()),
            Self::VmdkName { .. } => Some(
                "use at most 255 characters, without quotation marks and backslashes".to_owned(),
            ),
            Self::TooLarge { size, .. } => {
                let fits = |f: &&ImageFormat| f.limit().is_none_or(|most| *size <= most);
                let names: Vec<&str> = ImageFormat::ALL
                    .iter()
                    .filter(fits)
                    .map(|f| f.name())
                    .collect();
                Some(format!(
                    "make the disk smaller, or use one of: {}",
                    names.join(", ")
                ))
            }
            Self::NoMachine => Some("name its appliance.toml: `--appliance FILE`".to_owned()),
            Self::Write { path, source } => write_hint(path, source),
            _ => None,
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::UnknownFormat { .. }
            | Self::UnknownLevel { .. }
            | Self::FileName { .. }
            | Self::VmdkName { .. }
            | Self::NoMachine
            | Self::PartialSector { .. } => ExitClass::Usage,
            Self::Pack { .. } => ExitClass::Bug,
            _ => ExitClass::Build,
        }
    }
}

fn write_hint(path: &std::path::Path, source: &io::Error) -> Option<String> {
    let folder = path.parent().unwrap_or(path).display();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(format!(
            "free space on the file system of `{folder}`, or choose another folder with `-o`"
        )),
        io::ErrorKind::NotFound => Some(format!("make the folder `{folder}` first")),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Some(format!(
            "make `{folder}` writable, or choose another folder with `-o`"
        )),
        _ => None,
    }
}
