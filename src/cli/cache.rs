//! `consign cache`: what is in the cache, whether it is sound, and sharing it.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::build::Context;
use super::draw::ReportFormat;
use super::error::{CliError, output};
use crate::appliance::{Appliance, FILE_NAME};
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::share::{self, ShareOutcome, Shared};
use crate::layer::source::deb::Network;
use crate::layer::source::oci::reference::Repository;
use crate::layer::spec::LayerSpec;
use crate::layer::upkeep::{self, Held, Kind, Limits, Trimmed, Verified};
use crate::layer::{DebSource as _, Store};
use crate::plan::{BuildPlan, Builder, LOCK_FILE_NAME, Lock, Wishes, clock};
use crate::units::{ByteSize, Timestamp};

/// The cache of packages, layers and images: one folder, safe to share
/// between builds that run at the same time.
///
/// Nothing in it is needed: what is missing or damaged is made or fetched
/// again. `push` and `pull` share finished layers with other machines by way
/// of any OCI registry, so that only one of them makes a layer; a build whose
/// layers are all in the cache needs no sandbox.
#[derive(Debug, Clone, clap::Subcommand)]
pub(super) enum CacheCommand {
    /// Lists what is in the cache.
    List(ListArgs),
    /// Digests everything anew and drops what is damaged; exit code 3 then.
    Verify(VerifyArgs),
    /// Removes what has not been used for long, or what is too much.
    Trim(TrimArgs),
    /// Brings the finished layers of the appliance to a registry.
    Push(ShareArgs),
    /// Takes the layers of the appliance from a registry, as far as it has them.
    Pull(ShareArgs),
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct ListArgs {
    /// What to print.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct VerifyArgs {
    /// What to print.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Clone, clap::Args)]
#[command(group(clap::ArgGroup::new("limit").required(true).multiple(true)))]
pub(super) struct TrimArgs {
    /// The cache has at most this size afterwards: 10GiB. The least used goes first.
    #[arg(long, value_name = "SIZE", group = "limit", value_parser = size)]
    size: Option<ByteSize>,
    /// What was not used for so long goes: 30d, 12h, 2w.
    #[arg(long, value_name = "TIME", group = "limit", value_parser = age)]
    age: Option<i64>,
    /// Says what would go, and leaves it.
    #[arg(long)]
    dry_run: bool,
    /// What to print.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

/// With a login from docker's config.json where the registry wants one; by
/// http from this machine itself, by https from all others. What is pulled is
/// checked: every digest, the key and the packages of each layer.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ShareArgs {
    /// Where the layers are kept: registry.example.com/team/layers.
    #[arg(value_name = "REGISTRY/NAME", value_parser = repository)]
    repository: Repository,
    /// The appliance.
    #[arg(long, value_name = "FILE", default_value = FILE_NAME)]
    file: PathBuf,
    /// What to print.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

fn size(text: &str) -> Result<ByteSize, String> {
    ByteSize::parse(text).map_err(|error| error.to_string())
}

/// Seconds of `30d`, `12h`, `2w`.
fn age(text: &str) -> Result<i64, String> {
    let wrong = || "write a number and h, d or w, for example 30d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let hours = match unit {
        'h' => 1,
        'd' => 24,
        'w' => 7 * 24,
        _ => return Err(wrong()),
    };
    let number: u32 = text
        .strip_suffix(unit)
        .and_then(|number| number.parse().ok())
        .ok_or_else(wrong)?;
    Ok(i64::from(number) * hours * 3600)
}

fn repository(text: &str) -> Result<Repository, String> {
    Repository::parse(text).map_err(str::to_owned)
}

impl CacheCommand {
    /// How the user wants errors.
    pub(super) fn format(&self) -> ReportFormat {
        match self {
            Self::List(args) => args.format,
            Self::Verify(args) => args.format,
            Self::Trim(args) => args.format,
            Self::Push(args) | Self::Pull(args) => args.format,
        }
    }
}

/// Runs the subcommand.
///
/// # Errors
///
/// Those of the cache and of the registry; [`CliError::CacheDamaged`] when
/// something was dropped.
pub(super) fn run(
    command: &CacheCommand,
    context: &Context<'_>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let store = Store::open(&context.cache()?)?;
    let text = match command {
        CacheCommand::List(args) => {
            let held = upkeep::list(&store)?;
            match args.format {
                ReportFormat::Text => list_text(&held),
                ReportFormat::Json => format!("{}\n", json!({ "held": held })),
            }
        }
        CacheCommand::Verify(args) => return verify(args, &store, context, out),
        CacheCommand::Trim(args) => trim(args, &store)?,
        CacheCommand::Push(args) => {
            let plan = plan(args)?;
            let sources = context.sources(&plan.appliance, store.folder(), Network::Online);
            let remote = sources.remote()?;
            let registry = remote.registry(&args.repository);
            let shared = share::push(
                &plan.specs,
                plan.source_date,
                &store,
                &registry,
                context.reporter,
            )?;
            shared_text(&shared, args.format, "the cache")
        }
        CacheCommand::Pull(args) => {
            let plan = plan(args)?;
            let sources = context.sources(&plan.appliance, store.folder(), Network::Online);
            let remote = sources.remote()?;
            let registry = remote.registry(&args.repository);
            let ways = (&remote, &registry);
            let shared = share::pull(
                &plan.specs,
                plan.source_date,
                &store,
                ways,
                context.reporter,
            )?;
            shared_text(&shared, args.format, "the registry")
        }
    };
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}

/// The part of a build's plan that decides its layers.
struct LayerPlan {
    appliance: Appliance,
    specs: Vec<LayerSpec>,
    source_date: Timestamp,
}

/// Layers do not depend on the agent, so none has to be there. The tools'
/// layer stands on nothing, and comes first.
fn plan(args: &ShareArgs) -> Result<LayerPlan, Error> {
    let appliance = Appliance::open(&args.file)?;
    let path = args.file.with_file_name(LOCK_FILE_NAME);
    let lock = Lock::open(&path)?.ok_or(CliError::NoLock { path })?;
    let plan = layers_of(&appliance, &lock)?;
    let mut specs = plan.layers;
    let tools = plan.tools;
    specs.push(tools);
    Ok(LayerPlan {
        appliance,
        specs,
        source_date: plan.source_date,
    })
}

/// A plan whose layers are right and whose agent is nobody's.
pub(super) fn layers_of(appliance: &Appliance, lock: &Lock) -> Result<BuildPlan, Error> {
    let nobody = Builder {
        version: env!("CARGO_PKG_VERSION").into(),
        agent: Digest::of(b""),
    };
    Ok(BuildPlan::resolve(
        appliance,
        lock,
        &nobody,
        &Wishes::default(),
    )?)
}

fn list_text(held: &[Held]) -> String {
    let mut text = String::new();
    for kind in Kind::ALL {
        let of_kind: Vec<&Held> = held.iter().filter(|one| one.kind == kind).collect();
        let bytes = of_kind.iter().map(|one| one.size.bytes()).sum();
        let size = ByteSize::from_bytes(bytes).to_string();
        writeln!(text, "{:12} {:>6}  {size:>10}", kind.noun(), of_kind.len())
            .expect("a string takes all");
        if kind == Kind::Layer {
            for one in of_kind {
                let name: String = one.name.chars().take(16).collect();
                let (size, used) = (one.size.to_string(), one.used.to_string());
                writeln!(text, "  {name}  {size:>10}  {used}  {}", one.about)
                    .expect("a string takes all");
            }
        }
    }
    text
}

fn verify(
    args: &VerifyArgs,
    store: &Store,
    context: &Context<'_>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let verified = upkeep::verify(store, context.reporter)?;
    let text = match args.format {
        ReportFormat::Text => verify_text(&verified),
        ReportFormat::Json => format!("{}\n", json!(verified)),
    };
    out.write_all(text.as_bytes()).map_err(output)?;
    match verified.dropped.len() {
        0 => Ok(()),
        count => Err(CliError::CacheDamaged { count }.into()),
    }
}

fn verify_text(verified: &Verified) -> String {
    let size = ByteSize::from_bytes(verified.bytes);
    let mut text = format!("{} sound, {size}\n", verified.sound);
    for damage in &verified.dropped {
        let (kind, name) = (damage.kind.noun(), &damage.name);
        writeln!(text, "dropped {kind} {name}: {}", damage.problem).expect("a string takes all");
    }
    text
}

fn trim(args: &TrimArgs, store: &Store) -> Result<String, Error> {
    let now = clock::now();
    let limits = Limits {
        size: args.size,
        used_since: args
            .age
            .map(|age| Timestamp::from_seconds(now.seconds - age)),
        is_rehearsal: args.dry_run,
    };
    let trimmed = upkeep::trim(store, &limits, now)?;
    Ok(match args.format {
        ReportFormat::Text => trim_text(&trimmed, args.dry_run),
        ReportFormat::Json => format!("{}\n", json!(trimmed)),
    })
}

fn trim_text(trimmed: &Trimmed, is_rehearsal: bool) -> String {
    let mut text = String::new();
    let verb = if is_rehearsal {
        "would remove"
    } else {
        "removed"
    };
    for kind in Kind::ALL {
        let of_kind = trimmed.removed.iter().filter(|one| one.kind == kind);
        let (count, bytes) = of_kind.fold((0, 0), |(count, bytes), one| {
            (count + 1, bytes + one.size.bytes())
        });
        if count > 0 {
            let size = ByteSize::from_bytes(bytes);
            writeln!(text, "{verb} {count} × {}, {size}", kind.noun()).expect("a string takes all");
        }
    }
    let (freed, left) = (
        ByteSize::from_bytes(trimmed.freed),
        ByteSize::from_bytes(trimmed.left),
    );
    writeln!(text, "{verb} {freed} in all, {left} left").expect("a string takes all");
    if trimmed.is_in_use {
        text.push_str("a build is using the cache: only layers unused for a day were considered\n");
    }
    text
}

fn shared_text(shared: &[Shared], format: ReportFormat, from: &str) -> String {
    if format == ReportFormat::Json {
        return format!("{}\n", json!({ "layers": shared }));
    }
    let width = shared.iter().map(|one| one.layer.len()).max().unwrap_or(0);
    let line = |one: &Shared| {
        let words = match one.outcome {
            ShareOutcome::Copied => "copied".to_owned(),
            ShareOutcome::There => "was there".to_owned(),
            ShareOutcome::Missing => format!("{from} does not have it"),
            ShareOutcome::BelowMissing => "stands on a layer that is missing".to_owned(),
        };
        let size = one.size.map(|size| format!(", {size}")).unwrap_or_default();
        format!("{:width$}  {words}{size}\n", one.layer)
    };
    shared.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_hours_days_and_weeks() {
        assert_eq!(age("12h"), Ok(12 * 3600));
        assert_eq!(age("30d"), Ok(30 * 86_400));
        assert_eq!(age("2w"), Ok(14 * 86_400));
        for wrong in ["", "30", "d", "-1d", "1.5d", "30m", "9999999999999d", "3ä"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }
}
