//! Replays ext4's journal before the kernel looks at the volume.
//!
//! The kernel checks the table of groups first and replays the journal then.
//! A power cut while a volume grows may leave a superblock that names groups
//! whose part of the table is in the journal only: the kernel refuses such a
//! volume, though nothing of it is lost. What is done here, the kernel does
//! once more; the journal itself stays as it is.
//!
//! Source: kernel documentation, "Journal (jbd2)"; ext4's superblock.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Offset and length of ext4's superblock.
const SUPERBLOCK: (u64, usize) = (1024, 1024);
const EXT4_MAGIC: u32 = 0xef53;
/// The magic number of an extent's head.
const EXTENTS: u32 = 0xf30a;
const JBD2_MAGIC: u32 = 0xc03b_3998;
/// Kinds of blocks.
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
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
    features: u32,
}

/// A block that a transaction wrote.
struct Write {
    sequence: u32,
    target: u64,
    /// Where its bytes are in the journal.
    source: u32,
    is_escaped: bool,
}

/// Puts every block of the journal's whole transactions in its place; how many.
///
/// # Errors
///
/// `InvalidData` for what is no ext4 or no journal of it, and what the system
/// reports.
pub fn replay(volume: &File) -> io::Result<usize> {
    let mut superblock = vec![0; SUPERBLOCK.1];
    volume.read_exact_at(&mut superblock, SUPERBLOCK.0)?;
    if le16(&superblock, 0x38)? != EXT4_MAGIC || superblock.get(0xfd) != Some(&1) {
        return Err(bad("the superblock does not say where the journal is"));
    }
    let shift = le32(&superblock, 0x18)?;
    if shift > 6 {
        return Err(bad("the superblock has no size of blocks"));
    }
    let mut journal = Journal {
        volume,
        block_size: 1024 << shift,
        runs: runs(superblock.get(0x10c..0x148).unwrap_or_default())?,
        first: 0,
        end: MAX_BLOCKS,
        features: 0,
    };
    let head = journal.block(0)?;
    let (start, sequence) = (be32(&head, 28)?, be32(&head, 24)?);
    (journal.first, journal.end) = (be32(&head, 20)?, be32(&head, 16)?);
    journal.features = be32(&head, 40)?;
    let is_sound = be32(&head, 0)? == JBD2_MAGIC
        && journal.features & !KNOWN == 0
        && (1..journal.end.min(MAX_BLOCKS)).contains(&journal.first);
    if !is_sound {
        return Err(bad("the journal is none that is known"));
    }
    if start == 0 {
        return Ok(0);
    }
    let (writes, revoked) = journal.scan(start, sequence)?;
    let mut count = 0;
    for write in &writes {
        if revoked
            .get(&write.target)
            .is_some_and(|at| *at >= write.sequence)
        {
            continue;
        }
        let mut bytes = journal.block(write.source)?;
        if write.is_escaped
            && let Some(front) = bytes.first_chunk_mut()
        {
            *front = JBD2_MAGIC.to_be_bytes();
        }
        let place = write.target.checked_mul(bytes.len() as u64);
        volume.write_all_at(&bytes, place.ok_or_else(|| bad("a block is nowhere"))?)?;
        count += 1;
    }
    volume.sync_all()?;
    Ok(count)
}

/// The runs of the journal's inode, of which the superblock has a copy.
fn runs(inode: &[u8]) -> io::Result<Vec<Run>> {
    let count = le16(inode, 2)?;
    if le16(inode, 0)? != EXTENTS || le16(inode, 6)? != 0 || count > 4 {
        return Err(bad("the journal is in too many pieces"));
    }
    let run = |number: u32| {
        let at = 12 * (number as usize + 1);
        Ok(Run {
            logical: le32(inode, at)?,
            length: le16(inode, at + 4)?,
            physical: u64::from(le16(inode, at + 6)?) << 32 | u64::from(le32(inode, at + 8)?),
        })
    };
    (0..count).map(run).collect()
}

impl Journal<'_> {
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

    /// What whole transactions wrote, and which blocks were given up in which.
    fn scan(&self, start: u32, mut sequence: u32) -> io::Result<(Vec<Write>, BTreeMap<u64, u32>)> {
        let (mut writes, mut revoked) = (Vec::new(), BTreeMap::new());
        let (mut open, mut given_up) = (Vec::new(), Vec::new());
        let (mut at, mut seen) = (start, 0);
        while seen < self.end {
            let block = self.block(at)?;
            if be32(&block, 0)? != JBD2_MAGIC || be32(&block, 8)? != sequence {
                break;
            }
            let mut passed = 1;
            match be32(&block, 4)? {
                DESCRIPTOR => {
                    for (target, flags) in self.tags(&block)? {
                        open.push(Write {
                            sequence,
                            target,
                            source: self.after(at, passed),
                            is_escaped: flags & ESCAPED != 0,
                        });
                        passed += 1;
                    }
                }
                REVOKE => given_up.extend(self.revoked(&block)?),
                COMMIT => {
                    writes.append(&mut open);
                    revoked.extend(given_up.drain(..).map(|block| (block, sequence)));
                    sequence = sequence.wrapping_add(1);
                }
                _ => break,
            }
            seen += passed;
            at = self.after(at, passed);
        }
        Ok((writes, revoked))
    }

    /// Where the blocks behind a descriptor belong, each with its flags.
    fn tags(&self, block: &[u8]) -> io::Result<Vec<(u64, u32)>> {
        let has = |feature| self.features & feature != 0;
        let size = match (has(CSUM_V3), has(HAS_64BIT)) {
            (true, _) => 16,
            (false, wide) => 8 + 4 * usize::from(wide) + 2 * usize::from(has(CSUM_V2)),
        };
        let end = self.block_size - 4 * usize::from(has(CSUM_V2 | CSUM_V3));
        let (mut tags, mut at) = (Vec::new(), 12);
        while at + size <= end {
            let flags = if has(CSUM_V3) {
                be32(block, at + 4)?
            } else {
                u16::from_be_bytes(part(block, at + 6)?).into()
            };
            let high = if has(HAS_64BIT) {
                be32(block, at + 8)?
            } else {
                0
            };
            tags.push((u64::from(high) << 32 | u64::from(be32(block, at)?), flags));
            at += size + if flags & SAME_UUID == 0 { 16 } else { 0 };
            if flags & LAST != 0 {
                break;
            }
        }
        Ok(tags)
    }

    fn revoked(&self, block: &[u8]) -> io::Result<Vec<u64>> {
        let is_wide = self.features & HAS_64BIT != 0;
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
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "foreign programs make the volume, and CI has them"
)]
mod tests {
    use super::*;
    use std::process::Command;

    /// debugfs writes the journal, and the kernel's order of things is kept.
    #[test]
    fn what_only_the_journal_has_gets_to_its_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let image = path("volume");
        let run = |program: &str, words: &[&str]| {
            let program = ["/usr/sbin", "/sbin"].map(|folder| format!("{folder}/{program}"));
            let program = program
                .into_iter()
                .find(|it| std::path::Path::new(it).exists());
            let done = Command::new(program?).args(words).arg(&image).output();
            let done = done.expect("it runs");
            assert!(done.status.success(), "{done:?}");
            Some(())
        };
        File::create(&image)
            .and_then(|file| file.set_len(64 << 20))
            .expect("a file");
        for features in ["metadata_csum,64bit", "^metadata_csum,^64bit"] {
            let make = ["-qF", "-text4", "-b4096", "-O", features];
            if run("mke2fs", &make).is_none() {
                assert!(std::env::var_os("CI").is_none(), "no mke2fs");
                return;
            }
            let volume = File::options()
                .read(true)
                .write(true)
                .open(&image)
                .expect("open");
            assert_eq!(replay(&volume).expect("an empty journal"), 0);
            let mut table = vec![0; 4096];
            volume
                .read_exact_at(&mut table, 4096)
                .expect("the table of groups");
            std::fs::write(path("table"), &table).expect("written");
            // One that begins like a block of the journal, and one given up.
            let mut odd = vec![7; 4096];
            odd[..4].copy_from_slice(&JBD2_MAGIC.to_be_bytes());
            std::fs::write(path("odd"), &odd).expect("written");
            let commands = format!(
                "jo\njw -b 1 {table}\njw -b 9000 {odd}\njw -b 9001 {odd}\njw -r 9001\njc\n",
                table = path("table").display(),
                odd = path("odd").display(),
            );
            std::fs::write(path("commands"), commands).expect("written");
            let commands = path("commands").display().to_string();
            run("debugfs", &["-w", "-f", &commands]).expect("beside mke2fs");
            volume.write_all_at(&[0; 4096], 4096).expect("lost");
            assert_eq!(replay(&volume).expect("replayed"), 2, "{features}");
            let mut found = vec![1; 4096];
            volume.read_exact_at(&mut found, 4096).expect("read");
            assert_eq!(found, table);
            volume.read_exact_at(&mut found, 9000 * 4096).expect("read");
            assert_eq!(found, odd);
            volume.read_exact_at(&mut found, 9001 * 4096).expect("read");
            assert_ne!(found, odd);
            run("e2fsck", &["-fp"]);
        }
    }

    #[test]
    fn what_is_no_journal_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("volume");
        std::fs::write(&path, [7; 8192]).expect("written");
        let volume = File::open(&path).expect("open");
        assert!(replay(&volume).is_err());
        let mut bytes = vec![0; 8192];
        bytes[1024 + 0x38..][..2].copy_from_slice(&[0x53, 0xef]);
        bytes[1024 + 0xfd] = 1;
        std::fs::write(&path, &bytes).expect("written");
        assert!(replay(&File::open(&path).expect("open")).is_err());
    }
}
