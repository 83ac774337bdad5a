//! Where the content of an inode is.

use std::ops::Range;

use zerocopy::FromBytes as _;

use super::{Ext4, InspectError, Node, damaged};
use crate::fs::ext4::format::{EXTENT_MAGIC, Extent, ExtentHeader, ExtentIndex};

/// The highest tree, as in Linux.
const MOST_DEPTH: u16 = 5;
/// Above this, an extent was reserved but not written.
const WRITTEN: u16 = 32_768;
const ENTRY: usize = 12;

/// A run of blocks of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// Blocks of the file; not empty.
    pub logical: Range<u64>,
    /// The first one's block on the volume; `None` for zeros.
    pub physical: Option<u64>,
}

impl Ext4 {
    /// The run that holds block `logical` of a file, whole or in part.
    pub(super) fn run_at(&self, node: &Node, logical: u64) -> Result<Run, InspectError> {
        node.check_map()?;
        let mut bytes = node.inode.i_block.to_vec();
        let mut depth = None;
        // What the entries of this node stand for.
        let mut reach = 0..u64::MAX;
        loop {
            let (header, entries) = entries(&bytes)?;
            let here = header.eh_depth.get();
            if here > MOST_DEPTH || depth.is_some_and(|above: u16| here + 1 != above) {
                return damaged("an extent tree's height is impossible");
            }
            depth = Some(here);
            if here == 0 {
                return self.leaf(entries, logical, reach);
            }
            let Some((index, end)) = step(entries, logical)? else {
                let end = entries
                    .chunks_exact(ENTRY)
                    .next()
                    .map_or(reach.end, first_block);
                return Ok(hole(logical..end.min(reach.end)));
            };
            let leaf = u64::from(index.ei_leaf_hi.get()) << 32 | u64::from(index.ei_leaf_lo.get());
            reach = index.ei_block.get().into()..end.unwrap_or(reach.end).min(reach.end);
            bytes = self.read_block(leaf)?;
            self.check_sum(node, &bytes)?;
        }
    }

    fn leaf(&self, entries: &[u8], logical: u64, reach: Range<u64>) -> Result<Run, InspectError> {
        let mut end_of_last = reach.start;
        for bytes in entries.chunks_exact(ENTRY) {
            let Ok(extent) = Extent::read_from_bytes(bytes) else {
                break;
            };
            let start = u64::from(extent.ee_block.get());
            let length = extent.ee_len.get();
            let (is_written, length) = match length {
                0 => return damaged("an extent is empty"),
                length if length > WRITTEN => (false, length - WRITTEN),
                length => (true, length),
            };
            if start < end_of_last {
                return damaged("extents overlap");
            }
            let run = start..start + u64::from(length);
            end_of_last = run.end;
            if logical < run.start {
                return Ok(hole(logical..run.start));
            }
            if !run.contains(&logical) {
                continue;
            }
            let first =
                u64::from(extent.ee_start_hi.get()) << 32 | u64::from(extent.ee_start_lo.get());
            if first == 0 || first + u64::from(length) > self.blocks {
                return damaged("an extent is behind the end of the volume");
            }
            return Ok(Run {
                logical: run,
                physical: is_written.then_some(first),
            });
        }
        Ok(hole(logical..reach.end.max(logical + 1)))
    }

    /// The sum of an extent block stands behind the room for its entries.
    fn check_sum(&self, node: &Node, block: &[u8]) -> Result<(), InspectError> {
        if !self.has_sums {
            return Ok(());
        }
        let Ok((header, _)) = ExtentHeader::read_from_prefix(block) else {
            return damaged("an extent block is cut off");
        };
        let end = (usize::from(header.eh_max.get()) + 1) * ENTRY;
        let (Some(summed), Some(stored)) = (block.get(..end), block.get(end..end + 4)) else {
            return damaged("an extent block is cut off");
        };
        if node.seed.with(summed).0.to_le_bytes() != *stored {
            return damaged("an extent block's sum is wrong");
        }
        Ok(())
    }

    /// Fills `buf` from byte `offset` of a file's content on.
    pub(super) fn read_content(
        &self,
        node: &Node,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<(), InspectError> {
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let run = self.run_at(node, at / self.block)?;
            let end = run.logical.end.saturating_mul(self.block);
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let (piece, behind) = rest.split_at_mut(left.min(rest.len()));
            match run.physical {
                None => piece.fill(0),
                Some(first) => {
                    let inside = at - run.logical.start * self.block;
                    let offset = first * self.block + inside;
                    let read = self.source.read_exact_at(piece, offset);
                    read.map_err(|source| InspectError::Read { offset, source })?;
                }
            }
            at += piece.len() as u64;
            rest = behind;
        }
        Ok(())
    }
}

fn hole(logical: Range<u64>) -> Run {
    Run {
        logical,
        physical: None,
    }
}

fn first_block(entry: &[u8]) -> u64 {
    u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]).into()
}

/// The header of a node, and the bytes of its entries.
fn entries(node: &[u8]) -> Result<(ExtentHeader, &[u8]), InspectError> {
    let Ok((header, rest)) = ExtentHeader::read_from_prefix(node) else {
        return damaged("an extent node is cut off");
    };
    let count = usize::from(header.eh_entries.get());
    let is_right =
        header.eh_magic.get() == EXTENT_MAGIC && header.eh_entries.get() <= header.eh_max.get();
    match rest.get(..count * ENTRY) {
        Some(entries) if is_right => Ok((header, entries)),
        _ => damaged("an extent node is impossible"),
    }
}

/// The last entry of an index node that begins at or before `logical`, and
/// where the next one begins.
fn step(entries: &[u8], logical: u64) -> Result<Option<(ExtentIndex, Option<u64>)>, InspectError> {
    let mut found = None;
    let mut last = None;
    for bytes in entries.chunks_exact(ENTRY) {
        let Ok(index) = ExtentIndex::read_from_bytes(bytes) else {
            break;
        };
        let start = u64::from(index.ei_block.get());
        if last.is_some_and(|last| start <= last) {
            return damaged("extents are not in order");
        }
        last = Some(start);
        if start > logical {
            return Ok(found.map(|index| (index, Some(start))));
        }
        found = Some(index);
    }
    Ok(found.map(|index| (index, None)))
}
