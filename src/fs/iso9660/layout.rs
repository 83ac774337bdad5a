//! Every number of an ISO 9660 volume, before a byte is written.
//!
//! There are two hierarchies over the same files, one for each kind of name.
//! Each has its own order of directories and of the entries in them.

use std::collections::BTreeMap;

use super::error::{IsoError, NameFault};
use super::format::{
    DESCRIPTORS, DirectoryRecord, JOLIET_UNITS, MAX_DIRECTORIES, MAX_FILE, MAX_LEVELS,
    PathTableRecord, SECTOR, SYSTEM_AREA,
};
use crate::tree::{Content, FileTree, NodeId, NodeKind, TreePath};
use crate::units::ByteSize;

/// Bytes of an identifier in the primary hierarchy, without `;1`.
const PRIMARY_NAME: usize = 30;
/// Bytes of an extension there.
const PRIMARY_EXTENSION: usize = 8;

/// What is where.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) primary: Hierarchy,
    pub(super) joliet: Hierarchy,
    /// In the order of the tree; hard links are one.
    pub(super) files: Vec<File>,
    /// Sectors in the volume.
    pub(super) sectors: u32,
}

/// A file's content and its first sector; 0 when it is empty.
#[derive(Debug)]
pub(super) struct File {
    pub(super) content: Content,
    pub(super) sector: u32,
}

/// The directories as one kind of reader sees them.
#[derive(Debug)]
pub(super) struct Hierarchy {
    /// In the order of the path table: by level, then by parent, then by name.
    pub(super) directories: Vec<Directory>,
    /// Bytes in a path table.
    pub(super) table_bytes: u32,
    /// First sector of the little-endian path table.
    pub(super) l_table: u32,
    /// First sector of the big-endian path table.
    pub(super) m_table: u32,
}

#[derive(Debug)]
pub(super) struct Directory {
    /// Empty for the root.
    pub(super) identifier: Vec<u8>,
    /// Index of its parent; the root's is itself.
    pub(super) parent: usize,
    pub(super) entries: Vec<Entry>,
    pub(super) sector: u32,
    /// Whole sectors, in bytes.
    pub(super) bytes: u32,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) identifier: Vec<u8>,
    pub(super) target: Target,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// Index in [`Hierarchy::directories`].
    Directory(usize),
    /// Index in [`Layout::files`].
    File(usize),
}

impl Layout {
    pub(super) fn plan(tree: &FileTree) -> Result<Self, IsoError> {
        let mut outline = Outline::of(tree)?;
        let mut primary = Hierarchy::order(&outline.folders, |child| &child.primary);
        let mut joliet = Hierarchy::order(&outline.folders, |child| &child.joliet);
        let mut sectors = Sectors {
            next: u64::from(SYSTEM_AREA + DESCRIPTORS),
        };
        for hierarchy in [&mut primary, &mut joliet] {
            hierarchy.place_tables(&mut sectors)?;
        }
        for hierarchy in [&mut primary, &mut joliet] {
            for directory in &mut hierarchy.directories {
                directory.sector = sectors.take(u64::from(directory.bytes))?;
            }
        }
        for file in &mut outline.files {
            if file.content.size() > 0 {
                file.sector = sectors.take(file.content.size())?;
            }
        }
        Ok(Self {
            primary,
            joliet,
            files: outline.files,
            sectors: sectors.take(0)?,
        })
    }
}

/// Hands out sectors from the front.
struct Sectors {
    next: u64,
}

impl Sectors {
    /// The first of the sectors for `bytes` bytes.
    fn take(&mut self, bytes: u64) -> Result<u32, IsoError> {
        let first = self.next;
        self.next += bytes.div_ceil(SECTOR);
        let too_large = || IsoError::TooLarge {
            size: ByteSize::from_bytes(self.next.saturating_mul(SECTOR)),
        };
        u32::try_from(self.next).map_err(|_| too_large())?;
        u32::try_from(first).map_err(|_| too_large())
    }
}

/// The tree with both names of every entry.
struct Outline {
    /// The root first, parents before their children.
    folders: Vec<Vec<Child>>,
    files: Vec<File>,
}

struct Child {
    primary: Vec<u8>,
    joliet: Vec<u8>,
    /// A directory is an index in `Outline::folders` here.
    target: Target,
}

impl Outline {
    fn of(tree: &FileTree) -> Result<Self, IsoError> {
        let mut outline = Self {
            folders: vec![Vec::new()],
            files: Vec::new(),
        };
        let mut folder_at = BTreeMap::from([(TreePath::root(), 0)]);
        let mut taken = vec![Taken::new()];
        let mut file_of: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (path, id, node) in tree.iter() {
            let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
                continue;
            };
            let parent = *folder_at
                .get(&parent)
                .expect("a tree holds the parent of every path, and lists it first");
            let target = match &node.kind {
                NodeKind::Directory => {
                    check_depth(path)?;
                    let index = outline.folders.len();
                    outline.folders.push(Vec::new());
                    taken.push(Taken::new());
                    folder_at.insert(path.clone(), index);
                    Target::Directory(index)
                }
                NodeKind::File(content) => {
                    let known = file_of.get(&id).copied();
                    let index = known.map_or_else(|| outline.add_file(path, content), Ok)?;
                    file_of.insert(id, index);
                    Target::File(index)
                }
                other => return Err(unsupported(path, other)),
            };
            outline.folders[parent].push(Child {
                joliet: joliet_name(path, name, target)?,
                primary: primary_name(name, target, &mut taken[parent]),
                target,
            });
        }
        match outline.folders.len() {
            count if count > MAX_DIRECTORIES => Err(IsoError::TooManyDirectories { count }),
            _ => Ok(outline),
        }
    }

    fn add_file(&mut self, path: &TreePath, content: &Content) -> Result<usize, IsoError> {
        if content.size() > MAX_FILE {
            return Err(IsoError::FileTooLarge {
                path: path.clone(),
                size: ByteSize::from_bytes(content.size()),
            });
        }
        self.files.push(File {
            content: content.clone(),
            sector: 0,
        });
        Ok(self.files.len() - 1)
    }
}

fn check_depth(path: &TreePath) -> Result<(), IsoError> {
    // The root is level 1.
    if path.components().count() >= MAX_LEVELS {
        return Err(IsoError::TooDeep { path: path.clone() });
    }
    Ok(())
}

fn unsupported(path: &TreePath, kind: &NodeKind) -> IsoError {
    let what = match kind {
        NodeKind::Symlink(_) => "symbolic link",
        NodeKind::CharDevice { .. } => "character device",
        NodeKind::BlockDevice { .. } => "block device",
        NodeKind::Fifo => "named pipe",
        NodeKind::Socket => "socket",
        NodeKind::Directory => "directory",
        NodeKind::File(_) => "file",
    };
    IsoError::Unsupported {
        path: path.clone(),
        what,
    }
}

/// The name in UCS-2, big endian; a file's ends with its version.
fn joliet_name(path: &TreePath, name: &[u8], target: Target) -> Result<Vec<u8>, IsoError> {
    let bad = |fault| IsoError::Name {
        path: path.clone(),
        fault,
    };
    let name = std::str::from_utf8(name).map_err(|_| bad(NameFault::NotText))?;
    // Above U+FFFF a name would need surrogate pairs, which UCS-2 has not.
    let excluded =
        |c: &char| *c < ' ' || *c > '\u{ffff}' || matches!(c, '*' | '/' | ':' | ';' | '?' | '\\');
    if let Some(c) = name.chars().find(excluded) {
        return Err(bad(NameFault::Character(c)));
    }
    let units = name.encode_utf16().count();
    if units > JOLIET_UNITS {
        return Err(bad(NameFault::TooLong { units }));
    }
    let version = match target {
        Target::File(_) => ";1",
        Target::Directory(_) => "",
    };
    let units = name.encode_utf16().chain(version.encode_utf16());
    Ok(units.flat_map(u16::to_be_bytes).collect())
}

/// Identifiers in use in a directory, each with the number to try next.
type Taken = BTreeMap<Vec<u8>, u32>;

/// The name in capitals, digits and `_`, with a number at its end where it
/// would be that of an entry before.
fn primary_name(name: &[u8], target: Target, taken: &mut Taken) -> Vec<u8> {
    let is_file = matches!(target, Target::File(_));
    let dot = name.iter().rposition(|byte| *byte == b'.');
    let (base, extension) = match dot.filter(|at| is_file && *at > 0) {
        Some(at) => (&name[..at], &name[at + 1..]),
        None => (name, b"".as_slice()),
    };
    let extension = d_characters(extension, PRIMARY_EXTENSION);
    let most = PRIMARY_NAME - extension.len();
    let base = d_characters(base, most);
    let numbered = |number: u32| {
        let suffix = match number {
            1 => String::new(),
            more => format!("_{more}"),
        };
        let kept = base.len().min(most - suffix.len());
        let mut identifier = [&base[..kept], suffix.as_bytes()].concat();
        if is_file {
            identifier.push(b'.');
            identifier.extend_from_slice(&extension);
            identifier.extend_from_slice(b";1");
        }
        identifier
    };
    let plain = numbered(1);
    let first = taken.get(&plain).copied().unwrap_or(1);
    let (number, identifier) = (first..=u32::MAX)
        .map(|number| (number, numbered(number)))
        .find(|(_, identifier)| !taken.contains_key(identifier))
        .expect("there are more numbers than entries");
    taken.insert(identifier.clone(), 1);
    taken.insert(plain, number + 1);
    identifier
}

fn d_characters(name: &[u8], most: usize) -> Vec<u8> {
    let fold = |byte: &u8| match byte.to_ascii_uppercase() {
        byte @ (b'A'..=b'Z' | b'0'..=b'9') => byte,
        _ => b'_',
    };
    name.iter().take(most).map(fold).collect()
}

impl Hierarchy {
    /// Orders everything by the names that `name_of` picks.
    fn order(folders: &[Vec<Child>], name_of: impl Fn(&Child) -> &Vec<u8>) -> Self {
        let mut directories = vec![Directory::new(Vec::new(), 0)];
        // For each directory its index in `folders`.
        let mut folder_of = vec![0];
        let mut at = 0;
        while at < directories.len() {
            let mut children: Vec<&Child> = folders[folder_of[at]].iter().collect();
            children.sort_by(|a, b| sort_key(name_of(a)).cmp(sort_key(name_of(b))));
            for child in children {
                let identifier = name_of(child).clone();
                let target = match child.target {
                    Target::Directory(folder) => {
                        folder_of.push(folder);
                        directories.push(Directory::new(identifier.clone(), at));
                        Target::Directory(directories.len() - 1)
                    }
                    file @ Target::File(_) => file,
                };
                directories[at].entries.push(Entry { identifier, target });
            }
            at += 1;
        }
        Self {
            directories,
            table_bytes: 0,
            l_table: 0,
            m_table: 0,
        }
    }

    /// Measures tables and directories, and places the tables.
    fn place_tables(&mut self, sectors: &mut Sectors) -> Result<(), IsoError> {
        let mut table = 0;
        for directory in &mut self.directories {
            // The root's identifier is one byte of zero.
            let identifier = directory.identifier.len().max(1);
            table += (size_of::<PathTableRecord>() + identifier).next_multiple_of(2) as u64;
            directory.bytes = whole_bytes(directory.measure())?;
        }
        self.table_bytes = whole_bytes(table)?;
        self.l_table = sectors.take(table)?;
        self.m_table = sectors.take(table)?;
        Ok(())
    }
}

fn whole_bytes(bytes: u64) -> Result<u32, IsoError> {
    u32::try_from(bytes).map_err(|_| IsoError::TooLarge {
        size: ByteSize::from_bytes(bytes),
    })
}

/// What entries are ordered by (ECMA-119 9.3): the name without its version.
/// A dot sorts before all that primary names have, as the rule asks.
fn sort_key(identifier: &[u8]) -> &[u8] {
    let version = [b";1".as_slice(), b"\0;\x001"];
    let without = version
        .into_iter()
        .filter_map(|end| identifier.strip_suffix(end));
    // UCS-2 first fits: `;` never ends a name, so that both cannot match.
    without.min_by_key(|rest| rest.len()).unwrap_or(identifier)
}

impl Directory {
    fn new(identifier: Vec<u8>, parent: usize) -> Self {
        Self {
            identifier,
            parent,
            entries: Vec::new(),
            sector: 0,
            bytes: 0,
        }
    }

    /// Bytes of all records: none crosses the end of a sector.
    fn measure(&self) -> u64 {
        let mut at = 2 * DirectoryRecord::bytes(1) as u64;
        for entry in &self.entries {
            at = place_record(at, entry.identifier.len()) + record(entry.identifier.len());
        }
        at.next_multiple_of(SECTOR)
    }
}

fn record(identifier: usize) -> u64 {
    DirectoryRecord::bytes(identifier) as u64
}

/// Where the next record goes: `at`, or the next sector when it does not fit.
pub(super) fn place_record(at: u64, identifier: usize) -> u64 {
    if at % SECTOR + record(identifier) > SECTOR {
        at.next_multiple_of(SECTOR)
    } else {
        at
    }
}
