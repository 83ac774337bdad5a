//! What every reader of a file system offers.

use std::io;

use super::damage::Damage;
use crate::init::gpt::ReadAt;

/// Takes the bytes of a file, piece by piece.
pub type Sink<'s> = &'s mut dyn FnMut(&[u8]) -> io::Result<()>;

/// What an entry of a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// Neither, such as `a symbolic link`.
    Other(&'static str),
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name as the medium has it.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Where it begins; each file system counts in its own unit.
    pub place: u64,
    /// Bytes that it says it has.
    pub size: u64,
}

impl Entry {
    /// The name as messages show it.
    #[must_use]
    pub fn escaped(&self) -> String {
        self.name.escape_default().to_string()
    }
}

/// Where bytes of a file stand: place in the volume, length.
pub type Run = (u64, u64);
/// A file that is written in place has no more pieces than this.
pub const MAX_RUNS: usize = 64;

/// A file system being read, folder by folder and file by file.
pub trait FileSystem {
    /// Its name, such as `FAT16`.
    fn kind(&self) -> &'static str;

    /// Whether its label is `label`, in any case.
    ///
    /// # Errors
    ///
    /// [`Damage`] found on the way to the label.
    fn is_labelled(&self, label: &str) -> Result<bool, Damage>;

    /// Whether `label` stands where it costs nothing to look: then damage
    /// behind it is the medium's and not a stranger's.
    fn claims(&self, label: &str) -> bool;

    /// The entries of the root folder, `.` and `..` left out.
    ///
    /// # Errors
    ///
    /// [`Damage`].
    fn root(&self) -> Result<Vec<Entry>, Damage>;

    /// The entries of `folder`, `.` and `..` left out.
    ///
    /// # Errors
    ///
    /// [`Damage`].
    fn folder(&self, folder: &Entry) -> Result<Vec<Entry>, Damage>;

    /// Bytes that `file` says it has.
    ///
    /// # Errors
    ///
    /// [`Damage`].
    fn size(&self, file: &Entry) -> Result<u64, Damage> {
        Ok(file.size)
    }

    /// Where the bytes of `file` stand, so that they can be written in place;
    /// nothing where that is not to be done.
    ///
    /// # Errors
    ///
    /// [`Damage`].
    fn runs(&self, _file: &Entry) -> Result<Vec<Run>, Damage> {
        Ok(Vec::new())
    }

    /// Passes the bytes of `file` on: exactly its size.
    ///
    /// # Errors
    ///
    /// [`Damage::TooLong`] above `limit` bytes, before anything is passed on.
    fn read(&self, file: &Entry, limit: u64, sink: Sink<'_>) -> Result<(), Damage>;
}

/// Labels are padded with spaces or NULs.
#[must_use]
pub fn is_label(field: &[u8], label: &str) -> bool {
    let end = field.iter().position(|byte| *byte == 0);
    let field = field.get(..end.unwrap_or(field.len())).unwrap_or_default();
    field
        .trim_ascii_end()
        .eq_ignore_ascii_case(label.as_bytes())
}

/// A part of a disk, which nothing inside of it can leave.
pub struct Window<'d> {
    disk: &'d dyn ReadAt,
    start: u64,
    size: u64,
}

impl<'d> Window<'d> {
    /// `size` bytes from `start` on.
    #[must_use]
    pub fn new(disk: &'d dyn ReadAt, start: u64, size: u64) -> Self {
        Self { disk, start, size }
    }
}

impl ReadAt for Window<'_> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        match end.filter(|end| *end <= self.size) {
            Some(_) => self.disk.read_exact_at(buf, self.start + offset),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Bytes that are read at once.
const PIECE: u64 = 64 << 10;

/// Passes on `length` bytes from `at` on.
pub(super) fn pass(disk: &dyn ReadAt, at: u64, length: u64, sink: Sink<'_>) -> Result<(), Damage> {
    let mut done = 0;
    let mut piece = vec![0; to_usize(length.min(PIECE))?];
    while done < length {
        let count = to_usize((length - done).min(PIECE))?;
        let bytes = piece.get_mut(..count).unwrap_or_default();
        let from = at
            .checked_add(done)
            .ok_or(Damage::Nonsense { what: "length" })?;
        disk.read_exact_at(bytes, from)
            .map_err(Damage::Unreadable)?;
        sink(bytes).map_err(Damage::Sink)?;
        done += count as u64;
    }
    Ok(())
}

/// Passes on zeros: the holes of a file.
pub(super) fn pass_zeros(length: u64, sink: Sink<'_>) -> Result<(), Damage> {
    let zeros = vec![0; to_usize(length.min(PIECE))?];
    let mut left = length;
    while left > 0 {
        let count = to_usize(left.min(PIECE))?;
        sink(zeros.get(..count).unwrap_or_default()).map_err(Damage::Sink)?;
        left -= count as u64;
    }
    Ok(())
}

pub(super) fn to_usize(number: u64) -> Result<usize, Damage> {
    usize::try_from(number).map_err(|error| Damage::Unreadable(io::Error::other(error)))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
