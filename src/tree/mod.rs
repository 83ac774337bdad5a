//! File trees in memory: what an image holds, with owners, modes, xattrs and
//! times that the host never had to have.
//!
//! In: layers as [`TreeDelta`]s. Out: a [`FileTree`], the truth for every
//! later step. Content stays where it is stored until a writer asks for it.
//! Never here: extraction to the host, choices. Checked by: unit tests here,
//! and every format test that reads a tree back.

mod content;
pub(crate) mod cpio;
mod delta;
mod host;
mod node;
mod path;

use std::collections::BTreeMap;

pub use content::{Blob, Content};
pub use delta::TreeDelta;
pub use host::{HostEntry, list_folder};
pub use node::{Metadata, Node, NodeKind};
pub use path::{Escaped, PathError, TreePath};

use crate::units::Timestamp;

/// Symbolic links followed in one path before it counts as a loop, as in Linux.
const MAX_LINKS: usize = 40;

/// Names a node of one [`FileTree`]; paths with the same id are hard links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

/// Why a change does not fit a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A parent is a file or a device.
    #[error("`{path}` lies below `{parent}`, which is not a directory")]
    NotADirectory {
        /// What was to be added.
        path: TreePath,
        /// What is in the way.
        parent: TreePath,
    },
    /// Symbolic links lead in a circle.
    #[error("the way to `{path}` passes too many symbolic links")]
    LinkLoop {
        /// What was to be added.
        path: TreePath,
    },
    /// A hard link to nothing, or to a directory.
    #[error("hard link `{path}` points at `{target}`, which is not a file in the tree")]
    DanglingLink {
        /// The link.
        path: TreePath,
        /// Its target.
        target: TreePath,
    },
}

/// A whole tree. The root directory (the empty path) is always there, and so
/// is every parent of every path.
///
/// Paths are in component order: a directory comes before its entries, and
/// its whole subtree before its next sibling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTree {
    entries: BTreeMap<TreePath, NodeId>,
    nodes: Vec<Node>,
}

impl Default for FileTree {
    fn default() -> Self {
        Self::new()
    }
}

impl FileTree {
    /// A tree with an empty root directory, mode 0755.
    #[must_use]
    pub fn new() -> Self {
        Self {
            entries: BTreeMap::from([(TreePath::root(), NodeId(0))]),
            nodes: vec![Node::directory(0o755)],
        }
    }

    /// Number of paths, the root included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing but the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.len() == 1
    }

    /// The node at exactly `path`; symbolic links are not followed.
    #[must_use]
    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.entries.get(path).map(|id| self.node(*id))
    }

    /// The node at a path written as text, such as `etc/fstab`, not following links.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&Node> {
        self.get(&TreePath::parse(path.as_bytes()).ok()?)
    }

    /// The id of the node at exactly `path`.
    #[must_use]
    pub fn id(&self, path: &TreePath) -> Option<NodeId> {
        self.entries.get(path).copied()
    }

    /// The node that `id` names. Ids of another tree are a bug.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The node at exactly `path`, to change; hard links see the change too.
    pub fn get_mut(&mut self, path: &TreePath) -> Option<&mut Node> {
        let id = self.id(path)?;
        Some(&mut self.nodes[id.0])
    }

    /// Every path with its node, in component order, the root first.
    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, NodeId, &Node)> {
        self.entries
            .iter()
            .map(|(path, id)| (path, *id, self.node(*id)))
    }

    /// `path` itself and everything below it, in component order.
    pub fn subtree<'a>(
        &'a self,
        path: &'a TreePath,
    ) -> impl Iterator<Item = (&'a TreePath, NodeId, &'a Node)> {
        self.entries
            .range(path.clone()..)
            .take_while(move |(entry, _)| entry.starts_with(path))
            .map(|(path, id)| (path, *id, self.node(*id)))
    }

    /// Puts `node` at `path`, replacing what is there; parents that are
    /// missing are made (root, 0755). A directory that replaces a directory
    /// keeps its entries; anything else that replaces a directory removes them.
    ///
    /// The parents are taken as they stand: see [`resolve`](Self::resolve).
    ///
    /// # Errors
    ///
    /// [`TreeError::NotADirectory`] when a parent is something else.
    pub fn insert(&mut self, path: TreePath, node: Node) -> Result<NodeId, TreeError> {
        self.make_parents(&path)?;
        if !node.is_directory() {
            self.remove_below(&path);
        }
        let id = NodeId(self.nodes.len());
        self.nodes.push(node);
        self.entries.insert(path, id);
        Ok(id)
    }

    /// Makes `path` another name of the file `target`.
    ///
    /// # Errors
    ///
    /// [`TreeError::DanglingLink`] when `target` is missing or a directory.
    pub fn link(&mut self, path: TreePath, target: &TreePath) -> Result<NodeId, TreeError> {
        let dangling = || TreeError::DanglingLink {
            path: path.clone(),
            target: target.clone(),
        };
        let id = self.id(target).ok_or_else(dangling)?;
        if self.node(id).is_directory() {
            return Err(dangling());
        }
        self.make_parents(&path)?;
        self.remove_below(&path);
        self.entries.insert(path, id);
        Ok(id)
    }

    /// Removes `path` and everything below it; says whether it was there.
    /// The root itself stays, empty.
    pub fn remove(&mut self, path: &TreePath) -> bool {
        self.remove_below(path);
        !path.is_root() && self.entries.remove(path).is_some()
    }

    /// Where `path` leads when the symbolic links among its **parents** are
    /// followed inside the tree: `bin/ls` is `usr/bin/ls` where `bin` is a
    /// link to `usr/bin`. The last component is not followed. Links that lead
    /// above the root end at the root, as in a chroot.
    ///
    /// # Errors
    ///
    /// [`TreeError::LinkLoop`] after 40 links.
    pub fn resolve(&self, path: &TreePath) -> Result<TreePath, TreeError> {
        // Above a directory of the tree there are none but directories.
        let parent = path.parent().and_then(|parent| self.get(&parent));
        if parent.is_some_and(Node::is_directory) {
            return Ok(path.clone());
        }
        let mut rest: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
        let mut at = TreePath::root();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    at = at.parent().unwrap_or_else(TreePath::root);
                    continue;
                }
                _ => {}
            }
            let next = at
                .join(&name)
                .expect("a component without slash, dot and NUL");
            let target = match self.get(&next).map(|node| &node.kind) {
                Some(NodeKind::Symlink(target)) if !rest.is_empty() => target,
                _ => {
                    at = next;
                    continue;
                }
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(TreeError::LinkLoop { path: path.clone() });
            }
            if target.starts_with(b"/") {
                at = TreePath::root();
            }
            rest.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
        }
        Ok(at)
    }

    /// The file that `path` finally names, following every link inside the tree.
    ///
    /// # Errors
    ///
    /// [`TreeError::LinkLoop`] after 40 links.
    pub fn lookup(&self, path: &TreePath) -> Result<Option<(TreePath, &Node)>, TreeError> {
        let mut at = self.resolve(path)?;
        for _ in 0..MAX_LINKS {
            let Some(node) = self.get(&at) else {
                return Ok(None);
            };
            let NodeKind::Symlink(target) = &node.kind else {
                return Ok(Some((at, node)));
            };
            let base = if target.starts_with(b"/") {
                None
            } else {
                at.parent()
            };
            // The trailing link is followed by making it a parent of ".".
            let mut text = base
                .map(|base| base.as_bytes().to_vec())
                .unwrap_or_default();
            text.push(b'/');
            text.extend_from_slice(target);
            at = self.resolve(&TreePath::normalize_lossy(&text, self)?)?;
        }
        Err(TreeError::LinkLoop { path: path.clone() })
    }

    /// Lays `delta` over the tree, as the OCI image specification says:
    /// opaque directories lose their lower entries, whiteouts are removed,
    /// then the entries are put in place. Parents that are symbolic links in
    /// the tree are followed, and a directory keeps a link to a directory that
    /// stands in its place: `bin/` and `bin/x` leave `/bin` a link to
    /// `usr/bin`. To replace the link, a layer hides it with a whiteout.
    ///
    /// # Errors
    ///
    /// [`TreeError`] when an entry does not fit.
    pub fn apply(&mut self, delta: &TreeDelta) -> Result<(), TreeError> {
        for path in &delta.opaque {
            let path = self.resolve(path)?;
            self.remove_below(&path);
        }
        for path in &delta.removed {
            let path = self.resolve(path)?;
            self.remove(&path);
        }
        let mut made: BTreeMap<NodeId, TreePath> = BTreeMap::new();
        for (path, id, node) in delta.tree.iter() {
            if delta.implied.contains(path) && self.is_directory_at(path)? {
                continue;
            }
            if node.is_directory() && self.is_link_to_directory(path)? {
                continue;
            }
            let path = self.resolve(path)?;
            if let Some(first) = made.get(&id).cloned() {
                self.link(path, &first)?;
            } else if path.is_root() {
                self.nodes[0].meta = node.meta.clone();
            } else {
                self.insert(path.clone(), node.clone())?;
                made.insert(id, path);
            }
        }
        for (path, target) in &delta.links {
            let (path, target) = (self.resolve(path)?, self.resolve(target)?);
            self.link(path, &target)?;
        }
        Ok(())
    }

    /// Takes every path for which `belongs` says so out of this tree, with
    /// `prefix` removed, into a tree of its own. `prefix` itself becomes the
    /// new root and stays here as an empty directory: a mount point.
    #[must_use]
    pub fn split_off(&mut self, prefix: &TreePath) -> Self {
        let mut taken = Self::new();
        let mut ids: BTreeMap<NodeId, NodeId> = BTreeMap::new();
        let below: Vec<TreePath> = self
            .subtree(prefix)
            .map(|(path, _, _)| path.clone())
            .collect();
        for path in below {
            let id = self.id(&path).expect("listed above");
            let inner = path.strip_prefix(prefix).expect("a path of the subtree");
            if inner.is_root() {
                taken.nodes[0] = self.node(id).clone();
                continue;
            }
            let new = *ids.entry(id).or_insert_with(|| {
                taken.nodes.push(self.nodes[id.0].clone());
                NodeId(taken.nodes.len() - 1)
            });
            taken.entries.insert(inner, new);
            self.entries.remove(&path);
        }
        taken
    }

    /// Lowers every time above `limit` to `limit`, so that the time of the
    /// build does not show.
    pub fn clamp_times(&mut self, limit: Timestamp) {
        for node in &mut self.nodes {
            node.meta.mtime = node.meta.mtime.min(limit);
        }
    }

    /// How many paths name the node (of a directory: 1).
    #[must_use]
    pub fn link_counts(&self) -> BTreeMap<NodeId, u32> {
        let mut counts = BTreeMap::new();
        for id in self.entries.values() {
            *counts.entry(*id).or_insert(0) += 1;
        }
        counts
    }

    fn is_directory_at(&self, path: &TreePath) -> Result<bool, TreeError> {
        Ok(self
            .lookup(path)?
            .is_some_and(|(_, node)| node.is_directory()))
    }

    fn is_link_to_directory(&self, path: &TreePath) -> Result<bool, TreeError> {
        let node = self.get(&self.resolve(path)?);
        let is_link = node.is_some_and(|node| matches!(node.kind, NodeKind::Symlink(_)));
        Ok(is_link && self.is_directory_at(path)?)
    }

    fn make_parents(&mut self, path: &TreePath) -> Result<(), TreeError> {
        let mut missing = Vec::new();
        let mut at = path.parent();
        while let Some(parent) = at {
            match self.get(&parent) {
                Some(node) if node.is_directory() => break,
                Some(_) => {
                    return Err(TreeError::NotADirectory {
                        path: path.clone(),
                        parent,
                    });
                }
                None => missing.push(parent.clone()),
            }
            at = parent.parent();
        }
        for parent in missing {
            self.nodes.push(Node::directory(0o755));
            self.entries.insert(parent, NodeId(self.nodes.len() - 1));
        }
        Ok(())
    }

    fn remove_below(&mut self, path: &TreePath) {
        let below: Vec<TreePath> = self
            .subtree(path)
            .map(|(entry, _, _)| entry.clone())
            .filter(|entry| entry != path)
            .collect();
        for entry in below {
            self.entries.remove(&entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).expect("a good path")
    }

    pub(super) fn file(bytes: &[u8]) -> Node {
        Node::file(0o644, Content::from_bytes(bytes))
    }

    pub(super) fn merged_usr() -> FileTree {
        let mut tree = FileTree::new();
        tree.insert(path("usr/bin"), Node::directory(0o755))
            .expect("insert");
        tree.insert(path("bin"), Node::symlink("usr/bin"))
            .expect("insert");
        tree
    }

    #[test]
    fn paths_below_a_link_land_where_it_points() {
        let mut tree = merged_usr();
        let mut delta = TreeDelta::new();
        delta.put(path("bin/ls"), file(b"ls")).expect("put");
        tree.apply(&delta).expect("apply");
        assert!(matches!(
            tree.at("bin").expect("there").kind,
            NodeKind::Symlink(_)
        ));
        assert!(tree.at("usr/bin/ls").is_some());
        let (found, _) = tree
            .lookup(&path("bin/ls"))
            .expect("no loop")
            .expect("there");
        assert_eq!(found, path("usr/bin/ls"));
    }

    #[test]
    fn a_link_cannot_leave_the_root() {
        let mut tree = FileTree::new();
        tree.insert(path("a/b"), Node::symlink("../../../../etc"))
            .expect("insert");
        assert_eq!(
            tree.resolve(&path("a/b/passwd")).expect("resolve"),
            path("etc/passwd")
        );
    }

    #[test]
    fn a_link_loop_is_an_error() {
        let mut tree = FileTree::new();
        tree.insert(path("a"), Node::symlink("b")).expect("insert");
        tree.insert(path("b"), Node::symlink("a")).expect("insert");
        assert!(matches!(
            tree.resolve(&path("a/x")),
            Err(TreeError::LinkLoop { .. })
        ));
        assert!(matches!(
            tree.lookup(&path("a")),
            Err(TreeError::LinkLoop { .. })
        ));
    }

    #[test]
    fn hard_links_survive_apply_and_split() {
        let mut delta = TreeDelta::new();
        delta.put(path("var/a"), file(b"x")).expect("put");
        delta
            .tree
            .link(path("var/b"), &path("var/a"))
            .expect("link");
        let mut tree = FileTree::new();
        tree.apply(&delta).expect("apply");
        assert_eq!(tree.id(&path("var/a")), tree.id(&path("var/b")));
        let var = tree.split_off(&path("var"));
        assert_eq!(var.id(&path("a")), var.id(&path("b")));
        assert!(tree.at("var").expect("mount point").is_directory());
        assert!(tree.at("var/a").is_none());
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let mut tree = FileTree::new();
        tree.insert(path("a"), file(b"x")).expect("insert");
        let error = tree
            .insert(path("a/b"), file(b"y"))
            .expect_err("not a directory");
        assert_eq!(
            error.to_string(),
            "`a/b` lies below `a`, which is not a directory"
        );
    }

    #[test]
    fn a_subtree_is_contiguous_in_component_order() {
        let mut tree = FileTree::new();
        for name in ["a/x", "a-b", "a.c", "ab"] {
            tree.insert(path(name), file(b"")).expect("insert");
        }
        let order: Vec<String> = tree.iter().map(|(path, _, _)| path.to_string()).collect();
        assert_eq!(order, ["", "a", "a/x", "a-b", "a.c", "ab"]);
        assert_eq!(tree.subtree(&path("a")).count(), 2);
    }
}
