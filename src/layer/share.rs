//! Layers between machines, by way of a registry.
//!
//! Each layer is an OCI artifact under the tag `consign-<key>`: its
//! configuration is the layer's record, its one layer the tar as zstd. Any
//! registry keeps them, and any registry client can copy them.
//!
//! What is pulled is believed as far as its digests go: the blobs are those
//! that the manifest names, the tar is the one that the record names and can
//! be read, the record is of the key and the packages that were asked for.
//! That a key stands for the right tar is the word of whoever may push.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _, Write as _};
use std::path::Path;

use serde::Serialize;

use super::compression::unpack_to;
use super::key::layer_key;
use super::source::oci::{Descriptor, MANIFEST, MAX_DOCUMENT, Manifest};
use super::source::remote::{Registry, Remote, RemoteError, Upload};
use super::spec::LayerSpec;
use super::store::{MAX_RECORD, Record, Store};
use super::tar::read_delta;
use super::{LayerError, packages_of, secrets};
use crate::digest::{DiffId, Digest, Hasher, LayerKey};
use crate::report::{Outcome, Reporter};
use crate::tree::Blob;
use crate::units::{ByteSize, Timestamp};

/// What the artifact is.
const ARTIFACT: &str = "application/vnd.consign.layer.v1";
/// What its configuration is.
const RECORD: &str = "application/vnd.consign.layer.record.v1+json";
/// What its layer is.
const TAR: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Annotations of the manifest.
const ANNOTATION_KEY: &str = "dev.consign.layer.key";
const ANNOTATION_DIFF_ID: &str = "dev.consign.layer.diff-id";
const ANNOTATION_TITLE: &str = "org.opencontainers.image.title";
/// As fast as the disk, and half as large as gzip.
const ZSTD_LEVEL: i32 = 3;

/// What became of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// The layer's name.
    pub layer: String,
    /// Its key, where the layers below are known.
    pub key: Option<LayerKey>,
    /// What was done.
    pub outcome: ShareOutcome,
    /// Length of its tar.
    pub size: Option<ByteSize>,
}

/// What was done with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShareOutcome {
    /// Brought to the other side.
    Copied,
    /// It was there.
    There,
    /// The side that it would come from does not have it.
    Missing,
    /// It stands on a layer that is missing.
    BelowMissing,
}

fn tag(key: &LayerKey) -> String {
    format!("consign-{}", key.0.hex())
}

/// Digest and length of a tar, and what was done with it.
type Done = (DiffId, u64, ShareOutcome);

/// One layer after the other, each with the key that those below give it.
fn each<'s>(
    specs: &'s [LayerSpec],
    source_date: Timestamp,
    mut one: impl FnMut(&'s LayerSpec, &LayerKey) -> Result<Option<Done>, LayerError>,
) -> Result<Vec<Shared>, LayerError> {
    let mut parents = Vec::new();
    let mut is_broken = false;
    let mut shared = Vec::new();
    for spec in specs {
        let stands_on_others = spec.recipe.depends_on_parents();
        if stands_on_others && is_broken {
            shared.push(Shared {
                layer: spec.name.clone(),
                key: None,
                outcome: ShareOutcome::BelowMissing,
                size: None,
            });
            continue;
        }
        let key = layer_key(spec, &parents, source_date);
        let done = one(spec, &key).map_err(|error| error.in_layer(&spec.name))?;
        let (outcome, size) = if let Some((diff_id, size, outcome)) = done {
            parents.push(diff_id);
            (outcome, Some(ByteSize::from_bytes(size)))
        } else {
            is_broken = true;
            (ShareOutcome::Missing, None)
        };
        shared.push(Shared {
            layer: spec.name.clone(),
            key: Some(key),
            outcome,
            size,
        });
    }
    Ok(shared)
}

/// Brings the layers of `specs` that are in the store to `registry`.
///
/// # Errors
///
/// [`LayerError`]; what was brought before stays there.
pub fn push(
    specs: &[LayerSpec],
    source_date: Timestamp,
    store: &Store,
    registry: &Registry<'_>,
    reporter: &dyn Reporter,
) -> Result<Vec<Shared>, LayerError> {
    let _in_use = store.in_use()?;
    let workplace = tempfile::Builder::new()
        .prefix("push-")
        .tempdir_in(store.folder().join("work"))
        .map_err(|source| store_error("make a folder in", store.folder(), source))?;
    each(specs, source_date, |spec, key| {
        let Some((record, blob)) = store.find(key, reporter)? else {
            return Ok(None);
        };
        if registry.has_manifest(&tag(key))? {
            return Ok(Some((record.diff_id, record.size, ShareOutcome::There)));
        }
        // Others get it by this name, which is looked at once more.
        let path = store.blob_path(&record.diff_id);
        let found = Digest::of_file(blob.file()).map_err(|e| store_error("read", &path, e))?;
        if found != record.diff_id.0 {
            store.discard(key, &record.diff_id, reporter)?;
            return Ok(None);
        }
        let step = format!("push {}", spec.name);
        reporter.started(&step);
        push_one(&spec.name, &record, &blob, registry, workplace.path())?;
        let size = ByteSize::from_bytes(record.size).to_string();
        reporter.finished(&step, Outcome::Done, size);
        Ok(Some((record.diff_id, record.size, ShareOutcome::Copied)))
    })
}

fn push_one(
    name: &str,
    record: &Record,
    tar: &Blob,
    registry: &Registry<'_>,
    folder: &Path,
) -> Result<(), LayerError> {
    let packed = folder.join("packed");
    let (digest, size) =
        compress(tar.file(), &packed).map_err(|source| store_error("write", &packed, source))?;
    let file = File::open(&packed).map_err(|source| store_error("open", &packed, source))?;
    registry.push_blob(&digest, &Upload::File(&file))?;
    let config = serde_json::to_vec(&record.for_others()).expect("a record is plain data");
    let config_digest = Digest::of(&config);
    registry.push_blob(&config_digest, &Upload::Bytes(&config))?;
    let descriptor = |media_type: &str, digest, size| Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        platform: None,
        annotations: std::collections::BTreeMap::new(),
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST.to_owned(),
        artifact_type: ARTIFACT.to_owned(),
        config: descriptor(RECORD, config_digest, config.len() as u64),
        layers: vec![descriptor(TAR, digest, size)],
        annotations: [
            (ANNOTATION_KEY, record.key.0.to_string()),
            (ANNOTATION_DIFF_ID, record.diff_id.0.to_string()),
            (ANNOTATION_TITLE, format!("consign layer {name}")),
        ]
        .map(|(name, text)| (name.to_owned(), text))
        .into(),
    };
    let bytes = serde_json::to_vec(&manifest).expect("a manifest is plain data");
    registry.push_manifest(&tag(&record.key), MANIFEST, &bytes)?;
    drop(std::fs::remove_file(&packed));
    Ok(())
}

/// Packs `tar` into a new file at `place`; gives its digest and length.
fn compress(mut tar: &File, place: &Path) -> io::Result<(Digest, u64)> {
    struct Counting<W> {
        inner: W,
        hasher: Hasher,
        length: u64,
    }
    impl<W: io::Write> io::Write for Counting<W> {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let count = self.inner.write(buf)?;
            self.hasher.update(buf.get(..count).unwrap_or_default());
            self.length += count as u64;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.inner.flush()
        }
    }
    tar.rewind()?;
    let out = Counting {
        inner: BufWriter::with_capacity(256 << 10, File::create_new(place)?),
        hasher: Hasher::new(),
        length: 0,
    };
    let mut encoder = zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?;
    io::copy(&mut tar, &mut encoder)?;
    let mut out = encoder.finish()?;
    out.flush()?;
    Ok((out.hasher.finish(), out.length))
}

/// Takes the layers of `specs` that the store lacks from `registry`.
///
/// # Errors
///
/// [`LayerError`]; [`LayerError::Poisoned`] when the registry has something
/// else under a layer's key.
pub fn pull(
    specs: &[LayerSpec],
    source_date: Timestamp,
    store: &Store,
    (remote, registry): (&Remote<'_>, &Registry<'_>),
    reporter: &dyn Reporter,
) -> Result<Vec<Shared>, LayerError> {
    let _in_use = store.in_use()?;
    let workplace = tempfile::Builder::new()
        .prefix("pull-")
        .tempdir_in(store.folder().join("work"))
        .map_err(|source| store_error("make a folder in", store.folder(), source))?;
    each(specs, source_date, |spec, key| {
        if let Some((record, _)) = store.find(key, reporter)? {
            return Ok(Some((record.diff_id, record.size, ShareOutcome::There)));
        }
        let (_, bytes) = match registry.manifest(&tag(key)) {
            Ok(found) => found,
            Err(RemoteError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let _lock = store.lock(key, || {})?;
        let record = pull_one(
            spec,
            key,
            &bytes,
            store,
            (remote, registry),
            workplace.path(),
        )?;
        Ok(Some((record.diff_id, record.size, ShareOutcome::Copied)))
    })
}

fn pull_one(
    spec: &LayerSpec,
    key: &LayerKey,
    manifest: &[u8],
    store: &Store,
    (remote, registry): (&Remote<'_>, &Registry<'_>),
    folder: &Path,
) -> Result<Record, LayerError> {
    let poisoned = |reason: String| LayerError::Poisoned {
        place: format!("{}:{}", registry.repository(), tag(key)),
        reason,
    };
    let manifest: Manifest =
        serde_json::from_slice(manifest).map_err(|error| poisoned(error.to_string()))?;
    let [tar] = manifest.layers.as_slice() else {
        return Err(poisoned(format!("it has {} layers", manifest.layers.len())));
    };
    if manifest.config.media_type != RECORD || tar.media_type != TAR {
        return Err(poisoned("it is not a layer of consign".into()));
    }
    if manifest.config.size > MAX_RECORD.min(MAX_DOCUMENT) {
        return Err(poisoned("its record is too long".into()));
    }
    let fetch = |blob: &Descriptor, name: &str| {
        let place = folder.join(name);
        remote.fetch_blob(registry, (blob.digest, blob.size), &place)?;
        Ok::<_, LayerError>(place)
    };
    let place = fetch(&manifest.config, "record")?;
    let mut record = Record::open(&place)
        .ok_or_else(|| poisoned("its record is damaged, or of another consign".into()))?;
    if record.key != *key {
        return Err(poisoned("its record is of another key".into()));
    }
    if record.packages != packages_of(&spec.recipe) {
        return Err(poisoned("its record is of other packages".into()));
    }
    let packed = fetch(tar, "packed")?;
    let unpacked = folder.join("unpacked");
    // What an earlier layer left.
    drop(std::fs::remove_file(&unpacked));
    let mut stream = File::open(&packed).map_err(|e| store_error("open", &packed, e))?;
    let found = unpack_to(&mut stream, tar.size, &unpacked).map_err(|error| match error {
        super::compression::UnpackError::Read(error) => poisoned(error.to_string()),
        super::compression::UnpackError::Write(source) => store_error("write", &unpacked, source),
    })?;
    let blob = Blob::open(&unpacked).map_err(|e| store_error("open", &unpacked, e))?;
    if found.diff_id != record.diff_id || found.size != record.size {
        return Err(poisoned(format!("its tar has digest {}", found.diff_id.0)));
    }
    record.kept = Some(found.kept);
    let delta = read_delta(&blob).map_err(|error| poisoned(error.to_string()))?;
    // Looked for again: the other side's word is not taken for it.
    record.secrets = secrets::find(&delta).map_err(|e| store_error("read", &unpacked, e))?;
    store.admit(&record, &unpacked)?;
    Ok(record)
}

fn store_error(action: &'static str, path: &Path, source: io::Error) -> LayerError {
    LayerError::Store {
        action,
        path: path.to_owned(),
        source,
    }
}
