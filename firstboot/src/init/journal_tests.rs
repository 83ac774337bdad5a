//! Journals of mke2fs, debugfs and our own, replayed; e2fsck replays them too.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "foreign programs make the volume, and CI has them"
)]

use super::*;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

const MIB: u64 = 1 << 20;
/// Has the superblock say that the journal is not empty, as Linux does.
const RECOVERS: &[&str] = &["-w", "-R", "feature needs_recovery"];

/// A volume of mke2fs, and debugfs for it; nothing where they are missing.
struct Volume {
    folder: tempfile::TempDir,
    image: PathBuf,
    /// How debugfs opens the journal.
    open: &'static str,
}

impl Volume {
    fn new((features, open): (&str, &'static str), size: u64) -> Option<Self> {
        let mut volume = Self::empty(size);
        volume.open = open;
        volume.make(&["-b4096", "-O", features])
    }

    /// A small one, as mke2fs is asked for it.
    fn made(words: &[&str]) -> Option<Self> {
        Self::empty(24 * MIB).make(words)
    }

    fn empty(size: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let image = folder.path().join("volume");
        let file = File::create(&image).expect("a file");
        file.set_len(size).expect("its size");
        Self {
            folder,
            image,
            open: "jo",
        }
    }

    fn make(self, words: &[&str]) -> Option<Self> {
        let words = [&["-qF", "-text4"], words].concat();
        if self.run("mke2fs", &words).is_none() {
            assert!(std::env::var_os("CI").is_none(), "no mke2fs");
            return None;
        }
        Some(self)
    }

    fn run(&self, program: &str, words: &[&str]) -> Option<()> {
        let done = self.ran(program, words)?;
        assert!(done.status.success(), "{done:?}");
        Some(())
    }

    /// What it says, however it ends.
    fn output(&self, program: &str, words: &[&str]) -> Vec<u8> {
        self.ran(program, words).expect("beside mke2fs").stdout
    }

    fn ran(&self, program: &str, words: &[&str]) -> Option<std::process::Output> {
        let program = ["/usr/sbin", "/sbin"].map(|folder| format!("{folder}/{program}"));
        let mut program = program.into_iter();
        let program = program.find(|it| Path::new(it).exists())?;
        let mut command = Command::new(program);
        let done = command.args(words).arg(&self.image).output();
        Some(done.expect("it runs"))
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
        let Some(volume) = Volume::new(kind, 64 * MIB) else {
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
    let Some(volume) = Volume::new(KINDS[0], 64 * MIB) else {
        return;
    };
    let superblock = volume.read(0);
    volume.commit(&[(0, &superblock), (9000, &[7; 4096])], &[]);
    assert_eq!(settle(&volume.image).expect("looked"), 0);
    assert_eq!(volume.read(9000), [0; 4096]);
}

fn blocks(volume: &Volume) -> u64 {
    let bytes = Superblock::read(&volume.file()).expect("read");
    Superblock::parse(&bytes).expect("a superblock").blocks
}

/// resize2fs says how a grown volume looks; its beginning is in the journal.
/// The journal of the second one has more pieces than its inode can tell.
#[test]
fn a_size_that_only_the_journal_has_is_put_in_its_place() {
    for (size, larger, kind) in [
        (64 * MIB, 2048 * MIB, KINDS[0]),
        (64 * MIB, 2048 * MIB, KINDS[2]),
        (130 << 30, 150 << 30, KINDS[0]),
    ] {
        let Some(volume) = Volume::new(kind, size) else {
            return;
        };
        let (before, small) = (volume.read(0), blocks(&volume));
        volume.file().set_len(larger).expect("larger");
        volume.run("resize2fs", &[]).expect("beside mke2fs");
        volume.run("debugfs", RECOVERS).expect("beside mke2fs");
        let (after, table) = (volume.read(0), volume.read(1));
        let grown = blocks(&volume);
        volume.write(0, &before);
        volume.commit(&[(0, &after), (1, &table)], &[]);
        assert_eq!(blocks(&volume), small, "{kind:?}");
        assert_eq!(settle(&volume.image).expect("replayed"), 2, "{kind:?}");
        assert_eq!(blocks(&volume), grown);
        // The power was cut while the superblock was being written: its sum is
        // in the second sector.
        if kind == KINDS[0] {
            volume.write(0, &[&after[..1536], &before[1536..]].concat());
            assert_eq!(settle(&volume.image).expect("replayed"), 2);
            assert_eq!(volume.read(0), after);
        }
        volume.run("e2fsck", &["-fp"]);
    }
}

/// The table's second block has room for later ones in it, which are no groups.
#[test]
fn a_table_that_only_the_journal_has_whole_is_put_in_its_place() {
    let Some(volume) = Volume::new(KINDS[0], 512 * MIB) else {
        return;
    };
    let before = volume.read(2);
    assert_ne!(before, [0; 4096]);
    volume.file().set_len(8320 * MIB).expect("larger");
    volume.run("resize2fs", &[]).expect("beside mke2fs");
    let after = volume.read(2);
    volume.commit(&[(2, &after)], &[]);
    volume.write(2, &before);
    assert_eq!(settle(&volume.image).expect("replayed"), 1);
    assert_eq!(volume.read(2), after);
    volume.run("e2fsck", &["-fp"]);
}

#[test]
fn a_damaged_journal_is_left_alone() {
    let Some(volume) = Volume::new(KINDS[0], 64 * MIB) else {
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
    // So is a descriptor, where its transaction has a record all the same.
    volume.write(copy, &odd);
    let descriptor = volume.read(copy - 1);
    let mut rotten = descriptor.clone();
    rotten[4000] ^= 1;
    volume.write(copy - 1, &rotten);
    let refused = settle(&volume.image).expect_err("damaged");
    assert_eq!(refused.to_string(), "the journal is damaged");
    assert_eq!(volume.read(1), [0; 4096], "nothing was written");
    volume.write(copy - 1, &descriptor);
    // A record without its sum ends the journal before its transaction; debugfs
    // makes one of every block.
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

/// Random bytes from a seed (xorshift64*): the same journals every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        u32::try_from(high).expect("31 bits") % count
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        let count = u32::try_from(all.len()).expect("few");
        all[self.below(count) as usize]
    }
}

/// A journal of our own making, written over that of a volume.
struct Made<'v> {
    volume: &'v [u8],
    blocks: &'v [usize],
    size: usize,
    features: u32,
    seed: u32,
    at: u32,
    sequence: u32,
    written: Vec<(u32, Vec<u8>)>,
}

/// Blocks of the volume that it writes to, beyond everything else.
const TARGETS: u32 = 24;

impl Made<'_> {
    fn has(&self, feature: u32) -> bool {
        self.features & feature != 0
    }

    fn has_sums(&self) -> bool {
        self.has(CSUM_V2 | CSUM_V3)
    }

    /// Puts a block at the end, with its sum at `sum`, and goes on behind it.
    fn push(&mut self, mut block: Vec<u8>, sum: Option<usize>) {
        if let Some(at) = sum.filter(|_| self.has_sums()) {
            let sum = crc32c(self.seed, &block);
            block[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        }
        self.written.push((self.at, block));
        self.at = if self.at as usize + 1 < self.blocks.len() {
            self.at + 1
        } else {
            1
        };
    }

    fn block(&self, kind: u32) -> Vec<u8> {
        let mut block = vec![0; self.size];
        for (at, field) in [JBD2_MAGIC, kind, self.sequence].iter().enumerate() {
            block[4 * at..4 * at + 4].copy_from_slice(&field.to_be_bytes());
        }
        block
    }

    fn descriptor(&mut self, dice: &mut Dice, first: u32) {
        let mut block = self.block(DESCRIPTOR);
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        let count = 1 + dice.below(11);
        let (mut at, mut contents) = (12, Vec::new());
        for number in 0..count {
            let target = first + dice.below(TARGETS);
            let mut content = vec![0; self.size];
            content.fill_with(|| u8::try_from(dice.below(256)).expect("a byte"));
            let mut flags = 0;
            if dice.below(5) == 0 {
                content[..4].fill(0);
                flags |= ESCAPED;
            }
            if number > 0 && dice.below(5) > 0 {
                flags |= SAME_UUID;
            }
            if number + 1 == count {
                flags |= LAST;
            }
            let sum = crc32c(crc32c(self.seed, &self.sequence.to_be_bytes()), &content);
            put(at, &target.to_be_bytes());
            if self.features & CSUM_V3 != 0 {
                put(at + 4, &flags.to_be_bytes());
                put(at + 12, &sum.to_be_bytes());
                at += 16;
            } else {
                let half = |field: u32| {
                    let [.., high, low] = field.to_be_bytes();
                    [high, low]
                };
                let has_sum = self.features & CSUM_V2 != 0;
                put(at + 4, &half(if has_sum { sum } else { 0 }));
                put(at + 6, &half(flags));
                let is_wide = self.features & HAS_64BIT != 0;
                at += 8 + 4 * usize::from(is_wide) + 2 * usize::from(has_sum);
            }
            at += if flags & SAME_UUID == 0 { 16 } else { 0 };
            contents.push(content);
        }
        self.push(block, Some(self.size - 4));
        for content in contents {
            self.push(content, None);
        }
    }

    fn revoke(&mut self, dice: &mut Dice, first: u32) {
        let mut block = self.block(REVOKE);
        let count = 1 + dice.below(5);
        let width = if self.has(HAS_64BIT) { 8 } else { 4 };
        block[12..16].copy_from_slice(&(16 + width * count).to_be_bytes());
        for number in 0..count {
            let target = first + dice.below(TARGETS);
            let end = 16 + (width * (number + 1)) as usize;
            block[end - 4..end].copy_from_slice(&target.to_be_bytes());
        }
        self.push(block, Some(self.size - 4));
    }

    fn commit(&mut self, time: u64) {
        let mut block = self.block(COMMIT);
        block[48..56].copy_from_slice(&time.to_be_bytes());
        self.push(block, Some(16));
    }

    /// The volume with this journal.
    fn bytes(&self, start: u32, sequence: u32) -> Vec<u8> {
        let mut bytes = self.volume.to_vec();
        let place = |number: u32| self.blocks[number as usize] * self.size;
        for (number, block) in &self.written {
            bytes[place(*number)..][..self.size].copy_from_slice(block);
        }
        // Nothing of an older one behind it.
        bytes[place(self.at)..][..self.size].fill(0);
        let head = &mut bytes[place(0)..][..HEAD];
        head[24..28].copy_from_slice(&sequence.to_be_bytes());
        head[28..32].copy_from_slice(&start.to_be_bytes());
        head[40..44].copy_from_slice(&self.features.to_be_bytes());
        head[80] = if self.has_sums() { 4 } else { 0 };
        head[252..256].fill(0);
        if self.has_sums() {
            let sum = crc32c(u32::MAX, head);
            head[252..256].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }
}

/// Journals of every kind, over the end of their area and over the end of the
/// numbers, with blocks that were given up, and transactions without an end:
/// e2fsck leaves the same blocks as we do.
#[test]
fn e2fsck_replays_the_same() {
    let mut dice = Dice(0x5eed_0000_0001);
    for size in [1024_usize, 4096] {
        let Some(volume) = Volume::made(&[
            &format!("-b{size}"),
            "-O",
            "^metadata_csum",
            "-J",
            &format!("size={}", size / 1024),
        ]) else {
            return;
        };
        volume.run("debugfs", RECOVERS);
        let bytes = std::fs::read(&volume.image).expect("read");
        let told = volume.output("debugfs", &["-R", "blocks <8>"]);
        let told = String::from_utf8_lossy(&told);
        let numbers = told
            .split_whitespace()
            .map(|it| it.parse().expect("a block"));
        let journal: Vec<usize> = numbers.collect();
        let first = u32::try_from(bytes.len() / size).expect("small") / 2;
        let uuid = bytes[journal[0] * size + 48..][..16].to_vec();
        let length = u32::try_from(journal.len()).expect("small");
        for round in 0..30 {
            let sums = dice.one_of(&[0, CSUM_V2, CSUM_V3]);
            let start = dice.one_of(&[1, length - 3, length - 1, length - 20, length / 2]);
            let sequence = dice.one_of(&[1, 1000, 0x7fff_fffe, 0xffff_fffe]);
            let mut made = Made {
                volume: &bytes,
                blocks: &journal,
                size,
                features: 1 | sums | dice.one_of(&[0, HAS_64BIT]),
                seed: crc32c(u32::MAX, &uuid),
                at: start,
                sequence,
                written: Vec::new(),
            };
            let transactions = 1 + dice.below(4);
            for number in 0..transactions {
                for _ in 0..=dice.below(3) {
                    match dice.below(2) {
                        0 => made.descriptor(&mut dice, first),
                        _ => made.revoke(&mut dice, first),
                    }
                }
                if number + 1 < transactions || dice.below(5) < 3 {
                    made.commit(1000 + u64::from(number));
                }
                made.sequence = made.sequence.wrapping_add(1);
            }
            let bytes = made.bytes(start, sequence);
            let area = || {
                let bytes = std::fs::read(&volume.image).expect("read");
                bytes[first as usize * size..][..TARGETS as usize * size].to_vec()
            };
            std::fs::write(&volume.image, &bytes).expect("written");
            replay(&volume.image).expect("replayed");
            let ours = area();
            std::fs::write(&volume.image, &bytes).expect("written");
            volume.output("e2fsck", &["-fy", "-E", "journal_only"]);
            let is_same = ours == area();
            assert!(
                is_same,
                "round {round}, blocks of {size}, features {}",
                made.features
            );
        }
    }
}
