//! The JSON documents of images: index, manifest, configuration.
//!
//! Unknown keys are passed over, as the specification asks; what is known is
//! judged before it is used.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::blobs::Blobs;
use super::error::OciError;
use crate::digest::Digest;

/// `application/vnd.oci.image.manifest.v1+json`.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Names a blob: what it is, how long and with which digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// SHA-256 of its bytes; other algorithms are refused.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Which machine a manifest is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free text by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Which machine a manifest is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64` and so on, in Go's words.
    pub architecture: String,
    /// `linux` and so on.
    pub os: String,
}

impl Descriptor {
    /// The name of an image in a layout.
    #[must_use]
    pub fn ref_name(&self) -> Option<&str> {
        self.annotations
            .get("org.opencontainers.image.ref.name")
            .map(String::as_str)
    }

    /// Layers that another place would have to give, and encrypted ones, are refused.
    pub(super) fn check_is_layer(&self) -> Result<(), OciError> {
        let kind = self.media_type.as_str();
        let is_tar = kind.is_empty() || kind.contains(".tar");
        if is_tar && !kind.contains("foreign") && !kind.contains("encrypted") {
            return Ok(());
        }
        let reason = format!("a layer of type `{kind}` is not supported");
        Err(OciError::malformed(&self.digest.to_string(), reason))
    }
}

/// A list of manifests.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u64,
    /// The manifests.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
}

impl Index {
    /// The manifest for Linux on amd64; a lone one without a platform is it.
    ///
    /// # Errors
    ///
    /// [`OciError::NoPlatform`] with the platforms that there are.
    pub fn for_this_platform(&self) -> Result<&Descriptor, OciError> {
        let fits = |one: &&Descriptor| {
            let platform = one.platform.as_ref();
            platform.is_some_and(|it| it.os == "linux" && it.architecture == "amd64")
        };
        match (self.manifests.iter().find(fits), self.manifests.as_slice()) {
            (Some(found), _) => Ok(found),
            (None, [only]) if only.platform.is_none() => Ok(only),
            _ => {
                let platforms = self.manifests.iter().filter_map(|one| {
                    let platform = one.platform.as_ref()?;
                    Some(format!("{}/{}", platform.os, platform.architecture))
                });
                Err(OciError::NoPlatform {
                    found: platforms.collect(),
                })
            }
        }
    }
}

/// What an image is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u64,
    /// [`MANIFEST`], where it is said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// What an artifact is that is not an image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Free text by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A manifest or an index, told apart by what is in it.
#[derive(Debug)]
pub enum Document {
    /// Of one image.
    Manifest(Box<Manifest>),
    /// Of several.
    Index(Index),
}

impl Document {
    /// Reads either; `name` is for messages.
    ///
    /// # Errors
    ///
    /// [`OciError::Malformed`].
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self, OciError> {
        // A document that could be read as both is a trap (CVE-2021-41190).
        #[derive(Deserialize)]
        struct Probe {
            manifests: Option<serde_json::Value>,
            layers: Option<serde_json::Value>,
            #[serde(rename = "schemaVersion")]
            schema_version: u64,
        }
        let malformed = |error: serde_json::Error| OciError::malformed(name, error.to_string());
        let probe: Probe = serde_json::from_slice(bytes).map_err(malformed)?;
        if probe.schema_version != 2 {
            let reason = format!("its schema version is {}, not 2", probe.schema_version);
            return Err(OciError::malformed(name, reason));
        }
        match (probe.manifests, probe.layers) {
            (Some(_), None) => serde_json::from_slice(bytes)
                .map(Self::Index)
                .map_err(malformed),
            (None, Some(_)) => serde_json::from_slice(bytes)
                .map(|manifest| Self::Manifest(Box::new(manifest)))
                .map_err(malformed),
            (Some(_), Some(_)) => Err(OciError::malformed(
                name,
                "it is a manifest and an index at once",
            )),
            (None, None) => Err(OciError::malformed(
                name,
                "it is neither a manifest nor an index",
            )),
        }
    }
}

/// The part of an image's configuration that says what its layers are.
#[derive(Debug, Clone, Deserialize)]
pub struct ImageConfig {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    pub(super) rootfs: RootFs,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct RootFs {
    pub(super) diff_ids: Vec<Digest>,
}

impl ImageConfig {
    /// Reads one; an image for other machines is refused.
    pub(super) fn parse(bytes: &[u8], name: &str) -> Result<Self, OciError> {
        let config: Self = serde_json::from_slice(bytes)
            .map_err(|error| OciError::malformed(name, error.to_string()))?;
        let is = |found: &str, wanted: &str| found.is_empty() || found == wanted;
        if is(&config.architecture, "amd64") && is(&config.os, "linux") {
            return Ok(config);
        }
        Err(OciError::NoPlatform {
            found: vec![format!("{}/{}", config.os, config.architecture)],
        })
    }
}

/// One image in the `manifest.json` of a docker archive.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerImage {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    pub(super) layers: Vec<String>,
}

/// The image called `image` of a docker archive, or the only one.
pub(super) fn docker_image(blobs: &Blobs, image: Option<&str>) -> Result<DockerImage, OciError> {
    let images: Vec<DockerImage> = blobs.json("manifest.json")?;
    let names = || {
        let tags = images.iter().flat_map(|one| one.repo_tags.iter().flatten());
        tags.cloned().collect::<Vec<_>>()
    };
    let Some(image) = image else {
        return match images.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(OciError::NoImage {
                image: None,
                names: Vec::new(),
            }),
            _ => Err(OciError::SeveralImages { names: names() }),
        };
    };
    let is_it = |one: &&DockerImage| {
        let mut tags = one.repo_tags.iter().flatten();
        tags.any(|tag| tag == image)
    };
    images
        .iter()
        .find(is_it)
        .cloned()
        .ok_or_else(|| OciError::NoImage {
            image: Some(image.to_owned()),
            names: names(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn index(platforms: &[&str]) -> Index {
        let manifests = platforms.iter().map(|platform| {
            let (os, architecture) = platform.split_once('/').expect("two words");
            format!(
                r#"{{"digest":"{DIGEST}","size":1,
                    "platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#
            )
        });
        let manifests: Vec<_> = manifests.collect();
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            manifests.join(",")
        );
        match Document::parse(text.as_bytes(), "index").expect("an index") {
            Document::Index(index) => index,
            Document::Manifest(_) => panic!("an index"),
        }
    }

    #[test]
    fn the_manifest_for_this_platform_is_chosen() {
        assert!(
            index(&["linux/arm64", "linux/amd64"])
                .for_this_platform()
                .is_ok()
        );
        let error = index(&["linux/arm64", "windows/amd64"])
            .for_this_platform()
            .expect_err("no Linux on amd64");
        assert_eq!(
            error.to_string(),
            "the image is not for linux/amd64, only for linux/arm64, windows/amd64"
        );
    }

    #[test]
    fn what_is_both_or_neither_is_refused() {
        for text in [
            r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#,
            r#"{"schemaVersion":2}"#,
            r#"{"schemaVersion":1,"layers":[]}"#,
            "[]",
            "",
        ] {
            let error = Document::parse(text.as_bytes(), "it").expect_err(text);
            assert_eq!(error.slug(), "image-malformed", "{text}");
        }
    }

    #[test]
    fn another_digest_than_sha256_is_refused() {
        let text = r#"{"schemaVersion":2,"layers":[],"config":{"digest":"md5:00","size":1}}"#;
        assert!(Document::parse(text.as_bytes(), "it").is_err());
    }
}
