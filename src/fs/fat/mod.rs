//! FAT16 and FAT32 volumes: EFI system partitions and configuration disks.
//!
//! In: a [`FileTree`] and [`FatOptions`]. Out: a [`FatVolume`], readable at
//! any offset. File contents stay where they are stored: only the FATs and
//! the directories are in memory. Never here: reading what a customer hands
//! us, choices beyond the type and the cluster size. Checked by:
//! `fsck.vfat -n`, mtools and a boot under OVMF (`tests/it/formats/fat.rs`).
//!
//! Owners, modes, xattrs and times of the tree have no place in FAT and are
//! dropped: every entry carries the source date, in UTC. Each hard link
//! becomes a file of its own. Every file is one contiguous run of clusters
//! ([`FatVolume::file_range`]), which a boot loader or an agent may overwrite
//! in place.
//!
//! The `fatfs` crate formats and fills the volume; three of its habits are
//! repaired afterwards (`repair.rs`), since `fsck.vfat` rejects two of them.

mod error;
mod format;
mod layout;
mod repair;
mod writer;

use std::fmt;
use std::io;
use std::ops::Range;
use std::str::FromStr;

pub use error::{FatError, NameFault};

use crate::sparse::{PageMap, SparseSource, check_range, coalesce};
use crate::tree::{Content, FileTree, Node, TreePath};
use crate::units::{ByteSize, Timestamp};
use layout::Layout;

/// What the plan decides about a FAT volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FatOptions {
    /// Length of the volume; bytes after the last whole sector of 512 stay zero.
    pub size: ByteSize,
    /// Which FAT.
    pub kind: FatKind,
    /// `BS_VolID`: what `blkid` shows as `UUID`.
    pub volume_id: u32,
    /// Its name, in the boot sector and in the root directory.
    pub label: VolumeLabel,
    /// The time of every file and directory.
    pub source_date: Timestamp,
}

/// Which FAT a volume is: by definition a matter of its number of clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FatKind {
    /// FAT32 from 64 MiB on, FAT16 below.
    Auto,
    /// 4,085 to 65,524 clusters.
    Fat16,
    /// 65,525 clusters or more.
    Fat32,
}

impl fmt::Display for FatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "FAT",
            Self::Fat16 => "FAT16",
            Self::Fat32 => "FAT32",
        })
    }
}

/// A volume label: 1 to 11 of A-Z, 0-9, `-`, `_` and inner spaces. Narrower
/// than FAT's own rule, so that no tool shows it otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeLabel(String);

impl VolumeLabel {
    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Padded with spaces, as the boot sector holds it.
    fn padded(&self) -> [u8; 11] {
        let mut padded = [b' '; 11];
        for (slot, byte) in padded.iter_mut().zip(self.0.bytes()) {
            *slot = byte;
        }
        padded
    }
}

impl FromStr for VolumeLabel {
    type Err = FatError;

    fn from_str(text: &str) -> Result<Self, FatError> {
        let good = |c: char| matches!(c, 'A'..='Z' | '0'..='9' | '-' | '_' | ' ');
        let fits = (1..=11).contains(&text.len()) && text.chars().all(good) && text.trim() == text;
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(FatError::Label {
                label: text.to_owned(),
            })
        }
    }
}

impl fmt::Display for VolumeLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A file that reserves `size` bytes for someone who will overwrite them in
/// place: a boot loader's environment, an agent's report. Filled with `fill`.
///
/// # Errors
///
/// [`FatError::FileTooLarge`] above 16 MiB, since it is held in memory;
/// `path` is for the message.
pub fn preallocated(path: &TreePath, size: ByteSize, fill: u8) -> Result<Node, FatError> {
    const MOST: u64 = 16 << 20;
    let length = usize::try_from(size.bytes()).unwrap_or(usize::MAX);
    if size.bytes() > MOST {
        return Err(FatError::FileTooLarge {
            path: path.clone(),
            size,
        });
    }
    Ok(Node::file(0o644, Content::from_bytes(vec![fill; length])))
}

/// A FAT volume, readable at any offset.
#[derive(Debug)]
pub struct FatVolume {
    /// Boot sector, FATs and directories; zeros where the files are.
    structure: PageMap,
    /// The files, by where they are in the volume, ascending.
    files: Vec<PlacedFile>,
    data: Vec<Range<u64>>,
    kind: FatKind,
    cluster_size: ByteSize,
}

/// A file that is not empty, and where its bytes are.
#[derive(Debug)]
struct PlacedFile {
    path: TreePath,
    range: Range<u64>,
    content: Content,
}

impl FatVolume {
    /// Lays `tree` out on a new volume. No content is read.
    ///
    /// # Errors
    ///
    /// [`FatError`] for whatever FAT cannot hold, before anything is laid out.
    pub fn new(tree: &FileTree, options: &FatOptions) -> Result<Self, FatError> {
        let layout = Layout::plan(tree, options)?;
        let failed = |source| FatError::Build {
            label: options.label.to_string(),
            source,
        };
        let written = writer::write(&layout, options).map_err(|refused| match refused {
            writer::Refused::Build(source) => failed(source),
            writer::Refused::ShortName(path) => FatError::ShortName { path },
        });
        let mut structure = written?;
        let mut files = repair::repair(&mut structure, &layout, options).map_err(failed)?;
        structure.trim();
        files.sort_by_key(|file| file.range.start);
        let mut data: Vec<Range<u64>> = structure.data_ranges().collect();
        for file in &files {
            let start = file.range.start;
            let ranges = file.content.data_ranges();
            data.extend(ranges.iter().map(|r| start + r.start..start + r.end));
        }
        data.sort_by_key(|range| range.start);
        Ok(Self {
            structure,
            files,
            data: coalesce(data),
            kind: layout.geometry.kind,
            cluster_size: layout.geometry.cluster_size(),
        })
    }

    /// FAT16 or FAT32.
    #[must_use]
    pub fn kind(&self) -> FatKind {
        self.kind
    }

    /// Granularity of allocation.
    #[must_use]
    pub fn cluster_size(&self) -> ByteSize {
        self.cluster_size
    }

    /// Where the bytes of the file at `path` are in the volume, one run from
    /// its first byte to its last. `None` when there is no such file, or when
    /// it is empty.
    #[must_use]
    pub fn file_range(&self, path: &TreePath) -> Option<Range<u64>> {
        let file = self.files.iter().find(|file| file.path == *path)?;
        Some(file.range.clone())
    }
}

impl SparseSource for FatVolume {
    fn size(&self) -> ByteSize {
        self.structure.size()
    }

    fn data_ranges(&self) -> Box<dyn Iterator<Item = Range<u64>> + '_> {
        Box::new(self.data.iter().cloned())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(offset, buf.len(), self.size())?;
        self.structure.read_exact_at(buf, offset)?;
        let end = offset + buf.len() as u64;
        let first = self.files.partition_point(|file| file.range.end <= offset);
        for file in &self.files[first..] {
            if file.range.start >= end {
                break;
            }
            let from = file.range.start.max(offset);
            let to = file.range.end.min(end);
            let index = |at: u64| usize::try_from(at - offset).expect("inside the buffer");
            let part = &mut buf[index(from)..index(to)];
            file.content.read_exact_at(part, from - file.range.start)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_upper_case_and_short() {
        for good in ["ESP", "VACONFIG", "A B-C_9", "ELEVENCHARS"] {
            assert!(good.parse::<VolumeLabel>().is_ok(), "{good}");
        }
        for bad in ["", "esp", "TWELVE-CHARS", " A", "A ", "Ä", "A.B"] {
            let error = bad.parse::<VolumeLabel>().expect_err(bad);
            assert_eq!(error.slug(), "fat-label");
        }
    }
}
