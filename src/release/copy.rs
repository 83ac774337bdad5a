//! Verification of a copy: a disk that somebody put into another container.
//!
//! The copy's own digest is in no manifest; the content root of the disk
//! inside is, and each partition's. Where an image of the release is at hand,
//! the first file that differs has a name.

use std::path::Path;
use std::sync::Arc;

use super::ReleaseError;
use super::manifest::Manifest;
use super::verify::{Doubt, Policy, STEP, Start, Verified, conclude, digest_of};
use crate::digest::ContentRoot;
use crate::image::{ImageFormat, content_root};
use crate::inspect::{self, InspectError, Part, first_difference};
use crate::report::Reporter;
use crate::sparse::SparseSource;
use crate::units::ByteSize;

/// Bytes that are looked through for zeros at a time.
const PIECE: usize = 1 << 20;

/// Verifies that the disk in `image`, whatever contains it, is the one of the
/// release in `folder`. Zeros behind its end, as containers with a coarser
/// unit of length add them, are no difference.
///
/// # Errors
///
/// As [`super::verify::folder`], with [`Doubt::Partition`] and [`Doubt::File`]
/// for what differs; [`ReleaseError::Copy`] for what is no disk.
pub fn verify(
    image: &Path,
    folder: &Path,
    policy: &Policy,
    reporter: &dyn Reporter,
) -> Result<Verified, ReleaseError> {
    reporter.started(STEP);
    let Start {
        open,
        signers,
        mut doubts,
        ..
    } = Start::of(folder, policy)?;
    let failed = |source| ReleaseError::Copy {
        path: image.to_owned(),
        source: Box::new(source),
    };
    if doubts.is_empty() {
        let disk = inspect::open(image, None).map_err(failed)?.disk;
        doubts = judge_disk(&disk, image, folder, &open.manifest).map_err(failed)?;
    }
    conclude(image, open, signers, doubts, reporter)
}

fn judge_disk(
    disk: &Arc<dyn SparseSource>,
    image: &Path,
    folder: &Path,
    manifest: &Manifest,
) -> Result<Vec<Doubt>, InspectError> {
    let expected = manifest.disk.size;
    let length = |found| Doubt::Length {
        name: image.display().to_string(),
        expected,
        found,
    };
    let Some(same) = Part::new(Arc::clone(disk), 0..expected.bytes()) else {
        return Ok(vec![length(disk.size())]);
    };
    if !is_zero(disk.as_ref(), expected)? {
        return Ok(vec![length(disk.size())]);
    }
    let same: Arc<dyn SparseSource> = Arc::new(same);
    if root_of(same.as_ref())? == manifest.disk.root {
        return Ok(Vec::new());
    }
    let mut doubts = Vec::new();
    for line in &manifest.partitions {
        let start = line.offset.bytes();
        let end = start.saturating_add(line.size.bytes());
        let part = Part::new(Arc::clone(&same), start..end);
        let found = part.map(|part| root_of(&part)).transpose()?;
        if found != Some(line.root) {
            doubts.push(Doubt::Partition {
                name: line.name.clone(),
            });
        }
    }
    if doubts.is_empty() {
        doubts.push(Doubt::OutsideOfPartitions);
    }
    match first_file(&same, folder, manifest) {
        Some(place) => doubts.push(Doubt::File { place }),
        None => doubts.push(Doubt::NoSample),
    }
    Ok(doubts)
}

/// Compares with an image of the release that is sound itself.
fn first_file(copy: &Arc<dyn SparseSource>, folder: &Path, manifest: &Manifest) -> Option<String> {
    let is_image = |name: &str| {
        let endings = ImageFormat::ALL.iter();
        endings.map(|format| format.name()).any(|ending| {
            name.strip_suffix(ending)
                .is_some_and(|stem| stem.ends_with('.'))
        })
    };
    let mut images = manifest.files.iter().filter(|line| is_image(&line.name));
    images.find_map(|line| {
        let path = folder.join(&line.name);
        let is_sound = digest_of(&path).is_ok_and(|digest| digest == line.sha256);
        let sample = is_sound.then(|| inspect::open(&path, None).ok())??;
        let found = first_difference(&sample.disk, copy).ok()??;
        Some(found.to_string())
    })
}

fn root_of(source: &dyn SparseSource) -> Result<ContentRoot, InspectError> {
    content_root(source).map_err(|source| InspectError::Root { source })
}

/// Whether `disk` holds nothing from `start` on.
fn is_zero(disk: &dyn SparseSource, start: ByteSize) -> Result<bool, InspectError> {
    let mut buffer = vec![0; PIECE];
    for range in disk.data_ranges().filter(|range| range.end > start.bytes()) {
        let mut at = range.start.max(start.bytes());
        while at < range.end {
            let length = usize::try_from(range.end - at).map_or(PIECE, |left| left.min(PIECE));
            let piece = &mut buffer[..length];
            disk.read_exact_at(piece, at)
                .map_err(|source| InspectError::Read { offset: at, source })?;
            if piece.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += length as u64;
        }
    }
    Ok(true)
}
