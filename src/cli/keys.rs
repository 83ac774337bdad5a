//! `consign keygen` and `consign key`: vendor keys, and their public forms.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::error::{CliError, output};
use crate::artifact::write_file;
use crate::error::Error;
use crate::plan::chance::random_bytes;
use crate::release::ReleaseError;
use crate::release::openpgp::GpgSigner;
use crate::release::rotation::Rotation;
use crate::sign::{PublicKey, SecretKey, SignError, Signer, minisign};

/// Makes a signing key: an Ed25519 key in OpenSSH's form, the secret half in
/// KEY (mode 0600), the public half in KEY.pub.
///
/// The key has no passphrase: keep it offline or on an encrypted disk, or
/// give it one with `ssh-keygen -p -f KEY` and sign through `ssh-agent`
/// (`ssh-add KEY`, then `--key KEY.pub`). Customers get KEY.pub by another
/// way than the releases: in the contract or the manual.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct KeygenArgs {
    /// Where the secret key goes; must not exist.
    #[arg(short, long, value_name = "KEY")]
    output: PathBuf,
    /// A word about the key, shown with it.
    #[arg(long, default_value = "consign", value_parser = comment)]
    comment: String,
    /// The key that the new one replaces: writes KEY.rotation, signed by it,
    /// which `consign verify --rotation` takes.
    #[arg(long, value_name = "OLD-KEY")]
    replaces: Option<PathBuf>,
}

/// Shows a public key in the form that a tool wants.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct KeyArgs {
    /// The public key, in any of the forms.
    #[arg(value_name = "KEY.pub")]
    key: PathBuf,
    /// Which form.
    #[arg(long = "as", value_enum, default_value_t)]
    form: Form,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// SHA256:…, to compare by eye.
    #[default]
    Fingerprint,
    /// A line for `authorized_keys`.
    Openssh,
    /// A file for `ssh-keygen -Y verify -f FILE -I release`.
    AllowedSigners,
    /// A file for `minisign -V -p FILE`.
    Minisign,
    /// A file for `openssl pkeyutl -verify -pubin -inkey FILE`.
    Pem,
}

fn comment(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_graphic() || c == ' ';
    if text.len() <= 100 && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err("up to 100 printable ASCII characters".into())
}

/// `consign keygen`.
///
/// # Errors
///
/// [`SignError`]; then no file was written.
pub(super) fn keygen(
    args: &KeygenArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let old = args
        .replaces
        .as_deref()
        .map(|old| signer(old, environment))
        .transpose()?;
    let seed = random_bytes().map_err(|source| CliError::Chance { source })?;
    let key = SecretKey::from_seed(&seed);
    let rotation = old
        .map(|old| Rotation::write(&old, key.public()))
        .transpose()?;
    key.write_pair(&args.output, &args.comment)?;
    let public = beside(&args.output, "pub");
    let mut text = format!(
        "wrote `{}` (keep it secret) and `{}`\n  {}\n",
        args.output.display(),
        public.display(),
        key.public().fingerprint(),
    );
    if let Some(rotation) = rotation {
        let path = beside(&args.output, "rotation");
        write_file(&path, rotation.as_bytes()).map_err(|source| CliError::Write {
            path: path.clone(),
            source,
        })?;
        let path = path.display();
        writeln!(text, "wrote `{path}`: ship it with the next releases")
            .expect("a string takes all");
    }
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// `consign key`.
///
/// # Errors
///
/// [`SignError`].
pub(super) fn show(args: &KeyArgs, out: &mut dyn Write) -> Result<(), Error> {
    let key = PublicKey::open(&args.key)?;
    let text = match args.form {
        Form::Fingerprint => format!("{}\n", key.fingerprint()),
        Form::Openssh => key.to_openssh("consign"),
        Form::AllowedSigners => format!("release {}", key.to_openssh("consign")),
        Form::Minisign => minisign::public_key_file(&key),
        Form::Pem => key.to_pem(),
    };
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}

/// Whoever signs with the key at `path`: the file itself, or the SSH agent
/// when it is a public key.
///
/// # Errors
///
/// [`SignError`].
pub(super) fn signer(path: &Path, environment: &Environment) -> Result<Signer, SignError> {
    let key = match SecretKey::open(path) {
        Ok(key) => return Ok(Signer::File(key)),
        Err(SignError::NotAKey { .. }) => PublicKey::open(path).map_err(|error| match error {
            // Neither half: say what was wanted.
            SignError::NotAKey { path, .. } => SignError::NotAKey {
                path,
                kind: "secret",
            },
            other => other,
        })?,
        Err(error) => return Err(error),
    };
    match &environment.ssh_agent {
        Some(socket) => Ok(Signer::Agent {
            socket: socket.clone(),
            key,
        }),
        None => Err(SignError::NoAgent {
            path: path.to_owned(),
        }),
    }
}

/// The user's OpenPGP key of this name.
///
/// # Errors
///
/// [`ReleaseError::SourceDate`], and those of gpg.
pub(super) fn gpg_signer(name: &str, environment: &Environment) -> Result<GpgSigner, ReleaseError> {
    let date = environment.source_date.as_deref();
    GpgSigner::open(
        name,
        &environment.search_path,
        &environment.for_gpg,
        date.map(moment).transpose()?,
    )
}

/// Seconds since 1970: digits and nothing else.
fn moment(text: &str) -> Result<i64, ReleaseError> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = text.parse().ok().filter(|_| is_number);
    seconds.ok_or_else(|| ReleaseError::SourceDate { value: text.into() })
}
