//! What all file systems have in common: entries, paths, contents.

use std::sync::Arc;

use super::error::InspectError;
use super::ext4::Ext4;
use super::fat::Fat;
use crate::sparse::SparseSource;
use crate::units::ByteSize;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// A character device with its numbers.
    CharDevice(u32, u32),
    /// A block device with its numbers.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// A file, directory or whatever else a directory names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the directory, any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The low 12 bits of `st_mode`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Hard links.
    pub links: u32,
    /// Seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Number of the inode; on FAT the first cluster.
    pub inode: u64,
    /// Extended attributes by full name, in the order of the disk.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A volume whose file system is known.
#[derive(Debug)]
pub enum Volume {
    /// ext4.
    Ext4(Ext4),
    /// FAT12, FAT16 or FAT32.
    Fat(Fat),
}

impl Volume {
    /// The file system in `part`; `None` when it is none that is known.
    ///
    /// # Errors
    ///
    /// What is wrong with one that looks known.
    pub fn open(part: Arc<dyn SparseSource>) -> Result<Option<Self>, InspectError> {
        if let Some(ext4) = Ext4::open(Arc::clone(&part))? {
            return Ok(Some(Self::Ext4(ext4)));
        }
        Ok(Fat::open(part)?.map(Self::Fat))
    }

    /// The entries of the directory at `path`, sorted by name; of anything
    /// else its own entry. Symbolic links on the way and at the end are followed.
    ///
    /// # Errors
    ///
    /// [`InspectError::NoPath`], and what is wrong with the volume.
    pub fn list(&self, path: &str) -> Result<Vec<Entry>, InspectError> {
        let mut entries = match self {
            Self::Ext4(ext4) => ext4.list(path)?,
            Self::Fat(fat) => fat.list(path)?,
        };
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The bytes of the file at `path`, given to `take` piece by piece.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list); [`InspectError::OtherKind`] for what is no file.
    pub fn read(
        &self,
        path: &str,
        take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), InspectError> {
        let (size, content): (u64, Box<dyn Content + '_>) = match self {
            Self::Ext4(ext4) => ext4.content(path)?,
            Self::Fat(fat) => fat.content(path)?,
        };
        let mut buffer = vec![0; 1 << 16];
        let mut at = 0;
        while at < size {
            let length = usize::try_from(size - at).unwrap_or(usize::MAX);
            let piece = &mut buffer[..length.min(1 << 16)];
            content.read_at(piece, at)?;
            take(piece).map_err(|source| InspectError::Read { offset: at, source })?;
            at += piece.len() as u64;
        }
        Ok(())
    }
}

/// A file that can be read from any place.
pub(super) trait Content {
    /// Fills `buf` from byte `offset` of the file on; the caller keeps to its size.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), InspectError>;
}

/// Usage of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// What the file system manages.
    pub total: ByteSize,
    /// What is free of it.
    pub free: ByteSize,
}
