//! Listing folders of the host, always sorted: the only place that does.
#![expect(clippy::disallowed_methods, reason = "this room is the door")]

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// One entry of a folder of the host.
#[derive(Debug)]
pub struct HostEntry {
    /// Its name.
    pub name: OsString,
    /// Folder and name.
    pub path: PathBuf,
    /// `lstat`: symbolic links are not followed.
    pub metadata: Metadata,
}

/// The entries of `folder`, sorted by the bytes of their names. One that goes
/// while they are listed, as processes in /proc do all the time, is left out.
///
/// # Errors
///
/// What the system reports.
pub fn list_folder(folder: &Path) -> io::Result<Vec<HostEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let metadata = match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        entries.push(HostEntry {
            name: entry.file_name(),
            path,
            metadata,
        });
    }
    entries.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    Ok(entries)
}
