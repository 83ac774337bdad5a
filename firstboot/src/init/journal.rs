//! Replays ext4's journal before the kernel looks at a volume that was growing.
//!
//! The kernel looks at the superblock and the table of groups first, and
//! replays the journal then. Where a power cut has left a larger size in the
//! journal only, it goes on with the old number of groups, and dies of that
//! (`kernel BUG at fs/ext4/resize.c`) when the volume grows further. Where the
//! superblock has the larger size and the journal the table, it refuses the
//! volume, though nothing of it is lost. What is done here, the kernel does
//! once more; the journal itself stays as it is.
//!
//! Source: kernel documentation, "Journal (jbd2)".

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

use super::crc::crc32c;
use super::superblock::Superblock;

/// The magic number of an extent's head.
const EXTENTS: u32 = 0xf30a;
const JBD2_MAGIC: u32 = 0xc03b_3998;
/// Bytes of the journal's own superblock.
const HEAD: usize = 1024;
/// Kinds of blocks.
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const HEAD_V1: u32 = 3;
const HEAD_V2: u32 = 4;
const REVOKE: u32 = 5;
/// Features of a journal, and those that are understood here.
const HAS_64BIT: u32 = 2;
const CSUM_V2: u32 = 8;
const CSUM_V3: u32 = 16;
const KNOWN: u32 = 1 | HAS_64BIT | CSUM_V2 | CSUM_V3;
/// Flags of a tag.
const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST: u32 = 8;
/// A journal of Linux's is never longer, in blocks.
const MAX_BLOCKS: u32 = 1 << 20;

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; N]> {
    let found = bytes.get(at..at.saturating_add(N));
    let found = found.and_then(|found| found.try_into().ok());
    found.ok_or_else(|| bad("a structure of the journal is too short"))
}

fn be32(bytes: &[u8], at: usize) -> io::Result<u32> {
    part(bytes, at).map(u32::from_be_bytes)
}

fn le32(bytes: &[u8], at: usize) -> io::Result<u32> {
    part(bytes, at).map(u32::from_le_bytes)
}

fn le16(bytes: &[u8], at: usize) -> io::Result<u32> {
    Ok(u16::from_le_bytes(part(bytes, at)?).into())
}

/// A run of the journal's blocks on the volume.
struct Run {
    logical: u32,
    length: u32,
    physical: u64,
}

struct Journal<'f> {
    volume: &'f File,
    block_size: usize,
    runs: Vec<Run>,
    /// The first block of transactions, and the one behind the last.
    first: u32,
    end: u32,
    /// Where they begin, and the number of the first.
    start: u32,
    sequence: u32,
    features: u32,
    /// What every sum goes on from.
    seed: u32,
}

/// A block that a transaction wrote.
struct Write {
    sequence: u32,
    target: u64,
    /// Where its bytes are in the journal.
    source: u32,
    is_escaped: bool,
    /// As much of their sum as the tag has.
    sum: u32,
}

/// Looks at a volume that nobody has mounted, and replays its journal if a
/// power cut stopped its growth; how many blocks were put in their places.
///
/// # Errors
///
/// `ResourceBusy` for one that is in use, `InvalidData` for a journal that is
/// not understood or is damaged, and what the system reports. Nothing has been
/// written then, unless writing failed.
pub fn settle(device: &Path) -> io::Result<usize> {
    // Whoever writes to a disk has udev look at it again.
    if is_growing(&open(device, false)?)? {
        replay(device)
    } else {
        Ok(0)
    }
}

fn is_growing(volume: &File) -> io::Result<bool> {
    let bytes = Superblock::read(volume)?;
    let Some(found) = Superblock::parse(&bytes).filter(|found| found.has_journal) else {
        return Ok(false);
    };
    let journal = Journal::open(volume, &bytes, &found)?;
    let writes = journal.writes()?;
    let of_superblock = |write: &&Write| write.target == found.place();
    let later = match writes.iter().rfind(of_superblock) {
        Some(write) => found.within(&journal.content(write)?),
        None => None,
    };
    if later.is_some_and(|later| later.blocks != found.blocks || !found.is_sound) {
        return Ok(true);
    }
    // Growth alone says of a group where its bitmaps are.
    for write in &writes {
        let Some(number) = write.target.checked_sub(found.place() + 1) else {
            continue;
        };
        let groups = found.groups_of(number);
        if groups > 0 {
            let mut now = vec![0; journal.block_size];
            volume.read_exact_at(&mut now, write.target * found.block)?;
            if !found.is_alike(&now, &journal.content(write)?, groups) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Puts every block of the journal's whole transactions in its place; how many.
///
/// # Errors
///
/// As [`settle`]; also for what is no ext4.
pub fn replay(device: &Path) -> io::Result<usize> {
    let volume = open(device, true)?;
    let bytes = Superblock::read(&volume)?;
    let found = Superblock::parse(&bytes).ok_or_else(|| bad("there is no superblock"))?;
    if !found.has_journal {
        return Ok(0);
    }
    let journal = Journal::open(&volume, &bytes, &found)?;
    let writes = journal.writes()?;
    // All is looked at before anything is written.
    for write in &writes {
        let content = journal.content(write)?;
        let is_left_damaged = write.target == found.place()
            && found.within(&content).is_none_or(|later| !later.is_sound);
        if is_left_damaged {
            return Err(bad("the superblock in the journal is damaged"));
        }
    }
    for write in &writes {
        let place = write.target.checked_mul(found.block);
        let place = place.ok_or_else(|| bad("a block is nowhere"))?;
        volume.write_all_at(&journal.content(write)?, place)?;
    }
    volume.sync_all()?;
    Ok(writes.len())
}

/// Linux refuses this for a disk that is mounted.
fn open(device: &Path, is_written: bool) -> io::Result<File> {
    let exclusive = i32::try_from(OFlags::EXCL.bits()).map_err(io::Error::other)?;
    let mut options = File::options();
    options.read(true).write(is_written).custom_flags(exclusive);
    options.open(device)
}

/// The runs of the journal's inode, of which the superblock has a copy.
fn runs(inode: &[u8], volume: &File, block: u64) -> io::Result<Vec<Run>> {
    let (count, depth) = extents(inode)?;
    let mut all = Vec::new();
    if depth == 0 {
        add_runs(inode, count, &mut all)?;
        return Ok(all);
    }
    for number in 0..count {
        let at = 12 * (number as usize + 1);
        let place = u64::from(le16(inode, at + 8)?) << 32 | u64::from(le32(inode, at + 4)?);
        let mut leaf = vec![0; usize::try_from(block).map_err(io::Error::other)?];
        let place = place.checked_mul(block).ok_or_else(|| bad(PIECES))?;
        volume.read_exact_at(&mut leaf, place)?;
        let (count, depth) = extents(&leaf)?;
        if depth > 0 {
            return Err(bad(PIECES));
        }
        add_runs(&leaf, count, &mut all)?;
    }
    Ok(all)
}

fn add_runs(node: &[u8], count: u32, all: &mut Vec<Run>) -> io::Result<()> {
    for number in 0..count {
        let at = 12 * (number as usize + 1);
        all.push(Run {
            logical: le32(node, at)?,
            length: le16(node, at + 4)?,
            physical: u64::from(le16(node, at + 6)?) << 32 | u64::from(le32(node, at + 8)?),
        });
    }
    Ok(())
}

const PIECES: &str = "the journal is in pieces that are not known";

/// How many extents or nodes are there, and how many levels below them.
fn extents(node: &[u8]) -> io::Result<(u32, u32)> {
    let (count, depth) = (le16(node, 2)?, le16(node, 6)?);
    let is_known = le16(node, 0)? == EXTENTS && depth <= 1 && (count as usize) < node.len() / 12;
    if is_known {
        Ok((count, depth))
    } else {
        Err(bad(PIECES))
    }
}

impl<'f> Journal<'f> {
    fn open(volume: &'f File, superblock: &[u8], found: &Superblock) -> io::Result<Self> {
        if superblock.get(0xfd) != Some(&1) {
            return Err(bad("the superblock does not say where the journal is"));
        }
        let inode = superblock.get(0x10c..0x148).unwrap_or_default();
        let mut journal = Self {
            volume,
            block_size: usize::try_from(found.block).map_err(io::Error::other)?,
            runs: runs(inode, volume, found.block)?,
            first: 0,
            end: MAX_BLOCKS,
            start: 0,
            sequence: 0,
            features: 0,
            seed: u32::MAX,
        };
        let head = journal.block(0)?;
        let head = head.get(..HEAD).unwrap_or_default();
        let kind = be32(head, 4)?;
        (journal.first, journal.end) = (be32(head, 20)?, be32(head, 16)?);
        (journal.start, journal.sequence) = (be32(head, 28)?, be32(head, 24)?);
        journal.features = if kind == HEAD_V2 { be32(head, 40)? } else { 0 };
        let is_known = be32(head, 0)? == JBD2_MAGIC
            && matches!(kind, HEAD_V1 | HEAD_V2)
            && u64::from(be32(head, 12)?) == found.block
            && journal.features & !KNOWN == 0
            && (1..journal.end.min(MAX_BLOCKS)).contains(&journal.first)
            && (journal.start == 0 || (journal.first..journal.end).contains(&journal.start));
        if !is_known {
            return Err(bad("the journal is none that is known"));
        }
        if !journal.has_sum(head, 252)? {
            return Err(bad("the journal's head is damaged"));
        }
        journal.seed = crc32c(u32::MAX, &part::<16>(head, 48)?);
        Ok(journal)
    }

    fn has(&self, feature: u32) -> bool {
        self.features & feature != 0
    }

    fn block(&self, number: u32) -> io::Result<Vec<u8>> {
        let run = self.runs.iter().find_map(|run| {
            let inside = number.checked_sub(run.logical)?;
            (inside < run.length).then(|| run.physical + u64::from(inside))
        });
        let place = run.and_then(|block| block.checked_mul(self.block_size as u64));
        let place = place.ok_or_else(|| bad("a block of the journal is nowhere"))?;
        let mut bytes = vec![0; self.block_size];
        self.volume.read_exact_at(&mut bytes, place)?;
        Ok(bytes)
    }

    /// `count` blocks further; behind the last one is the first.
    fn after(&self, at: u32, count: u32) -> u32 {
        let next = at.saturating_add(count);
        if next >= self.end {
            next - self.end + self.first
        } else {
            next
        }
    }

    /// What a write puts in its place.
    fn content(&self, write: &Write) -> io::Result<Vec<u8>> {
        let mut bytes = self.block(write.source)?;
        let sum = crc32c(self.seed, &write.sequence.to_be_bytes());
        let sum = crc32c(sum, &bytes);
        let is_right = match (self.has(CSUM_V3), self.has(CSUM_V2)) {
            (true, _) => write.sum == sum,
            (_, true) => write.sum == sum & 0xffff,
            _ => true,
        };
        if !is_right {
            return Err(bad("a block in the journal is damaged"));
        }
        if write.is_escaped
            && let Some(front) = bytes.first_chunk_mut()
        {
            *front = JBD2_MAGIC.to_be_bytes();
        }
        Ok(bytes)
    }

    /// Whether a block of the journal itself has its sum, which is kept at `at`.
    fn has_sum(&self, block: &[u8], at: usize) -> io::Result<bool> {
        if !self.has(CSUM_V2 | CSUM_V3) {
            return Ok(true);
        }
        let mut blank = block.to_vec();
        if let Some(sum) = blank.get_mut(at..at + 4) {
            sum.fill(0);
        }
        Ok(crc32c(self.seed, &blank) == be32(block, at)?)
    }

    /// What whole transactions wrote and no later one gave up, in their order.
    fn writes(&self) -> io::Result<Vec<Write>> {
        let (mut writes, mut revoked) = (Vec::new(), BTreeMap::new());
        let (mut open, mut given_up) = (Vec::new(), Vec::new());
        let (mut at, mut sequence, mut seen) = (self.start, self.sequence, 0);
        let (mut last, mut is_doubtful) = (0, false);
        let tail = self.block_size - 4;
        while at != 0 && seen < self.end {
            let block = self.block(at)?;
            if be32(&block, 0)? != JBD2_MAGIC || be32(&block, 8)? != sequence {
                break;
            }
            let kind = be32(&block, 4)?;
            let has_sum = self.has_sum(&block, if kind == COMMIT { 16 } else { tail })?;
            let mut passed = 1;
            match kind {
                DESCRIPTOR if !has_sum => {
                    is_doubtful = true;
                    passed += u32::try_from(self.tags(&block)?.len()).unwrap_or(0);
                }
                REVOKE if !has_sum => is_doubtful = true,
                DESCRIPTOR => {
                    for (target, flags, sum) in self.tags(&block)? {
                        open.push(Write {
                            sequence,
                            target,
                            source: self.after(at, passed),
                            is_escaped: flags & ESCAPED != 0,
                            sum,
                        });
                        passed += 1;
                    }
                }
                REVOKE => given_up.extend(self.revoked(&block)?),
                COMMIT if has_sum => {
                    // `h_commit_sec`. What was being written when the power went
                    // has no record, unless an old one lies in its place.
                    let time = part(&block, 48).map(u64::from_be_bytes)?;
                    if is_doubtful && time >= last {
                        return Err(bad("the journal is damaged"));
                    }
                    if is_doubtful {
                        break;
                    }
                    last = time;
                    writes.append(&mut open);
                    revoked.extend(given_up.drain(..).map(|block| (block, sequence)));
                    sequence = sequence.wrapping_add(1);
                }
                _ => break,
            }
            seen += passed;
            at = self.after(at, passed);
        }
        writes.retain(|write: &Write| {
            let given_up = revoked.get(&write.target);
            // The numbers begin anew after the last one.
            given_up.is_none_or(|at| write.sequence.wrapping_sub(*at).cast_signed() > 0)
        });
        Ok(writes)
    }

    /// Where the blocks behind a descriptor belong, each with its flags and sum.
    fn tags(&self, block: &[u8]) -> io::Result<Vec<(u64, u32, u32)>> {
        let (is_wide, is_v3) = (self.has(HAS_64BIT), self.has(CSUM_V3));
        let size = if is_v3 {
            16
        } else {
            8 + 4 * usize::from(is_wide) + 2 * usize::from(self.has(CSUM_V2))
        };
        let end = self.block_size - 4 * usize::from(self.has(CSUM_V2 | CSUM_V3));
        let (mut tags, mut at) = (Vec::new(), 12);
        while at + size <= end {
            let half = |at| part(block, at).map(|it| u32::from(u16::from_be_bytes(it)));
            let (flags, sum) = if is_v3 {
                (be32(block, at + 4)?, be32(block, at + 12)?)
            } else {
                (half(at + 6)?, half(at + 4)?)
            };
            let high = if is_wide { be32(block, at + 8)? } else { 0 };
            let target = u64::from(high) << 32 | u64::from(be32(block, at)?);
            tags.push((target, flags, sum));
            at += size + if flags & SAME_UUID == 0 { 16 } else { 0 };
            if flags & LAST != 0 {
                break;
            }
        }
        Ok(tags)
    }

    fn revoked(&self, block: &[u8]) -> io::Result<Vec<u64>> {
        let is_wide = self.has(HAS_64BIT);
        let end = (be32(block, 12)? as usize).min(self.block_size);
        let entry = |at| {
            if is_wide {
                part(block, at).map(u64::from_be_bytes)
            } else {
                be32(block, at).map(u64::from)
            }
        };
        let size = if is_wide { 8 } else { 4 };
        (16..end.saturating_sub(size - 1))
            .step_by(size)
            .map(entry)
            .collect()
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
