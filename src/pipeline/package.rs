//! Packages of machine and disk: where the description, the disk's writer and
//! the certificate's key meet.

use std::io;

use crate::descriptor::ovf::{ManifestSum, Seal};
use crate::release::certificate::PackageSigner;

impl Seal for PackageSigner {
    fn certificate(&self, name: &str, manifest: &[u8], sum: ManifestSum) -> io::Result<Vec<u8>> {
        self.sign(name, manifest, sum.name())
            .map_err(io::Error::other)
    }
}
