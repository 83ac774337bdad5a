//! FAT volumes, judged by `fsck.vfat -n` and read back with mtools.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use consign::fs::fat::{FatError, FatKind, FatOptions, FatVolume, preallocated};
use consign::sparse::SparseSource;
use consign::tree::{Content, FileTree, Node, TreePath};
use consign::units::{ByteSize, MIB, Timestamp};
use proptest::prelude::*;

use crate::support::{Checker, cases, must_run, program, temp_folder, text_of};

/// 2023-11-14 22:13:21 UTC.
const DATE: Timestamp = Timestamp::from_seconds(1_700_000_001);

fn options(mib: u64) -> FatOptions {
    FatOptions {
        size: ByteSize::from_mib(mib),
        kind: FatKind::Auto,
        volume_id: 0xc0de_1234,
        label: "VACONFIG".parse().expect("a label"),
        source_date: DATE,
    }
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).expect("a path")
}

fn tree(files: &[(&str, &[u8])]) -> FileTree {
    let mut tree = FileTree::new();
    for (name, bytes) in files {
        let node = Node::file(0o644, Content::from_bytes(*bytes));
        tree.insert(path(name), node).expect("insert");
    }
    tree
}

/// What an EFI system partition holds, and some names that need care.
fn esp() -> FileTree {
    let big: Vec<u8> = (0..3_000_001_u32).map(|n| (n % 251) as u8).collect();
    let mut tree = tree(&[
        ("EFI/BOOT/BOOTX64.EFI", &big[..900_001]),
        ("EFI/BOOT/grubx64.efi", &big[..512]),
        ("EFI/debian/grub.cfg", b"set default=0\n"),
        ("slot-a/vmlinuz", &big),
        ("slot-a/initrd", &big[7..2_000_000]),
        ("empty", b""),
        ("A long name, with spaces & more.text", b"long"),
        ("Grüße.txt", b"umlauts"),
        ("TEXTFILE-ONE.TXT", b"1"),
        ("TEXTFILE-TWO.TXT", b"2"),
    ]);
    let environment = path("EFI/debian/grubenv");
    let node = preallocated(&environment, ByteSize::from_bytes(1024), b'#').expect("small");
    tree.insert(environment, node).expect("insert");
    tree.insert(path("slot-b"), Node::directory(0o755))
        .expect("insert");
    for number in 0..120 {
        let name = path(&format!("many/file-with-a-long-name-{number:03}.conf"));
        let content = Content::from_bytes(format!("{number}").into_bytes());
        tree.insert(name, Node::file(0o600, content))
            .expect("insert");
    }
    tree
}

/// The volume as a sparse file, written by its data ranges only.
fn write(volume: &dyn SparseSource, folder: &Path, name: &str) -> PathBuf {
    let target = folder.join(name);
    let file = File::create(&target).expect("create");
    file.set_len(volume.size().bytes()).expect("grow");
    for range in volume.data_ranges() {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).expect("fits")];
        volume.read_exact_at(&mut bytes, range.start).expect("read");
        file.write_all_at(&bytes, range.start).expect("write");
    }
    target
}

/// Every file by its path, as mtools reads it. `None` without mtools.
fn read_back(image: &Path, tree: &FileTree) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for (path, _, node) in tree.iter().filter(|(_, _, node)| node.content().is_some()) {
        let mut mtype = program("mtype", "mtools")?;
        mtype.env("MTOOLS_SKIP_CHECK", "0").env("LC_ALL", "C.UTF-8");
        mtype.arg("-i").arg(image).arg(format!("::/{path}"));
        found.insert(path.to_string(), must_run(&mut mtype).stdout);
        assert!(!node.is_directory());
    }
    Some(found)
}

fn contents(tree: &FileTree) -> BTreeMap<String, Vec<u8>> {
    tree.iter()
        .filter_map(|(path, _, node)| Some((path, node.content()?)))
        .map(|(path, content)| (path.to_string(), content.read_all(u64::MAX).expect("read")))
        .collect()
}

#[test]
fn fat16_and_fat32_are_sound_and_read_back() {
    let folder = temp_folder();
    for (mib, kind) in [
        (16, FatKind::Fat16),
        (64, FatKind::Fat16),
        (64, FatKind::Fat32),
        (256, FatKind::Fat32),
        (512, FatKind::Fat32),
        (2000, FatKind::Fat16),
    ] {
        let options = FatOptions {
            kind,
            ..options(mib)
        };
        let tree = esp();
        let volume = FatVolume::new(&tree, &options).expect("it fits");
        assert_eq!(volume.kind(), kind);
        let image = write(&volume, folder.path(), &format!("{kind}-{mib}.img"));
        Checker::FsckVfat.accepts(&image);
        if let Some(found) = read_back(&image, &tree) {
            assert_eq!(found, contents(&tree));
        }
    }
}

/// Sizes of EFI system partitions, and those next to which the number of
/// clusters changes the type: 4,085 and 65,525, with 16 to spare.
#[test]
fn every_size_has_the_type_that_its_clusters_say() {
    let folder = temp_folder();
    let mut sizes: Vec<u64> = [33, 34, 35, 63, 64, 65, 128, 255, 256, 260, 261, 262]
        .into_iter()
        .chain([511, 512, 513, 1023, 1024, 2047, 2048])
        .map(|mib| mib * MIB)
        .collect();
    // Sectors: 1 for the boot sector, 32 for the root, the rest FATs and clusters.
    let fewest_fat16 = 1 + 32 + 2 * 17 + 4085 + 16;
    let most_fat16 = 1 + 32 + 2 * 256 + 65_524 - 16;
    for sectors in [5120, most_fat16 - 1, most_fat16, most_fat16 + 1] {
        sizes.push(sectors * 512);
    }
    let error = FatVolume::new(
        &tree(&[]),
        &FatOptions {
            size: ByteSize::from_bytes((fewest_fat16 - 1) * 512),
            ..options(0)
        },
    );
    assert!(error.is_err(), "too few clusters for FAT16");
    for size in sizes {
        let options = FatOptions {
            size: ByteSize::from_bytes(size),
            ..options(0)
        };
        let tree = tree(&[("EFI/BOOT/BOOTX64.EFI", &vec![1; 70_000]), ("a", b"b")]);
        let volume = FatVolume::new(&tree, &options).expect("it fits");
        let image = write(&volume, folder.path(), "esp.img");
        let Some(verdict) = Checker::FsckVfat.judge(&[&image]) else {
            return;
        };
        assert!(verdict.sound, "{size}: {}", verdict.text);
        let clusters: u64 = verdict
            .text
            .lines()
            .find_map(|line| {
                line.trim()
                    .strip_suffix(" bytes)")?
                    .split_once(" data clusters (")
            })
            .and_then(|(count, _)| count.parse().ok())
            .unwrap_or_else(|| panic!("no clusters in\n{}", verdict.text));
        let bits = match clusters {
            0..4101 => panic!("{size}: {clusters} clusters are too near to FAT12"),
            4101..65_509 => 16,
            65_509..65_541 => panic!("{size}: {clusters} clusters are ambiguous"),
            _ => 32,
        };
        let words = format!("{bits} bit entries");
        assert!(verdict.text.contains(&words), "{size}: {}", verdict.text);
        assert_eq!(volume.kind() == FatKind::Fat32, bits == 32, "{size}");
    }
}

#[test]
fn fsck_rejects_a_damaged_volume() {
    let folder = temp_folder();
    let volume = FatVolume::new(&esp(), &options(64)).expect("it fits");
    let image = write(&volume, folder.path(), "damaged.img");
    Checker::FsckVfat.accepts(&image);
    let file = File::options().write(true).open(&image).expect("open");
    // An entry in the middle of the first FAT.
    file.write_all_at(&[0x77; 8], 8 * 512 + 400)
        .expect("damage");
    Checker::FsckVfat.rejects(&image);
}

#[test]
fn the_comparison_with_mtools_sees_one_wrong_byte() {
    let folder = temp_folder();
    let tree = esp();
    let volume = FatVolume::new(&tree, &options(64)).expect("it fits");
    let image = write(&volume, folder.path(), "byte.img");
    let range = volume.file_range(&path("slot-a/vmlinuz")).expect("there");
    let file = File::options().write(true).open(&image).expect("open");
    file.write_all_at(&[0xee], range.end - 7).expect("damage");
    let Some(found) = read_back(&image, &tree) else {
        return;
    };
    let differing: Vec<String> = contents(&tree)
        .into_iter()
        .filter(|(path, bytes)| found.get(path) != Some(bytes))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(differing, ["slot-a/vmlinuz"]);
}

#[test]
fn identifiers_labels_and_times_are_those_of_the_plan() {
    let folder = temp_folder();
    let volume = FatVolume::new(&esp(), &options(256)).expect("it fits");
    let image = write(&volume, folder.path(), "esp.img");
    let Some(mut minfo) = program("minfo", "mtools") else {
        return;
    };
    let text = text_of(&must_run(minfo.arg("-i").arg(&image)));
    for line in [
        "disk label=\"VACONFIG   \"",
        "disk type=\"FAT32   \"",
        "serial number: C0DE1234",
        "cluster size: 1 sectors",
        "big size: 524288 sectors",
    ] {
        assert!(text.contains(line), "no `{line}` in\n{text}");
    }
    let free: u32 = line_value(&text, "free clusters=");
    assert!((490_000..516_000).contains(&free), "{free} free clusters");
    let mut mdir = program("mdir", "mtools").expect("it is beside minfo");
    let text = text_of(&must_run(mdir.arg("-i").arg(&image).arg("::/EFI/debian")));
    assert!(text.contains("Volume in drive : is VACONFIG"), "{text}");
    assert_eq!(text.matches("2023-11-14  22:13").count(), 4, "{text}");
    assert!(text.contains("grubenv"), "{text}");
}

fn line_value(text: &str, key: &str) -> u32 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|value| value.trim().parse().ok())
        .unwrap_or_else(|| panic!("no `{key}` in\n{text}"))
}

#[test]
fn every_file_is_one_run_that_can_be_overwritten_in_place() {
    let folder = temp_folder();
    let mut tree = esp();
    let volume = FatVolume::new(&tree, &options(64)).expect("it fits");
    let image = write(&volume, folder.path(), "esp.img");
    let environment = path("EFI/debian/grubenv");
    let range = volume.file_range(&environment).expect("it is there");
    assert_eq!(range.end - range.start, 1024);
    assert_eq!(range.start % 512, 0);
    assert_eq!(volume.file_range(&path("empty")), None);
    let file = File::options().write(true).open(&image).expect("open");
    file.write_all_at(&[b'!'; 1024], range.start)
        .expect("write");
    Checker::FsckVfat.accepts(&image);
    let changed = Node::file(0o644, Content::from_bytes(vec![b'!'; 1024]));
    tree.insert(environment, changed).expect("replace");
    if let Some(found) = read_back(&image, &tree) {
        assert_eq!(found, contents(&tree));
    }
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let read = |tree: &FileTree| {
        let volume = FatVolume::new(tree, &options(64)).expect("it fits");
        let mut bytes = vec![1; 64 << 20];
        volume.read_exact_at(&mut bytes, 0).expect("read");
        (bytes, volume.data_ranges().collect::<Vec<_>>())
    };
    let names = [("b/x", b"1".as_slice()), ("a/y", b"2"), ("a/x", b"3")];
    let reversed: Vec<_> = names.iter().rev().copied().collect();
    assert!(read(&tree(&names)) == read(&tree(&reversed)));
}

#[test]
fn large_files_are_not_held_in_memory_and_holes_are_not_data() {
    let content = Content::from_bytes(vec![7; 40 << 20]);
    let mut tree = FileTree::new();
    tree.insert(path("big"), Node::file(0o644, content))
        .expect("insert");
    let volume = FatVolume::new(&tree, &options(256)).expect("it fits");
    let data: u64 = volume.data_ranges().map(|r| r.end - r.start).sum();
    // Two FATs of 4 bytes for each of 81,920 clusters, and a few pages.
    assert!((40 * MIB + 655_360..41 * MIB).contains(&data), "{data}");
    let mut bytes = vec![0; 300_000];
    let range = volume.file_range(&path("big")).expect("there");
    volume
        .read_exact_at(&mut bytes, range.end - 150_000)
        .expect("read over the end of the file");
    assert!(bytes[..150_000].iter().all(|byte| *byte == 7));
    assert!(bytes[150_000..].iter().all(|byte| *byte == 0));
}

#[test]
fn what_fat_cannot_hold_is_said_with_the_figure() {
    let refuse =
        |tree: &FileTree, mib| FatVolume::new(tree, &options(mib)).expect_err("it cannot be held");
    let said = |tree: &FileTree| refuse(tree, 16).to_string();
    assert_eq!(
        said(&tree(&[("d/a:b", b"")])),
        "FAT cannot hold the name `d/a:b`: it contains `:`"
    );
    assert_eq!(
        said(&tree(&[("d./x", b"")])),
        "FAT cannot hold the name `d.`: it ends with a dot or a space"
    );
    assert_eq!(
        said(&tree(&[("README", b""), ("readme", b"")])),
        "FAT takes `readme` and `README` for the same name"
    );
    assert_eq!(
        said(&tree(&[("a long name.txt", b""), ("alongn~1.txt", b"")])),
        "FAT cannot hold the name `alongn~1.txt`: it is the short name of another file there"
    );
    let long = "ä".repeat(128);
    assert_eq!(
        said(&tree(&[(&long, b"")])),
        format!(
            "FAT cannot hold the name `{long}`: it has 256 bytes in UTF-8, and a name has at most 255"
        )
    );
    let many: Vec<String> = (0..33_000).map(|n| format!("d/{n:05}-x")).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b""[..])).collect();
    assert_eq!(
        refuse(&tree(&many), 64).to_string(),
        "FAT cannot hold the names of directory `d`: it needs 66004 slots and has 65536"
    );
    let error = refuse(&tree(&[("big", &vec![1; 20 << 20])]), 16);
    assert_eq!(
        error.to_string(),
        "FAT volume `VACONFIG` needs 20 MiB for its content, but has 15.9 MiB"
    );
    assert!(matches!(error, FatError::NoRoom { .. }) && error.hint().is_some());
    let mut links = FileTree::new();
    links
        .insert(path("link"), Node::symlink("target"))
        .expect("insert");
    assert_eq!(
        said(&links),
        "FAT cannot hold `link`: it is a symbolic link"
    );
    let mut names = FileTree::new();
    for number in 0..400 {
        let node = Node::file(0o644, Content::from_bytes(Vec::new()));
        names
            .insert(path(&format!("{number}")), node)
            .expect("insert");
    }
    assert_eq!(
        said(&names),
        "FAT cannot hold the names of the root directory: it needs 801 slots and has 512"
    );
}

#[test]
fn a_file_of_4_gib_is_refused_before_it_is_read() {
    let folder = temp_folder();
    let file = File::create(folder.path().join("huge")).expect("create");
    file.set_len(4 << 30).expect("grow");
    let blob = consign::tree::Blob::open(&folder.path().join("huge")).expect("open");
    let mut tree = FileTree::new();
    let node = Node::file(0o644, Content::stored(blob, 0, 4 << 30));
    tree.insert(path("huge"), node).expect("insert");
    let error = FatVolume::new(&tree, &options(8 << 10)).expect_err("too large");
    assert_eq!(
        error.to_string(),
        "FAT cannot hold `huge`: it has 4 GiB, and a file ends below 4 GiB"
    );
}

fn a_name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z0-9]{1,8}(\\.[a-z]{1,3})?",
        "[A-Za-z0-9 _~-]{1,40}[a-z]",
        "[a-zäöüß€]{1,20}",
    ]
}

fn a_tree() -> impl Strategy<Value = FileTree> {
    let file = (
        proptest::collection::vec(a_name(), 1..4),
        0_usize..20_000,
        any::<u8>(),
    );
    proptest::collection::vec(file, 0..60).prop_map(|files| {
        let mut tree = FileTree::new();
        for (components, size, fill) in files {
            let name = TreePath::parse(components.join("/").as_bytes()).expect("a path");
            let node = Node::file(0o644, Content::from_bytes(vec![fill; size]));
            // A parent that is a file already: leave this one out.
            let _taken = tree.insert(name, node);
        }
        tree
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(60),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn random_trees_are_sound_and_read_back(tree in a_tree(), small in any::<bool>()) {
        let folder = temp_folder();
        let options = options(if small { 8 } else { 64 });
        match FatVolume::new(&tree, &options) {
            Ok(volume) => {
                let image = write(&volume, folder.path(), "random.img");
                Checker::FsckVfat.accepts(&image);
                for (path, content) in contents(&tree) {
                    let at = TreePath::parse(path.as_bytes()).expect("a path");
                    let Some(range) = volume.file_range(&at) else {
                        prop_assert!(content.is_empty());
                        continue;
                    };
                    let mut bytes = vec![0; content.len()];
                    volume.read_exact_at(&mut bytes, range.start).expect("read");
                    prop_assert_eq!(bytes, content);
                }
            }
            // Names that fold together are the only fault this generator makes.
            Err(FatError::SameName { .. }) => {}
            Err(FatError::Build { source, .. })
                if source.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(FatError::DirectoryFull { .. }) if small => {}
            Err(error) => prop_assert!(false, "{error}: {error:?}"),
        }
    }
}
