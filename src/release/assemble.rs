//! The manifest of a folder: everything in it becomes a line.

use std::io::{self, Read as _};
use std::path::Path;

use sha2::{Digest as _, Sha512};

use super::manifest::{
    DiskLine, FileLine, MANIFEST_FILE, Manifest, PartitionLine, Sha512Hex, SignerLine, is_file_name,
};
use super::sbom::{self, Inventory};
use super::signing::{ENVELOPE_FILE, PROVENANCE_FILE};
use super::{ReleaseError, provenance};
use crate::artifact::write_file;
use crate::digest::{Digest, Hasher};
use crate::report::{Outcome, Reporter};
use crate::tree::list_folder;
use crate::units::ByteSize;

/// What a customer verifies with, without consign.
const SCRIPT: &str = include_str!("verify.sh");
/// Its name in a release.
pub const SCRIPT_FILE: &str = "verify.sh";
/// The name of this step in events.
const STEP: &str = "release";
const PIECE: usize = 256 << 10;

/// What a manifest says besides the files.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Digest of the lock.
    pub lock: Digest,
    /// Not to be believed after this moment: seconds since 1970.
    pub expires: Option<i64>,
    /// Fingerprint of the OpenPGP key that signs too.
    pub openpgp: Option<String>,
    /// Who is known to sign.
    pub signers: Vec<SignerLine>,
    /// The disk.
    pub disk: DiskLine,
    /// Its partitions.
    pub partitions: Vec<PartitionLine>,
}

/// Adds bills of materials, provenance and `verify.sh` to the files of
/// `folder`, and writes the manifest of them all.
///
/// # Errors
///
/// [`ReleaseError::FileName`] for a name that a release cannot hold and for
/// what is no regular file; what reading and writing report. The manifest
/// comes last: without it, the folder is no release.
pub fn assemble(
    folder: &Path,
    inventory: &Inventory,
    facts: &Facts,
    reporter: &dyn Reporter,
) -> Result<Manifest, ReleaseError> {
    reporter.started(STEP);
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        write_file(&path, text.as_bytes()).map_err(|source| ReleaseError::Write { path, source })
    };
    write(sbom::SPDX_FILE, &inventory.spdx())?;
    write(sbom::CYCLONEDX_FILE, &inventory.cyclonedx())?;
    write(SCRIPT_FILE, SCRIPT)?;
    let mut files = lines(folder, reporter)?;
    let statement = provenance::statement(inventory, &facts.lock, &files);
    write(PROVENANCE_FILE, &statement)?;
    files.push(line(folder, PROVENANCE_FILE)?);
    files.sort();
    let manifest = Manifest {
        name: inventory.name.clone(),
        version: inventory.version.clone(),
        epoch: inventory.date.seconds,
        builder: format!("consign {}", inventory.builder),
        agent: inventory.agent,
        lock: facts.lock,
        expires: facts.expires,
        openpgp: facts.openpgp.clone(),
        signers: facts.signers.clone(),
        disk: facts.disk,
        partitions: facts.partitions.clone(),
        files,
    };
    write(MANIFEST_FILE, &manifest.to_string())?;
    let detail = format!("{} files", manifest.files.len());
    reporter.finished(STEP, Outcome::Done, detail);
    Ok(manifest)
}

fn lines(folder: &Path, reporter: &dyn Reporter) -> Result<Vec<FileLine>, ReleaseError> {
    let entries = list_folder(folder).map_err(|source| ReleaseError::Read {
        path: folder.to_owned(),
        source,
    })?;
    let total: u64 = entries.iter().map(|entry| entry.metadata.len()).sum();
    let (mut done, mut lines) = (0, Vec::new());
    for entry in &entries {
        let name = entry.name.to_string_lossy().into_owned();
        if !entry.metadata.is_file() || !is_file_name(&name) || is_signature(&name) {
            return Err(ReleaseError::FileName { name });
        }
        lines.push(line(folder, &name)?);
        done += entry.metadata.len();
        reporter.bytes(
            STEP,
            ByteSize::from_bytes(done),
            Some(ByteSize::from_bytes(total)),
        );
    }
    Ok(lines)
}

/// The manifest itself and what is beside it: left from another release.
fn is_signature(name: &str) -> bool {
    name.starts_with(MANIFEST_FILE) || name == ENVELOPE_FILE
}

fn line(folder: &Path, name: &str) -> Result<FileLine, ReleaseError> {
    let path = folder.join(name);
    let (sha256, sha512, size) =
        both_digests(&path).map_err(|source| ReleaseError::Read { path, source })?;
    Ok(FileLine {
        name: name.to_owned(),
        size: ByteSize::from_bytes(size),
        sha256,
        sha512,
    })
}

/// Reads the file once for both.
fn both_digests(path: &Path) -> io::Result<(Digest, Sha512Hex, u64)> {
    let mut file = std::fs::File::open(path)?;
    let (mut short, mut long, mut size) = (Hasher::new(), Sha512::new(), 0);
    let mut piece = vec![0; PIECE];
    loop {
        let length = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        short.update(&piece[..length]);
        long.update(&piece[..length]);
        size += length as u64;
    }
    let long: [u8; 64] = long.finalize().into();
    Ok((short.finish(), Sha512Hex::from_bytes(&long), size))
}
