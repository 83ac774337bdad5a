//! What `build`, `convert` and `release` are told of OVA packages.

use std::path::PathBuf;

use super::build::Context;
use crate::descriptor::ovf::ManifestSum;
use crate::error::Error;
use crate::plan::PackageSpec;
use crate::release::certificate::PackageSigner;

/// How an OVA is made.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct PackageArgs {
    /// Sums the manifest of an OVA with SHA-1, for vSphere up to 6.0.
    #[arg(long)]
    sha1_manifest: bool,
    /// Signs the manifest of an OVA: the X.509 certificate (PEM) that goes in.
    #[arg(long, value_name = "FILE", requires = "ovf_key")]
    ovf_cert: Option<PathBuf>,
    /// The certificate's RSA key, which `openssl` reads; not the key of the release.
    #[arg(long, value_name = "FILE", requires = "ovf_cert")]
    ovf_key: Option<PathBuf>,
}

/// The same with the key found and tried.
#[derive(Debug)]
pub(super) struct Packing {
    pub(super) spec: PackageSpec,
    pub(super) signer: Option<PackageSigner>,
}

impl PackageArgs {
    /// Finds the key and its certificate, before any work.
    ///
    /// # Errors
    ///
    /// [`Error::Release`].
    pub(super) fn open(&self, context: &Context<'_>) -> Result<Packing, Error> {
        let pair = self.ovf_cert.as_deref().zip(self.ovf_key.as_deref());
        let signer = pair.map(|(certificate, key)| {
            PackageSigner::open(certificate, key, &context.environment.search_path)
        });
        let signer = signer.transpose()?;
        let sum = if self.sha1_manifest {
            ManifestSum::Sha1
        } else {
            ManifestSum::Sha256
        };
        let certificate = signer.as_ref().map(|signer| signer.certificate().to_vec());
        Ok(Packing {
            spec: PackageSpec { sum, certificate },
            signer,
        })
    }
}
