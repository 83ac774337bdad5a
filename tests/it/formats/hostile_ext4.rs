//! ext4 volumes that are small and ask for much: blocks that stand for many,
//! names and links without end.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;

use consign::inspect::{self, Entry};

use super::hostile_disks::{bounded, within};
use super::inspect::mke2fs;
use crate::support::{consign, must_run, program, temp_folder, text_of};

const BLOCK: usize = 4096;
const INODE: usize = 256;
/// Names of four bytes that a block has room for.
const NAMES: usize = 341;
/// Blocks for what the tests put into a volume: nothing else is there.
const LEAF: usize = 2100;
const ATTRIBUTES: usize = 2101;
const LISTS: usize = 2200;

/// A volume without sums, to be changed.
struct Volume {
    path: PathBuf,
    bytes: Vec<u8>,
    block: usize,
}

impl Volume {
    fn of(source: &Path, block: usize) -> Option<Self> {
        let path = source.with_extension("ext4");
        let size = block.to_string();
        let inode = INODE.to_string();
        let features = "^metadata_csum,^metadata_csum_seed,^64bit";
        let options = ["-O", features, "-b", &size, "-I", &inode];
        mke2fs(source, &path, &options)?;
        let bytes = fs::read(&path).expect("read");
        Some(Self { path, bytes, block })
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn number(&self, at: usize) -> usize {
        let bytes = self.bytes[at..at + 4].try_into().expect("4");
        u32::from_le_bytes(bytes) as usize
    }

    /// Where the inode is that a folder names.
    fn inode(&self, folder: &str, name: &str) -> usize {
        let number = usize::try_from(self.entry(folder, name).inode).expect("small");
        self.number(self.block + 8) * self.block + (number - 1) * INODE
    }

    fn entry(&self, folder: &str, name: &str) -> Entry {
        let image = inspect::open(&self.path, None).expect("raw");
        let entries = image.volume(None).expect("ext4").list(folder);
        let mut entries = entries.expect("a folder").into_iter();
        let entry = entries.find(|entry| entry.name == name.as_bytes());
        entry.expect("it was put there")
    }

    /// Makes the inode at `inode` a directory of these blocks, by one leaf.
    fn map(&mut self, inode: usize, blocks: &[usize]) {
        let mut leaf = head(blocks.len(), 340, 0);
        for (logical, block) in (0_u32..).zip(blocks) {
            leaf.extend(logical.to_le_bytes());
            leaf.extend([1, 0, 0, 0]);
            leaf.extend(low(*block));
        }
        self.put(LEAF * BLOCK, &leaf);
        self.put(inode + 4, &low(blocks.len() * BLOCK));
        let mut root = head(1, 4, 1);
        root.extend([0; 4]);
        root.extend(low(LEAF));
        root.extend([0; 4]);
        self.put(inode + 0x28, &root);
    }

    fn save(&self) {
        fs::write(&self.path, &self.bytes).expect("write");
    }

    fn run(&self, args: &[&str], path: &str) -> Option<Output> {
        bounded(args, &self.path.to_string_lossy(), &[path])
    }
}

fn low(number: usize) -> [u8; 4] {
    u32::try_from(number).expect("small").to_le_bytes()
}

/// The head of an extent node.
fn head(entries: usize, most: u16, depth: u16) -> Vec<u8> {
    let entries = u16::try_from(entries).expect("few");
    let numbers = [0xf30a, entries, most, depth, 0, 0];
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// A block of a directory: as many names as fit, from `first` on, of one inode.
fn names(first: usize, inode: u64) -> Vec<u8> {
    let inode = u32::try_from(inode).expect("small").to_le_bytes();
    let letter = |n: usize| b'a' + u8::try_from(n % 26).expect("a letter");
    let mut block = Vec::new();
    for n in first..first + NAMES {
        block.extend(inode);
        let is_last = n + 1 == first + NAMES;
        block.extend([if is_last { 16 } else { 12 }, 0, 4, 1]);
        block.extend([
            letter(n / 17_576),
            letter(n / 676),
            letter(n / 26),
            letter(n),
        ]);
    }
    block.resize(BLOCK, 0);
    block
}

/// An attribute block with values of these lengths, all ending at its end.
fn attributes(lengths: &[u16]) -> Vec<u8> {
    let mut block = 0xea02_0000_u32.to_le_bytes().to_vec();
    block.resize(32, 0);
    for length in lengths {
        block.extend([0, 1]);
        block.extend((4096 - length).to_le_bytes());
        block.extend([0; 4]);
        block.extend(u32::from(*length).to_le_bytes());
        block.extend([0; 4]);
    }
    block.resize(BLOCK, 0);
    block
}

/// A folder `many` and a file in it.
fn many(folder: &Path) -> Option<Volume> {
    let source = folder.join("tree");
    fs::create_dir_all(source.join("many")).expect("make");
    fs::write(source.join("many/file"), "x").expect("write");
    Volume::of(&source, BLOCK)
}

/// A volume of which `many` has a name more than 70,000 times.
fn crowded(folder: &Path, lists: &[usize], attribute: &[u16]) -> Option<Volume> {
    let mut volume = many(folder)?;
    let directory = volume.inode("/", "many");
    let file = volume.inode("/many", "file");
    let number = volume.entry("/many", "file").inode;
    for (n, block) in lists.iter().enumerate() {
        volume.put(block * BLOCK, &names(n * NAMES, number));
    }
    volume.map(directory, lists);
    if !attribute.is_empty() {
        volume.put(ATTRIBUTES * BLOCK, &attributes(attribute));
        volume.put(file + 0x68, &low(ATTRIBUTES));
    }
    volume.save();
    Some(volume)
}

#[test]
fn a_crowded_directory_is_listed_in_little_memory() {
    const LITTLE: u64 = 64 << 20;
    let folder = temp_folder();
    let blocks: Vec<usize> = (LISTS..LISTS + 210).collect();
    for (attribute, format) in [(&[4000][..], "text"), (&[], "json")] {
        let Some(volume) = crowded(folder.path(), &blocks, attribute) else {
            return;
        };
        let path = volume.path.to_string_lossy();
        let args = ["inspect", "ls", "--format", format];
        let Some(output) = within(LITTLE, 60, &args, &path, &["/many"]) else {
            return;
        };
        assert_eq!(output.status.code(), Some(0), "{}", last(&output));
        if format == "json" {
            let list: Vec<serde_json::Value> =
                serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(list.len(), blocks.len() * NAMES);
            assert_eq!(list[27]["name"], "aabb");
        } else {
            let text = String::from_utf8(output.stdout).expect("text");
            assert_eq!(text.lines().count(), blocks.len() * NAMES);
            assert!(text.lines().all(|line| line.starts_with("-rw-r--r--+")));
        }
    }
}

fn last(output: &Output) -> String {
    let text = text_of(output);
    text.lines().last().unwrap_or_default().to_owned()
}

fn must_refuse(volume: &Volume, path: &str, slug: &str, what: &str) {
    let Some(output) = volume.run(&["inspect", "ls"], path) else {
        return;
    };
    let text = text_of(&output);
    assert!(text.contains(&format!("error[{slug}]")), "{text}");
    assert!(text.contains(what), "{text}");
    assert_eq!(output.stdout, b"", "nothing is printed of it");
}

#[test]
fn one_block_is_not_many_of_a_directory() {
    let folder = temp_folder();
    let Some(volume) = crowded(folder.path(), &[LISTS; 210], &[4000]) else {
        return;
    };
    let what = "a directory has one block twice";
    must_refuse(&volume, "/many", "inspect-damaged-volume", what);
}

#[test]
fn one_value_is_not_many_of_an_attribute_block() {
    let folder = temp_folder();
    let Some(volume) = crowded(folder.path(), &[LISTS], &[3000; 60]) else {
        return;
    };
    let what = "attributes share their bytes";
    must_refuse(&volume, "/many", "inspect-damaged-volume", what);
}

/// A folder `d` that holds itself under that name, and links.
fn circle(folder: &Path, block: usize, links: &[(&str, &str)]) -> Option<Volume> {
    let source = folder.join("tree");
    fs::create_dir_all(source.join("d/d")).expect("make");
    for (name, target) in links {
        symlink(target, source.join(name)).expect("link");
    }
    let mut volume = Volume::of(&source, block)?;
    let number = volume.entry("/", "d").inode;
    let inner = volume.entry("/d", "d").inode;
    let inode = volume.inode("/", "d");
    let list = volume.number(inode + 0x28 + 12 + 8) * block;
    let [inner, number] = [inner, number].map(|n| low(usize::try_from(n).expect("small")));
    let entry = (list..list + block)
        .step_by(4)
        .find(|at| volume.bytes[*at..*at + 4] == inner)
        .expect("it names the inner one");
    volume.put(entry, &number);
    volume.save();
    Some(volume)
}

#[test]
fn a_path_of_many_links_ends() {
    let folder = temp_folder();
    let long = |end: &str| "d/".repeat(1500) + end;
    let [a, b, c] = ["b", "c", "d"].map(long);
    let links = [("a", &*a), ("d/b", &*b), ("d/c", &*c)];
    let Some(volume) = circle(folder.path(), BLOCK, &links) else {
        return;
    };
    let what = "a path has too many parts";
    must_refuse(&volume, "/a", "inspect-damaged-volume", what);
    let output = volume.run(&["inspect", "ls"], "/d/b");
    assert_eq!(output.expect("it ran before").status.code(), Some(0));
}

#[test]
fn a_path_through_large_directories_ends() {
    const LARGE: usize = 65_536;
    let folder = temp_folder();
    let target = "d/".repeat(2000);
    let Some(mut volume) = circle(folder.path(), LARGE, &[("a", &target)]) else {
        return;
    };
    let inode = volume.inode("/", "d");
    let list = volume.number(inode + 0x28 + 12 + 8);
    // 4095 blocks of zeros, which are no names, and then the one with names.
    let mut extents = head(2, 4, 0);
    extents.extend([low(0), 4095_u32.to_le_bytes(), low(4096)].concat());
    extents.extend([low(4095), [1, 0, 0, 0], low(list)].concat());
    volume.put(inode + 0x28, &extents);
    volume.put(inode + 4, &low(4096 * LARGE));
    volume.put(1024 + 4, &low(2 * 4096));
    volume.save();
    let file = fs::OpenOptions::new().write(true).open(&volume.path);
    let file = file.expect("open");
    file.set_len(2 * 4096 * LARGE as u64).expect("grow");
    file.sync_all().expect("written");
    let what = "what is to be searched for one path is larger than 512 MiB";
    must_refuse(&volume, "/a", "inspect-too-large", what);
}

#[test]
fn names_that_are_no_text_are_shown_and_found() {
    let folder = temp_folder();
    let source = folder.path().join("tree");
    let odd = OsStr::from_bytes(b"\xff\xfe");
    fs::create_dir_all(source.join(odd)).expect("make");
    fs::write(source.join(odd).join("file"), "first").expect("write");
    let Some(volume) = Volume::of(&source, BLOCK) else {
        return;
    };
    for (format, shown) in [("text", " \\xff\\xfe\n"), ("json", "\"\\\\xff\\\\xfe\"")] {
        let mut ls = consign();
        ls.args(["inspect", "ls", "--format", format]);
        let said = text_of(&must_run(ls.arg(&volume.path)));
        assert!(said.contains(shown), "{said}");
    }
    let mut cat = consign();
    cat.args(["inspect", "cat"]).arg(&volume.path);
    let said = must_run(cat.arg(OsStr::from_bytes(b"/\xff\xfe/file")));
    assert_eq!(said.stdout, b"first");
}

#[test]
fn content_below_a_name_that_is_no_text_is_compared() {
    const VOLUME: u64 = 1 << 20;
    let folder = temp_folder();
    let source = folder.path().join("tree");
    let odd = OsStr::from_bytes(b"\xff\xfe");
    fs::create_dir_all(source.join(odd)).expect("make");
    fs::write(source.join(odd).join("file"), "first").expect("write");
    let Some(volume) = Volume::of(&source, BLOCK) else {
        return;
    };
    let content = volume.bytes.windows(5);
    let mut content = content.enumerate().filter(|(_, bytes)| bytes == b"first");
    let (place, _) = content.next().expect("the file's content");
    let disks = ["one", "other"].map(|name| folder.path().join(name));
    let file = fs::File::create(&disks[0]).expect("create");
    file.set_len(28 << 20).expect("grow");
    let Some(mut sgdisk) = program("sgdisk", "gdisk") else {
        return;
    };
    must_run(sgdisk.args(["-n1:2048:+24M", "-c1:root"]).arg(&disks[0]));
    file.write_all_at(&volume.bytes, VOLUME).expect("write");
    fs::copy(&disks[0], &disks[1]).expect("copy");
    let file = fs::OpenOptions::new().write(true).open(&disks[1]);
    let place = VOLUME + place as u64;
    let changed = file.expect("open").write_all_at(b"other", place);
    changed.expect("write");
    let [one, other] = disks.map(|disk| inspect::open(&disk, None).expect("raw").disk);
    let found = inspect::first_difference(&one, &other).expect("readable");
    let text = found.expect("they differ").to_string();
    assert!(
        text.starts_with("partition root: `/\\xff\\xfe/file` (inode "),
        "{text}"
    );
    assert!(text.ends_with("): content"), "{text}");
}
