//! What all file systems have in common: entries, paths, contents.

use std::sync::Arc;

use super::error::InspectError;
use super::ext4::{Ext4, Listed, Names};
use super::fat::Fat;
use crate::sparse::SparseSource;
use crate::units::ByteSize;

/// Most bytes of names, or of whole entries, that are held at once.
pub(super) const MOST_HELD: usize = 64 << 20;

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

impl Entry {
    /// Bytes of memory that it takes, about.
    fn held(&self) -> usize {
        const HEADS: usize = size_of::<(Vec<u8>, Vec<u8>)>();
        let target = match &self.kind {
            Kind::Symlink(target) => target.len(),
            _ => 0,
        };
        let pairs = self.xattrs.iter();
        let xattrs = pairs.map(|(name, value)| HEADS + name.len() + value.len());
        size_of::<Self>() + self.name.len() + target + xattrs.sum::<usize>()
    }
}

/// The entries of a directory, by name.
#[derive(Debug)]
pub struct Entries<'a>(Source<'a>);

#[derive(Debug)]
enum Source<'a> {
    Ext4(&'a Ext4, Names),
    /// With their bytes of memory.
    Held(std::vec::IntoIter<Entry>, usize),
}

impl Entries<'_> {
    /// Bytes of memory that are held until all were given.
    pub(super) fn held(&self) -> usize {
        match &self.0 {
            Source::Ext4(_, names) => names.held(),
            Source::Held(_, held) => *held,
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, InspectError>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Ext4(ext4, names) => names.next_entry(ext4),
            Source::Held(entries, _) => entries.next().map(Ok),
        }
    }
}

/// Refuses what takes more memory than there is room for.
pub(super) fn must_fit(held: usize, room: usize) -> Result<(), InspectError> {
    if held <= room {
        return Ok(());
    }
    Err(InspectError::TooLarge {
        what: "a directory's list",
        most: ByteSize::from_bytes(room as u64),
    })
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
    /// Each entry is read when it is asked for: only names are held.
    ///
    /// # Errors
    ///
    /// [`InspectError::NoPath`], [`InspectError::TooLarge`] for names of more
    /// than 64 MiB, and what is wrong with the volume.
    pub fn entries(&self, path: impl AsRef<[u8]>) -> Result<Entries<'_>, InspectError> {
        self.entries_within(path.as_ref(), MOST_HELD)
    }

    /// As [`entries`](Self::entries), holding at most `room` bytes.
    pub(super) fn entries_within(
        &self,
        path: &[u8],
        room: usize,
    ) -> Result<Entries<'_>, InspectError> {
        Ok(Entries(match self {
            Self::Ext4(ext4) => match ext4.listed(path, room)? {
                Listed::Directory(names) => Source::Ext4(ext4, names),
                Listed::Other(entry) => Source::Held(vec![entry].into_iter(), 0),
            },
            Self::Fat(fat) => {
                let mut entries = fat.list(path)?;
                let held = entries.iter().map(Entry::held).sum();
                must_fit(held, room)?;
                entries.sort_by(|a, b| a.name.cmp(&b.name));
                Source::Held(entries.into_iter(), held)
            }
        }))
    }

    /// All [`entries`](Self::entries) at once.
    ///
    /// # Errors
    ///
    /// As [`entries`](Self::entries), and [`InspectError::TooLarge`] for more
    /// than 64 MiB of them.
    pub fn list(&self, path: impl AsRef<[u8]>) -> Result<Vec<Entry>, InspectError> {
        let mut all = Vec::new();
        let mut held = 0;
        for entry in self.entries(path)? {
            let entry = entry?;
            held += entry.held();
            must_fit(held, MOST_HELD)?;
            all.push(entry);
        }
        Ok(all)
    }

    /// The bytes of the file at `path`, given to `take` piece by piece.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list); [`InspectError::OtherKind`] for what is no file.
    pub fn read(
        &self,
        path: impl AsRef<[u8]>,
        take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), InspectError> {
        let path = path.as_ref();
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
