//! `consign import` and `virt-image`: a guest out of a descriptor.

mod options;
mod place;
mod show;

use std::io::Write;
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use serde_json::json;

use super::draw::ReportFormat;
use super::environment::Environment;
use super::error::{CliError, output};
use super::signals::Stoppable;
use crate::appliance::{Appliance, FILE_NAME};
use crate::error::Error;
use crate::factory::{Beside, ConfigMedia, Shelf, config_disk};
use crate::import::emit::{Dialect, emit};
use crate::import::wishes::{Config, Recipe};
use crate::import::{Acts, HostFirmware, ImportError, Plan, Wishes, domain, host};
use crate::machine::kvm::Accelerator;
use crate::plan::{chance, clock};
use crate::release::manifest::Manifest;
use crate::release::verify::{self, Policy};
use crate::report::Reporter;
use crate::sign::PublicKey;
use crate::units::Guid;
use options::GuestOptions;
use place::Connection;
pub(super) use show::{finding_lines, finding_objects};

/// Makes a guest of an appliance, as virt-image did, and leaves the
/// appliance's files as they are.
///
/// The guest gets disks of its own, in libvirt or, where there is none, in
/// QEMU alone. Whatever fails takes back what came before it.
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct ImportArgs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    take: TakeArgs,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// Replaces a guest's system disks by newer ones and keeps its user disks.
    Upgrade(UpgradeArgs),
    /// Starts a guest, after a look at the files that its overlays lie on.
    Start(StartArgs),
    /// Removes a guest that was imported, with its files and nothing else.
    Remove(RemoveArgs),
}

#[derive(Debug, Clone, clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
struct TakeArgs {
    /// The descriptor, appliance.xml.
    #[arg(value_name = "DESCRIPTOR", required = true)]
    descriptor: Option<PathBuf>,
    #[command(flatten)]
    guest: GuestOptions,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    trust: TrustArgs,
    /// The configuration: site.toml, a config disk or CD made of it, or `none`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The roles that a site.toml may choose from, as `consign config` takes them.
    #[arg(long, value_name = "FOLDER")]
    roles: Option<PathBuf>,
    /// Replaces a guest of that name; its user disks are kept.
    #[arg(long)]
    replace: bool,
    /// Defines the guest and does not start it.
    #[arg(long, visible_alias = "no-start")]
    noreboot: bool,
    /// Prints the guest's libvirt XML and changes nothing.
    #[arg(short = 'p', long, visible_alias = "print", group = "only")]
    print_xml: bool,
    /// Shows what would be done, and changes nothing.
    #[arg(long, group = "only")]
    dry_run: bool,
    /// Prints what would be done with another tool, and changes nothing.
    #[arg(long, value_enum, value_name = "TOOL", group = "only")]
    emit: Option<EmitFor>,
    /// Waits until the guest says that it is ready; exit code 5 when it does not.
    #[arg(long, value_name = "SECONDS", conflicts_with = "noreboot", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait_ready: Option<u64>,
    /// What to print.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
    #[arg(short, long, hide = true)]
    quiet: bool,
    #[arg(short, long, hide = true)]
    debug: bool,
}

#[derive(Debug, Clone, clap::Args)]
struct UpgradeArgs {
    /// The newer descriptor.
    #[arg(value_name = "DESCRIPTOR")]
    descriptor: PathBuf,
    /// The guest, when it is not called as the descriptor says.
    #[arg(short, long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    trust: TrustArgs,
    /// How disks are copied.
    #[arg(long, value_enum, default_value_t = options::CloneOption::Full)]
    clone: options::CloneOption,
    /// Cuts the power of a running guest, and drops what was saved of one.
    #[arg(long)]
    force: bool,
    /// Starts the guest afterwards.
    #[arg(long)]
    start: bool,
    /// Waits until the guest says that it is ready.
    #[arg(long, value_name = "SECONDS", requires = "start", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait_ready: Option<u64>,
    /// What to print.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Clone, clap::Args)]
struct StartArgs {
    /// The guest.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    place: PlaceArgs,
    /// Waits until the guest says that it is ready.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait_ready: Option<u64>,
    /// What to print.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Clone, clap::Args)]
struct RemoveArgs {
    /// The guest.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    place: PlaceArgs,
    /// Cuts the power of a running guest, and drops what was saved of one.
    #[arg(long)]
    force: bool,
    /// What to print.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Clone, clap::Args)]
struct PlaceArgs {
    /// The libvirt to ask (`qemu:///system`, `qemu:///session`), or `none` for
    /// QEMU alone.
    #[arg(short, long, value_name = "URI")]
    connect: Option<String>,
    /// The folder in which the guest's folder is made, or `pool=NAME`.
    #[arg(long, value_name = "FOLDER")]
    storage: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Args)]
struct TrustArgs {
    /// A public key that has to have signed the release around the descriptor.
    #[arg(long, value_name = "KEY.pub")]
    key: Vec<PathBuf>,
    /// Compares every checksum in a dry run too.
    #[arg(long)]
    verify: bool,
    /// Compares no checksums.
    #[arg(long, conflicts_with_all = ["key", "verify"])]
    skip_checksum: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum EmitFor {
    /// libvirt's XML.
    Libvirt,
    /// A script for QEMU alone.
    Qemu,
    /// A script for Proxmox VE.
    Qm,
    /// A script for virt-install.
    VirtInstall,
}

impl ImportArgs {
    pub(super) fn format(&self) -> ReportFormat {
        match &self.command {
            Some(Command::Upgrade(args)) => args.format,
            Some(Command::Start(args)) => args.format,
            Some(Command::Remove(args)) => args.format,
            None => self.take.format,
        }
    }

    /// Whether nobody wants to see progress.
    pub(super) fn is_quiet(&self) -> bool {
        self.take.quiet
    }
}

/// Runs the subcommand.
///
/// # Errors
///
/// [`Error::Import`], [`Error::Release`], [`Error::Factory`].
pub(super) fn run(
    args: &ImportArgs,
    environment: &Environment,
    reporter: &dyn Reporter,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let reporter = &Stoppable::listen(reporter).map_err(|source| CliError::Signals { source })?;
    let text = match &args.command {
        None => take(&args.take, environment, reporter),
        Some(Command::Upgrade(args)) => upgrade(args, environment, reporter),
        Some(Command::Start(args)) => start(args, environment, reporter),
        Some(Command::Remove(args)) => remove(args, environment, reporter),
    };
    let text = text.map_err(|error| reporter.reason(error))?;
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}

fn take(
    args: &TakeArgs,
    environment: &Environment,
    reporter: &Stoppable<'_>,
) -> Result<String, Error> {
    let descriptor = args
        .descriptor
        .as_deref()
        .unwrap_or(Path::new("appliance.xml"));
    let made = tempfile::tempdir().map_err(|source| CliError::Folder {
        path: std::env::temp_dir(),
        source,
    })?;
    let is_acting = !(args.dry_run || args.print_xml || args.emit.is_some());
    let connection = Connection::choose(&args.place, environment);
    let is_wanted = args.trust.verify || !args.trust.key.is_empty() || !args.dry_run;
    let is_verifying = !args.trust.skip_checksum && is_wanted;
    let wishes = Wishes {
        config: config(args, made.path())?,
        storage: args.place.storage(&connection, environment)?,
        ..wishes(&args.guest, &connection)
    };
    let manifest = if is_verifying {
        signed(descriptor, &args.trust, reporter)?
    } else {
        None
    };
    let mut plan = crate::import::plan(descriptor, wishes, HostFirmware::find(Path::new("/")))?;
    if let Some(manifest) = &manifest {
        plan.pin(manifest)?;
    }
    if !is_acting {
        // What was just held against the manifest is not read again.
        if is_verifying && !plan.is_pinned {
            plan.verify(reporter)?;
        }
        let text = preview(args, &plan, &connection, environment, reporter)?;
        reporter.go_on()?;
        return Ok(text);
    }
    let host = connection.open(environment)?;
    let acts = Acts {
        start: !args.noreboot,
        replace: args.replace,
        verify: is_verifying && !plan.is_pinned,
        force: false,
        wait_ready: args.wait_ready.map(Duration::from_secs),
        addresses: random_guid()?,
    };
    say_remarks(&plan, &args.trust, reporter);
    reporter.go_on()?;
    reporter.commit();
    let imported = crate::import::import(&mut plan, &host, &acts, reporter)?;
    Ok(show::imported(&imported, args.format, "imported"))
}

fn preview(
    args: &TakeArgs,
    plan: &Plan,
    connection: &Connection,
    environment: &Environment,
    reporter: &dyn Reporter,
) -> Result<String, Error> {
    let accelerator = || host::accelerator(plan.virt, &environment.search_path, reporter);
    if args.print_xml {
        return Ok(domain::render(plan, accelerator()?));
    }
    if let Some(tool) = args.emit {
        let dialect = match tool {
            EmitFor::Libvirt => Dialect::Libvirt,
            EmitFor::Qemu => Dialect::Qemu,
            EmitFor::Qm => Dialect::Qm,
            EmitFor::VirtInstall => Dialect::VirtInstall,
        };
        let accelerator = match dialect {
            Dialect::Qm => Accelerator::Kvm,
            _ => accelerator()?,
        };
        return Ok(emit(plan, dialect, accelerator, connection.uri())?);
    }
    Ok(match args.format {
        ReportFormat::Json => {
            let plan = json!({ "dry_run": true, "plan": show::json(plan) });
            format!("{plan}\n")
        }
        ReportFormat::Text => format!(
            "{}\nNothing was changed: this was a dry run.\n",
            show::text(plan).trim_end()
        ),
    })
}

fn wishes(guest: &GuestOptions, connection: &Connection) -> Wishes {
    Wishes {
        name: guest.name.clone(),
        uuid: guest.uuid.clone(),
        memory: guest.memory,
        vcpus: guest.vcpus,
        cpuset: guest.cpuset.clone(),
        cpu: guest.cpu.clone(),
        nics: guest.nics(),
        default_network: connection.default_network(),
        network_map: guest.map(),
        graphics: guest.screen(),
        boot: guest.boot,
        os: guest.os_variant.clone(),
        firmware: guest.firmware(),
        board: guest.board(),
        bus: guest.bus(),
        virt: guest.virt(),
        clone: guest.clone.kind(),
        sizes: guest.disk.iter().cloned().collect(),
        config: Config::Descriptor,
        storage: PathBuf::new(),
        autostart: guest.autostart,
        paths: guest.paths(),
        without: guest.without(),
    }
}

/// The config disk: one of a site.toml is made in `folder`.
fn config(args: &TakeArgs, folder: &Path) -> Result<Config, Error> {
    let Some(path) = &args.config else {
        return Ok(Config::Descriptor);
    };
    if path.as_os_str() == "none" {
        return Ok(Config::None);
    }
    let site = if path.is_dir() {
        Some(path.join("site.toml"))
    } else {
        path.extension()
            .is_some_and(|extension| extension == "toml")
            .then(|| path.clone())
    };
    let Some(site) = site else {
        return Ok(if is_cd(path)? {
            Config::Cd(path.clone())
        } else {
            Config::Volume(path.clone())
        });
    };
    let appliance = Path::new(FILE_NAME);
    let shelf = match &args.roles {
        Some(roles) => Shelf::of_folder(roles)?,
        None if appliance.is_file() => Shelf::of_appliance(&Appliance::open(appliance)?)?,
        None => Shelf::default(),
    };
    let volume = folder.join("site.img");
    config_disk(&shelf, &site, ConfigMedia::Fat, &Beside::default(), &volume)?;
    let full = |path: &Path| {
        absolute(path).map_err(|source| CliError::Read {
            path: path.to_owned(),
            source,
        })
    };
    let text = |path: &Path| full(path).map(|path| path.display().to_string());
    let mut command: Vec<String> = ["consign", "config", "disk"].map(Into::into).into();
    command.push(text(&site)?);
    match &args.roles {
        Some(roles) => command.extend(["--roles".into(), text(roles)?]),
        None if appliance.is_file() => command.extend(["--file".into(), text(appliance)?]),
        None => {}
    }
    let site = full(&site)?;
    let recipe = Recipe { site, command };
    Ok(Config::Made { volume, recipe })
}

/// ISO 9660 says `CD001` in its 17th sector (ECMA-119, 8.1.2).
fn is_cd(path: &Path) -> Result<bool, Error> {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::open(path).map_err(|source| CliError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mut word = [0; 5];
    let read = file.read_exact_at(&mut word, 16 * 2048 + 1);
    Ok(read.is_ok() && word == *b"CD001")
}

/// With a key: the folder is a release by its owner, or not even the
/// descriptor is looked at.
fn signed(
    descriptor: &Path,
    trust: &TrustArgs,
    reporter: &dyn Reporter,
) -> Result<Option<Manifest>, Error> {
    if trust.key.is_empty() {
        return Ok(None);
    }
    let keys: Result<Vec<PublicKey>, _> =
        trust.key.iter().map(|key| PublicKey::open(key)).collect();
    let keys = keys?;
    let policy = Policy {
        threshold: keys.len(),
        keys,
        now: Some(clock::now().seconds),
        ..Policy::default()
    };
    let folder = match descriptor.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let verified = verify::folder(folder, &policy, threads, reporter).map_err(ImportError::from)?;
    Ok(Some(verified.manifest))
}

fn say_remarks(plan: &Plan, trust: &TrustArgs, reporter: &dyn Reporter) {
    for remark in &plan.remarks {
        reporter.warn(remark.clone(), None);
    }
    if trust.key.is_empty() {
        reporter.warn(
            "no key was given: the disks are whole, but nobody says whose they are (integrity only)",
            Some("pin the vendor's key, from another place than the release: `--key KEY.pub`"),
        );
    }
}

fn random_guid() -> Result<Guid, CliError> {
    let bytes = chance::random_bytes::<16>().map_err(|source| CliError::Chance { source })?;
    Ok(Guid::from_hash(bytes))
}

fn upgrade(
    args: &UpgradeArgs,
    environment: &Environment,
    reporter: &Stoppable<'_>,
) -> Result<String, Error> {
    let connection = Connection::choose(&args.place, environment);
    let guest = GuestOptions::default();
    let wishes = Wishes {
        name: args.name.clone(),
        // Not used: the guest has its own, which is kept.
        memory: Some(crate::import::wishes::Memory::LEAST),
        clone: args.clone.kind(),
        config: Config::None,
        storage: args.place.storage(&connection, environment)?,
        ..wishes(&guest, &connection)
    };
    let manifest = signed(&args.descriptor, &args.trust, reporter)?;
    let host = connection.open(environment)?;
    let mut plan = crate::import::plan_upgrade(&args.descriptor, wishes, &host)?;
    if let Some(manifest) = &manifest {
        plan.pin(manifest)?;
    }
    say_remarks(&plan, &args.trust, reporter);
    let acts = Acts {
        start: args.start,
        replace: false,
        verify: !args.trust.skip_checksum && !plan.is_pinned,
        force: args.force,
        wait_ready: args.wait_ready.map(Duration::from_secs),
        addresses: random_guid()?,
    };
    reporter.go_on()?;
    reporter.commit();
    let imported = crate::import::upgrade(&mut plan, &host, &acts, reporter)?;
    Ok(show::imported(&imported, args.format, "upgraded"))
}

fn start(
    args: &StartArgs,
    environment: &Environment,
    reporter: &Stoppable<'_>,
) -> Result<String, Error> {
    let connection = Connection::choose(&args.place, environment);
    let storage = args.place.storage(&connection, environment)?;
    let host = connection.open(environment)?;
    let wait = args.wait_ready.map(Duration::from_secs);
    reporter.go_on()?;
    let started = crate::import::start_again(&args.name, &storage, &host, wait, reporter)?;
    Ok(show::imported(&started, args.format, "started"))
}

fn remove(
    args: &RemoveArgs,
    environment: &Environment,
    reporter: &Stoppable<'_>,
) -> Result<String, Error> {
    let connection = Connection::choose(&args.place, environment);
    let storage = args.place.storage(&connection, environment)?;
    let host = connection.open(environment)?;
    reporter.go_on()?;
    reporter.commit();
    let folder = crate::import::remove(&args.name, &storage, &host, args.force, reporter)?;
    Ok(match args.format {
        ReportFormat::Json => {
            let removed = json!({ "removed": args.name, "folder": folder });
            format!("{removed}\n")
        }
        ReportFormat::Text => format!("removed `{}` and its files\n", args.name),
    })
}
