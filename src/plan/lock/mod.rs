//! `appliance.lock`: the packages that the appliance is made of, by digest.
//!
//! Written once by resolving, read by every later build, so that nobody gets
//! other packages than those that were tested. One entry a package, sorted by
//! name, so that version control merges two branches line by line. It names
//! suites and paths below a repository, never an address: mirrors differ.

mod changes;
mod read;
mod write;

use std::collections::BTreeMap;
use std::fmt;

pub use changes::Change;

use crate::digest::Digest;
use crate::layer::spec::{
    ArchiveRequest, ImageRequest, PackageGroup, PackageLimit, PackagePin, PackageRequest,
    RepositoryRequest,
};
use crate::units::Timestamp;

/// What the lock is called, beside `appliance.toml`.
pub const LOCK_FILE_NAME: &str = "appliance.lock";

/// The only version of the format so far.
const FORMAT: u64 = 1;

/// The packages of an appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The release that was asked for.
    pub suite: String,
    /// The architecture that was asked for.
    pub architecture: String,
    /// The appliance's own repositories that were asked, sorted by name.
    pub repositories: Vec<RepositoryRequest>,
    /// The limits that were asked for.
    pub limits: Vec<PackageLimit>,
    /// The repositories' releases that the packages come from, sorted by suite.
    pub releases: Vec<LockedRelease>,
    /// One for each `packages` layer, lowest first.
    pub layers: Vec<LockedLayer>,
    /// The packages of the tools layer that was asked for, sorted.
    pub tools_requested: Vec<String>,
    /// All packages of the tools layer.
    pub tools: Vec<PackagePin>,
    /// Images of registries, sorted by layer.
    pub images: Vec<LockedImage>,
    /// Archives of the web, sorted by layer: as `layer.toml` pins them, so
    /// that the lock names everything that comes from elsewhere.
    pub archives: Vec<ArchiveRequest>,
}

/// An image, and what its name stood for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedImage {
    /// Which layer asked for which name.
    pub request: ImageRequest,
    /// The manifest that it stood for, for Linux on amd64.
    pub manifest: Digest,
}

/// The state of a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockedRelease {
    /// Its suite, `bookworm-security`, or the name of an own repository.
    pub suite: String,
    /// `Date` of its signed `InRelease` file.
    pub date: Timestamp,
    /// Digest of that file.
    pub digest: Digest,
}

/// What one `packages` layer asked for, and what it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedLayer {
    /// What was asked.
    pub group: PackageGroup,
    /// What this layer adds, by name.
    pub packages: Vec<PackagePin>,
}

impl Lock {
    /// The answer to `request`.
    #[must_use]
    pub fn new(
        request: &PackageRequest,
        mut releases: Vec<LockedRelease>,
        mut layers: Vec<Vec<PackagePin>>,
        mut tools: Vec<PackagePin>,
    ) -> Self {
        releases.sort();
        tools.sort();
        for packages in &mut layers {
            packages.sort();
        }
        let layers = request.groups.iter().cloned().zip(layers);
        Self {
            suite: request.suite.clone(),
            architecture: request.architecture.clone(),
            repositories: request.repositories.clone(),
            limits: request.limits.clone(),
            releases,
            layers: layers
                .map(|(group, packages)| LockedLayer { group, packages })
                .collect(),
            tools_requested: request.tools.clone(),
            tools,
            images: Vec::new(),
            archives: request.archives.clone(),
        }
    }

    /// The same lock with these images.
    #[must_use]
    pub fn with_images(mut self, mut images: Vec<LockedImage>) -> Self {
        images.sort_by(|a, b| a.request.cmp(&b.request));
        self.images = images;
        self
    }

    /// The image of the layer called `name`.
    #[must_use]
    pub fn image(&self, name: &str) -> Option<&LockedImage> {
        self.images.iter().find(|image| image.request.layer == name)
    }

    /// Digest of its text.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_string().as_bytes())
    }

    /// The newest date of its releases.
    #[must_use]
    pub fn newest_release(&self) -> Option<Timestamp> {
        self.releases.iter().map(|release| release.date).max()
    }

    /// All packages, those of the layers first, lowest layer first.
    pub fn packages(&self) -> impl Iterator<Item = &PackagePin> {
        self.layers
            .iter()
            .flat_map(|layer| &layer.packages)
            .chain(&self.tools)
    }

    /// The packages of the layer called `name`.
    #[must_use]
    pub fn layer(&self, name: &str) -> Option<&LockedLayer> {
        self.layers.iter().find(|layer| layer.group.layer == name)
    }

    /// What `request` asks and this lock does not answer; empty when it fits.
    #[must_use]
    pub fn drift(&self, request: &PackageRequest) -> Vec<Drift> {
        let mut drift = Vec::new();
        let pairs = [
            ("suite", &self.suite, &request.suite),
            ("architecture", &self.architecture, &request.architecture),
        ];
        for (what, locked, wanted) in pairs {
            if locked != wanted {
                drift.push(Drift::Setting {
                    what,
                    locked: locked.clone(),
                    wanted: wanted.clone(),
                });
            }
        }
        drift.extend(self.repository_drift(request));
        if self.limits != request.limits {
            drift.push(Drift::Limits);
        }
        drift.extend(self.layer_drift(request));
        for (wanted, locked) in request.groups.iter().filter_map(|wanted| {
            self.layer(&wanted.layer)
                .map(|locked| (wanted, &locked.group))
        }) {
            drift.extend(group_drift(wanted, locked));
        }
        drift.extend(list_drift(
            "the boot loader",
            &self.tools_requested,
            &request.tools,
        ));
        drift.extend(self.foreign_drift(request));
        drift
    }

    fn repository_drift(&self, request: &PackageRequest) -> Vec<Drift> {
        let mut drift = Vec::new();
        for wanted in &request.repositories {
            match self.repositories.iter().find(|it| it.name == wanted.name) {
                None => drift.push(Drift::RepositoryNew(wanted.name.clone())),
                Some(locked) if locked != wanted => {
                    drift.push(Drift::RepositoryChanged(wanted.name.clone()));
                }
                Some(_) => {}
            }
        }
        for locked in &self.repositories {
            if !request.repositories.iter().any(|it| it.name == locked.name) {
                drift.push(Drift::RepositoryGone(locked.name.clone()));
            }
        }
        drift
    }

    /// What `oci` and `tar` layers ask for, against what is locked.
    fn foreign_drift(&self, request: &PackageRequest) -> Vec<Drift> {
        let wanted = request
            .images
            .iter()
            .map(|image| (&image.layer, image.reference.clone()))
            .chain(request.archives.iter().map(archive_words));
        let locked = self
            .images
            .iter()
            .map(|image| (&image.request.layer, image.request.reference.clone()))
            .chain(self.archives.iter().map(archive_words));
        let wanted: BTreeMap<_, _> = wanted.collect();
        let locked: BTreeMap<_, _> = locked.collect();
        let moved = wanted.iter().filter_map(|(layer, wanted)| {
            let found = locked.get(layer);
            (found != Some(wanted)).then(|| Drift::Foreign {
                layer: (*layer).clone(),
                locked: found.cloned(),
                wanted: Some(wanted.clone()),
            })
        });
        let gone = locked
            .iter()
            .filter(|(layer, _)| !wanted.contains_key(*layer))
            .map(|(layer, locked)| Drift::Foreign {
                layer: (*layer).clone(),
                locked: Some(locked.clone()),
                wanted: None,
            });
        moved.chain(gone).collect()
    }

    fn layer_drift(&self, request: &PackageRequest) -> Vec<Drift> {
        let locked: Vec<_> = self.layers.iter().map(|one| &one.group.layer).collect();
        let wanted: Vec<_> = request.groups.iter().map(|one| &one.layer).collect();
        let mut drift = Vec::new();
        for &layer in wanted.iter().filter(|layer| !locked.contains(layer)) {
            drift.push(Drift::LayerNew(layer.clone()));
        }
        for &layer in locked.iter().filter(|layer| !wanted.contains(layer)) {
            drift.push(Drift::LayerGone(layer.clone()));
        }
        if drift.is_empty() && locked != wanted {
            drift.push(Drift::Order);
        }
        drift
    }
}

fn archive_words(archive: &ArchiveRequest) -> (&String, String) {
    (
        &archive.layer,
        format!("{} {}", archive.url, archive.sha256),
    )
}

fn group_drift(wanted: &PackageGroup, locked: &PackageGroup) -> Vec<Drift> {
    let place = format!("layer `{}`", wanted.layer);
    let mut drift = list_drift(&place, &locked.packages, &wanted.packages);
    if wanted.recommends != locked.recommends {
        drift.push(Drift::Recommends {
            layer: wanted.layer.clone(),
            wanted: wanted.recommends,
        });
    }
    if wanted.exclude != locked.exclude {
        drift.push(Drift::Excluded {
            layer: wanted.layer.clone(),
        });
    }
    drift.extend(list_drift(&place, &locked.debs, &wanted.debs));
    drift
}

fn list_drift(place: &str, locked: &[String], wanted: &[String]) -> Vec<Drift> {
    let new = wanted.iter().filter(|name| !locked.contains(name));
    let gone = locked.iter().filter(|name| !wanted.contains(name));
    let (place, from) = (place.to_owned(), place.to_owned());
    new.map(|package| Drift::PackageNew {
        place: place.clone(),
        package: package.clone(),
    })
    .chain(gone.map(|package| Drift::PackageGone {
        place: from.clone(),
        package: package.clone(),
    }))
    .collect()
}

/// One way in which `appliance.toml` has moved away from its lock.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Drift {
    /// Another suite or architecture.
    Setting {
        /// Which one.
        what: &'static str,
        /// What the lock has.
        locked: String,
        /// What `appliance.toml` has.
        wanted: String,
    },
    /// An own repository that the lock does not know.
    RepositoryNew(String),
    /// An own repository of the lock that is no longer there.
    RepositoryGone(String),
    /// An own repository with another suite, other components, another
    /// priority or other packages.
    RepositoryChanged(String),
    /// Other limits of versions and sources.
    Limits,
    /// A package file of the appliance that is not the locked one.
    File {
        /// The package.
        package: String,
        /// The file, below the appliance's folder.
        path: String,
    },
    /// A layer of packages that the lock does not know.
    LayerNew(String),
    /// A layer of the lock that nobody asks for any more.
    LayerGone(String),
    /// The same layers in another order.
    Order,
    /// A package that the lock was not asked for.
    PackageNew {
        /// Who asks for it.
        place: String,
        /// Its name.
        package: String,
    },
    /// A package that is no longer asked for.
    PackageGone {
        /// Who asked for it.
        place: String,
        /// Its name.
        package: String,
    },
    /// Recommended packages came or went.
    Recommends {
        /// The layer.
        layer: String,
        /// Whether they are wanted now.
        wanted: bool,
    },
    /// A layer takes something else from elsewhere.
    Foreign {
        /// The layer.
        layer: String,
        /// What the lock has for it.
        locked: Option<String>,
        /// What it asks for.
        wanted: Option<String>,
    },
    /// Another list of excluded packages.
    Excluded {
        /// The layer.
        layer: String,
    },
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting {
                what,
                locked,
                wanted,
            } => write!(f, "the {what} is `{wanted}`, it was `{locked}`"),
            Self::RepositoryNew(name) => write!(f, "repository `{name}` is new"),
            Self::RepositoryGone(name) => write!(f, "repository `{name}` is gone"),
            Self::RepositoryChanged(name) => write!(f, "repository `{name}` is another one"),
            Self::Limits => f.write_str("the [[pin]] tables say something else"),
            Self::File { package, path } => {
                write!(f, "package `{package}` moved: `{path}` is another file")
            }
            Self::LayerNew(layer) => write!(f, "layer `{layer}` is new"),
            Self::LayerGone(layer) => write!(f, "layer `{layer}` is gone"),
            Self::Order => write!(f, "the layers stand in another order"),
            Self::PackageNew { place, package } => write!(f, "{place} now asks for `{package}`"),
            Self::PackageGone { place, package } => {
                write!(f, "{place} no longer asks for `{package}`")
            }
            Self::Recommends { layer, wanted } => {
                let with = if *wanted { "with" } else { "without" };
                write!(f, "layer `{layer}` is now {with} recommended packages")
            }
            Self::Foreign {
                layer,
                locked,
                wanted,
            } => match (locked, wanted) {
                (Some(locked), Some(wanted)) => {
                    write!(f, "layer `{layer}` takes `{wanted}`, it took `{locked}`")
                }
                (None, Some(wanted)) => write!(f, "layer `{layer}` now takes `{wanted}`"),
                (Some(locked), None) => write!(f, "layer `{layer}` no longer takes `{locked}`"),
                (None, None) => write!(f, "layer `{layer}` takes something else"),
            },
            Self::Excluded { layer } => write!(f, "layer `{layer}` excludes other packages"),
        }
    }
}
