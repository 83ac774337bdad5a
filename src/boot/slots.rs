//! Roots that can be replaced, and a `/var` that outlives them.
//!
//! What describes the root travels with it: the dpkg database goes to
//! `/usr/lib/sysimage/dpkg`. What people and services write lives on `/var`:
//! `/home`, `/root` and `/srv` are links there. A pristine copy of `/var`'s
//! folders, links and small files stays with the root, so that a new slot can
//! add what is missing on an old `/var`.

use super::error::BootError;
use super::files::{directory, path, symlink, text_file};
use super::spec::{BootSpec, Slots};
use crate::tree::{FileTree, Node, NodeId, NodeKind, TreePath};
use crate::units::Timestamp;
use std::collections::BTreeMap;

/// Where the dpkg database is.
const DPKG: &str = "usr/lib/sysimage/dpkg";
const DPKG_LINK: &str = "var/lib/dpkg";
/// The pristine copy of `/var`.
const FACTORY: &str = "usr/share/factory/var";
/// Folders that live on `/var`, and the mode they have there when no layer says.
const ON_VAR: [(&str, &str, u16); 3] = [
    ("home", "var/home", 0o755),
    ("root", "var/roothome", 0o700),
    ("srv", "var/srv", 0o755),
];
/// A file on `/var` above this size is data, and not copied to the root.
const SMALL: u64 = 64 << 10;
/// Parts of `/var` whose files any program can make again.
const NOT_COPIED: [&str; 3] = ["var/cache", "var/log", "var/tmp"];

/// Arranges `tree` for its slots and takes `/var` off it where that is a
/// partition of its own.
///
/// # Errors
///
/// [`BootError::Tree`].
pub(super) fn arrange(tree: &mut FileTree, spec: &BootSpec) -> Result<Option<FileTree>, BootError> {
    let time = spec.source_date;
    move_tree(tree, &path(DPKG_LINK), &path(DPKG), 0o755, time)?;
    tree.insert(
        path(DPKG_LINK),
        symlink("../../usr/lib/sysimage/dpkg", time),
    )?;
    tree.insert(path("etc/fstab"), text_file(fstab(&spec.slots), time))?;
    tree.insert(path("boot/efi"), directory(0o755, time))?;
    if let Slots::Single { .. } = spec.slots {
        return Ok(None);
    }
    for (from, to, mode) in ON_VAR {
        move_tree(tree, &path(from), &path(to), mode, time)?;
        tree.insert(path(from), symlink(to, time))?;
    }
    tree.insert(path("var/lib/consign"), directory(0o755, time))?;
    copy_skeleton(tree, time)?;
    let var = tree.split_off(&path("var"));
    // Under the mount, for those who open the root alone: libguestfs and what
    // is built on it look for the package list there.
    tree.insert(path("var/lib"), directory(0o755, time))?;
    tree.insert(
        path(DPKG_LINK),
        symlink("../../usr/lib/sysimage/dpkg", time),
    )?;
    Ok(Some(var))
}

/// Moves `from` and all below it to `to`; makes `to` where `from` is missing.
fn move_tree(
    tree: &mut FileTree,
    from: &TreePath,
    to: &TreePath,
    mode: u16,
    time: Timestamp,
) -> Result<(), BootError> {
    match tree.get(from) {
        Some(node) if node.is_directory() => copy(tree, from, to, |_, _| true)?,
        Some(_) => return Ok(()),
        None => {
            tree.insert(to.clone(), directory(mode, time))?;
        }
    }
    tree.remove(from);
    Ok(())
}

/// Copies what `wanted` says of `from` to `to`; hard links stay together.
fn copy(
    tree: &mut FileTree,
    from: &TreePath,
    to: &TreePath,
    wanted: impl Fn(&TreePath, &Node) -> bool,
) -> Result<(), BootError> {
    let entries: Vec<(TreePath, NodeId, Node)> = tree
        .subtree(from)
        .filter(|(entry, _, node)| wanted(entry, node))
        .map(|(entry, id, node)| (entry.clone(), id, node.clone()))
        .collect();
    let mut first: BTreeMap<NodeId, TreePath> = BTreeMap::new();
    for (entry, id, node) in entries {
        let inner = entry.strip_prefix(from).expect("an entry of the subtree");
        let target = inner
            .components()
            .fold(to.clone(), |at, name| at.join(name).expect("a component"));
        if let Some(same) = first.get(&id) {
            tree.link(target, same)?;
        } else {
            tree.insert(target.clone(), node)?;
            first.insert(id, target);
        }
    }
    Ok(())
}

fn copy_skeleton(tree: &mut FileTree, time: Timestamp) -> Result<(), BootError> {
    tree.insert(path(FACTORY), directory(0o755, time))?;
    let not_copied = NOT_COPIED.map(path);
    copy(
        tree,
        &path("var"),
        &path(FACTORY),
        |entry, node| match &node.kind {
            NodeKind::Directory | NodeKind::Symlink(_) => true,
            NodeKind::File(content) => {
                content.size() <= SMALL && !not_copied.iter().any(|top| entry.starts_with(top))
            }
            _ => false,
        },
    )
}

/// `/init` has mounted root and `/var` before anybody reads this. The root
/// is not named, since the same tree runs in either slot. Nothing stands here
/// by `UUID=` or `LABEL=`: libguestfs would take the list for a whole one, and
/// not find the root in it.
fn fstab(slots: &Slots) -> String {
    format!(
        "# The root, and /var where it is a partition of its own, are mounted by /init.\n\
         PARTUUID={} /boot/efi vfat noauto,umask=0077 0 0\n",
        slots.esp()
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ab_spec, single_spec};
    use super::*;
    use crate::tree::Content;

    fn sample() -> FileTree {
        let mut tree = FileTree::new();
        for (name, size) in [
            ("root/.profile", 10),
            ("home/admin/x", 10),
            ("var/lib/dpkg/status", 100),
            ("var/lib/app/small", 10),
            ("var/lib/app/large", 100_000),
            ("var/cache/debconf/templates.dat", 10),
        ] {
            let node = Node::file(0o600, Content::from_bytes(vec![7; size]));
            tree.insert(path(name), node).expect("insert");
        }
        tree.get_mut(&path("root")).expect("there").meta.mode = 0o700;
        tree.link(path("var/lib/app/twin"), &path("var/lib/app/small"))
            .expect("link");
        tree
    }

    fn target(tree: &FileTree, name: &str) -> String {
        match &tree.at(name).expect("there").kind {
            NodeKind::Symlink(target) => String::from_utf8_lossy(target).into_owned(),
            other => panic!("{name} is {other:?}"),
        }
    }

    #[test]
    fn what_people_write_is_on_var_and_what_describes_the_root_is_not() {
        let mut root = sample();
        let var = arrange(&mut root, &ab_spec())
            .expect("arranged")
            .expect("a /var");
        assert_eq!(target(&root, "root"), "var/roothome");
        assert_eq!(target(&root, "home"), "var/home");
        assert_eq!(target(&root, "srv"), "var/srv");
        assert_eq!(var.at("roothome").expect("there").meta.mode, 0o700);
        assert!(var.at("roothome/.profile").is_some() && var.at("home/admin/x").is_some());
        assert!(root.at("usr/lib/sysimage/dpkg/status").is_some());
        assert_eq!(target(&var, "lib/dpkg"), "../../usr/lib/sysimage/dpkg");
        assert_eq!(target(&root, "var/lib/dpkg"), "../../usr/lib/sysimage/dpkg");
        assert_eq!(root.subtree(&path("var")).count(), 3);
    }

    #[test]
    fn the_skeleton_has_folders_links_and_small_files() {
        let mut root = sample();
        let _ = arrange(&mut root, &ab_spec()).expect("arranged");
        let at = |name: &str| root.id(&path(&format!("{FACTORY}/{name}")));
        assert!(at("lib/app/small").is_some() && at("roothome/.profile").is_some());
        assert_eq!(at("lib/app/small"), at("lib/app/twin"));
        assert!(at("lib/app/large").is_none());
        assert!(at("cache/debconf").is_some() && at("cache/debconf/templates.dat").is_none());
    }

    #[test]
    fn a_single_root_keeps_its_folders() {
        let mut root = sample();
        assert!(
            arrange(&mut root, &single_spec())
                .expect("arranged")
                .is_none()
        );
        assert!(root.at("root/.profile").is_some() && root.at("var/lib/app/large").is_some());
        assert!(root.at("usr/lib/sysimage/dpkg/status").is_some());
        assert_eq!(target(&root, "var/lib/dpkg"), "../../usr/lib/sysimage/dpkg");
    }

    #[test]
    fn fstab_names_neither_slot() {
        let text = fstab(&ab_spec().slots);
        assert!(!text.contains("00000000000a") && text.contains("/boot/efi vfat noauto"));
    }
}
