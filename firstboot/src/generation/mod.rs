//! A configuration, rendered whole, kept as a generation.
//!
//! In: the [`Item`]s that the steps decided on. Out: a folder on `/var` with
//! the customer's file, the rendered files and a manifest that names them by
//! digest; and, once it counts, a system that has them all.
//! Never here: decisions, and a fence lifted before everything is in place.
//! Checked by: unit tests; a sweep that kills, fills and breaks every file
//! call; replayed power cuts.
//!
//! ```text
//! stage -> commit (one record, `State`) -> activate, again until it is done
//! ```
//!
//! Going back is the same with an older generation: the record names it, and
//! putting it in place takes away what only the newer one had.

mod activate;
mod manifest;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

pub use activate::Activation;

use crate::bundle::{GONE, RELEASES};
use crate::digest::Digest;
use crate::item::Item;
use crate::root::{Access, Root};
use crate::secrets::ENTERED;
use crate::state::{Name, Phase, State, Then};

const FOLDER: &str = "/var/lib/consign/gen";
/// What [`FOLDER`] is called while a reset removes it.
const REMOVED: &str = "/var/lib/consign/gen.removed";
/// Written when everything is in place; units behind the fence ask for it.
pub const CONFIGURED: &str = "/run/consign/configured";
/// A rendered file is never longer.
const MAX_FILE: usize = 4 << 20;

/// A rendered configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generation {
    /// The customer's file.
    pub site: Vec<u8>,
    /// `config.id`.
    pub id: String,
    /// `config.serial`.
    pub serial: u64,
    /// The role, if the image has any.
    pub role: Option<String>,
    /// The build of the image that it was rendered for.
    pub image: String,
    /// The customer's `secrets.age`, still encrypted.
    pub secrets: Option<Vec<u8>>,
    /// The customer's licence.
    pub license: Option<Vec<u8>>,
    /// Names of credentials, and of their entries in `secrets`.
    pub credentials: BTreeMap<String, String>,
    /// Keys that the next configuration must be signed by; none: any may come
    /// with the claim code.
    pub keys: Vec<String>,
    /// The bundles that it uses, by digest, and the role that each is for; no
    /// role: for every one.
    pub releases: BTreeMap<String, Option<String>>,
    /// The pieces, in the order in which they are put in place.
    pub items: Vec<Item>,
    /// What older configurations had and this one has not: what stands there
    /// instead. Kept on, since a slot may be older than all of them.
    pub retired: Vec<Item>,
    /// What the image had where this configuration has something.
    pub originals: Vec<Item>,
}

/// Why a generation cannot be used.
#[derive(Debug)]
pub enum GenerationError {
    /// It is not what was committed.
    Damaged(u32),
    /// It cannot be read.
    Unread {
        /// Its number.
        number: u32,
        /// Why.
        source: io::Error,
    },
    /// A piece could not be put in place.
    Put {
        /// Which.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// A hook of the role's failed.
    Hook(io::Error),
    /// The record of the state could not be written.
    State(io::Error),
    /// It could not be kept.
    Stage(io::Error),
}

impl fmt::Display for GenerationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(number) => write!(f, "the kept configuration {number} is damaged"),
            Self::Unread { number, source } => {
                write!(
                    f,
                    "the kept configuration {number} cannot be read: {source}"
                )
            }
            Self::Put { place, source } => write!(f, "{place} cannot be written: {source}"),
            Self::Hook(error) => error.fmt(f),
            Self::State(error) => write!(f, "the state cannot be written: {error}"),
            Self::Stage(error) => write!(f, "the configuration cannot be kept: {error}"),
        }
    }
}

impl Generation {
    /// The digest of the customer's file: what a configuration is known by.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.site)
    }

    /// Identifiers of its data disks' file systems, by the disks' names.
    pub fn disk_ids(&self) -> BTreeMap<String, String> {
        let disks = self.items.iter().filter_map(|item| match item {
            Item::DataDisk(disk) => Some((disk.name.clone(), disk.uuid.clone())),
            _ => None,
        });
        disks.collect()
    }

    /// Numbers of its accounts, by name, and of those that older ones had: what
    /// these own stays, and is nobody else's.
    pub fn account_ids(&self) -> BTreeMap<String, u32> {
        let accounts = self.items.iter().filter_map(|item| match item {
            Item::Account(account) => Some((account.name.clone(), account.id)),
            _ => None,
        });
        let mut ids: BTreeMap<String, u32> = accounts.collect();
        for item in &self.retired {
            if let Item::NoAccount { name, id } = item
                && !ids.values().any(|other| other == id)
            {
                ids.entry(name.clone()).or_insert(*id);
            }
        }
        ids
    }

    /// Keeps it as the one after `before` and makes it count. What `before`
    /// had and this one has not is taken note of.
    ///
    /// # Errors
    ///
    /// [`GenerationError::Stage`] and [`GenerationError::State`]; what counted
    /// before counts then.
    pub fn commit(
        &mut self,
        root: &Root,
        before: Option<(&State, &Self)>,
        then: Then,
    ) -> Result<State, GenerationError> {
        let seen = before.map(|(state, generation)| generation.with_left(root, state));
        let seen = seen.transpose().map_err(GenerationError::Stage)?;
        self.follow(root, seen.as_ref())
            .map_err(GenerationError::Stage)?;
        let previous = before.map(|(state, _)| state.generation);
        let numbers = before.map(|(state, _)| {
            let older = state.previous.map_or(0, |name| name.number);
            state.generation.number.max(older)
        });
        let number = numbers.unwrap_or(0) + 1;
        let manifest = self.stage(root, number).map_err(GenerationError::Stage)?;
        let mut state = State {
            sequence: before.map_or(0, |(state, _)| state.sequence),
            generation: Name::of(number, &manifest),
            previous,
            phase: Phase::Committed,
            then,
            serial_floor: before.map_or(0, |(state, _)| state.serial_floor),
        };
        state.save(root).map_err(GenerationError::State)?;
        Ok(state)
    }

    /// Writes all of it; the digest of the manifest, which is written last.
    fn stage(&self, root: &Root, number: u32) -> io::Result<Digest> {
        let folder = folder(number);
        let private = |path: &str, bytes: &[u8]| root.put(path, bytes, Access::own(0o600));
        // What a cut left there was never committed.
        root.remove_tree(&folder)?;
        root.put_directory(&folder, Access::own(0o700))?;
        let lists = [&self.items, &self.retired, &self.originals];
        for item in lists.into_iter().flatten() {
            if let Item::File { bytes, .. } = item {
                private(&format!("{folder}/files/{}", Digest::of(bytes)), bytes)?;
            }
        }
        for bytes in [&self.secrets, &self.license].into_iter().flatten() {
            private(&format!("{folder}/files/{}", Digest::of(bytes)), bytes)?;
        }
        private(&format!("{folder}/site.toml"), &self.site)?;
        let manifest = manifest::text(self);
        if manifest.len() > manifest::MAX_MANIFEST {
            // Nobody would read it again.
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        private(&format!("{folder}/manifest.toml"), manifest.as_bytes())?;
        Ok(Digest::of(manifest.as_bytes()))
    }

    /// The generation that counts.
    ///
    /// # Errors
    ///
    /// [`GenerationError::Damaged`] when it is not what was committed,
    /// [`GenerationError::Unread`] when the system does not say.
    pub fn load(root: &Root, state: &State) -> Result<Self, GenerationError> {
        Self::named(root, state.generation)
    }

    /// The generation to go back to, if there is one and it is whole.
    ///
    /// # Errors
    ///
    /// [`GenerationError::Unread`].
    pub fn previous(root: &Root, state: &State) -> Result<Option<Self>, GenerationError> {
        match state.previous.map(|name| Self::named(root, name)) {
            None | Some(Err(GenerationError::Damaged(_))) => Ok(None),
            Some(found) => found.map(Some),
        }
    }

    /// What is left of the generation that counts, when it is damaged: what its
    /// manifest says, without the customer's file. Where the manifest is
    /// damaged too, nothing is, not even an `id`. It is never put in place.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn salvaged(root: &Root, state: &State) -> io::Result<Self> {
        let name = state.generation;
        let found = manifest::salvage(root, name.number, name.manifest)?;
        Ok(found.unwrap_or_default())
    }

    fn named(root: &Root, name: Name) -> Result<Self, GenerationError> {
        let number = name.number;
        let found = manifest::read(root, number, name.manifest)
            .map_err(|source| GenerationError::Unread { number, source })?;
        found.ok_or(GenerationError::Damaged(number))
    }

    /// The newest that is whole, where no record says which one counts.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn newest(root: &Root) -> io::Result<Option<Name>> {
        // Names sort as their numbers do.
        for name in root.list(FOLDER)?.iter().rev() {
            let Ok(number) = name.parse() else {
                continue;
            };
            if let Some(name) = manifest::name(root, number)?
                && Self::named(root, name).is_ok()
            {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Removes every generation but the one that counts and the one before.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn prune(root: &Root, state: &State) -> io::Result<()> {
        let names = [Some(state.generation), state.previous];
        let names: Vec<Name> = names.into_iter().flatten().collect();
        let kept: BTreeSet<String> = names.iter().map(|name| folder(name.number)).collect();
        for name in root.list(FOLDER)? {
            let path = format!("{FOLDER}/{name}");
            if !kept.contains(&path) {
                root.remove_tree(&path)?;
            }
        }
        Ok(())
    }

    /// Removes every release that neither the generation that counts nor the
    /// one before uses.
    ///
    /// # Errors
    ///
    /// What the system reports, and when one of the two cannot be read.
    pub fn prune_releases(root: &Root, state: &State) -> io::Result<()> {
        let found = root.list(RELEASES)?;
        if found.is_empty() {
            return Ok(());
        }
        // A cut in the middle of a removal leaves it under a name that no
        // release has: half of one is never taken for one.
        root.remove_tree(GONE)?;
        let other = |error: GenerationError| io::Error::other(error.to_string());
        let mut kept = Self::load(root, state).map_err(other)?.releases;
        if let Some(previous) = Self::previous(root, state).map_err(other)? {
            kept.extend(previous.releases);
        }
        let is_release = |name: &&String| !name.starts_with('.');
        for name in found.iter().filter(is_release) {
            if !kept.contains_key(name) {
                root.rename(&format!("{RELEASES}/{name}"), GONE)?;
                root.remove_tree(GONE)?;
            }
        }
        Ok(())
    }

    /// Removes what somebody entered at the machine, and neither the generation
    /// that counts nor the one before asks for.
    ///
    /// # Errors
    ///
    /// What the system reports, and when one of the two cannot be read.
    pub fn prune_entered(root: &Root, state: &State) -> io::Result<()> {
        let found = root.list(ENTERED)?;
        if found.is_empty() {
            return Ok(());
        }
        let other = |error: GenerationError| io::Error::other(error.to_string());
        let counting = Self::load(root, state).map_err(other)?;
        let previous = Self::previous(root, state).map_err(other)?;
        let asks = |generation: &Self, name: &str| {
            generation
                .credentials
                .get(name)
                .is_some_and(String::is_empty)
        };
        for name in found {
            if !asks(&counting, &name) && !previous.iter().any(|it| asks(it, &name)) {
                root.remove(&format!("{ENTERED}/{name}"))?;
            }
        }
        Ok(())
    }

    /// Removes all of them, for a factory reset: at once, as one that lacks
    /// some of its files would put back what the image never had.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn remove_all(root: &Root) -> io::Result<()> {
        root.remove_tree(REMOVED)?;
        if root.exists(FOLDER) {
            root.rename(FOLDER, REMOVED)?;
        }
        root.remove_tree(REMOVED)
    }
}

fn folder(number: u32) -> String {
    format!("{FOLDER}/{number:04}")
}

#[cfg(test)]
mod tests;
