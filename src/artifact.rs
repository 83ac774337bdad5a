//! Finished files, and the only way to make one: whole or not at all.
//!
//! In: bytes for a final name. Out: an [`Artifact`]. A file appears under its
//! name complete and synced, or not at all; an older one stays until then.
//! Never here: what is inside the files.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, linkat, open};
use rustix::io::Errno;

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
///
/// Where the file system can (`O_TMPFILE`: ext4, xfs, btrfs, tmpfs, …) the
/// bytes have no name at all until then, so that even a killed process leaves
/// none; elsewhere they have a hidden one.
#[derive(Debug)]
pub struct PendingFile {
    bytes: Bytes,
    folder: PathBuf,
    target: PathBuf,
}

#[derive(Debug)]
enum Bytes {
    Nameless(File),
    Hidden(tempfile::NamedTempFile),
}

impl PendingFile {
    /// Starts a file that will be called `target`, with mode 0600, in the
    /// same folder, which must exist.
    ///
    /// # Errors
    ///
    /// `InvalidInput` where a folder, a device or a pipe has that name, which
    /// nothing may take the place of; and what the creation reports.
    pub fn create(target: &Path) -> io::Result<Self> {
        // `/dev/stdout` leads to a file that has another name.
        let is_own = std::fs::read_link(target).is_ok_and(|there| there.starts_with("/proc"));
        if is_own || std::fs::metadata(target).is_ok_and(|there| !there.is_file()) {
            let what = "there is a folder, a device or a pipe of this name; write to a file, and \
                        copy it there";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let bytes = match nameless(&folder) {
            Ok(file) => Bytes::Nameless(file),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                Bytes::Hidden(hidden().tempfile_in(&folder)?)
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            bytes,
            folder,
            target: target.to_owned(),
        })
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        match &self.bytes {
            Bytes::Nameless(file) => file,
            Bytes::Hidden(file) => file.as_file(),
        }
    }

    /// The open file, for writers that need it mutable.
    pub fn file_mut(&mut self) -> &mut File {
        match &mut self.bytes {
            Bytes::Nameless(file) => file,
            Bytes::Hidden(file) => file.as_file_mut(),
        }
    }

    /// Syncs the bytes, gives them their name (replacing an older file) with
    /// mode 0644, as far as the umask lets it, and syncs the folder.
    ///
    /// # Errors
    ///
    /// What `fsync`, `chmod`, `link` or `rename` report; the old file is then
    /// intact.
    pub fn commit(self) -> io::Result<()> {
        self.commit_as(0o644 & !umask())
    }

    /// The same for its owner alone: mode 0600, at every moment.
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
    pub fn commit_private(self) -> io::Result<()> {
        self.commit_as(0o600)
    }

    fn commit_as(self, mode: u32) -> io::Result<()> {
        self.file().sync_all()?;
        let folder = self.folder.clone();
        self.name_it(mode)?;
        File::open(folder)?.sync_all()
    }

    /// The same without syncs, for a cache whose entries are checked when they
    /// are read: a power cut may leave a torn file under the name.
    ///
    /// # Errors
    ///
    /// What `chmod`, `link` or `rename` report; the old file is then intact.
    pub fn commit_unsynced(self) -> io::Result<()> {
        self.name_it(0o644)
    }

    fn name_it(self, mode: u32) -> io::Result<()> {
        fchmod(self.file(), Mode::from_raw_mode(mode))?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let old = open(&self.target, flags, Mode::empty());
        match self.bytes {
            Bytes::Hidden(file) => {
                file.persist(&self.target).map_err(|error| error.error)?;
            }
            Bytes::Nameless(file) => publish(&file, &self.folder, &self.target)?,
        }
        // Giving back the room of an old image takes a tenth of a second,
        // which nobody needs to wait for.
        if let Ok(old) = old {
            std::thread::spawn(move || drop(old));
        }
        Ok(())
    }
}

/// What new files are not allowed, by `proc_pid_status(5)`: asked in any other
/// way, it would be changed for a moment, in all threads.
fn umask() -> u32 {
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut lines = status.lines();
        let digits = lines.find_map(|line| line.strip_prefix("Umask:"));
        let digits = digits.and_then(|digits| u32::from_str_radix(digits.trim(), 8).ok());
        digits.unwrap_or(0o022)
    })
}

fn hidden() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".consign-").suffix(".part");
    builder
}

fn nameless(folder: &Path) -> Result<File, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(open(folder, flags, Mode::from_raw_mode(0o600))?))
}

/// A link cannot replace a file, and a nameless file cannot be renamed: it
/// gets a hidden name for the moment between the two.
fn publish(file: &File, folder: &Path, target: &Path) -> io::Result<()> {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = hidden().make_in(folder, |name| {
        linkat(CWD, own.as_str(), CWD, name, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from)
    })?;
    let name = link.into_temp_path();
    name.persist(target).map_err(|error| error.error)
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

/// The same in a cache that others may read, whatever the umask: mode 0644.
///
/// # Errors
///
/// As [`write_file`].
pub fn write_shared(target: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let mut pending = PendingFile::create(target)?;
    pending.file_mut().write_all(bytes)?;
    pending.commit_as(0o644)
}

/// Whether two paths lead to one file.
#[must_use]
pub fn is_same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let place = |path: &Path| path.metadata().ok().map(|it| (it.dev(), it.ino()));
    place(one).is_some_and(|one| place(other) == Some(one))
}

/// A small file that is still in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Where it will be.
    pub path: PathBuf,
    /// What it is.
    pub kind: ArtifactKind,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl Draft {
    /// What it will be once it is written.
    #[must_use]
    pub fn artifact(&self) -> Artifact {
        Artifact {
            path: self.path.clone(),
            kind: self.kind,
            size: ByteSize::from_bytes(self.bytes.len() as u64),
            digest: Some(Digest::of(&self.bytes)),
            content_root: None,
        }
    }

    fn pending(&self) -> io::Result<PendingFile> {
        use std::io::Write as _;
        let mut pending = PendingFile::create(&self.path)?;
        pending.file_mut().write_all(&self.bytes)?;
        pending.file().sync_all()?;
        Ok(pending)
    }
}

/// Writes all of `drafts`, each whole or not at all. None appears under its
/// name before all are complete and synced. They are synced at the same time,
/// since a file system makes one commit of that.
///
/// # Errors
///
/// The path of the first one that cannot be written, and why.
pub fn write_drafts(drafts: &[Draft]) -> Result<(), (PathBuf, io::Error)> {
    let failed = |draft: &Draft| {
        let path = draft.path.clone();
        move |error| (path, error)
    };
    let pending = std::thread::scope(|scope| {
        let writers: Vec<_> = drafts
            .iter()
            .map(|draft| scope.spawn(|| draft.pending().map_err(failed(draft))))
            .collect();
        let died = |_| Err((PathBuf::new(), io::Error::other("a writing thread died")));
        let results = writers.into_iter().map(|it| it.join().unwrap_or_else(died));
        results.collect::<Result<Vec<_>, _>>()
    })?;
    let mut folders: Vec<PathBuf> = Vec::new();
    for (pending, draft) in pending.into_iter().zip(drafts) {
        if !folders.contains(&pending.folder) {
            folders.push(pending.folder.clone());
        }
        let mode = 0o644 & !umask();
        pending.name_it(mode).map_err(failed(draft))?;
    }
    for folder in folders {
        let synced = File::open(&folder).and_then(|open| open.sync_all());
        synced.map_err(|error| (folder, error))?;
    }
    Ok(())
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "only the number of entries counts"
)]
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

    #[test]
    fn what_is_no_file_stays_what_it_is() {
        let folder = tempfile::tempdir().expect("folder");
        let pipe = folder.path().join("pipe");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&pipe, &link).expect("a link");
        for target in [&pipe, &link, folder.path(), Path::new("/dev/null")] {
            let error = write_file(target, b"x").expect_err("no file");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
        assert!(!pipe.metadata().expect("there").is_file());
        // A link to nothing is a free name.
        std::fs::remove_file(&pipe).expect("removed");
        write_file(&link, b"x").expect("written");
    }

    #[test]
    fn drafts_appear_together_or_not_at_all() {
        let folder = tempfile::tempdir().expect("folder");
        let draft = |name: &str| Draft {
            path: folder.path().join(name),
            kind: ArtifactKind::Text,
            bytes: name.as_bytes().to_vec(),
        };
        let (path, _) = write_drafts(&[draft("a"), draft("missing/b")]).expect_err("no folder");
        assert_eq!(path, folder.path().join("missing/b"));
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 0);
        let drafts = [draft("a"), draft("b")];
        write_drafts(&drafts).expect("written");
        for draft in &drafts {
            assert_eq!(std::fs::read(&draft.path).expect("read"), draft.bytes);
            assert_eq!(draft.artifact().digest, Some(Digest::of(&draft.bytes)));
        }
    }
}
