//! Whether a lock still answers an appliance, package files included.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::error::PlanError;
use super::lock::{Drift, Lock};
use super::request::request;
use crate::appliance::Appliance;
use crate::boot::TOOLS_PACKAGES;
use crate::digest::{Digest, Hasher};
use crate::layer::spec::LOCAL;

/// What `appliance` asks and `lock` does not answer; empty when it fits.
/// Reads the appliance's package files, to know their digests.
///
/// # Errors
///
/// [`PlanError::ReadFolder`] when one cannot be read.
pub fn drift(appliance: &Appliance, lock: &Lock) -> Result<Vec<Drift>, PlanError> {
    let asked = request(appliance, TOOLS_PACKAGES);
    let mut drift = lock.drift(&asked);
    let files: Vec<&String> = asked.groups.iter().flat_map(|group| &group.debs).collect();
    for pin in lock.packages().filter(|pin| pin.suite == LOCAL) {
        // One that is no longer asked for was named above.
        if files.contains(&&pin.path) && digest_of(&appliance.folder.join(&pin.path))? != pin.sha256
        {
            drift.push(Drift::File {
                package: pin.name.clone(),
                path: pin.path.clone(),
            });
        }
    }
    Ok(drift)
}

fn digest_of(path: &Path) -> Result<Digest, PlanError> {
    let read = || -> io::Result<Digest> {
        let mut file = File::open(path)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                count => hasher.update(buffer.get(..count).unwrap_or_default()),
            }
        }
    };
    read().map_err(|source| PlanError::ReadFolder {
        path: path.to_owned(),
        source,
    })
}
