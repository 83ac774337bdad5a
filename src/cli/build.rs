//! `consign build` and `consign plan`: from the files of an
//! appliance to its outputs, as far as each goes.

use std::fmt::Write as _;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::error::{CliError, output};
use super::lock::{LockFlags, LockPolicy, ensure_lock};
use super::package::PackageArgs;
use super::plan::{BuildWork, PlanArgs, show};
use super::sandbox::outlook;
use crate::appliance::{Appliance, FILE_NAME, Mirror};
use crate::artifact::{Artifact, PendingFile};
use crate::error::Error;
use crate::factory::Shelf;
use crate::image::ImageFormat;
use crate::layer::key::layer_key;
use crate::layer::source::deb::Network;
use crate::layer::spec::{LayerSpec, PackagePin};
use crate::layer::{LayerShop, Removals, SandboxChoice, SandboxSettings, Store};
use crate::pipeline::agent::{AgentSearch, locate};
use crate::pipeline::packages::{SourceSettings, Sources};
use crate::pipeline::{self, Workshop};
use crate::plan::{
    BuildPlan, Builder, Freshness, LOCK_FILE_NAME, Lock, STAMP_FILE_NAME, Stamp, Wishes, drift,
};
use crate::report::Reporter;
use crate::tree::{Blob, Content};

/// What every subcommand gets.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) environment: &'a Environment,
    pub(super) cache: Option<PathBuf>,
    /// As the user wants it, if he said so.
    pub(super) sandbox: Option<SandboxChoice>,
    pub(super) reporter: &'a dyn Reporter,
}

impl Context<'_> {
    /// The cache folder, made if need be.
    pub(super) fn cache(&self) -> Result<PathBuf, CliError> {
        let folder = self.cache.as_ref().or(self.environment.cache.as_ref());
        let folder = folder.ok_or(CliError::NoCache)?;
        let made = std::fs::create_dir_all(folder).and_then(|()| std::fs::canonicalize(folder));
        made.map_err(|source| CliError::Folder {
            path: folder.clone(),
            source,
        })
    }

    pub(super) fn sources<'a>(
        &'a self,
        appliance: &'a Appliance,
        cache: &'a Path,
        network: Network,
    ) -> Sources<'a> {
        let own = appliance.system.mirror.as_ref().map(Mirror::as_str);
        let settings = SourceSettings {
            search_path: &self.environment.search_path,
            http_proxy: self.environment.proxies.http.as_deref(),
            https_proxy: self.environment.proxies.https.as_deref(),
            no_proxy: self.environment.proxies.none_for.as_deref(),
            mirror: self.environment.mirror.as_deref().or(own),
            network,
            cache,
            logins: &self.environment.logins,
            reporter: self.reporter,
        };
        Sources {
            suite: appliance.system.suite.as_str(),
            own: &appliance.repositories,
            folder: &appliance.folder,
            settings,
        }
    }

    /// How packages are to be installed.
    /// `lock` names the kernel that a machine would boot.
    pub(super) fn sandbox_settings(&self, lock: Option<&Lock>) -> SandboxSettings {
        let kernel = lock.and_then(|lock| lock.packages().find(|pin| is_kernel(pin)));
        let cache = self.cache().ok();
        SandboxSettings {
            kernel: kernel.zip(cache).map(|(pin, cache)| deb_path(&cache, pin)),
            program: self.environment.executable.clone(),
            search_path: self.environment.search_path.clone(),
            choice: self.sandbox.unwrap_or_default(),
        }
    }

    pub(super) fn shop<'a>(
        &self,
        plan: &BuildPlan,
        lock: &Lock,
        cache: &Path,
        sources: &'a Sources<'a>,
    ) -> Result<LayerShop<'a>, Error> {
        Ok(LayerShop {
            store: Store::open(cache)?,
            debs: sources,
            sandbox: self.sandbox_settings(Some(lock)),
            source_date: plan.source_date,
            removals: Removals::default(),
        })
    }

    pub(super) fn agent(&self, explicit: Option<PathBuf>) -> Result<Agent, Error> {
        let search = AgentSearch {
            explicit,
            executable: self.environment.executable.clone(),
            search_path: self.environment.search_path.clone(),
            environment: self.environment.for_cargo.clone(),
        };
        let path = locate(&search, self.reporter)?;
        let read = |source| CliError::Read {
            path: path.clone(),
            source,
        };
        let size = path.metadata().map_err(read)?.len();
        let content = Content::stored(Blob::open(&path).map_err(read)?, 0, size);
        let digest = content.digest().map_err(read)?;
        Ok(Agent {
            content,
            builder: Builder {
                version: env!("CARGO_PKG_VERSION").into(),
                agent: digest,
            },
        })
    }
}

/// Whether the package has a kernel in it, and not only its name.
fn is_kernel(pin: &PackagePin) -> bool {
    let version = pin.name.strip_prefix("linux-image-");
    version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
}

/// Where a package is in the cache.
fn deb_path(cache: &Path, pin: &PackagePin) -> PathBuf {
    let name = format!("{}.deb", pin.sha256.hex());
    cache.join("debs").join(name)
}

/// The agent's bytes, and what they make of the plan.
pub(super) struct Agent {
    pub(super) content: Content,
    pub(super) builder: Builder,
}

/// Builds the appliance: fetches packages, makes layers, and leaves disk
/// images, descriptor and sums in the output folder. A second run with
/// nothing changed is done at once.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct BuildArgs {
    /// The appliance.
    #[arg(long, value_name = "FILE", default_value = FILE_NAME)]
    pub(super) file: PathBuf,
    /// Where the outputs go; made if need be.
    #[arg(short, long, value_name = "FOLDER", default_value = "out")]
    pub(super) output: PathBuf,
    /// Disk image formats instead of those of appliance.toml: raw, raw.zst,
    /// qcow2, vmdk, vhdx, vhd, ova.
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', value_parser = image_format)]
    pub(super) format: Vec<ImageFormat>,
    #[command(flatten)]
    pub(super) package: PackageArgs,
    /// Sums raw disks as well: reads every zero of them.
    #[arg(long)]
    pub(super) sums: bool,
    #[command(flatten)]
    pub(super) lock: LockFlags,
    /// Uses no network: all packages must be in the cache.
    #[arg(long)]
    pub(super) offline: bool,
    /// The first-boot agent, instead of the one beside consign or in its checkout.
    #[arg(long, value_name = "FILE")]
    pub(super) agent: Option<PathBuf>,
    /// Worker threads; as many as there are cores when left out.
    #[arg(short, long, value_name = "N")]
    pub(super) jobs: Option<NonZeroUsize>,
}

pub(super) fn image_format(text: &str) -> Result<ImageFormat, String> {
    let known = || {
        ImageFormat::ALL
            .iter()
            .map(|format| format.name())
            .collect::<Vec<_>>()
            .join(", ")
    };
    text.parse().map_err(|_| format!("known are {}", known()))
}

/// `consign build`.
///
/// # Errors
///
/// That of the room that stops it.
pub(super) fn run(
    args: &BuildArgs,
    context: &Context<'_>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let appliance = Appliance::open(&args.file)?;
    check_writable(&args.output)?;
    let cache = context.cache()?;
    let packing = args.package.open(context)?;
    let agent = context.agent(args.agent.clone())?;
    let network = if args.offline {
        Network::Offline
    } else {
        Network::Online
    };
    let policy = LockPolicy {
        file: &args.file,
        is_locked: args.lock.is_locked(context.environment.is_ci),
        network,
    };
    let lock = ensure_lock(&policy, &appliance, context, &cache)?;
    let wishes = Wishes {
        formats: args.format.clone(),
        raw_sums: args.sums,
        properties: Shelf::of_appliance(&appliance)?.properties(),
        package: packing.spec,
    };
    let plan = BuildPlan::resolve(&appliance, &lock, &agent.builder, &wishes)?;
    let folder = make_folder(&args.output)?;
    let freshness = Stamp::check(
        plan.outputs_digest(),
        &context.environment.executable,
        &folder,
    );
    if freshness == Freshness::Fresh {
        return print(
            out,
            &format!(
                "{}: up to date, {freshness} since it was built\n",
                args.output.display()
            ),
        );
    }
    let sources = context.sources(&appliance, &cache, network);
    let workshop = Workshop {
        layers: context.shop(&plan, &lock, &cache, &sources)?,
        cluster_cache: cache.join("clusters"),
        out: &folder,
        threads: args.jobs,
        executable: &context.environment.executable,
        package_signer: packing.signer.as_ref(),
        reporter: context.reporter,
    };
    let artifacts = pipeline::build(&plan, &agent.content, &workshop)?;
    print(out, &summary(&artifacts, &args.output))
}

/// `consign plan`.
///
/// # Errors
///
/// Those of the plan; a missing lock is made first, as a build would.
pub(super) fn plan(
    args: &PlanArgs,
    context: &Context<'_>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let appliance = Appliance::open(&args.file)?;
    let cache = context.cache()?;
    let agent = context.agent(None)?;
    let path = args.file.with_file_name(LOCK_FILE_NAME);
    let lock = match Lock::open(&path)? {
        Some(lock) if drift(&appliance, &lock)?.is_empty() => lock,
        old => {
            let held: Vec<PackagePin> = old.iter().flat_map(Lock::packages).cloned().collect();
            context
                .sources(&appliance, &cache, Network::Online)
                .lock(&appliance, &held)?
        }
    };
    let wishes = Wishes {
        properties: Shelf::of_appliance(&appliance)?.properties(),
        ..Wishes::default()
    };
    let plan = BuildPlan::resolve(&appliance, &lock, &agent.builder, &wishes)?;
    let folder = args.file.with_file_name("out");
    let freshness = Stamp::check(
        plan.outputs_digest(),
        &context.environment.executable,
        &folder,
    );
    let has_package = |pin: &PackagePin| deb_path(&cache, pin).is_file();
    let store = Store::open(&cache)?;
    // The layers below one that is looked up are in the store.
    let mut parents = Vec::new();
    let is_cached = |layer: &LayerSpec| {
        let below = if *layer == plan.tools {
            &[]
        } else {
            parents.as_slice()
        };
        let key = layer_key(layer, below, plan.source_date);
        let record = store.record(&key).ok().flatten();
        parents.extend(record.as_ref().map(|record| record.diff_id));
        record.is_some()
    };
    let mut work = BuildWork::of(&plan, is_cached, has_package, freshness.to_string());
    if work.needs_sandbox(&plan) {
        work.sandbox = Some(outlook(&context.sandbox_settings(Some(&lock)))?);
    }
    show(&plan, &work, args.format, out)
}

/// Tries whether outputs can go to `path`, before hours of work: there, or
/// where it would be made. Leaves nothing.
pub(super) fn check_writable(path: &Path) -> Result<(), CliError> {
    let nearest = path.ancestors().find(|folder| folder.exists());
    let nearest = nearest.unwrap_or(Path::new("."));
    match PendingFile::create(&nearest.join(STAMP_FILE_NAME)) {
        Ok(_) => Ok(()),
        Err(source) => Err(CliError::NotWritable {
            path: nearest.to_owned(),
            source,
        }),
    }
}

fn make_folder(path: &Path) -> Result<PathBuf, CliError> {
    let made = std::fs::create_dir_all(path).and_then(|()| std::fs::canonicalize(path));
    made.map_err(|source| CliError::Folder {
        path: path.to_owned(),
        source,
    })
}

fn summary(artifacts: &[Artifact], folder: &Path) -> String {
    let mut text = format!("{}:\n", folder.display());
    for artifact in artifacts {
        let root = artifact
            .content_root
            .map(|root| format!("  content root {root}"));
        let (name, size) = (artifact.file_name(), artifact.size.to_string());
        let root = root.unwrap_or_default();
        writeln!(text, "  {name:24} {size:>10}{root}").expect("a string takes all");
    }
    text
}

pub(super) fn print(out: &mut dyn Write, text: &str) -> Result<(), Error> {
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}
