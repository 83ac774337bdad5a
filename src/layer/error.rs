//! What can go wrong while layers are made.

use std::io;
use std::path::PathBuf;

use super::sandbox::{Fault, SandboxRefusal};
use super::source::deb::SourceError;
use super::tar::TarError;
use crate::digest::Digest;
use crate::exec::ExecError;
use crate::units::ExitClass;

/// Why a layer could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// An error of one layer of several.
    #[error("layer `{layer}`: {source}")]
    InLayer {
        /// The layer.
        layer: String,
        /// What is wrong with it.
        #[source]
        source: Box<LayerError>,
    },

    /// The store in the cache folder.
    #[error("cannot {action} `{}` in the cache", path.display())]
    Store {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// A layer's tar.
    #[error("the layer's archive is malformed")]
    Tar(#[from] TarError),

    /// A file of a `files` layer.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// A socket, a device or a pipe in the folder of a `files` layer.
    #[error("`{}` is not a file, a folder or a symbolic link", path.display())]
    SpecialFile {
        /// The file.
        path: PathBuf,
    },

    /// The folder of a `files` layer changed since the plan was made.
    #[error("`{}` has changed since the build was planned", folder.display())]
    FolderChanged {
        /// The folder.
        folder: PathBuf,
        /// Its digest in the plan.
        planned: Digest,
        /// Its digest now.
        found: Digest,
    },

    /// Packages could not be fetched.
    #[error(transparent)]
    Source(#[from] SourceError),

    /// No sandbox can be had.
    #[error(transparent)]
    Refused(#[from] SandboxRefusal),

    /// Something failed in the sandbox.
    #[error(transparent)]
    Sandbox(Box<Fault>),

    /// The sandbox's process failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
}

impl LayerError {
    /// The same error, with the layer's name.
    #[must_use]
    pub(crate) fn in_layer(self, layer: &str) -> Self {
        match self {
            Self::InLayer { .. } | Self::Refused(_) => self,
            source => Self::InLayer {
                layer: layer.to_owned(),
                source: Box::new(source),
            },
        }
    }

    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::InLayer { source, .. } => source.slug(),
            Self::Store { source, .. } if is_full(source) => "cache-full",
            Self::Store { .. } => "cache-io",
            Self::Tar(_) => "layer-malformed",
            Self::Read { .. } => "layer-read",
            Self::SpecialFile { .. } => "layer-special-file",
            Self::FolderChanged { .. } => "layer-folder-changed",
            Self::Source(error) => error.slug(),
            Self::Refused(refusal) => refusal.slug(),
            Self::Sandbox(fault) => fault.slug(),
            Self::Exec(error) => error.slug(),
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::InLayer { source, .. } => source.class(),
            Self::Refused(refusal) => refusal.class(),
            Self::Sandbox(fault) => fault.class(),
            Self::Exec(error) => error.class(),
            Self::Source(error) => error.class(),
            Self::Tar(_) => ExitClass::Verification,
            _ => ExitClass::Build,
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::InLayer { source, .. } => source.hint(),
            Self::Store { source, .. } if is_full(source) => {
                Some("make room in the cache folder, or choose another one with --cache".to_owned())
            }
            Self::Store { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("choose a cache folder that you may write to, with --cache".to_owned())
            }
            Self::SpecialFile { .. } => Some("remove it from the layer's folder".to_owned()),
            Self::FolderChanged { .. } => Some("build again".to_owned()),
            Self::Source(error) => error.hint(),
            Self::Refused(refusal) => refusal.hint(),
            Self::Sandbox(fault) => fault.hint(),
            Self::Exec(error) => error.hint(),
            _ => None,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
