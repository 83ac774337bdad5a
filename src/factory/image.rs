//! Roles and policy of an image that is finished: what its first-boot agent
//! will judge by, for somebody who has the image and nothing else. Whether the
//! policy is signed is the agent's to judge.

use std::io;
use std::path::{Path, PathBuf};

use consign_schema::{MAX_SIZE, Policy, Problem, Role, decode};

use super::roles::Shelf;
use super::{FactoryError, roles};
use crate::inspect::{self, DiskImage, InspectError, Kind, Volume};

/// Partitions that hold a root, by name.
const ROOTS: [&str; 2] = ["root-a", "root"];

impl Shelf {
    /// The roles and the policy that are in the image at `path`, of any format.
    ///
    /// # Errors
    ///
    /// [`FactoryError::Image`] when it cannot be read or is no appliance,
    /// [`FactoryError::Vendor`] for a role or policy that is wrong.
    pub fn of_image(path: &Path) -> Result<Self, FactoryError> {
        let failed = |source| FactoryError::Image {
            path: path.to_owned(),
            source: Box::new(source),
        };
        let image = inspect::open(path, None).map_err(failed)?;
        let volume = root_of(&image).map_err(failed)?;
        let mut shelf = Self::default();
        let folder = format!("/{}", roles::ROLES);
        for entry in list(&volume, &folder).map_err(failed)? {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            let place = format!("{folder}/{name}/{}", roles::ROLE_FILE);
            if entry.kind != Kind::Directory {
                continue;
            }
            if let Some(bytes) = read(&volume, &place).map_err(failed)? {
                shelf.add(parsed(path, &place, &bytes, Role::parse)?);
            }
        }
        let place = format!("/{}", roles::POLICY);
        if let Some(bytes) = read(&volume, &place).map_err(failed)? {
            shelf.set_policy(parsed(path, &place, &bytes, Policy::parse)?);
        }
        Ok(shelf)
    }
}

fn root_of(image: &DiskImage) -> Result<Volume, InspectError> {
    let found = ROOTS.iter().map(|name| image.volume(Some(name)));
    let is_elsewhere =
        |found: &Result<_, _>| !matches!(found, Err(InspectError::NoPartition { .. }));
    found
        .into_iter()
        .find(is_elsewhere)
        .unwrap_or(Err(InspectError::NoFileSystem))
}

/// The entries of a folder; none when it is not there.
fn list(volume: &Volume, path: &str) -> Result<Vec<inspect::Entry>, InspectError> {
    match volume.list(path) {
        Err(InspectError::NoPath { .. }) => Ok(Vec::new()),
        found => found,
    }
}

/// The bytes of a file, and of one that is too long just enough to see it.
fn read(volume: &Volume, path: &str) -> Result<Option<Vec<u8>>, InspectError> {
    let mut bytes = Vec::new();
    let read = volume.read(path, &mut |piece| {
        if bytes.len() > MAX_SIZE {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        bytes.extend_from_slice(piece);
        Ok(())
    });
    match read {
        Ok(()) => Ok(Some(bytes)),
        Err(InspectError::NoPath { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parsed<T>(
    image: &Path,
    place: &str,
    bytes: &[u8],
    parse: impl FnOnce(&str) -> Result<T, Vec<Problem>>,
) -> Result<T, FactoryError> {
    decode(bytes)
        .and_then(parse)
        .map_err(|problems| FactoryError::Vendor {
            path: PathBuf::from(format!("{}:{place}", image.display())),
            problems,
        })
}
