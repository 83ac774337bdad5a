//! A root in the making: every access goes beneath it, by the kernel's word.
//!
//! Paths from packages and layers are resolved with openat2's
//! `RESOLVE_IN_ROOT`, as a chroot would: links lead inside, `..` stops at the
//! top, and nothing that a layer brings can name a file of the host.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::driver::Driver;
use super::fault::Fault;
use crate::layer::tar::SparseFile;
use crate::tree::{Content, Metadata, NodeKind, TreePath};
use crate::units::Timestamp;

/// Opens once more when a rename elsewhere disturbed the kernel's walk.
const TRIES: usize = 8;

/// Devices of an image that are held open, far below what a process may have.
const MOST_HELD: usize = 256;

/// Begins the name of what is made beside the file whose place it takes.
pub(super) const BESIDE: &[u8] = b".consign-new-";

/// A folder that becomes the root of an image.
#[derive(Debug)]
pub(crate) struct Root {
    folder: PathBuf,
    driver: Driver,
    fd: OwnedFd,
    /// The directory used last, and its descriptor.
    last: Option<(TreePath, Rc<OwnedFd>)>,
    /// Devices of the image. On the disk they are empty files, so that no
    /// build ever makes a device, and an ordinary user's build comes out the same.
    /// With the inode of that file: another one in its place is no device.
    devices: BTreeMap<TreePath, (u64, NodeKind)>,
    /// Such files held open, so that their numbers are not given to others.
    held: Vec<OwnedFd>,
}

/// A file with its bytes, owner and times, waiting for its name.
#[derive(Debug)]
pub(crate) struct StagedFile {
    pub(crate) path: PathBuf,
}

impl Root {
    /// Takes `folder`, which is absolute, as the root.
    /// `driver` says how programs are run in it.
    pub(crate) fn open(folder: &Path, driver: Driver) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(folder, flags, Mode::empty())?;
        Ok(Self {
            folder: folder.to_owned(),
            driver,
            fd,
            last: None,
            devices: BTreeMap::new(),
            held: Vec::new(),
        })
    }

    /// Where it is on the host.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// How programs are run in it.
    pub(super) fn driver(&self) -> Driver {
        self.driver
    }

    /// What the empty file at `path` with the number `inode` stands for.
    pub(crate) fn device(&self, path: &TreePath, inode: u64) -> Option<&NodeKind> {
        let (own, kind) = self.devices.get(path)?;
        (*own == inode).then_some(kind)
    }

    fn resolve(&self, path: &TreePath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        self.resolve_by(path, flags, ResolveFlags::NO_MAGICLINKS)
    }

    fn resolve_by(
        &self,
        path: &TreePath,
        flags: OFlags,
        rule: ResolveFlags,
    ) -> rustix::io::Result<OwnedFd> {
        let text: &[u8] = if path.is_root() {
            b"."
        } else {
            path.as_bytes()
        };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_XDEV | rule;
        for _ in 0..TRIES {
            let opened =
                rustix::fs::openat2(&self.fd, text, flags | OFlags::CLOEXEC, Mode::empty(), how);
            if !matches!(opened, Err(Errno::AGAIN | Errno::INTR)) {
                return opened;
            }
        }
        Err(Errno::AGAIN)
    }

    /// The directory at `path`, links followed inside the root.
    pub(crate) fn directory(&mut self, path: &TreePath) -> Result<Rc<OwnedFd>, Fault> {
        self.try_directory(path)
            .map_err(|error| Fault::system("enter", path.to_string(), error))
    }

    fn try_directory(&mut self, path: &TreePath) -> rustix::io::Result<Rc<OwnedFd>> {
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(fd.clone());
        }
        let fd = Rc::new(self.resolve(path, OFlags::PATH | OFlags::DIRECTORY)?);
        self.last = Some((path.clone(), fd.clone()));
        Ok(fd)
    }

    /// Forgets the directory used last, after a rename or removal of one.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }

    /// The directory that holds `path`, and the last component.
    pub(crate) fn parent<'a>(
        &mut self,
        path: &'a TreePath,
    ) -> Result<(Rc<OwnedFd>, &'a [u8]), Fault> {
        let parent = path.parent().unwrap_or_default();
        let name = path.name().unwrap_or(b".");
        Ok((self.directory(&parent)?, name))
    }

    /// The directory that holds `path`, made with all its parents (root,
    /// 0755) where missing.
    pub(crate) fn parent_made<'a>(
        &mut self,
        path: &'a TreePath,
    ) -> Result<(Rc<OwnedFd>, &'a [u8]), Fault> {
        let parent = path.parent().unwrap_or_default();
        match self.try_directory(&parent) {
            Err(Errno::NOENT) => self.make_directories(&parent)?,
            Err(error) => return Err(Fault::system("enter", parent.to_string(), error)),
            Ok(_) => {}
        }
        self.parent(path)
    }

    /// Makes the directory `path` and its parents where missing.
    pub(crate) fn make_directories(&mut self, path: &TreePath) -> Result<(), Fault> {
        let mut at = TreePath::root();
        for name in path.components() {
            let directory = self.directory(&at)?;
            let next = at.join(name).unwrap_or_default();
            match rustix::fs::mkdirat(&*directory, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => {
                    return Err(Fault::system("make the folder", next.to_string(), error));
                }
            }
            at = next;
        }
        Ok(())
    }

    /// `lstat` of `path`; `None` when it or a parent is missing.
    pub(crate) fn status(&mut self, path: &TreePath) -> Result<Option<Stat>, Fault> {
        let parent = path.parent().unwrap_or_default();
        let found = self.try_directory(&parent).and_then(|directory| {
            let name = path.name().unwrap_or(b".");
            rustix::fs::statat(&*directory, name, AtFlags::SYMLINK_NOFOLLOW)
        });
        match found {
            Ok(status) => Ok(Some(status)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(Fault::system("look at", path.to_string(), error)),
        }
    }

    /// Whether `path` leads to a directory, links followed.
    pub(crate) fn is_directory(&self, path: &TreePath) -> bool {
        self.resolve(path, OFlags::PATH | OFlags::DIRECTORY).is_ok()
    }

    /// Whether `path` is a directory, and no link leads to it.
    pub(super) fn is_direct(&self, path: &TreePath) -> Result<bool, Fault> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.resolve_by(path, flags, ResolveFlags::NO_SYMLINKS) {
            Ok(_) => Ok(true),
            Err(Errno::LOOP | Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(Fault::system("look at", path.to_string(), error)),
        }
    }

    /// Bytes of the file `path`, links followed; `None` when it is missing.
    pub(crate) fn read(&self, path: &TreePath, limit: u64) -> Result<Option<Vec<u8>>, Fault> {
        let fd = match self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(Fault::system("read", path.to_string(), error)),
        };
        let mut bytes = Vec::new();
        File::from(fd)
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|error| Fault::system("read", path.to_string(), error))?;
        Ok(Some(bytes))
    }

    /// Writes the file `path`, owned by root, in place of what is there.
    pub(crate) fn write(&mut self, path: &TreePath, bytes: &[u8], mode: u16) -> Result<(), Fault> {
        let failed = |error: io::Error| Fault::system("write", path.to_string(), error);
        let (directory, name) = self.parent_made(path)?;
        let (mut file, temporary) = beside(|temporary| create(&directory, temporary, mode))
            .map_err(|error| failed(error.into()))?;
        file.write_all(bytes).map_err(failed)?;
        rustix::fs::renameat(&*directory, temporary.as_slice(), &*directory, name)
            .map_err(|error| failed(error.into()))
    }

    /// Gives the staged file its name, in place of whatever file is there.
    pub(crate) fn place_file(&mut self, staged: &StagedFile, path: &TreePath) -> Result<(), Fault> {
        let (directory, name) = self.parent_made(path)?;
        rustix::fs::renameat(rustix::fs::CWD, &staged.path, &*directory, name)
            .map_err(|error| Fault::system("place", path.to_string(), error))
    }

    /// Makes a directory; one that is there keeps its metadata.
    pub(crate) fn place_directory(
        &mut self,
        path: &TreePath,
        meta: &Metadata,
    ) -> Result<(), Fault> {
        let (directory, name) = self.parent_made(path)?;
        match rustix::fs::mkdirat(&*directory, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => self.set_metadata(path, meta),
            Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(Fault::system("make the folder", path.to_string(), error)),
        }
    }

    /// Makes a symbolic link, in place of whatever file is there.
    pub(crate) fn place_symlink(
        &mut self,
        path: &TreePath,
        target: &[u8],
        meta: &Metadata,
    ) -> Result<(), Fault> {
        self.replace(path, |directory, name| {
            rustix::fs::symlinkat(target, directory, name)
        })?;
        let (directory, name) = self.parent(path)?;
        let failed = |error: Errno| Fault::system("set the owner of", path.to_string(), error);
        chown(&directory, name, meta).map_err(failed)?;
        set_time(&directory, name, meta.mtime).map_err(failed)
    }

    /// Makes `path` another name of the file `target`.
    pub(crate) fn place_link(&mut self, path: &TreePath, target: &TreePath) -> Result<(), Fault> {
        let (from, from_name) = self.parent(target)?;
        self.replace(path, |directory, name| {
            rustix::fs::linkat(&*from, from_name, directory, name, AtFlags::empty())
        })
    }

    /// Makes a named pipe, or an empty file in the place of a device.
    pub(crate) fn place_special(
        &mut self,
        path: &TreePath,
        kind: &NodeKind,
        meta: &Metadata,
    ) -> Result<(), Fault> {
        if *kind == NodeKind::Fifo {
            let mode = Mode::from_raw_mode(0o600);
            self.replace(path, |directory, name| {
                rustix::fs::mknodat(directory, name, FileType::Fifo, mode, 0)
            })?;
        } else {
            self.replace(path, |directory, name| {
                create(directory, name, 0o600).map(drop)
            })?;
            let canonical = self.canonical(path)?;
            let held = self
                .resolve(&canonical, OFlags::PATH | OFlags::NOFOLLOW)
                .map_err(|error| Fault::system("hold", path.to_string(), error))?;
            let status = rustix::fs::fstat(&held)
                .map_err(|error| Fault::system("look at", path.to_string(), error))?;
            self.devices
                .insert(canonical, (status.st_ino, kind.clone()));
            if self.held.len() < MOST_HELD {
                self.held.push(held);
            }
        }
        self.set_metadata(path, meta)
    }

    /// `path` without links among its parents.
    pub(super) fn canonical(&mut self, path: &TreePath) -> Result<TreePath, Fault> {
        use std::os::fd::AsRawFd as _;
        let (directory, name) = self.parent(path)?;
        let place = std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))
            .map_err(|error| Fault::system("find", path.to_string(), error))?;
        let below = place.strip_prefix(&self.folder).unwrap_or(Path::new(""));
        TreePath::parse(below.as_os_str().as_bytes())
            .ok()
            .and_then(|parent| parent.join(name))
            .ok_or_else(|| Fault::system("find", path.to_string(), Errno::INVAL))
    }

    /// Makes something beside `path` and gives it its name in one step.
    fn replace(
        &mut self,
        path: &TreePath,
        make: impl Fn(&OwnedFd, &[u8]) -> rustix::io::Result<()>,
    ) -> Result<(), Fault> {
        let (directory, name) = self.parent_made(path)?;
        let temporary = beside(|temporary| make(&directory, temporary))
            .and_then(|((), temporary)| {
                rustix::fs::renameat(&*directory, temporary.as_slice(), &*directory, name)?;
                Ok(temporary)
            })
            .map_err(|error| Fault::system("place", path.to_string(), error))?;
        // Renaming one name of a file over another name of it does nothing.
        match rustix::fs::unlinkat(&*directory, temporary.as_slice(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(Fault::system("place", path.to_string(), error)),
        }
    }

    /// Sets owner, mode, xattrs and, of what is not a directory, the time.
    pub(crate) fn set_metadata(&mut self, path: &TreePath, meta: &Metadata) -> Result<(), Fault> {
        let failed = |error: Errno| Fault::system("set the owner of", path.to_string(), error);
        let (directory, name) = self.parent(path)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&*directory, name, Some(uid(meta)), Some(gid(meta)), flags)
            .map_err(failed)?;
        let mode = Mode::from_raw_mode(u32::from(meta.mode));
        rustix::fs::chmodat(&*directory, name, mode, AtFlags::empty()).map_err(failed)?;
        set_time(&directory, name, meta.mtime).map_err(failed)?;
        if !meta.xattrs.is_empty() {
            let fd = self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK);
            let fd = fd.map_err(failed)?;
            set_xattrs(&File::from(fd), meta).map_err(failed)?;
        }
        Ok(())
    }

    /// Whether `path` itself is a directory, not a link to one.
    pub(crate) fn has_real_directory(&mut self, path: &TreePath) -> Result<bool, Fault> {
        let status = self.status(path)?;
        Ok(status
            .is_some_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::Directory))
    }

    /// Writes a file with the bytes of `content`, in place of whatever file is there.
    pub(crate) fn place_content(
        &mut self,
        path: &TreePath,
        content: &Content,
        meta: &Metadata,
    ) -> Result<(), Fault> {
        let failed = |error: io::Error| Fault::system("write", path.to_string(), error);
        let (directory, name) = self.parent_made(path)?;
        // Mostly there is nothing in the way.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let (file, temporary) = match rustix::fs::openat(&*directory, name, flags, mode) {
            Ok(fd) => (File::from(fd), None),
            Err(Errno::EXIST) => {
                let (file, temporary) = beside(|temporary| create(&directory, temporary, 0o600))
                    .map_err(|error| failed(error.into()))?;
                (file, Some(temporary))
            }
            Err(error) => return Err(failed(error.into())),
        };
        let mut file = SparseFile::new(file);
        let mut reader = io::BufReader::with_capacity(128 << 10, content.reader());
        io::copy(&mut reader, &mut file).map_err(failed)?;
        let file = file.finish().map_err(failed)?;
        finish_file(&file, meta).map_err(|error| failed(error.into()))?;
        temporary.map_or(Ok(()), |temporary| {
            rustix::fs::renameat(&*directory, temporary.as_slice(), &*directory, name)
                .map_err(|error| failed(error.into()))
        })
    }

    /// Gives a file another name.
    pub(crate) fn rename(&mut self, from: &TreePath, to: &TreePath) -> Result<(), Fault> {
        let (old, old_name) = self.parent(from)?;
        let (new, new_name) = self.parent_made(to)?;
        self.forget();
        rustix::fs::renameat(&*old, old_name, &*new, new_name)
            .map_err(|error| Fault::system("rename", from.to_string(), error))
    }

    /// Moves `path`, whatever it is, to `aside`: a path of the host on the
    /// root's file system, outside of the root.
    pub(crate) fn take_out(&mut self, path: &TreePath, aside: &Path) -> Result<(), Fault> {
        let (directory, name) = self.parent(path)?;
        self.forget();
        rustix::fs::renameat(&*directory, name, rustix::fs::CWD, aside)
            .map_err(|error| Fault::system("move", path.to_string(), error))
    }

    /// Moves what [`take_out`](Self::take_out) took out back to `path`.
    pub(crate) fn put_in(&mut self, aside: &Path, path: &TreePath) -> Result<(), Fault> {
        let (directory, name) = self.parent(path)?;
        self.forget();
        rustix::fs::renameat(rustix::fs::CWD, aside, &*directory, name)
            .map_err(|error| Fault::system("move", path.to_string(), error))
    }

    /// Removes all below the directory `path`.
    pub(crate) fn remove_inside(&mut self, path: &TreePath) -> Result<(), Fault> {
        if !self.has_real_directory(path)? {
            return Ok(());
        }
        let (directory, name) = self.parent(path)?;
        self.forget();
        remove_below(&directory, name)
            .map_err(|error| Fault::system("empty", path.to_string(), error))
    }

    /// Removes `path` with all below it; nothing there is fine.
    pub(crate) fn remove(&mut self, path: &TreePath) -> Result<(), Fault> {
        let Some(status) = self.status(path)? else {
            return Ok(());
        };
        let failed = |error: Errno| Fault::system("remove", path.to_string(), error);
        let (directory, name) = self.parent(path)?;
        if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
            self.forget();
            remove_below(&directory, name).map_err(failed)?;
            return rustix::fs::unlinkat(&*directory, name, AtFlags::REMOVEDIR).map_err(failed);
        }
        rustix::fs::unlinkat(&*directory, name, AtFlags::empty()).map_err(failed)
    }
}

/// Number of the next name beside a file.
static NEXT_BESIDE: AtomicU64 = AtomicU64::new(0);

/// The same, for tests that take its name away.
#[cfg(test)]
pub(super) fn next_beside() -> u64 {
    NEXT_BESIDE.load(Ordering::Relaxed)
}

/// Makes something with a name that nothing in its folder has; gives the name
/// too. Of a length of its own, since a file's name may be as long as names get.
fn beside<T>(make: impl Fn(&[u8]) -> rustix::io::Result<T>) -> rustix::io::Result<(T, Vec<u8>)> {
    loop {
        let number = NEXT_BESIDE.fetch_add(1, Ordering::Relaxed).to_string();
        let name = [BESIDE, number.as_bytes()].concat();
        match make(&name) {
            Err(Errno::EXIST) => {}
            result => return Ok((result?, name)),
        }
    }
}

/// Makes a new file for writing, owned by root.
fn create(directory: &OwnedFd, name: &[u8], mode: u16) -> rustix::io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(u32::from(mode));
    let file = File::from(rustix::fs::openat(directory, name, flags, mode)?);
    rustix::fs::fchmod(file.as_fd(), mode)?;
    Ok(file)
}

fn uid(meta: &Metadata) -> rustix::fs::Uid {
    rustix::fs::Uid::from_raw(meta.uid)
}

fn gid(meta: &Metadata) -> rustix::fs::Gid {
    rustix::fs::Gid::from_raw(meta.gid)
}

fn chown(directory: &OwnedFd, name: &[u8], meta: &Metadata) -> rustix::io::Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(directory, name, Some(uid(meta)), Some(gid(meta)), flags)
}

fn times(time: Timestamp) -> rustix::fs::Timestamps {
    let spec = rustix::fs::Timespec {
        tv_sec: time.seconds,
        tv_nsec: i64::from(time.nanos),
    };
    rustix::fs::Timestamps {
        last_access: spec,
        last_modification: spec,
    }
}

/// Sets the time of `name` itself.
fn set_time(directory: &OwnedFd, name: &[u8], time: Timestamp) -> rustix::io::Result<()> {
    rustix::fs::utimensat(directory, name, &times(time), AtFlags::SYMLINK_NOFOLLOW)
}

/// Sets the time of the file at `path` of the host, links not followed.
pub(crate) fn set_times_at(path: &Path, time: Timestamp) -> io::Result<()> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::utimensat(
        rustix::fs::CWD,
        path,
        &times(time),
        flags,
    )?)
}

fn set_xattrs(file: &File, meta: &Metadata) -> rustix::io::Result<()> {
    for (name, value) in &meta.xattrs {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(file, name.as_slice(), value, flags)?;
    }
    Ok(())
}

/// Sets owner, mode, xattrs and time of a file that is open for writing.
pub(crate) fn finish_file(file: &File, meta: &Metadata) -> rustix::io::Result<()> {
    if (meta.uid, meta.gid) != (0, 0) {
        rustix::fs::fchown(file, Some(uid(meta)), Some(gid(meta)))?;
    }
    // After chown, which takes set-user-id bits away.
    rustix::fs::fchmod(file, Mode::from_raw_mode(u32::from(meta.mode)))?;
    set_xattrs(file, meta)?;
    rustix::fs::futimens(file, &times(meta.mtime))
}

/// Empties the directory `name`, never following a link.
fn remove_below(directory: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inside = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&inside)? {
        let entry = entry?;
        let child = entry.file_name().to_bytes();
        if matches!(child, b"." | b"..") {
            continue;
        }
        match rustix::fs::unlinkat(&inside, child, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                remove_below(&inside, child)?;
                rustix::fs::unlinkat(&inside, child, AtFlags::REMOVEDIR)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes the folder `path` of the host with all below it, never following
/// a link out of it.
pub(crate) fn remove_folder(path: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default();
    let parent = rustix::fs::open(parent, flags, Mode::empty())?;
    match remove_below(&parent, name.as_bytes()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    }
    match rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR) {
        // Another build removes it too.
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}
