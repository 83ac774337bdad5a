//! Why partitions and volumes do not make a disk.

use std::io;

use crate::units::{ByteSize, ExitClass, Guid};

/// Why partitions and volumes do not make a disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// Not whole sectors, or too small for two tables and a partition.
    #[error("a disk of {size} ({} bytes) cannot be partitioned", size.bytes())]
    Size {
        /// Of the disk.
        size: ByteSize,
    },
    /// More than a table has entries.
    #[error("{count} partitions do not fit a table of 128")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// The partition ends behind the end of the disk.
    #[error("partition `{partition}` needs {needed}, but only {left} of the {disk} disk is left")]
    NoRoom {
        /// Its name.
        partition: String,
        /// Its size.
        needed: ByteSize,
        /// From its start to the backup table.
        left: ByteSize,
        /// The disk's size.
        disk: ByteSize,
    },
    /// Two partitions share bytes.
    #[error("partitions `{first}` and `{second}` overlap")]
    Overlap {
        /// The one that starts first.
        first: String,
        /// The other.
        second: String,
    },
    /// The start is not aligned.
    #[error("partition `{partition}` starts at byte {}, not at a multiple of 1 MiB", start.bytes())]
    Start {
        /// Its name.
        partition: String,
        /// Offset on the disk.
        start: ByteSize,
    },
    /// Empty, or not whole sectors.
    #[error("partition `{partition}` cannot have a size of {} bytes", size.bytes())]
    PartitionSize {
        /// Its name.
        partition: String,
        /// Its size.
        size: ByteSize,
    },
    /// Longer than 36 UTF-16 units, or with a NUL.
    #[error("partition name `{}` does not fit the table", partition.escape_default())]
    Name {
        /// The name.
        partition: String,
    },
    /// The type GUID is zero, which means unused.
    #[error("partition `{partition}` has no type")]
    NoType {
        /// Its name.
        partition: String,
    },
    /// Two partitions with one identifier.
    #[error("partitions `{first}` and `{second}` have the same identifier {guid}")]
    SameGuid {
        /// The one with the lower number.
        first: String,
        /// The other.
        second: String,
        /// Their identifier.
        guid: Guid,
    },
    /// Not one volume for each partition.
    #[error("there are {volumes} volumes for {partitions} partitions")]
    VolumeCount {
        /// Partitions in the table.
        partitions: usize,
        /// Volumes given.
        volumes: usize,
    },
    /// The volume is larger than its partition.
    #[error("the volume of partition `{partition}` has {volume}, but the partition only {size}")]
    VolumeTooLarge {
        /// Its name.
        partition: String,
        /// The volume's size.
        volume: ByteSize,
        /// The partition's size.
        size: ByteSize,
    },
    /// The partition table library refused.
    #[error("cannot write the partition table")]
    Table {
        /// What the library says.
        source: io::Error,
    },
}

impl DiskError {
    /// A stable name of the kind of error, kebab-case.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Size { .. } => "disk-size",
            Self::TooMany { .. } => "disk-too-many-partitions",
            Self::NoRoom { .. } => "disk-no-room",
            Self::Overlap { .. } => "disk-overlap",
            Self::Start { .. } => "disk-partition-start",
            Self::PartitionSize { .. } => "disk-partition-size",
            Self::Name { .. } => "disk-partition-name",
            Self::NoType { .. } => "disk-partition-type",
            Self::SameGuid { .. } => "disk-same-guid",
            Self::VolumeCount { .. } => "disk-volume-count",
            Self::VolumeTooLarge { .. } => "disk-volume-too-large",
            Self::Table { .. } => "disk-table",
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Size { .. } => "choose a disk of whole sectors of 512 bytes, 2 MiB or more",
            Self::NoRoom { .. } => "raise `disk.size`, or leave it out to fit the partitions",
            Self::VolumeTooLarge { .. } => "make the partition larger",
            Self::Name { .. } => "use a name of at most 36 characters",
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::Start { .. }
            | Self::NoType { .. }
            | Self::SameGuid { .. }
            | Self::VolumeCount { .. } => ExitClass::Bug,
            _ => ExitClass::Build,
        }
    }
}
