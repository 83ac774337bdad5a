//! Verification: is a folder exactly a release, by somebody who is trusted?
//!
//! In: a folder, a [`Policy`]. Out: what was verified, or every doubt. A file
//! that is not listed is a doubt as one that is missing; no network, no
//! program, and no clock but the one that the caller looked at.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::ReleaseError;
use super::manifest::{FileLine, MANIFEST_FILE, Manifest};
use super::openpgp;
use super::signing::{Judged, OPENPGP_FILE, Open};
use crate::digest::{Digest, Hasher};
use crate::layer::source::deb::{Certificate, Version};
use crate::report::{Outcome, Reporter};
use crate::sign::PublicKey;
use crate::tree::{HostEntry, list_folder};
use crate::units::ByteSize;

/// The name of this step in events.
pub(super) const STEP: &str = "verify";
/// Bytes that are hashed between two looks at anything else.
const PIECE: usize = 256 << 10;

/// What the verifier demands.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Who is trusted.
    pub keys: Vec<PublicKey>,
    /// The OpenPGP key that is trusted, and that has to have signed.
    pub openpgp: Option<Certificate>,
    /// How many of `keys` have to have signed; at least 1, where there are any
    /// or no OpenPGP key is trusted.
    pub threshold: usize,
    /// Fingerprints of keys that are not trusted any more.
    pub revoked: Vec<String>,
    /// The least version, by Debian's order.
    pub not_older_than: Option<String>,
    /// The least source date, in seconds since 1970.
    pub not_before: Option<i64>,
    /// Now, in seconds since 1970; `None` where no clock is to be trusted.
    pub now: Option<i64>,
}

/// A reason not to believe a release.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Doubt {
    /// Fewer trusted keys than demanded.
    Signers {
        /// How many signed.
        found: usize,
        /// How many have to.
        needed: usize,
        /// Who did sign.
        by: Vec<String>,
    },
    /// Not signed by the OpenPGP key that is trusted.
    OpenPgp {
        /// The key that the manifest names, if there is one.
        found: Option<String>,
        /// The one that should have.
        trusted: String,
    },
    /// Signed by a key that was taken back.
    Revoked {
        /// The key.
        fingerprint: String,
    },
    /// Too late.
    Expired {
        /// The manifest's last moment, seconds since 1970.
        at: i64,
    },
    /// An older release than known or demanded.
    Older {
        /// Its version.
        found: String,
        /// The least.
        least: String,
    },
    /// A file of the manifest is not there.
    Missing {
        /// Its name.
        name: String,
    },
    /// Something that the manifest does not list.
    Unlisted {
        /// Its name, as it is.
        name: String,
    },
    /// A folder, a link or a device where a file should be.
    NotAFile {
        /// Its name.
        name: String,
    },
    /// Shorter or longer than it was.
    Length {
        /// The file.
        name: String,
        /// What the manifest says.
        expected: ByteSize,
        /// What is there.
        found: ByteSize,
    },
    /// Another content.
    Content {
        /// The file.
        name: String,
    },
    /// A partition of a copy is not the release's.
    Partition {
        /// Its name.
        name: String,
    },
    /// A copy's partitions are right, and what is around them is not.
    OutsideOfPartitions,
    /// Where a copy and an image of the release part.
    File {
        /// Partition, file and what of it.
        place: String,
    },
    /// No image of the release is there to compare with.
    NoSample,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signers { found, needed, by } if by.is_empty() => {
                write!(
                    f,
                    "{found} of {needed} trusted signatures: nobody signed it"
                )
            }
            Self::Signers { found, needed, by } => {
                write!(
                    f,
                    "{found} of {needed} trusted signatures: signed by {}",
                    by.join(", ")
                )
            }
            Self::OpenPgp {
                found: None,
                trusted,
            } => write!(f, "no OpenPGP key signed it, {trusted} should have"),
            Self::OpenPgp {
                found: Some(found),
                trusted,
            } => write!(
                f,
                "the OpenPGP key {found} is to sign it, and not {trusted}"
            ),
            Self::Revoked { fingerprint } => {
                write!(f, "signed by {fingerprint}, which was revoked")
            }
            Self::Expired { at } => {
                write!(
                    f,
                    "expired at {}",
                    crate::units::Timestamp::from_seconds(*at)
                )
            }
            Self::Older { found, least } => write!(f, "{found} is older than {least}"),
            Self::Missing { name } => write!(f, "`{name}` is missing"),
            Self::Unlisted { name } => write!(f, "`{}` is not listed", name.escape_debug()),
            Self::NotAFile { name } => write!(f, "`{name}` is no regular file"),
            Self::Length {
                name,
                expected,
                found,
            } => write!(
                f,
                "`{name}` has {} bytes instead of {}",
                found.bytes(),
                expected.bytes()
            ),
            Self::Content { name } => write!(f, "`{name}` has another content"),
            Self::Partition { name } => write!(f, "partition {name} has another content"),
            Self::OutsideOfPartitions => {
                f.write_str("another partition table, or something between the partitions")
            }
            Self::File { place } => write!(f, "the first difference is in {place}"),
            Self::NoSample => f.write_str(
                "which file differs cannot be told without a sound image beside the manifest",
            ),
        }
    }
}

/// A release that nothing speaks against.
#[derive(Debug, Clone)]
pub struct Verified {
    /// What it is.
    pub manifest: Manifest,
    /// Digest of the manifest, which is the release's identity.
    pub digest: Digest,
    /// Fingerprints of the trusted keys that signed.
    pub signers: Vec<String>,
}

/// Verifies the release in `folder`.
///
/// # Errors
///
/// [`ReleaseError::Refused`] with every doubt; [`ReleaseError::Signature`] and
/// [`ReleaseError::Unsigned`] where that ends the matter; what reading reports.
pub fn folder(
    folder: &Path,
    policy: &Policy,
    threads: usize,
    reporter: &dyn Reporter,
) -> Result<Verified, ReleaseError> {
    reporter.started(STEP);
    let Start {
        open,
        judged,
        signers,
        mut doubts,
    } = Start::of(folder, policy)?;
    let listed = judge_names(&open.manifest, &judged.files, folder, &mut doubts)?;
    if doubts.is_empty() {
        doubts = judge_contents(&listed, folder, threads, reporter)?;
    }
    conclude(folder, open, signers, doubts, reporter)
}

/// What every verification begins with: who signed the manifest, and its age.
pub(super) struct Start {
    pub(super) open: Open,
    pub(super) judged: Judged,
    /// Those that are trusted.
    pub(super) signers: Vec<String>,
    pub(super) doubts: Vec<Doubt>,
}

impl Start {
    pub(super) fn of(folder: &Path, policy: &Policy) -> Result<Self, ReleaseError> {
        let open = Open::folder(folder)?;
        let judged = open.judge()?;
        let mut doubts = Vec::new();
        let mut signers = judge_keys(&judged.keys, policy, &mut doubts);
        signers.extend(openpgp::judge(&open, policy, &mut doubts)?);
        judge_age(&open.manifest, policy, &mut doubts);
        Ok(Self {
            open,
            judged,
            signers,
            doubts,
        })
    }
}

/// The verdict over `path`, which is the release or a copy of its disk.
pub(super) fn conclude(
    path: &Path,
    open: Open,
    signers: Vec<String>,
    doubts: Vec<Doubt>,
    reporter: &dyn Reporter,
) -> Result<Verified, ReleaseError> {
    if !doubts.is_empty() {
        return Err(ReleaseError::Refused {
            path: path.to_owned(),
            doubts,
        });
    }
    let detail = format!("{} {}", open.manifest.name, open.manifest.version);
    reporter.finished(STEP, Outcome::Done, detail);
    Ok(Verified {
        digest: Digest::of(open.text.as_bytes()),
        manifest: open.manifest,
        signers,
    })
}

/// The trusted keys among those that signed.
fn judge_keys(signed: &[PublicKey], policy: &Policy, doubts: &mut Vec<Doubt>) -> Vec<String> {
    let mut trusted = Vec::new();
    for key in signed {
        let fingerprint = key.fingerprint();
        if policy.revoked.contains(&fingerprint) {
            doubts.push(Doubt::Revoked { fingerprint });
        } else if policy.keys.contains(key) {
            trusted.push(fingerprint);
        }
    }
    let is_enough = policy.keys.is_empty() && policy.openpgp.is_some();
    let needed = policy.threshold.max(usize::from(!is_enough));
    if trusted.len() < needed {
        doubts.push(Doubt::Signers {
            found: trusted.len(),
            needed,
            by: signed.iter().map(PublicKey::fingerprint).collect(),
        });
    }
    trusted
}

fn judge_age(manifest: &Manifest, policy: &Policy, doubts: &mut Vec<Doubt>) {
    if let (Some(now), Some(at)) = (policy.now, manifest.expires)
        && now >= at
    {
        doubts.push(Doubt::Expired { at });
    }
    if let Some(least) = &policy.not_older_than
        && is_older(&manifest.version, least)
    {
        doubts.push(Doubt::Older {
            found: manifest.version.clone(),
            least: least.clone(),
        });
    }
    if let Some(least) = policy.not_before
        && manifest.epoch < least
    {
        let moment = |seconds| crate::units::Timestamp::from_seconds(seconds).to_string();
        doubts.push(Doubt::Older {
            found: moment(manifest.epoch),
            least: moment(least),
        });
    }
}

/// By Debian's order. What is no version for it compares as text, and an
/// unequal one counts as older: a doubt too many.
pub(super) fn is_older(found: &str, least: &str) -> bool {
    match (Version::parse(found), Version::parse(least)) {
        (Some(found), Some(least)) => found < least,
        _ => found != least,
    }
}

/// The listed files that are there with their length; all else is a doubt.
fn judge_names<'a>(
    manifest: &'a Manifest,
    signatures: &[String],
    folder: &Path,
    doubts: &mut Vec<Doubt>,
) -> Result<Vec<&'a FileLine>, ReleaseError> {
    let entries = list_folder(folder).map_err(|source| ReleaseError::Read {
        path: folder.to_owned(),
        source,
    })?;
    let is_own = |name: &str| {
        name == MANIFEST_FILE
            || signatures.iter().any(|one| one == name)
            || (name == OPENPGP_FILE && manifest.openpgp.is_some())
    };
    let mut there: BTreeMap<String, HostEntry> = entries
        .into_iter()
        .map(|entry| (entry.name.to_string_lossy().into_owned(), entry))
        .filter(|(name, entry)| !(is_own(name) && entry.metadata.is_file()))
        .collect();
    let mut sound = Vec::new();
    for line in &manifest.files {
        match there.remove(&line.name) {
            None => doubts.push(Doubt::Missing {
                name: line.name.clone(),
            }),
            Some(entry) => match judge_entry(line, &entry) {
                None => sound.push(line),
                Some(doubt) => doubts.push(doubt),
            },
        }
    }
    doubts.extend(there.into_keys().map(|name| Doubt::Unlisted { name }));
    Ok(sound)
}

fn judge_entry(line: &FileLine, entry: &HostEntry) -> Option<Doubt> {
    let name = line.name.clone();
    if !entry.metadata.is_file() {
        return Some(Doubt::NotAFile { name });
    }
    let found = ByteSize::from_bytes(entry.metadata.len());
    (found != line.size).then_some(Doubt::Length {
        name,
        expected: line.size,
        found,
    })
}

/// Reads every file, the longest first, so that threads end together.
fn judge_contents(
    files: &[&FileLine],
    folder: &Path,
    threads: usize,
    reporter: &dyn Reporter,
) -> Result<Vec<Doubt>, ReleaseError> {
    let mut order: Vec<&FileLine> = files.to_vec();
    order.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
    let total = order.iter().map(|file| file.size.bytes()).sum();
    let next = AtomicUsize::new(0);
    let done = Mutex::new((0_u64, Vec::new()));
    let work = || -> Result<(), ReleaseError> {
        while let Some(line) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let path = folder.join(&line.name);
            let digest = digest_unless(&path, &|| reporter.stop().is_some())
                .map_err(|source| ReleaseError::Read { path, source })?;
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.0 += line.size.bytes();
            reporter.bytes(
                STEP,
                ByteSize::from_bytes(done.0),
                Some(ByteSize::from_bytes(total)),
            );
            if digest != line.sha256 {
                done.1.push(Doubt::Content {
                    name: line.name.clone(),
                });
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, order.len().max(1)))
            .map(|_| scope.spawn(work))
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    let (_, mut doubts) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    doubts.sort_by_key(ToString::to_string);
    Ok(doubts)
}

pub(super) fn digest_of(path: &Path) -> io::Result<Digest> {
    digest_unless(path, &|| false)
}

/// As [`digest_of`], but for an end that somebody asks for.
fn digest_unless(path: &Path, is_stopped: &dyn Fn() -> bool) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(_) if is_stopped() => return Err(io::ErrorKind::Interrupted.into()),
            Ok(length) => hasher.update(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
