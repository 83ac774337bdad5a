//! What a finished image says of itself: roots, partitions, files and whose
//! they are.
//!
//! Read back from the file that ships, by our readers: the manifest and the
//! bills speak of what is there, not of what was meant.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use sha1::{Digest as _, Sha1};

use super::ReleaseError;
use super::manifest::{DiskLine, PartitionLine, hex};
use super::sbom::{FileFacts, Owner};
use crate::digest::{Digest, Hasher};
use crate::image::content_root;
use crate::inspect::{self, InspectError, Kind, Part, Volume};
use crate::sparse::SparseSource;
use crate::tree::Escaped;
use crate::units::ByteSize;

/// Where dpkg lists the files of its packages.
const LISTS: &str = "/usr/lib/sysimage/dpkg/info";
/// Deepest folder that is walked.
const MAX_DEPTH: usize = 128;

/// Everything that a release says about its disk.
#[derive(Debug)]
pub struct Facts {
    /// The disk.
    pub disk: DiskLine,
    /// Its partitions.
    pub partitions: Vec<PartitionLine>,
    /// Its files, sorted by path.
    pub files: Vec<FileFacts>,
}

/// Reads the image at `path`. `mounts` says where the volume of a partition
/// is seen, by its name (`var` at `/var`, the root at nothing); `layers` which
/// layer brought a path that no package has.
///
/// # Errors
///
/// [`ReleaseError::Image`].
pub fn facts(
    path: &Path,
    mounts: &BTreeMap<String, String>,
    layers: &BTreeMap<String, String>,
) -> Result<Facts, ReleaseError> {
    read(path, mounts, layers).map_err(|source| ReleaseError::Image {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

fn read(
    path: &Path,
    mounts: &BTreeMap<String, String>,
    layers: &BTreeMap<String, String>,
) -> Result<Facts, InspectError> {
    let disk = inspect::open(path, None)?.disk;
    let table = inspect::gpt::read(disk.as_ref())?.ok_or(InspectError::NoFileSystem)?;
    if let Some(what) = table.primary_fault {
        let partition = None;
        return Err(InspectError::Table { what, partition });
    }
    let mut partitions = Vec::new();
    let mut volumes = Vec::new();
    for found in &table.partitions {
        let missing = || InspectError::NoPartition {
            wanted: found.name.clone(),
        };
        let part = Part::new(Arc::clone(&disk), found.range.clone()).ok_or_else(missing)?;
        let part: Arc<dyn SparseSource> = Arc::new(part);
        partitions.push(PartitionLine {
            number: found.number,
            name: found.name.clone(),
            offset: ByteSize::from_bytes(found.range.start),
            size: part.size(),
            root: root_of(part.as_ref())?,
        });
        if let Some(mount) = mounts.get(&found.name)
            && let Some(volume) = Volume::open(part)?
        {
            volumes.push((mount.as_str(), volume));
        }
    }
    Ok(Facts {
        disk: DiskLine {
            size: disk.size(),
            root: root_of(disk.as_ref())?,
        },
        partitions,
        files: files(&volumes, layers)?,
    })
}

fn root_of(source: &dyn SparseSource) -> Result<crate::digest::ContentRoot, InspectError> {
    content_root(source).map_err(|source| InspectError::Root { source })
}

fn files(
    volumes: &[(&str, Volume)],
    layers: &BTreeMap<String, String>,
) -> Result<Vec<FileFacts>, InspectError> {
    let mut packages = BTreeMap::new();
    for (mount, volume) in volumes {
        if mount.is_empty() {
            packages = owners(volume)?;
        }
    }
    let mut files = Vec::new();
    for (mount, volume) in volumes {
        walk(volume, &mut |path| {
            let sums = digests(volume, path)?;
            let full = format!("{mount}{}", Escaped(path));
            files.push(FileFacts {
                owner: owner(&full, &packages, layers),
                path: full,
                sha1: sums.0,
                sha256: sums.1,
            });
            Ok(())
        })?;
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Whose a path is, under either name of a merged /usr.
fn owner(
    path: &str,
    packages: &BTreeMap<String, String>,
    layers: &BTreeMap<String, String>,
) -> Owner {
    let short = path.strip_prefix("/usr").unwrap_or(path);
    if let Some(package) = packages.get(path).or_else(|| packages.get(short)) {
        return Owner::Package(package.clone());
    }
    match layers.get(path) {
        Some(layer) => Owner::Layer(layer.clone()),
        None => Owner::Builder,
    }
}

/// Packages by the paths in dpkg's lists.
fn owners(root: &Volume) -> Result<BTreeMap<String, String>, InspectError> {
    let mut owners = BTreeMap::new();
    for entry in root.entries(LISTS)? {
        let entry = entry?;
        let name = Escaped(&entry.name).to_string();
        let Some(stem) = name.strip_suffix(".list") else {
            continue;
        };
        let package = stem.split(':').next().unwrap_or(stem);
        let mut list = Vec::new();
        root.read(
            [LISTS.as_bytes(), b"/", &entry.name].concat(),
            &mut |piece| {
                list.extend_from_slice(piece);
                Ok(())
            },
        )?;
        for line in list
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            owners.insert(Escaped(line).to_string(), package.to_owned());
        }
    }
    Ok(owners)
}

/// Calls `take` for every regular file. Links are not followed.
fn walk(
    volume: &Volume,
    take: &mut dyn FnMut(&[u8]) -> Result<(), InspectError>,
) -> Result<(), InspectError> {
    let mut open = vec![Vec::new()];
    while let Some(folder) = open.pop() {
        if folder.split(|byte| *byte == b'/').skip(1).count() > MAX_DEPTH {
            return Err(InspectError::TooDeep {
                path: folder,
                most: MAX_DEPTH,
            });
        }
        for entry in volume.entries(&folder)? {
            let entry = entry?;
            let path = [&folder, &b"/"[..], &entry.name].concat();
            match entry.kind {
                Kind::Directory => open.push(path),
                Kind::File => take(&path)?,
                _ => {}
            }
        }
    }
    Ok(())
}

fn digests(volume: &Volume, path: &[u8]) -> Result<(String, Digest), InspectError> {
    let (mut sha1, mut sha256) = (Sha1::new(), Hasher::new());
    volume.read(path, &mut |piece| {
        sha1.update(piece);
        sha256.update(piece);
        Ok(())
    })?;
    Ok((hex(&sha1.finalize()), sha256.finish()))
}
