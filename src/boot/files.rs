//! Files that consign itself makes.

use crate::tree::{Content, FileTree, Node, TreePath};
use crate::units::Timestamp;

/// A path of ours.
pub(super) fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).expect("a relative path without dots")
}

/// A text file, root's, readable by all.
pub(super) fn text_file(text: impl Into<String>, time: Timestamp) -> Node {
    let mut node = Node::file(0o644, Content::from_bytes(text.into().into_bytes()));
    node.meta.mtime = time;
    node
}

/// A symbolic link.
pub(super) fn symlink(target: &str, time: Timestamp) -> Node {
    let mut node = Node::symlink(target);
    node.meta.mtime = time;
    node
}

/// A directory, root's.
pub(super) fn directory(mode: u16, time: Timestamp) -> Node {
    let mut node = Node::directory(mode);
    node.meta.mtime = time;
    node
}

/// Gives every node that has no time (the epoch) the time `time`, and lowers
/// later ones to it.
pub(super) fn stamp(tree: &mut FileTree, time: Timestamp) {
    let paths: Vec<TreePath> = tree
        .iter()
        .filter(|(_, _, node)| node.meta.mtime == Timestamp::default())
        .map(|(path, _, _)| path.clone())
        .collect();
    for path in paths {
        if let Some(node) = tree.get_mut(&path) {
            node.meta.mtime = time;
        }
    }
    tree.clamp_times(time);
}
