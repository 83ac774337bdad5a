//! What all containers have in common: a disk in blocks that are zeros, are
//! somewhere in the file, or are packed there.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::sparse::{SparseSource, check_range};
use crate::units::ByteSize;

/// Bytes of unpacked blocks, those in use and those that are kept for the next
/// reading, whatever the number of threads. One larger block goes alone.
const KEPT: u64 = 32 << 20;
/// Most of them.
const KEPT_BLOCKS: usize = 64;
/// Pieces that a map of data has at most.
const PIECES: u64 = 1 << 20;

/// Where the bytes of a block are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere.
    Zeros,
    /// In the file at this offset; zeros behind its end.
    At(u64),
    /// Packed at this offset, in so many bytes.
    Packed { offset: u64, length: usize },
}

/// A block of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// Which bytes of the disk; not empty, and around what was asked for.
    pub range: Range<u64>,
    pub place: Place,
}

/// A container's map from the disk to the file.
pub(super) trait BlockMap: fmt::Debug + Send + Sync {
    /// Length of the disk.
    fn size(&self) -> ByteSize;

    /// The block that holds byte `offset` of the disk.
    fn block_at(&self, offset: u64) -> io::Result<Block>;

    /// The bytes of a packed block, exactly as long as its range. `old` has
    /// those of another one, and may be used for the new ones.
    fn unpack(&self, block: &Block, old: Vec<u8>) -> io::Result<Vec<u8>>;
}

/// Which parts of a disk hold data, as fine as a million pieces allow.
#[derive(Debug)]
pub(super) struct DataMap {
    size: u64,
    granule: u64,
    words: Vec<u64>,
}

impl DataMap {
    /// Nothing is data yet; `block` is the size of most blocks.
    pub(super) fn new(size: u64, block: u64) -> Self {
        let granule = (size / PIECES).next_power_of_two().max(block).max(512);
        let words = size.div_ceil(granule).div_ceil(64);
        Self {
            size,
            granule,
            words: vec![0; usize::try_from(words).unwrap_or_default()],
        }
    }

    pub(super) fn mark(&mut self, range: &Range<u64>) {
        let end = range.end.min(self.size).div_ceil(self.granule);
        for piece in range.start / self.granule..end {
            let word = usize::try_from(piece / 64).ok();
            if let Some(word) = word.and_then(|word| self.words.get_mut(word)) {
                *word |= 1 << (piece % 64);
            }
        }
    }

    fn has(&self, piece: u64) -> bool {
        let word = usize::try_from(piece / 64).ok();
        let word = word.and_then(|word| self.words.get(word));
        word.is_some_and(|word| word & (1 << (piece % 64)) != 0)
    }

    fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let pieces = self.size.div_ceil(self.granule);
        let mut next = 0;
        std::iter::from_fn(move || {
            let start = (next..pieces).find(|piece| self.has(*piece))?;
            let end = (start..pieces).find(|piece| !self.has(*piece));
            let end = end.unwrap_or(pieces);
            next = end;
            Some(start * self.granule..(end * self.granule).min(self.size))
        })
    }
}

/// The disk in a container.
#[derive(Debug)]
pub(super) struct Blocks<M> {
    file: Arc<dyn SparseSource>,
    map: M,
    data: DataMap,
    /// Unpacked blocks, the last used at the end.
    kept: Mutex<Vec<Unpacked>>,
    /// Somebody is done with one.
    changed: Condvar,
}

/// A block that is unpacked, or just being so: others wait for it.
#[derive(Debug)]
struct Unpacked {
    start: u64,
    length: u64,
    bytes: Option<Arc<Vec<u8>>>,
    /// Threads that unpack or read it.
    users: usize,
}

/// What a thread gets that asks for a block.
enum Found {
    Unpacked(Arc<Vec<u8>>),
    /// It is the one to unpack it; with bytes that nobody needs.
    Room(Vec<u8>),
}

/// A use of an unpacked block, until it is dropped.
struct Use<'a, M> {
    blocks: &'a Blocks<M>,
    start: u64,
}

impl<M> Drop for Use<'_, M> {
    /// What nobody could unpack is forgotten.
    fn drop(&mut self) {
        let lock = self.blocks.kept.lock();
        let mut kept = lock.unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|one| one.start == self.start) {
            kept[at].users -= 1;
            if kept[at].bytes.is_none() {
                kept.remove(at);
            }
        }
        self.blocks.changed.notify_all();
    }
}

/// Makes room for one more block: those are dropped that nobody uses, the
/// longest unused first. Gives the bytes of the last of them, to be used
/// again: what is freed by one thread, an allocator may keep for it. `None`
/// when there is no room.
fn make_room(kept: &mut Vec<Unpacked>, length: u64) -> Option<Vec<u8>> {
    let mut old = Vec::new();
    loop {
        let held: u64 = kept.iter().map(|one| one.length).sum();
        if kept.is_empty() || (held + length <= KEPT && kept.len() < KEPT_BLOCKS) {
            return Some(old);
        }
        let unused = kept.iter().position(|one| one.users == 0)?;
        let bytes = kept.remove(unused).bytes;
        old = bytes.and_then(Arc::into_inner).unwrap_or_default();
    }
}

impl<M: BlockMap> Blocks<M> {
    pub(super) fn new(file: Arc<dyn SparseSource>, map: M, data: DataMap) -> Self {
        Self {
            file,
            map,
            data,
            kept: Mutex::new(Vec::new()),
            changed: Condvar::new(),
        }
    }

    /// Calls `take` with the bytes of a packed block. Each is unpacked by one
    /// thread, once, and only when there is room for it.
    fn unpacked(
        &self,
        block: &Block,
        take: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let start = block.range.start;
        let length = block.range.end - start;
        let (found, _use) = self.find_or_begin(start, length);
        let bytes = match found {
            Found::Unpacked(bytes) => bytes,
            Found::Room(old) => self.unpack(block, old)?,
        };
        take(&bytes)
    }

    /// The bytes of a block, or room for them.
    fn find_or_begin(&self, start: u64, length: u64) -> (Found, Use<'_, M>) {
        let here = || Use {
            blocks: self,
            start,
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(at) = kept.iter().position(|one| one.start == start) {
                if let Some(bytes) = kept[at].bytes.clone() {
                    let mut one = kept.remove(at);
                    one.users += 1;
                    kept.push(one);
                    return (Found::Unpacked(bytes), here());
                }
            } else if let Some(old) = make_room(&mut kept, length) {
                kept.push(Unpacked {
                    start,
                    length,
                    bytes: None,
                    users: 1,
                });
                return (Found::Room(old), here());
            }
            let woken = self.changed.wait(kept);
            kept = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn unpack(&self, block: &Block, old: Vec<u8>) -> io::Result<Arc<Vec<u8>>> {
        let bytes = Arc::new(self.map.unpack(block, old)?);
        if bytes.len() as u64 != block.range.end - block.range.start {
            return Err(broken("a block unpacks to another length than its own"));
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = kept.iter_mut().find(|one| one.start == block.range.start) {
            one.bytes = Some(Arc::clone(&bytes));
        }
        self.changed.notify_all();
        Ok(bytes)
    }

    /// Fills `buf` from byte `inside` of a block on.
    fn fill(&self, buf: &mut [u8], block: &Block, inside: u64) -> io::Result<()> {
        match block.place {
            Place::Zeros => buf.fill(0),
            Place::At(start) => read_or_zeros(self.file.as_ref(), buf, start + inside)?,
            Place::Packed { .. } => {
                self.unpacked(block, |bytes| {
                    let from = usize::try_from(inside).unwrap_or(usize::MAX);
                    let piece = bytes.get(from..from.saturating_add(buf.len()));
                    buf.copy_from_slice(piece.ok_or_else(|| broken("a block is too short"))?);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }
}

impl<M: BlockMap> SparseSource for Blocks<M> {
    fn size(&self) -> ByteSize {
        self.map.size()
    }

    fn data_ranges(&self) -> Box<dyn Iterator<Item = Range<u64>> + '_> {
        Box::new(self.data.ranges())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(offset, buf.len(), self.size())?;
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let block = self.map.block_at(at)?;
            let left = usize::try_from(block.range.end.saturating_sub(at)).unwrap_or(usize::MAX);
            if left == 0 || block.range.start > at {
                return Err(broken("a block is not where it should be"));
            }
            let (piece, behind) = rest.split_at_mut(left.min(rest.len()));
            self.fill(piece, &block, at - block.range.start)?;
            at += piece.len() as u64;
            rest = behind;
        }
        Ok(())
    }
}

/// What is behind the end of the file is zeros.
fn read_or_zeros(file: &dyn SparseSource, buf: &mut [u8], offset: u64) -> io::Result<()> {
    let left = file.size().bytes().saturating_sub(offset);
    let inside = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
    let (data, behind) = buf.split_at_mut(inside);
    behind.fill(0);
    if data.is_empty() {
        return Ok(());
    }
    file.read_exact_at(data, offset)
}

/// An error of a container that only shows when a block is read.
pub(super) fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads `length` bytes, which the caller has bounded; `None` when the file
/// does not have them.
pub(super) fn read_vec(
    file: &dyn SparseSource,
    offset: u64,
    length: usize,
) -> io::Result<Option<Vec<u8>>> {
    let fits = offset
        .checked_add(length as u64)
        .is_some_and(|end| end <= file.size().bytes());
    if !fits {
        return Ok(None);
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_of_any_disk_is_small() {
        let mut map = DataMap::new(1 << 62, 65_536);
        map.mark(&(7..8));
        map.mark(&((1 << 62) - 1..1 << 62));
        assert_eq!(map.ranges().count(), 2);
        assert!(map.words.len() <= 1 << 15);
        let mut small = DataMap::new(1_000, 512);
        small.mark(&(600..601));
        assert_eq!(small.ranges().collect::<Vec<_>>(), vec![512..1_000]);
    }
}
