//! The command line: the only room that reads the environment and prints.
//!
//! In: arguments and environment. Out: an exit code. Never here: work; each
//! subcommand is one file that calls the library.

mod boot;
mod build;
mod bundle;
mod cache;
mod check;
mod config;
mod convert;
mod draw;
mod environment;
mod error;
mod form;
mod import;
mod init;
mod inspect;
mod keys;
mod lock;
mod manual;
mod package;
mod plan;
mod release;
mod reproduce;
mod sandbox;
mod signals;
mod source;
mod terminal;
mod verify;
mod why;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use error::CliError;

use crate::appliance::Style;
use crate::error::Error;
use crate::layer::SandboxChoice;
use crate::report::Reporter;
use draw::ReportFormat;
use environment::Environment;
use terminal::Progress;

/// Builds bootable virtual appliances from appliance.toml, without root,
/// mounts or virtual machines.
///
/// `consign init` writes a starter, `consign build` makes the disk and its
/// descriptor in out/, `consign boot` starts it.
#[derive(Debug, Parser)]
#[command(name = "consign", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Works in FOLDER, as if started there.
    #[arg(short = 'C', long, global = true, value_name = "FOLDER")]
    directory: Option<PathBuf>,
    /// Where packages and layers are kept; safe to share.
    #[arg(long, global = true, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// The sandbox that packages are installed in: auto, userns, root, chroot, vm.
    #[arg(long, global = true, value_name = "NAME", value_parser = sandbox::choice)]
    sandbox: Option<SandboxChoice>,
    /// How progress is shown.
    #[arg(long, global = true, value_enum, default_value_t)]
    progress: Progress,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 build or fetch failed; 2 usage, appliance.toml or \
site.toml; 3 verification failed; 4 an external tool is missing or failed; 5 the guest did not \
get ready; 70 a bug in consign; 130 and 143 stopped by Ctrl-C or SIGTERM.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Builds the appliance: disk images, descriptor, sums.
    Build(build::BuildArgs),
    /// Starts an image in QEMU, with a sample config disk.
    Boot(boot::BootArgs),
    /// Makes a guest of an appliance, in libvirt or in QEMU; upgrades and removes it.
    Import(Box<import::ImportArgs>),
    /// Judges appliance.toml, its layers and its lock.
    Check(check::CheckArgs),
    /// Shows what a build would decide, fetch, make and reuse, and why.
    Plan(plan::PlanArgs),
    /// Answers what appliance.toml asks for, in appliance.lock.
    Lock(lock::LockArgs),
    /// Brings every locked package into the cache.
    Fetch(lock::FetchArgs),
    /// Shows what is in a disk image, and lists its volumes.
    Inspect(inspect::InspectArgs),
    /// Puts the disk of an image into another container.
    Convert(convert::ConvertArgs),
    /// Tells which layer and which package a file of the image comes from.
    Why(why::WhyArgs),
    /// Lists, verifies, trims and shares what builds keep.
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// Writes a commented starter.
    Init(init::InitArgs),
    /// The customer's side: site.toml and its config disk.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    Bundle(bundle::BundleArgs),
    /// Builds the appliance and makes the folder that is handed over.
    Release(release::ReleaseArgs),
    /// Makes a key to sign releases with.
    Keygen(keys::KeygenArgs),
    /// Shows a public key in the form that a tool wants.
    Key(keys::KeyArgs),
    /// Signs a release, or adds a signature to it.
    Sign(verify::SignArgs),
    /// Adds a signature that was made elsewhere.
    Attach(verify::AttachArgs),
    /// Verifies a release, offline.
    Verify(verify::VerifyArgs),
    /// Builds a release once more and compares every byte.
    Reproduce(reproduce::ReproduceArgs),
    /// Collects the sources of what was shipped.
    Source(source::SourceArgs),
    /// Tells which sandbox packages would be installed in, and why.
    Sandbox(sandbox::SandboxArgs),
    /// Prints a completion script for a shell.
    Completion(manual::CompletionArgs),
    /// Writes the manual pages.
    Man(manual::ManArgs),
}

impl Command {
    /// How the user wants errors.
    fn format(&self) -> ReportFormat {
        match self {
            Self::Check(args) => args.format(),
            Self::Import(args) => args.format(),
            Self::Plan(args) => args.format,
            Self::Sandbox(args) => args.format,
            Self::Config(command) => command.format(),
            Self::Verify(args) => args.format(),
            Self::Reproduce(args) => args.format,
            Self::Inspect(args) => args.format(),
            Self::Cache(command) => command.format(),
            Self::Why(args) => args.format,
            _ => ReportFormat::Text,
        }
    }
}

/// Runs consign with these arguments, the program's name first.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let environment = match Environment::read() {
        Ok(environment) => environment,
        Err(source) => {
            return fail(
                &Error::from(CliError::Environment { source }),
                ReportFormat::Text,
                false,
            );
        }
    };
    let format = arguments.command.format();
    match dispatch(arguments, &environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_output(&error) => ExitCode::SUCCESS,
        Err(error) => fail(&error, format, environment.color),
    }
}

/// `virt-image`: `consign import` under the name that it had.
#[derive(Debug, Parser)]
#[command(name = "virt-image", version, after_help = EXIT_CODES)]
struct VirtImage {
    #[command(flatten)]
    import: import::ImportArgs,
    /// How progress is shown.
    #[arg(long, value_enum, default_value_t)]
    progress: Progress,
    /// Prints a completion script for a shell.
    #[arg(long, value_name = "SHELL", hide = true, exclusive = true)]
    completion: Option<clap_complete::Shell>,
    /// Writes the manual page into a folder.
    #[arg(long, value_name = "FOLDER", hide = true, exclusive = true)]
    man: Option<PathBuf>,
}

/// Runs `virt-image` with these arguments, the program's name first.
#[must_use]
pub fn run_virt_image(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match VirtImage::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let environment = match Environment::read() {
        Ok(environment) => environment,
        Err(source) => {
            let error = Error::from(CliError::Environment { source });
            return fail(&error, ReportFormat::Text, false);
        }
    };
    let out = &mut io::stdout().lock();
    let silent = crate::report::Silent;
    let reporter = terminal::reporter(arguments.progress, environment.color);
    let reporter: &dyn Reporter = if arguments.import.is_quiet() {
        &silent
    } else {
        reporter.as_ref()
    };
    let done = match (arguments.completion, arguments.man) {
        (Some(shell), _) => manual::completion_of::<VirtImage>(shell, "virt-image", out),
        (_, Some(folder)) => manual::pages_of::<VirtImage>(&folder, "virt-image", out),
        _ => import::run(&arguments.import, &environment, reporter, out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_output(&error) => ExitCode::SUCCESS,
        Err(error) => fail(&error, arguments.import.format(), environment.color),
    }
}

fn dispatch(arguments: Arguments, environment: &Environment) -> Result<(), Error> {
    if let Some(folder) = &arguments.directory {
        std::env::set_current_dir(folder).map_err(|source| CliError::Directory {
            path: folder.clone(),
            source,
        })?;
    }
    let reporter = terminal::reporter(arguments.progress, environment.color);
    let out = &mut io::stdout().lock();
    let context = build::Context {
        environment,
        cache: arguments.cache,
        sandbox: arguments.sandbox,
        reporter: reporter.as_ref(),
    };
    match &arguments.command {
        Command::Build(args) => build::run(args, &context, out),
        Command::Lock(args) => lock::lock(args, &context, out),
        Command::Fetch(args) => lock::fetch(args, &context, out),
        Command::Plan(args) => build::plan(args, &context, out),
        Command::Boot(args) => boot_with(args, environment, context.reporter),
        Command::Import(args) => import::run(args, environment, context.reporter, out),
        Command::Check(args) => {
            let wished = context.sandbox.map(|_| context.sandbox_settings(None));
            check::run(args, wished.as_ref(), out)
        }
        Command::Sandbox(args) => sandbox::run(args, &context, out),
        Command::Inspect(args) => inspect::run(args, out),
        Command::Convert(args) => convert::run(args, &context, out),
        Command::Why(args) => why::run(args, &context, out),
        Command::Cache(command) => cache::run(command, &context, out),
        Command::Init(args) => init::run(args, out),
        Command::Config(command) => config::run(command, environment, out),
        Command::Bundle(args) => bundle::run(args, environment, out),
        Command::Release(args) => release::run(args, &context, out),
        Command::Keygen(args) => keys::keygen(args, environment, out),
        Command::Key(args) => keys::show(args, out),
        Command::Sign(args) => verify::sign(args, environment, out),
        Command::Attach(args) => verify::attach(args, out),
        Command::Verify(args) => verify::run(args, context.reporter, out),
        Command::Reproduce(args) => reproduce::run(args, &context, out),
        Command::Source(args) => source::run(args, &context, out),
        Command::Completion(args) => manual::completion::<Arguments>(args, out),
        Command::Man(args) => {
            manual::pages_of::<Arguments>(args.folder(), "consign", out)?;
            manual::pages_of::<VirtImage>(args.folder(), "virt-image", out)
        }
    }
}

fn boot_with(
    args: &boot::BootArgs,
    environment: &Environment,
    reporter: &dyn Reporter,
) -> Result<(), Error> {
    boot::run(args, &environment.search_path, reporter)
}

/// clap's own words, with our exit code for wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    // Whoever closed the other end does not want to know.
    let _printed = error.print();
    if error.use_stderr() {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    }
}

/// `consign plan | head` is no failure.
fn is_closed_output(error: &Error) -> bool {
    matches!(error, Error::Cli(CliError::Output { source }) if source.kind() == io::ErrorKind::BrokenPipe)
}

/// Draws the error and gives its exit code.
fn fail(error: &Error, format: ReportFormat, color: bool) -> ExitCode {
    let style = if color { Style::Colored } else { Style::Plain };
    match format {
        ReportFormat::Text => print(&mut io::stderr(), &draw::text(error, style)),
        ReportFormat::Json => print(&mut io::stdout(), &format!("{}\n", draw::json(error))),
    }
    ExitCode::from(error.class().code())
}

fn print(to: &mut dyn Write, text: &str) {
    // There is nowhere left to say that nothing can be said.
    let _written = to.write_all(text.as_bytes());
}
