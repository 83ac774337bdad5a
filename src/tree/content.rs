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
    Stored {
        blob: Arc<Blob>,
        offset: u64,
    },
    /// Parts with their offsets: ascending, not overlapping.
    Sparse(Arc<[(u64, Content)]>),
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

    /// A file of `size` bytes that is zero but for `parts`, each at its offset.
    ///
    /// `None` unless the parts ascend, do not overlap and end within `size`.
    #[must_use]
    pub fn sparse(size: u64, parts: Vec<(u64, Self)>) -> Option<Self> {
        let mut at = 0;
        for (offset, part) in &parts {
            if *offset < at {
                return None;
            }
            at = offset.checked_add(part.size)?;
        }
        (at <= size).then(|| Self {
            size,
            place: Place::Sparse(parts.into()),
        })
    }

    /// Length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Ranges that may hold data, ascending; bytes outside of them are zero.
    #[must_use]
    pub fn data_ranges(&self) -> Vec<Range<u64>> {
        match &self.place {
            Place::Sparse(parts) => parts
                .iter()
                .flat_map(|(offset, part)| {
                    let ranges = part.data_ranges().into_iter();
                    ranges.map(move |range| offset + range.start..offset + range.end)
                })
                .collect(),
            _ if self.size == 0 => Vec::new(),
            _ => std::iter::once(0..self.size).collect(),
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
            Place::Sparse(parts) => read_parts(parts, buf, offset),
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

/// Fills `buf` from byte `offset` on with what `parts` hold there, else zeros.
fn read_parts(parts: &[(u64, Content)], buf: &mut [u8], offset: u64) -> io::Result<()> {
    let end = offset + buf.len() as u64;
    let first = parts.partition_point(|(start, part)| start + part.size <= offset);
    let mut at = offset;
    let mut rest = buf;
    for (start, part) in parts
        .iter()
        .skip(first)
        .take_while(|(start, _)| *start < end)
    {
        let within = |n: u64| usize::try_from(n).expect("below the length of a buffer");
        let (gap, behind) = rest.split_at_mut(within(start.saturating_sub(at)));
        gap.fill(0);
        at = at.max(*start);
        let stop = end.min(start + part.size);
        let (here, behind) = behind.split_at_mut(within(stop - at));
        part.read_exact_at(here, at - start)?;
        at = stop;
        rest = behind;
    }
    rest.fill(0);
    Ok(())
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
                (Place::Sparse(a), Place::Sparse(b)) => a == b,
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
            Place::Sparse(parts) => write!(f, "Content({} in {} parts)", self.size, parts.len()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_file_is_zero_between_its_parts() {
        let part = |bytes: &[u8]| Content::from_bytes(bytes);
        let file = Content::sparse(
            20,
            vec![(2, part(b"abc")), (5, part(b"de")), (12, part(b"f"))],
        )
        .expect("parts in order");
        assert_eq!(file.data_ranges(), [2..5, 5..7, 12..13]);
        let whole = b"\0\0abcde\0\0\0\0\0f\0\0\0\0\0\0\0";
        assert_eq!(file.read_all(20).expect("read"), whole);
        for start in 0..20 {
            for end in start..=20 {
                let mut buf = vec![9; end - start];
                file.read_exact_at(&mut buf, start as u64).expect("inside");
                assert_eq!(buf, whole[start..end], "{start}..{end}");
            }
        }
        assert!(file.read_exact_at(&mut [0; 2], 19).is_err());
    }

    #[test]
    fn parts_must_ascend_and_fit() {
        let part = || Content::from_bytes(*b"abc");
        assert!(Content::sparse(5, vec![(3, part())]).is_none());
        assert!(Content::sparse(9, vec![(2, part()), (4, part())]).is_none());
        assert!(Content::sparse(9, vec![(u64::MAX, part())]).is_none());
        assert_eq!(
            Content::sparse(9, Vec::new()).map(|file| file.size()),
            Some(9)
        );
    }
}
