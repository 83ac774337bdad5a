//! What can go wrong on the way to archives and images elsewhere.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::exec::escape;
use crate::layer::source::deb::SourceError;
use crate::layer::source::oci::OciError;
use crate::units::ExitClass;

/// Why something did not come, or could not be brought. Addresses in here
/// never hold credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// Not an address that can be asked.
    #[error("`{}` is not an address", escape(url))]
    Address {
        /// As written, credentials removed.
        url: String,
    },
    /// Not the name of an image.
    #[error("`{}` is not an image of a registry: {why}", escape(reference))]
    Reference {
        /// As written.
        reference: String,
        /// One clause.
        why: &'static str,
    },
    /// No connection, or it broke.
    #[error("cannot reach `{host}`: {}", escape(reason))]
    Unreachable {
        /// Host, and port when one is named.
        host: String,
        /// One clause.
        reason: String,
    },
    /// The server answered with an error.
    #[error("{what} cannot be had: the server says {status}{}", clause(detail))]
    Refused {
        /// What was asked for.
        what: String,
        /// HTTP status code.
        status: u16,
        /// The server's own words.
        detail: String,
    },
    /// Not there.
    #[error("{what} does not exist")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The registry wants somebody else.
    #[error("registry `{registry}` does not let {} {what}", who(*has_login))]
    Login {
        /// The registry.
        registry: String,
        /// What was tried: `read team/app`.
        what: String,
        /// Whether there was a login to show.
        has_login: bool,
    },
    /// The registry sends the login to a place that must not have it.
    #[error(
        "registry `{registry}` asks for the login at `{}`, in clear",
        escape(realm)
    )]
    Realm {
        /// The registry.
        registry: String,
        /// Where it sends us.
        realm: String,
    },
    /// The network would be needed.
    #[error("{what} is not in the cache, and the build is offline")]
    Offline {
        /// What would be fetched.
        what: String,
    },
    /// Other bytes than those that were asked for.
    #[error("{what} has digest `{found}`, but `{expected}` is pinned")]
    WrongDigest {
        /// The file, with its address.
        what: String,
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// Longer or shorter than it should be.
    #[error("{what} has {found}, but {expected} are expected")]
    WrongSize {
        /// The file, with its address.
        what: String,
        /// What it should be.
        expected: u64,
        /// What it is, in words.
        found: String,
    },
    /// An index, or something else that holds no layers.
    #[error("`{digest}` in {repository} is a list of images, not an image")]
    NotAnImage {
        /// Which manifest.
        digest: Digest,
        /// Where.
        repository: String,
    },
    /// A registry that does not keep to the protocol.
    #[error(
        "registry `{registry}` gives an answer that makes no sense: {}",
        escape(reason)
    )]
    Answer {
        /// The registry.
        registry: String,
        /// One clause.
        reason: String,
    },
    /// A file of the cache.
    #[error("cannot use the cache file `{}`", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What came is malformed.
    #[error(transparent)]
    Image(#[from] OciError),
    /// The host's settings of the network.
    #[error(transparent)]
    Settings(#[from] SourceError),
}

fn clause(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(": {}", escape(detail))
    }
}

fn who(has_login: bool) -> &'static str {
    if has_login {
        "this login"
    } else {
        "a stranger"
    }
}

impl RemoteError {
    pub(super) fn cache(path: &Path, source: io::Error) -> Self {
        Self::Cache {
            path: path.to_owned(),
            source,
        }
    }

    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Address { .. } => "remote-address",
            Self::Reference { .. } => "remote-reference",
            Self::Unreachable { .. } => "remote-unreachable",
            Self::Refused { .. } => "remote-refused",
            Self::NotFound { .. } => "remote-not-found",
            Self::Login { .. } => "registry-login",
            Self::Realm { .. } => "registry-realm",
            Self::Offline { .. } => "remote-offline",
            Self::WrongDigest { .. } => "remote-digest",
            Self::WrongSize { .. } => "remote-size",
            Self::NotAnImage { .. } => "remote-not-an-image",
            Self::Answer { .. } => "registry-answer",
            Self::Cache { .. } => "remote-cache",
            Self::Image(error) => error.slug(),
            Self::Settings(error) => error.slug(),
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::Address { .. } | Self::Reference { .. } => ExitClass::Usage,
            Self::WrongDigest { .. } | Self::WrongSize { .. } => ExitClass::Verification,
            Self::Image(error) => error.class(),
            Self::Settings(error) => error.class(),
            _ => ExitClass::Build,
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Unreachable { .. } => {
                "look at the network, and at the proxy in http_proxy or https_proxy"
            }
            Self::Login { .. } => {
                "log in with `docker login`, `podman login` or `skopeo login`: consign reads \
                 `auths` of docker's config.json, not credential helpers"
            }
            Self::Realm { .. } => "do not use this registry",
            Self::Offline { .. } => "build once without --offline, or run `consign fetch`",
            Self::WrongDigest { .. } | Self::WrongSize { .. } => {
                "find out why it has changed; if the change is meant, write the new digest into \
                 `layer.toml`, or run `consign lock`"
            }
            Self::NotFound { .. } => "look at the name, and whether it has been removed there",
            Self::Image(error) => return error.hint(),
            Self::Settings(error) => return error.hint(),
            _ => return None,
        };
        Some(text.to_owned())
    }
}
