//! Debian packages: from the host's apt sources to verified files.
//!
//! In: the names that the layers ask for, the host's apt sources and keys, the
//! clock as an argument. Out: exact pins, and later the pinned files. Never
//! here: installing, the clock itself, the environment, a decision of the plan.
//! Checked by: gpgv, `dpkg --compare-versions`, and apt's own simulation
//! (`tests/it/formats/deb.rs`).
//!
//! The way of trust, each step refusing what the one before did not name:
//!
//! ```text
//! keyring of the host ─openpgp→ InRelease ─release→ digest of Packages
//!   ─index→ digest of each .deb ─resolve→ lock ─fetch→ file in the cache
//! ```
//!
//! | file | from | to |
//! |---|---|---|
//! | `apt` | the host's files and settings | [`SourceEntry`]s, [`AptSettings`] |
//! | `host` | sources, suite, `mirror` | [`Repository`]s |
//! | `transport`, `proxy`, `address` | an address | bytes |
//! | `openpgp` | a signed message and a keyring | its text; or a verdict over a file |
//! | `packed` | packed lists | their plain text, within bounds |
//! | `lists`, `release`, `index` | repositories | all their packages |
//! | `local` | package files | their packages |
//! | `resolve`, `relation`, `version` | a request and all packages | pins |
//! | `source` | packages | the files of their source packages |
//! | `fetch` | pins | files |
//!
//! Addresses never reach a pin or a lock: a pin names its suite, and the
//! repositories of that suite are asked for it.

use std::path::{Path, PathBuf};

use crate::report::Reporter;
use crate::units::Timestamp;

mod address;
mod apt;
mod error;
mod fetch;
mod host;
#[cfg(test)]
mod hostile;
mod index;
mod lists;
mod local;
mod openpgp;
mod packed;
mod pattern;
mod proxy;
mod relation;
mod release;
mod resolve;
mod source;
mod stanza;
mod transport;
mod version;

pub use address::Address;
pub use apt::{
    AptSettings, HostEnvironment, SourceEntry, Trust, ValidTime, read_settings, read_sources,
};
pub use error::SourceError;
pub use fetch::{fetch, is_cached};
pub use host::{OwnSource, choose_repositories, host_repositories, own_repositories};
pub use local::LocalPackage;
pub use openpgp::{Certificate, SignatureProblem};
pub use proxy::{Proxies, ProxyRule};
pub use resolve::{
    Base, Chosen, Failure, Held, LayerRequest, Obstacle, Offer, ReleaseFacts, Request, Resolution,
    ResolvedLayer, Root, Step, Suggestion, resolve,
};
pub use source::{FoundSources, WantedSource, fetch_sources, find_sources};
pub use transport::{Client, Network};
pub use version::Version;

/// One suite of one archive, and how to trust it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// What pins call it: its suite, or the name of an own repository.
    pub label: String,
    /// Suite as it is asked for: `bookworm`, `bookworm-security`; with a slash
    /// at its end it is the folder itself, without components.
    pub suite: String,
    /// Where it is. The next one counts only where one before does not have
    /// the file; one that cannot be reached is an error.
    pub addresses: Vec<Address>,
    /// `main` and so on.
    pub components: Vec<String>,
    /// Whose signature counts.
    pub keys: Keys,
    /// Whether a signature is needed.
    pub trust: Trust,
    /// Whether an old list is refused.
    pub expiry: Expiry,
    /// How long a list counts, whatever it says of itself.
    pub valid_time: ValidTime,
    /// What it means when no address has the suite.
    pub presence: Presence,
    /// Which of its packages count, and how much.
    pub preference: Preference,
}

impl Repository {
    /// The folder of its lists below its address, without a slash at the end;
    /// empty for the address itself.
    pub(crate) fn folder(&self) -> String {
        match self.suite.strip_suffix('/') {
            Some(folder) => folder.trim_start_matches("./").trim_matches('.').to_owned(),
            None => format!("dists/{}", self.suite),
        }
    }

    /// Whether its list is beside its Release file, without components.
    pub(crate) fn is_flat(&self) -> bool {
        self.suite.ends_with('/')
    }
}

/// How much the packages of a repository count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preference {
    /// As apt's; `None`: what its Release file asks for, else 500.
    pub priority: Option<i32>,
    /// If not empty: only names that fit one of these patterns.
    pub packages: Vec<String>,
}

/// Whose signature counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// Keyrings, armored or not.
    pub files: Vec<PathBuf>,
    /// Armored keys that stood in the sources themselves.
    pub inline: Vec<String>,
    /// If not empty: only these keys of the keyrings, upper-case hex.
    pub fingerprints: Vec<String>,
}

/// Whether `Valid-Until` and `Date` are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// An expired list is refused, and one from the future.
    Checked,
    /// The host's apt does not check it either; a warning says so.
    Ignored,
}

/// Whether a suite must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is an error if it is not.
    Required,
    /// A warning says so if it is not.
    Optional,
}

/// What resolving and fetching need besides the question.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// Fetches; shared so that connections are kept.
    pub client: &'a Client,
    /// The cache folder; `debs`, `lists` and `releases` are made below it.
    pub cache: &'a Path,
    /// The clock, for expiry. Only the plan reads it.
    pub now: Timestamp,
    /// Who is told.
    pub reporter: &'a dyn Reporter,
}
