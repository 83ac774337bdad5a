//! What was verified before, so that an older release is noticed.
//!
//! One line an appliance: `name version epoch sha256:…`, sorted by name; the
//! digest is the manifest's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::ReleaseError;
use super::signing::read_small;
use super::verify::{Policy, Verified};
use crate::artifact::write_file;

const HEAD: &str = "consign verified releases v1";
const MAX_STATE: u64 = 1 << 20;

/// The newest release of each appliance that was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State(BTreeMap<String, Known>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    version: String,
    epoch: i64,
    digest: String,
}

impl State {
    /// Reads the file; one that is not there knows nothing.
    ///
    /// # Errors
    ///
    /// [`ReleaseError::Read`]; [`ReleaseError::State`] for another text: it is
    /// not forgotten what was known.
    pub fn open(path: &Path) -> Result<Self, ReleaseError> {
        if path
            .symlink_metadata()
            .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
        {
            return Ok(Self::default());
        }
        let bytes = read_small(path, MAX_STATE)?;
        let text = String::from_utf8_lossy(&bytes);
        Self::parse(&text).ok_or_else(|| ReleaseError::State {
            path: path.to_owned(),
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return None;
        }
        let mut state = Self::default();
        for line in lines {
            let mut words = line.split(' ').map(str::to_owned);
            let name = words.next()?;
            let known = Known {
                version: words.next()?,
                epoch: words.next()?.parse().ok()?,
                digest: words.next()?,
            };
            state.0.insert(name, known);
        }
        Some(state)
    }

    /// Demands of `policy` that the release `name` is not older than what is known.
    pub fn tighten(&self, name: &str, policy: &mut Policy) {
        let Some(known) = self.0.get(name) else {
            return;
        };
        let older = |version: &String| super::verify::is_older(&known.version, version);
        if !policy.not_older_than.as_ref().is_some_and(older) {
            policy.not_older_than = Some(known.version.clone());
        }
        policy.not_before = policy.not_before.max(Some(known.epoch));
    }

    /// Remembers a release.
    pub fn learn(&mut self, verified: &Verified) {
        let known = Known {
            version: verified.manifest.version.clone(),
            epoch: verified.manifest.epoch,
            digest: verified.digest.to_string(),
        };
        self.0.insert(verified.manifest.name.clone(), known);
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    ///
    /// [`ReleaseError::Write`].
    pub fn save(&self, path: &Path) -> Result<(), ReleaseError> {
        let mut text = format!("{HEAD}\n");
        for (name, known) in &self.0 {
            let Known {
                version,
                epoch,
                digest,
            } = known;
            writeln!(text, "{name} {version} {epoch} {digest}").expect("a string takes all");
        }
        write_file(path, text.as_bytes()).map_err(|source| ReleaseError::Write {
            path: path.to_owned(),
            source,
        })
    }
}
