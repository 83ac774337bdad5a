//! ext4 volumes, judged by e2fsprogs, ext4-view and the kernel.

mod damage;
mod growth;
mod limits;
mod readers;
mod stable;
mod trees;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use consign::fs::ext4::{Ext4Error, Ext4Options, Ext4Volume, Sizing};
use consign::sparse::SparseSource;
use consign::tree::{Content, FileTree, Node, NodeKind};
use consign::units::{ByteSize, ExitClass, GIB, Guid, MIB, Timestamp};
use proptest::prelude::*;

use crate::support::{Checker, LoopMount, cases, must_run, program, temp_folder};
use readers::{assert_same, by_ext4_view, by_kernel, expected, without_what_ext4_view_lacks};
use trees::{DATE, file, path, put, torture};

fn options(mib: u64) -> Ext4Options {
    let uuid = Guid::from_u128(0x1111_1111_2222_3333_4444_5555_5555_5555);
    let seed = Guid::from_u128(0x1111_1111_2222_3333_4444_5555_5555_5556);
    Ext4Options {
        label: "consign-root".into(),
        ..Ext4Options::new(ByteSize::from_mib(mib), uuid, seed, DATE)
    }
}

fn volume(tree: &FileTree, options: &Ext4Options) -> Ext4Volume {
    Ext4Volume::new(tree.clone(), options).unwrap_or_else(|error| panic!("it fits: {error}"))
}

/// The volume as a sparse file, written by its data ranges only.
fn write(volume: &dyn SparseSource, folder: &Path, name: &str) -> PathBuf {
    let target = folder.join(name);
    let file = File::create(&target).expect("create");
    file.set_len(volume.size().bytes()).expect("grow");
    let mut buf = vec![0; 1 << 20];
    for range in volume.data_ranges() {
        for at in range.clone().step_by(buf.len()) {
            let length = usize::try_from(range.end - at)
                .expect("fits")
                .min(buf.len());
            volume.read_exact_at(&mut buf[..length], at).expect("read");
            file.write_all_at(&buf[..length], at).expect("write");
        }
    }
    target
}

/// What `program` answers, or `None` when it is missing. Its version, on
/// standard error, is left out.
fn said_by(name: &str, args: &[&str], image: &Path) -> Option<String> {
    let mut command = program(name, "e2fsprogs")?;
    let output = must_run(command.args(args).arg(image));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn debugfs(request: &str, image: &Path) -> Option<String> {
    said_by("debugfs", &["-R", request], image)
}

/// The lines of `dumpe2fs -h` that begin with one of `keys`.
fn header(image: &Path, keys: &[&str]) -> Option<BTreeMap<String, String>> {
    let text = said_by("dumpe2fs", &["-h"], image)?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    Some(
        lines
            .filter(|(key, _)| keys.contains(key))
            .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
            .collect(),
    )
}

#[test]
fn a_tree_with_everything_is_sound_and_reads_back() {
    let folder = temp_folder();
    let tree = torture(20_000);
    let mut options = options(0);
    let least = Ext4Volume::minimum_size(&tree, &options, ByteSize::ZERO).expect("a size");
    for size in [least.bytes(), 600 * MIB + 512, 3 * GIB] {
        options.size = ByteSize::from_bytes(size);
        let image = write(&volume(&tree, &options), folder.path(), "torture.img");
        Checker::E2fsck.accepts(&image);
        if let Some(mount) = LoopMount::read_only(&image, 0, "ext4") {
            assert_same(&by_kernel(&mount.path()), &expected(&tree), "the kernel");
        }
    }
}

#[test]
fn ext4_view_reads_the_same_tree() {
    let mut tree = torture(2000);
    // ext4-view 1.0.0 refuses inodes whose seconds have bit 31 set: before
    // 1970, and 2038 to 2106. The kernel reads them back in the test above.
    for seconds in ["-2147483648", "-1", "2147483648"] {
        assert!(tree.remove(&path(format!("meta/time{seconds}"))));
    }
    let expected = without_what_ext4_view_lacks(&expected(&tree));
    let found = by_ext4_view(volume(&tree, &options(600)), &tree);
    assert_same(&found, &expected, "ext4-view");
}

#[test]
fn features_and_numbers_are_those_of_mke2fs() {
    const KEYS: [&str; 27] = [
        "Filesystem magic number",
        "Filesystem revision #",
        "Filesystem features",
        "Filesystem flags",
        "Default mount options",
        "Filesystem state",
        "Errors behavior",
        "Filesystem OS type",
        "Inode count",
        "Block count",
        "Reserved block count",
        "Overhead clusters",
        "First block",
        "Block size",
        "Fragment size",
        "Group descriptor size",
        "Blocks per group",
        "Inodes per group",
        "Inode blocks per group",
        "Flex block group size",
        "Maximum mount count",
        "Check interval",
        "First inode",
        "Inode size",
        "Required extra isize",
        "Total journal blocks",
        "Checksum type",
    ];
    let folder = temp_folder();
    for mib in [8, 64, 140, 600, 1025, 3000, 20_000, 300_000] {
        let theirs = folder.path().join("theirs.img");
        let file = File::create(&theirs).expect("create");
        file.set_len(mib * MIB).expect("grow");
        let quick = "lazy_itable_init=1,lazy_journal_init=1";
        let args = ["-qF", "-text4", "-b4096", "-E", quick];
        if said_by("mke2fs", &args, &theirs).is_none() {
            return;
        }
        let ours = write(
            &volume(&FileTree::new(), &options(mib)),
            folder.path(),
            "ours.img",
        );
        Checker::E2fsck.accepts(&ours);
        let found = header(&ours, &KEYS);
        assert_eq!(found, header(&theirs, &KEYS), "{mib} MiB");
        // 8 MiB have none, and no line either.
        let reserved = header(&ours, &["Reserved GDT blocks"]);
        assert_eq!(
            reserved,
            header(&theirs, &["Reserved GDT blocks"]),
            "{mib} MiB"
        );
        assert_eq!(
            found.map(|lines| lines.len()),
            Some(KEYS.len()),
            "{mib} MiB"
        );
    }
}

#[test]
fn debugfs_finds_attributes_devices_and_links() {
    let folder = temp_folder();
    let image = write(
        &volume(&torture(0), &options(600)),
        folder.path(),
        "debug.img",
    );
    let Some(stat) = debugfs("stat /dev/b-new", &image) else {
        return;
    };
    assert!(
        stat.contains("Device major/minor number: 4095:1048575"),
        "{stat}"
    );
    for (request, words) in [
        ("stat /dev/c-null", vec!["Device major/minor number: 01:03"]),
        ("stat /links/first", vec!["Links: 42"]),
        ("stat /links/59", vec!["Fast link dest", "Blockcount: 0"]),
        ("stat /links/60", vec!["EXTENTS", "Links: 2"]),
        ("stat /xattr/acl", vec!["system.posix_acl_access"]),
        (
            "ea_list /xattr/capability",
            vec!["security.capability (20) = 01 00 00 02 00 04"],
        ),
        (
            "ea_list /xattr/both",
            vec!["trusted.overlay.opaque (1) = \"y\"", "user.ccc (901)"],
        ),
        ("stat /holes/1000", vec!["(ETB0)", "Size: 16384000"]),
        (
            "htree_dump /large/subdirectory",
            vec!["Indirect levels: 0", "Number of entries (limit): 507"],
        ),
        ("stat <7>", vec!["Size: 4299210752"]),
        ("stat <8>", vec!["Mode:  0600", "Size: 16777216"]),
        (
            "stat /lost+found",
            vec!["Inode: 11", "Mode:  0700", "Size: 16384"],
        ),
    ] {
        let said = debugfs(request, &image).expect("debugfs was there");
        for word in words {
            assert!(said.contains(word), "{request}: no `{word}` in\n{said}");
        }
    }
}

#[test]
fn attribute_blocks_with_the_same_content_are_one_block() {
    let folder = temp_folder();
    let image = write(
        &volume(&torture(0), &options(600)),
        folder.path(),
        "shared.img",
    );
    let block = |name: &str| {
        let said = debugfs(&format!("stat /xattr/{name}"), &image)?;
        let line = said
            .lines()
            .find(|line| line.contains("File ACL"))?
            .to_owned();
        Some(line)
    };
    let Some(one) = block("block") else { return };
    assert!(!one.contains("File ACL: 0"), "{one}");
    assert_eq!(Some(one), block("same-block"));
}

/// All bytes of a volume, holes included.
fn bytes_of(volume: &Ext4Volume) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(volume.size().bytes()).expect("small")];
    volume.read_exact_at(&mut bytes, 0).expect("read");
    bytes
}

#[test]
fn the_same_tree_in_another_order_gives_the_same_bytes() {
    let tree = torture(300);
    let mut other = FileTree::new();
    if let (Some(root), Some(from)) = (other.get_mut(&path("")), tree.get(&path(""))) {
        *root = from.clone();
    }
    let mut made = BTreeMap::new();
    let entries: Vec<_> = tree.iter().skip(1).collect();
    // Directories first, so that they are not made by their entries.
    let (directories, files): (Vec<_>, Vec<_>) = entries
        .into_iter()
        .rev()
        .partition(|(_, _, node)| node.is_directory());
    for (at, id, node) in directories.into_iter().rev().chain(files) {
        if let Some(first) = made.get(&id) {
            other.link(at.clone(), first).expect("link");
        } else {
            other.insert(at.clone(), node.clone()).expect("insert");
            made.insert(id, at.clone());
        }
    }
    let mut options = options(0);
    options.size = Ext4Volume::minimum_size(&tree, &options, ByteSize::ZERO).expect("a size");
    let (one, two) = (volume(&tree, &options), volume(&other, &options));
    assert!(
        bytes_of(&one) == bytes_of(&two),
        "the order of insertion shows"
    );
}

#[test]
fn any_part_can_be_read_alone() {
    let volume = volume(&torture(300), &options(600));
    let whole = bytes_of(&volume);
    let mut outside = whole.clone();
    for range in volume.data_ranges() {
        let bytes = usize::try_from(range.start).expect("small")
            ..usize::try_from(range.end).expect("small");
        outside[bytes].fill(0);
    }
    assert!(
        outside.iter().all(|byte| *byte == 0),
        "data outside of the data ranges"
    );
    let mut at = 0;
    for step in (1..).map(|n: usize| n * n * 37 % 70_001 + 1) {
        let end = (at + step).min(whole.len());
        let mut part = vec![9; end - at];
        volume.read_exact_at(&mut part, at as u64).expect("read");
        assert!(part == whole[at..end], "{at}..{end}");
        at = end + step;
        if at >= whole.len() {
            break;
        }
    }
    let end = volume.size().bytes();
    assert!(volume.read_exact_at(&mut [0; 2], end - 1).is_err());
}

#[test]
fn empty_space_costs_nothing() {
    let empty = volume(&FileTree::new(), &options(64 * 1024));
    let data: u64 = empty
        .data_ranges()
        .map(|range| range.end - range.start)
        .sum();
    // Bitmaps of the groups that hold tables, the reserved blocks of the
    // resize inode and the copies of superblock and group table.
    assert!(data < 6 * MIB, "{data}");
    let holes = volume(&torture(0), &options(600));
    let data: u64 = holes
        .data_ranges()
        .map(|range| range.end - range.start)
        .sum();
    assert!(data < 32 * MIB, "{data}");
}

#[test]
fn a_volume_of_the_minimum_size_is_filled_and_a_smaller_one_says_what_it_lacks() {
    let folder = temp_folder();
    let mut tree = torture(500);
    put(&mut tree, "big", file(trees::pattern(40 << 20, 2)));
    let mut options = options(0);
    let least = Ext4Volume::minimum_size(&tree, &options, ByteSize::ZERO).expect("a size");
    options.size = least;
    let full = volume(&tree, &options);
    assert!(full.free() < ByteSize::from_mib(2), "{}", full.free());
    Checker::E2fsck.accepts(&write(&full, folder.path(), "full.img"));

    options.size = ByteSize::from_bytes(least.bytes() - MIB);
    let error = Ext4Volume::new(tree.clone(), &options).expect_err("too small");
    assert!(
        matches!(error, Ext4Error::NoRoom { needs, .. } if needs == least),
        "{error}"
    );
    let (needs, has) = (least.bytes(), options.size.bytes());
    assert_eq!(
        error.to_string(),
        format!(
            "the files need a partition of {needs} bytes ({least}), but it has {has} ({}): \
             1048576 bytes too few",
            options.size
        )
    );
    assert_eq!(
        (error.slug(), error.class()),
        ("ext4-no-room", ExitClass::Usage)
    );

    let spare = ByteSize::from_mib(50);
    options.size = Ext4Volume::minimum_size(&tree, &options, spare).expect("a size");
    let roomy = volume(&tree, &options);
    assert!(roomy.free() >= spare && roomy.free() < ByteSize::from_mib(53));
}

#[test]
fn many_small_files_get_their_inodes() {
    let folder = temp_folder();
    let mut tree = FileTree::new();
    for number in 0..9000 {
        put(&mut tree, format!("d{}/{number}", number % 7), file(*b""));
    }
    let mut options = options(0);
    options.inode_ratio = Sizing::Exactly(ByteSize::from_mib(1));
    options.size = Ext4Volume::minimum_size(&tree, &options, ByteSize::ZERO).expect("a size");
    let image = write(&volume(&tree, &options), folder.path(), "inodes.img");
    Checker::E2fsck.accepts(&image);
    assert!(options.size <= ByteSize::from_mib(9), "{}", options.size);
}

#[test]
fn what_ext4_cannot_hold_is_refused_by_name() {
    let holes = |size| Node::file(0o644, Content::sparse(size, Vec::new()).expect("no parts"));
    let device = NodeKind::CharDevice {
        major: 4096,
        minor: 0,
    };
    let mut late = file(*b"x");
    late.meta.mtime = Timestamp::from_seconds(1 << 34);
    let mut odd = file(*b"x");
    odd.meta
        .xattrs
        .insert(b"btrfs.compression".to_vec(), b"zstd".to_vec());
    let long = "n".repeat(256);
    for (name, node, words) in [
        (
            long.as_str(),
            file(*b""),
            "its name has 256 bytes, and 255 is the limit",
        ),
        (
            "huge",
            holes(16 * 1024 * GIB),
            "17592186044416 bytes, and 17592186040320 is the limit",
        ),
        (
            "none",
            Node::symlink(*b""),
            "its target has 0 bytes, and 1 to 4095 are possible",
        ),
        (
            "long",
            Node::symlink(vec![b'x'; 4096]),
            "its target has 4096 bytes",
        ),
        (
            "device",
            Node {
                kind: device,
                ..file(*b"")
            },
            "device number 4096:0 is outside of 4095:1048575",
        ),
        (
            "late",
            late,
            "its time 2514-05-30T01:53:04Z is outside of 1901 to 2310",
        ),
        (
            "lost+found",
            file(*b""),
            "only a directory can have this name",
        ),
        (
            "odd",
            odd,
            "extended attribute `btrfs.compression` is none of",
        ),
    ] {
        let mut tree = FileTree::new();
        put(&mut tree, name, node);
        let error = Ext4Volume::new(tree, &options(16)).expect_err("refused");
        let text = error.to_string();
        let start = format!("`{name}` cannot be stored in ext4: ");
        assert!(text.starts_with(&start) && text.contains(words), "{text}");
        assert_eq!(
            (error.slug(), error.class()),
            ("ext4-entry", ExitClass::Build)
        );
        assert!(error.hint().is_some(), "{text}");
    }
}

#[test]
fn impossible_volumes_are_refused() {
    let sized = |bytes| Ext4Options {
        size: ByteSize::from_bytes(bytes),
        ..options(0)
    };
    let labelled = Ext4Options {
        label: "seventeen letters".into(),
        ..options(16)
    };
    let reserving = Ext4Options {
        reserved_percent: 51,
        ..options(16)
    };
    let early = Ext4Options {
        source_date: Timestamp::from_seconds(-1),
        ..options(16)
    };
    for (options, slug, text) in [
        (
            sized(8 * MIB - 1),
            "ext4-volume-too-small",
            "a volume of 8388607 bytes is too small: ext4 with a journal needs 8388608 bytes (8 MiB)",
        ),
        (
            sized(16 * 1024 * GIB),
            "ext4-volume-too-large",
            "a volume of 17592186044416 bytes (16 TiB) is too large: \
             the limit is 17592186044415 bytes",
        ),
        (
            labelled,
            "ext4-label-too-long",
            "the volume label `seventeen letters` has 17 bytes, and ext4 keeps 16",
        ),
        (
            reserving,
            "ext4-reserved",
            "51 percent cannot be reserved for root: at most 50",
        ),
        (
            early,
            "ext4-source-date",
            "the source date 1969-12-31T23:59:59Z does not fit ext4",
        ),
    ] {
        let error = Ext4Volume::new(FileTree::new(), &options).expect_err("refused");
        assert_eq!((error.slug(), error.to_string()), (slug, text.to_owned()));
        assert_eq!(error.class(), ExitClass::Usage);
    }
}

#[test]
fn a_lost_and_found_of_the_tree_is_kept() {
    let folder = temp_folder();
    let mut tree = FileTree::new();
    put(&mut tree, "lost+found/#17/found", file(*b"again"));
    put(&mut tree, "before", file(*b"b"));
    let image = write(&volume(&tree, &options(16)), folder.path(), "found.img");
    Checker::E2fsck.accepts(&image);
    if let Some(said) = debugfs("stat /lost+found", &image) {
        assert!(
            said.contains("Inode: 11") && said.contains("Mode:  0755"),
            "{said}"
        );
    }
    if let Some(said) = debugfs("cat /lost+found/#17/found", &image) {
        assert!(said.contains("again"), "{said}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(24),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_trees_are_sound_and_read_back(tree in trees::random()) {
        let folder = temp_folder();
        let mut options = options(0);
        options.size =
            Ext4Volume::minimum_size(&tree, &options, ByteSize::ZERO).expect("a size");
        let image = write(&volume(&tree, &options), folder.path(), "random.img");
        Checker::E2fsck.accepts(&image);
        if let Some(mount) = LoopMount::read_only(&image, 0, "ext4") {
            assert_same(&by_kernel(&mount.path()), &expected(&tree), "the kernel");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(500),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// With room for stretches, unlike those above.
    #[test]
    fn five_hundred_random_trees_are_sound(tree in trees::random()) {
        let folder = temp_folder();
        let image = write(&volume(&tree, &options(16)), folder.path(), "random.img");
        Checker::E2fsck.accepts(&image);
    }
}
