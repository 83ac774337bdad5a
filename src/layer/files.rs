//! `files` layers: a folder of the host laid over the tree.
//!
//! Owners, modes and times of the host do not count, only names, kinds, bytes
//! and whether the owner may execute a file; the rest is in the rules.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::LayerError;
use super::compression::Hashing;
use super::rules::{self, Shape};
use super::spec::{FileEntry, FileRule, FilesRecipe};
use super::tar::{MemberKind, SparseFile, TarSum, TarWriter};
use super::template;
use crate::digest::{Digest, Hasher};
use crate::tree::{Metadata, TreePath, list_folder};
use crate::units::Timestamp;

/// Longest template.
const MAX_TEMPLATE: u64 = 1 << 20;

/// One entry of the folder.
#[derive(Debug)]
struct Found {
    path: TreePath,
    place: PathBuf,
    kind: FoundKind,
}

#[derive(Debug)]
enum FoundKind {
    Directory,
    File { size: u64, is_executable: bool },
    Symlink(Vec<u8>),
}

/// The digest over names, kinds and bytes of a folder, as
/// [`FilesRecipe::digest`] wants it.
///
/// # Errors
///
/// [`LayerError::Read`], [`LayerError::SpecialFile`].
pub fn digest_folder(folder: &Path) -> Result<Digest, LayerError> {
    let mut hasher = Hasher::new();
    hasher.field(b"consign files 1");
    for found in walk(folder)? {
        match &found.kind {
            FoundKind::File { .. } => {
                let mut file = open(&found.place)?;
                let mut content = Hasher::new();
                io::copy(&mut file, &mut content).map_err(cannot_read(&found.place))?;
                note(&mut hasher, &found, content.finish());
            }
            _ => note(&mut hasher, &found, Digest::of(b"")),
        }
    }
    Ok(hasher.finish())
}

/// Adds an entry to the digest of the folder.
fn note(hasher: &mut Hasher, found: &Found, content: Digest) {
    hasher.field(found.path.as_bytes());
    match &found.kind {
        FoundKind::Directory => hasher.field(b"d"),
        FoundKind::File { is_executable, .. } => {
            hasher.field(if *is_executable { b"x" } else { b"f" });
            hasher.field(content.bytes());
        }
        FoundKind::Symlink(target) => {
            hasher.field(b"l");
            hasher.field(target);
        }
    }
}

/// Writes the layer's tar to `output`, a new file.
pub(crate) fn write(
    recipe: &FilesRecipe,
    source_date: Timestamp,
    output: &Path,
) -> Result<TarSum, LayerError> {
    let failed = |source| LayerError::Store {
        action: "write",
        path: output.to_owned(),
        source,
    };
    let file = File::create_new(output).map_err(failed)?;
    let file = BufWriter::with_capacity(256 << 10, SparseFile::new(file));
    let mut writer = TarWriter::new(file);
    let written = |error| LayerError::writing(output, error);
    for path in &recipe.remove {
        writer.whiteout(path).map_err(written)?;
    }
    let found = write_found(recipe, source_date, &mut writer, output)?;
    if found != recipe.digest {
        return Err(LayerError::FolderChanged {
            folder: recipe.folder.clone(),
            planned: recipe.digest,
            found,
        });
    }
    // Links come after what they link to.
    for entry in recipe.entries.iter().filter(|entry| is_link(entry)) {
        let meta = entry_metadata(entry, source_date);
        writer
            .member(&entry.path, &meta, &entry.kind)
            .map_err(written)?;
    }
    let (_, sum) = writer.finish().map_err(written)?;
    Ok(sum)
}

/// Writes the folder and the declared entries in the order of their paths;
/// gives the digest of the folder.
fn write_found<W: io::Write>(
    recipe: &FilesRecipe,
    source_date: Timestamp,
    writer: &mut TarWriter<W>,
    output: &Path,
) -> Result<Digest, LayerError> {
    let mut hasher = Hasher::new();
    hasher.field(b"consign files 1");
    let written = |error| LayerError::writing(output, error);
    let mut entries = recipe
        .entries
        .iter()
        .filter(|entry| !is_link(entry))
        .peekable();
    for found in walk(&recipe.folder)? {
        while let Some(entry) = entries.next_if(|entry| entry.path < found.path) {
            let meta = entry_metadata(entry, source_date);
            writer
                .member(&entry.path, &meta, &entry.kind)
                .map_err(written)?;
        }
        // A declared folder says who owns one that is there.
        let declared = entries.next_if(|entry| entry.path == found.path);
        let meta = match declared {
            Some(entry) => entry_metadata(entry, source_date),
            None => metadata(&found, &recipe.rules, source_date),
        };
        let kind = match &found.kind {
            FoundKind::Directory => MemberKind::Directory,
            FoundKind::Symlink(target) => MemberKind::Symlink(target.clone()),
            FoundKind::File { .. } => MemberKind::File,
        };
        if declared.is_some_and(|entry| entry.kind != kind) {
            return Err(LayerError::DeclaredTwice { path: found.place });
        }
        let mut content = Digest::of(b"");
        if let FoundKind::File { size, .. } = &found.kind {
            let is_template = |pattern: &String| rules::matches(pattern, &found.path);
            if recipe.templates.iter().any(is_template) {
                let (digest, text) = rendered(&found, &recipe.values)?;
                content = digest;
                let mut text = text.as_bytes();
                let size = text.len() as u64;
                writer
                    .file(&found.path, &meta, size, &mut text)
                    .map_err(written)?;
            } else {
                let mut file = Hashing::new(open(&found.place)?);
                writer
                    .file(&found.path, &meta, *size, &mut file)
                    .map_err(written)?;
                content = file.finish();
            }
        } else {
            writer.member(&found.path, &meta, &kind).map_err(written)?;
        }
        note(&mut hasher, &found, content);
    }
    for entry in entries {
        let meta = entry_metadata(entry, source_date);
        writer
            .member(&entry.path, &meta, &entry.kind)
            .map_err(written)?;
    }
    Ok(hasher.finish())
}

fn is_link(entry: &FileEntry) -> bool {
    matches!(entry.kind, MemberKind::HardLink(_))
}

fn entry_metadata(entry: &FileEntry, source_date: Timestamp) -> Metadata {
    let mut meta = Metadata::root_owned(entry.mode & 0o7777);
    (meta.uid, meta.gid) = (entry.uid, entry.gid);
    meta.mtime = source_date;
    meta
}

/// Judges the templates of a recipe without making the layer.
///
/// # Errors
///
/// [`LayerError::Template`] and those of reading.
pub fn check_templates(recipe: &FilesRecipe) -> Result<(), LayerError> {
    if recipe.templates.is_empty() {
        return Ok(());
    }
    for found in walk(&recipe.folder)? {
        let is_template = |pattern: &String| rules::matches(pattern, &found.path);
        let is_file = matches!(found.kind, FoundKind::File { .. });
        if is_file && recipe.templates.iter().any(is_template) {
            rendered(&found, &recipe.values)?;
        }
    }
    Ok(())
}

/// The digest of a template, and what it becomes.
fn rendered(
    found: &Found,
    values: &BTreeMap<String, String>,
) -> Result<(Digest, String), LayerError> {
    let problem = |line, problem: &str| LayerError::Template {
        path: found.place.clone(),
        line,
        problem: problem.to_owned(),
    };
    let mut bytes = Vec::new();
    open(&found.place)?
        .take(MAX_TEMPLATE + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot_read(&found.place))?;
    if bytes.len() as u64 > MAX_TEMPLATE {
        return Err(problem(1, "a template has at most 1 MiB"));
    }
    let digest = Digest::of(&bytes);
    let text = String::from_utf8(bytes).map_err(|_| problem(1, "a template is UTF-8 text"))?;
    let rendered = template::render(&text, values).map_err(|(line, name)| {
        problem(
            line,
            &format!("there is no value `{}`", name.escape_debug()),
        )
    })?;
    Ok((digest, rendered))
}

/// Everything below `folder`, in component order, the folder itself left out.
fn walk(folder: &Path) -> Result<Vec<Found>, LayerError> {
    fn into(folder: &Path, at: &TreePath, all: &mut Vec<Found>) -> Result<(), LayerError> {
        for entry in list_folder(folder).map_err(cannot_read(folder))? {
            let Some(path) = at.join(entry.name.as_bytes()) else {
                continue;
            };
            let kind = if entry.metadata.is_dir() {
                FoundKind::Directory
            } else if entry.metadata.is_file() {
                FoundKind::File {
                    size: entry.metadata.len(),
                    is_executable: entry.metadata.mode() & 0o100 != 0,
                }
            } else if entry.metadata.is_symlink() {
                let target = std::fs::read_link(&entry.path).map_err(cannot_read(&entry.path))?;
                FoundKind::Symlink(target.as_os_str().as_bytes().to_vec())
            } else {
                return Err(LayerError::SpecialFile { path: entry.path });
            };
            let is_directory = matches!(kind, FoundKind::Directory);
            all.push(Found {
                path: path.clone(),
                place: entry.path.clone(),
                kind,
            });
            if is_directory {
                into(&entry.path, &path, all)?;
            }
        }
        Ok(())
    }
    let mut all = Vec::new();
    into(folder, &TreePath::root(), &mut all)?;
    Ok(all)
}

fn cannot_read(path: &Path) -> impl FnOnce(io::Error) -> LayerError + '_ {
    move |source| LayerError::Read {
        path: path.to_owned(),
        source,
    }
}

fn open(path: &Path) -> Result<File, LayerError> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map(File::from)
        .map_err(|error| cannot_read(path)(error.into()))
}

fn metadata(found: &Found, rules: &[FileRule], source_date: Timestamp) -> Metadata {
    let mode = match &found.kind {
        FoundKind::Directory
        | FoundKind::File {
            is_executable: true,
            ..
        } => 0o755,
        FoundKind::File { .. } => 0o644,
        FoundKind::Symlink(_) => 0o777,
    };
    let mut meta = Metadata::root_owned(mode);
    meta.mtime = source_date;
    let shape = match &found.kind {
        FoundKind::Directory => Shape::Directory,
        FoundKind::File { .. } => Shape::Other,
        FoundKind::Symlink(_) => Shape::Symlink,
    };
    rules::apply(&mut meta, shape, &found.path, rules);
    meta
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::layer::tar::read_delta;
    use crate::tree::{Blob, NodeKind, TreeDelta};

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("etc/app")).expect("folders");
        std::fs::write(at("etc/app/secret"), b"x").expect("file");
        std::fs::write(at("run.sh"), b"#!/bin/sh\n").expect("file");
        std::os::unix::fs::symlink("app", at("etc/link")).expect("link");
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(at("run.sh"), mode).expect("mode");
        folder
    }

    fn recipe(folder: &Path, rules: Vec<FileRule>) -> FilesRecipe {
        FilesRecipe {
            folder: folder.to_owned(),
            digest: digest_folder(folder).expect("digest"),
            rules,
            entries: vec![],
            remove: vec![],
            templates: vec![],
            values: BTreeMap::new(),
        }
    }

    fn made(recipe: &FilesRecipe) -> TreeDelta {
        let output = tempfile::tempdir().expect("folder");
        let tar = output.path().join("layer.tar");
        write(recipe, Timestamp::from_seconds(1_700_000_000), &tar).expect("write");
        read_delta(&Blob::open(&tar).expect("open")).expect("read")
    }

    fn entry(path: &str, kind: MemberKind) -> FileEntry {
        FileEntry {
            path: TreePath::parse(path.as_bytes()).expect("a path"),
            kind,
            uid: 7,
            gid: 8,
            mode: 0o750,
        }
    }

    #[test]
    fn what_a_folder_cannot_hold_is_declared() {
        let folder = folder();
        let mut recipe = recipe(folder.path(), vec![]);
        recipe.entries = vec![
            entry(
                "dev/app",
                MemberKind::CharDevice {
                    major: 10,
                    minor: 3,
                },
            ),
            entry(
                "etc/again",
                MemberKind::HardLink(b"etc/app/secret".to_vec()),
            ),
            entry("etc/app", MemberKind::Directory),
            entry("var/lib/app", MemberKind::Directory),
        ];
        recipe.remove = vec![TreePath::parse(b"etc/motd").expect("a path")];
        let delta = made(&recipe);
        let at = |path: &str| delta.tree.at(path).expect("there");
        assert_eq!(
            at("dev/app").kind,
            NodeKind::CharDevice {
                major: 10,
                minor: 3
            }
        );
        let ids = |path: &str| (at(path).meta.uid, at(path).meta.gid, at(path).meta.mode);
        assert_eq!(ids("etc/app"), (7, 8, 0o750));
        assert_eq!(ids("var/lib/app"), (7, 8, 0o750));
        let id = |path: &str| {
            delta
                .tree
                .id(&TreePath::parse(path.as_bytes()).expect("a path"))
        };
        assert_eq!(id("etc/again"), id("etc/app/secret"));
        assert_eq!(delta.removed.len(), 1);
    }

    #[test]
    fn a_declared_entry_in_the_place_of_a_file_is_refused() {
        let folder = folder();
        let mut recipe = recipe(folder.path(), vec![]);
        recipe.entries = vec![entry("run.sh", MemberKind::Fifo)];
        let output = tempfile::tempdir().expect("folder");
        let error = write(&recipe, Timestamp::default(), &output.path().join("x"))
            .expect_err("a file is there");
        assert_eq!(error.slug(), "layer-declared-twice");
    }

    #[test]
    fn templates_get_values_and_say_where_one_is_missing() {
        let folder = folder();
        let motd = folder.path().join("etc/motd");
        std::fs::write(&motd, "one\nthis is @appliance.name@, me@example.com\n").expect("file");
        let mut first = recipe(folder.path(), vec![]);
        first.templates = vec!["/etc/motd".into()];
        first.values = BTreeMap::from([("appliance.name".into(), "wiki".into())]);
        let delta = made(&first);
        let content = delta
            .tree
            .at("etc/motd")
            .and_then(crate::tree::Node::content);
        assert_eq!(
            content.expect("a file").read_all(99).expect("read"),
            b"one\nthis is wiki, me@example.com\n"
        );
        std::fs::write(&motd, "one\n@values.vendor@\n").expect("file");
        first.digest = digest_folder(folder.path()).expect("digest");
        let error = check_templates(&first).expect_err("no such value");
        assert!(
            error
                .to_string()
                .ends_with("etc/motd` line 2: there is no value `values.vendor`"),
            "{error}"
        );
        assert!(error.hint().expect("a hint").contains("[values]"));
    }

    #[test]
    fn the_layer_has_the_rules_metadata_and_not_the_hosts() {
        let folder = folder();
        let rule = FileRule {
            path: "/etc/app/**".into(),
            uid: Some(33),
            gid: Some(33),
            mode: Some(0o640),
            ..FileRule::default()
        };
        let output = tempfile::tempdir().expect("folder");
        let tar = output.path().join("layer.tar");
        let date = Timestamp::from_seconds(1_700_000_000);
        write(&recipe(folder.path(), vec![rule]), date, &tar).expect("write");
        let delta = read_delta(&Blob::open(&tar).expect("open")).expect("read");
        let meta = |path: &str| delta.tree.at(path).expect("there").meta.clone();
        assert_eq!(meta("run.sh").mode, 0o755);
        let secret = meta("etc/app/secret");
        assert_eq!((secret.uid, secret.gid, secret.mode), (33, 33, 0o640));
        assert_eq!(secret.mtime, date);
        assert_eq!((meta("etc/app").uid, meta("etc/app").mode), (0, 0o755));
        assert_eq!(
            delta.tree.at("etc/link").expect("there").kind,
            NodeKind::Symlink(b"app".to_vec())
        );
    }

    #[test]
    fn the_digest_sees_bytes_and_the_executable_bit_only() {
        let folder = folder();
        let first = digest_folder(folder.path()).expect("digest");
        let script = folder.path().join("run.sh");
        let set = |mode| {
            std::fs::set_permissions(&script, std::fs::Permissions::from_mode(mode)).expect("mode");
        };
        set(0o755);
        assert_eq!(digest_folder(folder.path()).expect("digest"), first);
        set(0o644);
        assert_ne!(digest_folder(folder.path()).expect("digest"), first);
        set(0o755);
        std::fs::write(folder.path().join("etc/app/secret"), b"y").expect("file");
        assert_ne!(digest_folder(folder.path()).expect("digest"), first);
    }

    #[test]
    fn a_folder_that_changed_since_the_plan_is_refused() {
        let folder = folder();
        let recipe = recipe(folder.path(), vec![]);
        std::fs::write(folder.path().join("new"), b"").expect("file");
        let output = tempfile::tempdir().expect("folder");
        let error = write(
            &recipe,
            Timestamp::default(),
            &output.path().join("layer.tar"),
        )
        .expect_err("changed");
        assert_eq!(error.slug(), "layer-folder-changed");
    }
}
