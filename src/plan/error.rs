//! Why there is no plan.

use std::io;
use std::path::PathBuf;

use super::lock::{Drift, LOCK_FILE_NAME};
use crate::appliance::{ApplianceError, FileProblems, Style};
use crate::image::ImageError;
use crate::layer::LayerError;
use crate::layer::source::oci::OciError;
use crate::units::ExitClass;

/// Why there is no [`BuildPlan`](super::BuildPlan).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A folder of a files layer, or something in it, could not be read.
    #[error("cannot read `{}`", path.display())]
    ReadFolder {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A device, pipe or socket in a files layer.
    #[error("`{}` is neither a file, a folder nor a symbolic link", path.display())]
    OddFile {
        /// The entry.
        path: PathBuf,
    },
    /// A folder of a files layer that makes no layer.
    #[error("cannot take the digest of a files layer")]
    Folder {
        /// Why not.
        source: Box<LayerError>,
    },
    /// An image layout of an `oci` layer.
    #[error("cannot use the image in `{}`", path.display())]
    Image {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<OciError>,
    },
    /// The lock could not be read.
    #[error("cannot read `{LOCK_FILE_NAME}`")]
    LockUnreadable {
        /// Why not.
        source: ApplianceError,
    },
    /// The lock is not one.
    #[error("`{}` is not a sound lock", problems.source().path().display())]
    LockInvalid {
        /// What is wrong in it, and where.
        problems: FileProblems,
    },
    /// The lock answers another request.
    #[error(
        "`appliance.toml` has moved away from `{LOCK_FILE_NAME}`: {}",
        sentence(drift)
    )]
    Drift {
        /// Each difference; not empty.
        drift: Vec<Drift>,
    },
    /// A licence that is no text, or too long.
    #[error("the licence `{}` is no UTF-8 text of at most 256 KiB", path.display())]
    Eula {
        /// The file.
        path: PathBuf,
    },
    /// Partitions of more than 2^64 bytes.
    #[error("the partitions do not fit any disk")]
    DiskTooLarge,
    /// A disk that one of the outputs cannot hold.
    #[error("an output cannot hold the disk")]
    Format {
        /// Which one, and how much it holds.
        source: Box<ImageError>,
    },
    /// No time to put on files.
    #[error("`{LOCK_FILE_NAME}` has no release to take the source date from")]
    NoSourceDate,
}

fn sentence(drift: &[Drift]) -> String {
    let clauses: Vec<_> = drift.iter().map(Drift::to_string).collect();
    clauses.join("; ")
}

impl PlanError {
    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::ReadFolder { .. } => "plan-unreadable-folder",
            Self::OddFile { .. } => "plan-odd-file",
            Self::Folder { .. } => "plan-folder",
            Self::Image { source, .. } => source.slug(),
            Self::LockUnreadable { .. } => "lock-unreadable",
            Self::LockInvalid { .. } => "lock-invalid",
            Self::Drift { .. } => "lock-drift",
            Self::Eula { .. } => "plan-eula",
            Self::DiskTooLarge => "plan-disk-too-large",
            Self::Format { source } => source.slug(),
            Self::NoSourceDate => "plan-no-source-date",
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::OddFile { .. } => Some(
                "remove it from the layer; devices and sockets are made by the running system"
                    .into(),
            ),
            Self::Folder { source } => source.hint(),
            Self::Image { source, .. } => source.hint(),
            Self::LockInvalid { .. } => Some("run `consign lock` to make it anew".into()),
            Self::Drift { .. } => Some(
                "run `consign lock` to resolve the packages again, or take the change back".into(),
            ),
            Self::Format { source } => source.hint(),
            Self::DiskTooLarge => Some("lower the sizes in [disk] of `appliance.toml`".into()),
            Self::NoSourceDate => {
                Some("write `source_date` in [appliance] of `appliance.toml`".into())
            }
            Self::Eula { .. } => Some("save it as plain text in UTF-8".into()),
            Self::ReadFolder { .. } | Self::LockUnreadable { .. } => None,
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::ReadFolder { .. } => ExitClass::Build,
            Self::Image { source, .. } => source.class(),
            _ => ExitClass::Usage,
        }
    }

    /// The errors drawn in their source; empty for errors that have no place.
    #[must_use]
    pub fn draw(&self, style: Style) -> String {
        match self {
            Self::LockInvalid { problems } => problems.draw(style),
            Self::LockUnreadable { source } => source.draw(style),
            _ => String::new(),
        }
    }

    /// The same for programs.
    #[must_use]
    pub fn json(&self) -> Vec<serde_json::Value> {
        match self {
            Self::LockInvalid { problems } => problems.json(),
            Self::LockUnreadable { source } => source.json(),
            _ => Vec::new(),
        }
    }
}
