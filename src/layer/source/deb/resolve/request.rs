//! The question and the answer.

use crate::digest::Digest;
use crate::layer::spec::{PackageLimit, PackagePin};
use crate::units::Timestamp;

/// Which packages are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `amd64`; packages for `all` come with it.
    pub architecture: String,
    /// Whether this is a system or only some programs.
    pub base: Base,
    /// From the lowest one up. A package comes in the lowest layer that needs
    /// it; the layers together are one system and are resolved together, so
    /// that a package wanted above can satisfy a choice below.
    pub layers: Vec<LayerRequest>,
    /// Packages that must not come, whatever depends on them. What needs one
    /// of them and has no alternative is an error.
    pub exclude: Vec<String>,
    /// Dependencies that count as satisfied though no package is there for
    /// them: `linux-initramfs-tool`, since the initramfs is ours. `NAME`
    /// satisfies dependencies without a version, `NAME (= VERSION)` those too
    /// whose version fits. The target's dpkg knows nothing of it: whoever
    /// configures the packages has to tell it.
    pub provided: Vec<String>,
    /// Which versions and sources count for some packages; the first one that
    /// fits a name is the one for it.
    pub limits: Vec<PackageLimit>,
    /// Packages that stay what they are where they can.
    pub held: Vec<Held>,
}

/// A package that stays at its version where it can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Digest of its file.
    pub sha256: Digest,
}

/// What is under the wanted packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Every essential package, first in the lowest layer: a system.
    Essential,
    /// Only what the wanted packages depend on: programs to be unpacked.
    Nothing,
}

/// One layer's wishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRequest {
    /// The layer, for messages and for the answer.
    pub name: String,
    /// `NAME`, `NAME=VERSION` or `NAME/SUITE`.
    pub packages: Vec<String>,
    /// Whether the recommended packages come too, of these packages and of
    /// what they bring.
    pub recommends: bool,
}

/// Exact packages for each layer of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// In the order of the request.
    pub layers: Vec<ResolvedLayer>,
    /// The signed lists that it was made from, in the order of the repositories.
    pub releases: Vec<ReleaseFacts>,
}

impl Resolution {
    /// The newest date of the lists: the source date where none is given.
    #[must_use]
    pub fn newest_date(&self) -> Option<Timestamp> {
        self.releases.iter().map(|release| release.date).max()
    }
}

/// One layer's packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedLayer {
    /// The layer.
    pub name: String,
    /// By name.
    pub pins: Vec<PackagePin>,
}

/// What is worth keeping of a signed list. No address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseFacts {
    /// Suite as it was asked for.
    pub suite: String,
    /// Its `Date`.
    pub date: Timestamp,
    /// Digest of the signed text.
    pub sha256: Digest,
}
