//! Images as OCI and docker know them: from a folder, an archive or a
//! registry to one change of the tree.
//!
//! In: an OCI image layout (folder or archive) or what `docker save` writes;
//! blobs of a registry are kept as a layout too. Out: one [`TreeDelta`] that
//! does what the image's layers do one after the other. Every blob is checked
//! against the size and the digest that name it, and every layer against its
//! diff ID. Never here: the network (that is `registry`), running anything.
//! Checked by: skopeo, umoci and docker-registry (`tests/it/layer/oci.rs`).
//!
//! Sources: OCI image specification 1.1 (`image-layout.md`, `image-index.md`,
//! `manifest.md`, `config.md`, `layer.md`); Docker image specification 1.2
//! (`manifest.json` of an archive).

mod blobs;
mod document;
mod error;
pub mod reference;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use blobs::Blobs;
pub(crate) use document::MANIFEST;
pub use document::{Descriptor, Document, ImageConfig, Index, Manifest};
pub use error::OciError;

use crate::digest::{DiffId, Digest};
use crate::layer::compression::{Hashing, UnpackError, unpack_to};
use crate::layer::tar::{Form, Selection, read_selected};
use crate::tree::{Blob, TreeDelta};

/// Longest manifest, index or configuration: what registries accept.
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;
/// Most layers of an image; Docker stops at 127.
const MAX_LAYERS: usize = 1024;
/// Indexes inside of indexes that are followed.
const MAX_DEPTH: usize = 4;

/// An image, ready to be unpacked: its layers in order.
#[derive(Debug)]
pub struct Image {
    layers: Vec<ImageLayer>,
}

/// One layer of an image: where its tar is, and what it must be.
#[derive(Debug)]
struct ImageLayer {
    /// For messages and for the blobs.
    name: String,
    /// The blob as the manifest names it; a docker archive names none.
    blob: Option<(Digest, u64)>,
    diff_id: DiffId,
}

/// The manifest that stands for `image` in a layout: its digest, of an image
/// for several platforms that of Linux on amd64.
///
/// # Errors
///
/// [`OciError`] when the layout has no such image, or more than one.
pub fn find_manifest(blobs: &Blobs, image: Option<&str>) -> Result<Digest, OciError> {
    let index: Index = blobs.json("index.json")?;
    let named = |descriptor: &&Descriptor| {
        image.is_none() || descriptor.ref_name() == image || {
            // containerd writes the whole name beside it.
            let full = descriptor.annotations.get("io.containerd.image.name");
            full.map(String::as_str) == image
        }
    };
    let found: Vec<&Descriptor> = index.manifests.iter().filter(named).collect();
    let all_names = || {
        let texts = index.manifests.iter().filter_map(Descriptor::ref_name);
        texts.map(str::to_owned).collect::<Vec<_>>()
    };
    match found.as_slice() {
        [] => Err(OciError::NoImage {
            image: image.map(str::to_owned),
            names: all_names(),
        }),
        [one] => manifest_of(blobs, one, 0),
        several if image.is_none() && several.iter().all(|one| one.platform.is_some()) => {
            manifest_of(blobs, index.for_this_platform()?, 0)
        }
        _ => Err(OciError::SeveralImages { names: all_names() }),
    }
}

fn manifest_of(blobs: &Blobs, descriptor: &Descriptor, depth: usize) -> Result<Digest, OciError> {
    if depth > MAX_DEPTH {
        return Err(OciError::malformed(
            &descriptor.digest.to_string(),
            "indexes lie too deep inside of each other",
        ));
    }
    match Document::parse(&blobs.document(descriptor)?, &descriptor.digest.to_string())? {
        Document::Manifest(_) => Ok(descriptor.digest),
        Document::Index(index) => manifest_of(blobs, index.for_this_platform()?, depth + 1),
    }
}

impl Image {
    /// The image whose manifest has the digest `manifest`.
    ///
    /// # Errors
    ///
    /// [`OciError`] when it is missing, damaged or not an image.
    pub fn open(blobs: &Blobs, manifest: &Digest) -> Result<Self, OciError> {
        let name = manifest.to_string();
        let bytes = blobs.blob_bytes(manifest, MAX_DOCUMENT)?;
        let Document::Manifest(manifest) = Document::parse(&bytes, &name)? else {
            return Err(OciError::malformed(&name, "it is an index, not a manifest"));
        };
        let config = blobs.document(&manifest.config)?;
        let config = ImageConfig::parse(&config, &manifest.config.digest.to_string())?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(OciError::malformed(
                &name,
                "it has another number of layers than its configuration",
            ));
        }
        let layers = manifest.layers.iter().zip(config.rootfs.diff_ids);
        let layers = layers
            .map(|(layer, diff_id)| {
                layer.check_is_layer()?;
                Ok(ImageLayer {
                    name: format!("blobs/sha256/{}", layer.digest.hex()),
                    blob: Some((layer.digest, layer.size)),
                    diff_id: DiffId(diff_id),
                })
            })
            .collect::<Result<Vec<_>, OciError>>()?;
        Self::new(layers)
    }

    /// The image in an archive of either kind, by its name where there are several.
    ///
    /// # Errors
    ///
    /// [`OciError`] when it is missing, damaged or not an image.
    pub fn in_archive(blobs: &Blobs, image: Option<&str>) -> Result<Self, OciError> {
        // Newer dockers write both forms; the OCI one says more.
        if blobs.has("index.json") {
            return Self::open(blobs, &find_manifest(blobs, image)?);
        }
        let entry = document::docker_image(blobs, image)?;
        let config = blobs.bytes(&entry.config, MAX_DOCUMENT)?;
        let config = ImageConfig::parse(&config, &entry.config)?;
        if config.rootfs.diff_ids.len() != entry.layers.len() {
            return Err(OciError::malformed(
                "manifest.json",
                "it has another number of layers than its configuration",
            ));
        }
        let layers = entry.layers.into_iter().zip(config.rootfs.diff_ids);
        Self::new(
            layers
                .map(|(name, diff_id)| ImageLayer {
                    name,
                    blob: None,
                    diff_id: DiffId(diff_id),
                })
                .collect(),
        )
    }

    fn new(layers: Vec<ImageLayer>) -> Result<Self, OciError> {
        if layers.is_empty() || layers.len() > MAX_LAYERS {
            let reason = format!("it has {} layers", layers.len());
            return Err(OciError::malformed("the image", reason));
        }
        Ok(Self { layers })
    }

    /// Unpacks the layers' tars into `folder`, checks them, and stacks them.
    /// The contents of the result point into the files there.
    ///
    /// # Errors
    ///
    /// [`OciError`] for damage, and for what a layer must not hold.
    pub fn stack(
        &self,
        blobs: &Blobs,
        folder: &Path,
        selection: &Selection,
    ) -> Result<TreeDelta, OciError> {
        let mut stacked = TreeDelta::new();
        for (number, layer) in self.layers.iter().enumerate() {
            let place = folder.join(format!("image-{number}.tar"));
            let blob = layer.unpack(blobs, &place)?;
            let in_layer = |source| OciError::Layer {
                layer: layer.diff_id.to_string(),
                source: Box::new(source),
            };
            let delta = read_selected(&blob, selection, Form::Image).map_err(in_layer)?;
            stacked.stack(&delta).map_err(|source| OciError::Stack {
                layer: layer.diff_id.to_string(),
                source,
            })?;
        }
        Ok(stacked)
    }
}

impl ImageLayer {
    /// The uncompressed tar, in a new file at `place`; its blob must be what
    /// the manifest says, and the tar what the configuration says.
    fn unpack(&self, blobs: &Blobs, place: &Path) -> Result<Arc<Blob>, OciError> {
        let content = blobs.content(&self.name)?;
        let mut compressed = Hashing::new(content.reader());
        if let Some((digest, size)) = self.blob
            && content.size() != size
        {
            return Err(OciError::Size {
                what: digest.to_string(),
                expected: size,
                found: content.size(),
            });
        }
        let written = unpack_to(&mut compressed, content.size(), place);
        let written = written.map_err(|error| match error {
            UnpackError::Read(source) => OciError::Compression { source },
            UnpackError::Write(source) => OciError::write(place, source),
        });
        if let Some((digest, _)) = self.blob {
            // Damage is best explained by the digest, so it is looked at first.
            let rest = io::copy(&mut compressed, &mut io::sink());
            rest.map_err(|source| OciError::read(&self.name, source))?;
            let found = compressed.finish();
            if found != digest {
                return Err(OciError::Digest {
                    what: "blob",
                    expected: digest,
                    found,
                });
            }
        }
        let found = written?;
        if found.diff_id != self.diff_id {
            return Err(OciError::Digest {
                what: "uncompressed layer",
                expected: self.diff_id.0,
                found: found.diff_id.0,
            });
        }
        Blob::open(place).map_err(|source| OciError::write(place, source))
    }
}
