//! Keeping the cache in order: what is in it, whether it is sound, and what
//! of it can go.
//!
//! In: the cache folder. Out: what was found and done. A build holds the
//! store's lock while it works; while one does, only layers that have not been
//! used for a day go, as a build marks what it uses. Nothing here can break a
//! build: what is gone is made or fetched again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use super::LayerError;
use super::package::is_sound_plain;
use super::store::{Record, Store};
use crate::digest::{Digest, Hasher};
use crate::report::{Event, Outcome, Reporter, Unit};
use crate::tree::list_folder;
use crate::units::{ByteSize, Timestamp};

/// While a build lives, what was used since is left alone, in seconds.
const SPARED: i64 = 24 * 60 * 60;

/// What a thing in the cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A finished layer: its record and its tar.
    Layer,
    /// A package, as it was fetched.
    Package,
    /// A package, decompressed.
    PlainPackage,
    /// An archive of a `tar` layer.
    Archive,
    /// A blob of an image.
    ImageBlob,
    /// Packed clusters of earlier images.
    Clusters,
}

impl Kind {
    /// All of them, in the order of lists.
    pub const ALL: [Self; 6] = [
        Self::Layer,
        Self::Package,
        Self::PlainPackage,
        Self::Archive,
        Self::ImageBlob,
        Self::Clusters,
    ];

    /// A noun for lists.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Package => "package",
            Self::PlainPackage => "plain package",
            Self::Archive => "archive",
            Self::ImageBlob => "image blob",
            Self::Clusters => "clusters",
        }
    }

    /// The folder of files whose names say what they are; layers have two.
    fn folder(self) -> Option<&'static str> {
        match self {
            Self::Layer => None,
            Self::Package => Some("debs"),
            Self::PlainPackage => Some("plain"),
            Self::Archive => Some("archives"),
            Self::ImageBlob => Some("oci/blobs/sha256"),
            Self::Clusters => Some("clusters"),
        }
    }
}

/// One thing in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// What it is.
    pub kind: Kind,
    /// What it is filed under.
    pub name: String,
    /// For people: the packages of a layer, for example.
    pub about: String,
    /// Bytes that it takes.
    pub size: ByteSize,
    /// When it was made, fetched or used last.
    pub used: Timestamp,
    #[serde(skip)]
    files: Vec<PathBuf>,
}

/// Everything in the cache, by kind and name.
///
/// # Errors
///
/// [`LayerError::Store`] when a folder cannot be listed.
pub fn list(store: &Store) -> Result<Vec<Held>, LayerError> {
    let mut held = layers(store)?;
    for kind in Kind::ALL {
        let Some(name) = kind.folder() else { continue };
        let folder = store.folder().join(name);
        for entry in listed(&folder)? {
            if entry.metadata.is_file() {
                held.push(Held {
                    kind,
                    name: entry.name.to_string_lossy().into_owned(),
                    about: String::new(),
                    size: ByteSize::from_bytes(entry.metadata.len()),
                    used: Timestamp::from_seconds(entry.metadata.mtime()),
                    files: vec![entry.path],
                });
            }
        }
    }
    Ok(held)
}

/// Layers, and tars that no record names.
fn layers(store: &Store) -> Result<Vec<Held>, LayerError> {
    let tars = listed(&store.folder().join("blobs/sha256"))?;
    let mut unnamed: BTreeMap<String, (PathBuf, u64, i64)> = tars
        .into_iter()
        .map(|tar| {
            let facts = (tar.path, tar.metadata.len(), tar.metadata.mtime());
            (tar.name.to_string_lossy().into_owned(), facts)
        })
        .collect();
    let mut named = BTreeSet::new();
    let mut held = Vec::new();
    for entry in listed(&store.folder().join("layers"))? {
        let mut one = Held {
            kind: Kind::Layer,
            name: entry.name.to_string_lossy().into_owned(),
            about: "a record that is none".into(),
            size: ByteSize::from_bytes(entry.metadata.len()),
            used: Timestamp::from_seconds(entry.metadata.mtime()),
            files: vec![entry.path.clone()],
        };
        if let Some(record) = Record::open(&entry.path) {
            let hex = record.diff_id.0.hex();
            one.about = about(&record);
            // A tar that two records share is counted once.
            if named.insert(hex.clone())
                && let Some((_, length, _)) = unnamed.get(&hex)
            {
                one.size = ByteSize::from_bytes(one.size.bytes() + length);
            }
        }
        held.push(one);
    }
    unnamed.retain(|hex, _| !named.contains(hex));
    held.extend(
        unnamed
            .into_iter()
            .map(|(hex, (path, length, mtime))| Held {
                kind: Kind::Layer,
                name: hex,
                about: "a tar that no record names".into(),
                size: ByteSize::from_bytes(length),
                used: Timestamp::from_seconds(mtime),
                files: vec![path],
            }),
    );
    Ok(held)
}

fn about(record: &Record) -> String {
    match record.packages.as_slice() {
        [] => "no packages".into(),
        [one] => one.name.clone(),
        [first, ..] => format!("{} packages, {} …", record.packages.len(), first.name),
    }
}

fn listed(folder: &Path) -> Result<Vec<crate::tree::HostEntry>, LayerError> {
    match list_folder(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(LayerError::Store {
            action: "list",
            path: folder.to_owned(),
            source,
        }),
        Ok(entries) => Ok(entries),
    }
}

/// What is wrong with a thing in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// What it is.
    pub kind: Kind,
    /// What it is filed under.
    pub name: String,
    /// One clause.
    pub problem: String,
}

/// What [`verify`] has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Things whose every byte was looked at.
    pub sound: usize,
    /// Their size.
    pub bytes: u64,
    /// What was wrong, and is gone.
    pub dropped: Vec<Damage>,
}

/// Digests everything anew, and drops what is not what its name says.
/// Clusters are left out: they are checked whenever they are used.
///
/// # Errors
///
/// [`LayerError::Store`] when something cannot be read or removed.
pub fn verify(store: &Store, reporter: &dyn Reporter) -> Result<Verified, LayerError> {
    const STEP: &str = "cache verify";
    reporter.started(STEP);
    let all = list(store)?;
    let total: u64 = all.iter().map(|held| held.size.bytes()).sum();
    let mut verified = Verified::default();
    let mut done = 0;
    for held in &all {
        let problem = match held.kind {
            Kind::Clusters => None,
            Kind::Layer => problem_of_layer(store, held)?,
            Kind::PlainPackage => problem_of_plain(held),
            Kind::Package | Kind::Archive | Kind::ImageBlob => problem_of_file(held)?,
        };
        match problem {
            None => {
                verified.sound += 1;
                verified.bytes += held.size.bytes();
            }
            Some(problem) => {
                for file in &held.files {
                    remove(file)?;
                }
                verified.dropped.push(Damage {
                    kind: held.kind,
                    name: held.name.clone(),
                    problem,
                });
            }
        }
        done += held.size.bytes();
        reporter.event(Event::Progress {
            step: STEP.into(),
            done,
            total: Some(total),
            unit: Unit::Bytes,
        });
    }
    let detail = format!(
        "{} sound, {} dropped",
        verified.sound,
        verified.dropped.len()
    );
    reporter.finished(STEP, Outcome::Done, detail);
    Ok(verified)
}

fn problem_of_layer(store: &Store, held: &Held) -> Result<Option<String>, LayerError> {
    let Some(file) = held.files.first() else {
        return Ok(None);
    };
    if file.extension().is_none() {
        // It may be on its way into the store: only damage counts.
        return problem_of_file(held);
    }
    let Some(record) = Record::open(file) else {
        return Ok(file
            .exists()
            .then(|| "its record is damaged, or of another consign".to_owned()));
    };
    let is_filed = file
        .file_stem()
        .is_some_and(|stem| *stem == *record.key.0.hex());
    if !is_filed {
        return Ok(Some("its record is filed under another key".into()));
    }
    let tar = store.blob_path(&record.diff_id);
    match digest_of(&tar)? {
        None => Ok(Some("its tar is missing".into())),
        Some(found) if found != record.diff_id.0 => {
            remove(&tar)?;
            Ok(Some(format!("its tar has digest {found}")))
        }
        Some(_) => {
            let is_its_own = File::open(&tar).and_then(|tar| record.is_of(&tar));
            let is_its_own = is_its_own.map_err(|source| LayerError::Store {
                action: "read",
                path: tar,
                source,
            })?;
            Ok((!is_its_own).then(|| "its record is of another tar".to_owned()))
        }
    }
}

/// The name is the digest of the package, and the file has its own inside.
fn problem_of_plain(held: &Held) -> Option<String> {
    let (deb, file) = (Digest::parse(&held.name)?, held.files.first()?);
    let is_sound = is_sound_plain(file, &deb);
    // It may have been trimmed meanwhile: only damage counts.
    (!is_sound && file.exists()).then(|| "its digest is another one".into())
}

/// The name is the digest, with or without an ending.
fn problem_of_file(held: &Held) -> Result<Option<String>, LayerError> {
    let stem = held.name.split('.').next().unwrap_or_default();
    let (Some(expected), Some(file)) = (Digest::parse(stem), held.files.first()) else {
        // Something that is being written, or that is not ours.
        return Ok(None);
    };
    Ok(match digest_of(file)? {
        Some(found) if found != expected => Some(format!("it has digest {found}")),
        _ => None,
    })
}

/// `None` for a file that is gone.
fn digest_of(path: &Path) -> Result<Option<Digest>, LayerError> {
    let failed = |source| LayerError::Store {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let mut hasher = Hasher::new();
    io::copy(&mut file, &mut hasher).map_err(failed)?;
    Ok(Some(hasher.finish()))
}

fn remove(path: &Path) -> Result<(), LayerError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LayerError::Store {
            action: "remove",
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

/// How much may stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// At most so much altogether, the least used going first.
    pub size: Option<ByteSize>,
    /// Nothing that was not used since.
    pub used_since: Option<Timestamp>,
    /// Says what would go, and leaves it.
    pub is_rehearsal: bool,
}

/// What [`trim`] has done, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Trimmed {
    /// What went.
    pub removed: Vec<Held>,
    /// Bytes that it took.
    pub freed: u64,
    /// Bytes that stay.
    pub left: u64,
    /// Whether a build is using the cache: only old layers went then.
    pub is_in_use: bool,
}

/// Removes what is over the limits, oldest use first.
///
/// # Errors
///
/// [`LayerError::Store`] when something cannot be listed or removed.
pub fn trim(store: &Store, limits: &Limits, now: Timestamp) -> Result<Trimmed, LayerError> {
    let lock = store.use_lock()?;
    let is_in_use = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err();
    let mut all = list(store)?;
    // Oldest first; of the same age the larger first.
    all.sort_by(|a, b| {
        let key = |held: &Held| (held.used, std::cmp::Reverse(held.size.bytes()));
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
    let mut left: u64 = all.iter().map(|held| held.size.bytes()).sum();
    let mut trimmed = Trimmed {
        is_in_use,
        ..Trimmed::default()
    };
    for held in all {
        let is_over = limits.size.is_some_and(|size| left > size.bytes());
        let is_old = limits.used_since.is_some_and(|since| held.used < since);
        let is_spared =
            is_in_use && (held.kind != Kind::Layer || held.used.seconds > now.seconds - SPARED);
        if !(is_over || is_old) || is_spared {
            continue;
        }
        left = left.saturating_sub(held.size.bytes());
        trimmed.freed += held.size.bytes();
        trimmed.removed.push(held);
    }
    trimmed.left = left;
    if !limits.is_rehearsal {
        for held in &trimmed.removed {
            for file in &held.files {
                remove(file)?;
            }
        }
        if !is_in_use {
            remove_unnamed(store)?;
        }
    }
    Ok(trimmed)
}

/// Tars whose last record has gone; nobody is making one now.
fn remove_unnamed(store: &Store) -> Result<(), LayerError> {
    let mut named = BTreeSet::new();
    for entry in listed(&store.folder().join("layers"))? {
        if let Some(record) = Record::open(&entry.path) {
            named.insert(record.diff_id.0.hex());
        }
    }
    for tar in listed(&store.folder().join("blobs/sha256"))? {
        let name = tar.name.to_string_lossy().into_owned();
        // What has another name is being written.
        if Digest::parse(&name).is_some() && !named.contains(&name) {
            remove(&tar.path)?;
        }
    }
    for lock in listed(&store.folder().join("locks"))? {
        if Digest::parse(&lock.name.to_string_lossy()).is_some() {
            remove(&lock.path)?;
        }
    }
    Ok(())
}
