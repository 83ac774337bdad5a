//! `consign bundle`: a vendor's files for a role, to go onto config disks.

use std::io::Write;
use std::path::PathBuf;

use super::environment::Environment;
use super::error::output;
use super::keys;
use crate::error::Error;
use crate::factory::{BundleName, write_bundle};

/// Packs a folder into a bundle that the appliance unpacks beside the ones
/// before it, and links at /var/lib/consign/current/NAME.
///
/// The image must hold the public half of the key as
/// /usr/lib/consign/vendor.pub. `consign config disk --payload` puts the
/// bundle onto a config disk; a higher serial makes the appliance take it.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct BundleArgs {
    /// The folder; files and folders only.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// What the link on the appliance is called.
    #[arg(long, value_parser = name)]
    name: String,
    /// The vendor's version of the files.
    #[arg(long, value_parser = version)]
    version: String,
    /// The role that it is for; without one, for every machine.
    #[arg(long, value_parser = name)]
    role: Option<String>,
    /// The vendor's key: a secret key, or the public half of one that the SSH
    /// agent keeps.
    #[arg(long, value_name = "KEY")]
    sign: PathBuf,
    /// The bundle that is written, whole or not at all [default: NAME.vab].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn name(text: &str) -> Result<String, String> {
    let is_name = (1..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if is_name {
        return Ok(text.to_owned());
    }
    Err("a small letter, then small letters, digits and `-`, 32 at most".into())
}

fn version(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '~' | ':');
    if (1..=64).contains(&text.len()) && text.chars().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("letters, digits, `.`, `-`, `+`, `~` and `:`, 64 at most".into())
}

/// Runs the subcommand.
///
/// # Errors
///
/// [`Error::Factory`]; then no bundle was written.
pub(super) fn run(
    args: &BundleArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let path = match &args.output {
        Some(path) => path.clone(),
        None => PathBuf::from(format!("{}.vab", args.name)),
    };
    let signer = keys::signer(&args.sign, environment)?;
    let name = BundleName {
        name: args.name.clone(),
        version: args.version.clone(),
        role: args.role.clone(),
    };
    let made = write_bundle(&args.folder, &name, &signer, &path)?;
    let text = format!(
        "wrote `{}`: {} {}, {} files, release {}\n",
        path.display(),
        args.name,
        args.version,
        made.files,
        made.digest.hex(),
    );
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}
