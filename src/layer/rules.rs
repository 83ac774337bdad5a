//! Owners, modes and xattrs by pattern, as `[[rule]]` of `layer.toml` has them.

use super::spec::FileRule;
use crate::tree::{Metadata, NodeKind, TreeDelta, TreePath};

/// Extended attributes that belong to an image. Others are the labels of the
/// host's security modules, or the books of its file systems.
const XATTRS: [&[u8]; 3] = [
    b"security.capability",
    b"system.posix_acl_access",
    b"system.posix_acl_default",
];
/// Attributes that programs set for themselves.
const XATTR_USER: &[u8] = b"user.";

/// What a rule can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Directory,
    Symlink,
    /// Files and devices.
    Other,
}

/// Applies every rule that matches `path`, in order.
pub(crate) fn apply(meta: &mut Metadata, shape: Shape, path: &TreePath, rules: &[FileRule]) {
    for rule in rules.iter().filter(|rule| matches(&rule.path, path)) {
        meta.uid = rule.uid.unwrap_or(meta.uid);
        meta.gid = rule.gid.unwrap_or(meta.gid);
        let wished = match shape {
            Shape::Directory => rule.directory_mode,
            Shape::Other => rule.mode,
            Shape::Symlink => None,
        };
        meta.mode = wished.unwrap_or(meta.mode) & 0o7777;
        if shape != Shape::Symlink {
            for (name, value) in &rule.xattrs {
                meta.xattrs.insert(name.clone().into_bytes(), value.clone());
            }
        }
    }
}

/// The same for everything that an archive brought; before that its foreign
/// extended attributes are dropped.
pub(crate) fn apply_to_all(delta: &mut TreeDelta, rules: &[FileRule]) {
    let paths: Vec<TreePath> = delta
        .tree
        .iter()
        .filter(|(path, _, _)| !delta.implied.contains(path))
        .map(|(path, _, _)| path.clone())
        .collect();
    for path in paths {
        let Some(node) = delta.tree.get_mut(&path) else {
            continue;
        };
        node.meta
            .xattrs
            .retain(|name, _| XATTRS.contains(&name.as_slice()) || name.starts_with(XATTR_USER));
        let shape = match &node.kind {
            NodeKind::Directory => Shape::Directory,
            NodeKind::Symlink(_) => Shape::Symlink,
            _ => Shape::Other,
        };
        apply(&mut node.meta, shape, &path, rules);
    }
}

/// Whether the pattern, with its leading `/`, matches the whole path: `*`
/// within a component, `**` across them.
pub(crate) fn matches(pattern: &str, path: &TreePath) -> bool {
    let absolute = [b"/", path.as_bytes()].concat();
    glob(pattern.as_bytes(), &absolute)
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', b'*', rest @ ..] => {
            (0..=text.len()).any(|at| text.get(at..).is_some_and(|text| glob(rest, text)))
        }
        [b'*', rest @ ..] => {
            let end = text
                .iter()
                .position(|byte| *byte == b'/')
                .unwrap_or(text.len());
            (0..=end).any(|at| text.get(at..).is_some_and(|text| glob(rest, text)))
        }
        [first, rest @ ..] => text
            .split_first()
            .is_some_and(|(byte, text)| byte == first && glob(rest, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, Node};

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).expect("a path")
    }

    #[test]
    fn stars_stay_in_their_component() {
        for (pattern, at, expected) in [
            ("/etc/*", "etc/a", true),
            ("/etc/*", "etc/a/b", false),
            ("/etc/**", "etc/a/b", true),
            ("/**/b", "etc/a/b", true),
            ("/etc/a", "etc/a", true),
            ("/etc/a", "etc/ab", false),
        ] {
            assert_eq!(matches(pattern, &path(at)), expected, "{pattern} {at}");
        }
    }

    #[test]
    fn an_archive_keeps_capabilities_and_loses_labels() {
        let mut node = Node::file(0o755, Content::from_bytes(*b"x"));
        for name in ["security.capability", "security.selinux", "user.note"] {
            node.meta.xattrs.insert(name.into(), b"v".to_vec());
        }
        node.meta.uid = 1000;
        let mut delta = TreeDelta::new();
        delta.put(path("bin/ping"), node).expect("put");
        let rule = FileRule {
            path: "/**".into(),
            uid: Some(0),
            ..FileRule::default()
        };
        apply_to_all(&mut delta, &[rule]);
        let meta = &delta.tree.at("bin/ping").expect("there").meta;
        let names: Vec<_> = meta.xattrs.keys().map(Vec::as_slice).collect();
        assert_eq!(names, [&b"security.capability"[..], b"user.note"]);
        assert_eq!(meta.uid, 0);
    }
}
