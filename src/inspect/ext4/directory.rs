//! Names in directories: every block is read as a list, whatever index there is.

use zerocopy::FromBytes as _;

use super::{Ext4, InspectError, MOST_SCANNED, Node, damaged};
use crate::fs::ext4::format::{DIR_ENTRY_HEAD, DirEntryHead, DirEntryTail, TAIL_FILE_TYPE};
use crate::inspect::volume::{Entry, must_fit};
use crate::units::ByteSize;

/// The longest directory that is read.
const MOST_BYTES: u64 = 256 << 20;
const HEAD: usize = DIR_ENTRY_HEAD;
/// Bytes of the entry that holds a block's sum.
const TAIL: usize = size_of::<DirEntryTail>();

/// The names of a directory with their inodes, by name.
#[derive(Debug, Default)]
pub(in crate::inspect) struct Names {
    /// All names, one behind the other.
    text: Vec<u8>,
    /// Begin in the text, length and inode.
    places: Vec<(u32, u8, u32)>,
    /// How many were given.
    given: usize,
}

impl Names {
    /// Bytes of memory.
    pub(in crate::inspect) fn held(&self) -> usize {
        self.text.len() + self.places.len() * size_of::<(u32, u8, u32)>()
    }

    fn add(&mut self, name: &[u8], inode: u32) {
        let (Ok(start), Ok(length)) = (u32::try_from(self.text.len()), name.len().try_into())
        else {
            return;
        };
        self.text.extend_from_slice(name);
        self.places.push((start, length, inode));
    }

    fn sort(&mut self) {
        let text = &self.text;
        let name = |(start, length, _): &(u32, u8, u32)| {
            let start = *start as usize;
            &text[start..start + usize::from(*length)]
        };
        self.places
            .sort_unstable_by(|a, b| name(a).cmp(name(b)).then(a.0.cmp(&b.0)));
    }

    /// The next name's entry, read from the volume of the names.
    pub(in crate::inspect) fn next_entry(
        &mut self,
        volume: &Ext4,
    ) -> Option<Result<Entry, InspectError>> {
        let (start, length, inode) = *self.places.get(self.given)?;
        self.given += 1;
        let text = self.text.get(start as usize..)?;
        let name = text.get(..usize::from(length))?.to_vec();
        let node = volume.node(inode);
        Some(node.and_then(|node| volume.entry(&node, name)))
    }
}

impl Ext4 {
    /// All names but `.` and `..`, in at most `room` bytes.
    pub(super) fn names(&self, node: &Node, room: usize) -> Result<Names, InspectError> {
        let mut names = Names::default();
        let mut fits = true;
        self.each_name(node, &mut |name, inode| {
            if name != b"." && name != b".." {
                names.add(name, inode);
            }
            fits = names.held() <= room;
            fits
        })?;
        must_fit(names.held(), room)?;
        names.text.shrink_to_fit();
        names.places.shrink_to_fit();
        names.sort();
        Ok(names)
    }

    /// The inode of one name. What is searched is taken off `room`.
    pub(super) fn lookup(
        &self,
        node: &Node,
        wanted: &[u8],
        room: &mut u64,
    ) -> Result<Option<u32>, InspectError> {
        let Some(left) = room.checked_sub(node.size()) else {
            return Err(InspectError::TooLarge {
                what: "what is to be searched for one path",
                most: ByteSize::from_bytes(MOST_SCANNED),
            });
        };
        *room = left;
        let mut found = None;
        self.each_name(node, &mut |name, inode| {
            if name == wanted {
                found = Some(inode);
            }
            found.is_none()
        })?;
        Ok(found)
    }

    /// Gives every name to `take` until that says enough.
    fn each_name(
        &self,
        node: &Node,
        take: &mut dyn FnMut(&[u8], u32) -> bool,
    ) -> Result<(), InspectError> {
        for (logical, block) in (0..).zip(self.directory_blocks(node)?) {
            let block = self.read_block(block)?;
            if !self.block_names(node, logical, &block, take)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Where a directory's blocks are: each is in it once, so that no
    /// directory is longer than its volume.
    fn directory_blocks(&self, node: &Node) -> Result<Vec<u64>, InspectError> {
        if node.size() > MOST_BYTES {
            return Err(InspectError::TooLarge {
                what: "a directory",
                most: ByteSize::from_bytes(MOST_BYTES),
            });
        }
        let count = node.size().div_ceil(self.block);
        let mut blocks = Vec::new();
        let mut logical = 0;
        while logical < count {
            let run = self.run_at(node, logical)?;
            let Some(first) = run.physical else {
                return damaged("a directory has a hole");
            };
            let end = run.logical.end.min(count);
            blocks.extend((logical..end).map(|block| first + (block - run.logical.start)));
            logical = end;
        }
        let mut sorted = blocks.clone();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return damaged("a directory has one block twice");
        }
        Ok(blocks)
    }

    /// Whether `take` wants more.
    fn block_names(
        &self,
        node: &Node,
        logical: u64,
        block: &[u8],
        take: &mut dyn FnMut(&[u8], u32) -> bool,
    ) -> Result<bool, InspectError> {
        let mut at = 0;
        let mut has_tail = false;
        while at + HEAD <= block.len() {
            let Ok((head, rest)) = DirEntryHead::read_from_prefix(&block[at..]) else {
                break;
            };
            let length = match usize::from(head.rec_len.get()) {
                // A block of 64 KiB does not fit 16 bits.
                0 | 65_535 if block.len() == 65_536 => block.len() - at,
                length => length,
            };
            let name = rest.get(..usize::from(head.name_len));
            let fits = length >= HEAD && length % 4 == 0 && at + length <= block.len();
            let (Some(name), true) = (name, fits && usize::from(head.name_len) + HEAD <= length)
            else {
                return damaged("a directory entry is impossible");
            };
            let is_tail =
                head.inode.get() == 0 && head.file_type == TAIL_FILE_TYPE && length == TAIL;
            has_tail |= is_tail && at + TAIL == block.len();
            if head.inode.get() != 0 {
                if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
                    return damaged("a name is impossible");
                }
                if !take(name, head.inode.get()) {
                    return Ok(false);
                }
            }
            at += length;
        }
        // Nodes of an index have their sums elsewhere.
        let is_list = logical > 0 || node.size() == self.block;
        if self.has_sums && has_tail && is_list {
            let end = block.len() - TAIL;
            if node.seed.with(&block[..end]).0.to_le_bytes() != block[end + 8..] {
                return damaged("a directory block's sum is wrong");
            }
        }
        Ok(true)
    }
}
