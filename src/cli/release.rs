//! `consign release`: the folder that is handed over.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::build::{BuildArgs, Context};
use super::error::{CliError, output};
use super::keys::{gpg_signer, signer};
use super::lock::{LockFlags, LockPolicy, ensure_lock};
use super::package::PackageArgs;
use super::reproduce::folder_of;
use super::source::lock_of;
use crate::appliance::{Appliance, FILE_NAME};
use crate::digest::{Digest, derive_guid};
use crate::error::Error;
use crate::factory::Shelf;
use crate::factory::form::{json_schema, page, sample};
use crate::image::ImageFormat;
use crate::layer::source::deb::{Certificate, Network};
use crate::pipeline;
use crate::plan::{BuildPlan, Contents, LOCK_FILE_NAME, Lock, STAMP_FILE_NAME, Wishes};
use crate::release::assemble::{Facts, assemble};
use crate::release::image;
use crate::release::manifest::{Container, SignerLine};
use crate::release::openpgp::{self, GpgSigner};
use crate::release::sbom::{Inventory, LayerFacts};
use crate::release::signing::Open;
use crate::release::vex;
use crate::sign::{PublicKey, Signer};
use crate::units::Timestamp;

/// The vendor's own words.
pub(super) const NOTES_FILE: &str = "RELEASE-NOTES.txt";

/// Builds the appliance and makes the folder that is handed over: images,
/// descriptors, the customer's sample, schema and form, bills of materials
/// (SPDX and CycloneDX), provenance, `verify.sh`, and the manifest of them
/// all, signed.
///
/// Without `--key` the manifest waits for `consign sign` or `consign attach`:
/// build in CI, sign where the key is. The customer verifies with `consign
/// verify`, or with `verify.sh`, ssh-keygen and sha256sum; give them the
/// public key and the script by another way than the release.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ReleaseArgs {
    /// The appliance.
    #[arg(long, value_name = "FILE", default_value = FILE_NAME)]
    file: PathBuf,
    /// The folder; must not exist, or be empty.
    #[arg(short, long, value_name = "FOLDER", default_value = "release")]
    output: PathBuf,
    /// The secret key that signs; or a public one whose secret half
    /// `ssh-agent` keeps. Several may sign.
    #[arg(long, value_name = "KEY")]
    key: Vec<PathBuf>,
    /// The OpenPGP key that the user's gpg signs with too: MANIFEST.asc. Its
    /// signature is of the moment `SOURCE_DATE_EPOCH` where that is set.
    #[arg(long, value_name = "FINGERPRINT")]
    gpg_key: Option<String>,
    /// A public key or an OpenPGP certificate that will sign later: without
    /// its signature the release will not verify.
    #[arg(long, value_name = "KEY.pub")]
    signer: Vec<PathBuf>,
    /// Not to be believed from this date on: 2027-12-31.
    #[arg(long, value_name = "DATE", value_parser = date)]
    expires: Option<Timestamp>,
    /// Release notes, kept as RELEASE-NOTES.txt.
    #[arg(long, value_name = "FILE")]
    notes: Option<PathBuf>,
    /// The release before this one: the notes list the packages that moved.
    #[arg(long, value_name = "FOLDER|MANIFEST")]
    previous: Option<PathBuf>,
    /// Disk image formats. Left out: those of appliance.toml, without raw
    /// where there is another one, and ova.
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', value_parser = super::build::image_format)]
    format: Vec<ImageFormat>,
    #[command(flatten)]
    lock: LockFlags,
    /// Uses no network.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    package: PackageArgs,
    /// The first-boot agent, instead of the one beside consign or in its checkout.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Worker threads; as many as there are cores when left out.
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

impl ReleaseArgs {
    /// Those that make a release like an earlier one, without keys.
    pub(super) fn again(wish: Again) -> Self {
        Self {
            file: wish.file,
            output: PathBuf::new(),
            key: Vec::new(),
            gpg_key: None,
            signer: Vec::new(),
            expires: wish.expires,
            notes: wish.notes,
            previous: None,
            format: wish.format,
            lock: LockFlags::LOCKED,
            offline: wish.offline,
            package: wish.package,
            agent: wish.agent,
            jobs: wish.jobs,
        }
    }
}

/// What an earlier release tells about how it was made.
#[derive(Debug)]
pub(super) struct Again {
    pub(super) file: PathBuf,
    pub(super) expires: Option<Timestamp>,
    pub(super) notes: Option<PathBuf>,
    pub(super) format: Vec<ImageFormat>,
    pub(super) offline: bool,
    pub(super) package: PackageArgs,
    pub(super) agent: Option<PathBuf>,
    pub(super) jobs: Option<NonZeroUsize>,
}

fn date(text: &str) -> Result<Timestamp, String> {
    let wrong = || "a date is written 2027-12-31".to_owned();
    Timestamp::parse(&format!("{text}T00:00:00Z")).ok_or_else(wrong)
}

/// `consign release`.
///
/// # Errors
///
/// Those of a build, of keys and of signing; then the folder is not there.
pub(super) fn run(
    args: &ReleaseArgs,
    context: &Context<'_>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    free(&args.output)?;
    if let Some(previous) = &args.previous {
        lock_of(previous)?;
    }
    // Keys first: a build is not made for a signature that cannot be.
    let signers = args.key.iter().map(|key| signer(key, context.environment));
    let signers: Vec<Signer> = signers.collect::<Result<_, _>>()?;
    let gpg = args.gpg_key.as_deref();
    let gpg = gpg.map(|name| gpg_signer(name, context.environment));
    let gpg = gpg.transpose()?;
    let promised = promised(args, &signers, gpg.as_ref())?;
    let failed = |source| CliError::Folder {
        path: args.output.clone(),
        source,
    };
    let parent = match args.output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(failed)?;
    let mut hidden = tempfile::Builder::new();
    let draft = hidden
        .prefix(".consign-release-")
        .tempdir_in(parent)
        .map_err(failed)?;
    fill(args, context, draft.path(), &promised)?;
    let open = Open::folder(draft.path())?;
    for signer in &signers {
        open.sign(signer)?;
    }
    if let Some(gpg) = &gpg {
        openpgp::sign(&open, gpg)?;
    }
    publish(draft, &args.output).map_err(failed)?;
    let text = summary(&args.output, &open, &signers, gpg.as_ref());
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}

/// Nothing is overwritten: a release is one folder, whole.
fn free(folder: &Path) -> Result<(), CliError> {
    let taken = || CliError::ReleaseExists {
        path: folder.to_owned(),
    };
    match fs::symlink_metadata(folder) {
        Err(_) => Ok(()),
        Ok(found) if !found.is_dir() => Err(taken()),
        Ok(_) => match crate::tree::list_folder(folder) {
            Ok(entries) if entries.is_empty() => Ok(()),
            _ => Err(taken()),
        },
    }
}

/// Who is to sign, as the manifest says.
#[derive(Debug, Clone, Default)]
pub(super) struct Promised {
    pub(super) signers: Vec<SignerLine>,
    /// The OpenPGP key, which is a file of the release.
    pub(super) openpgp: Option<Certificate>,
}

fn promised(
    args: &ReleaseArgs,
    signers: &[Signer],
    gpg: Option<&GpgSigner>,
) -> Result<Promised, Error> {
    let now = signers.iter().map(|signer| SignerLine {
        fingerprint: signer.public().fingerprint(),
        containers: Container::ALL.to_vec(),
    });
    let mut promised = Promised {
        signers: now.collect(),
        openpgp: gpg.map(|gpg| gpg.certificate().clone()),
    };
    for path in &args.signer {
        if !openpgp::is_certificate(path)? {
            // What another tool signs comes as the one form that all of them know.
            promised.signers.push(SignerLine {
                fingerprint: PublicKey::open(path)?.fingerprint(),
                containers: vec![Container::SshSig],
            });
            continue;
        }
        let certificate = openpgp::certificate(path)?;
        let known = promised.openpgp.get_or_insert_with(|| certificate.clone());
        if known.fingerprint() != certificate.fingerprint() {
            return Err(CliError::SeveralOpenPgp.into());
        }
    }
    Ok(promised)
}

/// Everything but the signatures.
pub(super) fn fill(
    args: &ReleaseArgs,
    context: &Context<'_>,
    folder: &Path,
    promised: &Promised,
) -> Result<(), Error> {
    let appliance = Appliance::open(&args.file)?;
    let build = build_args(args, &appliance, folder);
    super::build::run(&build, context, &mut std::io::sink())?;
    remove(&folder.join(STAMP_FILE_NAME))?;
    write_texts(args, &appliance, folder)?;
    if let Some(certificate) = &promised.openpgp {
        openpgp::write(certificate, folder)?;
    }
    let (inventory, facts) = facts(args, context, &appliance, &build, promised)?;
    if let Some(statements) = vex::document(&beside(args, vex::VEX_FOLDER), &inventory)? {
        let path = folder.join(vex::VEX_FILE);
        crate::artifact::write_file(&path, statements.as_bytes())
            .map_err(|source| CliError::Write { path, source })?;
    }
    assemble(folder, &inventory, &facts, context.reporter)?;
    Ok(())
}

fn build_args(args: &ReleaseArgs, appliance: &Appliance, folder: &Path) -> BuildArgs {
    let mut format = args.format.clone();
    if format.is_empty() {
        format = BuildPlan::formats(appliance);
        if format.len() > 1 {
            format.retain(|format| *format != ImageFormat::Raw);
        }
        if !format.contains(&ImageFormat::Ova) {
            format.push(ImageFormat::Ova);
        }
    }
    BuildArgs {
        file: args.file.clone(),
        output: folder.to_owned(),
        format,
        package: args.package.clone(),
        sums: true,
        lock: args.lock,
        offline: args.offline,
        agent: args.agent.clone(),
        jobs: args.jobs,
    }
}

fn remove(path: &Path) -> Result<(), CliError> {
    fs::remove_file(path).map_err(|source| CliError::Write {
        path: path.to_owned(),
        source,
    })
}

/// What the customer fills in, what an auditor rebuilds from, what is new.
fn write_texts(args: &ReleaseArgs, appliance: &Appliance, folder: &Path) -> Result<(), Error> {
    let shelf = Shelf::of_appliance(appliance)?;
    let lock = beside(args, LOCK_FILE_NAME);
    let read = |path: &Path| {
        fs::read(path).map_err(|source| CliError::Read {
            path: path.to_owned(),
            source,
        })
    };
    let mut files = vec![
        ("site.toml", sample(&shelf).into_bytes()),
        (
            "site.schema.json",
            format!("{:#}\n", json_schema(&shelf)).into_bytes(),
        ),
        (
            "config.html",
            page(&shelf, appliance.name.as_str()).into_bytes(),
        ),
        ("appliance.lock", read(&lock)?),
    ];
    let mut notes = args.notes.as_deref().map(read).transpose()?;
    if let Some(previous) = &args.previous {
        let delta = delta(previous, &lock)?;
        let mut text = notes.unwrap_or_default();
        if !text.is_empty() {
            text.push(b'\n');
        }
        text.extend_from_slice(delta.as_bytes());
        notes = Some(text);
    }
    if let Some(notes) = notes {
        files.push((NOTES_FILE, notes));
    }
    for (name, bytes) in files {
        let path = folder.join(name);
        crate::artifact::write_file(&path, &bytes)
            .map_err(|source| CliError::Write { path, source })?;
    }
    Ok(())
}

/// A path beside the appliance.
fn beside(args: &ReleaseArgs, name: &str) -> PathBuf {
    args.file.with_file_name(name)
}

/// What moved since the release before, for the notes.
fn delta(previous: &Path, lock: &Path) -> Result<String, Error> {
    let open = Open::folder(folder_of(previous))?;
    let old = lock_of(previous)?;
    let new = Lock::open(lock)?.ok_or_else(|| CliError::NoLock { path: lock.into() })?;
    let since = format!("{} {}", open.manifest.name, open.manifest.version);
    Ok(old.news(&new, &since))
}

fn facts(
    args: &ReleaseArgs,
    context: &Context<'_>,
    appliance: &Appliance,
    build: &BuildArgs,
    promised: &Promised,
) -> Result<(Inventory, Facts), Error> {
    let cache = context.cache()?;
    let agent = context.agent(args.agent.clone())?;
    // The build before has made whatever was missing.
    let network = Network::Offline;
    let policy = LockPolicy {
        file: &build.file,
        is_locked: true,
        network,
    };
    let lock = ensure_lock(&policy, appliance, context, &cache)?;
    let wishes = Wishes {
        formats: build.format.clone(),
        raw_sums: true,
        properties: Shelf::of_appliance(appliance)?.properties(),
        package: args.package.open(context)?.spec,
    };
    let plan = BuildPlan::resolve(appliance, &lock, &agent.builder, &wishes)?;
    let sources = context.sources(appliance, &cache, network);
    let shop = context.shop(&plan, &lock, &cache, &sources)?;
    let (layers, owners) = pipeline::layer_owners(&plan, &shop, context.reporter)?;
    let disk = plan.images.first().ok_or(CliError::NoImage)?;
    let found = image::facts(&build.output.join(&disk.file_name), &mounts(&plan), &owners)?;
    let inventory = Inventory {
        name: plan.name.clone(),
        version: plan.version.clone(),
        date: plan.source_date,
        suite: appliance.system.suite.as_str().to_owned(),
        builder: agent.builder.version.clone(),
        agent: agent.builder.agent,
        serial: derive_guid(&Digest::of(found.disk.root.to_string().as_bytes()), "sbom"),
        layers: layers
            .into_iter()
            .map(|layer| LayerFacts {
                name: layer.name,
                diff_id: layer.diff_id,
                packages: layer.packages,
            })
            .collect(),
        files: found.files,
    };
    let facts = Facts {
        lock: lock.digest(),
        expires: args.expires.map(|at| at.seconds),
        openpgp: promised.openpgp.as_ref().map(Certificate::fingerprint),
        signers: promised.signers.clone(),
        disk: found.disk,
        partitions: found.partitions,
    };
    Ok((inventory, facts))
}

/// Where the image's volumes are seen from inside.
fn mounts(plan: &BuildPlan) -> BTreeMap<String, String> {
    let pairs = plan.disk.partitions.iter().zip(&plan.contents);
    pairs
        .filter_map(|(partition, contents)| {
            let mount = match contents {
                Contents::Root => "",
                Contents::Var => "/var",
                Contents::Esp => "/efi",
                Contents::CoreImage | Contents::Nothing => return None,
            };
            Some((partition.name.clone(), mount.to_owned()))
        })
        .collect()
}

/// The draft gets its name: an empty folder of that name gives way.
fn publish(draft: tempfile::TempDir, folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(draft.path(), fs::Permissions::from_mode(0o755))?;
    fs::rename(draft.path(), folder)?;
    // It has moved: nothing is left to remove.
    let _gone = draft.keep();
    Ok(())
}

fn summary(folder: &Path, open: &Open, signers: &[Signer], gpg: Option<&GpgSigner>) -> String {
    let manifest = &open.manifest;
    let mut lines = vec![format!(
        "{}: {} {}, {} files\n  manifest {}",
        folder.display(),
        manifest.name,
        manifest.version,
        manifest.files.len(),
        Digest::of(open.text.as_bytes()),
    )];
    for signer in signers {
        lines.push(format!("  signed by {}", signer.public().fingerprint()));
    }
    if let Some(gpg) = gpg {
        let fingerprint = gpg.certificate().fingerprint();
        lines.push(format!("  signed by OpenPGP {fingerprint}"));
    }
    if signers.is_empty() {
        lines.push(format!(
            "  not signed yet: `consign sign {0} --key KEY`, or sign {0}/MANIFEST elsewhere with \
             `ssh-keygen -Y sign -n consign-release -f KEY` and `consign attach`",
            folder.display()
        ));
    }
    lines.push(String::new());
    lines.join("\n")
}
