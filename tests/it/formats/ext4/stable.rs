//! A small change moves little: what images do not have to pack again.
//!
//! Clusters of 64 KiB are kept by their content, wherever they lie. Counted
//! are those of the new volume that the old one does not have.

use std::collections::BTreeSet;

use consign::digest::Digest;
use consign::sparse::SparseSource as _;
use consign::tree::{FileTree, Node};

use super::trees::{file, path, pattern, put};
use super::{options, volume};

const CLUSTER: usize = 65_536;

/// The digest of every cluster that is not zero.
fn clusters(tree: &FileTree) -> BTreeSet<Digest> {
    let volume = volume(tree, &options(256));
    let mut found = BTreeSet::new();
    let mut buf = vec![0; CLUSTER];
    let mut last = None;
    for range in volume.data_ranges() {
        let length = CLUSTER as u64;
        for number in range.start / length..range.end.div_ceil(length) {
            if last.replace(number) != Some(number) {
                volume
                    .read_exact_at(&mut buf, number * length)
                    .expect("read");
                found.insert(Digest::of(&buf));
            }
        }
    }
    found
}

fn content(length: usize, seed: u32) -> Node {
    let mut bytes = pattern(length, seed);
    for (byte, value) in bytes.iter_mut().zip(format!("{seed:08} ").bytes()) {
        *byte = value;
    }
    file(bytes)
}

/// 800 small files in 80 directories, and a few large ones: 12 MiB.
fn system() -> FileTree {
    let mut tree = FileTree::new();
    for number in 0..800_u32 {
        let length = 200 + (number as usize * 7919) % 22_000;
        let name = format!("usr/share/package-{:03}/file-{number}", number / 10);
        put(&mut tree, name, content(length, number));
    }
    for number in 0..3 {
        let name = format!("usr/lib/library-{number}.so");
        put(
            &mut tree,
            name,
            content((1 << 20) + number as usize * 5000, 5000 + number),
        );
    }
    tree
}

/// Clusters that `change` makes new.
fn new_clusters(old: &BTreeSet<Digest>, change: impl FnOnce(&mut FileTree)) -> usize {
    let mut tree = system();
    change(&mut tree);
    clusters(&tree).difference(old).count()
}

#[test]
fn a_changed_file_makes_few_clusters_new() {
    let old = clusters(&system());
    assert!(old.len() > 170, "{} clusters", old.len());
    for number in [0_u32, 555] {
        let name = || format!("usr/share/package-{:03}/file-{number}", number / 10);
        let length = 200 + (number as usize * 7919) % 22_000;
        // Its bytes and its inode.
        let edited = new_clusters(&old, |tree| {
            put(tree, name(), content(length, 99));
        });
        assert!(edited <= 3, "{number}: {edited} clusters for an edit");
        // The rest of its stretch and the inodes, bitmap, counts in the
        // superblock and in its copies.
        let grown = new_clusters(&old, |tree| {
            put(tree, name(), content(length + 4096, number));
        });
        assert!(grown <= 45, "{number}: {grown} clusters for a block more");
        let gone = new_clusters(&old, |tree| {
            assert!(tree.remove(&path(name())));
        });
        assert!(gone <= 60, "{number}: {gone} clusters for a file less");
    }
}

#[test]
fn a_new_package_makes_its_own_clusters_and_those_of_the_tables_new() {
    let old = clusters(&system());
    let new = new_clusters(&old, |tree| {
        for number in 0..30_u32 {
            let name = format!("usr/share/package-040a/file-{number}");
            put(tree, name, content(8000, 9000 + number));
        }
        put(tree, "usr/lib/library-1a.so", content(1 << 20, 9999));
    });
    // 1.3 MiB of its own are 21 clusters; inode numbers move, and with them
    // the tables of inodes and the directories behind.
    assert!(new <= 60, "{new} of {} clusters", old.len());
}
