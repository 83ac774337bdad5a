//! Every number of a FAT volume, before a byte is written.

use std::collections::BTreeMap;

use super::format::{
    DIRECTORY_SLOTS, FAT16_MIN_CLUSTERS, FAT16_ROOT_SLOTS, FAT32_MIN_CLUSTERS, MAX_FILE,
    NAME_UNITS_PER_SLOT, SECTOR, SLOT,
};
use super::{FatError, FatKind, FatOptions, NameFault};
use crate::tree::{Content, FileTree, NodeKind, TreePath};
use crate::units::{ByteSize, GIB, KIB, MIB};

/// Distance to keep from a number of clusters where the type changes:
/// drivers disagree by a few (Microsoft's text asks for 16).
const MARGIN: u64 = 16;
/// From this size on [`FatKind::Auto`] is FAT32.
const AUTO_FAT32: u64 = 64 * MIB;
/// `BPB_SecPerClus` of 64 with 512-byte sectors: larger clusters are not portable.
const MAX_CLUSTER: u64 = 32 * KIB;
/// Most clusters that 16-bit numbers may name here.
const FAT16_MOST: u64 = FAT32_MIN_CLUSTERS - 1 - MARGIN;
/// Slots that `fatfs` fills for `.` and `..`, each with a long name.
const DOT_SLOTS: u64 = 4;

/// What is where, and how much of it.
#[derive(Debug)]
pub(super) struct Layout {
    pub geometry: Geometry,
    /// The root first, parents before their children.
    pub directories: Vec<Directory>,
}

/// A directory with its entries in order of their names.
#[derive(Debug)]
pub(super) struct Directory {
    path: TreePath,
    /// Index of the parent in [`Layout::directories`]; of the root: 0.
    pub parent: usize,
    pub children: Vec<Child>,
    slots: u64,
    folded: BTreeMap<String, TreePath>,
}

/// An entry of a directory.
#[derive(Debug)]
pub(super) struct Child {
    pub name: String,
    pub path: TreePath,
    pub kind: ChildKind,
}

/// What an entry is.
#[derive(Debug)]
pub(super) enum ChildKind {
    /// Index in [`Layout::directories`].
    Directory(usize),
    File(Content),
}

impl Layout {
    pub(super) fn plan(tree: &FileTree, options: &FatOptions) -> Result<Self, FatError> {
        let geometry = Geometry::choose(options.kind, options.size)?;
        let layout = Self {
            geometry,
            directories: directories_of(tree)?,
        };
        layout.check_slots()?;
        let needed = layout.clusters_needed();
        if needed > geometry.clusters {
            let bytes = |clusters| ByteSize::from_bytes(clusters * geometry.cluster_bytes);
            return Err(FatError::NoRoom {
                label: options.label.to_string(),
                needed: bytes(needed),
                left: bytes(geometry.clusters),
            });
        }
        Ok(layout)
    }

    fn check_slots(&self) -> Result<(), FatError> {
        for (index, directory) in self.directories.iter().enumerate() {
            let most = match (index, self.geometry.kind) {
                (0, FatKind::Fat16) => FAT16_ROOT_SLOTS,
                _ => DIRECTORY_SLOTS,
            };
            if directory.slots > most {
                return Err(FatError::DirectoryFull {
                    path: directory.path.clone(),
                    needed: directory.slots,
                    most,
                });
            }
        }
        Ok(())
    }

    /// Clusters of all files and directories; the root of FAT16 lies elsewhere.
    fn clusters_needed(&self) -> u64 {
        let cluster = self.geometry.cluster_bytes;
        let mut needed = 0;
        for (index, directory) in self.directories.iter().enumerate() {
            if index > 0 || self.geometry.kind == FatKind::Fat32 {
                needed += (directory.slots * SLOT).div_ceil(cluster).max(1);
            }
            for child in &directory.children {
                if let ChildKind::File(content) = &child.kind {
                    needed += content.size().div_ceil(cluster);
                }
            }
        }
        needed
    }
}

fn directories_of(tree: &FileTree) -> Result<Vec<Directory>, FatError> {
    // The root has the label's slot, every other directory its dots.
    let mut directories = vec![Directory::new(TreePath::root(), 0, 1)];
    let mut index_of = BTreeMap::from([(TreePath::root(), 0)]);
    for (path, _, node) in tree.iter() {
        let Some(parent) = path.parent() else {
            continue;
        };
        let parent = *index_of
            .get(&parent)
            .expect("a tree holds the parent of every path, and lists it first");
        let kind = match &node.kind {
            NodeKind::Directory => {
                let index = directories.len();
                directories.push(Directory::new(path.clone(), parent, DOT_SLOTS));
                index_of.insert(path.clone(), index);
                ChildKind::Directory(index)
            }
            NodeKind::File(content) => {
                check_size(path, content)?;
                ChildKind::File(content.clone())
            }
            other => {
                return Err(FatError::Unsupported {
                    path: path.clone(),
                    what: name_of(other),
                });
            }
        };
        directories[parent].add(path, kind)?;
    }
    Ok(directories)
}

impl Directory {
    fn new(path: TreePath, parent: usize, slots: u64) -> Self {
        Self {
            path,
            parent,
            children: Vec::new(),
            slots,
            folded: BTreeMap::new(),
        }
    }

    fn add(&mut self, path: &TreePath, kind: ChildKind) -> Result<(), FatError> {
        let name = check_name(path)?;
        // FAT compares names without case; drivers fold them by their upper case.
        let folded: String = name.chars().flat_map(char::to_uppercase).collect();
        if let Some(first) = self.folded.insert(folded, path.clone()) {
            return Err(FatError::SameName {
                first,
                second: path.clone(),
            });
        }
        let units = name.encode_utf16().count() as u64;
        self.slots += 1 + units.div_ceil(NAME_UNITS_PER_SLOT);
        self.children.push(Child {
            name,
            path: path.clone(),
            kind,
        });
        Ok(())
    }
}

/// The last component as text, if FAT keeps it as it is.
fn check_name(path: &TreePath) -> Result<String, FatError> {
    let bad = |fault| FatError::Name {
        path: path.clone(),
        fault,
    };
    let name = path.name().expect("not the root: it has a parent");
    let name = std::str::from_utf8(name).map_err(|_| bad(NameFault::NotText))?;
    if name.len() > 255 {
        return Err(bad(NameFault::TooLong(name.len())));
    }
    // The set of the long name of Microsoft's text; above U+FFFF a name would
    // need surrogate pairs, which drivers show differently.
    let excluded = |c: &char| {
        *c < ' '
            || *c == '\x7f'
            || *c > '\u{ffff}'
            || matches!(c, '"' | '*' | '/' | ':' | '<')
            || matches!(c, '>' | '?' | '\\' | '|')
    };
    if let Some(c) = name.chars().find(excluded) {
        return Err(bad(NameFault::Character(c)));
    }
    if name.ends_with(['.', ' ']) {
        return Err(bad(NameFault::Ending));
    }
    Ok(name.to_owned())
}

fn check_size(path: &TreePath, content: &Content) -> Result<(), FatError> {
    if content.size() > MAX_FILE {
        return Err(FatError::FileTooLarge {
            path: path.clone(),
            size: ByteSize::from_bytes(content.size()),
        });
    }
    Ok(())
}

fn name_of(kind: &NodeKind) -> &'static str {
    match kind {
        NodeKind::Symlink(_) => "symbolic link",
        NodeKind::CharDevice { .. } => "character device",
        NodeKind::BlockDevice { .. } => "block device",
        NodeKind::Fifo => "named pipe",
        NodeKind::Socket => "socket",
        NodeKind::Directory => "directory",
        NodeKind::File(_) => "file",
    }
}

/// Type and clusters of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Never [`FatKind::Auto`].
    pub kind: FatKind,
    /// Sectors of 512 bytes in the volume.
    pub sectors: u32,
    pub cluster_bytes: u64,
    /// Clusters in the data area.
    pub clusters: u64,
}

impl Geometry {
    pub(super) fn cluster_size(&self) -> ByteSize {
        ByteSize::from_bytes(self.cluster_bytes)
    }

    /// The type that was asked for, and the cluster size that gives it.
    fn choose(kind: FatKind, size: ByteSize) -> Result<Self, FatError> {
        let chosen = match kind {
            FatKind::Auto if size.bytes() >= AUTO_FAT32 => FatKind::Fat32,
            FatKind::Auto => FatKind::Fat16,
            kind => kind,
        };
        let outside = || FatError::Size {
            kind,
            size,
            least: limits(kind).0,
            most: limits(kind).1,
        };
        let sectors = u32::try_from(size.bytes() / SECTOR).map_err(|_| outside())?;
        let smallest = match chosen {
            FatKind::Fat32 => usual_fat32_cluster(size.bytes()),
            _ => SECTOR,
        };
        let mut candidates: Vec<u64> = powers_from(smallest).collect();
        // A volume just above a step of the table may have too few clusters.
        candidates.extend(powers_from(SECTOR).take_while(|bytes| *bytes < smallest));
        candidates
            .into_iter()
            .map(|cluster_bytes| Self {
                kind: chosen,
                sectors,
                cluster_bytes,
                clusters: clusters(chosen, sectors, cluster_bytes),
            })
            .find(Self::is_unambiguous)
            .ok_or_else(outside)
    }

    fn is_unambiguous(&self) -> bool {
        match self.kind {
            FatKind::Fat32 => (FAT32_MIN_CLUSTERS + MARGIN..0x0fff_ffe0).contains(&self.clusters),
            _ => (FAT16_MIN_CLUSTERS + MARGIN..=FAT16_MOST).contains(&self.clusters),
        }
    }
}

fn powers_from(smallest: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(smallest), |bytes| Some(bytes * 2))
        .take_while(|bytes| *bytes <= MAX_CLUSTER)
}

/// Cluster size by volume size, as Microsoft's text has it for 512-byte
/// sectors. OVMF boots 256 MiB with 512-byte clusters.
fn usual_fat32_cluster(size: u64) -> u64 {
    match size / MIB {
        0..=260 => 512,
        261..=8_192 => 4 * KIB,
        8_193..=16_384 => 8 * KIB,
        16_385..=32_768 => 16 * KIB,
        _ => MAX_CLUSTER,
    }
}

/// Clusters of the volume that `fatfs` makes: two FATs, 8 reserved sectors
/// for FAT32, 1 and a root of 512 slots for FAT16. 0 when there is no room
/// for any.
fn clusters(kind: FatKind, sectors: u32, cluster_bytes: u64) -> u64 {
    let (reserved, root, entry_bits) = match kind {
        FatKind::Fat32 => (8, 0, 32),
        _ => (1, FAT16_ROOT_SLOTS * SLOT / SECTOR, 16),
    };
    let fats = 2;
    let per_cluster = cluster_bytes / SECTOR;
    let Some(free) = u64::from(sectors).checked_sub(reserved + root) else {
        return 0;
    };
    // The smallest FAT whose entries, two of them reserved, cover the clusters
    // that it leaves; at most one sector too large.
    let fat = (free + 2 * per_cluster).div_ceil(cluster_bytes * 8 / entry_bits + fats);
    free.saturating_sub(fats * fat) / per_cluster
}

/// Sizes for which [`Geometry::choose`] finds an answer, for the message.
fn limits(kind: FatKind) -> (ByteSize, ByteSize) {
    let (least, most) = match kind {
        FatKind::Fat32 => (34 * MIB, 2048 * GIB - SECTOR),
        FatKind::Fat16 => (5 * MIB / 2, 2047 * MIB),
        FatKind::Auto => (5 * MIB / 2, 2048 * GIB - SECTOR),
    };
    (ByteSize::from_bytes(least), ByteSize::from_bytes(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn choose(kind: FatKind, size: u64) -> Geometry {
        Geometry::choose(kind, ByteSize::from_bytes(size)).expect("possible")
    }

    #[test]
    fn the_type_follows_the_number_of_clusters() {
        let esp = choose(FatKind::Auto, 256 * MIB);
        assert_eq!((esp.kind, esp.cluster_bytes), (FatKind::Fat32, 512));
        let small = choose(FatKind::Auto, 16 * MIB);
        assert_eq!((small.kind, small.cluster_bytes), (FatKind::Fat16, 512));
        let middle = choose(FatKind::Fat16, 264 * MIB);
        assert_eq!(middle.cluster_bytes, 8 * KIB, "4 KiB gives too many");
        let large = choose(FatKind::Auto, 20 * GIB);
        assert_eq!(
            (large.kind, large.cluster_bytes),
            (FatKind::Fat32, 16 * KIB)
        );
    }

    #[test]
    fn the_limits_are_possible_and_what_lies_beyond_is_not() {
        for kind in [FatKind::Auto, FatKind::Fat16, FatKind::Fat32] {
            let (least, most) = limits(kind);
            choose(kind, least.bytes());
            choose(kind, most.bytes());
            let tiny = ByteSize::from_bytes(least.bytes() * 9 / 10 - MIB / 2);
            let error = Geometry::choose(kind, tiny).expect_err("too small");
            assert_eq!(error.slug(), "fat-size");
            let huge = ByteSize::from_bytes(most.bytes() + 2 * MIB);
            Geometry::choose(kind, huge).expect_err("too large");
        }
    }

    #[test]
    fn a_wrong_size_is_said_with_the_right_ones() {
        let error = Geometry::choose(FatKind::Fat32, ByteSize::from_mib(8)).expect_err("small");
        assert_eq!(
            error.to_string(),
            "a FAT32 volume cannot have 8 MiB: it has 34 MiB to 2 TiB"
        );
    }

    proptest! {
        #[test]
        fn every_size_between_the_limits_has_a_geometry(
            sectors in 5 * 1024_u64..u64::from(u32::MAX),
        ) {
            let geometry = choose(FatKind::Auto, sectors * SECTOR);
            prop_assert!(geometry.is_unambiguous());
            if sectors * SECTOR >= 34 * MIB {
                choose(FatKind::Fat32, sectors * SECTOR);
            }
            if sectors * SECTOR <= 2047 * MIB {
                choose(FatKind::Fat16, sectors * SECTOR);
            }
        }
    }
}
