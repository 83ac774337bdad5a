//! Who gets an inode: numbers, names and links, before any block is placed.
//!
//! Inode numbers follow the order of the tree, so that they depend on nothing
//! else. Everything that ext4 cannot hold is refused here.

use std::collections::BTreeMap;

use crate::tree::{FileTree, Node, NodeId, NodeKind, TreePath};
use crate::units::ByteSize;

use super::checksum::Checksum;
use super::directory::Directory;
use super::error::{EntryProblem, Ext4Error};
use super::format::{BLOCK_BYTES, FIRST_INODE, FileType, JOURNAL_INODE, RESIZE_INODE, ROOT_INODE};
use super::hash::HashSeed;
use super::options::{FIRST_SECOND, LAST_SECOND};
use super::xattr::{self, StoredXattrs};

/// `EXT4_LINK_MAX`.
const MAX_LINKS: u64 = 65_000;
/// Bytes of a link's target: a block holds it with its NUL.
const MAX_TARGET: usize = 4095;
/// Block numbers inside a file have 32 bits, and the last one is not used.
const MAX_FILE: u64 = (u32::MAX as u64) * BLOCK_BYTES;
/// Blocks of an empty `lost+found`, so that a repair need not find any.
const LOST_AND_FOUND_BLOCKS: u32 = 4;

/// Whom an inode belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A reserved number that is not in use.
    Nobody,
    /// An entry of the tree.
    Tree(NodeId),
    /// `lost+found`, when the tree has none.
    LostAndFound,
    /// The blocks that the group table may grow into.
    Resize,
    /// The journal.
    Journal,
}

/// One inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) owner: Owner,
    /// `i_links_count`: 1 for directories with too many links to count.
    pub(super) links: u16,
    /// The file begins a stretch: see `placing`.
    pub(super) begins_stretch: bool,
}

/// Every inode and every directory of a volume.
#[derive(Debug, Clone)]
pub(super) struct Census {
    /// By inode number, the first of them 1.
    pub(super) subjects: Vec<Subject>,
    /// In the order of the tree, but `lost+found` is second.
    pub(super) directories: Vec<Directory>,
    /// By inode number; only those that have some.
    pub(super) xattrs: BTreeMap<u32, StoredXattrs>,
}

impl Census {
    /// Numbers the inodes of `tree` and shares directory entries out to blocks.
    pub(super) fn take(tree: &FileTree, seed: HashSeed) -> Result<Self, Ext4Error> {
        let mut counting = Counting::new();
        for (path, id, node) in tree.iter() {
            counting.visit(path, id, node)?;
        }
        counting.finish(tree, seed)
    }

    /// Inodes in use, the reserved ones included.
    pub(super) fn inodes(&self) -> u32 {
        u32::try_from(self.subjects.len()).expect("counted in 32 bits: Counting::number")
    }

    /// Every inode with its number.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (u32, &Subject)> {
        (1..).zip(&self.subjects)
    }
}

struct Counting {
    subjects: Vec<Subject>,
    links: BTreeMap<u32, u64>,
    numbers: BTreeMap<NodeId, u32>,
    directories: Vec<Directory>,
    xattrs: BTreeMap<u32, StoredXattrs>,
    /// Places in `directories` from the root down to the current directory.
    way: Vec<usize>,
}

impl Counting {
    fn new() -> Self {
        let nobody = Subject {
            owner: Owner::Nobody,
            links: 0,
            begins_stretch: false,
        };
        let mut subjects = vec![nobody; FIRST_INODE as usize];
        for (number, owner, links) in [
            (RESIZE_INODE, Owner::Resize, 1),
            (JOURNAL_INODE, Owner::Journal, 1),
            (FIRST_INODE, Owner::LostAndFound, 2),
        ] {
            subjects[number as usize - 1] = Subject {
                owner,
                links,
                begins_stretch: false,
            };
        }
        Self {
            subjects,
            links: BTreeMap::new(),
            numbers: BTreeMap::new(),
            directories: vec![
                Directory::new(ROOT_INODE, ROOT_INODE),
                Directory::new(FIRST_INODE, ROOT_INODE),
            ],
            xattrs: BTreeMap::new(),
            way: Vec::new(),
        }
    }

    fn visit(&mut self, path: &TreePath, id: NodeId, node: &Node) -> Result<(), Ext4Error> {
        let (number, is_new) = self.number(path, id, node)?;
        if is_new {
            check(node).map_err(|problem| problem.at(path))?;
            if !node.meta.xattrs.is_empty() {
                let stored = xattr::store(&node.meta.xattrs).map_err(|e| e.at(path))?;
                self.xattrs.insert(number, stored);
            }
        }
        *self.links.entry(number).or_insert(0) += 1;
        if let Some(name) = path.name() {
            if name.len() > 255 {
                let length = name.len();
                return Err(EntryProblem::NameTooLong { length }.at(path));
            }
            self.add_name(path, name, number, file_type(&node.kind))?;
        }
        Ok(())
    }

    /// The inode number of a node, and whether it was met for the first time.
    fn number(
        &mut self,
        path: &TreePath,
        id: NodeId,
        node: &Node,
    ) -> Result<(u32, bool), Ext4Error> {
        if let Some(number) = self.numbers.get(&id) {
            return Ok((*number, false));
        }
        let owner = Owner::Tree(id);
        let number = match path.as_bytes() {
            b"" => {
                self.way.push(0);
                ROOT_INODE
            }
            b"lost+found" if node.is_directory() => FIRST_INODE,
            b"lost+found" => return Err(EntryProblem::LostAndFound.at(path)),
            _ => {
                let files = self.subjects.len() as u64 + 1;
                let number = u32::try_from(files).map_err(|_| Ext4Error::TooManyFiles { files })?;
                self.subjects.push(Subject {
                    owner,
                    links: 0,
                    begins_stretch: begins_stretch(path),
                });
                number
            }
        };
        self.subjects[number as usize - 1].owner = owner;
        self.numbers.insert(id, number);
        Ok((number, true))
    }

    /// Enters a name into its directory. The tree comes in component order, so
    /// the parent is on the way down from the root.
    fn add_name(
        &mut self,
        path: &TreePath,
        name: &[u8],
        number: u32,
        file_type: FileType,
    ) -> Result<(), Ext4Error> {
        self.way.truncate(path.components().count());
        let parent = *self.way.last().expect("the root is always on the way");
        let directory = &mut self.directories[parent];
        let parent_number = directory.inode();
        let entries = directory.len();
        directory.add(name, number, file_type).map_err(|_| {
            let parent = path.parent().unwrap_or_default();
            EntryProblem::DirectoryTooLarge { entries }.at(&parent)
        })?;
        if file_type == FileType::Directory {
            if number == FIRST_INODE {
                self.way.push(1);
            } else {
                self.way.push(self.directories.len());
                self.directories.push(Directory::new(number, parent_number));
            }
        }
        Ok(())
    }

    fn finish(mut self, tree: &FileTree, seed: HashSeed) -> Result<Census, Ext4Error> {
        if self.subjects[FIRST_INODE as usize - 1].owner == Owner::LostAndFound {
            self.directories[0]
                .add_in_order(b"lost+found", FIRST_INODE, FileType::Directory)
                .map_err(|_| too_large(&self.directories[0], tree, &self.subjects))?;
        }
        for directory in &mut self.directories {
            let least = if directory.inode() == FIRST_INODE {
                LOST_AND_FOUND_BLOCKS
            } else {
                1
            };
            if directory.lay_out(least, seed).is_err() {
                return Err(too_large(directory, tree, &self.subjects));
            }
            self.links.insert(directory.inode(), directory.links());
        }
        for (number, links) in self.links {
            let subject = &mut self.subjects[number as usize - 1];
            subject.links = match u16::try_from(links) {
                Ok(count) if links <= MAX_LINKS => count,
                // dir_nlink: a directory that cannot be counted says 1.
                _ if is_directory(subject.owner, tree) => 1,
                _ => {
                    let path = path_of(subject.owner, tree);
                    return Err(EntryProblem::TooManyLinks { links }.at(&path));
                }
            };
        }
        Ok(Census {
            subjects: self.subjects,
            directories: self.directories,
            xattrs: self.xattrs,
        })
    }
}

/// Whether a stretch begins with this file: one in 32 does, by its path alone.
fn begins_stretch(path: &TreePath) -> bool {
    Checksum::START
        .feed(path.as_bytes())
        .value()
        .is_multiple_of(32)
}

/// The first path of an inode, for messages. Looks through the whole tree.
pub(super) fn path_of(owner: Owner, tree: &FileTree) -> TreePath {
    tree.iter()
        .find(|(_, id, _)| owner == Owner::Tree(*id))
        .map(|(path, _, _)| path.clone())
        .unwrap_or_default()
}

fn too_large(directory: &Directory, tree: &FileTree, subjects: &[Subject]) -> Ext4Error {
    let owner = subjects[directory.inode() as usize - 1].owner;
    let entries = directory.len();
    EntryProblem::DirectoryTooLarge { entries }.at(&path_of(owner, tree))
}

fn is_directory(owner: Owner, tree: &FileTree) -> bool {
    match owner {
        Owner::Tree(id) => tree.node(id).is_directory(),
        Owner::LostAndFound => true,
        Owner::Nobody | Owner::Resize | Owner::Journal => false,
    }
}

/// What a directory entry calls it.
pub(super) fn file_type(kind: &NodeKind) -> FileType {
    match kind {
        NodeKind::Directory => FileType::Directory,
        NodeKind::File(_) => FileType::Regular,
        NodeKind::Symlink(_) => FileType::Symlink,
        NodeKind::CharDevice { .. } => FileType::CharDevice,
        NodeKind::BlockDevice { .. } => FileType::BlockDevice,
        NodeKind::Fifo => FileType::Fifo,
        NodeKind::Socket => FileType::Socket,
    }
}

/// Whether an inode can hold it.
fn check(node: &Node) -> Result<(), EntryProblem> {
    let time = node.meta.mtime;
    if !(FIRST_SECOND..=LAST_SECOND).contains(&time.seconds) || time.nanos >= 1_000_000_000 {
        return Err(EntryProblem::Time { time });
    }
    match &node.kind {
        NodeKind::File(content) if content.size() > MAX_FILE => Err(EntryProblem::FileTooLarge {
            size: ByteSize::from_bytes(content.size()),
            limit: ByteSize::from_bytes(MAX_FILE),
        }),
        NodeKind::Symlink(target) if !(1..=MAX_TARGET).contains(&target.len()) => {
            Err(EntryProblem::TargetLength {
                length: target.len(),
            })
        }
        NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor }
            if *major > 0xfff || *minor > 0xf_ffff =>
        {
            Err(EntryProblem::DeviceNumber {
                major: *major,
                minor: *minor,
            })
        }
        _ => Ok(()),
    }
}
