//! What one layer changes, and two such changes as one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{FileTree, Node, NodeId, TreeError, TreePath};

/// What one layer changes: entries, whiteouts and opaque directories.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TreeDelta {
    /// Entries to put in place; hard links among them share a node.
    pub tree: FileTree,
    /// Directories of `tree` that the layer did not name itself, only paths
    /// below them: they are made where missing and left alone where present.
    pub implied: BTreeSet<TreePath>,
    /// Whiteouts: lower entries to remove, with all below them.
    pub removed: BTreeSet<TreePath>,
    /// Directories whose lower entries are hidden.
    pub opaque: BTreeSet<TreePath>,
    /// Hard links whose target is in a lower layer.
    pub links: BTreeMap<TreePath, TreePath>,
}

impl fmt::Debug for TreeDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeDelta")
            .field("entries", &self.tree.len())
            .field("removed", &self.removed.len())
            .field("opaque", &self.opaque.len())
            .field("links", &self.links.len())
            .finish_non_exhaustive()
    }
}

impl TreeDelta {
    /// A delta that changes nothing. Its root counts as implied.
    #[must_use]
    pub fn new() -> Self {
        Self {
            implied: BTreeSet::from([TreePath::root()]),
            ..Self::default()
        }
    }

    /// Adds an entry that the layer names; its parents become implied where
    /// the layer has not named them (yet).
    ///
    /// # Errors
    ///
    /// [`TreeError::NotADirectory`].
    pub fn put(&mut self, path: TreePath, node: Node) -> Result<NodeId, TreeError> {
        self.imply_parents(&path);
        self.implied.remove(&path);
        if path.is_root() {
            self.tree.nodes[0] = node;
            return Ok(NodeId(0));
        }
        self.tree.insert(path, node)
    }

    /// Adds another name of a file that the layer names already.
    ///
    /// # Errors
    ///
    /// [`TreeError`] when `target` is missing or a directory, or a parent is
    /// not a directory.
    pub fn put_link(&mut self, path: TreePath, target: &TreePath) -> Result<NodeId, TreeError> {
        self.imply_parents(&path);
        self.tree.link(path, target)
    }

    /// Makes this change and then `upper` one change. What `upper` hides goes
    /// from here, and stays hidden in the trees below.
    ///
    /// # Errors
    ///
    /// [`TreeError`] when an entry of `upper` does not fit.
    pub fn stack(&mut self, upper: &Self) -> Result<(), TreeError> {
        for path in &upper.opaque {
            let path = self.tree.resolve(path)?;
            self.tree.remove_below(&path);
            self.links
                .retain(|link, _| link == &path || !link.starts_with(&path));
            self.opaque.insert(path);
        }
        for path in &upper.removed {
            let path = self.tree.resolve(path)?;
            self.tree.remove(&path);
            self.links.retain(|link, _| !link.starts_with(&path));
            self.removed.insert(path);
        }
        let mut made: BTreeMap<NodeId, TreePath> = BTreeMap::new();
        for (path, id, node) in upper.tree.iter() {
            let is_implied = upper.implied.contains(path);
            if is_implied && self.tree.is_directory_at(path)? {
                continue;
            }
            if node.is_directory() && self.tree.is_link_to_directory(path)? {
                continue;
            }
            let path = self.tree.resolve(path)?;
            self.links.remove(&path);
            if let Some(first) = made.get(&id) {
                self.put_link(path, first)?;
                continue;
            }
            let is_new = self.tree.get(&path).is_none();
            self.put(path.clone(), node.clone())?;
            if is_implied && is_new {
                self.implied.insert(path.clone());
            }
            if !node.is_directory() {
                self.links.retain(|link, _| !link.starts_with(&path));
                made.insert(id, path);
            }
        }
        for (path, target) in &upper.links {
            let (path, target) = (self.tree.resolve(path)?, self.tree.resolve(target)?);
            if self.tree.get(&target).is_some() {
                self.put_link(path, &target)?;
            } else {
                let target = self.links.get(&target).cloned().unwrap_or(target);
                self.tree.remove(&path);
                self.links.insert(path, target);
            }
        }
        Ok(())
    }

    fn imply_parents(&mut self, path: &TreePath) {
        let mut at = path.parent();
        // Where a path is in the tree, all above it is.
        while let Some(parent) = at.filter(|parent| self.tree.get(parent).is_none()) {
            at = parent.parent();
            self.implied.insert(parent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{file, merged_usr, path};
    use super::*;

    #[test]
    fn a_directory_keeps_the_link_to_one_unless_a_whiteout_hides_it() {
        let mut delta = TreeDelta::new();
        delta.put(path("bin"), Node::directory(0o700)).expect("put");
        delta.put(path("bin/x"), file(b"x")).expect("put");
        let mut tree = merged_usr();
        tree.apply(&delta).expect("apply");
        assert!(tree.at("usr/bin/x").is_some());
        delta.removed.insert(path("bin"));
        let mut tree = merged_usr();
        tree.apply(&delta).expect("apply");
        assert!(tree.at("usr/bin/x").is_none() && tree.at("bin/x").is_some());
    }

    #[test]
    fn whiteouts_and_opaque_directories_hide_lower_entries() {
        let mut tree = FileTree::new();
        for name in ["d/one", "d/two", "e/three"] {
            tree.insert(path(name), file(b"x")).expect("insert");
        }
        let mut delta = TreeDelta::new();
        delta.removed.insert(path("d/one"));
        delta.opaque.insert(path("e"));
        delta.put(path("e/four"), file(b"y")).expect("put");
        tree.apply(&delta).expect("apply");
        assert!(tree.at("d/one").is_none() && tree.at("d/two").is_some());
        assert!(tree.at("e/three").is_none() && tree.at("e/four").is_some());
    }

    #[test]
    fn stacked_changes_do_what_they_did_one_after_the_other() {
        let mut base = merged_usr();
        for name in ["etc/low", "opt/old/a", "opt/old/b", "srv/x"] {
            base.insert(path(name), file(b"base")).expect("insert");
        }
        let mut first = TreeDelta::new();
        for name in ["bin/tool", "etc/one", "etc/two", "var/lib/x"] {
            first.put(path(name), file(b"first")).expect("put");
        }
        first.removed.insert(path("srv/x"));
        first.links.insert(path("etc/again"), path("etc/low"));
        let mut second = TreeDelta::new();
        second.removed.insert(path("etc/one"));
        second.opaque.insert(path("opt/old"));
        second.put(path("opt/old/c"), file(b"second")).expect("put");
        second
            .put(path("var/lib"), file(b"a file now"))
            .expect("put");
        second.links.insert(path("etc/three"), path("etc/two"));
        second.put(path("srv/x"), file(b"back")).expect("put");

        let mut apart = base.clone();
        apart.apply(&first).expect("apply");
        apart.apply(&second).expect("apply");
        let mut both = first.clone();
        both.stack(&second).expect("stack");
        base.apply(&both).expect("apply");
        let listing = |tree: &FileTree| -> Vec<(String, Node)> {
            let entries = tree.iter();
            entries
                .map(|(path, _, node)| (path.to_string(), node.clone()))
                .collect()
        };
        assert_eq!(listing(&base), listing(&apart));
    }

    #[test]
    fn implied_parents_leave_existing_directories_alone() {
        let mut tree = FileTree::new();
        tree.insert(path("root"), Node::directory(0o700))
            .expect("insert");
        let mut delta = TreeDelta::new();
        delta.put(path("root/.profile"), file(b"x")).expect("put");
        tree.apply(&delta).expect("apply");
        assert_eq!(tree.at("root").expect("there").meta.mode, 0o700);
    }
}
