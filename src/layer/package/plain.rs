//! The uncompressed form of a package: kept in the cache, so that no package
//! is decompressed twice.
//!
//! ```text
//! 16  "consign plain 1\n"
//! 32  digest of the .deb
//!  8  length of the control archive, big endian
//!     the control archive, a tar
//!     the data archive, a tar
//! 32  digest of all of the above
//! ```
//!
//! A file appears under its name whole, after the .deb that it is of was
//! found to have its digest. It is digested whenever it is read; one that is
//! damaged is dropped, and the .deb is read again.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write};
use std::path::Path;

use super::archive::MAX_CONTROL;
use crate::digest::{Digest, Hasher};

const MAGIC: &[u8; 16] = b"consign plain 1\n";
/// Length of a digest.
const DIGEST: usize = 32;
/// Length of what comes before the control archive.
const HEAD: usize = MAGIC.len() + DIGEST + 8;

/// A form in the making. What goes wrong while it is written is no reason not
/// to unpack the package: it is dropped then.
#[derive(Debug)]
pub(super) struct Keeper {
    file: BufWriter<tempfile::NamedTempFile>,
    hasher: Hasher,
    is_whole: bool,
}

impl Keeper {
    /// Begins the form of the .deb `of`, which will be at `place`.
    pub(super) fn begin(place: &Path, of: &Digest) -> Option<Self> {
        let folder = place.parent()?;
        std::fs::create_dir_all(folder).ok()?;
        let file = tempfile::Builder::new()
            .prefix(".consign-")
            .suffix(".part")
            .tempfile_in(folder)
            .ok()?;
        let mut keeper = Self {
            file: BufWriter::with_capacity(256 << 10, file),
            hasher: Hasher::new(),
            is_whole: true,
        };
        keeper.take(MAGIC);
        keeper.take(of.bytes());
        Some(keeper)
    }

    /// The control archive, which comes first.
    pub(super) fn control(&mut self, tar: &[u8]) {
        self.take(&(tar.len() as u64).to_be_bytes());
        self.take(tar);
    }

    /// More of the data archive.
    fn take(&mut self, bytes: &[u8]) {
        if self.is_whole {
            self.hasher.update(bytes);
            self.is_whole = self.file.write_all(bytes).is_ok();
        }
    }

    /// Gives it its name.
    pub(super) fn finish(mut self, place: &Path) {
        let digest = std::mem::take(&mut self.hasher).finish();
        let is_written = self.is_whole && self.file.write_all(digest.bytes()).is_ok();
        if let (true, Ok(file)) = (is_written, self.file.into_inner()) {
            // Whoever cannot keep it unpacks the package again next time.
            drop(file.persist(place));
        }
    }
}

/// Copies the data archive to a keeper while it is read.
pub(super) struct Tee<'a, R> {
    pub(super) from: R,
    pub(super) keeper: Option<&'a mut Keeper>,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buf)?;
        if let Some(keeper) = &mut self.keeper {
            keeper.take(buf.split_at(count).0);
        }
        Ok(count)
    }
}

/// A kept form that is being read.
pub(super) struct Kept {
    /// The control archive.
    pub(super) control: Vec<u8>,
    /// Everything but the digest at the end.
    body: io::Take<BufReader<File>>,
    hasher: Hasher,
}

impl Kept {
    /// Opens the form of the .deb `of`; `None` when there is none that can be
    /// read. `limit` is the longest control archive.
    pub(super) fn open(place: &Path, of: &Digest, limit: u64) -> Option<Self> {
        let file = File::open(place).ok()?;
        let length = file.metadata().ok()?.len().checked_sub(DIGEST as u64)?;
        let mut kept = Self {
            control: Vec::new(),
            body: BufReader::with_capacity(256 << 10, file).take(length),
            hasher: Hasher::new(),
        };
        let mut head = [0; HEAD];
        kept.read_exact(&mut head).ok()?;
        let (magic, rest) = head.split_first_chunk::<16>()?;
        let (digest, rest) = rest.split_first_chunk::<32>()?;
        let size = u64::from_be_bytes(*rest.first_chunk::<8>()?);
        if magic != MAGIC || digest != of.bytes() || size > limit.min(length) {
            return None;
        }
        let mut control = Vec::new();
        (&mut kept).take(size).read_to_end(&mut control).ok()?;
        kept.control = control;
        Some(kept)
    }

    /// Whether all of it, read or not, has the digest at its end.
    pub(super) fn checks_out(mut self) -> bool {
        let mut digest = [0; DIGEST];
        let is_read = io::copy(&mut self, &mut io::sink()).is_ok();
        let mut file = self.body.into_inner();
        let is_there = file
            .seek(SeekFrom::End(-32))
            .and_then(|_| file.read_exact(&mut digest))
            .is_ok();
        is_read && is_there && self.hasher.finish().bytes() == &digest
    }
}

impl Read for Kept {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.body.read(buf)?;
        self.hasher.update(buf.split_at(count).0);
        Ok(count)
    }
}

/// The data archive of the form at `place`, with whatever digest; more follows
/// after its end mark. `None` when there is none.
pub(super) fn unproven_data(place: &Path, of: &Digest) -> Option<BufReader<File>> {
    let mut file = BufReader::with_capacity(128 << 10, File::open(place).ok()?);
    let mut head = [0; HEAD];
    file.read_exact(&mut head).ok()?;
    let (magic, rest) = head.split_first_chunk::<16>()?;
    let (digest, rest) = rest.split_first_chunk::<32>()?;
    let size = i64::from_be_bytes(*rest.first_chunk::<8>()?);
    if magic != MAGIC || digest != of.bytes() || size < 0 {
        return None;
    }
    file.seek_relative(size).ok()?;
    Some(file)
}

/// Whether the form at `place` is whole, and that of the .deb `of`.
pub(in crate::layer) fn is_sound(place: &Path, of: &Digest) -> bool {
    Kept::open(place, of, MAX_CONTROL).is_some_and(Kept::checks_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1 << 20;

    fn written(folder: &Path) -> std::path::PathBuf {
        let place = folder.join("plain/x");
        let mut keeper = Keeper::begin(&place, &Digest::of(b"deb")).expect("a folder");
        keeper.control(b"control");
        let mut tee = Tee {
            from: b"data".as_slice(),
            keeper: Some(&mut keeper),
        };
        io::copy(&mut tee, &mut io::sink()).expect("memory");
        assert!(!place.exists(), "nothing under its name before it is whole");
        keeper.finish(&place);
        place
    }

    fn data(mut kept: Kept) -> Option<Vec<u8>> {
        let mut data = Vec::new();
        kept.read_to_end(&mut data).expect("a file");
        kept.checks_out().then_some(data)
    }

    #[test]
    fn what_was_kept_reads_back() {
        let folder = tempfile::tempdir().expect("folder");
        let place = written(folder.path());
        let kept = Kept::open(&place, &Digest::of(b"deb"), LIMIT).expect("it is there");
        assert_eq!(kept.control, b"control");
        assert_eq!(data(kept).as_deref(), Some(b"data".as_slice()));
        assert!(is_sound(&place, &Digest::of(b"deb")));
        assert!(!is_sound(&place, &Digest::of(b"other")));
        assert!(Kept::open(&place, &Digest::of(b"other"), LIMIT).is_none());
        assert!(Kept::open(&place, &Digest::of(b"deb"), 3).is_none());
    }

    #[test]
    fn every_damage_is_found() {
        let folder = tempfile::tempdir().expect("folder");
        let place = written(folder.path());
        let good = std::fs::read(&place).expect("a file");
        let is_refused = |bytes: &[u8]| {
            std::fs::write(&place, bytes).expect("a file");
            let kept = Kept::open(&place, &Digest::of(b"deb"), LIMIT);
            let is_refused = kept.is_none_or(|kept| data(kept).is_none());
            assert_eq!(is_refused, !is_sound(&place, &Digest::of(b"deb")));
            is_refused
        };
        assert!(!is_refused(&good));
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            assert!(is_refused(&bytes), "byte {at}");
            assert!(is_refused(&good[..at]), "cut at {at}");
        }
        assert!(is_refused(&[good.as_slice(), b"x"].concat()));
    }
}
