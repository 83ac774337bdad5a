//! Why a tree does not become a volume.

use crate::tree::TreePath;
use crate::units::{ByteSize, ExitClass, Timestamp};

/// Why an ext4 volume cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Ext4Error {
    /// The content is larger than the volume.
    #[error(
        "the files need a partition of {} bytes ({needs}), but it has {} ({has}): {} bytes too few",
        needs.bytes(), has.bytes(), needs.bytes().saturating_sub(has.bytes())
    )]
    NoRoom {
        /// The smallest size that holds the content, a multiple of 1 MiB.
        needs: ByteSize,
        /// The size asked for.
        has: ByteSize,
    },
    /// Too small for a journal.
    #[error("a volume of {} bytes is too small: ext4 with a journal needs {} bytes ({least})", size.bytes(), least.bytes())]
    VolumeTooSmall {
        /// The size asked for.
        size: ByteSize,
        /// The least there is.
        least: ByteSize,
    },
    /// At or above 16 TiB.
    #[error("a volume of {} bytes ({size}) is too large: the limit is {} bytes", size.bytes(), most.bytes())]
    VolumeTooLarge {
        /// The size asked for.
        size: ByteSize,
        /// The most there is.
        most: ByteSize,
    },
    /// More files than a volume can have inodes.
    #[error("{files} files need more inodes than a volume can have")]
    TooManyFiles {
        /// Files, directories and links with an inode of their own.
        files: u64,
    },
    /// The label has more than 16 bytes.
    #[error("the volume label `{label}` has {} bytes, and ext4 keeps 16", label.len())]
    LabelTooLong {
        /// The label.
        label: String,
    },
    /// The journal is too small for the kernel or too large for the volume.
    #[error("a journal of {} bytes is not possible: from 4 MiB to half of the volume", size.bytes())]
    JournalSize {
        /// The size asked for.
        size: ByteSize,
    },
    /// The inode ratio is not between 1 KiB and 64 MiB.
    #[error("one inode for each {} bytes is not possible: from 1 KiB to 64 MiB", ratio.bytes())]
    InodeRatio {
        /// Bytes of volume for each inode.
        ratio: ByteSize,
    },
    /// More than half of the volume is reserved.
    #[error("{percent} percent cannot be reserved for root: at most 50")]
    Reserved {
        /// The percentage asked for.
        percent: u8,
    },
    /// The source date is before 1970 or after 2310.
    #[error("the source date {date} does not fit ext4")]
    SourceDate {
        /// The date.
        date: Timestamp,
    },
    /// Something in the tree cannot be stored.
    #[error("`{path}` cannot be stored in ext4: {problem}")]
    Entry {
        /// The first path of it.
        path: TreePath,
        /// What ext4 cannot hold.
        problem: EntryProblem,
    },
}

/// What ext4 cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryProblem {
    /// The last component has more than 255 bytes.
    #[error("its name has {length} bytes, and 255 is the limit")]
    NameTooLong {
        /// Bytes in the name.
        length: usize,
    },
    /// 16 TiB or more.
    #[error("it has {} bytes, and {} is the limit", size.bytes(), limit.bytes())]
    FileTooLarge {
        /// Its length.
        size: ByteSize,
        /// The most there is.
        limit: ByteSize,
    },
    /// A symbolic link with more than 4,095 bytes, or with none.
    #[error("its target has {length} bytes, and 1 to 4095 are possible")]
    TargetLength {
        /// Bytes in the target.
        length: usize,
    },
    /// More than 65,000 hard links.
    #[error("it has {links} names, and 65000 is the limit")]
    TooManyLinks {
        /// Paths that share it.
        links: u64,
    },
    /// More entries than the index of a directory can hold.
    #[error("the directory has {entries} entries, more than its index can hold")]
    DirectoryTooLarge {
        /// Entries in it.
        entries: usize,
    },
    /// Linux has 12 bits for the major number and 20 for the minor.
    #[error("device number {major}:{minor} is outside of 4095:1048575")]
    DeviceNumber {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Before 1901 or after 2310.
    #[error("its time {time} is outside of 1901 to 2310")]
    Time {
        /// Its time of last change.
        time: Timestamp,
    },
    /// `lost+found` in the root is not a directory.
    #[error("only a directory can have this name, the checker needs it")]
    LostAndFound,
    /// An extended attribute of a kind that ext4 does not store.
    #[error("extended attribute `{name}` is none of user, trusted, security and POSIX ACL")]
    XattrName {
        /// Its full name.
        name: String,
    },
    /// The value of `system.posix_acl_*` is not what the kernel hands out.
    #[error("the access control list `{name}` is damaged")]
    Acl {
        /// Its full name.
        name: String,
    },
    /// The extended attributes do not fit into the inode and one block.
    #[error("its extended attributes take {needs} bytes, and {limit} are left for them")]
    XattrsTooLarge {
        /// Bytes of those that do not go into the inode.
        needs: usize,
        /// What one block holds.
        limit: usize,
    },
}

impl EntryProblem {
    /// The error that names `path` as the one with the problem.
    pub(super) fn at(self, path: &TreePath) -> Ext4Error {
        Ext4Error::Entry {
            path: path.clone(),
            problem: self,
        }
    }
}

impl Ext4Error {
    /// A stable name of the kind of error, kebab-case.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::NoRoom { .. } => "ext4-no-room",
            Self::VolumeTooSmall { .. } => "ext4-volume-too-small",
            Self::VolumeTooLarge { .. } => "ext4-volume-too-large",
            Self::TooManyFiles { .. } => "ext4-too-many-files",
            Self::LabelTooLong { .. } => "ext4-label-too-long",
            Self::JournalSize { .. } => "ext4-journal-size",
            Self::InodeRatio { .. } => "ext4-inode-ratio",
            Self::Reserved { .. } => "ext4-reserved",
            Self::SourceDate { .. } => "ext4-source-date",
            Self::Entry { .. } => "ext4-entry",
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoRoom { needs: least, .. } | Self::VolumeTooSmall { least, .. } => {
                return Some(format!(
                    "give the partition at least {}MiB",
                    least.mib_ceil()
                ));
            }
            Self::VolumeTooLarge { .. } => {
                "make the partition smaller than 16TiB; it can grow on the customer's disk"
            }
            Self::LabelTooLong { .. } => "shorten the label",
            Self::SourceDate { .. } => "set `source_date` to a day between 1970 and 2300",
            Self::Entry { problem, .. } => match problem {
                EntryProblem::NameTooLong { .. } => "shorten the name in the layer",
                EntryProblem::Time { .. } => "touch the file in the layer",
                EntryProblem::XattrName { .. } | EntryProblem::XattrsTooLarge { .. } => {
                    "remove extended attributes with `setfattr -x` in the layer"
                }
                _ => "remove or change it in the layer that brings it",
            },
            Self::TooManyFiles { .. } => "spread the files over several partitions",
            Self::JournalSize { .. } | Self::InodeRatio { .. } | Self::Reserved { .. } => {
                return None;
            }
        };
        Some(hint.to_owned())
    }

    /// The exit code's class.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::Entry { .. } | Self::TooManyFiles { .. } => ExitClass::Build,
            _ => ExitClass::Usage,
        }
    }
}
