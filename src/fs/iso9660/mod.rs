//! ISO 9660 with Joliet: a CD that carries a configuration.
//!
//! In: a [`FileTree`] and [`IsoOptions`]. Out: an [`IsoVolume`], readable at
//! any offset; file contents stay where they are stored. Never here: reading
//! what a customer hands us, boot records, writable media. Checked by:
//! `isoinfo`, `xorriso` and `bsdtar`, each reading every file back
//! (`tests/it/formats/iso.rs`).
//!
//! Long names are Joliet's, 64 characters of any script. Beside them stand
//! names of capitals, digits and `_` (interchange level 2), for readers that
//! know no Joliet. Owners, modes and xattrs of the tree have no place here and
//! are dropped: a configuration has none, so Rock Ridge is left out. Hard
//! links share their bytes. Every entry carries the source date, in UTC.
//!
//! ```text
//!   sector   0 .. 15         16        17       18     19 ..
//!   system area (zeros)   primary   Joliet   the end   path tables,
//!                                                      directories, files
//! ```
//!
//! Source: ECMA-119; Microsoft, "Joliet Specification".

mod error;
mod format;
mod layout;
mod writer;

use std::fmt;
use std::io;
use std::ops::Range;
use std::str::FromStr;

pub use error::{IsoError, NameFault};

use crate::sparse::{SparseSource, check_range, coalesce};
use crate::tree::{Content, FileTree};
use crate::units::{ByteSize, Timestamp};
use format::{SECTOR, SYSTEM_AREA};
use layout::Layout;

/// What the plan decides about an ISO 9660 volume; its size follows from the
/// content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsoOptions {
    /// The volume's name, in both descriptors.
    pub label: IsoLabel,
    /// The time of every file and directory, and of the volume.
    pub source_date: Timestamp,
}

/// A volume label: 1 to 16 of A-Z, 0-9 and `_`, which both descriptors hold
/// as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsoLabel(String);

impl IsoLabel {
    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IsoLabel {
    type Err = IsoError;

    fn from_str(text: &str) -> Result<Self, IsoError> {
        let good = |c: char| matches!(c, 'A'..='Z' | '0'..='9' | '_');
        if (1..=16).contains(&text.len()) && text.chars().all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IsoError::Label {
                label: text.to_owned(),
            })
        }
    }
}

impl fmt::Display for IsoLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An ISO 9660 volume, readable at any offset.
#[derive(Debug)]
pub struct IsoVolume {
    /// Everything from sector 16 to the first file.
    structure: Vec<u8>,
    /// The files that are not empty, by where they are, ascending.
    files: Vec<PlacedFile>,
    size: ByteSize,
}

#[derive(Debug)]
struct PlacedFile {
    range: Range<u64>,
    content: Content,
}

const STRUCTURE_AT: u64 = SYSTEM_AREA as u64 * SECTOR;

impl IsoVolume {
    /// Lays `tree` out on a new volume. No content is read.
    ///
    /// # Errors
    ///
    /// [`IsoError`] for whatever a CD cannot hold, before anything is laid out.
    pub fn new(tree: &FileTree, options: &IsoOptions) -> Result<Self, IsoError> {
        let layout = Layout::plan(tree)?;
        let files = layout
            .files
            .iter()
            .filter(|file| file.content.size() > 0)
            .map(|file| {
                let start = u64::from(file.sector) * SECTOR;
                PlacedFile {
                    range: start..start + file.content.size(),
                    content: file.content.clone(),
                }
            })
            .collect();
        Ok(Self {
            structure: writer::write(&layout, options),
            files,
            size: ByteSize::from_bytes(u64::from(layout.sectors) * SECTOR),
        })
    }
}

impl SparseSource for IsoVolume {
    fn size(&self) -> ByteSize {
        self.size
    }

    fn data_ranges(&self) -> Box<dyn Iterator<Item = Range<u64>> + '_> {
        let structure = STRUCTURE_AT..STRUCTURE_AT + self.structure.len() as u64;
        let files = self.files.iter().flat_map(|file| {
            let start = file.range.start;
            let ranges = file.content.data_ranges().into_iter();
            ranges.map(move |range| start + range.start..start + range.end)
        });
        Box::new(coalesce(std::iter::once(structure).chain(files)).into_iter())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(offset, buf.len(), self.size)?;
        buf.fill(0);
        let end = offset + buf.len() as u64;
        // The part of `range` that is asked for: in the buffer, and in the range.
        let shared = |range: &Range<u64>| {
            let (from, to) = (range.start.max(offset), range.end.min(end));
            let index = |at: u64| usize::try_from(at - offset).expect("inside the buffer");
            (from < to).then(|| (index(from)..index(to), from - range.start))
        };
        let structure = STRUCTURE_AT..STRUCTURE_AT + self.structure.len() as u64;
        if let Some((part, at)) = shared(&structure) {
            let at = usize::try_from(at).expect("inside the structure");
            let length = part.len();
            buf[part].copy_from_slice(&self.structure[at..at + length]);
        }
        let first = self.files.partition_point(|file| file.range.end <= offset);
        for file in &self.files[first..] {
            let Some((part, at)) = shared(&file.range) else {
                break;
            };
            file.content.read_exact_at(&mut buf[part], at)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_capitals_digits_and_underlines() {
        for good in ["VACONFIG", "A", "SIXTEEN_LETTERS_"] {
            assert!(good.parse::<IsoLabel>().is_ok(), "{good}");
        }
        for bad in ["", "cidata", "A B", "SEVENTEEN_LETTERS", "Ä", "A-B"] {
            let error = bad.parse::<IsoLabel>().expect_err(bad);
            assert_eq!(error.slug(), "iso-label");
        }
    }
}
