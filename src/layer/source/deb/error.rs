//! What can go wrong between the host's apt sources and verified packages.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::exec::{ExecError, escape};
use crate::units::{ByteSize, ExitClass, Timestamp};

use super::openpgp::SignatureProblem;
use super::resolve::{Failure, Suggestion};

/// Why packages could not be resolved or fetched. Addresses in here never
/// hold credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The apt settings of the host could not be read.
    #[error("cannot read the host's apt settings")]
    AptSettings(#[source] ExecError),

    /// A file of the host: sources, keyrings, a `file:` repository.
    #[error("cannot read `{}`", path.display())]
    ReadHost {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// A line of the host's apt sources makes no sense.
    #[error("`{}` line {line}: {problem}", path.display())]
    SourcesSyntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// One clause.
        problem: String,
    },

    /// The host's apt has no source for the suite.
    #[error(
        "the apt sources of this host do not serve suite `{suite}`{}",
        also_serves(found)
    )]
    NoSource {
        /// What was asked for.
        suite: String,
        /// Suites that the host does have.
        found: Vec<String>,
    },

    /// `mirror = "…"` is no address.
    #[error("`{}` is not the address of a mirror", escape(mirror))]
    BadMirror {
        /// As written, credentials removed.
        mirror: String,
    },

    /// A proxy setting is no address.
    #[error("the proxy setting `{setting}` of the host is not an address")]
    BadProxy {
        /// Name of the apt setting or of the environment variable.
        setting: String,
    },

    /// No keys to check a suite with.
    #[error("there is no keyring to check suite `{suite}` with")]
    NoKeyring {
        /// The suite.
        suite: String,
        /// Where one was looked for.
        tried: Vec<PathBuf>,
    },

    /// A keyring could not be understood.
    #[error("`{name}` is not an OpenPGP keyring: {}", escape(problem))]
    BadKeyring {
        /// File, or where the inline key stands.
        name: String,
        /// One clause.
        problem: String,
    },

    /// The signature of a package list is not good.
    #[error("the package list of suite `{suite}` from {address} is not properly signed: {problem}")]
    Signature {
        /// The suite.
        suite: String,
        /// The repository.
        address: String,
        /// What is wrong with it.
        problem: SignatureProblem,
    },

    /// A Release file past its `Valid-Until`.
    #[error("the package list of suite `{suite}` from {address} expired on {valid_until}")]
    Expired {
        /// The suite.
        suite: String,
        /// The repository.
        address: String,
        /// Its `Valid-Until`.
        valid_until: Timestamp,
        /// The clock.
        now: Timestamp,
    },

    /// A Release file from the future.
    #[error(
        "the package list of suite `{suite}` from {address} is dated {date}, which is in the future"
    )]
    FromTheFuture {
        /// The suite.
        suite: String,
        /// The repository.
        address: String,
        /// Its `Date`.
        date: Timestamp,
        /// The clock.
        now: Timestamp,
    },

    /// The mirror served some other suite.
    #[error(
        "{address} answers suite `{asked}` with the package list of `{}`",
        escape(found)
    )]
    WrongSuite {
        /// What was asked for.
        asked: String,
        /// Codename and suite of the answer.
        found: String,
        /// The repository.
        address: String,
    },

    /// A Release or Packages file that is signed or pinned, but malformed.
    #[error("`{file}` of suite `{suite}` is malformed: {}", escape(problem))]
    Malformed {
        /// The suite.
        suite: String,
        /// File below the suite.
        file: String,
        /// One clause.
        problem: String,
    },

    /// The repository has no list for a component and architecture.
    #[error("suite `{suite}` from {address} has no packages for `{component}` on `{architecture}`")]
    NoIndex {
        /// The suite.
        suite: String,
        /// The repository.
        address: String,
        /// `main` and so on.
        component: String,
        /// `amd64` and so on.
        architecture: String,
    },

    /// No connection, or it broke again and again.
    #[error("cannot reach `{host}`: {}", escape(reason))]
    Unreachable {
        /// Host, and port when one is named.
        host: String,
        /// One clause.
        reason: String,
    },

    /// The server answered with an error.
    #[error("`{url}` cannot be fetched: the server says {status}")]
    Refused {
        /// The address.
        url: String,
        /// HTTP status code.
        status: u16,
    },

    /// The suite is not there.
    #[error("there is no suite `{suite}` at {address}")]
    NoSuite {
        /// The suite.
        suite: String,
        /// The addresses that were tried.
        address: String,
    },

    /// The network would be needed.
    #[error("{what} is not in the cache, and the build is offline")]
    Offline {
        /// What would be fetched.
        what: String,
    },

    /// A pinned package that no mirror has any more.
    #[error("package `{package}` {version} is locked, but gone from the mirror")]
    Gone {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// The suite that had it.
        suite: String,
        /// Its path.
        path: String,
    },

    /// A pin of a suite that no repository serves.
    #[error("package `{package}` is locked from suite `{suite}`, which is not among the sources")]
    StrayPin {
        /// The package.
        package: String,
        /// The suite.
        suite: String,
    },

    /// A file that has another digest than the signed or locked one.
    #[error("{what} has digest `{found}`, but `{expected}` is {by}")]
    WrongDigest {
        /// The file, with its address.
        what: String,
        /// `signed` or `locked`.
        by: &'static str,
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },

    /// A file that is longer or shorter than the signed or locked size.
    #[error("{what} has {found}, but {} bytes are {by}", expected.bytes())]
    WrongSize {
        /// The file, with its address.
        what: String,
        /// `signed` or `locked`.
        by: &'static str,
        /// What it should be.
        expected: ByteSize,
        /// What it is, in words.
        found: String,
    },

    /// A file of the cache could not be written or read.
    #[error("cannot use the cache file `{}`", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// A package name that no repository knows.
    #[error(
        "layer `{layer}` asks for package `{}`, which {suggestion}",
        escape(package)
    )]
    UnknownPackage {
        /// The layer.
        layer: String,
        /// As written.
        package: String,
        /// What there is instead.
        suggestion: Suggestion,
    },

    /// A wanted version or suite that is not there.
    #[error("layer `{layer}` asks for `{}`, but there is only {}", escape(wanted), available.join(", "))]
    NoSuchVersion {
        /// The layer.
        layer: String,
        /// As written.
        wanted: String,
        /// `VERSION (SUITE)`, newest first.
        available: Vec<String>,
    },

    /// A package file of the appliance is none.
    #[error("`{}` is not a package: {}", path.display(), escape(problem))]
    BadPackageFile {
        /// The file.
        path: PathBuf,
        /// One clause.
        problem: String,
    },

    /// A package file of the appliance is not the locked one.
    #[error("package `{package}` is locked, but `{}` is another file now", path.display())]
    FileChanged {
        /// The package.
        package: String,
        /// The file.
        path: PathBuf,
    },

    /// The packages do not go together.
    #[error("the packages cannot be installed together: {0}")]
    Unsatisfiable(Box<Failure>),
}

fn also_serves(found: &[String]) -> String {
    if found.is_empty() {
        ", nor any other".into()
    } else {
        format!(", only `{}`", escape(&found.join("`, `")))
    }
}

impl SourceError {
    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::AptSettings(_) => "source-apt-settings",
            Self::ReadHost { .. } => "source-read-host",
            Self::SourcesSyntax { .. } => "source-sources-syntax",
            Self::NoSource { .. } => "source-no-suite-on-host",
            Self::BadMirror { .. } => "source-bad-mirror",
            Self::BadProxy { .. } => "source-bad-proxy",
            Self::NoKeyring { .. } => "source-no-keyring",
            Self::BadKeyring { .. } => "source-bad-keyring",
            Self::Signature { .. } => "source-bad-signature",
            Self::Expired { .. } => "source-expired",
            Self::FromTheFuture { .. } => "source-from-the-future",
            Self::WrongSuite { .. } => "source-wrong-suite",
            Self::Malformed { .. } => "source-malformed",
            Self::NoIndex { .. } => "source-no-index",
            Self::Unreachable { .. } => "source-unreachable",
            Self::Refused { .. } => "source-refused",
            Self::NoSuite { .. } => "source-no-suite",
            Self::Offline { .. } => "source-offline",
            Self::Gone { .. } => "source-gone",
            Self::StrayPin { .. } => "source-stray-pin",
            Self::WrongDigest { .. } => "source-wrong-digest",
            Self::WrongSize { .. } => "source-wrong-size",
            Self::Cache { .. } => "source-cache",
            Self::UnknownPackage { .. } => "source-unknown-package",
            Self::NoSuchVersion { .. } => "source-no-such-version",
            Self::BadPackageFile { .. } => "source-bad-package-file",
            Self::FileChanged { .. } => "source-file-changed",
            Self::Unsatisfiable(_) => "source-unsatisfiable",
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::AptSettings(error) => error.class(),
            Self::Signature { .. }
            | Self::Expired { .. }
            | Self::FromTheFuture { .. }
            | Self::WrongSuite { .. }
            | Self::Malformed { .. }
            | Self::WrongDigest { .. }
            | Self::WrongSize { .. } => ExitClass::Verification,
            Self::NoSource { .. }
            | Self::BadMirror { .. }
            | Self::NoSuite { .. }
            | Self::UnknownPackage { .. }
            | Self::NoSuchVersion { .. }
            | Self::BadPackageFile { .. }
            | Self::FileChanged { .. }
            | Self::Unsatisfiable(_) => ExitClass::Usage,
            _ => ExitClass::Build,
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::AptSettings(error) => return error.hint(),
            Self::NoSource { .. } | Self::BadMirror { .. } => {
                "name a mirror of the suite in appliance.toml, for example mirror = \
                 \"https://mirror.example/debian\", or in CONSIGN_MIRROR"
            }
            Self::BadProxy { .. } => "write a proxy as http://HOST:PORT",
            Self::NoKeyring { .. } => {
                "install the archive's keys: apt-get install debian-archive-keyring"
            }
            Self::Signature { problem, .. } => return Some(problem.hint()),
            Self::Expired { .. } => {
                "check the clock of this machine, and choose a mirror that is up to date"
            }
            Self::FromTheFuture { .. } => "check the clock of this machine",
            Self::WrongSuite { .. } | Self::NoSuite { .. } => {
                "check `suite` and `mirror` in appliance.toml"
            }
            Self::Unreachable { reason, .. } if reason.contains("certificate") => {
                "let this machine trust who signed it (update-ca-certificates, or \
                 Acquire::https::CaInfo), or name another mirror in CONSIGN_MIRROR"
            }
            Self::Unreachable { .. } => {
                "check the network, set http_proxy or Acquire::http::Proxy, or name another \
                 mirror in CONSIGN_MIRROR"
            }
            Self::Refused { .. } => "name another mirror in CONSIGN_MIRROR",
            Self::Offline { .. } => "run `consign fetch` with a network first",
            Self::Gone { .. } => {
                "mirrors delete superseded packages: run `consign lock --update`, or delete \
                 appliance.lock"
            }
            Self::StrayPin { .. } => "run `consign lock --update`, or delete appliance.lock",
            Self::WrongDigest { .. } | Self::WrongSize { .. } => {
                "try again, or name another mirror in CONSIGN_MIRROR; nothing of it was kept"
            }
            Self::Cache { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room on that disk, or name another folder with --cache; nothing half-made \
                 was kept"
            }
            Self::Cache { .. } => {
                "check space and permissions, or name another folder with --cache"
            }
            Self::UnknownPackage { suggestion, .. } => return suggestion.hint(),
            Self::NoSuchVersion { .. } => "leave the version out to get the newest one",
            Self::BadPackageFile { .. } => "build the package with dpkg-deb, and check `debs`",
            Self::FileChanged { .. } => "run `consign lock`, or put the old file back",
            Self::Unsatisfiable(failure) => return Some(failure.hint()),
            _ => return None,
        };
        Some(text.into())
    }
}
