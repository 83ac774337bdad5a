//! Packed initramfs of earlier builds: packing takes longer than all else
//! that a build with one changed file does.
//!
//! In: an archive. Out: what [`boot::pack`] makes of it, from the cache where
//! it is there and sound. A file is named after the archive and the packing,
//! and begins with a digest over that and its bytes: what does not fit counts
//! as absent, so that files are not synced, and losing them only costs time.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::artifact::PendingFile;
use crate::boot;
use crate::digest::{Digest, of_fields};
use crate::report::Reporter;
use crate::tree::list_folder;

const SUFFIX: &str = ".initrd";
/// A kept file is never longer.
const LIMIT: u64 = 64 << 20;
/// How many are kept.
const KEPT: usize = 8;

/// Packed initramfs in a folder of the cache.
#[derive(Debug)]
pub(super) struct KeptPacks<'a> {
    pub(super) folder: &'a Path,
    pub(super) reporter: &'a dyn Reporter,
}

impl KeptPacks<'_> {
    /// As [`boot::pack`].
    pub(super) fn pack(&self, archive: &[u8]) -> io::Result<Vec<u8>> {
        let key = of_fields([
            b"consign initramfs".as_slice(),
            boot::PACKING.as_bytes(),
            archive,
        ]);
        let path = self.folder.join(format!("{}{SUFFIX}", key.hex()));
        if let Some(packed) = read(&path, &key) {
            return Ok(packed);
        }
        let packed = boot::pack(archive)?;
        if let Err(error) = self.keep(&path, &key, &packed) {
            let message = format!("the initramfs cannot be kept for the next build: {error}");
            self.reporter.warn(message, None);
        }
        Ok(packed)
    }

    fn keep(&self, path: &Path, key: &Digest, packed: &[u8]) -> io::Result<()> {
        std::fs::create_dir_all(self.folder)?;
        let mut old: Vec<_> = list_folder(self.folder)?
            .into_iter()
            .filter(|entry| entry.name.to_string_lossy().ends_with(SUFFIX))
            .collect();
        old.sort_by_key(|entry| std::cmp::Reverse(entry.metadata.modified().ok()));
        for entry in old.into_iter().skip(KEPT - 1) {
            remove(&entry.path)?;
        }
        let mut pending = PendingFile::create(path)?;
        pending.file_mut().write_all(sum(key, packed).bytes())?;
        pending.file_mut().write_all(packed)?;
        pending.commit_unsynced()
    }
}

/// Another build may have removed it.
fn remove(path: &PathBuf) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read(path: &Path, key: &Digest) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(LIMIT).read_to_end(&mut bytes).ok()?;
    let (found, packed) = bytes.split_at_checked(key.bytes().len())?;
    (found == sum(key, packed).bytes()).then(|| packed.to_vec())
}

fn sum(key: &Digest, packed: &[u8]) -> Digest {
    of_fields([key.bytes().as_slice(), packed])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Silent;

    #[test]
    fn what_is_kept_is_checked_and_does_not_pile_up() {
        let folder = tempfile::tempdir().expect("folder");
        let kept = KeptPacks {
            folder: folder.path(),
            reporter: &Silent,
        };
        let files = || list_folder(folder.path()).expect("list");
        let packed = kept.pack(b"archive").expect("packed");
        assert_eq!(packed, boot::pack(b"archive").expect("packed"));
        let [file] = files().try_into().expect("one file");
        let whole = std::fs::read(&file.path).expect("read");
        for damage in [0, 40, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[damage] ^= 1;
            std::fs::write(&file.path, bytes).expect("write");
            assert_eq!(kept.pack(b"archive").expect("packed"), packed, "{damage}");
            assert_eq!(std::fs::read(&file.path).expect("read"), whole, "{damage}");
        }
        std::fs::write(&file.path, b"short").expect("write");
        assert_eq!(kept.pack(b"archive").expect("packed"), packed);
        for number in 0..20 {
            kept.pack(&[number]).expect("packed");
        }
        assert_eq!(files().len(), KEPT);
    }
}
