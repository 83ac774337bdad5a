//! Trees to write: one with everything, and random ones.

use std::collections::BTreeMap;

use consign::tree::{Content, FileTree, Metadata, Node, NodeKind, TreePath};
use consign::units::{GIB, Timestamp};
use proptest::prelude::*;

/// 2023-11-14 22:13:20 UTC.
pub(super) const DATE: Timestamp = Timestamp::from_seconds(1_700_000_000);

pub(super) fn path(text: impl AsRef<[u8]>) -> TreePath {
    TreePath::parse(text.as_ref()).expect("a path")
}

pub(super) fn file(bytes: impl Into<Vec<u8>>) -> Node {
    let mut node = Node::file(0o644, Content::from_bytes(bytes.into()));
    node.meta.mtime = DATE;
    node
}

pub(super) fn put(tree: &mut FileTree, at: impl AsRef<[u8]>, node: Node) {
    tree.insert(path(at), node).expect("insert");
}

/// Bytes that are not zero and differ from block to block.
pub(super) fn pattern(length: usize, seed: u32) -> Vec<u8> {
    (0..u32::try_from(length).expect("short"))
        .map(|at| {
            at.wrapping_mul(2_654_435_761)
                .wrapping_add(seed)
                .to_le_bytes()[2]
                .max(1)
        })
        .collect()
}

/// An access control list in the kernel's form: owner, user 1000, group,
/// group 70000, mask, others.
pub(super) fn acl() -> Vec<u8> {
    let nobody = u32::MAX;
    let entries: [(u16, u16, u32); 6] = [
        (0x01, 7, nobody),
        (0x02, 6, 1000),
        (0x04, 5, nobody),
        (0x08, 4, 70_000),
        (0x10, 7, nobody),
        (0x20, 4, nobody),
    ];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// `cap_net_bind_service=ep`, version 2 of the capability attribute.
pub(super) fn capability() -> Vec<u8> {
    let mut bytes = 0x0200_0001_u32.to_le_bytes().to_vec();
    bytes.extend((1_u32 << 10).to_le_bytes());
    bytes.resize(20, 0);
    bytes
}

/// A tree with everything that ext4 can hold, and `names` names in one directory.
pub(super) fn torture(names: u32) -> FileTree {
    let mut tree = FileTree::new();
    if let Some(root) = tree.get_mut(&TreePath::root()) {
        root.meta.mtime = DATE;
    }
    for (name, length) in [
        ("empty", 0),
        ("one", 1),
        ("block", 4096),
        ("over", 4097),
        ("large", 9 << 20),
    ] {
        put(&mut tree, format!("files/{name}"), file(pattern(length, 7)));
    }
    add_kinds(&mut tree);
    add_links(&mut tree);
    add_names(&mut tree, names);
    add_metadata(&mut tree);
    add_xattrs(&mut tree);
    add_holes(&mut tree);
    tree
}

fn add_kinds(tree: &mut FileTree) {
    let plain = |kind| Node {
        meta: Metadata::root_owned(0o640),
        kind,
    };
    for (name, major, minor) in [
        ("null", 1, 3),
        ("old", 255, 255),
        ("minor", 8, 256),
        ("new", 4095, 1_048_575),
    ] {
        let (chars, blocks) = (format!("dev/c-{name}"), format!("dev/b-{name}"));
        put(tree, chars, plain(NodeKind::CharDevice { major, minor }));
        put(tree, blocks, plain(NodeKind::BlockDevice { major, minor }));
    }
    put(tree, "dev/fifo", plain(NodeKind::Fifo));
    put(tree, "dev/socket", plain(NodeKind::Socket));
}

fn add_links(tree: &mut FileTree) {
    for length in [1, 59, 60, 255, 4095] {
        // Components of 100 bytes: ext4-view refuses those of more than 255.
        let target: Vec<u8> = (1..=length)
            .map(|at| if at % 100 == 0 { b'/' } else { b't' })
            .collect();
        put(tree, format!("links/{length}"), Node::symlink(target));
    }
    put(tree, "links/bytes", Node::symlink(b"\xff\xfe/\n".to_vec()));
    put(tree, "links/first", file(*b"many names"));
    for number in 0..40 {
        let name = path(format!("links/hard-{number}"));
        tree.link(name, &path("links/first")).expect("link");
    }
    tree.link(path("aaa"), &path("links/first")).expect("link");
    tree.link(path("links/soft"), &path("links/60"))
        .expect("link");
}

fn add_names(tree: &mut FileTree, names: u32) {
    for name in [
        "names/ leading and trailing ".as_bytes(),
        b"names/new\nline",
        b"names/\xff\xfe not text",
        "names/Größe, 大きさ".as_bytes(),
        &[b"names/".as_slice(), &[b'n'; 255]].concat(),
        b"names/-rf",
    ] {
        put(tree, name, file(*b"x"));
    }
    for number in 0..names {
        let name = format!("large/entry number {number}");
        put(tree, name, file(number.to_le_bytes()));
    }
    // 330 names of 255 bytes: more than 4 KiB, fewer than 507 leaves.
    for number in 0..330 {
        let name = format!("large/subdirectory/{number:0>255}");
        put(tree, name, Node::directory(0o711));
    }
    let deep = vec!["deep"; 60].join("/");
    put(tree, deep, file(*b"deep"));
}

fn add_metadata(tree: &mut FileTree) {
    for (number, mode) in [0o0, 0o777, 0o4755, 0o2755, 0o1777, 0o7777]
        .into_iter()
        .enumerate()
    {
        let mut node = file(*b"mode");
        node.meta.mode = mode;
        put(tree, format!("meta/mode-{number}"), node);
        put(tree, format!("meta/dir-{number}"), Node::directory(mode));
    }
    for (number, id) in [0, 65_535, 65_536, 4_000_000_000].into_iter().enumerate() {
        let mut node = file(*b"owner");
        (node.meta.uid, node.meta.gid) = (id, id ^ 1);
        put(tree, format!("meta/owner-{number}"), node);
    }
    for seconds in [-0x8000_0000, -1, 0, 0x7fff_ffff, 0x8000_0000, 0x2_7fff_ffff] {
        let mut node = file(*b"time");
        node.meta.mtime = Timestamp {
            seconds,
            nanos: 999_999_999,
        };
        put(tree, format!("meta/time{seconds}"), node);
    }
}

type Attribute = (&'static str, Vec<u8>);

fn add_xattrs(tree: &mut FileTree) {
    let sets: [(&str, &[Attribute]); 7] = [
        ("inode", &[("user.small", b"in the inode".to_vec())]),
        ("empty", &[("user.empty", Vec::new())]),
        ("capability", &[("security.capability", capability())]),
        ("block", &[("user.big", pattern(3000, 1))]),
        ("same-block", &[("user.big", pattern(3000, 1))]),
        (
            "both",
            &[
                ("user.a", b"1".to_vec()),
                ("user.bb", pattern(900, 2)),
                ("user.ccc", pattern(901, 3)),
                ("trusted.overlay.opaque", b"y".to_vec()),
                ("user.\u{e4}\u{f6}", pattern(300, 4)),
            ],
        ),
        ("acl", &[("system.posix_acl_access", acl())]),
    ];
    for (name, xattrs) in sets {
        let mut node = file(*b"attributes");
        // The group bits of a file with a list are its mask.
        node.meta.mode = 0o774;
        node.meta.xattrs = named(xattrs);
        put(tree, format!("xattr/{name}"), node);
    }
    let mut directory = Node::directory(0o775);
    directory.meta.xattrs = named(&[
        ("system.posix_acl_default", acl()),
        ("user.directory", pattern(200, 5)),
    ]);
    put(tree, "xattr/directory", directory);
}

fn named(xattrs: &[Attribute]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    xattrs
        .iter()
        .map(|(name, value)| (name.as_bytes().to_vec(), value.clone()))
        .collect()
}

fn add_holes(tree: &mut FileTree) {
    let data = |length, seed| Content::from_bytes(pattern(length, seed));
    let sparse = |size, parts| {
        let content = Content::sparse(size, parts).expect("parts in order");
        Node::file(0o600, content)
    };
    put(tree, "holes/only", sparse(GIB, Vec::new()));
    let last = (GIB - 5000, data(5000, 9));
    put(
        tree,
        "holes/ends",
        sparse(GIB, vec![(0, data(10, 8)), last]),
    );
    // More than four extents, and more than fit one block of them.
    for count in [5, 1000] {
        let parts = (0..count).map(|at| (at * 16_384 + 100, data(8192, 3)));
        let node = sparse(count * 16_384, parts.collect());
        put(tree, format!("holes/{count}"), node);
    }
}

/// A small random tree: any kind, any metadata, hard links, large directories.
pub(super) fn random() -> impl Strategy<Value = FileTree> {
    let entry = (random_path(), random_node());
    let links = (random_path(), any::<prop::sample::Index>());
    (
        prop::collection::vec(entry, 0..60),
        prop::collection::vec(links, 0..8),
        0_u32..400,
    )
        .prop_map(|(entries, links, crowd)| {
            let mut tree = FileTree::new();
            for (path, node) in entries {
                // A file may be in the way; then there is one entry less.
                let _in_the_way = tree.insert(path, node);
            }
            let paths: Vec<TreePath> = tree.iter().map(|(path, _, _)| path.clone()).collect();
            for (path, target) in links {
                let _not_a_file = tree.link(path, target.get(&paths));
            }
            for number in 0..crowd {
                let name = format!("crowd/a name of some length, {number}");
                put(&mut tree, name, file(number.to_le_bytes()));
            }
            tree
        })
}

fn random_path() -> impl Strategy<Value = TreePath> {
    let name = prop_oneof![
        "[a-d]".prop_map(String::into_bytes),
        prop::collection::vec(1_u8..=255, 1..256),
    ];
    prop::collection::vec(name, 1..5).prop_filter_map("not a path", |names| {
        TreePath::parse(&names.join(&b'/'))
            .ok()
            .filter(|path| !path.is_root())
            .filter(|path| path.components().all(|name| name.len() <= 255))
            .filter(|path| !path.starts_with(&self::path("lost+found")))
    })
}

fn random_node() -> impl Strategy<Value = Node> {
    let kind = prop_oneof![
        3 => Just(NodeKind::Directory),
        4 => (0_usize..20_000, any::<u32>()).prop_map(|(length, seed)| {
            NodeKind::File(Content::from_bytes(pattern(length, seed)))
        }),
        1 => random_holes().prop_map(NodeKind::File),
        2 => prop::collection::vec(1_u8..=255, 1..200).prop_map(NodeKind::Symlink),
        1 => (0_u32..4096, 0_u32..1_048_576)
            .prop_map(|(major, minor)| NodeKind::CharDevice { major, minor }),
        1 => Just(NodeKind::Fifo),
        1 => Just(NodeKind::Socket),
    ];
    let meta = (
        0_u16..0o10000,
        any::<(u32, u32)>(),
        (-0x8000_0000_i64..0x2_8000_0000, 0_u32..1_000_000_000),
        prop::collection::btree_map(
            "user\\.[a-z]{1,20}",
            prop::collection::vec(any::<u8>(), 0..400),
            0..4,
        ),
    );
    (kind, meta).prop_map(|(kind, (mode, (uid, gid), (seconds, nanos), xattrs))| {
        // The kernel keeps user attributes on files and directories only.
        let takes_xattrs = matches!(kind, NodeKind::File(_) | NodeKind::Directory);
        let meta = Metadata {
            // Every link is open to all; 2^32 - 1 means nobody.
            mode: if matches!(kind, NodeKind::Symlink(_)) {
                0o777
            } else {
                mode
            },
            uid: uid.min(u32::MAX - 1),
            gid: gid.min(u32::MAX - 1),
            mtime: Timestamp { seconds, nanos },
            xattrs: xattrs
                .into_iter()
                .filter(|_| takes_xattrs)
                .map(|(name, value)| (name.into_bytes(), value))
                .collect(),
        };
        Node { meta, kind }
    })
}

fn random_holes() -> impl Strategy<Value = Content> {
    let parts = prop::collection::vec((0_u64..40_000, 1_usize..9000), 0..12);
    (parts, 0_u64..40_000).prop_map(|(gaps, tail)| {
        let mut at = 0;
        let mut parts = Vec::new();
        for (gap, length) in gaps {
            at += gap;
            parts.push((at, Content::from_bytes(pattern(length, 1))));
            at += length as u64;
        }
        Content::sparse(at + tail, parts).expect("parts in order")
    })
}
