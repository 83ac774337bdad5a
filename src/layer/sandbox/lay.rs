//! A layer laid over a root in the making.
//!
//! Folders and whatever is small come first and in order; the files, which
//! are the work, go into their places on all cores, since none needs another.
//! That holds for files that no link among their parents leads to: no two
//! paths of a layer name the same place then. Where `bin` is a link to
//! `usr/bin`, `bin/x` and `usr/bin/x` do, and the later one has to win: what
//! is reached by a link comes in its turn, after all before it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::fault::Fault;
use super::root::{BESIDE, Root};
use crate::tree::{Content, Metadata, Node, NodeId, NodeKind, TreeDelta, TreePath};

/// Files that a thread takes at once: mostly of one folder.
const BATCH: usize = 64;

/// A file's place, bytes and owner.
type PlainFile<'a> = (&'a TreePath, &'a Content, &'a Metadata);

/// Lays a layer over the root, as [`FileTree::apply`] does in memory.
///
/// [`FileTree::apply`]: crate::tree::FileTree::apply
pub(super) fn lay(root: &mut Root, delta: &TreeDelta) -> Result<(), Fault> {
    for path in &delta.opaque {
        root.remove_inside(path)?;
    }
    for path in &delta.removed {
        root.remove(path)?;
    }
    root.forget();
    let mut later = Later::default();
    // The folder looked at last, when no link leads to it.
    let mut direct: Option<TreePath> = None;
    for (path, id, node) in delta.tree.iter() {
        let parent = path.parent().unwrap_or_default();
        let is_beside = path.name().is_some_and(|name| name.starts_with(BESIDE));
        let is_direct =
            !is_beside && (direct.as_ref() == Some(&parent) || root.is_direct(&parent)?);
        if is_direct {
            lay_one(root, delta, (path, id, node), &mut later)?;
            direct = Some(parent);
        } else {
            later.place(root)?;
            lay_one(root, delta, (path, id, node), &mut later)?;
            later.place(root)?;
            if let Some(name) = later.first_names.get_mut(&id)
                && **name == *path
            {
                *name = Cow::Owned(root.canonical(name)?);
            }
            // Any folder may be another one now.
            root.forget();
            direct = None;
        }
    }
    later.place(root)?;
    for (path, target) in &delta.links {
        root.place_link(path, target)?;
    }
    Ok(())
}

/// What is placed after whatever has come so far.
#[derive(Default)]
struct Later<'a> {
    files: Vec<PlainFile<'a>>,
    /// Further names of files, and the nodes that they name.
    links: Vec<(&'a TreePath, NodeId)>,
    /// Where the nodes are.
    first_names: BTreeMap<NodeId, Cow<'a, TreePath>>,
}

impl Later<'_> {
    fn place(&mut self, root: &mut Root) -> Result<(), Fault> {
        place_all(root, &self.files)?;
        self.files.clear();
        for (path, id) in self.links.drain(..) {
            if let Some(first) = self.first_names.get(&id) {
                root.place_link(path, first)?;
            }
        }
        Ok(())
    }
}

fn lay_one<'a>(
    root: &mut Root,
    delta: &TreeDelta,
    (path, id, node): (&'a TreePath, NodeId, &'a Node),
    later: &mut Later<'a>,
) -> Result<(), Fault> {
    if delta.implied.contains(path) {
        if !root.is_directory(path) {
            root.remove(path)?;
            root.make_directories(path)?;
        }
        return Ok(());
    }
    if node.is_directory() {
        return lay_directory(root, path, &node.meta);
    }
    if root.has_real_directory(path)? {
        root.remove(path)?;
    }
    if later.first_names.contains_key(&id) {
        later.links.push((path, id));
        return Ok(());
    }
    later.first_names.insert(id, Cow::Borrowed(path));
    match &node.kind {
        NodeKind::File(content) => {
            later.files.push((path, content, &node.meta));
            Ok(())
        }
        NodeKind::Symlink(target) => root.place_symlink(path, target, &node.meta),
        kind => root.place_special(path, kind, &node.meta),
    }
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
fn place_all(root: &mut Root, files: &[PlainFile<'_>]) -> Result<(), Fault> {
    if files.len() <= BATCH {
        return files
            .iter()
            .try_for_each(|(path, content, meta)| root.place_content(path, content, meta));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;

    use crate::layer::Driver;
    use crate::tree::{FileTree, list_folder};

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).expect("a path")
    }

    fn own(mut node: Node) -> Node {
        node.meta.uid = rustix::process::getuid().as_raw();
        node.meta.gid = rustix::process::getgid().as_raw();
        node
    }

    /// A layer of files (`name=bytes`), links (`name->target`), further names
    /// (`name==first`) and folders (`name/`).
    fn layer(entries: &[String]) -> TreeDelta {
        let mut delta = TreeDelta::new();
        for entry in entries {
            if let Some((name, first)) = entry.split_once("==") {
                delta.put_link(path(name), &path(first)).expect("a link");
                continue;
            }
            let (name, node) = if let Some((name, target)) = entry.split_once("->") {
                (name, Node::symlink(target))
            } else if let Some((name, bytes)) = entry.split_once('=') {
                let content = Content::from_bytes(bytes.as_bytes());
                (name, Node::file(0o644, content))
            } else {
                (entry.trim_end_matches('/'), Node::directory(0o755))
            };
            delta.put(path(name), own(node)).expect("an entry");
        }
        delta
    }

    /// What is at a path, and what tells a file from another.
    type Seen<Id> = BTreeMap<Vec<u8>, (Vec<u8>, Id)>;

    /// Numbers files by their first names.
    fn numbered<Id: Ord + Copy>(seen: Seen<Id>) -> Seen<usize> {
        let mut numbers = BTreeMap::new();
        let number = |(name, (what, id))| {
            let next = numbers.len();
            (name, (what, *numbers.entry(id).or_insert(next)))
        };
        seen.into_iter().map(number).collect()
    }

    fn in_memory(layers: &[TreeDelta]) -> Seen<usize> {
        let mut tree = FileTree::new();
        for layer in layers {
            tree.apply(layer).expect("it fits");
        }
        let what = |node: &Node| match &node.kind {
            NodeKind::File(content) => content.read_all(1 << 20).expect("small"),
            NodeKind::Symlink(target) => [b"-> ".as_slice(), target].concat(),
            _ => b"/".to_vec(),
        };
        let entries = tree.iter().filter(|(path, ..)| !path.is_root());
        numbered(
            entries
                .map(|(path, id, node)| (path.as_bytes().to_vec(), (what(node), id)))
                .collect(),
        )
    }

    fn look(folder: &Path, below: &Path, seen: &mut Seen<u64>) {
        for entry in list_folder(folder).expect("a folder") {
            let (at, kind) = (&entry.path, entry.metadata.file_type());
            let what = if kind.is_dir() {
                look(at, below, seen);
                b"/".to_vec()
            } else if kind.is_symlink() {
                let target = std::fs::read_link(at).expect("a link");
                [b"-> ".as_slice(), target.as_os_str().as_bytes()].concat()
            } else {
                std::fs::read(at).expect("a file")
            };
            let name = at.strip_prefix(below).expect("below").as_os_str();
            seen.insert(name.as_bytes().to_vec(), (what, entry.metadata.ino()));
        }
    }

    fn on_disk(layers: &[TreeDelta]) -> Seen<usize> {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().canonicalize().expect("it is there");
        let mut root = Root::open(&place, Driver::Chroot).expect("a root");
        for layer in layers {
            lay(&mut root, layer).expect("it can be laid");
        }
        let mut seen = Seen::new();
        look(&place, &place, &mut seen);
        numbered(seen)
    }

    fn strings(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|&entry| entry.to_owned()).collect()
    }

    #[test]
    fn a_place_with_two_paths_goes_to_the_later_one() {
        let base = layer(&strings(&[
            "bin->usr/bin",
            "zbin->usr/bin",
            "usr/bin/old=old",
            "usr/bin/was=was",
            "q/l->../r",
            "r/",
            "s/",
            "p->q",
        ]));
        let cases: [&[&str]; 10] = [
            &["bin/foo=a", "usr/bin/foo=b"],
            &["usr/bin/foo=a", "zbin/foo=b"],
            &["bin/old=a", "usr/bin/old=b", "zbin/old=c"],
            &["bin/foo=a", "usr/bin/foo->was"],
            &["usr/bin/foo=a", "zbin/foo->was"],
            &["usr/bin/foo=a", "zbin/foo/", "zbin/foo/x=b"],
            &["bin/foo/x=a", "usr/bin/foo=b"],
            // What leads to a place changes on the way.
            &["p/l->../s", "q/l/x=a"],
            &["p/l/x=a", "q/l->../s", "z==p/l/x"],
            &[
                "bin/a=a",
                "usr/bin/a=b",
                "usr/bin/b==bin/a",
                "zbin/c==bin/a",
            ],
        ];
        for case in cases {
            let layers = [base.clone(), layer(&strings(case))];
            assert_eq!(on_disk(&layers), in_memory(&layers), "{case:?}");
        }
    }

    #[test]
    fn a_file_takes_anothers_place_whatever_lies_beside_it() {
        let longest = "n".repeat(255);
        let mut base = vec![format!("{longest}=old"), "d/f=old".to_owned()];
        let mut above = vec![format!("{longest}=new"), "d/f=new".to_owned()];
        // Whatever number comes next, a file has its name.
        let next = super::super::root::next_beside();
        for number in next..next + 2000 {
            base.push(format!("d/.consign-new-{number}=base {number}"));
        }
        for number in next..next + BATCH as u64 {
            above.push(format!("d/.consign-new-{number}=above {number}"));
        }
        let layers = [layer(&base), layer(&above)];
        assert_eq!(on_disk(&layers), in_memory(&layers));
    }

    #[test]
    fn what_takes_a_devices_place_is_no_device() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().canonicalize().expect("it is there");
        let mut root = Root::open(&place, Driver::Chroot).expect("a root");
        let null = own(Node {
            kind: NodeKind::CharDevice { major: 1, minor: 3 },
            ..Node::file(0o666, Content::from_bytes(*b""))
        });
        let (device, other) = (path("null"), path("other"));
        for path in [&device, &other] {
            root.place_special(path, &null.kind, &null.meta)
                .expect("a device");
        }
        let inode = |name: &str| {
            let status = std::fs::symlink_metadata(place.join(name));
            status.expect("it is there").ino()
        };
        assert_eq!(root.device(&device, inode("null")), Some(&null.kind));
        lay(&mut root, &layer(&strings(&["null="]))).expect("an empty file");
        assert_eq!(root.device(&device, inode("null")), None);
        // As a script does it; file systems give a number that is free again.
        root.place_special(&device, &null.kind, &null.meta)
            .expect("a device");
        std::fs::remove_file(place.join("null")).expect("remove");
        std::fs::write(place.join("null"), b"").expect("write");
        assert_eq!(root.device(&device, inode("null")), None);
        assert_eq!(root.device(&other, inode("other")), Some(&null.kind));
    }

    #[test]
    fn an_aliased_layer_gives_the_same_root_every_time() {
        let base = layer(&strings(&[
            "bin->usr/bin",
            "zbin->usr/bin",
            "usr/bin/7=old",
        ]));
        let mut entries = Vec::new();
        // As many as a thread takes at once: the next one has their other paths.
        for number in 0..BATCH {
            entries.push(format!("bin/{number}=from bin {number}"));
            entries.push(format!("usr/bin/{number}=from usr {number}"));
            if number % 3 == 0 {
                entries.push(format!("zbin/{number}=from zbin {number}"));
            }
        }
        let layers = [base, layer(&entries)];
        let right = in_memory(&layers);
        let contents: BTreeSet<_> = right.values().map(|(what, _)| what).collect();
        assert!(contents.contains(&b"from zbin 0".to_vec()));
        assert!(contents.contains(&b"from usr 1".to_vec()));
        for round in 0..20 {
            assert_eq!(on_disk(&layers), right, "round {round}");
        }
    }
}
