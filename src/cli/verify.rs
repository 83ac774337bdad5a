//! `consign sign`, `consign attach` and `consign verify`: signatures beside a
//! release, and the verdict over it.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::draw::ReportFormat;
use super::environment::Environment;
use super::error::{CliError, output};
use super::keys::{gpg_signer, signer};
use crate::artifact::write_file;
use crate::error::Error;
use crate::plan::clock;
use crate::release::copy;
use crate::release::openpgp;
use crate::release::rotation::{Rotation, trusted};
use crate::release::signing::Open;
use crate::release::state::State;
use crate::release::verify::{self, Policy, Verified};
use crate::report::Reporter;
use crate::sign::PublicKey;

/// Signs the manifest of a release, in every form that its tools verify.
///
/// A second key adds its signatures beside the first one's. A token that
/// `ssh-agent` cannot use signs what `--to-sign` writes: 64 bytes of Ed25519,
/// which `consign attach --key KEY.pub` takes.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SignArgs {
    /// The release.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The secret key; or a public one whose secret half `ssh-agent` keeps.
    #[arg(long, value_name = "KEY", required_unless_present_any = ["gpg_key", "to_sign"])]
    key: Option<PathBuf>,
    /// The OpenPGP key that the user's gpg signs with.
    #[arg(long, value_name = "FINGERPRINT")]
    gpg_key: Option<String>,
    /// Signs nothing, and writes into FILE what a token signs.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "gpg_key"])]
    to_sign: Option<PathBuf>,
}

/// Takes a signature that was made elsewhere: by
/// `ssh-keygen -Y sign -n consign-release -f KEY MANIFEST`, by
/// `gpg --armor --detach-sign MANIFEST`, or by a token, whose 64 bytes are
/// over the file of `consign sign --to-sign`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct AttachArgs {
    /// The release.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The signature: MANIFEST.sig, MANIFEST.asc, or a token's.
    #[arg(value_name = "SIGNATURE")]
    signature: PathBuf,
    /// Whose a token's signature is.
    #[arg(long, value_name = "KEY.pub")]
    key: Option<PathBuf>,
}

/// Verifies a release, offline: signatures, age, and every file. Whatever is
/// missing, changed or not listed is refused, with exit code 3.
///
/// A single disk image, converted to whatever container, is verified by the
/// content root of the disk inside; on a mismatch the partition and the first
/// file that differ are named.
///
/// Take the public key from another place than the release.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct VerifyArgs {
    /// The release, or a disk image that was made from it.
    #[arg(value_name = "FOLDER|IMAGE")]
    path: PathBuf,
    /// The release that IMAGE is from; left out: the folder that IMAGE is in.
    #[arg(long, value_name = "FOLDER")]
    release: Option<PathBuf>,
    /// A public key that is trusted: a line of OpenSSH, a minisign key or PEM.
    #[arg(long, value_name = "KEY.pub", required_unless_present = "gpg_key")]
    key: Vec<PathBuf>,
    /// An OpenPGP certificate that is trusted, and has to have signed too.
    #[arg(long, value_name = "FILE")]
    gpg_key: Option<PathBuf>,
    /// How many of these keys have to have signed; all when left out.
    #[arg(long, value_name = "N")]
    threshold: Option<NonZeroUsize>,
    /// A new key signed by a trusted one, from `consign keygen --replaces`.
    #[arg(long, value_name = "FILE")]
    rotation: Vec<PathBuf>,
    /// A public key that was taken back.
    #[arg(long, value_name = "KEY.pub")]
    revoked: Vec<PathBuf>,
    /// Refuses an older version.
    #[arg(long, value_name = "VERSION")]
    not_older_than: Option<String>,
    /// Remembers what was verified, and refuses what is older than that.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Does not look at the clock: for machines whose clock is wrong.
    #[arg(long)]
    ignore_expiry: bool,
    /// Files that are read at a time; as many as there are cores when left out.
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// How the verdict is written.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

impl VerifyArgs {
    pub(super) fn format(&self) -> ReportFormat {
        self.format
    }
}

/// `consign sign`.
///
/// # Errors
///
/// That of the key, [`Error::Release`].
pub(super) fn sign(
    args: &SignArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let open = Open::folder(&args.folder)?;
    if let Some(path) = &args.to_sign {
        write_file(path, &open.bytes_to_sign()).map_err(|source| CliError::Write {
            path: path.clone(),
            source,
        })?;
        let text = format!(
            "wrote `{}`: let the token sign these bytes with Ed25519, then \
             `consign attach {} SIGNATURE --key KEY.pub`\n",
            path.display(),
            args.folder.display(),
        );
        out.write_all(text.as_bytes()).map_err(output)?;
        return Ok(());
    }
    let (mut written, mut by) = (Vec::new(), Vec::new());
    if let Some(key) = &args.key {
        let signer = signer(key, environment)?;
        written.extend(open.sign(&signer)?);
        by.push(signer.public().fingerprint());
    }
    if let Some(name) = &args.gpg_key {
        let signer = gpg_signer(name, environment)?;
        written.push(openpgp::sign(&open, &signer)?);
        by.push(signer.certificate().fingerprint());
    }
    let text = format!(
        "signed {} {} with {}\n  {}\n",
        open.manifest.name,
        open.manifest.version,
        by.join(" and "),
        written.join("\n  "),
    );
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}

/// `consign attach`.
///
/// # Errors
///
/// [`Error::Release`] when the signature does not fit.
pub(super) fn attach(args: &AttachArgs, out: &mut dyn Write) -> Result<(), Error> {
    let open = Open::folder(&args.folder)?;
    let key = args.key.as_deref().map(PublicKey::open).transpose()?;
    let (name, fingerprint) = open.attach(&args.signature, key.as_ref())?;
    let text = format!(
        "{} {}: `{name}` by {fingerprint}\n",
        open.manifest.name, open.manifest.version,
    );
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}

/// `consign verify`.
///
/// # Errors
///
/// [`Error::Release`] with every doubt.
pub(super) fn run(
    args: &VerifyArgs,
    reporter: &dyn Reporter,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut policy = policy(args)?;
    let is_image = args.path.is_file();
    let beside = match args.path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = match &args.release {
        Some(release) if is_image => release.as_path(),
        Some(_) => {
            return Err(CliError::NotAnImage {
                path: args.path.clone(),
            }
            .into());
        }
        None if is_image => beside,
        None => args.path.as_path(),
    };
    let mut state = args.state.as_deref().map(State::open).transpose()?;
    if let Some(state) = &state {
        let name = Open::folder(folder)?.manifest.name;
        state.tighten(&name, &mut policy);
    }
    let threads = args
        .jobs
        .or_else(|| std::thread::available_parallelism().ok())
        .map_or(1, NonZeroUsize::get);
    let verified = if is_image {
        copy::verify(&args.path, folder, &policy, reporter)?
    } else {
        verify::folder(folder, &policy, threads, reporter)?
    };
    if let (Some(state), Some(path)) = (&mut state, &args.state) {
        state.learn(&verified);
        state.save(path)?;
    }
    let text = match args.format {
        ReportFormat::Json => format!("{}\n", verdict_json(&verified)),
        ReportFormat::Text if is_image => copy_verdict(&args.path, &verified),
        ReportFormat::Text => verdict(folder, &verified),
    };
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}

fn policy(args: &VerifyArgs) -> Result<Policy, Error> {
    let open = |paths: &[PathBuf]| -> Result<Vec<PublicKey>, Error> {
        let keys = paths.iter().map(|path| PublicKey::open(path));
        Ok(keys.collect::<Result<_, _>>()?)
    };
    let rotations = args.rotation.iter().map(|path| Rotation::open(path));
    let rotations: Vec<Rotation> = rotations.collect::<Result<_, _>>()?;
    let given = open(&args.key)?;
    let threshold = args.threshold.map_or(given.len(), NonZeroUsize::get);
    let keys = trusted(&given, &rotations);
    if threshold > keys.len() {
        return Err(CliError::Threshold {
            threshold,
            keys: keys.len(),
        }
        .into());
    }
    let revoked = open(&args.revoked)?;
    Ok(Policy {
        keys,
        openpgp: args
            .gpg_key
            .as_deref()
            .map(openpgp::certificate)
            .transpose()?,
        threshold,
        revoked: revoked.iter().map(PublicKey::fingerprint).collect(),
        not_older_than: args.not_older_than.clone(),
        not_before: None,
        now: (!args.ignore_expiry).then(|| clock::now().seconds),
    })
}

fn verdict(folder: &Path, verified: &Verified) -> String {
    let manifest = &verified.manifest;
    format!(
        "{}: {} {} is whole and signed\n  {} files\n  manifest {}\n  by {}\n",
        folder.display(),
        manifest.name,
        manifest.version,
        manifest.files.len(),
        verified.digest,
        verified.signers.join("\n  by "),
    )
}

fn copy_verdict(image: &Path, verified: &Verified) -> String {
    let manifest = &verified.manifest;
    format!(
        "{}: the disk inside is that of {} {}\n  content root {}\n  manifest {}\n  by {}\n",
        image.display(),
        manifest.name,
        manifest.version,
        manifest.disk.root,
        verified.digest,
        verified.signers.join("\n  by "),
    )
}

fn verdict_json(verified: &Verified) -> serde_json::Value {
    let manifest = &verified.manifest;
    json!({
        "verified": true,
        "name": manifest.name,
        "version": manifest.version,
        "epoch": manifest.epoch,
        "manifest": verified.digest.to_string(),
        "content_root": manifest.disk.root.to_string(),
        "signers": verified.signers,
        "files": manifest.files.len(),
    })
}
