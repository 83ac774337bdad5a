//! `files` layers: a folder of the host laid over the tree.
//!
//! Owners, modes and times of the host do not count, only names, kinds, bytes
//! and whether the owner may execute a file; the rest is in the rules.

use std::fs::File;
use std::io::{self, BufWriter, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::LayerError;
use super::spec::{FileRule, FilesRecipe};
use super::tar::{MemberKind, TarWriter};
use crate::digest::{DiffId, Digest, Hasher};
use crate::tree::{Metadata, TreePath, list_folder};
use crate::units::Timestamp;

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
) -> Result<(DiffId, u64), LayerError> {
    let failed = |source| LayerError::Store {
        action: "write",
        path: output.to_owned(),
        source,
    };
    let file = File::create_new(output).map_err(failed)?;
    let mut writer = TarWriter::new(BufWriter::with_capacity(256 << 10, file));
    let mut hasher = Hasher::new();
    hasher.field(b"consign files 1");
    for found in walk(&recipe.folder)? {
        let meta = metadata(&found, &recipe.rules, source_date);
        let mut content = Digest::of(b"");
        match &found.kind {
            FoundKind::Directory => {
                writer.member(&found.path, &meta, &MemberKind::Directory)?;
            }
            FoundKind::Symlink(target) => {
                writer.member(&found.path, &meta, &MemberKind::Symlink(target.clone()))?;
            }
            FoundKind::File { size, .. } => {
                let mut file = Digesting::new(open(&found.place)?);
                writer.file(&found.path, &meta, *size, &mut file)?;
                content = file.hasher.finish();
            }
        }
        note(&mut hasher, &found, content);
    }
    let digest = hasher.finish();
    if digest != recipe.digest {
        return Err(LayerError::FolderChanged {
            folder: recipe.folder.clone(),
            planned: recipe.digest,
            found: digest,
        });
    }
    let (_, diff_id, size) = writer.finish()?;
    Ok((diff_id, size))
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
    for rule in rules.iter().filter(|rule| matches(&rule.path, &found.path)) {
        meta.uid = rule.uid.unwrap_or(meta.uid);
        meta.gid = rule.gid.unwrap_or(meta.gid);
        let wished = match &found.kind {
            FoundKind::Directory => rule.directory_mode,
            FoundKind::File { .. } => rule.mode,
            FoundKind::Symlink(_) => None,
        };
        meta.mode = wished.unwrap_or(meta.mode) & 0o7777;
        if !matches!(found.kind, FoundKind::Symlink(_)) {
            for (name, value) in &rule.xattrs {
                meta.xattrs.insert(name.clone().into_bytes(), value.clone());
            }
        }
    }
    meta
}

/// Whether the pattern, with its leading `/`, matches the whole path: `*`
/// within a component, `**` across them.
fn matches(pattern: &str, path: &TreePath) -> bool {
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

/// Digests a file while it is packed, so that what is digested is what is packed.
struct Digesting {
    file: File,
    hasher: Hasher,
}

impl Digesting {
    fn new(file: File) -> Self {
        Self {
            file,
            hasher: Hasher::new(),
        }
    }
}

impl Read for Digesting {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buf)?;
        self.hasher.update(buf.split_at(count).0);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::layer::tar::read_delta;
    use crate::tree::{Blob, NodeKind};

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
        }
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

    #[test]
    fn stars_stay_in_their_component() {
        for (pattern, path, expected) in [
            ("/etc/*", "etc/a", true),
            ("/etc/*", "etc/a/b", false),
            ("/etc/**", "etc/a/b", true),
            ("/**/b", "etc/a/b", true),
            ("/etc/a", "etc/a", true),
            ("/etc/a", "etc/ab", false),
        ] {
            let path = TreePath::parse(path.as_bytes()).expect("a path");
            assert_eq!(matches(pattern, &path), expected, "{pattern} {path}");
        }
    }
}
