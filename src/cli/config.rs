//! `consign config`: the customer's file, judged and put onto a disk.

use std::io::Write;
use std::path::{Path, PathBuf};

use consign_schema::SiteConfig;
use serde_json::json;

use super::draw::ReportFormat;
use super::environment::Environment;
use super::error::{CliError, output};
use super::form;
use super::keys;
use crate::appliance::{Appliance, ApplianceError, FILE_NAME, LAYERS_FOLDER};
use crate::artifact::is_same_file;
use crate::error::Error;
use crate::factory::form::sample;
use crate::factory::{Beside, ConfigDisk, ConfigMedia, FactoryError, Shelf, config_disk};
use crate::plan::chance::random_bytes;

/// The sample of an appliance that has none of its own.
const SAMPLE: &str = include_str!("starter/site.toml");

/// What a sample is called.
const SITE_FILE: &str = "site.toml";

/// The customer's side: a sample, a verdict, a config disk.
#[derive(Debug, Clone, clap::Subcommand)]
pub(super) enum ConfigCommand {
    /// Prints a site configuration in which every key is explained: the
    /// appliance's own sample (site.toml beside a layer's recipe), or a general one.
    Init(SampleOf),
    /// Shows what a site configuration sets, or what it changes of the one
    /// before.
    Plan(form::PlanSite),
    /// Prints the JSON Schema of the appliance's site configuration, for editors
    /// and programs.
    Schema(form::SchemaOf),
    /// Writes one page of HTML that asks for a site configuration and makes the
    /// config disk of it, in any browser and with no network.
    Page(form::PageOf),
    /// Judges a site configuration by the appliance's own rules, roles and policy.
    Check(CheckSite),
    /// Writes a site configuration to a config disk: a volume labelled
    /// VACONFIG, to be attached to the machine as a disk (fat) or as a CD (iso).
    Disk(DiskSite),
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct SampleOf {
    /// Every key that there is, with an example of each.
    #[arg(long)]
    all: bool,
    /// The appliance.
    #[arg(long, value_name = "FILE", default_value = FILE_NAME)]
    file: PathBuf,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct CheckSite {
    /// The site configuration.
    #[arg(value_name = "SITE")]
    site: PathBuf,
    #[command(flatten)]
    roles: RolesFrom,
    /// What to print.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct DiskSite {
    /// The site configuration.
    #[arg(value_name = "SITE")]
    site: PathBuf,
    /// The config disk that is written [default: site.img, of a CD site.iso].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What it is.
    #[arg(long, value_enum, default_value_t)]
    format: MediaFormat,
    /// Signs it with this key: a secret key, or the public half of one that
    /// the SSH agent keeps. By hand, `ssh-keygen -Y sign -n consign-config -f KEY
    /// site.toml` makes the same `site.toml.sig`, which goes beside site.toml.
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    /// Secrets for its [secret] tables: a file of `name = "text"` lines with
    /// --encrypt, or one that age has encrypted.
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,
    /// Encrypts the secrets to the appliance: its request.toml, or the
    /// recipient `age1...` that stands there.
    #[arg(long, value_name = "REQUEST", requires = "secrets")]
    encrypt: Option<String>,
    /// A file for the folder `license`.
    #[arg(long, value_name = "FILE")]
    license: Vec<PathBuf>,
    /// A bundle for the folder `payload`.
    #[arg(long, value_name = "FILE.vab")]
    payload: Vec<PathBuf>,
    #[command(flatten)]
    roles: RolesFrom,
}

/// What a config disk is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum MediaFormat {
    /// A FAT volume to which the appliance can write its report.
    #[default]
    Fat,
    /// A CD, for hypervisors that attach files as CDs only: the appliance
    /// reads it, and its report is to be seen on the console.
    Iso,
}

impl MediaFormat {
    fn media(self) -> ConfigMedia {
        match self {
            Self::Fat => ConfigMedia::Fat,
            Self::Iso => ConfigMedia::Iso,
        }
    }

    /// What a disk of this kind is called.
    fn default_output(self) -> PathBuf {
        PathBuf::from(match self {
            Self::Fat => "site.img",
            Self::Iso => "site.iso",
        })
    }
}

/// Where the roles come from that a site may choose.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct RolesFrom {
    /// The appliance whose roles and policy count.
    #[arg(long, value_name = "FILE", default_value = FILE_NAME)]
    file: PathBuf,
    /// A folder of roles instead: one folder for each, with its role.toml.
    #[arg(long, value_name = "FOLDER")]
    roles: Option<PathBuf>,
    /// An image of the appliance instead, as the customer has it: its roles
    /// and its policy count.
    #[arg(long, value_name = "IMAGE", conflicts_with = "roles")]
    image: Option<PathBuf>,
}

impl ConfigCommand {
    /// How the user wants errors.
    pub(super) fn format(&self) -> ReportFormat {
        match self {
            Self::Check(args) => args.format,
            Self::Plan(args) => args.format,
            _ => ReportFormat::Text,
        }
    }
}

impl RolesFrom {
    /// The appliance's name; of roles from elsewhere a general one.
    pub(super) fn name(&self) -> Result<String, Error> {
        if self.roles.is_some() || self.image.is_some() {
            return Ok("Appliance".to_owned());
        }
        Ok(self.appliance()?.name.to_string())
    }

    pub(super) fn shelf(&self) -> Result<Shelf, Error> {
        Ok(match (&self.roles, &self.image) {
            (Some(folder), _) => Shelf::of_folder(folder)?,
            (None, Some(image)) => Shelf::of_image(image)?,
            (None, None) => Shelf::of_appliance(&self.appliance()?)?,
        })
    }

    fn appliance(&self) -> Result<Appliance, Error> {
        match Appliance::open(&self.file) {
            Err(ApplianceError::Missing { path }) => Err(CliError::NoRoles { path }.into()),
            opened => Ok(opened?),
        }
    }
}

/// Runs the subcommand.
///
/// # Errors
///
/// [`Error::Factory`] with every problem of the file, [`Error::Appliance`].
pub(super) fn run(
    command: &ConfigCommand,
    environment: &Environment,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let text = match command {
        ConfigCommand::Init(args) if args.all => whole_sample(&args.file)?,
        ConfigCommand::Init(args) => sample_text(&args.file)?,
        ConfigCommand::Plan(args) => form::plan(args)?,
        ConfigCommand::Schema(args) => form::schema(args)?,
        ConfigCommand::Page(args) => form::write_page(args)?,
        ConfigCommand::Check(args) => check(args)?,
        ConfigCommand::Disk(args) => disk(args, environment)?,
    };
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}

fn check(args: &CheckSite) -> Result<String, Error> {
    let shelf = args.roles.shelf()?;
    let site = shelf.judge_file(&args.site)?;
    let role = site.role.as_deref();
    Ok(match args.format {
        ReportFormat::Json => {
            let verdict = json!({
                "accepted": true,
                "id": site.id.to_string(),
                "serial": site.serial,
                "role": role,
            });
            format!("{verdict}\n")
        }
        ReportFormat::Text => format!(
            "{}: accepted\n  id {}, serial {}, role {}\n",
            args.site.display(),
            site.id,
            site.serial,
            role.unwrap_or("none"),
        ),
    })
}

fn disk(args: &DiskSite, environment: &Environment) -> Result<String, Error> {
    let output = match &args.output {
        Some(output) => output.clone(),
        None => args.format.default_output(),
    };
    let signer = match &args.sign {
        Some(key) => Some(keys::signer(key, environment)?),
        None => None,
    };
    let encrypt = match &args.encrypt {
        Some(request) => {
            let chance = random_bytes().map_err(|source| CliError::Chance { source })?;
            Some((request.as_str(), chance))
        }
        None => None,
    };
    let beside = Beside {
        signer: signer.as_ref(),
        secrets: args.secrets.as_deref(),
        encrypt,
        licenses: &args.license,
        payload: &args.payload,
    };
    let request = args.encrypt.as_ref().map(PathBuf::from);
    let roles = [args.roles.image.clone(), Some(args.roles.file.clone())];
    let mut inputs = [args.sign.clone(), request].into_iter().chain(roles);
    if let Some(path) = inputs.find_map(|input| input.filter(|it| is_same_file(it, &output))) {
        return Err(FactoryError::Overwrites { path }.into());
    }
    let shelf = args.roles.shelf()?;
    let made = config_disk(&shelf, &args.site, args.format.media(), &beside, &output)?;
    Ok(disk_text(&made, &output))
}

fn disk_text(made: &ConfigDisk, output: &Path) -> String {
    let short: String = made.digest.hex().chars().take(8).collect();
    format!(
        "wrote `{}`: {}, id {}, serial {}, cfg={short}\n",
        output.display(),
        made.size,
        made.site.id,
        made.site.serial,
    )
}

/// Every key, and the parameters of the appliance's roles if there is one.
fn whole_sample(file: &Path) -> Result<String, Error> {
    let shelf = if file.is_file() {
        Shelf::of_appliance(&Appliance::open(file)?)?
    } else {
        Shelf::default()
    };
    Ok(sample(&shelf))
}

/// The appliance's own sample. A customer has no appliance.toml, and gets the
/// general one.
fn sample_text(file: &Path) -> Result<String, Error> {
    if !file.is_file() {
        return Ok(SAMPLE.to_owned());
    }
    let Some(path) = sample_of(&Appliance::open(file)?, file) else {
        return Ok(SAMPLE.to_owned());
    };
    std::fs::read_to_string(&path).map_err(|source| CliError::Read { path, source }.into())
}

/// `site.toml` beside a layer's recipe; of several the uppermost layer's.
fn sample_of(appliance: &Appliance, file: &Path) -> Option<PathBuf> {
    let layers = file.with_file_name(LAYERS_FOLDER);
    let path = |name: &str| layers.join(name).join(SITE_FILE);
    let mut paths = appliance
        .layers
        .iter()
        .rev()
        .map(|layer| path(layer.name.as_str()));
    paths.find(|path| path.is_file())
}

/// A config disk for `consign boot`.
#[derive(Debug)]
pub(super) struct BootConfig {
    /// The disk.
    pub(super) disk: PathBuf,
    /// What it says; `None` of a disk that was there before.
    pub(super) site: Option<SiteConfig>,
}

/// The config disk for `consign boot`: `config` itself, or one made of it
/// when it is a site configuration, or of the appliance's sample when there
/// is none. `folder` takes a disk that is made.
///
/// # Errors
///
/// As [`run`].
pub(super) fn disk_for_boot(
    config: Option<&Path>,
    file: &Path,
    folder: &Path,
) -> Result<Option<BootConfig>, Error> {
    let is_site = |path: &Path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    };
    match config {
        Some(path) if !is_site(path) => {
            let disk = path.to_owned();
            return Ok(Some(BootConfig { disk, site: None }));
        }
        None if !file.is_file() => return Ok(None),
        _ => {}
    }
    let appliance = Appliance::open(file)?;
    let sample = sample_of(&appliance, file);
    let Some(site) = config.or(sample.as_deref()) else {
        return Ok(None);
    };
    let disk = folder.join("site.img");
    let shelf = Shelf::of_appliance(&appliance)?;
    let made = config_disk(&shelf, site, ConfigMedia::Fat, &Beside::default(), &disk)?;
    Ok(Some(BootConfig {
        disk,
        site: Some(made.site),
    }))
}

/// The problems of a refused file, in the lines that the appliance's console
/// shows too; empty for other errors.
pub(super) fn problem_lines(error: &FactoryError) -> Vec<String> {
    let Some((file, problems)) = error.problems() else {
        return Vec::new();
    };
    problems
        .iter()
        .flat_map(|problem| problem.lines(&file))
        .collect()
}

/// The same for programs.
pub(super) fn problem_objects(error: &FactoryError) -> Vec<serde_json::Value> {
    let Some((file, problems)) = error.problems() else {
        return Vec::new();
    };
    let object = |problem: &consign_schema::Problem| {
        json!({
            "file": file,
            "line": problem.line,
            "column": problem.column,
            "code": problem.code.slug(),
            "key": problem.key,
            "message": problem.message,
            "allowed": problem.allowed,
            "remedy": problem.remedy,
        })
    };
    problems.iter().map(object).collect()
}
