//! Bundles of a configuration: those of its medium, and those that were there
//! before.

use std::io::ErrorKind;

use super::Refused;
use crate::bundle::{BundleError, CURRENT, Unpacker};
use crate::generation::Generation;
use crate::item::Item;
use crate::media::{self, Candidate, Roots};
use crate::root::Root;
use crate::status::{FileProblems, code};

/// Lets `generation` have the bundles that `before` had; but for those of a
/// role that the machine has no more.
pub fn carry(before: &Generation, generation: &mut Generation) {
    let serves = |role: &Option<String>| role.is_none() || *role == generation.role;
    let releases = before.releases.iter().filter(|(_, role)| serves(role));
    generation.releases = releases
        .map(|(one, two)| (one.clone(), two.clone()))
        .collect();
    let kept = |item: &&Item| {
        release(item).is_some_and(|digest| generation.releases.contains_key(&digest))
    };
    let links: Vec<Item> = before.items.iter().filter(kept).cloned().collect();
    generation.items.extend(links);
}

/// Unpacks the bundles of `medium`, which take the places of those with the
/// same names. What is unpacked counts for nothing before the commit.
///
/// # Errors
///
/// [`Refused`], with the first bundle that cannot be taken.
pub fn stage(
    root: &Root,
    roots: &Roots,
    medium: Option<&Candidate>,
    generation: &mut Generation,
) -> Result<(), Refused> {
    let Some(medium) = medium else {
        return Ok(());
    };
    for name in medium.payload.keys() {
        let unpacked = unpack(root, roots, medium, name, generation.role.as_deref());
        let manifest = match unpacked {
            Ok(Some(manifest)) => manifest,
            // A medium may serve several machines.
            Ok(None) => continue,
            Err(error) => return Err(refused(&medium.device, name, &error)),
        };
        let path = format!("{CURRENT}/{}", manifest.name);
        generation.items.retain(|item| item.place() != path);
        generation.items.push(Item::Link {
            path,
            target: format!("../releases/{}", manifest.digest),
        });
        let digest = manifest.digest.to_string();
        generation.releases.insert(digest, manifest.role);
    }
    let linked: Vec<String> = generation.items.iter().filter_map(release).collect();
    generation
        .releases
        .retain(|digest, _| linked.contains(digest));
    Ok(())
}

fn unpack(
    root: &Root,
    roots: &Roots,
    medium: &Candidate,
    name: &str,
    role: Option<&str>,
) -> Result<Option<crate::bundle::Manifest>, BundleError> {
    let mut unpacker = Unpacker::new(root, role)?;
    let read = media::read_bundle(roots, medium, name, &mut |piece| unpacker.push(piece));
    unpacker.finish(read)
}

fn refused(device: &str, name: &str, error: &BundleError) -> Refused {
    let (number, remedy) = match error {
        BundleError::NoKey | BundleError::Signature(_) => (
            code::SIGNATURE,
            "ask the vendor for a bundle that is signed for this appliance",
        ),
        // What another minute may bring.
        BundleError::Io(error)
            if matches!(
                error.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            ) =>
        {
            (code::APPLY_FAILED, "make room on /var")
        }
        BundleError::Io(_) => (code::INVALID, "copy the bundle again"),
        _ => (code::INVALID, "ask the vendor for the bundle again"),
    };
    let file = format!("{device}: {name}");
    Refused::one(
        number,
        "a bundle cannot be used",
        FileProblems::whole(&file, "bundle", &error.to_string(), remedy),
    )
}

/// The release that an item leads to.
fn release(item: &Item) -> Option<String> {
    match item {
        Item::Link { path, target } if path.starts_with(CURRENT) => {
            target.rsplit('/').next().map(str::to_owned)
        }
        _ => None,
    }
}
