//! A layer laid over a root in the making.
//!
//! Folders and whatever is small come first and in order; the files, which
//! are the work, go into their places on all cores, since none needs another.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::fault::Fault;
use super::root::Root;
use crate::tree::{Content, Metadata, NodeId, NodeKind, TreeDelta, TreePath};

/// Files that a thread takes at once: mostly of one folder.
const BATCH: usize = 64;

/// A file's place, bytes and owner.
type PlainFile<'a> = (&'a TreePath, &'a Content, &'a Metadata);

/// Lays a layer over the root, as [`FileTree::apply`] does in memory.
pub(super) fn lay(root: &mut Root, delta: &TreeDelta) -> Result<(), Fault> {
    for path in &delta.opaque {
        root.remove_inside(path)?;
    }
    for path in &delta.removed {
        root.remove(path)?;
    }
    root.forget();
    let mut first_names: BTreeMap<NodeId, &TreePath> = BTreeMap::new();
    let mut links: Vec<(&TreePath, &TreePath)> = Vec::new();
    let mut files: Vec<PlainFile<'_>> = Vec::new();
    for (path, id, node) in delta.tree.iter() {
        if delta.implied.contains(path) {
            if !root.is_directory(path) {
                root.remove(path)?;
                root.make_directories(path)?;
            }
            continue;
        }
        if node.is_directory() {
            lay_directory(root, path, &node.meta)?;
            continue;
        }
        if root.has_real_directory(path)? {
            root.remove(path)?;
        }
        if let Some(first) = first_names.get(&id) {
            links.push((path, first));
            continue;
        }
        first_names.insert(id, path);
        match &node.kind {
            NodeKind::File(content) => files.push((path, content, &node.meta)),
            NodeKind::Symlink(target) => root.place_symlink(path, target, &node.meta)?,
            kind => root.place_special(path, kind, &node.meta)?,
        }
    }
    place_all(root, &files)?;
    for (path, target) in links.into_iter().chain(&delta.links) {
        root.place_link(path, target)?;
    }
    Ok(())
}

fn lay_directory(root: &mut Root, path: &TreePath, meta: &Metadata) -> Result<(), Fault> {
    if path.is_root() {
        return root.set_metadata(path, meta);
    }
    if root.has_real_directory(path)? {
        return root.set_metadata(path, meta);
    }
    // A link to a directory stays; a whiteout has gone before where it must not.
    if root.is_directory(path) {
        return Ok(());
    }
    root.remove(path)?;
    root.forget();
    root.place_directory(path, meta)
}

/// Writes all of `files`; their folders are there.
fn place_all(root: &Root, files: &[PlainFile<'_>]) -> Result<(), Fault> {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let threads = cores.get().min(files.len().div_ceil(BATCH));
    let next = AtomicUsize::new(0);
    let (folder, driver) = (root.folder(), root.driver());
    let failed = |error: std::io::Error| Fault::system("open", folder.display().to_string(), error);
    let work = || -> Result<(), Fault> {
        let mut root = Root::open(folder, driver).map_err(failed)?;
        loop {
            let from = next.fetch_add(BATCH, Ordering::Relaxed);
            let Some(left) = files.get(from..).filter(|left| !left.is_empty()) else {
                return Ok(());
            };
            for (path, content, meta) in left.iter().take(BATCH) {
                root.place_content(path, content, meta)?;
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        joined.collect::<Result<Vec<()>, Fault>>().map(drop)
    })
}
