//! What a site brings: its configuration, judged as the appliance will judge
//! it, and the config disk that carries it.
//!
//! In: `site.toml`, and the roles and the policy that the appliance's layers
//! bring, or a finished image has. Out: a verdict with every problem at its place, or a config disk.
//! Never here: rules of its own (they are those of `consign-schema`, which
//! the agent shares), secrets in messages. Checked by: fsck.vfat, mtools,
//! isoinfo, the agent's own reader (`tests/it/formats/`).

mod beside;
mod bundle;
mod disk;
pub mod form;
mod image;
mod roles;

use std::io;
use std::path::PathBuf;

use consign_schema::Problem;

pub use beside::Beside;
pub use bundle::{Bundle, BundleName, write_bundle};
pub use disk::{ConfigDisk, ConfigMedia, config_disk};
pub use roles::Shelf;

use crate::fs::fat::FatError;
use crate::fs::iso9660::IsoError;
use crate::inspect::InspectError;
use crate::sign::SignError;
use crate::sign::vendor::VendorFault;
use crate::units::ExitClass;

/// Why a site configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FactoryError {
    /// A file could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An image that is none, or no appliance's.
    #[error("cannot take the roles from the image `{}`", path.display())]
    Image {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<InspectError>,
    },
    /// The site configuration is wrong.
    #[error("`{file}` is not accepted: {}", count(problems.len()))]
    Site {
        /// The file, as it was named.
        file: String,
        /// Every problem, in the order of the file.
        problems: Vec<Problem>,
    },
    /// A role or the policy that the vendor ships is wrong.
    #[error("`{}` is not accepted: {}", path.display(), count(problems.len()))]
    Vendor {
        /// The file.
        path: PathBuf,
        /// Every problem, in the order of the file.
        problems: Vec<Problem>,
    },
    /// The policy would be refused for its signature.
    #[error("the appliance would refuse `{}`", path.display())]
    Signature {
        /// The policy.
        path: PathBuf,
        /// Why.
        source: VendorFault,
    },
    /// The folder of a role has another name than the role.
    #[error("the role `{role}` is in the folder `{}`", folder.display())]
    RoleFolder {
        /// The name in `role.toml`.
        role: String,
        /// Its folder.
        folder: PathBuf,
    },
    /// A template that a role names is not beside its `role.toml`.
    #[error("the role `{role}` names the template `{}`, which is not a file", path.display())]
    Template {
        /// The role.
        role: String,
        /// The template.
        path: PathBuf,
    },
    /// Secrets that cannot go onto a config disk. Nothing of them is told.
    #[error("the secrets in `{}` cannot be used: {reason}", path.display())]
    Secrets {
        /// The file.
        path: PathBuf,
        /// What is wrong, as a lowercase clause.
        reason: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A request that names nobody to encrypt to.
    #[error("`{request}` names no recipient")]
    Request {
        /// The file or the text.
        request: String,
    },
    /// A file that goes beside the configuration under a name that the agent
    /// does not read.
    #[error("`{}` cannot go onto a config disk under its name", path.display())]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// Two files that would be one on the config disk.
    #[error("`{}` would replace `{name}`, which goes onto the config disk too", path.display())]
    SameName {
        /// The later one.
        path: PathBuf,
        /// Its name on the medium.
        name: String,
    },
    /// The config disk would take the place of what it is made from.
    #[error("the config disk would replace `{}`, which it is made from", path.display())]
    Overwrites {
        /// The file.
        path: PathBuf,
    },
    /// More than the agent reads of a medium.
    #[error("{what} {found} {unit}; the appliance takes {most} at most")]
    TooMuch {
        /// What is too long or too many, with its verb.
        what: String,
        /// How much there is.
        found: u64,
        /// The limit.
        most: u64,
        /// Of what.
        unit: &'static str,
    },
    /// A bundle's name, version or role that the agent does not read.
    #[error("the {what} of a bundle cannot be `{}`", value.escape_default())]
    BundleName {
        /// `name`, `version` or `role`.
        what: &'static str,
        /// As it was given.
        value: String,
    },
    /// Something that cannot go into a bundle.
    #[error("`{}` {reason}", path.display())]
    BundleFile {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, as a clause without its subject.
        reason: &'static str,
    },
    /// The configuration could not be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The config disk cannot hold the files.
    #[error("cannot make the config disk")]
    Volume {
        /// What the file system said.
        #[from]
        source: FatError,
    },
    /// The config CD cannot hold the files.
    #[error("cannot make the config CD")]
    Cd {
        /// What the file system said.
        #[from]
        source: IsoError,
    },
    /// The config disk could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn count(problems: usize) -> String {
    match problems {
        1 => "1 error".into(),
        more => format!("{more} errors"),
    }
}

impl FactoryError {
    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Read { .. } => "site-read",
            Self::Image { source, .. } => source.slug(),
            Self::Site { .. } => "site-invalid",
            Self::Vendor { .. } => "role-invalid",
            Self::Signature { .. } => "policy-signature",
            Self::RoleFolder { .. } => "role-folder",
            Self::Template { .. } => "role-template",
            Self::Secrets { .. } => "secrets",
            Self::Request { .. } => "request",
            Self::Name { .. } => "medium-name",
            Self::SameName { .. } => "medium-same-name",
            Self::Overwrites { .. } => "config-disk-overwrites",
            Self::TooMuch { .. } => "medium-too-much",
            Self::BundleName { .. } => "bundle-name",
            Self::BundleFile { .. } => "bundle-file",
            Self::Sign(source) => source.slug(),
            Self::Volume { .. } => "config-disk",
            Self::Cd { .. } => "config-cd",
            Self::Write { .. } => "config-disk-write",
        }
    }

    /// What the reader can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Site { .. } => {
                Some("`consign config init` prints a sample with every key explained".into())
            }
            Self::RoleFolder { role, .. } => Some(format!("rename the folder to `{role}`")),
            Self::Template { .. } => Some("put the template beside role.toml".into()),
            Self::Secrets { hint, .. } => Some((*hint).into()),
            Self::Request { .. } => Some(
                "give the request.toml that the appliance wrote onto its config disk, or its recipient `age1...`".into(),
            ),
            Self::Name { .. } => Some(
                "name it with letters, digits, `.`, `_` and `-`, 64 at most".into(),
            ),
            Self::SameName { .. } => Some("give one of the two another name; capitals do not count".into()),
            Self::Overwrites { .. } => Some("name another file with `-o`".into()),
            Self::TooMuch { .. } => Some("leave something out, or make it shorter".into()),
            Self::BundleName { what, .. } => Some(match *what {
                "version" => "write visible ASCII, 64 at most".into(),
                _ => "write a small letter, then small letters, digits and `-`, 32 at most".into(),
            }),
            Self::Signature { .. } => Some(
                "sign it with `ssh-keygen -Y sign -n consign-policy -f KEY policy.toml`; usr/lib/consign/vendor.pub has the public keys, one a line".into(),
            ),
            Self::Image { source, .. } => source.hint(),
            Self::Sign(source) => source.hint(),
            Self::Volume { source } => source.hint(),
            Self::Cd { source } => source.hint(),
            Self::BundleFile { .. } => Some("leave it out of the folder".into()),
            Self::Read { .. } | Self::Vendor { .. } | Self::Write { .. } => None,
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::Write { .. } => ExitClass::Build,
            Self::Image { source, .. } => source.class(),
            Self::Sign(source) => source.class(),
            _ => ExitClass::Usage,
        }
    }

    /// The problems of a file with its name, where that is what is wrong.
    #[must_use]
    pub fn problems(&self) -> Option<(String, &[Problem])> {
        match self {
            Self::Site { file, problems } => Some((file.clone(), problems)),
            Self::Vendor { path, problems } => Some((path.display().to_string(), problems)),
            _ => None,
        }
    }
}
