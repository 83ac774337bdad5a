//! What the store knows about a layer, as a file that says when it was changed.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::secrets::Secret;
use super::spec::PackagePin;
use super::tar::TarSum;
use crate::digest::{DiffId, Digest, KeptDigest, LayerKey};

/// Version of [`Record`].
const RECORD_FORMAT: u32 = 1;
/// Longest record: some thousand packages.
pub(super) const MAX_RECORD: u64 = 64 << 20;

/// What the store knows about a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Version of this form.
    format: u32,
    /// The key that it is filed under.
    pub key: LayerKey,
    /// Its tar.
    pub diff_id: DiffId,
    /// Length of the tar in bytes.
    pub size: u64,
    /// Another digest of the tar: it proves sooner than the diff ID that the
    /// bytes are still those. Never in a registry, and not in old records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kept: Option<KeptDigest>,
    /// The packages that it brought.
    pub packages: Vec<PackagePin>,
    /// Private keys and identities in it, by path.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// Digest of the record without this; only in the file.
    #[serde(default)]
    pub(super) check: Option<Digest>,
}

impl Record {
    /// A record in today's form.
    #[must_use]
    pub fn new(key: LayerKey, tar: TarSum, packages: Vec<PackagePin>) -> Self {
        Self {
            format: RECORD_FORMAT,
            key,
            diff_id: tar.diff_id,
            size: tar.size,
            kept: Some(tar.kept),
            packages,
            secrets: Vec::new(),
            check: None,
        }
    }

    /// The record with the digest of itself.
    pub(super) fn sealed(&self) -> serde_json::Result<Self> {
        let plain = Self {
            check: None,
            ..self.clone()
        };
        let check = Digest::of(&serde_json::to_vec(&plain)?);
        Ok(Self {
            check: Some(check),
            ..plain
        })
    }

    /// The record as others may have it, who trust the diff ID only.
    pub(super) fn for_others(&self) -> Self {
        Self {
            kept: None,
            ..self.clone()
        }
    }

    /// Whether `tar` is the layer's, byte for byte.
    pub(super) fn is_of(&self, tar: &File) -> io::Result<bool> {
        Ok(match &self.kept {
            Some(kept) => KeptDigest::of_file(tar)? == *kept,
            None => Digest::of_file(tar)? == self.diff_id.0,
        })
    }

    /// Whether it is in today's form and nobody changed it since it was sealed.
    pub(super) fn is_whole(&self) -> bool {
        self.format == RECORD_FORMAT
            && (self.check.is_none() || self.sealed().is_ok_and(|sealed| sealed == *self))
    }

    /// The record in a file; `None` when there is none, whole and in today's form.
    #[must_use]
    pub(super) fn open(path: &Path) -> Option<Self> {
        let mut bytes = Vec::new();
        File::open(path)
            .ok()?
            .take(MAX_RECORD)
            .read_to_end(&mut bytes)
            .ok()?;
        let record: Self = serde_json::from_slice(&bytes).ok()?;
        record.is_whole().then_some(record)
    }
}
