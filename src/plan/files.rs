//! The digest of a folder: names, kinds and bytes, never owners or times.

use std::path::Path;

use super::error::PlanError;
use crate::digest::Digest;
use crate::layer::LayerError;
use crate::layer::files::digest_folder;

/// Digest of all that can reach the image from `folder`: for each entry, in
/// sorted order, its path, its kind, the target of a symbolic link, the bytes
/// of a file and whether its owner may execute it.
///
/// # Errors
///
/// [`PlanError::ReadFolder`]; [`PlanError::OddFile`] for devices, pipes and
/// sockets.
pub fn digest_of_folder(folder: &Path) -> Result<Digest, PlanError> {
    digest_folder(folder).map_err(|error| match error {
        LayerError::Read { path, source } => PlanError::ReadFolder { path, source },
        LayerError::SpecialFile { path } => PlanError::OddFile { path },
        source => PlanError::Folder {
            source: Box::new(source),
        },
    })
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
