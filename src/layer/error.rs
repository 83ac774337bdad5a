//! What can go wrong while layers are made.

use std::io;
use std::path::{Path, PathBuf};

use super::sandbox::{Fault, SandboxRefusal};
use super::secrets::Secret;
use super::source::deb::SourceError;
use super::source::oci::OciError;
use super::source::remote::RemoteError;
use super::tar::{TarError, TarFault};
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

    /// An archive that does not unpack.
    #[error("cannot unpack `{}`", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What the decoder said.
        source: io::Error,
    },

    /// An archive that is not the one that was planned.
    #[error("`{}` has digest `{found}`, but `{expected}` is expected", path.display())]
    ArchiveDigest {
        /// The archive.
        path: PathBuf,
        /// Its digest in `layer.toml`, or when the build was planned.
        expected: Digest,
        /// Its digest now.
        found: Digest,
    },

    /// A template that names what there is not.
    #[error("`{}` line {line}: {problem}", path.display())]
    Template {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// One clause.
        problem: String,
    },

    /// An image.
    #[error(transparent)]
    Image(#[from] OciError),

    /// An archive or image elsewhere.
    #[error(transparent)]
    Remote(#[from] RemoteError),

    /// Archives and images elsewhere cannot be had here.
    #[error("there is no way to fetch from elsewhere")]
    NoRemote,

    /// Layers below turned out to be damaged while this one was begun.
    #[error("layers below it have been damaged in the cache")]
    Unproven,

    /// Private keys or identities in a layer.
    #[error("it brings {}", listed(secrets))]
    Secrets {
        /// Which, and where; not empty.
        secrets: Vec<Secret>,
    },

    /// Something else than the layer in a registry.
    #[error(
        "`{place}` is not the layer that it says it is: {}",
        crate::exec::escape(reason)
    )]
    Poisoned {
        /// The registry, the repository and the tag.
        place: String,
        /// One clause.
        reason: String,
    },

    /// Something that is in a folder and declared as something else.
    #[error("`{}` is in the folder, and an [[entry]] says it is something else", path.display())]
    DeclaredTwice {
        /// The file.
        path: PathBuf,
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
    /// A layer's tar could not be written to `output`.
    pub(crate) fn writing(output: &Path, error: TarError) -> Self {
        match error.fault {
            TarFault::Read(source) if is_full(&source) => Self::Store {
                action: "write",
                path: output.to_owned(),
                source,
            },
            _ => Self::Tar(error),
        }
    }

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
            Self::DeclaredTwice { .. } => "layer-declared-twice",
            Self::Secrets { .. } => "layer-secrets",
            Self::Poisoned { .. } => "layer-poisoned",
            Self::Archive { .. } => "layer-archive",
            Self::ArchiveDigest { .. } => "layer-archive-digest",
            Self::Template { .. } => "layer-template",
            Self::Image(error) => error.slug(),
            Self::Remote(error) => error.slug(),
            Self::NoRemote => "layer-no-remote",
            Self::Unproven => "layer-damaged",
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
            Self::Image(error) => error.class(),
            Self::Remote(error) => error.class(),
            Self::Poisoned { .. }
            | Self::Tar(_)
            | Self::Archive { .. }
            | Self::ArchiveDigest { .. } => ExitClass::Verification,
            Self::Template { .. } => ExitClass::Usage,
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
            Self::Secrets { .. } => Some(
                "take it out of the layer: every machine makes its own, and site.toml brings \
                 what a site needs; if all customers may know it, name its path in \
                 `allow_secrets` of `layer.toml`"
                    .to_owned(),
            ),
            Self::Poisoned { .. } => Some(
                "find out who may write to the registry; build without it until then".to_owned(),
            ),
            Self::ArchiveDigest { .. } => Some(
                "find out why it has changed; if the change is meant, write the new digest \
                 into `layer.toml`, or build again where it names none"
                    .to_owned(),
            ),
            Self::Template { .. } => Some(
                "name `appliance.name`, `appliance.version`, `appliance.label`, \
                 `system.suite`, `system.distribution` or a key of [values] in `appliance.toml`"
                    .to_owned(),
            ),
            Self::Image(error) => error.hint(),
            Self::Remote(error) => error.hint(),
            Self::Source(error) => error.hint(),
            Self::Refused(refusal) => refusal.hint(),
            Self::Sandbox(fault) => fault.hint(),
            Self::Exec(error) => error.hint(),
            _ => None,
        }
    }
}

/// `a private key, `/opt/app/key.pem`, and 2 more` at most five long.
fn listed(secrets: &[Secret]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = secrets
        .iter()
        .take(SHOWN)
        .map(|secret| format!("{} in `{}`", secret.kind.noun(), secret.path))
        .collect();
    let more = secrets.len().saturating_sub(SHOWN);
    let rest = if more > 0 {
        format!(", and {more} more")
    } else {
        String::new()
    };
    format!("{}{rest}", shown.join(", "))
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
