//! The certificate of an OVF package: a signature over its manifest by an
//! X.509 key, so that vSphere shows a publisher.
//!
//! The key is a file that `openssl` reads; its content never passes through
//! us. Source: DMTF DSP0243 1.1, section 5.1.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::ReleaseError;
use super::manifest::hex;
use crate::exec::{Call, Tool};

/// Who signs packages.
#[derive(Debug)]
pub struct PackageSigner {
    openssl: Call,
    key: PathBuf,
    /// The certificate as PEM, without whatever was around it.
    certificate: Vec<u8>,
}

impl PackageSigner {
    /// Signs with `key`, which is the one that `certificate` is about.
    ///
    /// # Errors
    ///
    /// [`ReleaseError::Exec`] when `openssl` is missing or reads neither;
    /// [`ReleaseError::OtherCertificate`] when they do not belong together.
    pub fn open(certificate: &Path, key: &Path, search_path: &OsStr) -> Result<Self, ReleaseError> {
        let openssl = Call::find(Tool::OpenSsl, search_path)?;
        let of_certificate = |last: &[&str]| {
            let call = openssl.clone().args(["x509", "-in"]).arg(certificate);
            call.args(last).run(b"")
        };
        let pem = of_certificate(&["-outform", "PEM"])?;
        let certified = of_certificate(&["-noout", "-pubkey"])?;
        // `rsa` and not `pkey`: importers verify no other kind.
        let call = openssl.clone().args(["rsa", "-pubout", "-in"]).arg(key);
        let own = call.run(b"")?;
        if own.trim_ascii() != certified.trim_ascii() {
            return Err(ReleaseError::OtherCertificate {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            });
        }
        Ok(Self {
            openssl,
            key: key.to_owned(),
            certificate: pem,
        })
    }

    /// The certificate as PEM.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The content of a `.cert` file: the signature over `manifest`, which is
    /// called `name`, and the certificate. `sum` is `SHA256` or `SHA1`.
    ///
    /// # Errors
    ///
    /// [`ReleaseError::Exec`].
    pub fn sign(&self, name: &str, manifest: &[u8], sum: &str) -> Result<Vec<u8>, ReleaseError> {
        let call = self.openssl.clone().arg("dgst");
        let call = call.arg(format!("-{}", sum.to_ascii_lowercase()));
        let signature = call.arg("-sign").arg(&self.key).run(manifest)?;
        let mut text = String::new();
        writeln!(text, "{sum}({name})= {}", hex(&signature)).expect("a string takes all");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.certificate);
        Ok(bytes)
    }
}
