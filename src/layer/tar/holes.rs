//! Zeros in large files: they take no room on the disk and none in the image.
//!
//! A layer's tar is what it would be anyway, zeros included, so that every
//! reader knows it and its digest is of the content alone. But the file that
//! holds the tar has holes for them, and what is read from it says where they
//! are. Which zeros count depends on the content and on nothing else, such as
//! what the file system made of them: pieces of 64 KiB from the start of the
//! member, where all of them together are a MiB or more.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write};
use std::sync::Arc;

use crate::tree::{Blob, Content};

/// Length of a piece.
const PIECE: usize = 64 << 10;
/// The same as a step in a file.
const STEP: i64 = 64 << 10;
/// Bytes of a piece that are looked at first: most pieces are not zeros, and
/// there is no need to read the rest of those.
const PROBE: usize = 512;
/// Bytes of zeros from which on a file is sparse.
const WORTH_IT: u64 = 1 << 20;

static ZEROS: [u8; PIECE] = [0; PIECE];

/// Writes a new file with holes for long runs of zeros.
#[derive(Debug)]
pub(crate) struct SparseFile {
    file: File,
    /// Bytes taken so far; the file may be shorter until it is flushed.
    length: u64,
}

impl SparseFile {
    /// `file` is new, and written by nobody else.
    pub(crate) fn new(file: File) -> Self {
        Self { file, length: 0 }
    }

    /// The whole file.
    pub(crate) fn finish(mut self) -> io::Result<File> {
        self.flush()?;
        Ok(self.file)
    }
}

impl Write for SparseFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut pieces = buf.chunks(PIECE);
        let is_zero = |piece: &&[u8]| *piece == ZEROS.as_slice();
        let count = if pieces.next().as_ref().is_some_and(is_zero) {
            self.file.seek(SeekFrom::Current(STEP))?;
            PIECE
        } else {
            let more: usize = pieces
                .take_while(|piece| !is_zero(piece))
                .map(<[u8]>::len)
                .sum();
            let run = PIECE.saturating_add(more).min(buf.len());
            self.file.write(buf.get(..run).unwrap_or(buf))?
        };
        self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)
    }
}

/// Whether as many bytes as `piece` has, from byte `at` of `file` on, are zeros.
fn is_zero(file: &Content, piece: &mut [u8], at: u64) -> io::Result<bool> {
    let (probe, rest) = piece.split_at_mut(PROBE.min(piece.len()));
    let behind = at + probe.len() as u64;
    for (part, at) in [(probe, at), (rest, behind)] {
        file.read_exact_at(part, at)?;
        if !ZEROS.starts_with(part) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `size` bytes of `blob` from `offset` on, with their holes.
pub(super) fn content(blob: &Arc<Blob>, offset: u64, size: u64) -> io::Result<Content> {
    let whole = || Content::stored(blob.clone(), offset, size);
    if size < WORTH_IT {
        return Ok(whole());
    }
    let file = whole();
    let mut buffer = vec![0; PIECE];
    let mut parts: Vec<(u64, u64)> = Vec::new();
    let mut zeros = 0;
    let mut at = 0;
    while at < size {
        let length = (size - at).min(PIECE as u64);
        let piece = buffer.get_mut(..usize::try_from(length).unwrap_or(PIECE));
        if is_zero(&file, piece.unwrap_or_default(), at)? {
            zeros += length;
        } else {
            match parts.last_mut() {
                Some((_, end)) if *end == at => *end += length,
                _ => parts.push((at, at + length)),
            }
        }
        at += length;
    }
    if zeros < WORTH_IT {
        return Ok(whole());
    }
    let stored = |(start, end): (u64, u64)| {
        let part = Content::stored(blob.clone(), offset + start, end - start);
        (start, part)
    };
    let parts = parts.into_iter().map(stored).collect();
    Ok(Content::sparse(size, parts).expect("they ascend and end within the file"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn written(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("folder");
        let place = folder.path().join("file");
        let mut file = SparseFile::new(File::create_new(&place).expect("new"));
        file.write_all(bytes).expect("write");
        file.flush().expect("flush");
        assert_eq!(std::fs::read(&place).expect("read"), bytes);
        (folder, place)
    }

    #[test]
    fn zeros_take_no_room_and_come_back() {
        let mut bytes = vec![0; 8 << 20];
        bytes[0] = 1;
        bytes[5 << 20] = 2;
        let (_folder, place) = written(&bytes);
        let status = std::fs::metadata(&place).expect("status");
        assert!(status.blocks() * 512 < 1 << 20, "{}", status.blocks());

        let blob = Blob::open(&place).expect("open");
        let content = content(&blob, 0, bytes.len() as u64).expect("readable");
        let piece = PIECE as u64;
        assert_eq!(
            content.data_ranges(),
            [0..piece, (5 << 20)..(5 << 20) + piece]
        );
        assert_eq!(content.read_all(u64::MAX).expect("readable"), bytes);
    }

    #[test]
    fn files_of_nothing_but_zeros_and_odd_ends_are_kept() {
        for length in [1, PIECE, PIECE + 1, (3 << 20) + 7] {
            let (_folder, place) = written(&vec![0; length]);
            let blob = Blob::open(&place).expect("open");
            let content = content(&blob, 0, length as u64).expect("readable");
            assert_eq!(content.size(), length as u64);
            let is_sparse = content.data_ranges().is_empty();
            assert_eq!(is_sparse, length as u64 >= WORTH_IT, "{length}");
        }
    }

    #[test]
    fn a_file_with_few_zeros_stays_in_one_piece() {
        let mut bytes = vec![7; 4 << 20];
        bytes[PIECE..2 * PIECE].fill(0);
        let (_folder, place) = written(&bytes);
        let blob = Blob::open(&place).expect("open");
        let content = content(&blob, 0, bytes.len() as u64).expect("readable");
        assert_eq!(content.data_ranges().len(), 1);
        assert_eq!(content.read_all(u64::MAX).expect("readable"), bytes);
    }
}
