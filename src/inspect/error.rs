//! Why a disk could not be read.

use std::io;
use std::path::PathBuf;

use crate::image::ImageFormat;
use crate::tree::Escaped;
use crate::units::{ByteSize, ExitClass};

/// Why a disk, or something on it, could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// The file cannot be opened.
    #[error("cannot open `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder, a pipe or a device.
    #[error("`{}` is not a file", path.display())]
    NotAFile {
        /// What it is called.
        path: PathBuf,
    },
    /// Two containers recognise the file.
    #[error("the file is {one} by its beginning and {other} by its end")]
    TwoFormats {
        /// One.
        one: ImageFormat,
        /// And another.
        other: ImageFormat,
    },
    /// What another program has to unpack or convert first.
    #[error("the file is {what}, and no disk as it is")]
    Foreign {
        /// What it is, as an object.
        what: &'static str,
    },
    /// The container breaks its format's rules.
    #[error("this is no sound {format} image: {what}")]
    Damaged {
        /// The container.
        format: ImageFormat,
        /// The rule, as a clause.
        what: &'static str,
    },
    /// The container uses what this reader does not know.
    #[error("this {format} image uses {what}, which is not supported")]
    Unsupported {
        /// The container.
        format: ImageFormat,
        /// What it uses.
        what: &'static str,
    },
    /// The container needs another file.
    #[error("this {format} image is incomplete without {what}")]
    OtherFile {
        /// The container.
        format: ImageFormat,
        /// Which kind of file.
        what: &'static str,
    },
    /// The partition table breaks the rules of GPT.
    #[error("the partition table is not sound: {what}")]
    Table {
        /// The rule, as a clause.
        what: &'static str,
        /// The partition's number, where it is one's fault.
        partition: Option<u32>,
    },
    /// A file system breaks its rules.
    #[error("the {file_system} volume is not sound: {what}")]
    Volume {
        /// Which kind.
        file_system: &'static str,
        /// The rule, as a clause.
        what: &'static str,
    },
    /// A file system uses what this reader does not know.
    #[error("the {file_system} volume uses {what}, which is not supported")]
    VolumeUnsupported {
        /// Which kind.
        file_system: &'static str,
        /// What it uses.
        what: &'static str,
    },
    /// There is no such partition.
    #[error("there is no partition `{}`", wanted.escape_default())]
    NoPartition {
        /// By number or name.
        wanted: String,
    },
    /// No partition was named, and several could be meant.
    #[error("the disk has several volumes")]
    WhichPartition,
    /// The place holds no file system that is known.
    #[error("no known file system is there")]
    NoFileSystem,
    /// There is no such path on the volume.
    #[error("there is no `{}` on the volume", Escaped(path))]
    NoPath {
        /// The path.
        path: Vec<u8>,
    },
    /// The path is not what was asked for.
    #[error("`{}` is not a {wanted}", Escaped(path))]
    OtherKind {
        /// The path.
        path: Vec<u8>,
        /// What it should be.
        wanted: &'static str,
    },
    /// Folders in folders, more than are walked.
    #[error("`{}` lies deeper than {most} folders", Escaped(path))]
    TooDeep {
        /// The folder.
        path: Vec<u8>,
        /// The cap.
        most: usize,
    },
    /// Reading was cut short.
    #[error("cannot read the disk at byte {offset}")]
    Read {
        /// Where.
        offset: u64,
        /// What the system or the container's reader said.
        source: io::Error,
    },
    /// More than the reader takes at once.
    #[error("{what} is larger than {most}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The cap.
        most: ByteSize,
    },
    /// The content root could not be computed.
    #[error("cannot compute the content root")]
    Root {
        /// Why.
        source: crate::image::ImageError,
    },
}

impl InspectError {
    /// A stable name of the kind of error, kebab-case.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Open { .. } => "inspect-open",
            Self::NotAFile { .. } => "inspect-not-a-file",
            Self::TwoFormats { .. } => "inspect-two-formats",
            Self::Foreign { .. } => "inspect-foreign-file",
            Self::Damaged { .. } => "inspect-damaged-image",
            Self::Unsupported { .. } => "inspect-unsupported-image",
            Self::OtherFile { .. } => "inspect-other-file",
            Self::Table { .. } => "inspect-partition-table",
            Self::Volume { .. } => "inspect-damaged-volume",
            Self::VolumeUnsupported { .. } => "inspect-unsupported-volume",
            Self::NoPartition { .. } => "inspect-no-partition",
            Self::WhichPartition => "inspect-which-partition",
            Self::NoFileSystem => "inspect-no-file-system",
            Self::NoPath { .. } => "inspect-no-path",
            Self::OtherKind { .. } => "inspect-other-kind",
            Self::TooDeep { .. } => "inspect-too-deep",
            Self::Read { .. } => "inspect-read",
            Self::TooLarge { .. } => "inspect-too-large",
            Self::Root { .. } => "inspect-content-root",
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::TwoFormats { .. } => "name the right one with `--input-format`",
            Self::Foreign { .. } => {
                "unpack it, or convert it with `qemu-img convert -O qcow2`; a disk that begins like \
                 that is named with `--input-format raw`"
            }
            Self::NotAFile { .. } => "copy it into a file first",
            Self::NoFileSystem => "consign reads GPT, FAT and ext4",
            Self::Damaged { .. } => "fetch the image again, and compare its digest",
            Self::OtherFile { .. } => {
                "join it with what it needs first, with the tool that made it; consign opens no \
                 file that an image names"
            }
            Self::Unsupported { .. } => "convert it to qcow2 or raw with the tool that made it",
            Self::TooDeep { .. } => "put its files into fewer folders",
            Self::NoPartition { .. } => "see `consign inspect DISK` for the partitions",
            Self::WhichPartition => {
                "name the partition by its number or name behind a colon: `DISK:3`"
            }
            Self::Root { source } => return source.hint(),
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::Damaged { .. } | Self::Table { .. } | Self::Volume { .. } => {
                ExitClass::Verification
            }
            Self::NotAFile { .. }
            | Self::NoPartition { .. }
            | Self::WhichPartition
            | Self::NoPath { .. }
            | Self::OtherKind { .. } => ExitClass::Usage,
            _ => ExitClass::Build,
        }
    }
}
