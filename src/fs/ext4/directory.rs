//! Directories: entries shared out to blocks, and the index over the blocks.
//!
//! A directory of one block is a plain list in the order of names. A larger
//! one is indexed: its entries are in the order of their hashes, and block 0
//! says with which hash each block begins.
//!
//! ```text
//!   one level     0: root   1 .. n: leaves
//!   two levels    0: root   1 .. m: nodes   m+1 .. m+n: leaves
//! ```
//!
//! Source: kernel documentation, "Directory Entries" and "Hash Tree
//! Directories".

use std::ops::Range;

use super::checksum::Checksum;
use super::format::{
    BLOCK_SIZE, Block, DIR_ENTRY_HEAD, DirEntryHead, DirEntryTail, DxCountLimit, DxEntry,
    DxNodeHead, DxRootHead, DxTail, FileType, HALF_MD4, TAIL_FILE_TYPE, entry_length, put,
};
use super::hash::{HashSeed, NameHash};

/// Bytes of a block for entries; the rest is the tail.
const ENTRY_SPACE: usize = BLOCK_SIZE - size_of::<DirEntryTail>();
/// Bytes of `.` and `..`.
const DOTS: usize = 2 * entry_length(2);
/// Index entries in the root, the one with count and limit included.
const ROOT_LIMIT: usize = index_limit(size_of::<DxRootHead>());
/// Index entries in a node.
const NODE_LIMIT: usize = index_limit(size_of::<DxNodeHead>());

const fn index_limit(head: usize) -> usize {
    (BLOCK_SIZE - head - size_of::<DxTail>()) / size_of::<DxEntry>()
}

/// More entries than two levels of index can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    inode: u32,
    /// Where the name begins in `names`.
    name_at: u32,
    name_length: u8,
    file_type: FileType,
}

/// One directory.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    inode: u32,
    parent: u32,
    /// All names, one after the other.
    names: Vec<u8>,
    entries: Vec<Entry>,
    subdirectories: u32,
    shape: Shape,
}

#[derive(Debug, Clone)]
enum Shape {
    /// Everything in block 0, and empty blocks behind it.
    List { empty_blocks: u32 },
    /// For each leaf its first entry and its smallest hash.
    Indexed(Vec<Leaf>),
}

#[derive(Debug, Clone, Copy)]
struct Leaf {
    first: u32,
    hash: u32,
}

/// What one block of a directory is.
enum Part {
    List,
    Empty,
    Root,
    Node(usize),
    Leaf(usize),
}

impl Directory {
    /// Nothing in it yet but `.` and `..`.
    pub(super) fn new(inode: u32, parent: u32) -> Self {
        Self {
            inode,
            parent,
            names: Vec::new(),
            entries: Vec::new(),
            subdirectories: 0,
            shape: Shape::List { empty_blocks: 0 },
        }
    }

    /// Adds an entry; names come in ascending order.
    pub(super) fn add(
        &mut self,
        name: &[u8],
        inode: u32,
        file_type: FileType,
    ) -> Result<(), TooLarge> {
        self.entries.push(Entry {
            inode,
            name_at: u32::try_from(self.names.len()).map_err(|_| TooLarge)?,
            name_length: u8::try_from(name.len()).map_err(|_| TooLarge)?,
            file_type,
        });
        self.names.extend_from_slice(name);
        self.subdirectories += u32::from(file_type == FileType::Directory);
        Ok(())
    }

    /// Puts an entry that came late where its name belongs.
    pub(super) fn add_in_order(
        &mut self,
        name: &[u8],
        inode: u32,
        file_type: FileType,
    ) -> Result<(), TooLarge> {
        let place = self
            .entries
            .partition_point(|entry| self.name(entry) < name);
        self.add(name, inode, file_type)?;
        self.entries[place..].rotate_right(1);
        Ok(())
    }

    /// The inode that this directory is.
    pub(super) fn inode(&self) -> u32 {
        self.inode
    }

    /// Entries besides `.` and `..`.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// `..` of every directory in it, `.` and its own name.
    pub(super) fn links(&self) -> u64 {
        2 + u64::from(self.subdirectories)
    }

    /// Whether it has an index.
    pub(super) fn is_indexed(&self) -> bool {
        matches!(self.shape, Shape::Indexed(_))
    }

    /// Shares the entries out to blocks. A list gets at least `least_blocks`.
    pub(super) fn lay_out(&mut self, least_blocks: u32, seed: HashSeed) -> Result<(), TooLarge> {
        let listed: usize = self.entries.iter().map(entry_bytes).sum();
        if DOTS + listed <= ENTRY_SPACE {
            let empty_blocks = least_blocks.saturating_sub(1);
            self.shape = Shape::List { empty_blocks };
            return Ok(());
        }
        let hashes = self.sort_by_hash(seed);
        let leaves = self.leaves(&hashes);
        if leaves.len() > ROOT_LIMIT * NODE_LIMIT {
            return Err(TooLarge);
        }
        self.shape = Shape::Indexed(leaves);
        Ok(())
    }

    /// Blocks it takes, once laid out.
    pub(super) fn blocks(&self) -> u32 {
        match &self.shape {
            Shape::List { empty_blocks } => 1 + empty_blocks,
            Shape::Indexed(leaves) => u32::try_from(1 + nodes(leaves.len()) + leaves.len())
                .expect("at most 507 * 510 leaves: checked in lay_out"),
        }
    }

    /// Writes logical block `index` over `block`, which is zero.
    pub(super) fn write_block(&self, index: u32, volume: Checksum, block: &mut Block) {
        let sum = volume.of_inode(self.inode);
        match self.part(index) {
            Part::List => self.write_list(block),
            Part::Empty => put_entry(block, 0, ENTRY_SPACE, None),
            Part::Root => return self.write_root(sum, block),
            Part::Node(node) => return self.write_node(node, sum, block),
            Part::Leaf(leaf) => self.write_entries(self.leaf_range(leaf), 0, block),
        }
        seal_entries(block, sum);
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        let at = entry.name_at as usize;
        &self.names[at..at + usize::from(entry.name_length)]
    }

    fn sort_by_hash(&mut self, seed: HashSeed) -> Vec<u32> {
        let mut hashed: Vec<(NameHash, Entry)> = self
            .entries
            .iter()
            .map(|entry| (NameHash::of(self.name(entry), seed), *entry))
            .collect();
        // Stable: names with one hash stay in their own order.
        hashed.sort_by_key(|(hash, _)| *hash);
        self.entries = hashed.iter().map(|(_, entry)| *entry).collect();
        hashed.iter().map(|(hash, _)| hash.major).collect()
    }

    /// Fills block after block; `hashes` are those of the entries.
    fn leaves(&self, hashes: &[u32]) -> Vec<Leaf> {
        let mut leaves: Vec<Leaf> = Vec::new();
        let mut room = 0;
        let mut last_hash = None;
        for (at, (entry, hash)) in self.entries.iter().zip(hashes).enumerate() {
            let needs = entry_bytes(entry);
            if needs > room {
                room = ENTRY_SPACE;
                leaves.push(Leaf {
                    first: u32::try_from(at).expect("names have at most 2^32 bytes: add"),
                    // Bit 0 tells a reader to look into the block before, too.
                    hash: hash | u32::from(last_hash == Some(hash)),
                });
            }
            room -= needs;
            last_hash = Some(hash);
        }
        leaves
    }

    fn part(&self, index: u32) -> Part {
        let index = index as usize;
        match &self.shape {
            Shape::List { .. } if index == 0 => Part::List,
            Shape::List { .. } => Part::Empty,
            Shape::Indexed(_) if index == 0 => Part::Root,
            Shape::Indexed(leaves) => match (index - 1).checked_sub(nodes(leaves.len())) {
                None => Part::Node(index - 1),
                Some(leaf) => Part::Leaf(leaf),
            },
        }
    }

    fn index(&self) -> &[Leaf] {
        match &self.shape {
            Shape::List { .. } => &[],
            Shape::Indexed(leaves) => leaves,
        }
    }

    fn leaf_range(&self, leaf: usize) -> Range<usize> {
        let first = |leaf: usize| {
            self.index()
                .get(leaf)
                .map_or(self.entries.len(), |leaf| leaf.first as usize)
        };
        first(leaf)..first(leaf + 1)
    }

    fn write_list(&self, block: &mut Block) {
        let dots = self.dots();
        put(block, 0, &dots.dot);
        put(block, DIR_ENTRY_HEAD, &dots.dot_name);
        let at = entry_length(1);
        if self.entries.is_empty() {
            let dotdot = DirEntryHead {
                rec_len: length(ENTRY_SPACE - at).into(),
                ..dots.dotdot
            };
            put(block, at, &dotdot);
        } else {
            put(block, at, &dots.dotdot);
        }
        put(block, at + DIR_ENTRY_HEAD, &dots.dotdot_name);
        self.write_entries(0..self.entries.len(), DOTS, block);
    }

    /// Entries from byte `at` on; the last one reaches to the tail.
    fn write_entries(&self, range: Range<usize>, mut at: usize, block: &mut Block) {
        let last = range.end.saturating_sub(1);
        for place in range {
            let entry = &self.entries[place];
            let bytes = if place == last {
                ENTRY_SPACE - at
            } else {
                entry_bytes(entry)
            };
            put_entry(block, at, bytes, Some((entry, self.name(entry))));
            at += bytes;
        }
    }

    /// `.` and `..` as they stand in a list; the index changes the length of `..`.
    fn dots(&self) -> DxRootHead {
        let dot = |inode: u32, name_len: u8| DirEntryHead {
            inode: inode.into(),
            rec_len: length(entry_length(2)).into(),
            name_len,
            file_type: FileType::Directory as u8,
        };
        DxRootHead {
            dot: dot(self.inode, 1),
            dot_name: *b".\0\0\0",
            dotdot: dot(self.parent, 2),
            dotdot_name: *b"..\0\0",
            reserved_zero: 0.into(),
            hash_version: HALF_MD4,
            info_length: 8,
            indirect_levels: 0,
            unused_flags: 0,
        }
    }

    fn write_root(&self, sum: Checksum, block: &mut Block) {
        let leaves = self.index();
        let mut head = self.dots();
        head.dotdot.rec_len = length(BLOCK_SIZE - entry_length(1)).into();
        let nodes = nodes(leaves.len());
        head.indirect_levels = u8::from(nodes > 0);
        put(block, 0, &head);
        let at = size_of::<DxRootHead>();
        if nodes == 0 {
            put_index(
                block,
                at,
                ROOT_LIMIT,
                sum,
                leaves.iter().map(|leaf| leaf.hash),
                1,
            );
        } else {
            let firsts = leaves.chunks(NODE_LIMIT).filter_map(<[Leaf]>::first);
            put_index(block, at, ROOT_LIMIT, sum, firsts.map(|leaf| leaf.hash), 1);
        }
    }

    fn write_node(&self, node: usize, sum: Checksum, block: &mut Block) {
        let leaves = self.index();
        let below = leaves.chunks(NODE_LIMIT).nth(node).unwrap_or_default();
        put_entry(block, 0, BLOCK_SIZE, None);
        let first_block = 1 + nodes(leaves.len()) + node * NODE_LIMIT;
        put_index(
            block,
            size_of::<DxNodeHead>(),
            NODE_LIMIT,
            sum,
            below.iter().map(|leaf| leaf.hash),
            u32::try_from(first_block).expect("below the number of blocks"),
        );
    }
}

/// Nodes between the root and `leaves` leaves.
fn nodes(leaves: usize) -> usize {
    if leaves > ROOT_LIMIT {
        leaves.div_ceil(NODE_LIMIT)
    } else {
        0
    }
}

fn entry_bytes(entry: &Entry) -> usize {
    entry_length(usize::from(entry.name_length))
}

/// A length inside a block.
fn length(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("at most the size of a block")
}

/// An entry of `bytes` bytes, unused when there is none.
fn put_entry(block: &mut Block, at: usize, bytes: usize, entry: Option<(&Entry, &[u8])>) {
    let (inode, name, file_type) = entry.map_or((0, b"".as_slice(), 0), |(entry, name)| {
        (entry.inode, name, entry.file_type as u8)
    });
    let head = DirEntryHead {
        inode: inode.into(),
        rec_len: length(bytes).into(),
        name_len: u8::try_from(name.len()).expect("at most 255: add"),
        file_type,
    };
    put(block, at, &head);
    put(block, at + DIR_ENTRY_HEAD, name);
}

/// Writes the tail with the checksum of everything before it.
fn seal_entries(block: &mut Block, sum: Checksum) {
    let tail = DirEntryTail {
        det_reserved_zero1: 0.into(),
        det_rec_len: length(size_of::<DirEntryTail>()).into(),
        det_reserved_zero2: 0,
        det_reserved_ft: TAIL_FILE_TYPE,
        det_checksum: sum.feed(&block[..ENTRY_SPACE]).value().into(),
    };
    put(block, ENTRY_SPACE, &tail);
}

/// An index from byte `at` on: `hashes` of consecutive blocks, `first_block`
/// the first of them. The place of the first hash holds count and limit.
fn put_index(
    block: &mut Block,
    at: usize,
    limit: usize,
    sum: Checksum,
    hashes: impl Iterator<Item = u32>,
    first_block: u32,
) {
    let mut end = at;
    let mut count = 0;
    for (hash, logical) in hashes.zip(first_block..) {
        let entry = DxEntry {
            hash: hash.into(),
            block: logical.into(),
        };
        put(block, end, &entry);
        end += size_of::<DxEntry>();
        count += 1;
    }
    let counts = DxCountLimit {
        limit: length(limit).into(),
        count: count.into(),
    };
    put(block, at, &counts);
    // The sum covers the entries in use, then the tail with a sum of zero.
    let sum = sum.feed(&block[..end]).feed(&[0; size_of::<DxTail>()]);
    let tail = DxTail {
        dt_reserved: 0.into(),
        dt_checksum: sum.value().into(),
    };
    put(block, at + limit * size_of::<DxEntry>(), &tail);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(names: usize, length: usize) -> Directory {
        let mut directory = Directory::new(12, 2);
        for at in 0..names {
            let name = format!("{at:0length$}");
            directory
                .add(name.as_bytes(), 100, FileType::Regular)
                .expect("fits");
        }
        directory.lay_out(1, [1, 2, 3, 4]).expect("fits");
        directory
    }

    #[test]
    fn limits_are_those_of_the_kernel_with_checksums() {
        assert_eq!((ROOT_LIMIT, NODE_LIMIT), (507, 510));
    }

    #[test]
    fn blocks_follow_from_the_lengths_of_names() {
        // An entry with a name of 4 bytes takes 12: 338 fit beside `.` and
        // `..`, and 340 into a leaf.
        for (names, blocks) in [(0, 1), (338, 1), (339, 2), (340, 2), (341, 3), (681, 4)] {
            assert_eq!(directory(names, 4).blocks(), blocks, "{names}");
        }
        // 507 leaves of 15 names each need no nodes; one more needs two.
        assert_eq!(directory(15 * 507, 255).blocks(), 508);
        assert_eq!(directory(15 * 507 + 1, 255).blocks(), 1 + 1 + 508);
        assert_eq!(directory(15 * 511, 255).blocks(), 1 + 2 + 511);
    }

    #[test]
    fn a_late_entry_finds_its_place() {
        let mut directory = Directory::new(2, 2);
        for name in ["bin", "usr"] {
            directory
                .add(name.as_bytes(), 12, FileType::Directory)
                .expect("fits");
        }
        directory
            .add_in_order(b"lost+found", 11, FileType::Directory)
            .expect("fits");
        let names: Vec<&[u8]> = directory
            .entries
            .iter()
            .map(|entry| directory.name(entry))
            .collect();
        assert_eq!(names, [b"bin".as_slice(), b"lost+found", b"usr"]);
        assert_eq!(directory.links(), 5);
    }
}
