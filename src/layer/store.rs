//! The store: configured layers by key, shared by every build on the machine.
//!
//! ```text
//! layers/<key>.json        which tar the key stands for, with which packages
//! blobs/sha256/<diff id>   uncompressed tar streams
//! plain/<digest of a .deb>  packages, uncompressed (`package/plain.rs`)
//! locks/<key>              taken while the layer is being made
//! work/                    roots in the making, of builds that live
//! ```
//!
//! A file appears under its name whole or not at all. A tar is digested
//! whenever it is opened: one that does not fit its name is dropped, said,
//! and made again. That is also why tars are not synced: what a power cut
//! tears is found by its digest, and a build saves the seconds.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::LayerError;
pub(super) use super::record::MAX_RECORD;
pub use super::record::Record;
use crate::artifact::write_shared;
use crate::digest::{DiffId, Digest, LayerKey};
use crate::report::Reporter;
use crate::tree::{Blob, list_folder};
use rustix::fs::{FlockOperation, flock};

/// A store in its folder.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// Held while a layer is being made; dropped, it lets the next one in.
#[derive(Debug)]
pub struct KeyLock {
    _file: File,
}

impl Store {
    /// Opens the store in `folder`, making what is missing.
    ///
    /// # Errors
    ///
    /// [`LayerError::Store`] when a folder cannot be made.
    pub fn open(folder: &Path) -> Result<Self, LayerError> {
        for name in ["layers", "blobs/sha256", "locks", "work"] {
            let path = folder.join(name);
            std::fs::create_dir_all(&path).map_err(failed("make the folder", &path))?;
        }
        let work = folder.join("work");
        // Roots in the making hold set-user-id programs: nobody else may enter.
        rustix::fs::chmod(&work, rustix::fs::Mode::RWXU)
            .map_err(io::Error::from)
            .map_err(failed("protect", &work))?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// The store's folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the tar `diff_id` is, or would be.
    #[must_use]
    pub fn blob_path(&self, diff_id: &DiffId) -> PathBuf {
        self.folder.join("blobs/sha256").join(diff_id.0.hex())
    }

    /// Where the uncompressed form of a .deb is, or would be.
    pub(super) fn plain_path(&self, deb: &Digest) -> PathBuf {
        self.folder.join("plain").join(deb.hex())
    }

    fn record_path(&self, key: &LayerKey) -> PathBuf {
        let name = format!("{}.json", key.0.hex());
        self.folder.join("layers").join(name)
    }

    /// The record of `key`, without a look at its tar.
    ///
    /// # Errors
    ///
    /// [`LayerError::Store`] when it is there but cannot be read.
    pub fn record(&self, key: &LayerKey) -> Result<Option<Record>, LayerError> {
        Ok(match self.look_up(key)? {
            Entry::Found(record) => Some(record),
            Entry::Missing | Entry::Damaged => None,
        })
    }

    fn look_up(&self, key: &LayerKey) -> Result<Entry, LayerError> {
        let path = self.record_path(key);
        let Some(file) = open_plain(&path).map_err(failed("open", &path))? else {
            return Ok(Entry::missing_or_damaged(&path));
        };
        let mut bytes = Vec::new();
        file.take(MAX_RECORD)
            .read_to_end(&mut bytes)
            .map_err(failed("read", &path))?;
        let record = serde_json::from_slice::<Record>(&bytes).ok();
        // What is not a record of ours, whole and of this format, is a miss.
        let record = record.filter(|record| record.key == *key && record.is_whole());
        Ok(record.map_or(Entry::Damaged, |mut record| {
            record.check = None;
            Entry::Found(record)
        }))
    }

    /// The layer of `key` with its tar, digested anew. A tar that does not fit
    /// its name is dropped with the record, and that is said.
    ///
    /// # Errors
    ///
    /// [`LayerError::Store`] when the store cannot be read.
    pub fn find(
        &self,
        key: &LayerKey,
        reporter: &dyn Reporter,
    ) -> Result<Option<(Record, Arc<Blob>)>, LayerError> {
        let Some((record, blob)) = self.find_unproven(key, reporter)? else {
            return Ok(None);
        };
        let is_whole = record.is_of(blob.file());
        if is_whole.map_err(failed("read", blob.path()))? {
            return Ok(Some((record, blob)));
        }
        self.discard(key, &record.diff_id, reporter)?;
        Ok(None)
    }

    /// The same before anybody has looked at the tar's bytes.
    pub(super) fn find_unproven(
        &self,
        key: &LayerKey,
        reporter: &dyn Reporter,
    ) -> Result<Option<(Record, Arc<Blob>)>, LayerError> {
        let record = match self.look_up(key)? {
            Entry::Missing => return Ok(None),
            Entry::Damaged => {
                warn_damaged(&format!("cache's record `{}`", key.0.hex()), reporter);
                let path = self.record_path(key);
                drop_object(&path).map_err(failed("remove", &path))?;
                return Ok(None);
            }
            Entry::Found(record) => record,
        };
        let path = self.blob_path(&record.diff_id);
        if !path.is_symlink() && !path.exists() {
            return Ok(None);
        }
        let Some(file) = open_plain(&path).map_err(failed("open", &path))? else {
            self.discard(key, &record.diff_id, reporter)?;
            return Ok(None);
        };
        self.mark_used(key);
        Ok(Some((record, Blob::from_file(file, &path))))
    }

    /// Drops the tar `diff_id`, which is not what its name says, with its record.
    pub(super) fn discard(
        &self,
        key: &LayerKey,
        diff_id: &DiffId,
        reporter: &dyn Reporter,
    ) -> Result<(), LayerError> {
        warn_damaged(&format!("cached layer `{diff_id}`"), reporter);
        for path in [self.blob_path(diff_id), self.record_path(key)] {
            drop_object(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }

    /// Says by the record's time that the layer is in use. Where that is not
    /// allowed, the layer only looks older than it is.
    fn mark_used(&self, key: &LayerKey) {
        use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        let _marked = utimensat(CWD, self.record_path(key), &times, AtFlags::empty());
    }

    /// The file whose lock says that the store is in use.
    pub(super) fn use_lock(&self) -> Result<File, LayerError> {
        let path = self.folder.join("locks/in-use");
        lock_file(&path).map_err(failed("make the lock", &path))
    }

    /// Held while a build takes things from the store and puts some in, by
    /// any number of builds at once: nothing is trimmed from under them.
    ///
    /// # Errors
    ///
    /// [`LayerError::Store`] when the lock cannot be made or taken.
    pub fn in_use(&self) -> Result<KeyLock, LayerError> {
        let file = self.use_lock()?;
        let path = self.folder.join("locks/in-use");
        flock(&file, FlockOperation::LockShared)
            .map_err(io::Error::from)
            .map_err(failed("lock", &path))?;
        Ok(KeyLock { _file: file })
    }

    /// Takes a finished tar from `file` under its digest, and files `record`.
    ///
    /// # Errors
    ///
    /// [`LayerError::Store`]; nothing is filed then.
    pub fn admit(&self, record: &Record, file: &Path) -> Result<Arc<Blob>, LayerError> {
        use rustix::fs::{Mode, chmod};
        let target = self.blob_path(&record.diff_id);
        chmod(file, Mode::from_raw_mode(0o644))
            .map_err(io::Error::from)
            .and_then(|()| std::fs::rename(file, &target))
            .map_err(failed("store", &target))?;
        let blob = Blob::open(&target).map_err(failed("open", &target))?;
        let path = self.record_path(&record.key);
        let sealed = record.sealed();
        let bytes = sealed.and_then(|record| serde_json::to_vec_pretty(&record));
        let bytes = bytes.map_err(io::Error::other);
        bytes
            .and_then(|bytes| write_shared(&path, &bytes))
            .map_err(failed("write", &path))?;
        Ok(blob)
    }

    /// Waits until no other build makes the layer of `key`; `waiting` is
    /// called first when one does.
    ///
    /// # Errors
    ///
    /// [`LayerError::Store`] when the lock file cannot be made or locked.
    pub fn lock(&self, key: &LayerKey, waiting: impl FnOnce()) -> Result<KeyLock, LayerError> {
        let path = self.folder.join("locks").join(key.0.hex());
        let file = lock_file(&path).map_err(failed("make the lock", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                waiting();
                flock(&file, FlockOperation::LockExclusive)
                    .map_err(io::Error::from)
                    .map_err(failed("lock", &path))?;
            }
            Err(error) => return Err(failed("lock", &path)(error.into())),
        }
        Ok(KeyLock { _file: file })
    }

    /// A folder of its own for a root in the making. It holds a lock that
    /// says whether its build still lives.
    ///
    /// # Errors
    ///
    /// [`LayerError::Store`].
    pub fn workplace(&self) -> Result<Workplace, LayerError> {
        let work = self.folder.join("work");
        // A folder without its lock is never seen by others.
        let _door = work_door(&work, FlockOperation::LockShared)?;
        let folder = tempfile::Builder::new()
            .prefix("build-")
            .tempdir_in(&work)
            .map_err(failed("make a folder in", &work))?
            .keep();
        let path = folder.join(ALIVE);
        let lock = lock_file(&path)
            .and_then(|lock| Ok(flock(&lock, FlockOperation::LockExclusive).map(|()| lock)?))
            .map_err(failed("lock", &path))?;
        Ok(Workplace {
            folder,
            _lock: lock,
        })
    }

    /// Workplaces that builds left behind when they were killed. Each is
    /// locked, so that one build at a time removes it.
    ///
    /// # Errors
    ///
    /// [`LayerError::Store`] when the folder cannot be listed.
    pub fn abandoned(&self) -> Result<Vec<Abandoned>, LayerError> {
        let work = self.folder.join("work");
        let _door = work_door(&work, FlockOperation::LockExclusive)?;
        let mut abandoned = Vec::new();
        for entry in list_folder(&work).map_err(failed("list", &work))? {
            // Killed before it was locked, or half removed: it has no lock yet.
            let lock = lock_file(&entry.path.join(ALIVE)).ok();
            let is_alive = lock
                .as_ref()
                .is_some_and(|lock| flock(lock, FlockOperation::NonBlockingLockExclusive).is_err());
            if !is_alive {
                let folder = entry.path;
                abandoned.push(Abandoned {
                    folder,
                    _lock: lock,
                });
            }
        }
        Ok(abandoned)
    }
}

/// What the store has under a key.
enum Entry {
    Missing,
    /// Something that is no record.
    Damaged,
    Found(Record),
}

impl Entry {
    /// Of what could not be opened as a plain file.
    fn missing_or_damaged(path: &Path) -> Self {
        if path.is_symlink() || path.exists() {
            Self::Damaged
        } else {
            Self::Missing
        }
    }
}

/// Opens a plain file; `None` when there is none, or something else.
fn open_plain(path: &Path) -> io::Result<Option<File>> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => {
            let file = File::from(fd);
            Ok(file.metadata()?.is_file().then_some(file))
        }
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn warn_damaged(what: &str, reporter: &dyn Reporter) {
    reporter.warn(
        format!("the {what} has been damaged and is made again"),
        Some("look at the disk if this comes again"),
    );
}

/// Removes whatever took the place of an object.
fn drop_object(path: &Path) -> io::Result<()> {
    let is_folder = path.symlink_metadata().is_ok_and(|found| found.is_dir());
    let removed = if is_folder {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Held by builds while they make a workplace, and by one that looks for
/// abandoned ones.
fn work_door(work: &Path, operation: FlockOperation) -> Result<File, LayerError> {
    let door = File::open(work).map_err(failed("open", work))?;
    flock(&door, operation)
        .map_err(io::Error::from)
        .map_err(failed("lock", work))?;
    Ok(door)
}

/// A workplace whose build is gone.
#[derive(Debug)]
pub struct Abandoned {
    folder: PathBuf,
    _lock: Option<File>,
}

impl Abandoned {
    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The lock file in a workplace.
const ALIVE: &str = "alive";

/// A folder for a root in the making. Removing it is the sandbox's work,
/// since it may hold files of subordinate users.
#[derive(Debug)]
pub struct Workplace {
    folder: PathBuf,
    _lock: File,
}

impl Workplace {
    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn lock_file(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> LayerError + 'a {
    move |source| LayerError::Store {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;
    use crate::digest::KeptDigest;
    use crate::layer::tar::TarSum;
    use crate::report::{Event, Recorder, Silent};

    fn key(text: &str) -> LayerKey {
        LayerKey(Digest::of(text.as_bytes()))
    }

    fn filled() -> (tempfile::TempDir, Store, Record) {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(folder.path()).expect("store");
        let workplace = store.workplace().expect("workplace");
        let tar = workplace.folder().join("layer.tar");
        std::fs::write(&tar, b"a tar").expect("write");
        let file = File::open(&tar).expect("open");
        let sum = TarSum {
            diff_id: DiffId(Digest::of(b"a tar")),
            kept: KeptDigest::of_file(&file).expect("read"),
            size: 5,
        };
        let record = Record::new(key("k"), sum, vec![]);
        store.admit(&record, &tar).expect("admit");
        (folder, store, record)
    }

    #[test]
    fn what_was_admitted_is_found() {
        let (_folder, store, record) = filled();
        let (found, _) = store
            .find(&record.key, &Silent)
            .expect("readable")
            .expect("there");
        assert_eq!(found, record);
        assert!(store.find(&key("other"), &Silent).expect("ok").is_none());
    }

    /// Files the record anew, in a form that it was not filed in.
    fn file(store: &Store, record: &Record) {
        let sealed = record.sealed().expect("JSON");
        let text = serde_json::to_vec(&sealed).expect("JSON");
        std::fs::write(store.record_path(&record.key), text).expect("write");
    }

    #[test]
    fn a_poisoned_object_is_dropped_and_said() {
        for has_kept in [true, false] {
            let (_folder, store, mut record) = filled();
            if !has_kept {
                record = record.for_others();
                file(&store, &record);
                assert!(store.find(&record.key, &Silent).expect("ok").is_some());
            }
            let blob = store.blob_path(&record.diff_id);
            let mut file = File::options().write(true).open(&blob).expect("open");
            file.rewind().expect("seek");
            file.write_all(b"A").expect("write");
            let recorder = Recorder::default();
            assert!(store.find(&record.key, &recorder).expect("ok").is_none());
            assert!(matches!(&recorder.events()[..], [Event::Warning { .. }]));
            assert!(!blob.exists() && store.record(&record.key).expect("ok").is_none());
        }
    }

    #[test]
    fn the_kept_digest_is_what_proves_a_tar() {
        let (folder, store, mut record) = filled();
        let other = folder.path().join("other");
        std::fs::write(&other, b"another tar").expect("write");
        let other = File::open(&other).expect("open");
        record.kept = Some(KeptDigest::of_file(&other).expect("read"));
        file(&store, &record);
        let verified = crate::layer::upkeep::verify(&store, &Silent).expect("readable");
        let problems: Vec<_> = verified
            .dropped
            .iter()
            .map(|found| &found.problem)
            .collect();
        assert_eq!(problems, ["its record is of another tar"]);
        file(&store, &record);
        assert!(store.find(&record.key, &Silent).expect("ok").is_none());
    }

    #[test]
    fn a_torn_or_swapped_record_is_a_miss() {
        let (_folder, store, record) = filled();
        let path = store.record_path(&record.key);
        let whole = std::fs::read(&path).expect("read");
        std::fs::copy(&path, store.record_path(&key("other"))).expect("copy");
        assert!(store.find(&key("other"), &Silent).expect("ok").is_none());
        for length in [0, 1, whole.len() - 2] {
            std::fs::write(&path, &whole[..length]).expect("write");
            assert!(store.find(&record.key, &Silent).expect("ok").is_none());
        }
    }

    #[test]
    fn a_workplace_is_abandoned_once_its_build_is_gone() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(folder.path()).expect("store");
        let workplace = store.workplace().expect("workplace");
        assert!(store.abandoned().expect("list").is_empty());
        let path = workplace.folder().to_owned();
        drop(workplace);
        // Killed before it had its lock.
        let empty = folder.path().join("work/build-empty");
        std::fs::create_dir(&empty).expect("folder");
        let found = store.abandoned().expect("list");
        let mut folders: Vec<&Path> = found.iter().map(Abandoned::folder).collect();
        folders.sort();
        let mut wanted = [path.as_path(), empty.as_path()];
        wanted.sort();
        assert_eq!(folders, wanted);
        // One build at a time.
        assert!(store.abandoned().expect("list").is_empty());
    }

    #[test]
    fn a_layer_is_made_by_one_build_at_a_time() {
        let folder = tempfile::tempdir().expect("folder");
        let store = Store::open(folder.path()).expect("store");
        let held = store.lock(&key("k"), || panic!("free")).expect("lock");
        let waited = std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let mut waited = false;
                store.lock(&key("k"), || waited = true).expect("lock");
                waited
            });
            std::thread::sleep(std::time::Duration::from_millis(100));
            drop(held);
            waiter.join().expect("joins")
        });
        assert!(waited);
    }
}
