//! The bytes of a regular file, wherever they are stored.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::{Digest, Hasher};

/// An open file of the store that many [`Content`]s point into.
#[derive(Debug)]
pub struct Blob {
    file: File,
    path: PathBuf,
}

impl Blob {
    /// Opens `path` for reading.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            file: File::open(path)?,
            path: path.to_owned(),
        }))
    }

    /// A file that is open already; `path` is for messages.
    #[must_use]
    pub fn from_file(file: File, path: &Path) -> Arc<Self> {
        Arc::new(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// The bytes of a regular file. Cheap to clone.
#[derive(Clone)]
pub struct Content {
    size: u64,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Memory(Arc<[u8]>),
    Stored { blob: Arc<Blob>, offset: u64 },
}

impl Content {
    /// Bytes held in memory.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self {
            size: bytes.len() as u64,
            place: Place::Memory(bytes),
        }
    }

    /// `size` bytes of `blob` from `offset` on.
    #[must_use]
    pub fn stored(blob: Arc<Blob>, offset: u64, size: u64) -> Self {
        Self {
            size,
            place: Place::Stored { blob, offset },
        }
    }

    /// Length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Ranges that may hold data, ascending; bytes outside of them are zero.
    #[must_use]
    pub fn data_ranges(&self) -> Vec<Range<u64>> {
        if self.size == 0 {
            Vec::new()
        } else {
            std::iter::once(0..self.size).collect()
        }
    }

    /// Fills `buf` from byte `offset` on.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` past the end, and what the store reports.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset
            .checked_add(buf.len() as u64)
            .filter(|end| *end <= self.size);
        let Some(end) = end else {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "read past the end of a file",
            ));
        };
        match &self.place {
            Place::Memory(bytes) => {
                let at = |n: u64| usize::try_from(n).expect("below a length in memory");
                buf.copy_from_slice(&bytes[at(offset)..at(end)]);
                Ok(())
            }
            Place::Stored { blob, offset: base } => blob.file.read_exact_at(buf, base + offset),
        }
    }

    /// All bytes, when there are at most `limit` of them.
    ///
    /// # Errors
    ///
    /// `FileTooLarge` above the limit, and what the store reports.
    pub fn read_all(&self, limit: u64) -> io::Result<Vec<u8>> {
        if self.size > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{} bytes, and at most {limit} are expected", self.size),
            ));
        }
        let mut bytes = vec![0; usize::try_from(self.size).map_err(io::Error::other)?];
        self.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// A reader from the first byte on.
    #[must_use]
    pub fn reader(&self) -> ContentReader<'_> {
        ContentReader {
            content: self,
            at: 0,
        }
    }

    /// The digest of the bytes.
    ///
    /// # Errors
    ///
    /// What the store reports.
    pub fn digest(&self) -> io::Result<Digest> {
        let mut hasher = Hasher::new();
        io::copy(&mut self.reader(), &mut hasher)?;
        Ok(hasher.finish())
    }
}

impl PartialEq for Content {
    /// The same place, or the same bytes in memory; bytes in the store are not read.
    fn eq(&self, other: &Self) -> bool {
        self.size == other.size
            && match (&self.place, &other.place) {
                (Place::Memory(a), Place::Memory(b)) => a == b,
                (
                    Place::Stored {
                        blob: a,
                        offset: a_at,
                    },
                    Place::Stored {
                        blob: b,
                        offset: b_at,
                    },
                ) => a_at == b_at && a.path == b.path,
                _ => false,
            }
    }
}

impl Eq for Content {}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Memory(_) => write!(f, "Content({} in memory)", self.size),
            Place::Stored { blob, offset } => {
                write!(
                    f,
                    "Content({} at {offset} of {})",
                    self.size,
                    blob.path.display()
                )
            }
        }
    }
}

/// Reads a [`Content`] from front to back.
#[derive(Debug)]
pub struct ContentReader<'a> {
    content: &'a Content,
    at: u64,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.content.size - self.at;
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        self.content.read_exact_at(&mut buf[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
