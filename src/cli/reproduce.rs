//! `consign reproduce`: a release, built once more and compared.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::build::Context;
use super::draw::ReportFormat;
use super::error::{CliError, output};
use super::package::PackageArgs;
use super::release::{Again, NOTES_FILE, Promised, ReleaseArgs, fill};
use crate::appliance::{Appliance, FILE_NAME};
use crate::error::Error;
use crate::image::ImageFormat;
use crate::inspect::{differences as disk_differences, open};
use crate::plan::{LOCK_FILE_NAME, Lock};
use crate::release::ReleaseError;
use crate::release::manifest::{MANIFEST_FILE, Manifest};
use crate::release::openpgp;
use crate::release::signing::{OPENPGP_KEY_FILE, Open};
use crate::units::Timestamp;

/// Differing files of the disk that are named.
const SHOWN: usize = 8;

/// Builds a release once more, from the same files and its own lock, and says
/// whether every byte is the same; otherwise names the files that differ, and
/// for the disk the partition, the inode and the file.
///
/// Run it in a checkout of the version that was released, with the release's
/// consign. Packages come from the cache or the mirror; `--offline` uses the
/// cache alone. Signatures are not judged here: `consign verify` does that.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ReproduceArgs {
    /// The release, or its MANIFEST.
    #[arg(value_name = "FOLDER|MANIFEST")]
    release: PathBuf,
    /// The appliance.
    #[arg(long, value_name = "FILE", default_value = FILE_NAME)]
    file: PathBuf,
    /// Uses no network.
    #[arg(long)]
    offline: bool,
    /// As the release was packed.
    #[command(flatten)]
    package: PackageArgs,
    /// The first-boot agent, instead of the one beside consign or in its checkout.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Worker threads; as many as there are cores when left out.
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// How the verdict is written.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: ReportFormat,
}

/// `consign reproduce`.
///
/// # Errors
///
/// [`CliError::NotReproduced`] with the differences, those of a build.
pub(super) fn run(
    args: &ReproduceArgs,
    context: &Context<'_>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let folder = folder_of(&args.release);
    let manifest = Open::folder(folder)?.manifest;
    is_same_appliance(args, &manifest)?;
    take_lock(args, folder, &manifest)?;
    let failed = |source| CliError::Folder {
        path: std::env::temp_dir(),
        source,
    };
    let draft = tempfile::Builder::new()
        .prefix("consign-reproduce-")
        .tempdir()
        .map_err(failed)?;
    let notes = folder.join(NOTES_FILE);
    let wish = Again {
        file: args.file.clone(),
        expires: manifest.expires.map(Timestamp::from_seconds),
        notes: notes.is_file().then_some(notes),
        format: formats(&manifest),
        offline: args.offline,
        package: args.package.clone(),
        agent: args.agent.clone(),
        jobs: args.jobs,
    };
    let again = ReleaseArgs::again(wish);
    let key = folder.join(OPENPGP_KEY_FILE);
    let promised = Promised {
        signers: manifest.signers.clone(),
        openpgp: match &manifest.openpgp {
            Some(_) => Some(openpgp::certificate(&key)?),
            None => None,
        },
    };
    fill(&again, context, draft.path(), &promised)?;
    let found = Open::folder(draft.path())?.manifest;
    let differences = differences(&manifest, &found, folder, draft.path());
    if !differences.is_empty() {
        return Err(CliError::NotReproduced {
            differences,
            advice: advice(&manifest, &found),
        }
        .into());
    }
    let text = match args.format {
        ReportFormat::Json => format!("{}\n", json(&manifest)),
        ReportFormat::Text => format!(
            "{} {} is reproduced: {} files are the same, byte by byte\n  content root {}\n",
            manifest.name,
            manifest.version,
            manifest.files.len(),
            manifest.disk.root,
        ),
    };
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}

/// The folder of a release that was named by it or by its manifest.
pub(super) fn folder_of(release: &Path) -> &Path {
    if release
        .file_name()
        .is_some_and(|name| name == MANIFEST_FILE)
    {
        match release.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => return parent,
            _ => return Path::new("."),
        }
    }
    release
}

fn is_same_appliance(args: &ReproduceArgs, manifest: &Manifest) -> Result<(), Error> {
    let appliance = Appliance::open(&args.file)?;
    let found = format!("{} {}", appliance.name.as_str(), appliance.version.as_str());
    let wanted = format!("{} {}", manifest.name, manifest.version);
    if found == wanted {
        return Ok(());
    }
    Err(CliError::OtherAppliance { found, wanted }.into())
}

/// The lock beside the appliance must be the release's; where there is none,
/// the release's is put there.
fn take_lock(args: &ReproduceArgs, folder: &Path, manifest: &Manifest) -> Result<(), Error> {
    let path = args.file.with_file_name(LOCK_FILE_NAME);
    let wanted = folder.join(LOCK_FILE_NAME);
    if let Some(lock) = Lock::open(&path)? {
        if lock.digest() == manifest.lock {
            return Ok(());
        }
        return Err(CliError::OtherLock { path, wanted }.into());
    }
    let lock = Lock::open(&wanted)?.filter(|lock| lock.digest() == manifest.lock);
    let lock = lock.ok_or_else(|| ReleaseError::Refused {
        path: folder.to_owned(),
        doubts: vec![crate::release::verify::Doubt::Content {
            name: LOCK_FILE_NAME.into(),
        }],
    })?;
    crate::artifact::write_file(&path, lock.to_string().as_bytes())
        .map_err(|source| CliError::Write { path, source })?;
    Ok(())
}

/// The disk images of the release, by their names.
fn formats(manifest: &Manifest) -> Vec<ImageFormat> {
    let is_there = |format: &ImageFormat| {
        let name = format!("{}.{}", manifest.name, format.name());
        manifest.files.iter().any(|line| line.name == name)
    };
    ImageFormat::ALL.iter().copied().filter(is_there).collect()
}

/// What differs, the disk first: a changed disk changes most other files.
fn differences(wanted: &Manifest, found: &Manifest, release: &Path, again: &Path) -> Vec<String> {
    if wanted.to_string() == found.to_string() {
        return Vec::new();
    }
    let mut differences = Vec::new();
    if wanted.disk.root != found.disk.root {
        differences.extend(on_the_disk(wanted, found, release, again));
    }
    for line in &wanted.files {
        match found.files.iter().find(|other| other.name == line.name) {
            None => differences.push(format!("`{}` was not made", line.name)),
            Some(other) if other.sha256 != line.sha256 => {
                differences.push(format!("`{}` differs", line.name));
            }
            Some(_) => {}
        }
    }
    let is_new = |name: &str| wanted.files.iter().all(|line| line.name != name);
    let new = found.files.iter().filter(|line| is_new(&line.name));
    differences.extend(new.map(|line| format!("`{}` is new", line.name)));
    if differences.is_empty() {
        let lines = wanted.to_string();
        let lines = lines.lines().zip(
            found
                .to_string()
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        );
        let line = lines.into_iter().find(|(one, other)| one != other);
        let line = line.map_or(String::new(), |(one, _)| one.to_owned());
        differences.push(format!("the manifest's line `{line}` differs"));
    }
    differences
}

/// Partition, inode and file where an image is at hand, otherwise partitions.
/// Several: that of the image's own description differs with every other.
fn on_the_disk(wanted: &Manifest, found: &Manifest, release: &Path, again: &Path) -> Vec<String> {
    let places = formats(wanted).into_iter().find_map(|format| {
        let name = format!("{}.{}", wanted.name, format.name());
        let first = open(&release.join(&name), None).ok()?;
        let second = open(&again.join(&name), None).ok()?;
        disk_differences(&first.disk, &second.disk, SHOWN).ok()
    });
    if let Some(places) = places.filter(|places| !places.is_empty()) {
        return places.iter().map(ToString::to_string).collect();
    }
    let pairs = wanted.partitions.iter().zip(&found.partitions);
    let differing = pairs.filter(|(one, other)| one.root != other.root);
    let mut texts: Vec<String> = differing
        .map(|(one, _)| format!("partition {} differs", one.name))
        .collect();
    if texts.is_empty() {
        texts.push("the partition table differs".into());
    }
    texts
}

/// The usual reasons, as far as the manifests tell.
fn advice(wanted: &Manifest, found: &Manifest) -> String {
    if wanted.builder != found.builder {
        return format!("use {}; this is {}", wanted.builder, found.builder);
    }
    if wanted.agent != found.agent {
        return "give the release's agent with `--agent FILE`, or build it with the compiler of \
                rust-toolchain.toml"
            .into();
    }
    "check out exactly the files that were released; if they are, report this as a bug".into()
}

fn json(manifest: &Manifest) -> serde_json::Value {
    json!({
        "reproduced": true,
        "name": manifest.name,
        "version": manifest.version,
        "content_root": manifest.disk.root.to_string(),
        "files": manifest.files.len(),
    })
}
