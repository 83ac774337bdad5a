//! The digest of a folder: names, kinds and bytes, never owners or times.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::error::PlanError;
use crate::digest::{Digest, Hasher};
use crate::tree::list_folder;

/// Folders within folders; deeper is a mistake, or a trap for the stack.
const DEPTH: usize = 128;

/// Digest of all that can reach the image from `folder`: for each entry, in
/// sorted order, its path, its kind, the target of a symbolic link, the bytes
/// of a file and whether its owner may execute it.
///
/// # Errors
///
/// [`PlanError::ReadFolder`], [`PlanError::OddFile`] for devices, pipes and
/// sockets, [`PlanError::TooDeep`].
pub fn digest_of_folder(folder: &Path) -> Result<Digest, PlanError> {
    let mut hasher = Hasher::new();
    hasher.field(b"consign folder v1");
    walk(folder, &mut Vec::new(), &mut hasher)?;
    Ok(hasher.finish())
}

fn walk(folder: &Path, names: &mut Vec<Vec<u8>>, hasher: &mut Hasher) -> Result<(), PlanError> {
    if names.len() > DEPTH {
        return Err(PlanError::TooDeep {
            folder: folder.to_owned(),
            limit: DEPTH,
        });
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| PlanError::ReadFolder { path, source }
    };
    for entry in list_folder(folder).map_err(failed(folder))? {
        names.push(entry.name.as_bytes().to_vec());
        hasher.field(&names.join(&b'/'));
        let kind = entry.metadata.file_type();
        if kind.is_dir() {
            hasher.field(b"directory");
            walk(&entry.path, names, hasher)?;
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&entry.path).map_err(failed(&entry.path))?;
            hasher.field(b"link");
            hasher.field(target.as_os_str().as_bytes());
        } else if kind.is_file() {
            let is_executable = entry.metadata.mode() & 0o100 != 0;
            let kind: &[u8] = if is_executable { b"program" } else { b"file" };
            hasher.field(kind);
            let content = digest_of_file(&entry.path).map_err(failed(&entry.path))?;
            hasher.field(content.bytes());
        } else {
            return Err(PlanError::OddFile { path: entry.path });
        }
        names.pop();
    }
    Ok(())
}

fn digest_of_file(path: &Path) -> std::io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn sample() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("etc")).expect("mkdir");
        fs::write(folder.path().join("etc/motd"), "hello").expect("write");
        symlink("motd", folder.path().join("etc/issue")).expect("link");
        folder
    }

    #[test]
    fn the_same_files_elsewhere_have_the_same_digest() {
        let (one, other) = (sample(), sample());
        let motd = other.path().join("etc/motd");
        fs::set_permissions(&motd, Permissions::from_mode(0o600)).expect("chmod");
        assert_eq!(
            digest_of_folder(one.path()).expect("digest"),
            digest_of_folder(other.path()).expect("digest"),
        );
    }

    #[test]
    fn each_change_that_reaches_the_image_changes_the_digest() {
        let before = digest_of_folder(sample().path()).expect("digest");
        let changes: [fn(&Path); 5] = [
            |folder| fs::write(folder.join("etc/motd"), "hallo").expect("write"),
            |folder| {
                let motd = folder.join("etc/motd");
                fs::set_permissions(motd, Permissions::from_mode(0o755)).expect("chmod");
            },
            |folder| fs::rename(folder.join("etc/motd"), folder.join("etc/mote")).expect("rename"),
            |folder| fs::create_dir(folder.join("etc/empty")).expect("mkdir"),
            |folder| {
                fs::remove_file(folder.join("etc/issue")).expect("remove");
                symlink("other", folder.join("etc/issue")).expect("link");
            },
        ];
        for change in changes {
            let folder = sample();
            change(folder.path());
            assert_ne!(digest_of_folder(folder.path()).expect("digest"), before);
        }
    }

    #[test]
    fn a_socket_is_refused_by_name() {
        let folder = sample();
        let path = folder.path().join("etc/socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).expect("socket");
        let error = digest_of_folder(folder.path()).expect_err("a socket");
        assert!(matches!(error, PlanError::OddFile { path: odd } if odd == path));
    }
}
