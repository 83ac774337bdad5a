//! The judges say no: every kind of metadata, damaged by one bit.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use consign::tree::FileTree;
use consign::units::MIB;

use crate::support::{Checker, LoopMount, program, run, temp_folder, text_of};

use super::growth::{Mounted, may_resize};
use super::readers::{by_ext4_view, by_kernel, expected, without_what_ext4_view_lacks};
use super::trees::{file, pattern, put, torture};
use super::{debugfs, header, options, said_by, volume, write};

/// The offset of block `block` of a file, as debugfs maps it.
fn block_of(request: &str, image: &Path) -> Option<u64> {
    let said = debugfs(request, image)?;
    let number = said.trim().parse::<u64>().expect("a block number");
    Some(number * 4096)
}

/// The offset of a file's attribute block.
fn attribute_block(name: &str, image: &Path) -> Option<u64> {
    let said = debugfs(&format!("stat {name}"), image)?;
    let line = said.lines().find(|line| line.contains("File ACL"));
    let line = line.expect("a line");
    let digits: String = line.chars().filter(char::is_ascii_digit).collect();
    Some(digits.parse::<u64>().expect("a number") * 4096)
}

/// The offset of the block whose number follows `what` in dumpe2fs's text.
fn named_block(groups: &str, what: &str) -> u64 {
    let (_, behind) = groups.split_once(what).expect("a line");
    let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
    digits.parse::<u64>().expect("a block number") * 4096
}

fn flip(image: &Path, at: u64) {
    let file = File::options()
        .read(true)
        .write(true)
        .open(image)
        .expect("open");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("write");
}

#[test]
fn e2fsck_rejects_every_kind_of_damaged_metadata() {
    let folder = temp_folder();
    let image = write(
        &volume(&torture(1000), &options(600)),
        folder.path(),
        "bits.img",
    );
    Checker::E2fsck.accepts(&image);
    let block = |name: &str, index: u32| block_of(&format!("bmap {name} {index}"), &image);
    let Some(root) = block("/", 0) else { return };
    let number = |name: &str| attribute_block(name, &image).expect("debugfs was there");
    let extents = {
        let said = debugfs("extents /holes/1000", &image).expect("debugfs was there");
        // Level, entries, logical, physical: the first row is the index entry.
        let row = said
            .lines()
            .find(|line| line.contains("0/ 1"))
            .expect("an index");
        let words: Vec<&str> = row.split_whitespace().collect();
        let at = words
            .iter()
            .rposition(|word| *word == "-")
            .expect("a range")
            + 2;
        words[at].parse::<u64>().expect("a block") * 4096
    };
    let block = |name: &str, index| block(name, index).expect("debugfs was there");
    let groups = said_by("dumpe2fs", &[], &image).expect("beside debugfs");
    for (what, at) in [
        (
            "block bitmap",
            named_block(&groups, "Block bitmap at ") + 4000,
        ),
        (
            "inode bitmap",
            named_block(&groups, "Inode bitmap at ") + 10,
        ),
        ("inode", named_block(&groups, "Inode table at ") + 256 + 4),
        ("journal's superblock", block("<8>", 0) + 1),
        ("superblock", 1024 + 0x178),
        ("group descriptor", 4096 + 0x0c),
        ("root directory", root + 24),
        ("last name of a directory", block("/dev", 0) + 200),
        ("root of an index", block("/large", 0) + 0x28),
        ("leaf of an index", block("/large", 3) + 100),
        ("extent block", extents + 100),
        ("attribute block", number("/xattr/block") + 3000),
        ("empty block of lost+found", block("/lost+found", 2) + 2),
    ] {
        flip(&image, at);
        if let Some(verdict) = Checker::E2fsck.judge(&[&image]) {
            assert!(!verdict.sound, "{what} at {at}:\n{}", verdict.text);
        }
        flip(&image, at);
    }
    Checker::E2fsck.accepts(&image);
}

#[test]
fn the_comparison_with_the_kernel_sees_one_wrong_bit() {
    let folder = temp_folder();
    let tree = torture(0);
    let image = write(&volume(&tree, &options(600)), folder.path(), "bit.img");
    let Some(at) = block_of("bmap /files/large 700", &image) else {
        return;
    };
    flip(&image, at + 77);
    if let Some(mount) = LoopMount::read_only(&image, 0, "ext4") {
        let (found, expected) = (by_kernel(&mount.path()), expected(&tree));
        let differing: Vec<_> = expected
            .keys()
            .filter(|path| found.get(*path) != expected.get(*path))
            .collect();
        assert_eq!(differing, [b"files/large"]);
    }
}

#[test]
fn the_comparison_with_ext4_view_sees_one_wrong_byte() {
    let mut tree = FileTree::new();
    put(&mut tree, "a/same", file(pattern(5000, 1)));
    put(&mut tree, "a/other", file(pattern(5000, 2)));
    let found = by_ext4_view(volume(&tree, &options(16)), &tree);
    let mut bytes = pattern(5000, 2);
    bytes[4321] ^= 1;
    put(&mut tree, "a/other", file(bytes));
    let expected = without_what_ext4_view_lacks(&expected(&tree));
    let differing: Vec<_> = expected
        .keys()
        .filter(|path| found.get(*path) != expected.get(*path))
        .collect();
    assert_eq!(differing, [b"a/other"]);
}

#[test]
fn the_comparison_with_mke2fs_sees_a_missing_feature() {
    let folder = temp_folder();
    let theirs = folder.path().join("theirs.img");
    let file = File::create(&theirs).expect("create");
    file.set_len(64 << 20).expect("grow");
    let without = ["-qF", "-text4", "-b4096", "-O", "^dir_nlink"];
    if said_by("mke2fs", &without, &theirs).is_none() {
        return;
    }
    let empty = volume(&FileTree::new(), &options(64));
    let ours = write(&empty, folder.path(), "ours.img");
    let features = |image| header(image, &["Filesystem features"]);
    assert_ne!(features(&ours), features(&theirs));
}

#[test]
fn resize2fs_refuses_a_damaged_volume_and_leaves_it_alone() {
    let folder = temp_folder();
    let image = write(
        &volume(&torture(500), &options(600)),
        folder.path(),
        "refused.img",
    );
    let Some(groups) = said_by("dumpe2fs", &[], &image) else {
        return;
    };
    let file = File::options().write(true).open(&image).expect("open");
    file.set_len(2400 * MIB).expect("grow");
    for (what, at) in [
        ("superblock", 1024 + 0x178),
        (
            "block bitmap",
            named_block(&groups, "Block bitmap at ") + 4000,
        ),
        (
            "inode bitmap",
            named_block(&groups, "Inode bitmap at ") + 10,
        ),
    ] {
        flip(&image, at);
        let mut resize = program("resize2fs", "e2fsprogs").expect("beside dumpe2fs");
        let output = run(resize.arg(&image));
        assert!(!output.status.success(), "{what}:\n{}", text_of(&output));
        flip(&image, at);
    }
    // Whatever was refused did not begin.
    Checker::E2fsck.accepts(&image);
}

/// The blocks that the group table grows into say where their copies are. No
/// mount looks at them, only growth does.
#[test]
fn the_kernel_does_not_grow_a_mounted_volume_with_a_damaged_map() {
    let folder = temp_folder();
    let image = write(
        &volume(&torture(0), &options(600)),
        folder.path(),
        "map.img",
    );
    let Some(groups) = said_by("dumpe2fs", &[], &image) else {
        return;
    };
    flip(&image, named_block(&groups, "Reserved GDT blocks at "));
    // Where nobody may grow a mounted volume: the same damage is seen offline.
    Checker::E2fsck.rejects(&image);
    if !may_resize() {
        return;
    }
    let Some(mounted) = Mounted::new(&image) else {
        return;
    };
    let output = mounted.try_to_grow(2400 * MIB);
    assert!(!output.status.success(), "{}", text_of(&output));
}

#[test]
fn debugfs_does_not_find_damaged_attributes() {
    let folder = temp_folder();
    let image = write(
        &volume(&torture(0), &options(600)),
        folder.path(),
        "attributes.img",
    );
    let list = |name: &str| debugfs(&format!("ea_list /xattr/{name}"), &image);
    let Some(at) = attribute_block("/xattr/block", &image) else {
        return;
    };
    let sound = list("block");
    assert!(sound.as_ref().is_some_and(|said| said.contains("user.big")));
    // A byte of the value: the block's sum is wrong.
    flip(&image, at + 3000);
    assert_ne!(list("block"), sound);
    assert!(list("inode").is_some_and(|said| said.contains("user.small")));
}
