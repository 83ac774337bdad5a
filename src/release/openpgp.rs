//! The signature by the vendor's OpenPGP key, beside the ones by Ed25519.
//!
//! `gpg` signs, since users' keys are with its agent, in tokens or behind a
//! passphrase. The certificate is a file of the release, so that damage to
//! the signature shows to everybody; who made it shows to whoever has the
//! certificate from elsewhere. Checked by: `gpgv`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::ReleaseError;
use super::signing::{OPENPGP_FILE, OPENPGP_KEY_FILE, Open, read_small};
use super::verify::{Doubt, Policy};
use crate::artifact::write_file;
use crate::digest::Digest;
use crate::exec::{Call, Tool};
use crate::layer::source::deb::Certificate;
use crate::units::Timestamp;

/// Longest certificate that is read.
const MAX_CERTIFICATE: u64 = 1 << 20;

/// A key that `gpg` signs with.
#[derive(Debug)]
pub struct GpgSigner {
    gpg: Call,
    certificate: Certificate,
    /// When it says that it signed; now where it is left out.
    at: Option<i64>,
}

impl GpgSigner {
    /// The key that the user's gpg knows by `name`: a fingerprint, a key id,
    /// an address. `environment` is what gpg needs to find the user's keys
    /// and to ask for a passphrase. The signature is of the moment `at`, in
    /// seconds since 1970, or of now.
    ///
    /// # Errors
    ///
    /// [`ReleaseError::Exec`] when gpg is missing or knows no such key,
    /// [`ReleaseError::SeveralGpgKeys`], [`ReleaseError::Certificate`].
    pub fn open(
        name: &str,
        search_path: &OsStr,
        environment: &[(OsString, OsString)],
        at: Option<i64>,
    ) -> Result<Self, ReleaseError> {
        let gpg = Call::find(Tool::Gpg, search_path)?
            .envs(environment.iter().cloned())
            .arg("--batch");
        let list = gpg.clone().args(["--with-colons", "--list-secret-keys"]);
        let listed = list.args(["--", name]).run(b"")?;
        let fingerprints = primary_keys(&String::from_utf8_lossy(&listed));
        let [fingerprint] = fingerprints.as_slice() else {
            return Err(ReleaseError::SeveralGpgKeys {
                name: name.to_owned(),
                fingerprints,
            });
        };
        let export = gpg.clone().args(["--export-options", "export-minimal"]);
        let bytes = export.args(["--export", "--", fingerprint]).run(b"")?;
        let certificate =
            Certificate::parse(&bytes).map_err(|problem| ReleaseError::Certificate {
                path: name.into(),
                problem,
            })?;
        Ok(Self {
            gpg,
            certificate,
            at,
        })
    }

    /// The public half.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The signature over `message`, as gpg makes it.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ReleaseError> {
        let mut call = self.gpg.clone().args(["--digest-algo", "SHA512"]);
        if let Some(at) = self.at {
            call = call.args(["--faked-system-time", &format!("{at}!")]);
        }
        let call = call.args(["--local-user", &self.certificate.fingerprint()]);
        Ok(call.args(["--detach-sign", "--output", "-"]).run(message)?)
    }
}

/// The fingerprints of the primary keys in gpg's list (its `doc/DETAILS`).
fn primary_keys(listed: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_primary = false;
    for line in listed.lines() {
        let mut fields = line.split(':');
        match fields.next() {
            Some("sec") => is_primary = true,
            Some("ssb") => is_primary = false,
            Some("fpr") if is_primary => {
                found.extend(fields.nth(8).map(str::to_owned));
                is_primary = false;
            }
            _ => {}
        }
    }
    found
}

/// Reads a certificate.
///
/// # Errors
///
/// [`ReleaseError::Read`], [`ReleaseError::Certificate`].
pub fn certificate(path: &Path) -> Result<Certificate, ReleaseError> {
    let bytes = read_small(path, MAX_CERTIFICATE)?;
    Certificate::parse(&bytes).map_err(|problem| ReleaseError::Certificate {
        path: path.to_owned(),
        problem,
    })
}

/// Whether the file is meant to be a certificate, and not a key of another kind.
///
/// # Errors
///
/// [`ReleaseError::Read`].
pub fn is_certificate(path: &Path) -> Result<bool, ReleaseError> {
    Ok(Certificate::is_meant(&read_small(path, MAX_CERTIFICATE)?))
}

/// Writes the certificate into a release in the making.
///
/// # Errors
///
/// [`ReleaseError::Write`], [`ReleaseError::Certificate`].
pub fn write(certificate: &Certificate, folder: &Path) -> Result<(), ReleaseError> {
    let path = folder.join(OPENPGP_KEY_FILE);
    let bytes = certificate.keyring();
    let bytes = bytes.map_err(|problem| ReleaseError::Certificate {
        path: path.clone(),
        problem,
    })?;
    write_file(&path, &bytes).map_err(|source| ReleaseError::Write { path, source })
}

/// Whether `bytes` are meant to be an OpenPGP signature, and not another one.
pub(super) fn is_signature(bytes: &[u8]) -> bool {
    bytes.starts_with(b"-----BEGIN PGP SIGNATURE-----")
}

/// Signs the manifest, when the release has this key's certificate.
///
/// # Errors
///
/// [`ReleaseError::NotASigner`], [`ReleaseError::Exec`] and
/// [`ReleaseError::OpenPgp`] for what gpg made.
pub fn sign(open: &Open, signer: &GpgSigner) -> Result<String, ReleaseError> {
    let fingerprint = signer.certificate.fingerprint();
    if open.manifest.openpgp.as_ref() != Some(&fingerprint) {
        return Err(ReleaseError::NotASigner { fingerprint });
    }
    attach(open, &signer.sign(open.text.as_bytes())?, OPENPGP_FILE)?;
    Ok(OPENPGP_FILE.to_owned())
}

/// Takes a signature over the manifest. `name` is what it is called in errors.
/// Gives the fingerprint of the certificate.
///
/// # Errors
///
/// [`ReleaseError::OpenPgp`] when it does not fit.
pub(super) fn attach(open: &Open, signature: &[u8], name: &str) -> Result<String, ReleaseError> {
    let Some(certificate) = shipped(open)? else {
        return Err(ReleaseError::NotASigner {
            fingerprint: "an OpenPGP key".into(),
        });
    };
    let message = open.text.as_bytes();
    // What is written is judged as a customer would, before it replaces anything.
    let judged = certificate.canonical(signature, message).and_then(|text| {
        certificate.judge(&text, message, None)?;
        Ok(text)
    });
    let text = judged.map_err(|problem| ReleaseError::OpenPgp {
        name: name.to_owned(),
        problem,
    })?;
    open.write(OPENPGP_FILE, text.as_bytes())?;
    Ok(certificate.fingerprint())
}

/// The certificate in the release, as the manifest says; `None` where it says
/// that there is none.
fn shipped(open: &Open) -> Result<Option<Certificate>, ReleaseError> {
    let Some(expected) = &open.manifest.openpgp else {
        return Ok(None);
    };
    let path = open.folder.join(OPENPGP_KEY_FILE);
    let bytes = read_small(&path, MAX_CERTIFICATE)?;
    let digest = Digest::of(&bytes);
    let mut listed = open.manifest.files.iter();
    let is_listed = listed.any(|line| line.name == OPENPGP_KEY_FILE && line.sha256 == digest);
    let wrong = |problem| ReleaseError::Certificate {
        path: path.clone(),
        problem,
    };
    if !is_listed {
        return Err(wrong("it is not the one of the manifest".into()));
    }
    let found = Certificate::parse(&bytes).map_err(&wrong)?;
    if found.fingerprint() != *expected {
        return Err(wrong(format!("it is not {expected}")));
    }
    Ok(Some(found))
}

/// Judges the signature that the manifest promises: whether it is sound by
/// the certificate in the release, and whether it is by the one that is
/// trusted. Gives the fingerprint of the latter. With `doubts` about who
/// signed, no file is looked at.
///
/// # Errors
///
/// [`ReleaseError::OpenPgp`], [`ReleaseError::OpenPgpTrusted`],
/// [`ReleaseError::Unsigned`], [`ReleaseError::Certificate`].
pub(super) fn judge(
    open: &Open,
    policy: &Policy,
    doubts: &mut Vec<Doubt>,
) -> Result<Option<String>, ReleaseError> {
    let trusted = policy.openpgp.as_ref();
    if let Some(trusted) = trusted.map(Certificate::fingerprint)
        && open.manifest.openpgp.as_ref() != Some(&trusted)
    {
        let found = open.manifest.openpgp.clone();
        doubts.push(Doubt::OpenPgp { found, trusted });
    }
    // Of somebody who is not trusted, nothing more is read.
    if !doubts.is_empty() {
        return Ok(None);
    }
    let Some(shipped) = shipped(open)? else {
        return Ok(None);
    };
    let path = open.folder.join(OPENPGP_FILE);
    if path.symlink_metadata().is_err() {
        return Err(ReleaseError::Unsigned {
            fingerprint: shipped.fingerprint(),
            container: "OpenPGP",
        });
    }
    let text = open.read_text(OPENPGP_FILE)?;
    let (message, name) = (open.text.as_bytes(), OPENPGP_FILE.to_owned());
    // A key that ran out since says nothing to whoever trusts another one.
    if let Err(problem) = shipped.judge(&text, message, None) {
        return Err(ReleaseError::OpenPgp { name, problem });
    }
    let Some(trusted) = trusted else {
        return Ok(None);
    };
    // The one from elsewhere knows of revocations since.
    let now = policy.now.map(Timestamp::from_seconds);
    match trusted.judge(&text, message, now) {
        Ok(()) => Ok(Some(trusted.fingerprint())),
        Err(problem) => Err(ReleaseError::OpenPgpTrusted { name, problem }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_primary_keys_of_a_list_count() {
        let listed = "sec:u:255:22:A1:1:::u:::scESC:::+::ed25519:::0:\n\
                      fpr:::::::::AAAA:\ngrp:::::::::GGGG:\nuid:u::::1::H::Vendor::::::::::0:\n\
                      ssb:u:255:22:B1:1::::::s:::+::ed25519::\nfpr:::::::::BBBB:\n\
                      sec:u:255:22:C1:1:::u:::scESC:::+::ed25519:::0:\nfpr:::::::::CCCC:\n";
        assert_eq!(primary_keys(listed), ["AAAA", "CCCC"]);
    }
}
