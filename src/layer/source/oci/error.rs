//! What can be wrong with an image.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::exec::escape;
use crate::layer::tar::TarError;
use crate::tree::TreeError;
use crate::units::ExitClass;

/// Why an image could not become a layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OciError {
    /// A file or member of the image.
    #[error("cannot read `{}` of the image", escape(name))]
    Read {
        /// What.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file in the workplace.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something that is named and not there.
    #[error("the image has no `{}`", escape(name))]
    Missing {
        /// What.
        name: String,
    },
    /// A document or an archive that is not what it should be.
    #[error("`{}` of the image is malformed: {}", escape(name), escape(reason))]
    Malformed {
        /// Which one.
        name: String,
        /// One clause.
        reason: String,
    },
    /// Bytes that are not those that their name stands for.
    #[error("a {what} of the image has digest `{found}`, but `{expected}` is named")]
    Digest {
        /// What has it.
        what: &'static str,
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// A blob of another length than said.
    #[error("`{what}` of the image has {found} bytes, but {expected} are named")]
    Size {
        /// Which blob.
        what: String,
        /// What it should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// A layer that does not unpack.
    #[error("a layer of the image cannot be unpacked")]
    Compression {
        /// What the decoder said.
        source: io::Error,
    },
    /// A layer whose tar is malformed.
    #[error("`{}` is malformed", escape(layer))]
    Layer {
        /// Its digest, or the archive's name.
        layer: String,
        /// What is wrong, with the member's name.
        source: Box<TarError>,
    },
    /// A layer that does not fit those below it.
    #[error("layer `{layer}` of the image does not fit those below it")]
    Stack {
        /// Its diff ID.
        layer: String,
        /// What does not fit.
        source: TreeError,
    },
    /// No image, or none of this name.
    #[error("{}", no_image(image.as_deref(), names))]
    NoImage {
        /// What was asked for.
        image: Option<String>,
        /// The names that there are.
        names: Vec<String>,
    },
    /// More than one image, and no word about which.
    #[error("it holds several images: {}", escape(&names.join(", ")))]
    SeveralImages {
        /// Their names.
        names: Vec<String>,
    },
    /// For other machines.
    #[error("the image is not for linux/amd64, only for {}", escape(&found.join(", ")))]
    NoPlatform {
        /// What it is for.
        found: Vec<String>,
    },
}

fn no_image(image: Option<&str>, names: &[String]) -> String {
    let names = escape(&names.join(", "));
    match image {
        Some(image) if names.is_empty() => format!("there is no image `{}`", escape(image)),
        Some(image) => format!("there is no image `{}`, only {names}", escape(image)),
        None => "there is no image in it".into(),
    }
}

impl OciError {
    pub(super) fn read(name: &str, source: io::Error) -> Self {
        Self::Read {
            name: name.to_owned(),
            source,
        }
    }

    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn malformed(name: &str, reason: impl Into<String>) -> Self {
        Self::Malformed {
            name: name.to_owned(),
            reason: reason.into(),
        }
    }

    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Read { .. } => "image-read",
            Self::Write { .. } => "image-write",
            Self::Missing { .. } => "image-incomplete",
            Self::Malformed { .. } | Self::Layer { .. } | Self::Compression { .. } => {
                "image-malformed"
            }
            Self::Digest { .. } => "image-digest",
            Self::Size { .. } => "image-size",
            Self::Stack { .. } => "image-conflict",
            Self::NoImage { .. } => "image-unknown",
            Self::SeveralImages { .. } => "image-ambiguous",
            Self::NoPlatform { .. } => "image-platform",
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::Read { .. } | Self::Write { .. } | Self::NoPlatform { .. } => ExitClass::Build,
            Self::NoImage { .. } | Self::SeveralImages { .. } => ExitClass::Usage,
            _ => ExitClass::Verification,
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::SeveralImages { .. } | Self::NoImage { .. } => {
                "name one with `image = \"NAME:TAG\"` in `layer.toml`"
            }
            Self::Digest { .. } | Self::Size { .. } | Self::Missing { .. } => {
                "make or fetch the image again; if it comes out the same, do not trust its source"
            }
            Self::NoPlatform { .. } => "name an image that was built for linux/amd64",
            _ => return None,
        };
        Some(text.to_owned())
    }
}
