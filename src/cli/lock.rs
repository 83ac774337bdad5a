//! `consign lock` and `consign fetch`: which packages, and bringing them here.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::build::{Context, print};
use super::cache::layers_of;
use super::error::CliError;
use crate::appliance::{Appliance, FILE_NAME};
use crate::artifact::write_file;
use crate::error::Error;
use crate::layer::source::deb::Network;
use crate::layer::spec::PackagePin;
use crate::layer::{DebSource as _, fetch_foreign};
use crate::plan::{LOCK_FILE_NAME, Lock, drift};
use crate::units::ByteSize;

/// Answers what appliance.toml asks: writes appliance.lock, and says what
/// moved. Packages of an older lock stay at their versions where they can;
/// with `--update` they move to the newest ones.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LockArgs {
    /// The appliance.
    #[arg(long, value_name = "FILE", default_value = FILE_NAME)]
    file: PathBuf,
    /// Moves packages to their newest versions: those named and what they
    /// need for it, or all.
    #[arg(long, value_name = "PACKAGE", num_args = 0..)]
    update: Option<Vec<String>>,
}

/// Brings every package of appliance.lock, and every archive and image that
/// a layer takes from elsewhere, into the cache and checks it, so that `consign build --offline` needs no network.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct FetchArgs {
    /// The appliance.
    #[arg(long, value_name = "FILE", default_value = FILE_NAME)]
    file: PathBuf,
    #[command(flatten)]
    lock: LockFlags,
}

/// Whether a lock may be made.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct LockFlags {
    /// Takes appliance.lock as it is; an error when it is missing or has
    /// fallen behind. The default where CI is set.
    #[arg(long, conflicts_with = "unlocked")]
    locked: bool,
    /// Makes appliance.lock where it is missing or has fallen behind, where CI
    /// is set too.
    #[arg(long)]
    unlocked: bool,
}

impl LockFlags {
    /// The lock has to be there and to answer.
    pub(super) const LOCKED: Self = Self {
        locked: true,
        unlocked: false,
    };

    /// Whether the lock has to be there and to answer.
    pub(super) fn is_locked(self, is_ci: bool) -> bool {
        self.locked || (is_ci && !self.unlocked)
    }
}

/// `consign lock`.
///
/// # Errors
///
/// What stops the resolver, and a lock that cannot be written.
pub(super) fn lock(
    args: &LockArgs,
    context: &Context<'_>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let appliance = Appliance::open(&args.file)?;
    let cache = context.cache()?;
    let path = args.file.with_file_name(LOCK_FILE_NAME);
    // An older lock that is damaged is no reason not to make a sound one.
    let old = Lock::open(&path).ok().flatten();
    let held = held(old.as_ref(), args.update.as_deref())?;
    let new = context
        .sources(&appliance, &cache, Network::Online)
        .lock(&appliance, &held)?;
    write_lock(&path, &new)?;
    print(out, &changes(old.as_ref(), &new, &path))
}

/// The packages that stay what they are.
fn held(old: Option<&Lock>, update: Option<&[String]>) -> Result<Vec<PackagePin>, CliError> {
    let all: Vec<PackagePin> = old.into_iter().flat_map(Lock::packages).cloned().collect();
    let Some(moving) = update else {
        return Ok(all);
    };
    let known: BTreeSet<&str> = all.iter().map(|pin| pin.name.as_str()).collect();
    if let Some(unknown) = moving.iter().find(|name| !known.contains(name.as_str())) {
        return Err(CliError::NotLocked {
            package: unknown.clone(),
        });
    }
    let stays = |pin: &PackagePin| !moving.is_empty() && !moving.contains(&pin.name);
    Ok(all.into_iter().filter(stays).collect())
}

/// `consign fetch`.
///
/// # Errors
///
/// Those of the lock, and what stops a package from coming.
pub(super) fn fetch(
    args: &FetchArgs,
    context: &Context<'_>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let appliance = Appliance::open(&args.file)?;
    let cache = context.cache()?;
    let policy = LockPolicy {
        file: &args.file,
        is_locked: args.lock.is_locked(context.environment.is_ci),
        network: Network::Online,
    };
    let lock = ensure_lock(&policy, &appliance, context, &cache)?;
    // A lock that does not answer is refused before anything is fetched for it.
    let layers = layers_of(&appliance, &lock)?.layers;
    let mut pins: Vec<PackagePin> = lock.packages().cloned().collect();
    pins.sort_by_key(|pin| pin.sha256);
    pins.dedup_by_key(|pin| pin.sha256);
    pins.sort();
    let sources = context.sources(&appliance, &cache, Network::Online);
    sources.fetch(&pins)?;
    fetch_foreign(&layers, &sources)?;
    let bytes = pins.iter().map(|pin| pin.size).fold(0, u64::saturating_add);
    let size = ByteSize::from_bytes(bytes);
    print(
        out,
        &format!("{} packages, {size}, are in the cache\n", pins.len()),
    )
}

/// Whether and how a lock may be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct LockPolicy<'a> {
    /// `appliance.toml`, beside which the lock is.
    pub(super) file: &'a Path,
    /// Whether the lock must be there and answer.
    pub(super) is_locked: bool,
    /// Whether the network may be used.
    pub(super) network: Network,
}

/// The lock beside the appliance; made anew when it is missing or fell behind.
pub(super) fn ensure_lock(
    policy: &LockPolicy<'_>,
    appliance: &Appliance,
    context: &Context<'_>,
    cache: &Path,
) -> Result<Lock, Error> {
    let path = policy.file.with_file_name(LOCK_FILE_NAME);
    let mut held = Vec::new();
    if let Some(lock) = Lock::open(&path)? {
        let drift = drift(appliance, &lock)?;
        if drift.is_empty() || policy.is_locked {
            // With `--locked` the plan refuses the drift, and names it.
            return Ok(lock);
        }
        let moved: Vec<String> = drift.iter().map(ToString::to_string).collect();
        let message = format!("`{LOCK_FILE_NAME}` is made anew: {}", moved.join("; "));
        context
            .reporter
            .warn(message, Some("`--locked` makes this an error"));
        held.extend(lock.packages().cloned());
    } else if policy.is_locked {
        return Err(CliError::NoLock { path }.into());
    }
    let lock = context
        .sources(appliance, cache, policy.network)
        .lock(appliance, &held)?;
    write_lock(&path, &lock)?;
    Ok(lock)
}

fn write_lock(path: &Path, lock: &Lock) -> Result<(), CliError> {
    let written = write_file(path, lock.to_string().as_bytes());
    written.map_err(|source| CliError::Write {
        path: path.to_owned(),
        source,
    })
}

/// What has moved between two locks.
fn changes(old: Option<&Lock>, new: &Lock, path: &Path) -> String {
    let packages = new.packages().count();
    let mut text = format!("wrote `{}`: {packages} packages\n", path.display());
    let Some(old) = old else { return text };
    let moved = old.changes(new);
    if moved.is_empty() {
        text.push_str("  nothing has moved\n");
    }
    for change in moved {
        writeln!(text, "  {change}").expect("a string takes all");
    }
    text
}
