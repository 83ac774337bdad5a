//! Tar streams: what we write, GNU tar reads, and we read back the same.
#![expect(clippy::disallowed_types, reason = "GNU tar judges what we write")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use consign::layer::tar::{read_delta, write_delta};
use consign::tree::{Blob, Content, Metadata, Node, NodeKind, TreeDelta, TreePath};
use consign::units::Timestamp;
use proptest::prelude::*;

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).expect("a path")
}

fn write(delta: &TreeDelta, place: &Path) -> consign::digest::DiffId {
    let file = std::fs::File::create(place).expect("create");
    let (_, sum) = write_delta(delta, std::io::BufWriter::new(file)).expect("write");
    assert_eq!(std::fs::metadata(place).expect("there").len(), sum.size);
    sum.diff_id
}

fn read(place: &Path) -> TreeDelta {
    read_delta(&Blob::open(place).expect("open")).expect("read")
}

/// Everything that two deltas can differ in, contents as bytes.
fn facts(delta: &TreeDelta) -> Vec<String> {
    let mut facts = Vec::new();
    let mut first: BTreeMap<_, String> = BTreeMap::new();
    for (path, id, node) in delta.tree.iter() {
        if delta.implied.contains(path) {
            continue;
        }
        let same_as = first.entry(id).or_insert_with(|| path.to_string()).clone();
        let what = match &node.kind {
            NodeKind::File(content) => format!("{:?}", content.read_all(1 << 30).expect("bytes")),
            other => format!("{other:?}"),
        };
        facts.push(format!("{path:?} {same_as} {:?} {what}", node.meta));
    }
    facts.push(format!(
        "{:?} {:?} {:?}",
        delta.removed, delta.opaque, delta.links
    ));
    facts
}

fn node(kind: NodeKind, meta: Metadata) -> Node {
    Node { meta, kind }
}

/// One of each kind, with names and numbers that do not fit the old header.
fn one_of_each() -> TreeDelta {
    let mut delta = TreeDelta::new();
    let mut meta = Metadata::root_owned(0o4755);
    meta.uid = 3_000_000;
    meta.mtime = Timestamp {
        seconds: 1_700_000_000,
        nanos: 5,
    };
    meta.xattrs
        .insert(b"user.note".to_vec(), b"a=b\n\0c".to_vec());
    let long = format!("usr/share/{}/file", "x".repeat(120));
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    let file = node(NodeKind::File(Content::from_bytes(bytes)), meta.clone());
    delta.put(path(&long), file).expect("put");
    delta
        .put_link(path("usr/other-name"), &path(&long))
        .expect("link");
    let plain = || Metadata::root_owned(0o644);
    let target = "t".repeat(150).into_bytes();
    for (name, kind) in [
        ("link", NodeKind::Symlink(b"usr/bin".to_vec())),
        ("long-link", NodeKind::Symlink(target)),
        ("pipe", NodeKind::Fifo),
        ("null", NodeKind::CharDevice { major: 1, minor: 3 }),
        ("loop", NodeKind::BlockDevice { major: 7, minor: 0 }),
        ("empty", NodeKind::File(Content::from_bytes(Vec::new()))),
    ] {
        delta.put(path(name), node(kind, plain())).expect("put");
    }
    delta
        .put(path("folder"), Node::directory(0o1777))
        .expect("put");
    delta.removed.insert(path("etc/gone"));
    delta.opaque.insert(path("folder"));
    delta
        .links
        .insert(path("lower-link"), path("usr/bin/below"));
    delta
}

#[test]
fn what_was_written_is_read_back() {
    let folder = tempfile::tempdir().expect("folder");
    let delta = one_of_each();
    let first = write(&delta, &folder.path().join("a.tar"));
    let back = read(&folder.path().join("a.tar"));
    assert_eq!(facts(&back), facts(&delta));
    let second = write(&back, &folder.path().join("b.tar"));
    assert_eq!(second, first, "the same bytes from the delta read back");
}

#[test]
fn gnu_tar_lists_what_was_written() {
    let folder = tempfile::tempdir().expect("folder");
    let place = folder.path().join("a.tar");
    write(&one_of_each(), &place);
    let output = Command::new("tar")
        .args(["--numeric-owner", "--xattrs", "-tvvf"])
        .arg(&place)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TZ", "UTC")
        .output()
        .expect("tar runs");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && words.is_empty(), "{words}");
    let list = String::from_utf8_lossy(&output.stdout);
    for expected in [
        "-rwsr-xr-x* 3000000/0    100000 2023-11-14 22:13 usr/other-name",
        "prw-r--r--",
        "crw-r--r--  0/0             1,3 1970",
        "brw-r--r--  0/0             7,0 1970",
        "drwxrwxrwt",
        " etc/.wh.gone",
        " folder/.wh..wh..opq",
        "lower-link link to usr/bin/below",
        "x: 6 user.note",
    ] {
        assert!(list.contains(expected), "{expected} is not in\n{list}");
    }
}

#[test]
fn a_large_file_is_seen_at_its_place_and_not_copied() {
    let folder = tempfile::tempdir().expect("folder");
    let place = folder.path().join("a.tar");
    write(&one_of_each(), &place);
    let back = read(&place);
    let (_, _, found) = back
        .tree
        .iter()
        .find(|(path, _, _)| path.to_string() == "usr/other-name")
        .expect("there");
    let text = format!("{:?}", found.content().expect("a file"));
    assert!(text.contains("a.tar"), "{text}");
}

fn any_metadata() -> impl Strategy<Value = Metadata> {
    let xattrs = proptest::collection::btree_map("user\\.[a-z]{1,8}", any::<Vec<u8>>(), 0..3);
    (
        0..0o10000_u16,
        any::<u32>(),
        any::<u32>(),
        -10_000_000_000..200_000_000_000_i64,
        0..1_000_000_000_u32,
        xattrs,
    )
        .prop_map(|(mode, uid, gid, seconds, nanos, xattrs)| Metadata {
            mode,
            uid,
            gid,
            mtime: Timestamp { seconds, nanos },
            xattrs: xattrs
                .into_iter()
                .map(|(name, value)| (name.into_bytes(), value))
                .collect(),
        })
}

fn any_kind() -> impl Strategy<Value = NodeKind> {
    prop_oneof![
        Just(NodeKind::Directory),
        proptest::collection::vec(any::<u8>(), 0..2000)
            .prop_map(|bytes| NodeKind::File(Content::from_bytes(bytes))),
        proptest::collection::vec(1..=255_u8, 1..200).prop_map(NodeKind::Symlink),
        (0..4096_u32, 0..1_048_576_u32)
            .prop_map(|(major, minor)| NodeKind::CharDevice { major, minor }),
        Just(NodeKind::Fifo),
    ]
}

/// Names of any bytes that a name may have, some longer than a header's field.
fn any_path() -> impl Strategy<Value = TreePath> {
    let name = prop_oneof![
        "[a-c]{1,2}".prop_map(String::into_bytes),
        proptest::collection::vec(1..=255_u8, 1..120),
    ];
    proptest::collection::vec(name, 1..4).prop_filter_map("a path of its own", |names| {
        let path = TreePath::parse(&names.join(&b'/')).ok()?;
        let is_plain = path.components().all(|name| !name.starts_with(b".wh."));
        (is_plain && !path.is_root()).then_some(path)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_delta_survives_the_way_through_a_tar(
        entries in proptest::collection::vec((any_path(), any_kind(), any_metadata()), 0..20),
    ) {
        let mut delta = TreeDelta::new();
        for (path, kind, meta) in entries {
            // What does not fit, or would replace something, is another delta.
            if delta.tree.get(&path).is_none() {
                let _ = delta.put(path, node(kind, meta));
            }
        }
        let folder = tempfile::tempdir().expect("folder");
        let place = folder.path().join("a.tar");
        write(&delta, &place);
        prop_assert_eq!(facts(&read(&place)), facts(&delta));
    }

    #[test]
    fn damage_is_an_error_or_another_delta_and_never_a_panic(
        at in 0..6000_usize,
        byte in any::<u8>(),
    ) {
        let folder = tempfile::tempdir().expect("folder");
        let place = folder.path().join("a.tar");
        write(&one_of_each(), &place);
        let mut bytes = std::fs::read(&place).expect("read");
        bytes[at] ^= byte;
        std::fs::write(&place, bytes).expect("write");
        let _ = read_delta(&Blob::open(&place).expect("open"));
    }
}
