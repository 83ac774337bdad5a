//! Names in directories: every block is read as a list, whatever index there is.

use zerocopy::FromBytes as _;

use super::{Ext4, InspectError, Node, damaged};
use crate::fs::ext4::format::{DIR_ENTRY_HEAD, DirEntryHead, DirEntryTail, TAIL_FILE_TYPE};
use crate::units::ByteSize;

/// The longest directory that is read.
const MOST_BYTES: u64 = 256 << 20;
/// Most names of one.
const MOST_NAMES: usize = 2_000_000;
const HEAD: usize = DIR_ENTRY_HEAD;
/// Bytes of the entry that holds a block's sum.
const TAIL: usize = size_of::<DirEntryTail>();

impl Ext4 {
    /// All names with their inodes, in the order of the disk.
    pub(super) fn names(&self, node: &Node) -> Result<Vec<(Vec<u8>, u32)>, InspectError> {
        let mut names = Vec::new();
        self.each_name(node, &mut |name, inode| {
            names.push((name.to_vec(), inode));
            names.len() < MOST_NAMES
        })?;
        if names.len() >= MOST_NAMES {
            return Err(InspectError::TooLarge {
                what: "a directory",
                most: ByteSize::from_bytes(MOST_BYTES),
            });
        }
        Ok(names)
    }

    /// The inode of one name.
    pub(super) fn lookup(&self, node: &Node, wanted: &[u8]) -> Result<Option<u32>, InspectError> {
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
        if node.size() > MOST_BYTES {
            return Err(InspectError::TooLarge {
                what: "a directory",
                most: ByteSize::from_bytes(MOST_BYTES),
            });
        }
        let mut logical = 0;
        while logical * self.block < node.size() {
            let run = self.run_at(node, logical)?;
            let Some(first) = run.physical else {
                return damaged("a directory has a hole");
            };
            let block = self.read_block(first + (logical - run.logical.start))?;
            if !self.block_names(node, logical, &block, take)? {
                return Ok(());
            }
            logical += 1;
        }
        Ok(())
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
