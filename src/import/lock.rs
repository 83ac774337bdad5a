//! One `virt-image` at a time works on a guest: a file beside its folder is
//! locked while one does, and is gone with it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::error::ImportError;

/// Held while a guest's files change.
#[derive(Debug)]
pub(super) struct Lock {
    /// The file, locked; none where there is no folder to change anything in.
    held: Option<(File, PathBuf)>,
    /// Folders that were made for it, the innermost last.
    made: Vec<PathBuf>,
}

impl Lock {
    fn none() -> Self {
        Self {
            held: None,
            made: Vec::new(),
        }
    }

    /// Locks the guest of this folder.
    ///
    /// # Errors
    ///
    /// [`ImportError::Busy`] when another process has it; `Folder` when the
    /// file cannot be made.
    pub(super) fn take(folder: &Path, name: &str) -> Result<Self, ImportError> {
        let path = folder.with_file_name(format!(".{name}.consign-lock"));
        let busy = || ImportError::Busy {
            name: name.to_owned(),
            lock: path.clone(),
        };
        let failed = |error: Errno| ImportError::Folder {
            path: folder.to_owned(),
            source: error.into(),
        };
        // A lock on a file of NFS needs one that is open for writing; on a file
        // of somebody else's, reading has to do.
        let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let open = |access| rustix::fs::open(&path, flags | access, mode);
        loop {
            let opened = match open(OFlags::RDWR | OFlags::CREATE) {
                Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) if path.is_file() => {
                    open(OFlags::RDONLY)
                }
                opened => opened,
            };
            let file = match opened {
                Ok(file) => File::from(file),
                // Somebody else's, who is there or was killed.
                Err(Errno::ACCESS | Errno::PERM) if path.symlink_metadata().is_ok() => {
                    return Err(busy());
                }
                // Nobody has the lock: it is not there. Where none can be made,
                // most of what would be done fails by itself, and what does not
                // (making room) must not depend on room for it.
                Err(
                    Errno::ACCESS
                    | Errno::PERM
                    | Errno::ROFS
                    | Errno::NOENT
                    | Errno::NOTDIR
                    | Errno::NOSPC
                    | Errno::DQUOT,
                ) => {
                    return Ok(Self::none());
                }
                Err(error) => return Err(failed(error)),
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(busy()),
                // There are no locks on this file system: none is to be had.
                Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF) => {
                    drop(fs::remove_file(&path));
                    return Ok(Self::none());
                }
                Err(error) => return Err(failed(error)),
            }
            // Whoever had it may have removed it since it was opened.
            let of = |found: &fs::Metadata| (found.dev(), found.ino());
            let locked = file.metadata().map(|found| of(&found)).ok();
            let there = path.symlink_metadata().map(|found| of(&found)).ok();
            if locked.is_some() && locked == there {
                let mut lock = Self::none();
                lock.held = Some((file, path));
                return Ok(lock);
            }
        }
    }

    /// As [`Self::take`], in a storage that may have to be made first.
    ///
    /// # Errors
    ///
    /// As [`Self::take`]; `Folder` too when the storage cannot be made.
    pub(super) fn make(folder: &Path, name: &str) -> Result<Self, ImportError> {
        let missing: Vec<&Path> = folder
            .ancestors()
            .skip(1)
            .take_while(|parent| !parent.as_os_str().is_empty() && !parent.exists())
            .collect();
        // Dropped, it takes back what was made by then.
        let mut lock = Self::none();
        for parent in missing.into_iter().rev() {
            match fs::create_dir(parent) {
                Ok(()) => lock.made.push(parent.to_owned()),
                // By another import, meanwhile.
                Err(_) if parent.is_dir() => {}
                Err(source) => {
                    return Err(ImportError::Folder {
                        path: folder.to_owned(),
                        source,
                    });
                }
            }
        }
        lock.held = Self::take(folder, name)?.held.take();
        if lock.held.is_none() && folder.parent().is_some_and(|parent| !parent.exists()) {
            // Another import made the storage, and took it back.
            return Self::make(folder, name);
        }
        Ok(lock)
    }

    /// As [`Self::take`], unless this one is on the same place by another name.
    ///
    /// # Errors
    ///
    /// As [`Self::take`].
    pub(super) fn take_too(&self, folder: &Path, name: &str) -> Result<Self, ImportError> {
        let of = |path: &Path| {
            let parent = path.parent()?.metadata().ok()?;
            Some((parent.dev(), parent.ino(), path.file_name()?.to_owned()))
        };
        let asked = folder.with_file_name(format!(".{name}.consign-lock"));
        match &self.held {
            Some((_, path)) if of(path).is_some() && of(path) == of(&asked) => Ok(Self::none()),
            _ => Self::take(folder, name),
        }
    }

    /// The guest's files change no more.
    pub(super) fn release(self) {
        drop(self);
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some((file, path)) = self.held.take() {
            // While it is locked, so that it is nobody else's.
            drop(fs::remove_file(path));
            drop(file);
        }
        for folder in self.made.drain(..).rev() {
            // Still empty, or in use.
            drop(fs::remove_dir(folder));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::list_folder;

    #[test]
    fn one_at_a_time_has_a_guest_and_nothing_is_left() {
        let storage = tempfile::tempdir().expect("a folder");
        let folder = storage.path().join("deep/er/x");
        let none = Lock::take(&folder, "x").expect("nothing to lock");
        assert!(none.held.is_none() && !storage.path().join("deep").exists());
        let lock = Lock::make(&folder, "x").expect("it is free");
        for second in [Lock::take(&folder, "x"), Lock::make(&folder, "x")] {
            assert_eq!(second.expect_err("it is taken").slug(), "import-busy");
        }
        let other = folder.with_file_name("y");
        let second = Lock::make(&other, "y").expect("another guest");
        lock.release();
        assert!(folder.with_file_name(".y.consign-lock").exists());
        second.release();
        // The last one did not make the folders, and leaves them.
        assert_eq!(
            list_folder(&storage.path().join("deep/er"))
                .expect("a folder")
                .len(),
            0
        );
    }

    #[test]
    fn a_place_with_two_names_is_locked_once() {
        let storage = tempfile::tempdir().expect("a folder");
        let (place, other) = (storage.path().join("place"), storage.path().join("other"));
        fs::create_dir(&place).expect("a folder");
        std::os::unix::fs::symlink(&place, &other).expect("a link");
        let lock = Lock::take(&place.join("x"), "x").expect("it is free");
        let again = lock.take_too(&other.join("x"), "x").expect("it is ours");
        assert!(again.held.is_none());
        drop(again);
        assert!(Lock::take(&other.join("x"), "x").is_err());
        let elsewhere = lock.take_too(&storage.path().join("x"), "x");
        assert!(elsewhere.expect("it is free").held.is_some());
    }

    #[test]
    fn a_lock_that_was_left_by_a_kill_is_free() {
        let storage = tempfile::tempdir().expect("a folder");
        let folder = storage.path().join("x");
        fs::write(folder.with_file_name(".x.consign-lock"), "").expect("written");
        drop(Lock::take(&folder, "x").expect("nobody has it"));
        assert_eq!(list_folder(storage.path()).expect("a folder").len(), 0);
    }

    #[test]
    fn many_at_once_never_have_it_together() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let storage = tempfile::tempdir().expect("a folder");
        let folder = storage.path().join("x");
        let (inside, times) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let Ok(lock) = Lock::take(&folder, "x") else {
                            continue;
                        };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        times.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        lock.release();
                    }
                });
            }
        });
        assert!(times.into_inner() > 0);
        assert_eq!(list_folder(storage.path()).expect("a folder").len(), 0);
    }
}
