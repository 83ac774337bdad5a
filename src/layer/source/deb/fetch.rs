//! Pinned packages, from the mirrors to verified files in the cache.
//!
//! In: pins of the lock. Out: the path of each package's file, whose bytes
//! have the pinned size and digest. A file is written under a hidden name,
//! hashed while it arrives, and gets its own name only when it is right; a
//! file of the cache is hashed again before it is used, and dropped when it
//! is not what its name says. Several packages at once.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::digest::{Digest, Hasher};
use crate::layer::spec::PackagePin;
use crate::report::{Outcome, Reporter};
use crate::units::ByteSize;

use super::error::SourceError;
use super::transport::{GetError, Sink};
use super::{Access, Repository};

/// Where the cache has them.
const FOLDER: &str = "debs";
/// Downloads at the same time.
pub(super) const CONNECTIONS: usize = 6;
/// The step's name in events.
const STEP: &str = "fetch";
/// A progress event for about this many bytes.
const PROGRESS_BYTES: u64 = 512 * 1024;

/// Brings every pinned package into the cache; gives their paths, in the
/// order of `pins`.
///
/// # Errors
///
/// [`SourceError::Gone`], [`SourceError::WrongDigest`],
/// [`SourceError::WrongSize`], [`SourceError::StrayPin`],
/// [`SourceError::Offline`], [`SourceError::Cache`], and those of the network.
pub fn fetch(
    pins: &[PackagePin],
    repositories: &[Repository],
    access: &Access<'_>,
) -> Result<Vec<PathBuf>, SourceError> {
    let folder = access.cache.join(FOLDER);
    std::fs::create_dir_all(&folder).map_err(|source| SourceError::Cache {
        path: folder.clone(),
        source,
    })?;
    fetch_named(pins, repositories, access, &folder, &PACKAGES)
}

/// What pins are of: names of their files, and words of messages.
pub(super) struct Kind {
    /// The name of a pin's file in the folder.
    pub(super) name: fn(&PackagePin) -> PathBuf,
    /// What a pin is.
    pub(super) one: &'static str,
    /// What several of them are.
    pub(super) several: &'static str,
    /// Where the folder is said to be, behind the name of a file or alone.
    pub(super) place: &'static str,
    /// Who says digests and sizes: `signed` or `locked`.
    pub(super) by: &'static str,
}

/// Packages in the cache.
const PACKAGES: Kind = Kind {
    name: deb_name,
    one: "package",
    several: "packages",
    place: "in the cache",
    by: "locked",
};

/// The same into any folder; what is in the folder already counts as the
/// cache. Folders in names have to be there.
pub(super) fn fetch_named(
    pins: &[PackagePin],
    repositories: &[Repository],
    access: &Access<'_>,
    folder: &Path,
    kind: &Kind,
) -> Result<Vec<PathBuf>, SourceError> {
    let job = Job {
        pins,
        repositories,
        access,
        folder: folder.to_owned(),
        kind,
        next: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
        downloads: AtomicUsize::new(0),
        progress: Progress::new(pins, access.reporter),
        failure: Mutex::new(None),
    };
    access.reporter.started(STEP);
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS.min(pins.len()) {
            scope.spawn(|| job.work());
        }
    });
    let failure = job
        .failure
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some((_, error)) = failure {
        return Err(error);
    }
    let total = ByteSize::from_bytes(job.progress.total);
    let (outcome, verb) = match job.downloads.into_inner() {
        0 => (Outcome::Cached, format!("{} and checked", kind.place)),
        count => (Outcome::Done, format!("{count} of them downloaded")),
    };
    let detail = format!("{} {}, {total}, {verb}", pins.len(), kind.several);
    access.reporter.finished(STEP, outcome, detail);
    let path = |pin| job.folder.join((kind.name)(pin));
    Ok(pins.iter().map(path).collect())
}

/// Whether the cache has a file for the pin; whether it is the right one is
/// known when it is read.
#[must_use]
pub fn is_cached(pin: &PackagePin, cache: &Path) -> bool {
    cache.join(FOLDER).join(deb_name(pin)).is_file()
}

fn deb_name(pin: &PackagePin) -> PathBuf {
    format!("{}.deb", pin.sha256.hex()).into()
}

/// What the workers share.
struct Job<'a> {
    pins: &'a [PackagePin],
    repositories: &'a [Repository],
    access: &'a Access<'a>,
    folder: PathBuf,
    kind: &'a Kind,
    next: AtomicUsize,
    failed: AtomicBool,
    downloads: AtomicUsize,
    progress: Progress<'a>,
    /// Of the failed pins the first one, so that the message does not depend
    /// on which connection was faster.
    failure: Mutex<Option<(usize, SourceError)>>,
}

impl Job<'_> {
    fn work(&self) {
        while !self.failed.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(pin) = self.pins.get(index) else {
                return;
            };
            if let Err(error) = self.ensure(pin) {
                self.failed.store(true, Ordering::Relaxed);
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                if failure.as_ref().is_none_or(|(first, _)| index < *first) {
                    *failure = Some((index, error));
                }
            }
        }
    }

    fn ensure(&self, pin: &PackagePin) -> Result<(), SourceError> {
        let path = self.folder.join((self.kind.name)(pin));
        match cached(&path, pin) {
            Ok(Cached::Good) => {
                self.progress.add(pin.size);
                return Ok(());
            }
            Ok(Cached::Absent) => {}
            Ok(Cached::Poisoned) => {
                self.access.reporter.warn(
                    format!(
                        "`{}` {} is damaged, and is fetched again",
                        path.display(),
                        self.kind.place
                    ),
                    None,
                );
            }
            Err(source) => return Err(SourceError::Cache { path, source }),
        }
        self.download(pin, &path)?;
        self.downloads.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn download(&self, pin: &PackagePin, path: &Path) -> Result<(), SourceError> {
        if !stays_below(&pin.path) {
            return Err(SourceError::Malformed {
                suite: pin.suite.clone(),
                file: pin.path.clone(),
                problem: "the path leads out of the repository".into(),
            });
        }
        let mut is_served = false;
        for repository in self.repositories.iter().filter(|it| it.label == pin.suite) {
            for address in &repository.addresses {
                is_served = true;
                let mut sink = DebSink::create(&self.folder, &self.progress).map_err(|source| {
                    SourceError::Cache {
                        path: path.to_owned(),
                        source,
                    }
                })?;
                let what = || format!("`{address}/{}`", pin.path);
                match self
                    .access
                    .client
                    .get(address, &pin.path, pin.size, &mut sink)
                {
                    Ok(count) => {
                        return sink.keep_if_right(pin, count, path, self.kind.by, &what());
                    }
                    Err(GetError::NotFound) => {}
                    Err(GetError::Offline) => {
                        let what = format!("{} `{}` {}", self.kind.one, pin.name, pin.version);
                        return Err(SourceError::Offline { what });
                    }
                    Err(GetError::TooLong) => {
                        return Err(SourceError::WrongSize {
                            what: what(),
                            by: self.kind.by,
                            expected: ByteSize::from_bytes(pin.size),
                            found: "more".into(),
                        });
                    }
                    Err(GetError::Sink(source)) => {
                        return Err(SourceError::Cache {
                            path: path.to_owned(),
                            source,
                        });
                    }
                    Err(GetError::Failed(error)) => return Err(error),
                }
            }
        }
        let (package, suite) = (pin.name.clone(), pin.suite.clone());
        if !is_served {
            return Err(SourceError::StrayPin { package, suite });
        }
        let (version, path) = (pin.version.clone(), pin.path.clone());
        Err(SourceError::Gone {
            package,
            version,
            suite,
            path,
        })
    }
}

/// Whether a relative path cannot climb out of a folder.
pub(super) fn stays_below(path: &str) -> bool {
    !path.is_empty() && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// What the cache has for a pin.
enum Cached {
    Good,
    Absent,
    /// It had something else, which is deleted.
    Poisoned,
}

fn cached(path: &Path, pin: &PackagePin) -> io::Result<Cached> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Cached::Absent),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() == pin.size && digest_of(&mut file)? == pin.sha256 {
        return Ok(Cached::Good);
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(Cached::Poisoned),
    }
}

fn digest_of(file: &mut File) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A file of the cache in the making, gone when dropped. Readable for all:
/// nothing in it is secret, and a cache may be shared.
pub(super) fn hidden_file(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".consign-")
        .suffix(".part")
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)
}

/// A package on its way: hidden, and gone when dropped.
struct DebSink<'a> {
    file: tempfile::NamedTempFile,
    hasher: Hasher,
    progress: &'a Progress<'a>,
    written: u64,
}

impl<'a> DebSink<'a> {
    fn create(folder: &Path, progress: &'a Progress<'a>) -> io::Result<Self> {
        let file = hidden_file(folder)?;
        Ok(Self {
            file,
            hasher: Hasher::new(),
            progress,
            written: 0,
        })
    }

    /// No sync: what a power cut leaves is hashed before it is used.
    fn keep_if_right(
        mut self,
        pin: &PackagePin,
        count: u64,
        path: &Path,
        by: &'static str,
        what: &str,
    ) -> Result<(), SourceError> {
        if count != pin.size {
            return Err(SourceError::WrongSize {
                what: what.to_owned(),
                by,
                expected: ByteSize::from_bytes(pin.size),
                found: format!("{count} bytes"),
            });
        }
        let found = std::mem::take(&mut self.hasher).finish();
        if found != pin.sha256 {
            return Err(SourceError::WrongDigest {
                what: what.to_owned(),
                by,
                expected: pin.sha256,
                found,
            });
        }
        self.file
            .persist(path)
            .map(drop)
            .map_err(|error| SourceError::Cache {
                path: path.to_owned(),
                source: error.error,
            })
    }
}

impl Write for DebSink<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write_all(buf)?;
        self.hasher.update(buf);
        self.written += buf.len() as u64;
        self.progress.add(buf.len() as u64);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Sink for DebSink<'_> {
    fn kept(&self) -> u64 {
        self.written
    }

    fn restart(&mut self) -> io::Result<()> {
        if self.written > 0 {
            self.progress.take_back(self.written);
            self.written = 0;
            self.hasher = Hasher::new();
            self.file.as_file_mut().set_len(0)?;
            self.file.as_file_mut().rewind()?;
        }
        Ok(())
    }
}

/// Bytes that are there, over all workers.
struct Progress<'a> {
    reporter: &'a dyn Reporter,
    done: AtomicU64,
    told: AtomicU64,
    total: u64,
}

impl<'a> Progress<'a> {
    fn new(pins: &[PackagePin], reporter: &'a dyn Reporter) -> Self {
        Self {
            reporter,
            done: AtomicU64::new(0),
            told: AtomicU64::new(0),
            total: pins.iter().map(|pin| pin.size).fold(0, u64::saturating_add),
        }
    }

    fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let told = self.told.load(Ordering::Relaxed);
        if done >= told + PROGRESS_BYTES || done == self.total {
            self.told.store(done, Ordering::Relaxed);
            let size = ByteSize::from_bytes;
            self.reporter
                .bytes(STEP, size(done), Some(size(self.total)));
        }
    }

    fn take_back(&self, bytes: u64) {
        self.done.fetch_sub(bytes, Ordering::Relaxed);
    }
}
