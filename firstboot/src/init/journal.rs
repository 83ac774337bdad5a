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
use super::superblock::{self, Superblock};

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

/// Opens a volume that nobody has mounted, and replays its journal if a power
/// cut stopped its growth; how many blocks were put in their places.
///
/// # Errors
///
/// `ResourceBusy` for one that is in use, `InvalidData` for a journal that is
/// not understood or is damaged, and what the system reports.
pub fn settle(device: &Path) -> io::Result<usize> {
    let volume = open(device)?;
    let bytes = Superblock::read(&volume)?;
    let Some(found) = Superblock::parse(&bytes).filter(|found| found.has_journal) else {
        return Ok(0);
    };
    let journal = Journal::open(&volume, &bytes, &found)?;
    let writes = journal.writes()?;
    let place = superblock::PLACE / found.block;
    let mut grows = found.lacks_groups(&volume)?;
    for write in writes.iter().filter(|write| write.target == place) {
        let block = journal.content(write)?;
        let inside = usize::try_from(superblock::PLACE % found.block).unwrap_or(0);
        let later = Superblock::parse(block.get(inside..).unwrap_or_default());
        grows |= later.is_some_and(|later| later.blocks != found.blocks);
    }
    if grows { journal.put(&writes) } else { Ok(0) }
}

/// Puts every block of the journal's whole transactions in its place; how many.
///
/// # Errors
///
/// As [`settle`]; also for what is no ext4.
pub fn replay(device: &Path) -> io::Result<usize> {
    let volume = open(device)?;
    let bytes = Superblock::read(&volume)?;
    let found = Superblock::parse(&bytes).ok_or_else(|| bad("there is no superblock"))?;
    let journal = Journal::open(&volume, &bytes, &found)?;
    journal.put(&journal.writes()?)
}

/// Linux refuses this for a disk that is mounted.
fn open(device: &Path) -> io::Result<File> {
    let exclusive = i32::try_from(OFlags::EXCL.bits()).map_err(io::Error::other)?;
    let mut options = File::options();
    options.read(true).write(true).custom_flags(exclusive);
    options.open(device)
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

impl<'f> Journal<'f> {
    fn open(volume: &'f File, superblock: &[u8], found: &Superblock) -> io::Result<Self> {
        if superblock.get(0xfd) != Some(&1) {
            return Err(bad("the superblock does not say where the journal is"));
        }
        let mut journal = Self {
            volume,
            block_size: usize::try_from(found.block).map_err(io::Error::other)?,
            runs: runs(superblock.get(0x10c..0x148).unwrap_or_default())?,
            first: 0,
            end: MAX_BLOCKS,
            start: 0,
            sequence: 0,
            features: 0,
            seed: 0,
        };
        let head = journal.block(0)?;
        (journal.first, journal.end) = (be32(&head, 20)?, be32(&head, 16)?);
        (journal.start, journal.sequence) = (be32(&head, 28)?, be32(&head, 24)?);
        journal.features = be32(&head, 40)?;
        journal.seed = crc32c(u32::MAX, &part::<16>(&head, 48)?);
        let is_sound = be32(&head, 0)? == JBD2_MAGIC
            && journal.features & !KNOWN == 0
            && (1..journal.end.min(MAX_BLOCKS)).contains(&journal.first);
        if is_sound {
            Ok(journal)
        } else {
            Err(bad("the journal is none that is known"))
        }
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

    /// Puts blocks in their places: none, if one of them is damaged.
    fn put(&self, writes: &[Write]) -> io::Result<usize> {
        for write in writes {
            self.content(write)?;
        }
        for write in writes {
            let bytes = self.content(write)?;
            let place = write.target.checked_mul(bytes.len() as u64);
            let place = place.ok_or_else(|| bad("a block is nowhere"))?;
            self.volume.write_all_at(&bytes, place)?;
        }
        self.volume.sync_all()?;
        Ok(writes.len())
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
        let tail = self.block_size - 4;
        while at != 0 && seen < self.end {
            let block = self.block(at)?;
            if be32(&block, 0)? != JBD2_MAGIC || be32(&block, 8)? != sequence {
                break;
            }
            let kind = be32(&block, 4)?;
            // One that was being written when the power went is the end.
            if !self.has_sum(&block, if kind == COMMIT { 16 } else { tail })? {
                break;
            }
            let mut passed = 1;
            match kind {
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
        writes.retain(|write: &Write| {
            let given_up = revoked.get(&write.target);
            given_up.is_none_or(|at| *at < write.sequence)
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
#[expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "foreign programs make the volume, and CI has them"
)]
mod tests {
    use super::*;
    use std::fmt::Write as _;
    use std::path::PathBuf;
    use std::process::Command;

    const MIB: u64 = 1 << 20;

    /// A volume of mke2fs, and debugfs for it; nothing where they are missing.
    struct Volume {
        folder: tempfile::TempDir,
        image: PathBuf,
        /// How debugfs opens the journal.
        open: &'static str,
    }

    impl Volume {
        fn new((features, open): (&str, &'static str)) -> Option<Self> {
            let folder = tempfile::tempdir().expect("a folder");
            let image = folder.path().join("volume");
            let file = File::create(&image).expect("a file");
            file.set_len(64 * MIB).expect("its size");
            let volume = Self {
                folder,
                image,
                open,
            };
            let make = ["-qF", "-text4", "-b4096", "-O", features];
            if volume.run("mke2fs", &make).is_none() {
                assert!(std::env::var_os("CI").is_none(), "no mke2fs");
                return None;
            }
            Some(volume)
        }

        fn run(&self, program: &str, words: &[&str]) -> Option<()> {
            let program = ["/usr/sbin", "/sbin"].map(|folder| format!("{folder}/{program}"));
            let mut program = program.into_iter();
            let program = program.find(|it| Path::new(it).exists())?;
            let mut words: Vec<&str> = words.to_vec();
            let image = self.image.display().to_string();
            let place = if program.ends_with("resize2fs") {
                0
            } else {
                words.len()
            };
            words.insert(place, &image);
            let done = Command::new(program).args(words).output();
            let done = done.expect("it runs");
            assert!(done.status.success(), "{done:?}");
            Some(())
        }

        fn file(&self) -> File {
            let file = File::options().read(true).write(true).open(&self.image);
            file.expect("open")
        }

        fn read(&self, block: u64) -> Vec<u8> {
            let mut bytes = vec![0; 4096];
            let read = self.file().read_exact_at(&mut bytes, block * 4096);
            read.expect("read");
            bytes
        }

        fn write(&self, block: u64, bytes: &[u8]) {
            let written = self.file().write_all_at(bytes, block * 4096);
            written.expect("written");
        }

        /// Lets debugfs write a transaction of these blocks into the journal.
        fn commit(&self, blocks: &[(u64, &[u8])], given_up: &[u64]) {
            let mut commands = format!("{}\n", self.open);
            for (block, bytes) in blocks {
                let file = self.folder.path().join(format!("block-{block}"));
                std::fs::write(&file, bytes).expect("written");
                let _ = writeln!(commands, "jw -b {block} {}", file.display());
            }
            for block in given_up {
                let _ = writeln!(commands, "jw -r {block}");
            }
            commands.push_str("jc\n");
            let file = self.folder.path().join("commands");
            std::fs::write(&file, commands).expect("written");
            let file = file.display().to_string();
            self.run("debugfs", &["-w", "-f", &file])
                .expect("beside mke2fs");
        }
    }

    /// What mke2fs is asked for: with sums of either kind, and without.
    const KINDS: [(&str, &str); 3] = [
        ("metadata_csum,64bit", "jo -c -v 3"),
        ("metadata_csum,64bit", "jo -c -v 2"),
        ("^metadata_csum,^64bit", "jo"),
    ];

    /// debugfs writes the journal, and the kernel's order of things is kept.
    #[test]
    fn what_only_the_journal_has_gets_to_its_place() {
        for kind in KINDS {
            let Some(volume) = Volume::new(kind) else {
                return;
            };
            assert_eq!(replay(&volume.image).expect("an empty journal"), 0);
            let table = volume.read(1);
            // One that begins like a block of the journal, and one given up.
            let mut odd = vec![7; 4096];
            odd[..4].copy_from_slice(&JBD2_MAGIC.to_be_bytes());
            volume.commit(&[(1, &table), (9000, &odd), (9001, &odd)], &[9001]);
            volume.write(1, &[0; 4096]);
            // The table lacks its groups: that is what a growth leaves.
            assert_eq!(settle(&volume.image).expect("replayed"), 2, "{kind:?}");
            assert_eq!(volume.read(1), table);
            assert_eq!(volume.read(9000), odd);
            assert_ne!(volume.read(9001), odd);
            assert_eq!(replay(&volume.image).expect("again"), 2);
            volume.run("e2fsck", &["-fp"]);
        }
    }

    #[test]
    fn a_journal_without_a_growth_is_left_to_the_kernel() {
        let Some(volume) = Volume::new(KINDS[0]) else {
            return;
        };
        let superblock = volume.read(0);
        volume.commit(&[(0, &superblock), (9000, &[7; 4096])], &[]);
        assert_eq!(settle(&volume.image).expect("looked"), 0);
        assert_eq!(volume.read(9000), [0; 4096]);
    }

    /// resize2fs says how a grown volume looks; its beginning is in the journal.
    #[test]
    fn a_size_that_only_the_journal_has_is_put_in_its_place() {
        for kind in KINDS {
            let Some(volume) = Volume::new(kind) else {
                return;
            };
            let before = volume.read(0);
            volume.file().set_len(2048 * MIB).expect("larger");
            volume.run("resize2fs", &[]).expect("beside mke2fs");
            let (after, table) = (volume.read(0), volume.read(1));
            let size = |volume: &Volume| {
                let found = Superblock::parse(&volume.read(0)[1024..]);
                found.expect("a superblock").blocks
            };
            let grown = size(&volume);
            volume.write(0, &before);
            volume.commit(&[(0, &after), (1, &table)], &[]);
            assert_eq!(size(&volume), 64 * MIB / 4096, "{kind:?}");
            assert_eq!(settle(&volume.image).expect("replayed"), 2, "{kind:?}");
            assert_eq!(size(&volume), grown);
            volume.run("e2fsck", &["-fn"]);
        }
    }

    #[test]
    fn a_damaged_journal_is_left_alone() {
        let Some(volume) = Volume::new(KINDS[0]) else {
            return;
        };
        let (table, odd) = (volume.read(1), vec![7; 4096]);
        volume.commit(&[(1, &table), (9000, &odd)], &[]);
        volume.write(1, &[0; 4096]);
        // The block for 9000 in the journal: the one like it that is not there.
        let blocks = volume.file().metadata().expect("its size").len() / 4096;
        let copy = (2..blocks).find(|block| volume.read(*block) == odd);
        let copy = copy.expect("in the journal");
        volume.write(copy, &[8; 4096]);
        let refused = settle(&volume.image).expect_err("damaged");
        assert_eq!(refused.to_string(), "a block in the journal is damaged");
        assert_eq!(volume.read(1), [0; 4096], "nothing was written");
        // A record without its sum ends the journal before its transaction; debugfs
        // makes one of every block.
        volume.write(copy, &odd);
        volume.write(copy + 1, &{
            let mut commit = volume.read(copy + 1);
            assert_eq!(be32(&commit, 4).expect("a record"), COMMIT);
            commit[4000] ^= 1;
            commit
        });
        assert_eq!(settle(&volume.image).expect("the one before it"), 1);
        assert_eq!((volume.read(1), volume.read(9000)), (table, vec![0; 4096]));
    }

    #[test]
    fn what_is_no_journal_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("volume");
        std::fs::write(&path, [7; 8192]).expect("written");
        assert!(replay(&path).is_err());
        assert_eq!(settle(&path).expect("none of ours"), 0);
        let mut bytes = vec![0; 8192];
        bytes[1024 + 0x38..][..2].copy_from_slice(&[0x53, 0xef]);
        bytes[1024 + 0xfd] = 1;
        bytes[1024 + 0x60] = 4;
        std::fs::write(&path, &bytes).expect("written");
        assert!(replay(&path).is_err() && settle(&path).is_err());
    }
}
