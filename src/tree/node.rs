//! One inode of a tree.

use std::collections::BTreeMap;

use super::Content;
use crate::units::Timestamp;

/// Owner, mode, time and extended attributes of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits, setuid, setgid and sticky: the low 12 bits of `st_mode`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last change of the content.
    pub mtime: Timestamp,
    /// Extended attributes by full name (`security.capability`). POSIX ACLs
    /// are here as `system.posix_acl_access` and `_default` in the kernel's form.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Metadata {
    /// Owned by root, no xattrs, at the epoch.
    #[must_use]
    pub fn root_owned(mode: u16) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            xattrs: BTreeMap::new(),
        }
    }
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory; its entries are the paths below it.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link with its target, any bytes but NUL.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// One inode: metadata and what it is. Several paths may share it (hard links).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Owner, mode, time, xattrs.
    pub meta: Metadata,
    /// What it is.
    pub kind: NodeKind,
}

impl Node {
    /// A directory owned by root.
    #[must_use]
    pub fn directory(mode: u16) -> Self {
        Self {
            meta: Metadata::root_owned(mode),
            kind: NodeKind::Directory,
        }
    }

    /// A file owned by root.
    #[must_use]
    pub fn file(mode: u16, content: Content) -> Self {
        Self {
            meta: Metadata::root_owned(mode),
            kind: NodeKind::File(content),
        }
    }

    /// A symbolic link owned by root.
    #[must_use]
    pub fn symlink(target: impl Into<Vec<u8>>) -> Self {
        Self {
            meta: Metadata::root_owned(0o777),
            kind: NodeKind::Symlink(target.into()),
        }
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, NodeKind::Directory)
    }

    /// The content of a regular file.
    #[must_use]
    pub fn content(&self) -> Option<&Content> {
        match &self.kind {
            NodeKind::File(content) => Some(content),
            _ => None,
        }
    }
}
