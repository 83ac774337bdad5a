//! A root against the state before: the difference, as a layer's tar.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::fault::Fault;
use super::root::{Root, set_times_at};
use crate::layer::clean::{Action, empties, rule_for};
use crate::layer::tar::{MemberKind, SparseFile, TarError, TarSum, TarWriter};
use crate::tree::{Content, FileTree, Metadata, Node, NodeKind, TreePath, list_folder};
use crate::units::Timestamp;

/// Extended attributes that belong to the image. Others are the host's, such
/// as the labels of its security modules.
const XATTRS: [&[u8]; 3] = [
    b"security.capability",
    b"system.posix_acl_access",
    b"system.posix_acl_default",
];
/// Attributes that programs set for themselves.
const XATTR_USER: &[u8] = b"user.";

/// Tells a file that nobody has touched: any change of content or metadata
/// moves the change time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    ctime: (i64, i64),
}

impl Stamp {
    fn of(status: &std::fs::Metadata) -> Self {
        Self {
            inode: status.ino(),
            ctime: (status.ctime(), status.ctime_nsec()),
        }
    }
}

/// The stamps of a root.
pub(crate) type Stamps = BTreeMap<TreePath, Stamp>;

/// What the difference is taken against, and how.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    /// The state before.
    pub(crate) before: &'a FileTree,
    /// Stamps of the state before.
    pub(crate) stamps: &'a Stamps,
    /// Paths of this layer's packages; `None` keeps everything.
    pub(crate) cleaning: Option<&'a BTreeSet<TreePath>>,
    /// Times from here on are this build's own.
    pub(crate) began: Timestamp,
    /// What takes their place.
    pub(crate) source_date: Timestamp,
}

/// A difference, ready to be written.
#[derive(Debug)]
pub(crate) struct Difference {
    changed: BTreeMap<TreePath, Changed>,
    removed: BTreeSet<TreePath>,
    /// Inodes with several names, and a name of each that did not change.
    unchanged_names: BTreeMap<u64, TreePath>,
    /// Stamps of the root as it is now.
    pub(crate) stamps: Stamps,
}

#[derive(Debug)]
struct Changed {
    meta: Metadata,
    kind: NodeKindOnDisk,
    /// The inode, when it has several names.
    shared: Option<u64>,
}

#[derive(Debug)]
enum NodeKindOnDisk {
    File { size: u64, path: PathBuf },
    Other(NodeKind),
}

/// Stamps of everything in `root`.
pub(crate) fn stamp_all(root: &Root) -> Result<Stamps, Fault> {
    fn walk(folder: &Path, at: &TreePath, stamps: &mut Stamps) -> Result<(), Fault> {
        for entry in list(folder)? {
            let Some(path) = at.join(entry.name.as_bytes()) else {
                continue;
            };
            stamps.insert(path.clone(), Stamp::of(&entry.metadata));
            if entry.metadata.is_dir() {
                walk(&entry.path, &path, stamps)?;
            }
        }
        Ok(())
    }
    let mut stamps = Stamps::new();
    walk(root.folder(), &TreePath::root(), &mut stamps)?;
    Ok(stamps)
}

fn list(folder: &Path) -> Result<Vec<crate::tree::HostEntry>, Fault> {
    list_folder(folder).map_err(|error| Fault::system("list", folder.display().to_string(), error))
}

impl Scan<'_> {
    /// Walks the root, cleans it and fixes times on the way, so that it is
    /// afterwards what the layers with the new one on top would unpack to.
    pub(crate) fn run(&self, root: &Root) -> Result<Difference, Fault> {
        let mut walk = Walk {
            scan: self,
            root,
            seen: BTreeSet::new(),
            found: Difference {
                changed: BTreeMap::new(),
                removed: BTreeSet::new(),
                unchanged_names: BTreeMap::new(),
                stamps: Stamps::new(),
            },
        };
        walk.directory(root.folder(), &TreePath::root(), Below::Kept)?;
        let Walk {
            seen, mut found, ..
        } = walk;
        for (path, _, _) in self.before.iter() {
            let is_below_removed = path
                .parent()
                .is_some_and(|parent| !parent.is_root() && !seen.contains(&parent));
            if !path.is_root() && !seen.contains(path) && !is_below_removed {
                found.removed.insert(path.clone());
            }
        }
        // A directory leaves a link to one in its place, unless that is hidden.
        for (path, changed) in &found.changed {
            let is_directory = matches!(changed.kind, NodeKindOnDisk::Other(NodeKind::Directory));
            let was_link = |node: &Node| matches!(node.kind, NodeKind::Symlink(_));
            if is_directory && self.before.get(path).is_some_and(was_link) {
                found.removed.insert(path.clone());
            }
        }
        // What took the place of a removed folder hides all below it.
        let changed = &found.changed;
        found.removed.retain(|path| {
            let parent = path.parent().unwrap_or_default();
            let stands = changed.get(&parent);
            !stands.is_some_and(|stands| {
                !matches!(stands.kind, NodeKindOnDisk::Other(NodeKind::Directory))
            })
        });
        Ok(found)
    }
}

/// Whether what is below a directory is kept by the cleaning rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Below {
    Kept,
    Emptied,
}

struct Walk<'a> {
    scan: &'a Scan<'a>,
    root: &'a Root,
    seen: BTreeSet<TreePath>,
    found: Difference,
}

impl Walk<'_> {
    fn directory(&mut self, folder: &Path, at: &TreePath, below: Below) -> Result<(), Fault> {
        for entry in list(folder)? {
            let Some(path) = at.join(entry.name.as_bytes()) else {
                continue;
            };
            if self.clean(&entry.path, &path, &entry.metadata, below)? {
                continue;
            }
            if entry.metadata.is_dir() {
                let inside = if below == Below::Emptied
                    || (self.scan.cleaning.is_some() && empties(&path))
                {
                    Below::Emptied
                } else {
                    Below::Kept
                };
                self.directory(&entry.path, &path, inside)?;
                if below == Below::Emptied && self.remove_empty(&entry.path, &path)? {
                    continue;
                }
            }
            self.entry(&entry.path, &path)?;
        }
        Ok(())
    }

    /// Applies the rule for a file; says whether the file is gone.
    fn clean(
        &self,
        place: &Path,
        path: &TreePath,
        status: &std::fs::Metadata,
        below: Below,
    ) -> Result<bool, Fault> {
        let Some(shipped) = self.scan.cleaning else {
            return Ok(false);
        };
        let failed = |error: io::Error| Fault::system("clean", format!("/{path}"), error);
        let is_socket = status.file_type().is_socket();
        if status.is_dir() {
            return Ok(false);
        }
        let rule = rule_for(path, shipped);
        let is_below = self.scan.before.get(path).is_some();
        match rule.map(|rule| rule.action) {
            Some(Action::Empty) => {
                if status.is_file() && status.len() > 0 {
                    File::options()
                        .write(true)
                        .open(place)
                        .and_then(|file| file.set_len(0))
                        .map_err(failed)?;
                }
                Ok(false)
            }
            Some(_) if !is_below => std::fs::remove_file(place).map(|()| true).map_err(failed),
            None if is_socket || (below == Below::Emptied && !is_below) => {
                std::fs::remove_file(place).map(|()| true).map_err(failed)
            }
            _ => Ok(false),
        }
    }

    /// Removes a directory that the cleaning has emptied.
    fn remove_empty(&self, place: &Path, path: &TreePath) -> Result<bool, Fault> {
        if self.scan.before.get(path).is_some() {
            return Ok(false);
        }
        match std::fs::remove_dir(place) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
            Err(error) => Err(Fault::system("clean", format!("/{path}"), error)),
        }
    }

    fn entry(&mut self, place: &Path, path: &TreePath) -> Result<(), Fault> {
        let failed = |error: io::Error| Fault::system("look at", format!("/{path}"), error);
        let mut status = std::fs::symlink_metadata(place).map_err(failed)?;
        self.seen.insert(path.clone());
        let is_shared = status.is_file() && status.nlink() > 1;
        if self.scan.stamps.get(path) == Some(&Stamp::of(&status)) {
            if is_shared {
                let names = &mut self.found.unchanged_names;
                names.entry(status.ino()).or_insert_with(|| path.clone());
            }
            self.found.stamps.insert(path.clone(), Stamp::of(&status));
            return Ok(());
        }
        let time = self.time_of(&status);
        if (time.seconds, i64::from(time.nanos)) != (status.mtime(), status.mtime_nsec()) {
            set_times_at(place, time).map_err(failed)?;
            status = std::fs::symlink_metadata(place).map_err(failed)?;
        }
        let meta = metadata(place, &status, time).map_err(failed)?;
        let kind = self.kind(place, path, &status).map_err(failed)?;
        self.found.stamps.insert(path.clone(), Stamp::of(&status));
        if is_same(self.scan.before.get(path), &meta, &kind).map_err(failed)? {
            if is_shared {
                let names = &mut self.found.unchanged_names;
                names.entry(status.ino()).or_insert_with(|| path.clone());
            }
            return Ok(());
        }
        let shared = is_shared.then(|| status.ino());
        let changed = Changed { meta, kind, shared };
        self.found.changed.insert(path.clone(), changed);
        Ok(())
    }

    fn time_of(&self, status: &std::fs::Metadata) -> Timestamp {
        let found = Timestamp {
            seconds: status.mtime(),
            nanos: u32::try_from(status.mtime_nsec()).unwrap_or(0),
        };
        if found >= self.scan.began || found > self.scan.source_date {
            self.scan.source_date
        } else {
            found
        }
    }

    fn kind(
        &self,
        place: &Path,
        path: &TreePath,
        status: &std::fs::Metadata,
    ) -> io::Result<NodeKindOnDisk> {
        let kind = status.file_type();
        if kind.is_file() {
            if status.len() == 0
                && let Some(device) = self.root.device(path, status.ino())
            {
                return Ok(NodeKindOnDisk::Other(device.clone()));
            }
            return Ok(NodeKindOnDisk::File {
                size: status.len(),
                path: place.to_owned(),
            });
        }
        Ok(NodeKindOnDisk::Other(if kind.is_dir() {
            NodeKind::Directory
        } else if kind.is_symlink() {
            let target = std::fs::read_link(place)?;
            NodeKind::Symlink(target.as_os_str().as_bytes().to_vec())
        } else if kind.is_fifo() {
            NodeKind::Fifo
        } else if kind.is_socket() {
            NodeKind::Socket
        } else {
            let device = status.rdev();
            let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
            if kind.is_block_device() {
                NodeKind::BlockDevice { major, minor }
            } else {
                NodeKind::CharDevice { major, minor }
            }
        }))
    }
}

fn metadata(place: &Path, status: &std::fs::Metadata, time: Timestamp) -> io::Result<Metadata> {
    let mode = u16::try_from(status.mode() & 0o7777).map_err(io::Error::other)?;
    let xattrs = if status.is_file() || status.is_dir() {
        xattrs(place)?
    } else {
        BTreeMap::new()
    };
    Ok(Metadata {
        mode,
        uid: status.uid(),
        gid: status.gid(),
        mtime: time,
        xattrs,
    })
}

fn xattrs(place: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let length = match rustix::fs::llistxattr_query(place) {
        Ok(0) | Err(rustix::io::Errno::NOTSUP) => return Ok(found),
        Ok(length) => length,
        Err(error) => return Err(error.into()),
    };
    let mut names = vec![0_u8; length];
    let length = rustix::fs::llistxattr(place, &mut names[..])?;
    names.truncate(length);
    for name in names.split(|byte| *byte == 0) {
        if !XATTRS.contains(&name) && !name.starts_with(XATTR_USER) {
            continue;
        }
        let length = rustix::fs::lgetxattr_query(place, name)?;
        let mut value = vec![0_u8; length];
        let length = rustix::fs::lgetxattr(place, name, &mut value[..])?;
        value.truncate(length);
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}

fn is_same(before: Option<&Node>, meta: &Metadata, kind: &NodeKindOnDisk) -> io::Result<bool> {
    let Some(before) = before else {
        return Ok(false);
    };
    if before.meta != *meta {
        return Ok(false);
    }
    match (&before.kind, kind) {
        (NodeKind::File(content), NodeKindOnDisk::File { size, path }) => {
            Ok(content.size() == *size && has_same_bytes(content, path)?)
        }
        (before, NodeKindOnDisk::Other(now)) => Ok(before == now),
        _ => Ok(false),
    }
}

fn has_same_bytes(content: &Content, path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut before = vec![0; 64 << 10];
    let mut now = vec![0; 64 << 10];
    let mut at = 0;
    while at < content.size() {
        let left = usize::try_from(content.size() - at).unwrap_or(usize::MAX);
        let length = left.min(before.len());
        let (before, now) = (&mut before[..length], &mut now[..length]);
        content.read_exact_at(before, at)?;
        file.read_exact(now)?;
        if before != now {
            return Ok(false);
        }
        at += length as u64;
    }
    Ok(true)
}

impl Difference {
    /// Bytes of content to be written.
    pub(crate) fn content_size(&self) -> u64 {
        self.changed
            .values()
            .map(|changed| match &changed.kind {
                NodeKindOnDisk::File { size, .. } => *size,
                NodeKindOnDisk::Other(_) => 0,
            })
            .sum()
    }

    /// Writes the layer's tar to `output`, a new file.
    pub(crate) fn write(&self, output: &Path, watch: &mut dyn FnMut(u64)) -> Result<TarSum, Fault> {
        let failed = |error: io::Error| Fault::system("write", output.display().to_string(), error);
        let file = File::create_new(output).map_err(failed)?;
        let file = BufWriter::with_capacity(256 << 10, SparseFile::new(file));
        let mut writer = TarWriter::new(file);
        let result = self
            .write_members(&mut writer, watch)
            .and_then(|()| writer.finish());
        let (_, sum) = result.map_err(|error| write_fault(output, error))?;
        Ok(sum)
    }

    fn write_members<W: io::Write>(
        &self,
        writer: &mut TarWriter<W>,
        watch: &mut dyn FnMut(u64),
    ) -> Result<(), TarError> {
        let mut paths: BTreeSet<&TreePath> = self.changed.keys().collect();
        paths.extend(&self.removed);
        let mut first_names: BTreeMap<u64, &TreePath> = BTreeMap::new();
        let mut links_below: BTreeMap<&TreePath, &TreePath> = BTreeMap::new();
        let mut done = 0;
        for path in paths {
            let Some(changed) = self.changed.get(path) else {
                writer.whiteout(path)?;
                continue;
            };
            if let Some(inode) = changed.shared {
                if let Some(below) = self.unchanged_names.get(&inode) {
                    links_below.insert(path, below);
                    continue;
                }
                if let Some(first) = first_names.get(&inode) {
                    let kind = MemberKind::HardLink(first.as_bytes().to_vec());
                    writer.member(path, &without_xattrs(&changed.meta), &kind)?;
                    continue;
                }
                first_names.insert(inode, path);
            }
            match &changed.kind {
                NodeKindOnDisk::File { size, path: place } => {
                    let mut file =
                        open_to_read(place).map_err(|error| writer.broken(path, error))?;
                    writer.file(path, &changed.meta, *size, &mut file)?;
                    done += size;
                    watch(done);
                }
                NodeKindOnDisk::Other(kind) => writer.node(path, &changed.meta, kind)?,
            }
        }
        for (path, below) in links_below {
            let kind = MemberKind::HardLink(below.as_bytes().to_vec());
            writer.member(path, &Metadata::root_owned(0o644), &kind)?;
        }
        Ok(())
    }
}

fn without_xattrs(meta: &Metadata) -> Metadata {
    Metadata {
        xattrs: BTreeMap::new(),
        ..meta.clone()
    }
}

fn open_to_read(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

fn write_fault(output: &Path, error: TarError) -> Fault {
    use crate::layer::tar::TarFault;
    let place = output.display().to_string();
    match error.fault {
        TarFault::Read(source) => Fault::system("write", place, source),
        _ => Fault::System {
            action: "write".into(),
            path: place,
            reason: error.to_string(),
            is_full: false,
        },
    }
}
