//! The list of what ships has every file, whatever its name is.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use consign::digest::Digest;
use consign::fs::ext4::{Ext4Options, Ext4Volume};
use consign::release::ReleaseError;
use consign::release::image::{Facts, facts};
use consign::release::sbom::Owner;
use consign::sparse::SparseSource as _;
use consign::tree::{Content, FileTree, Node, TreePath};
use consign::units::{ByteSize, Guid, MIB, Timestamp};

use crate::support::{must_run, program, temp_folder};

const LIST: &[u8] = b"usr/lib/sysimage/dpkg/info/one.list";

/// A disk with a root that has these files, each with its path for content.
fn disk(folder: &Path, files: &[&[u8]]) -> Option<PathBuf> {
    let path = |bytes: &[u8]| TreePath::parse(bytes).expect("a path");
    let mut tree = FileTree::new();
    for file in files {
        for (at, _) in file.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            if tree.get(&path(&file[..at])).is_none() {
                let made = tree.insert(path(&file[..at]), Node::directory(0o755));
                made.expect("new");
            }
        }
        let node = Node::file(0o644, Content::from_bytes(*file));
        tree.insert(path(file), node).expect("new");
    }
    let guid = Guid::from_u128(7);
    let size = ByteSize::from_mib(16);
    let options = Ext4Options::new(size, guid, guid, Timestamp::from_seconds(0));
    let volume = Ext4Volume::new(tree, &options).expect("it fits");
    let mut bytes = vec![0; 16 << 20];
    volume.read_exact_at(&mut bytes, 0).expect("readable");
    let disk = folder.join("disk.raw");
    let file = File::create(&disk).expect("create");
    file.set_len(20 * MIB).expect("grow");
    let mut sgdisk = program("sgdisk", "gdisk")?;
    must_run(sgdisk.args(["-n1:2048:+16M", "-c1:root"]).arg(&disk));
    file.write_all_at(&bytes, MIB).expect("write");
    Some(disk)
}

fn facts_of(disk: &Path, layers: &BTreeMap<String, String>) -> Result<Facts, ReleaseError> {
    let mounts = BTreeMap::from([("root".to_owned(), String::new())]);
    facts(disk, &mounts, layers)
}

#[test]
fn names_that_are_no_text_are_in_the_list_of_what_ships() {
    let folder = temp_folder();
    let files = [LIST, b"\xff\xfe", b"a\xff/b", b"plain"];
    let Some(disk) = disk(folder.path(), &files) else {
        return;
    };
    let layers = BTreeMap::from([("/a\\xff/b".to_owned(), "mine".to_owned())]);
    let files = facts_of(&disk, &layers).expect("readable").files;
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let list = format!("/{}", String::from_utf8_lossy(LIST));
    assert_eq!(paths, ["/\\xff\\xfe", "/a\\xff/b", "/plain", &list]);
    assert_eq!(files[0].sha256, Digest::of(b"\xff\xfe"));
    assert_eq!(files[1].owner, Owner::Layer("mine".into()));
}

#[test]
fn files_that_lie_too_deep_are_an_error_and_not_left_out() {
    let folder = temp_folder();
    for (depth, is_listed) in [(128, true), (129, false)] {
        let deep = "d/".repeat(depth) + "file";
        let Some(disk) = disk(folder.path(), &[LIST, deep.as_bytes()]) else {
            return;
        };
        match facts_of(&disk, &BTreeMap::new()) {
            Ok(facts) => assert!(is_listed && facts.files.len() == 2, "{:?}", facts.files),
            Err(ReleaseError::Image { source, .. }) => {
                let text = source.to_string();
                assert!(!is_listed && source.slug() == "inspect-too-deep", "{text}");
                assert!(text.ends_with("/d` lies deeper than 128 folders"), "{text}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}
