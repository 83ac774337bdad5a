//! Bills of materials: what is in the image, and what made it.
//!
//! In: an [`Inventory`]. Out: SPDX 2.3 and CycloneDX 1.7, both JSON, the same
//! bytes for the same inventory. Never here: licences that nobody declared
//! (Debian's copyright files are in the image), chance, the clock.
//! Checked by: spdx-tools and cyclonedx-python-lib with the official schemas
//! (`tests/it/release/sbom.rs`).

mod crates;
mod cyclonedx;
mod spdx;

pub use crates::{Crate, agent_crates, builder_crates};

use std::fmt::Write as _;

use crate::digest::{DiffId, Digest};
use crate::layer::spec::PackagePin;
use crate::units::{Guid, Timestamp};

/// SPDX in a release.
pub const SPDX_FILE: &str = "sbom.spdx.json";
/// CycloneDX in a release.
pub const CYCLONEDX_FILE: &str = "sbom.cdx.json";

/// Everything that the bills name.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// Name of the appliance.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When it was made, by the source date.
    pub date: Timestamp,
    /// The distribution's release by code name.
    pub suite: String,
    /// Version of consign.
    pub builder: String,
    /// Digest of the first-boot agent.
    pub agent: Digest,
    /// Names the bill, the same for the same release.
    pub serial: Guid,
    /// The layers, lowest first.
    pub layers: Vec<LayerFacts>,
    /// The files of the image, sorted by path.
    pub files: Vec<FileFacts>,
}

/// A layer and what it brought.
#[derive(Debug, Clone)]
pub struct LayerFacts {
    /// Its name.
    pub name: String,
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// Its packages.
    pub packages: Vec<PackagePin>,
}

/// A file of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFacts {
    /// Its path, with a leading `/`.
    pub path: String,
    /// SHA-1 of its content: SPDX 2.3 demands it.
    pub sha1: String,
    /// Digest of its content.
    pub sha256: Digest,
    /// Whose it is.
    pub owner: Owner,
}

/// Who brought a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A package, by name.
    Package(String),
    /// A layer, by name: not from a package.
    Layer(String),
    /// consign itself: the agent, boot files, units.
    Builder,
}

impl Inventory {
    /// The SPDX document.
    #[must_use]
    pub fn spdx(&self) -> String {
        text(&spdx::document(self))
    }

    /// The CycloneDX document.
    #[must_use]
    pub fn cyclonedx(&self) -> String {
        text(&cyclonedx::document(self))
    }
}

fn text(document: &serde_json::Value) -> String {
    format!("{document:#}\n")
}

/// Package URL of a Debian package.
pub(super) fn deb_purl(pin: &PackagePin, suite: &str) -> String {
    let (name, version) = (encode(&pin.name), encode(&pin.version));
    format!(
        "pkg:deb/debian/{name}@{version}?arch={}&distro={suite}",
        pin.architecture
    )
}

/// Package URL of the appliance.
pub(super) fn appliance_purl(inventory: &Inventory) -> String {
    let (name, version) = (encode(&inventory.name), encode(&inventory.version));
    format!("pkg:generic/{name}@{version}")
}

/// Package URL of a crate.
fn crate_purl(one: &Crate) -> String {
    format!("pkg:cargo/{}@{}", encode(&one.name), encode(&one.version))
}

/// Percent-encodes what a package URL cannot hold (package-url, `PURL-SPECIFICATION`).
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a string takes all");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls_are_encoded() {
        assert_eq!(encode("libstdc++6"), "libstdc%2B%2B6");
        assert_eq!(encode("1:2.36-9+deb12u9~x"), "1:2.36-9%2Bdeb12u9~x");
    }
}
