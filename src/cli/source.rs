//! `consign source`: the sources of what was shipped.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::build::Context;
use super::error::{CliError, output};
use crate::appliance::{Appliance, FILE_NAME};
use crate::artifact::write_file;
use crate::error::Error;
use crate::layer::source::deb::{Network, WantedSource};
use crate::layer::spec::{LOCAL, PackagePin};
use crate::plan::{LOCK_FILE_NAME, Lock};
use crate::release::ReleaseError;
use crate::release::signing::Open;
use crate::release::sums::SUMS_FILE;
use crate::release::verify::Doubt;
use crate::units::ByteSize;

/// Collects the source packages of every package that is in the image, and of
/// the boot loaders: for those who hand out a disk under the GPL.
///
/// They come from the repositories of the packages, by the digests of their
/// signed lists, each source in a folder of its own; SHA256SUMS lists every
/// file. What is there already is checked and kept, so a broken run goes on.
/// Mirrors delete what is superseded: collect when you release.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SourceArgs {
    /// The release whose lock counts; left out: the lock beside the appliance.
    #[arg(value_name = "RELEASE")]
    release: Option<PathBuf>,
    /// The appliance, for its suite and repositories.
    #[arg(long, value_name = "FILE", default_value = FILE_NAME)]
    file: PathBuf,
    /// Where the sources go.
    #[arg(short, long, value_name = "FOLDER", default_value = "source")]
    output: PathBuf,
    /// Only the sources of these packages.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    package: Vec<String>,
}

/// `consign source`.
///
/// # Errors
///
/// A source that is nowhere, after all others came; those of fetching.
pub(super) fn run(
    args: &SourceArgs,
    context: &Context<'_>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let appliance = Appliance::open(&args.file)?;
    let cache = context.cache()?;
    let pins = shipped(args)?;
    let wanted: BTreeSet<WantedSource> = pins.iter().map(WantedSource::of).collect();
    let sources = context.sources(&appliance, &cache, Network::Online);
    let (files, missing) = sources.sources(&wanted, &args.output)?;
    let mut lines: Vec<String> = files
        .iter()
        .map(|(path, pin)| format!("{}  {}\n", pin.sha256.hex(), path.display()))
        .collect();
    lines.sort();
    let path = args.output.join(SUMS_FILE);
    write_file(&path, lines.concat().as_bytes())
        .map_err(|source| CliError::Write { path, source })?;
    if !missing.is_empty() {
        let names = missing
            .iter()
            .map(|one| format!("{} {}", one.name, one.version));
        return Err(CliError::SourcesGone {
            sources: names.collect(),
        }
        .into());
    }
    let bytes = files.iter().map(|(_, pin)| pin.size).sum();
    let mut text = String::new();
    writeln!(
        text,
        "{}: the sources of {} packages: {} source packages, {} files, {}",
        args.output.display(),
        pins.len(),
        wanted.len(),
        files.len(),
        ByteSize::from_bytes(bytes),
    )
    .expect("a string takes all");
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}

/// The packages whose sources are asked for. A vendor's own package files
/// have no repository: their sources are the vendor's.
fn shipped(args: &SourceArgs) -> Result<Vec<PackagePin>, Error> {
    let lock = if let Some(release) = &args.release {
        lock_of(release)?
    } else {
        let path = args.file.with_file_name(LOCK_FILE_NAME);
        Lock::open(&path)?.ok_or(CliError::NoLock { path })?
    };
    let is_asked = |pin: &&PackagePin| args.package.is_empty() || args.package.contains(&pin.name);
    let known = |name: &&String| !lock.packages().any(|pin| pin.name == **name);
    if let Some(unknown) = args.package.iter().find(known) {
        return Err(CliError::NotLocked {
            package: unknown.clone(),
        }
        .into());
    }
    let pins = lock.packages().filter(|pin| pin.suite != LOCAL);
    Ok(pins.filter(is_asked).cloned().collect())
}

/// The lock of a release, which is the one that its manifest names.
///
/// # Errors
///
/// [`ReleaseError::Refused`], [`CliError::NoLock`], those of reading.
pub(super) fn lock_of(release: &Path) -> Result<Lock, Error> {
    let folder = super::reproduce::folder_of(release);
    let manifest = Open::folder(folder)?.manifest;
    let path = folder.join(LOCK_FILE_NAME);
    let lock = Lock::open(&path)?.ok_or_else(|| CliError::NoLock { path: path.clone() })?;
    if lock.digest() == manifest.lock {
        return Ok(lock);
    }
    Err(ReleaseError::Refused {
        path: folder.to_owned(),
        doubts: vec![Doubt::Content {
            name: LOCK_FILE_NAME.into(),
        }],
    }
    .into())
}
