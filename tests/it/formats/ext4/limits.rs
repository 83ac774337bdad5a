//! As far as the format goes: deep extent trees, large directories, and the
//! names that the plan gives.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use consign::tree::{Content, FileTree, Node};
use consign::units::{GIB, MIB};

use crate::support::{Checker, LoopMount, temp_folder};

use super::readers::{assert_same, by_kernel, expected};
use super::trees::{file, path, pattern, put};
use super::{debugfs, header, options, volume, write};

/// A file of `count` blocks with a hole of one block before each.
fn comb(count: u64) -> Node {
    let block = Content::from_bytes(pattern(4096, 3));
    let parts = (0..count).map(|at| (at * 8192 + 4096, block.clone()));
    let content = Content::sparse(count * 8192, parts.collect());
    Node::file(0o600, content.expect("parts in order"))
}

#[test]
fn extent_trees_of_every_depth_are_read_back() {
    let folder = temp_folder();
    let mut tree = FileTree::new();
    for count in [4, 5, 340, 1360, 1361, 3000] {
        put(&mut tree, format!("holes/{count}"), comb(count));
    }
    // As large as a file can be: its last block has the last number there is.
    let end = u64::from(u32::MAX) * 4096;
    let parts = [(0, 10), (4 * GIB - 2, 4), (end - 5000, 5000)]
        .map(|(at, length)| (at, Content::from_bytes(pattern(length, 4))));
    let largest = Content::sparse(end, parts.to_vec()).expect("parts in order");
    put(&mut tree, "holes/largest", Node::file(0o600, largest));
    let image = write(&volume(&tree, &options(64)), folder.path(), "deep.img");
    Checker::E2fsck.accepts(&image);
    for (count, depth) in [(4, 0), (5, 1), (1360, 1), (1361, 2), (3000, 2)] {
        // Each row begins with its level and the depth of the tree.
        if let Some(said) = debugfs(&format!("extents /holes/{count}"), &image) {
            let rows = format!(" {depth}/ {depth} ");
            assert!(said.contains(&rows), "{count}: no `{rows}` in\n{said}");
        }
    }
    if let Some(mount) = LoopMount::read_only(&image, 0, "ext4") {
        assert_same(&by_kernel(&mount.path()), &expected(&tree), "the kernel");
    }
}

#[test]
fn names_and_identifiers_are_those_of_the_plan() {
    let folder = temp_folder();
    let image = write(
        &volume(&FileTree::new(), &options(64)),
        folder.path(),
        "id.img",
    );
    for (key, value) in [
        ("Filesystem volume name", "consign-root"),
        ("Filesystem UUID", "11111111-2222-3333-4444-555555555555"),
        (
            "Directory Hash Seed",
            "11111111-2222-3333-4444-555555555556",
        ),
        ("Default directory hash", "half_md4"),
        ("Filesystem created", "Tue Nov 14 22:13:20 2023"),
        ("Mount count", "0"),
        ("Journal inode", "8"),
    ] {
        if let Some(found) = header(&image, &[key]) {
            assert_eq!(found.get(key).map(String::as_str), Some(value), "{key}");
        }
    }
}

/// A directory with this many names of a few files: a file has at most 65,000.
fn crowd(names: u32) -> FileTree {
    let mut tree = FileTree::new();
    for number in 0..names {
        let name = format!("crowd/name {number}");
        let first = number - number % 50_000;
        if first == number {
            put(&mut tree, name, file(number.to_le_bytes()));
        } else {
            tree.link(path(name), &path(format!("crowd/name {first}")))
                .expect("link");
        }
    }
    tree
}

fn indirect_levels(names: u32, levels: u32) {
    let folder = temp_folder();
    let tree = crowd(names);
    let image = write(&volume(&tree, &options(256)), folder.path(), "crowd.img");
    Checker::E2fsck.accepts(&image);
    if let Some(said) = debugfs("htree_dump /crowd", &image) {
        let words = format!("Indirect levels: {levels}");
        assert!(said.contains(&words), "no `{words}` in\n{}", &said[..500]);
    }
    if let Some(mount) = LoopMount::read_only(&image, 0, "ext4") {
        // Each look-up goes through the index.
        for number in (0..names).step_by(97) {
            let name = mount.path().join(format!("crowd/name {number}"));
            assert!(fs::symlink_metadata(&name).is_ok(), "no {}", name.display());
        }
        let missing = mount.path().join("crowd/name of nobody");
        assert!(fs::symlink_metadata(missing).is_err());
    }
}

#[test]
fn the_kernel_finds_names_through_two_levels_of_index() {
    // 507 leaves of about 190 names are one level.
    indirect_levels(130_000, 1);
}

#[test]
#[ignore = "a minute: ci/nightly.d/fs"]
fn the_kernel_finds_a_million_names() {
    indirect_levels(1_000_000, 1);
}

/// Two names of one hash, the last of a block and the first of the next one:
/// the index says with bit 0 of the hash that both blocks are to be read.
#[test]
fn names_of_one_hash_are_found_on_both_sides_of_an_edge() {
    // By `dx_hash` of debugfs, with the seed of the volumes here.
    let twins = [90_976, 107_682];
    let name = |number: u32| format!("{number:06}{}", "x".repeat(200));
    let hash = |number, image: &Path| {
        let seed = "11111111-2222-3333-4444-555555555556";
        let request = format!("dx_hash -h half_md4 -s {seed} {}", name(number));
        debugfs(&request, image)
    };
    let folder = temp_folder();
    let mut was_split = false;
    for others in 20..120 {
        let mut tree = FileTree::new();
        for number in (0..others).chain(twins) {
            put(&mut tree, format!("edge/{}", name(number)), file(*b""));
        }
        let image = write(&volume(&tree, &options(16)), folder.path(), "edge.img");
        let (Some(said), Some(one), Some(two)) = (
            debugfs("htree_dump /edge", &image),
            hash(twins[0], &image),
            hash(twins[1], &image),
        ) else {
            return;
        };
        let both = [one, two];
        let has_it = |said: &String| said.contains(" is 0x5b102742 ");
        assert!(both.iter().all(has_it), "one hash: {both:?}");
        if !said.contains("Hash 0x5b102743") {
            continue;
        }
        was_split = true;
        Checker::E2fsck.accepts(&image);
        if let Some(mount) = LoopMount::read_only(&image, 0, "ext4") {
            for number in (0..others).chain(twins) {
                let path = mount.path().join("edge").join(name(number));
                assert!(fs::symlink_metadata(&path).is_ok(), "no {number:06}");
            }
        }
        break;
    }
    assert!(was_split, "no edge between them");
}

/// `dir_nlink`: more than 65,000 links are not counted.
#[test]
#[ignore = "256 MiB of directories: ci/nightly.d/fs"]
fn more_than_65000_subdirectories_are_not_counted() {
    let folder = temp_folder();
    let mut tree = FileTree::new();
    for number in 0..65_100 {
        put(&mut tree, format!("many/{number}"), Node::directory(0o755));
    }
    for number in 0..64_998 {
        put(&mut tree, format!("most/{number}"), Node::directory(0o755));
    }
    let image = write(&volume(&tree, &options(1024)), folder.path(), "links.img");
    Checker::E2fsck.accepts(&image);
    for (name, links) in [("many", "Links: 1 "), ("most", "Links: 65000 ")] {
        if let Some(said) = debugfs(&format!("stat /{name}"), &image) {
            assert!(said.contains(links), "no `{links}` in\n{said}");
        }
    }
    if let Some(mount) = LoopMount::read_only(&image, 0, "ext4") {
        let found = consign::tree::list_folder(&mount.path().join("many")).expect("readable");
        assert_eq!(found.len(), 65_100);
        assert!(found.iter().all(|entry| entry.name.as_bytes().len() <= 5));
    }
}

#[test]
fn a_fixed_size_is_filled_to_the_last_block() {
    let folder = temp_folder();
    let mut tree = FileTree::new();
    put(&mut tree, "first", file(pattern(100, 1)));
    let empty = volume(&tree, &options(64));
    let free = empty.free().bytes();
    put(
        &mut tree,
        "rest",
        file(pattern(usize::try_from(free).expect("small"), 2)),
    );
    let full = volume(&tree, &options(64));
    assert_eq!(full.free().bytes(), 0);
    assert!(free > 54 * MIB, "{free}");
    let image = write(&full, folder.path(), "full.img");
    Checker::E2fsck.accepts(&image);
}
