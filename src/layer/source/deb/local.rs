//! Package files of the appliance itself: a vendor's own product.
//!
//! In: files. Out: a list of their packages like that of a repository, whose
//! paths are those below the appliance's folder. Their digests are taken here
//! and go into the lock; nobody signs them.

use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::layer::package::inspect;
use crate::layer::spec::LOCAL;

use super::error::SourceError;
use super::index::{Index, IndexError};

/// Of the versions of a package, one that is a file of the appliance counts
/// before all others.
const PRIORITY: i32 = i32::MAX;

/// A package file, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPackage {
    /// The package's name.
    pub name: String,
    /// Below the appliance's folder.
    pub path: String,
    /// Digest of the file.
    pub sha256: Digest,
    /// The file.
    file: PathBuf,
    architecture: String,
    /// Its control stanza, and what a repository would add to it.
    stanza: String,
}

impl LocalPackage {
    /// Reads the file `path` below `folder`.
    ///
    /// # Errors
    ///
    /// [`SourceError::BadPackageFile`].
    pub fn open(folder: &Path, path: &str) -> Result<Self, SourceError> {
        let file = folder.join(path);
        let (control, sha256, size) =
            inspect(&file).map_err(|problem| SourceError::BadPackageFile {
                path: file.clone(),
                problem,
            })?;
        let mut fields = control.stanza.clone();
        for (name, value) in [
            ("Filename", path.to_owned()),
            ("Size", size.to_string()),
            ("SHA256", sha256.hex()),
        ] {
            fields.set(name, value);
        }
        Ok(Self {
            name: control.package().to_owned(),
            path: path.to_owned(),
            sha256,
            architecture: control.architecture().to_owned(),
            stanza: fields.to_text(),
            file,
        })
    }
}

/// The list of all package files; `None` when there are none.
pub(super) fn index(
    locals: &[LocalPackage],
    architecture: &str,
) -> Result<Option<Index>, SourceError> {
    let mut text = String::new();
    for local in locals {
        let bad = |problem| SourceError::BadPackageFile {
            path: local.file.clone(),
            problem,
        };
        if local.architecture != architecture && local.architecture != "all" {
            return Err(bad(format!("it is for `{}`", local.architecture)));
        }
        // Each by itself first, so that the error names the file.
        read(&local.stanza, architecture).map_err(bad)?;
        text.push_str(&local.stanza);
    }
    if locals.is_empty() {
        return Ok(None);
    }
    let index = read(&text, architecture).expect("each part was read before");
    Ok(Some(index.with_preference(PRIORITY, &[])))
}

fn read(stanzas: &str, architecture: &str) -> Result<Index, String> {
    Index::read(LOCAL, architecture, stanzas.as_bytes()).map_err(|error| match error {
        IndexError::Malformed(problem) => problem,
        IndexError::Read(error) => error.to_string(),
    })
}
