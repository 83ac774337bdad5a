//! The system's files, below one root, written whole or not at all.
//!
//! Paths are absolute and resolved as in a chroot (`RESOLVE_IN_ROOT`): links
//! among the parents are followed, but never out of the root; the last
//! component is replaced, never followed. Files are compared first, so that
//! a second apply writes nothing. Tests give a folder as root.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, fchmod, fchown,
    flock, fstat, fsync, mkdirat, openat2, readlinkat, renameat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

/// How often a lock that somebody holds is tried again.
const LOOK: Duration = Duration::from_millis(200);
/// How often a path is resolved when something is renamed or mounted anywhere
/// meanwhile: the kernel gives up at a `..` then (openat2(2), EAGAIN), as
/// links in `/sys` have.
const TRIES: u32 = 128;
/// Bytes that are made room for before a file is read.
const ROOM: usize = 2048;

/// A root of files.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

/// Whether something had to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was as it should be.
    Same,
    /// It has been written.
    Written,
}

/// Owner and permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The low 12 bits of `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Access {
    /// For what belongs to the agent: root's, or in the tests whose they are.
    pub fn own(mode: u32) -> Self {
        Self {
            mode,
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
        }
    }

    /// For a person's; only root can give files away.
    pub fn of(id: u32, mode: u32) -> Self {
        if !geteuid().is_root() {
            return Self::own(mode);
        }
        Self {
            mode,
            uid: id,
            gid: id,
        }
    }
}

impl Root {
    /// The root at `path`.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { fd })
    }

    /// The bytes of a file of at most `limit` bytes; nothing when it is missing.
    ///
    /// # Errors
    ///
    /// `FileTooLarge`, and what the system reports.
    pub fn read(&self, path: &str, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let fd = match self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Room for most files at once, so that they are read by one call.
        let mut bytes = Vec::with_capacity(limit.min(ROOM));
        File::from(fd)
            .take(limit as u64 + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Some(bytes))
    }

    /// As [`read`](Self::read), as text; empty when it is missing.
    ///
    /// # Errors
    ///
    /// `InvalidData` when it is not UTF-8, and those of [`read`](Self::read).
    pub fn read_text(&self, path: &str, limit: usize) -> io::Result<String> {
        let bytes = self.read(path, limit)?.unwrap_or_default();
        String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    /// The path as other programs and the kernel may open it, links followed
    /// as they are.
    pub fn outside(&self, path: &str) -> PathBuf {
        // Not `self`: a program that is started looks from its own.
        let process = std::process::id();
        let fd = self.fd.as_raw_fd();
        PathBuf::from(format!("/proc/{process}/fd/{fd}{path}"))
    }

    /// Whether it is the root of the running system, and no folder that stands
    /// for one.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn is_system(&self) -> io::Result<bool> {
        let (own, system) = (fstat(&self.fd)?, rustix::fs::stat("/")?);
        Ok((own.st_dev, own.st_ino) == (system.st_dev, system.st_ino))
    }

    /// Whether the path leads somewhere, links followed.
    pub fn exists(&self, path: &str) -> bool {
        self.open_at(path, OFlags::PATH).is_ok()
    }

    /// The names in a directory, sorted; none when it is missing.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let fd = match self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(fd)? {
            if let Ok(name) = entry?.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Owner, mode and kind of what lies at the path, a link not followed;
    /// nothing when it is missing.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn stat(&self, path: &str) -> io::Result<Option<Stat>> {
        let Some((parent, name)) = self.parent_there(path)? else {
            return Ok(None);
        };
        match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a regular file lies at the path, a link not followed.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn is_file(&self, path: &str) -> io::Result<bool> {
        let stat = self.stat(path)?;
        Ok(stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile))
    }

    /// Makes the file hold exactly these bytes with this access.
    ///
    /// # Errors
    ///
    /// What the system reports; the old file is untouched then.
    pub fn put(&self, path: &str, bytes: &[u8], access: Access) -> io::Result<Change> {
        let (parent, name) = self.parent_made(path)?;
        // What a cut left there goes even when the file is as it should be.
        let fresh = fresh_name(name);
        remove_at(&parent, &fresh)?;
        if let Some(change) = amend(&parent, name, bytes, access)? {
            return Ok(change);
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent, &fresh, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(fd);
        let written = file
            .write_all(bytes)
            .and_then(|()| give(&file, access))
            .and_then(|()| file.sync_all())
            .and_then(|()| Ok(renameat(&parent, &fresh, &parent, name)?));
        if let Err(error) = written {
            // The first error counts; what is left is cleared next time.
            let _ = unlinkat(&parent, &fresh, AtFlags::empty());
            return Err(error);
        }
        fsync(&parent)?;
        Ok(Change::Written)
    }

    /// A new file that is written piece by piece, in folders that are made for
    /// it. It is not kept before [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// What the system reports; a file that is there already is an error.
    pub fn create(&self, path: &str, mode: u32) -> io::Result<File> {
        let (parent, name) = self.parent_made(path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?;
        give(&fd, Access::own(mode))?;
        Ok(File::from(fd))
    }

    /// Waits until all that was written is kept, on the file system of `path`.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn sync(&self, path: &str) -> io::Result<()> {
        let fd = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(rustix::fs::syncfs(fd)?)
    }

    /// Makes the path a symbolic link to `target`.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn put_link(&self, path: &str, target: &str) -> io::Result<Change> {
        let (parent, name) = self.parent_made(path)?;
        let fresh = fresh_name(name);
        remove_at(&parent, &fresh)?;
        if readlinkat(&parent, name, Vec::new())
            .is_ok_and(|found| found.to_bytes() == target.as_bytes())
        {
            return Ok(Change::Same);
        }
        symlinkat(target, &parent, &fresh)?;
        renameat(&parent, &fresh, &parent, name)?;
        fsync(&parent)?;
        Ok(Change::Written)
    }

    /// Makes the path a directory with this access; one that is there keeps
    /// what is in it.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn put_directory(&self, path: &str, access: Access) -> io::Result<Change> {
        let (parent, name) = self.parent_made(path)?;
        // With its mode at once: nobody looks again at one that is there.
        let change = match mkdirat(&parent, name, Mode::from_raw_mode(access.mode)) {
            Ok(()) => Change::Written,
            Err(Errno::EXIST) => Change::Same,
            Err(error) => return Err(error.into()),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
        if has(&fstat(&fd)?, access) {
            if change == Change::Written {
                fsync(&parent)?;
            }
            return Ok(change);
        }
        give(&fd, access)?;
        fsync(&fd)?;
        fsync(&parent)?;
        Ok(Change::Written)
    }

    /// Removes a file or link, if it is there.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn remove(&self, path: &str) -> io::Result<Change> {
        let Some((parent, name)) = self.parent_there(path)? else {
            return Ok(Change::Same);
        };
        remove_at(&parent, &fresh_name(name))?;
        match unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) => {
                fsync(&parent)?;
                Ok(Change::Written)
            }
            // A directory is not what was put there.
            Err(Errno::NOENT | Errno::ISDIR) => Ok(Change::Same),
            Err(error) => Err(error.into()),
        }
    }

    /// Where the link at the path leads; nothing when it is no link.
    ///
    /// # Errors
    ///
    /// `InvalidData` when it is not UTF-8, and what the system reports.
    pub fn read_link(&self, path: &str) -> io::Result<Option<String>> {
        let Some((parent, name)) = self.parent_there(path)? else {
            return Ok(None);
        };
        match readlinkat(&parent, name, Vec::new()) {
            Ok(target) => match target.into_string() {
                Ok(target) => Ok(Some(target)),
                Err(_) => Err(io::ErrorKind::InvalidData.into()),
            },
            Err(Errno::NOENT | Errno::NOTDIR | Errno::INVAL) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until nobody else holds the lock at the path, and holds it while
    /// the result lives.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn lock(&self, path: &str) -> io::Result<OwnedFd> {
        let fd = self.lock_file(path)?;
        flock(&fd, FlockOperation::LockExclusive)?;
        Ok(fd)
    }

    /// As [`lock`](Self::lock), but waits no longer than `patience`.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when somebody else still holds it, and what the system
    /// reports.
    pub fn lock_within(&self, path: &str, patience: Duration) -> io::Result<OwnedFd> {
        let fd = self.lock_file(path)?;
        let end = Instant::now() + patience;
        loop {
            match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(fd),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => {}
                Err(error) => return Err(error.into()),
            }
            std::thread::sleep(LOOK);
        }
    }

    fn lock_file(&self, path: &str) -> io::Result<OwnedFd> {
        let (parent, name) = self.parent_made(path)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(rustix::fs::openat(&parent, name, flags, mode)?)
    }

    /// Gives a file or directory another name, nothing being there.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from_parent, from_name) = self.parent(from)?;
        let (to_parent, to_name) = self.parent(to)?;
        renameat(&from_parent, from_name, &to_parent, to_name)?;
        fsync(&from_parent)?;
        fsync(&to_parent)?;
        Ok(())
    }

    /// Removes a directory and all below it, links not followed.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn remove_tree(&self, path: &str) -> io::Result<()> {
        let Some((parent, name)) = self.parent_there(path)? else {
            return Ok(());
        };
        remove_tree_at(&parent, name, 0)?;
        fsync(&parent)?;
        Ok(())
    }

    fn open_at(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        let (path, rule) = (relative(path), ResolveFlags::IN_ROOT);
        for _ in 0..TRIES {
            let opened = openat2(&self.fd, path, flags, Mode::empty(), rule);
            if !matches!(opened, Err(Errno::AGAIN)) {
                return opened;
            }
        }
        Err(Errno::AGAIN)
    }

    /// The directory that holds the path, and the path's name in it.
    fn parent<'p>(&self, path: &'p str) -> io::Result<(OwnedFd, &'p str)> {
        let (folder, name) = split(path)?;
        let fd = self.open_at(folder, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok((fd, name))
    }

    /// As [`parent`](Self::parent); nothing when it is missing.
    fn parent_there<'p>(&self, path: &'p str) -> io::Result<Option<(OwnedFd, &'p str)>> {
        match self.parent(path) {
            Ok(found) => Ok(Some(found)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// As [`parent`](Self::parent), making the directories that are missing.
    fn parent_made<'p>(&self, path: &'p str) -> io::Result<(OwnedFd, &'p str)> {
        match self.parent(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        let (folder, _) = split(path)?;
        self.put_directory(folder, Access::own(0o755))?;
        self.parent(path)
    }
}

/// A path below the root's descriptor.
fn relative(path: &str) -> &str {
    match path.trim_start_matches('/') {
        "" => ".",
        inner => inner,
    }
}

fn split(path: &str) -> io::Result<(&str, &str)> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    if matches!(name, "" | "." | "..") {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok((folder, name))
}

fn fresh_name(name: &str) -> String {
    format!(".{name}.consign-new")
}

fn remove_at(parent: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Directories in directories that [`Root::remove_tree`] descends into.
const MAX_DEPTH: usize = 64;

fn remove_tree_at(parent: &OwnedFd, name: &str, depth: usize) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(folder) if depth < MAX_DEPTH => folder,
        Err(Errno::NOENT) => return Ok(()),
        _ => return Ok(unlinkat(parent, name, AtFlags::empty())?),
    };
    for entry in rustix::fs::Dir::read_from(&folder)? {
        let entry = entry?;
        match entry.file_name().to_str() {
            Ok("." | "..") => {}
            Ok(inner) => remove_tree_at(&folder, inner, depth + 1)?,
            Err(_) => unlinkat(&folder, entry.file_name(), AtFlags::empty())?,
        }
    }
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Whether the file is as it should be, made so when only its access is not;
/// nothing when it must be written.
fn amend(parent: &OwnedFd, name: &str, bytes: &[u8], access: Access) -> io::Result<Option<Change>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::openat(parent, name, flags, Mode::empty()) else {
        return Ok(None);
    };
    let stat = fstat(&fd)?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !is_file || u64::try_from(stat.st_size).ok() != Some(bytes.len() as u64) {
        return Ok(None);
    }
    let file = File::from(fd);
    let mut found = Vec::with_capacity(bytes.len());
    (&file)
        .take(bytes.len() as u64 + 1)
        .read_to_end(&mut found)?;
    if found != bytes {
        return Ok(None);
    }
    if has(&stat, access) {
        return Ok(Some(Change::Same));
    }
    give(&file, access)?;
    file.sync_all()?;
    Ok(Some(Change::Written))
}

fn has(stat: &Stat, access: Access) -> bool {
    stat.st_mode & 0o7777 == access.mode && stat.st_uid == access.uid && stat.st_gid == access.gid
}

/// Owner first, since a change of owner clears setuid bits.
fn give(fd: &impl AsFd, access: Access) -> io::Result<()> {
    let fd = fd.as_fd();
    let stat = fstat(fd)?;
    if stat.st_uid != access.uid || stat.st_gid != access.gid {
        fchown(
            fd,
            Some(Uid::from_raw(access.uid)),
            Some(Gid::from_raw(access.gid)),
        )?;
    }
    fchmod(fd, Mode::from_raw_mode(access.mode))?;
    Ok(())
}

#[cfg(test)]
#[path = "root_testing.rs"]
pub mod testing;

#[cfg(test)]
#[path = "root_tests.rs"]
mod tests;
