//! Identifiers by hash, and the digest of a plan.

use std::path::PathBuf;

use super::build::{BuildPlan, PackageSpec};
use crate::appliance::{Name, Version};
use crate::digest::{Digest, derive_guid, of_fields};
use crate::layer::spec::{ArchiveOrigin, ImageOrigin, Recipe};
use crate::units::Guid;

/// What all identifiers of one appliance are derived from: name, version and
/// lock. A changed file keeps them, so that a small change stays small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity(Digest);

impl Identity {
    pub(super) fn new(name: &Name, version: &Version, lock: &Digest) -> Self {
        Self(of_fields([
            b"consign identity v1".as_slice(),
            name.as_str().as_bytes(),
            version.as_str().as_bytes(),
            lock.bytes(),
        ]))
    }

    /// The identifier of `role`, `partition:root-a` for example.
    pub(super) fn guid(&self, role: &str) -> Guid {
        derive_guid(&self.0, role)
    }
}

/// Where on the host, or on the web, something comes from changes nothing:
/// its digest stands beside it.
fn forget_place(recipe: &mut Recipe) {
    match recipe {
        Recipe::Files(files) => files.folder = PathBuf::new(),
        Recipe::Tar(tar) => tar.origin = ArchiveOrigin::File(PathBuf::new()),
        Recipe::Oci(oci) => match &mut oci.origin {
            ImageOrigin::Archive(path, _) => *path = PathBuf::new(),
            origin => *origin = ImageOrigin::Folder(PathBuf::new()),
        },
        Recipe::Run(run) => {
            if let Some(input) = &mut run.input {
                input.folder = PathBuf::new();
            }
        }
        _ => {}
    }
}

impl BuildPlan {
    /// Digest of everything that determines the disk and what descriptors say
    /// of the machine, and of nothing else: no path of the host, not what is
    /// derived from this digest, and not in which files the disk is packed.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut plan = self.clone();
        plan.boot.build_id.clear();
        plan.machine.build = Digest::from_bytes([0; 32]);
        plan.images.clear();
        plan.package = PackageSpec::default();
        for layer in &mut plan.layers {
            forget_place(&mut layer.recipe);
        }
        // Derived `Debug` names every field of every value, so that a new
        // field cannot be forgotten. Its text is that of the pinned compiler.
        Digest::of(format!("consign plan v1 {plan:?}").as_bytes())
    }

    /// Digest of everything that determines the output folder: the plan's, and
    /// the files that are asked for.
    #[must_use]
    pub fn outputs_digest(&self) -> Digest {
        let images = format!("{:?} {:?}", self.images, self.package);
        of_fields([self.digest().bytes().as_slice(), images.as_bytes()])
    }
}
