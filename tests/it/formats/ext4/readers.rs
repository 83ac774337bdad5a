//! What a volume holds, by the kernel and by ext4-view, and what it should hold.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use consign::digest::{Digest, Hasher};
use consign::fs::ext4::Ext4Volume;
use consign::sparse::{FileSource, SparseSource};
use consign::tree::{FileTree, NodeKind, TreePath, list_folder};
use ext4_view::{Ext4, Ext4Read, FileType};

/// Everything that can be said of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) kind: Kind,
    pub(super) mode: u16,
    pub(super) owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub(super) mtime: (i64, u32),
    pub(super) links: u64,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    /// Length, and the digest of every block that is not zero with its number.
    File(u64, Digest),
    Symlink(Vec<u8>),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
    Socket,
}

pub(super) type Inventory = BTreeMap<Vec<u8>, Facts>;

/// Panics with the first paths that differ.
#[track_caller]
pub(super) fn assert_same(found: &Inventory, expected: &Inventory, reader: &str) {
    let differing: Vec<String> = expected
        .keys()
        .chain(found.keys())
        .filter(|path| found.get(*path) != expected.get(*path))
        .take(4)
        .map(|path| {
            let (found, expected) = (found.get(path), expected.get(path));
            let path = path.escape_ascii();
            format!("`{path}`:\n  found    {found:?}\n  expected {expected:?}")
        })
        .collect();
    assert!(
        differing.is_empty(),
        "{reader} sees another tree:\n{}",
        differing.join("\n")
    );
}

/// What a reader of the volume of `tree` should find, `lost+found` aside.
pub(super) fn expected(tree: &FileTree) -> Inventory {
    let links = tree.link_counts();
    let mut subdirectories: BTreeMap<TreePath, u64> = BTreeMap::new();
    for (path, _, _) in tree.iter().filter(|(_, _, node)| node.is_directory()) {
        if let Some(parent) = path.parent() {
            *subdirectories.entry(parent).or_insert(0) += 1;
        }
    }
    tree.iter()
        .map(|(path, id, node)| {
            let kind = match &node.kind {
                NodeKind::Directory => Kind::Directory,
                NodeKind::Symlink(target) => Kind::Symlink(target.clone()),
                NodeKind::CharDevice { major, minor } => Kind::CharDevice(*major, *minor),
                NodeKind::BlockDevice { major, minor } => Kind::BlockDevice(*major, *minor),
                NodeKind::Fifo => Kind::Fifo,
                NodeKind::Socket => Kind::Socket,
                NodeKind::File(content) => {
                    let ranges = content.data_ranges();
                    let digest = blocks(ranges, |buf, at| {
                        let length = (content.size() - at).min(buf.len() as u64);
                        let length = usize::try_from(length).expect("short");
                        content.read_exact_at(&mut buf[..length], at).expect("read");
                    });
                    Kind::File(content.size(), digest)
                }
            };
            let links = if node.is_directory() {
                let below = subdirectories.get(path).copied().unwrap_or(0);
                2 + below + u64::from(path.is_root())
            } else {
                u64::from(links.get(&id).copied().unwrap_or(0))
            };
            let facts = Facts {
                kind,
                mode: node.meta.mode,
                owner: (node.meta.uid, node.meta.gid),
                mtime: (node.meta.mtime.seconds, node.meta.mtime.nanos),
                links,
                xattrs: node.meta.xattrs.clone(),
            };
            (path.as_bytes().to_vec(), facts)
        })
        .collect()
}

/// The digest of the blocks in `ranges` that are not zero.
fn blocks(ranges: Vec<std::ops::Range<u64>>, mut read: impl FnMut(&mut [u8], u64)) -> Digest {
    let mut hasher = Hasher::new();
    let mut last = None;
    for range in ranges {
        for block in range.start / 4096..range.end.div_ceil(4096) {
            let mut bytes = [0; 4096];
            read(&mut bytes, block * 4096);
            if bytes != [0; 4096] && last != Some(block) {
                hasher.update(&block.to_le_bytes());
                hasher.update(&bytes);
                last = Some(block);
            }
        }
    }
    hasher.finish()
}

/// Everything below a mount point, as the kernel tells it.
pub(super) fn by_kernel(mount: &Path) -> Inventory {
    let mut found = Inventory::new();
    let metadata = fs::symlink_metadata(mount).expect("the mount point is there");
    found.insert(Vec::new(), host_facts(mount, &metadata));
    let mut folders = vec![mount.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in list_folder(&folder).expect("a readable folder") {
            let name = entry.path.strip_prefix(mount).expect("below the mount");
            if name == Path::new("lost+found") {
                continue;
            }
            let facts = host_facts(&entry.path, &entry.metadata);
            if facts.kind == Kind::Directory {
                folders.push(entry.path.clone());
            }
            found.insert(name.as_os_str().as_bytes().to_vec(), facts);
        }
    }
    found
}

fn host_facts(path: &Path, metadata: &Metadata) -> Facts {
    let number = metadata.rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let kind = match metadata.file_type() {
        kind if kind.is_dir() => Kind::Directory,
        kind if kind.is_symlink() => {
            let target = fs::read_link(path).expect("a readable link");
            Kind::Symlink(target.as_os_str().as_bytes().to_vec())
        }
        kind if kind.is_char_device() => Kind::CharDevice(major, minor),
        kind if kind.is_block_device() => Kind::BlockDevice(major, minor),
        kind if kind.is_fifo() => Kind::Fifo,
        kind if kind.is_socket() => Kind::Socket,
        _ => {
            let source = FileSource::new(File::open(path).expect("open")).expect("a file");
            let data: u64 = source.data_ranges().map(|r| r.end - r.start).sum();
            // A hole takes no blocks: data, and at most a few extent blocks.
            assert!(metadata.blocks() * 512 <= data.next_multiple_of(4096) + 65_536);
            let digest = blocks(source.data_ranges().collect(), |buf, at| {
                let length = (metadata.len() - at).min(buf.len() as u64);
                let length = usize::try_from(length).expect("short");
                source.read_exact_at(&mut buf[..length], at).expect("read");
            });
            Kind::File(metadata.len(), digest)
        }
    };
    Facts {
        kind,
        mode: u16::try_from(metadata.mode() & 0o7777).expect("12 bits"),
        owner: (metadata.uid(), metadata.gid()),
        mtime: (
            metadata.mtime(),
            u32::try_from(metadata.mtime_nsec()).expect("below a second"),
        ),
        links: metadata.nlink(),
        xattrs: host_xattrs(path),
    }
}

fn host_xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0_u8; 65_536];
    let length = rustix::fs::llistxattr(path, &mut names[..]).expect("a list of attributes");
    names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0_u8; 65_536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).expect("an attribute");
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}

/// What ext4-view can see: no links, no xattrs, no device numbers.
pub(super) fn without_what_ext4_view_lacks(inventory: &Inventory) -> Inventory {
    let mut reduced = inventory.clone();
    for facts in reduced.values_mut() {
        facts.links = 0;
        facts.xattrs.clear();
        if let Kind::CharDevice(major, minor) | Kind::BlockDevice(major, minor) = &mut facts.kind {
            (*major, *minor) = (0, 0);
        }
    }
    reduced
}

struct Source(Ext4Volume);

impl Ext4Read for Source {
    fn read(&mut self, start: u64, buf: &mut [u8]) -> Result<(), BoxedError> {
        Ok(self.0.read_exact_at(buf, start)?)
    }
}

type BoxedError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Everything in a volume, as ext4-view tells it. Of files it reads only what
/// `tree` has data for: a hole of 1 GiB takes minutes.
pub(super) fn by_ext4_view(volume: Ext4Volume, tree: &FileTree) -> Inventory {
    let volume = Ext4::load(Box::new(Source(volume))).expect("ext4-view opens the volume");
    let mut found = Inventory::new();
    let root = volume.metadata("/").expect("a root");
    found.insert(Vec::new(), view_facts(&root, Kind::Directory));
    let mut folders = vec![ext4_view::PathBuf::new("/")];
    while let Some(folder) = folders.pop() {
        for entry in volume.read_dir(&folder).expect("a readable directory") {
            let entry = entry.expect("a good entry");
            let name = entry.file_name();
            let path = entry.path();
            if matches!(name.as_ref(), b"." | b"..") || path == "/lost+found" {
                continue;
            }
            let metadata = entry.metadata().expect("an inode");
            let kind = match metadata.file_type() {
                FileType::Directory => {
                    folders.push(path.clone());
                    Kind::Directory
                }
                FileType::Symlink => {
                    let target = volume.read_link(&path).expect("a link");
                    Kind::Symlink(target.as_ref().to_vec())
                }
                FileType::Regular => view_file(&volume, &path, metadata.len(), tree),
                FileType::CharacterDevice => Kind::CharDevice(0, 0),
                FileType::BlockDevice => Kind::BlockDevice(0, 0),
                FileType::Fifo => Kind::Fifo,
                FileType::Socket => Kind::Socket,
            };
            let key = path.as_ref().strip_prefix(b"/").expect("absolute").to_vec();
            found.insert(key, view_facts(&metadata, kind));
        }
    }
    found
}

fn view_file(volume: &Ext4, path: &ext4_view::PathBuf, length: u64, tree: &FileTree) -> Kind {
    let mut file = volume.open(path).expect("a file");
    let own = path.as_ref().strip_prefix(b"/").expect("absolute");
    let ranges = TreePath::parse(own)
        .ok()
        .and_then(|path| Some(tree.get(&path)?.content()?.data_ranges()))
        .unwrap_or_else(|| std::iter::once(0..length).collect());
    let digest = blocks(ranges, |buf, at| {
        file.seek_to(at).expect("seek");
        let mut done = 0;
        while done < buf.len() {
            match file.read_bytes(&mut buf[done..]).expect("read") {
                0 => break,
                count => done += count,
            }
        }
    });
    Kind::File(length, digest)
}

fn view_facts(metadata: &ext4_view::Metadata, kind: Kind) -> Facts {
    let time = metadata.modified();
    Facts {
        kind,
        mode: metadata.mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
        mtime: (time.seconds(), time.nanoseconds()),
        links: 0,
        xattrs: BTreeMap::new(),
    }
}
