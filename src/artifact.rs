//! Finished files, and the only way to make one: whole or not at all.
//!
//! In: bytes for a final name. Out: an [`Artifact`]. A file appears under its
//! name complete and synced, or not at all; an older one stays until then.
//! Never here: what is inside the files.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::{ContentRoot, Digest};
use crate::units::ByteSize;

/// A file that a build leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub kind: ArtifactKind,
    /// Its length, holes included.
    pub size: ByteSize,
    /// Digest of the whole file; `None` for a raw disk unless it was asked for.
    pub digest: Option<Digest>,
    /// Of a disk: the root over its logical content.
    pub content_root: Option<ContentRoot>,
}

impl Artifact {
    /// The last component of the path. Artifact names are ASCII by the plan.
    #[must_use]
    pub fn file_name(&self) -> String {
        self.path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }
}

/// What an [`Artifact`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ArtifactKind {
    /// A disk image.
    Disk,
    /// A machine descriptor.
    Descriptor,
    /// Kernel, initramfs or command line for loaders on the host.
    DirectBoot,
    /// Text for people.
    Text,
    /// `SHA256SUMS`.
    Sums,
}

/// A file in the making. Dropped before [`commit`](Self::commit), it leaves nothing.
#[derive(Debug)]
pub struct PendingFile {
    temporary: tempfile::NamedTempFile,
    target: PathBuf,
}

impl PendingFile {
    /// Starts a file that will be called `target`. The bytes go to a hidden
    /// file, mode 0600, in the same folder, which must exist.
    ///
    /// # Errors
    ///
    /// What the creation of the hidden file reports.
    pub fn create(target: &Path) -> io::Result<Self> {
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let temporary = tempfile::Builder::new()
            .prefix(".consign-")
            .suffix(".part")
            .tempfile_in(folder)?;
        Ok(Self {
            temporary,
            target: target.to_owned(),
        })
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        self.temporary.as_file()
    }

    /// The open file, for writers that need it mutable.
    pub fn file_mut(&mut self) -> &mut File {
        self.temporary.as_file_mut()
    }

    /// Where the bytes are until then, for programs that read by path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Syncs the bytes, gives them their name (replacing an older file) with
    /// mode 0644 and syncs the folder.
    ///
    /// # Errors
    ///
    /// What `fsync`, `chmod` or `rename` report; the old file is then intact.
    pub fn commit(self) -> io::Result<()> {
        use rustix::fs::{Mode, fchmod};
        fchmod(self.temporary.as_file(), Mode::from_raw_mode(0o644))?;
        self.temporary.as_file().sync_all()?;
        let folder = self.temporary.path().parent().map(Path::to_owned);
        self.temporary
            .persist(&self.target)
            .map_err(|error| error.error)?;
        if let Some(folder) = folder {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

impl PendingFile {
    /// Gives the bytes their name without a sync, mode 0600: for caches that
    /// check what they read, and lose nothing but time.
    ///
    /// # Errors
    ///
    /// What `rename` reports; the old file is then intact.
    pub fn commit_unsynced(self) -> io::Result<()> {
        let kept = self.temporary.persist(&self.target);
        kept.map(drop).map_err(|error| error.error)
    }
}

/// Writes `bytes` to `target`, whole or not at all.
///
/// # Errors
///
/// As [`PendingFile`]; the error does not name the file, the caller does.
pub fn write_file(target: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let mut pending = PendingFile::create(target)?;
    pending.file_mut().write_all(bytes)?;
    pending.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_file_leaves_nothing() {
        let folder = tempfile::tempdir().expect("folder");
        let target = folder.path().join("disk.raw");
        drop(PendingFile::create(&target).expect("create"));
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 0);
    }

    #[test]
    fn a_committed_file_replaces_the_old_one() {
        let folder = tempfile::tempdir().expect("folder");
        let target = folder.path().join("disk.raw");
        write_file(&target, b"old").expect("old");
        write_file(&target, b"new").expect("new");
        assert_eq!(std::fs::read(&target).expect("read"), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 1);
    }
}
