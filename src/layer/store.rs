//! The store: configured layers by key, shared by every build on the machine.
//!
//! ```text
//! layers/<key>.json        which tar the key stands for, with which packages
//! blobs/sha256/<diff id>   uncompressed tar streams
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

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::LayerError;
use super::spec::PackagePin;
use crate::artifact::write_file;
use crate::digest::{DiffId, Digest, Hasher, LayerKey};
use crate::report::Reporter;
use crate::tree::{Blob, list_folder};

/// Version of [`Record`].
const RECORD_FORMAT: u32 = 1;
/// Longest record: some thousand packages.
const MAX_RECORD: u64 = 64 << 20;

/// What the store knows about a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Version of this form.
    format: u32,
    /// The key that it is filed under.
    pub key: LayerKey,
    /// Its tar.
    pub diff_id: DiffId,
    /// Length of the tar in bytes.
    pub size: u64,
    /// The packages that it brought.
    pub packages: Vec<PackagePin>,
}

impl Record {
    /// A record in today's form.
    #[must_use]
    pub fn new(key: LayerKey, diff_id: DiffId, size: u64, packages: Vec<PackagePin>) -> Self {
        Self {
            format: RECORD_FORMAT,
            key,
            diff_id,
            size,
            packages,
        }
    }
}

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
        let path = self.record_path(key);
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(file) => file
                .take(MAX_RECORD)
                .read_to_end(&mut bytes)
                .map_err(failed("read", &path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("open", &path)(source)),
        };
        // What is not a record of ours, whole and of this format, is a miss.
        Ok(serde_json::from_slice::<Record>(&bytes)
            .ok()
            .filter(|record| record.format == RECORD_FORMAT && record.key == *key))
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
        let Some(record) = self.record(key)? else {
            return Ok(None);
        };
        let path = self.blob_path(&record.diff_id);
        let blob = match Blob::open(&path) {
            Ok(blob) => blob,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("open", &path)(source)),
        };
        let found = digest_of(blob.file()).map_err(failed("read", &path))?;
        if found == record.diff_id.0 {
            return Ok(Some((record, blob)));
        }
        reporter.warn(
            format!(
                "the cached layer `{}` has been damaged (its digest is {found}) and is made again",
                record.diff_id
            ),
            Some("look at the disk if this comes again"),
        );
        for path in [path, self.record_path(key)] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(None)
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
        let bytes = serde_json::to_vec_pretty(record).map_err(io::Error::other);
        bytes
            .and_then(|bytes| write_file(&path, &bytes))
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

    /// Workplaces that builds left behind when they were killed.
    ///
    /// # Errors
    ///
    /// [`LayerError::Store`] when the folder cannot be listed.
    pub fn abandoned(&self) -> Result<Vec<PathBuf>, LayerError> {
        let work = self.folder.join("work");
        let mut abandoned = Vec::new();
        for entry in list_folder(&work).map_err(failed("list", &work))? {
            let lock = match File::open(entry.path.join(ALIVE)) {
                Ok(lock) => lock,
                // Made a moment ago, or half removed: only an empty or
                // lockless folder that is old would be in the way.
                Err(_) if is_young(&entry) => continue,
                Err(_) => {
                    abandoned.push(entry.path);
                    continue;
                }
            };
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
                abandoned.push(entry.path);
            }
        }
        Ok(abandoned)
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

/// Whether the folder has no lock because its build has just begun: it then
/// holds nothing.
fn is_young(entry: &crate::tree::HostEntry) -> bool {
    list_folder(&entry.path).is_ok_and(|inside| inside.is_empty())
}

fn lock_file(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
}

fn digest_of(mut file: &File) -> io::Result<Digest> {
    use io::Seek as _;
    file.rewind()?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(buffer.split_at(count).0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
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
        let record = Record::new(key("k"), DiffId(Digest::of(b"a tar")), 5, vec![]);
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

    #[test]
    fn a_poisoned_object_is_dropped_and_said() {
        let (_folder, store, record) = filled();
        let blob = store.blob_path(&record.diff_id);
        let mut file = File::options().write(true).open(&blob).expect("open");
        file.rewind().expect("seek");
        file.write_all(b"A").expect("write");
        let recorder = Recorder::default();
        assert!(store.find(&record.key, &recorder).expect("ok").is_none());
        assert!(matches!(&recorder.events()[..], [Event::Warning { .. }]));
        assert!(!blob.exists() && store.record(&record.key).expect("ok").is_none());
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
        assert_eq!(store.abandoned().expect("list"), Vec::<PathBuf>::new());
        let path = workplace.folder().to_owned();
        drop(workplace);
        assert_eq!(store.abandoned().expect("list"), [path]);
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
