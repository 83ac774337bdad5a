//! Config CDs, read back by isoinfo, xorriso and bsdtar.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use consign::fs::iso9660::{IsoError, IsoOptions, IsoVolume};
use consign::sparse::SparseSource;
use consign::tree::{Content, FileTree, Node, TreePath, list_folder};
use consign::units::{GIB, Timestamp};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::support::{cases, consign, must_run, program, run, temp_folder, text_of};

/// 2023-11-14 22:13:21 UTC.
const DATE: Timestamp = Timestamp::from_seconds(1_700_000_001);

/// Files by their path.
type Files = BTreeMap<String, Vec<u8>>;

fn options() -> IsoOptions {
    IsoOptions {
        label: "VACONFIG".parse().expect("a label"),
        source_date: DATE,
    }
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).expect("a path")
}

fn put(tree: &mut FileTree, name: &str, bytes: &[u8]) {
    let node = Node::file(0o644, Content::from_bytes(bytes));
    tree.insert(path(name), node).expect("insert");
}

/// What a customer hands over, and what needs care: long and foreign names,
/// names that fold together, many entries, empty files, hard links.
fn site() -> FileTree {
    let mut tree = FileTree::new();
    let bundle: Vec<u8> = (0..300_001_u32).map(|n| (n % 251) as u8).collect();
    for (name, bytes) in [
        ("site.toml", b"schema = 1\n".as_slice()),
        ("site.toml.minisig", b"untrusted comment: x\n"),
        ("secrets.age", &bundle[..513]),
        ("payload/app-2.10.1+build.vab", &bundle),
        ("license/Grüße an €.txt", b"umlauts"),
        ("license/GRÜSSE AN €.txt", b"umlauts in capitals"),
        ("empty", b""),
        (".hidden", b"h"),
        ("a.b1", b"1"),
        ("a.b", b"2"),
        ("one/two/three/four/five/six/deep", b"deep"),
    ] {
        put(&mut tree, name, bytes);
    }
    put(&mut tree, &"x".repeat(64), b"64 characters");
    for number in 0..300 {
        let name = format!("many/a-file-with-quite-a-long-name-number-{number:03}.certificate");
        put(&mut tree, &name, format!("{number}").as_bytes());
    }
    tree.link(path("bundle"), &path("payload/app-2.10.1+build.vab"))
        .expect("link");
    tree.insert(path("nothing"), Node::directory(0o755))
        .expect("insert");
    tree
}

fn contents(tree: &FileTree) -> Files {
    tree.iter()
        .filter_map(|(path, _, node)| Some((path, node.content()?)))
        .map(|(path, content)| (path.to_string(), content.read_all(u64::MAX).expect("read")))
        .collect()
}

fn write(tree: &FileTree, folder: &Path) -> PathBuf {
    let volume = IsoVolume::new(tree, &options()).expect("it fits");
    let mut bytes = vec![1; usize::try_from(volume.size().bytes()).expect("small")];
    volume.read_exact_at(&mut bytes, 0).expect("read");
    let target = folder.join("site.iso");
    File::create(&target)
        .and_then(|mut file| file.write_all(&bytes))
        .expect("write");
    target
}

fn below(folder: &Path) -> Files {
    let mut found = Files::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in list_folder(&at).expect("a readable folder") {
            if entry.metadata.is_dir() {
                folders.push(entry.path);
            } else {
                let name = entry.path.strip_prefix(folder).expect("below it");
                let bytes = std::fs::read(&entry.path).expect("read");
                found.insert(name.to_str().expect("UTF-8").to_owned(), bytes);
            }
        }
    }
    found
}

/// The files as a reader of Joliet unpacks them; `None` without the program,
/// an empty list when it refuses the image.
fn unpacked(reader: &str, image: &Path, folder: &Path) -> Option<Files> {
    let target = folder.join(reader);
    std::fs::create_dir_all(&target).expect("a folder");
    let (package, args): (_, Vec<&std::ffi::OsStr>) = match reader {
        "bsdtar" => (
            "libarchive-tools",
            vec![
                "-xf".as_ref(),
                image.as_ref(),
                "-C".as_ref(),
                target.as_ref(),
            ],
        ),
        _ => (
            "xorriso",
            ["-osirrox", "on", "-read_fs", "norock", "-indev"]
                .map(AsRef::as_ref)
                .into_iter()
                .chain([image.as_ref(), "-extract".as_ref(), "/".as_ref()])
                .chain([target.as_ref()])
                .collect(),
        ),
    };
    let mut command = program(reader, package)?;
    command.env("LC_ALL", "C.UTF-8").args(args);
    let files = run(&mut command).status.success().then(|| below(&target));
    must_run(
        program("chmod", "coreutils")?
            .args(["-R", "u+rwX"])
            .arg(&target),
    );
    std::fs::remove_dir_all(&target).expect("removable");
    Some(files.unwrap_or_default())
}

fn isoinfo(image: &Path, args: &[&str]) -> Option<Output> {
    let mut command = program("isoinfo", "genisoimage")?;
    command.arg("-i").arg(image).args(args);
    Some(run(&mut command))
}

#[test]
fn long_names_and_contents_are_read_back_by_joliet_readers() {
    let folder = temp_folder();
    let tree = site();
    let image = write(&tree, folder.path());
    for reader in ["bsdtar", "xorriso"] {
        if let Some(found) = unpacked(reader, &image, folder.path()) {
            assert_eq!(found, contents(&tree), "{reader}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(24), ..ProptestConfig::default() })]

    #[test]
    fn random_trees_are_read_back(
        files in btree_map(
            "[a-zA-Zß€]([a-zA-Z0-9ß€._-]{0,20}[a-z0-9])?(/[a-zA-Z]([a-z0-9.]{0,12}[a-z0-9])?){0,3}",
            vec(any::<u8>(), 0..6000),
            0..40,
        ),
    ) {
        let mut tree = FileTree::new();
        for (name, bytes) in &files {
            let node = Node::file(0o644, Content::from_bytes(bytes.as_slice()));
            // What was a file before may be a folder here.
            let _fits = tree.insert(path(name), node);
        }
        let folder = temp_folder();
        let image = write(&tree, folder.path());
        for reader in ["bsdtar", "xorriso"] {
            if let Some(found) = unpacked(reader, &image, folder.path()) {
                prop_assert_eq!(&found, &contents(&tree), "{}", reader);
            }
        }
    }
}

#[test]
fn readers_without_joliet_find_everything_under_short_names() {
    let folder = temp_folder();
    let tree = site();
    let image = write(&tree, folder.path());
    let Some(listing) = isoinfo(&image, &["-f"]) else {
        return;
    };
    let names = text_of(&listing);
    let names: Vec<&str> = names.lines().collect();
    for name in [
        "/SITE.TOML;1",
        "/SITE_TOML.MINISIG;1",
        "/A.B;1",
        "/A.B1;1",
        "/_HIDDEN.;1",
        "/LICENSE/GR__SSE_AN____.TXT;1",
        "/LICENSE/GR____E_AN____.TXT;1",
        "/MANY/A_FILE_WITH_QUITE_A_LO.CERTIFIC;1",
        "/MANY/A_FILE_WITH_QUITE__300.CERTIFIC;1",
        "/ONE/TWO/THREE/FOUR/FIVE/SIX/DEEP.;1",
        "/NOTHING",
    ] {
        assert!(names.contains(&name), "no {name} in\n{}", names.join("\n"));
    }
    let mut read: Vec<Vec<u8>> = names
        .iter()
        .filter(|name| name.ends_with(";1"))
        .map(|name| isoinfo(&image, &["-x", name]).expect("it was there").stdout)
        .collect();
    let mut expected: Vec<Vec<u8>> = contents(&tree).into_values().collect();
    read.sort();
    expected.sort();
    assert!(read == expected, "other contents under short names");
}

#[test]
fn descriptors_tables_and_times_are_those_of_the_plan() {
    let folder = temp_folder();
    let image = write(&site(), folder.path());
    let Some(mut said) = isoinfo(&image, &["-d"]) else {
        return;
    };
    let text = text_of(&said);
    let sectors = std::fs::metadata(&image).expect("there").len() / 2048;
    for line in [
        "CD-ROM is in ISO 9660 format",
        "Volume id: VACONFIG",
        "Volume set size is: 1",
        "Logical block size is: 2048",
        &format!("Volume size is: {sectors}"),
        "Joliet with UCS level 3 found",
        "NO Rock Ridge present",
    ] {
        assert!(text.contains(line), "no `{line}` in\n{text}");
    }
    // The path table names parents before their children.
    said = isoinfo(&image, &["-p"]).expect("it was there");
    let table = text_of(&said);
    let rows: Vec<&str> = table.lines().filter(|line| line.contains(':')).collect();
    assert_eq!(rows.len(), 10 + 1, "{table}");
    said = isoinfo(&image, &["-l", "-J"]).expect("it was there");
    let listing = text_of(&said);
    assert!(listing.contains("Nov 14 2023"), "{listing}");
}

#[test]
fn the_readers_reject_damage() {
    let folder = temp_folder();
    let tree = site();
    let image = write(&tree, folder.path());
    let bytes = std::fs::read(&image).expect("read");
    let file = File::options().write(true).open(&image).expect("open");
    // The Joliet record of `site.toml`: its name in UCS-2, 33 bytes into it.
    let name: Vec<u8> = "site.toml;1"
        .encode_utf16()
        .flat_map(u16::to_be_bytes)
        .collect();
    let at = bytes
        .windows(name.len())
        .position(|window| window == name)
        .expect("a record");
    for (what, at) in [
        ("a character of a name", at + 1),
        ("the first sector of a file", at - 33 + 2),
        ("the standard identifier", 16 * 2048 + 1),
    ] {
        let good = bytes[at];
        file.write_all_at(&[good ^ 0x01], at as u64)
            .expect("damage");
        for reader in ["bsdtar", "xorriso"] {
            if let Some(found) = unpacked(reader, &image, folder.path()) {
                assert_ne!(found, contents(&tree), "{reader} does not see {what}");
            }
        }
        file.write_all_at(&[good], at as u64).expect("repair");
    }
}

#[test]
fn isoinfo_sees_damage() {
    let folder = temp_folder();
    let image = write(&site(), folder.path());
    let bytes = std::fs::read(&image).expect("read");
    let file = File::options().write(true).open(&image).expect("open");
    let place = |name: &[u8]| {
        let found = bytes.windows(name.len()).position(|window| window == name);
        found.expect("it is there")
    };
    for (what, at, request) in [
        ("the standard identifier", 16 * 2048 + 1, "-d"),
        ("the volume's name", 16 * 2048 + 40, "-d"),
        ("a name of the path table", place(b"LICENSE"), "-p"),
        ("a record's name", place(b"SITE.TOML;1"), "-f"),
        (
            "a record's first sector",
            place(b"SITE.TOML;1") - 33 + 2,
            "-l",
        ),
    ] {
        let Some(sound) = isoinfo(&image, &[request]) else {
            return;
        };
        file.write_all_at(&[bytes[at] ^ 0x01], at as u64)
            .expect("damage");
        let damaged = isoinfo(&image, &[request]).expect("it was there");
        assert_ne!(text_of(&damaged), text_of(&sound), "{what}");
        file.write_all_at(&[bytes[at]], at as u64).expect("repair");
    }
}

#[test]
fn the_order_of_insertion_does_not_show() {
    let tree = site();
    let mut other = FileTree::new();
    let files: Vec<_> = tree.iter().skip(1).collect();
    for (at, _, node) in files.into_iter().rev() {
        // Folders that their entries made already stay as they are.
        if !node.is_directory() || other.get(at).is_none() {
            other.insert(at.clone(), node.clone()).expect("insert");
        }
    }
    other.remove(&path("bundle"));
    other
        .link(path("bundle"), &path("payload/app-2.10.1+build.vab"))
        .expect("link");
    let read = |tree| std::fs::read(write(tree, temp_folder().path())).expect("read");
    assert!(read(&tree) == read(&other));
}

#[test]
fn any_part_can_be_read_alone_and_holes_are_not_data() {
    let mut tree = site();
    let hole = Content::sparse(1 << 20, vec![(600_000, Content::from_bytes(*b"end"))]);
    let node = Node::file(0o644, hole.expect("inside"));
    tree.insert(path("zz-hole"), node).expect("insert");
    let volume = IsoVolume::new(&tree, &options()).expect("it fits");
    let size = usize::try_from(volume.size().bytes()).expect("small");
    let mut whole = vec![1; size];
    volume.read_exact_at(&mut whole, 0).expect("read");
    let mut outside = whole.clone();
    let mut data = 0;
    for range in volume.data_ranges() {
        data += range.end - range.start;
        let at = |at: u64| usize::try_from(at).expect("small");
        outside[at(range.start)..at(range.end)].fill(0);
    }
    assert!(outside.iter().all(|byte| *byte == 0));
    assert!(data < 500_000, "{data}");
    for at in (0..size - 5000).step_by(4999) {
        let mut part = vec![9; 5000];
        volume.read_exact_at(&mut part, at as u64).expect("read");
        assert!(part == whole[at..at + 5000], "{at}");
    }
    assert!(volume.read_exact_at(&mut [0; 2], size as u64 - 1).is_err());
}

#[test]
fn what_a_cd_cannot_hold_is_said_with_the_figure() {
    let said = |name: &str, node: Node| {
        let mut tree = FileTree::new();
        tree.insert(path(name), node).expect("insert");
        let error = IsoVolume::new(&tree, &options()).expect_err("it cannot be held");
        assert!(error.hint().is_some());
        error.to_string()
    };
    let file = || Node::file(0o644, Content::from_bytes(*b"x"));
    let huge = Content::sparse(4 * GIB, Vec::new()).expect("no parts");
    for (name, node, words) in [
        (
            "a:b",
            file(),
            "a CD cannot hold the name `a:b`: it contains `:`",
        ),
        (
            &*"n".repeat(65),
            file(),
            "it has 65 characters, and 64 is the limit",
        ),
        ("clef-\u{1d11e}", file(), "it contains `\\u{1d11e}`"),
        (
            "link",
            Node::symlink(*b"x"),
            "a CD cannot hold `link`: it is a symbolic link",
        ),
        (
            "huge",
            Node::file(0o644, huge),
            "a CD cannot hold `huge`: it has 4 GiB, and a file ends below 4 GiB",
        ),
        (
            "1/2/3/4/5/6/7/8",
            Node::directory(0o755),
            "a CD cannot hold `1/2/3/4/5/6/7/8`: it is more than 8 levels deep",
        ),
    ] {
        let text = said(name, node);
        assert!(text.contains(words), "{text}");
    }
    let bytes = TreePath::parse(b"\xff").expect("a path");
    let mut tree = FileTree::new();
    tree.insert(bytes, file()).expect("insert");
    let error = IsoVolume::new(&tree, &options()).expect_err("not UTF-8");
    assert!(matches!(error, IsoError::Name { .. }), "{error}");
}

#[test]
fn a_cd_has_numbers_for_so_many_directories_and_sectors() {
    let mut tree = FileTree::new();
    for number in 1..65_535 {
        let node = Node::directory(0o755);
        tree.insert(path(&format!("{number}")), node)
            .expect("insert");
    }
    IsoVolume::new(&tree, &options()).expect("65,535 with the root");
    let one_more = Node::directory(0o755);
    tree.insert(path("one more"), one_more).expect("insert");
    let error = IsoVolume::new(&tree, &options()).expect_err("one too many");
    let text = error.to_string();
    assert_eq!(
        text,
        "a CD cannot hold 65536 directories: 65535 is the limit"
    );
    let mut tree = FileTree::new();
    for number in 0..2049 {
        let zeros = Content::sparse(4 * GIB - 2048, Vec::new()).expect("zeros");
        tree.insert(path(&format!("{number}")), Node::file(0o644, zeros))
            .expect("insert");
    }
    let error = IsoVolume::new(&tree, &options()).expect_err("more than 8 TiB");
    assert!(matches!(error, IsoError::TooLarge { .. }), "{error}");
}

#[test]
fn the_command_makes_a_cd_of_a_site() {
    let folder = temp_folder();
    let site = folder.path().join("site.toml");
    let text = "schema = 1\n[config]\nid = \"a\"\nserial = 1\n[system]\nhostname = \"a\"\n";
    std::fs::write(&site, text).expect("write");
    std::fs::create_dir(folder.path().join("roles")).expect("a folder");
    let said = must_run(
        consign()
            .current_dir(folder.path())
            .args(["config", "disk", "site.toml", "--format", "iso"])
            .args(["--roles", "roles"]),
    );
    let said = text_of(&said);
    assert!(
        said.starts_with("wrote `site.iso`: 52 KiB, id a, serial 1"),
        "{said}"
    );
    let image = folder.path().join("site.iso");
    let expected = Files::from([("site.toml".to_owned(), text.as_bytes().to_vec())]);
    for reader in ["bsdtar", "xorriso"] {
        if let Some(found) = unpacked(reader, &image, folder.path()) {
            assert_eq!(found, expected, "{reader}");
        }
    }
}
