//! Images that lie: about their layers, their blobs, what is in them. Each is
//! refused with an error that names what is wrong, or comes to what the
//! specification says.

use std::path::{Path, PathBuf};

use consign::digest::Digest;
use consign::layer::source::oci::{Blobs, find_manifest};
use consign::layer::spec::ImageOrigin;
use consign::layer::{Layer, LayerError};
use serde_json::{Value, json};

use super::foreign::{Elsewhere, make, oci};
use super::hostile::{Archive, corpus};
use crate::support::temp_folder;

/// An image layout written by hand.
struct Layout(PathBuf);

impl Layout {
    fn new(folder: &Path) -> Self {
        let place = folder.join("image");
        std::fs::create_dir_all(place.join("blobs/sha256")).expect("folders");
        Self(place)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.0.join("blobs/sha256").join(digest.hex())
    }

    /// Writes a blob; gives its descriptor.
    fn blob(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        std::fs::write(self.path(&digest), bytes).expect("write");
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": digest.to_string(),
            "size": bytes.len(),
        })
    }

    fn json(&self, kind: &str, document: &Value) -> Value {
        self.blob(kind, document.to_string().as_bytes())
    }

    /// Descriptors of the layers, and the configuration that fits them.
    fn parts(&self, layers: &[Vec<u8>]) -> (Vec<Value>, Value) {
        let blobs = layers.iter().map(|tar| self.blob("layer.v1.tar", tar));
        let ids: Vec<String> = layers
            .iter()
            .map(|tar| Digest::of(tar).to_string())
            .collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": ids },
        });
        (blobs.collect(), config)
    }

    /// Ends the image; gives the digest of its manifest.
    fn finish(&self, layers: &[Value], config: &Value) -> Digest {
        let config = self.json("config.v1+json", config);
        self.manifest(&json!({ "schemaVersion": 2, "config": config, "layers": layers }))
    }

    fn manifest(&self, manifest: &Value) -> Digest {
        let descriptor = self.json("manifest.v1+json", manifest);
        let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
        std::fs::write(self.0.join("index.json"), index.to_string()).expect("write");
        std::fs::write(
            self.0.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .expect("write");
        Digest::of(manifest.to_string().as_bytes())
    }

    fn read(&self, manifest: Digest) -> Result<Layer, LayerError> {
        let cache = self.0.with_extension("cache");
        let outcome = make(
            &Elsewhere::new(&cache),
            &oci(ImageOrigin::Folder(self.0.clone()), manifest),
        );
        if outcome.is_err() {
            assert_nothing_is_kept(&cache);
        }
        outcome
    }
}

fn assert_nothing_is_kept(cache: &Path) {
    for name in ["layers", "blobs/sha256", "work"] {
        let left = consign::tree::list_folder(&cache.join(name)).expect("a folder of the cache");
        assert!(left.is_empty(), "{name}: {left:?}");
    }
}

/// An error with all its causes.
fn in_full(error: &LayerError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What comes of an image with these layers.
fn stacked(layers: &[Vec<u8>]) -> Result<Layer, String> {
    let folder = temp_folder();
    let layout = Layout::new(folder.path());
    let (blobs, config) = layout.parts(layers);
    let manifest = layout.finish(&blobs, &config);
    layout.read(manifest).map_err(|error| in_full(&error))
}

/// Members of the corpus that are right in an image: names may begin with a
/// slash there, and the digest says that nothing is cut off at the end.
const RIGHT_IN_AN_IMAGE: [&str; 4] = ["absolute name", "absolute hard link", "no end", "nothing"];

#[test]
fn every_archive_of_the_corpus_is_refused_as_a_layer_of_an_image_too() {
    let mut wrong = Vec::new();
    for (name, bytes, expected) in corpus() {
        let is_right = RIGHT_IN_AN_IMAGE.contains(&name);
        match stacked(&[bytes]) {
            Ok(_) if !is_right => wrong.push(format!("{name}: taken")),
            Err(text) if is_right => wrong.push(format!("{name}: refused: {text}")),
            Err(text) if !text.contains(expected) => wrong.push(format!("{name}: {text}")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn tar() -> Archive {
    Archive::default()
}

#[test]
fn whiteouts_in_odd_places_mean_what_the_specification_says_or_nothing_is_made() {
    let base = || tar().file(b"a/x").file(b"a/y").file(b"b").end();
    let upper = |archive: Archive| stacked(&[base(), archive.end()]);
    let has = |layer: &Layer, path: &str| layer.delta.tree.at(path).is_some();

    // A whiteout is of the layers below, wherever it stands in its own.
    let layer = upper(tar().file(b"a/z").file(b"a/.wh..wh..opq")).expect("opaque behind");
    assert!(has(&layer, "a/z") && !has(&layer, "a/x") && has(&layer, "b"));
    let layer = upper(tar().file(b"b/c").file(b".wh.b")).expect("a folder for a file");
    assert!(has(&layer, "b/c"));
    let layer = upper(tar().file(b".wh.a")).expect("a folder goes with all in it");
    assert!(!has(&layer, "a/x") && !has(&layer, "a") && has(&layer, "b"));
    let layer = upper(tar().file(b".wh.nothing")).expect("hidden from layers below");
    assert!(has(&layer, "a/x"));
    // The link of a lower layer leads nowhere outside of the image.
    let link = tar().entry(b"out", b'2', b"/../../etc").end();
    let layer = stacked(&[link, tar().file(b"out/passwd").end()]);
    if let Ok(layer) = &layer {
        let paths: Vec<String> = layer.delta.tree.iter().map(|it| it.0.to_string()).collect();
        assert!(paths.iter().all(|path| !path.contains("..")), "{paths:?}");
    }

    for (name, archive) in [
        ("of the root", tar().file(b".wh..")),
        ("an opaque root", tar().file(b".wh..wh..opq")),
        ("an opaque root in disguise", tar().file(b"./.wh..wh..opq")),
        ("of what is above", tar().file(b".wh...")),
        ("of nothing", tar().file(b"a/.wh.")),
        ("with a way up", tar().file(b"a/../.wh.b")),
        ("as a folder", tar().entry(b".wh.b/", b'5', b"")),
        (
            "opaque as a link",
            tar().entry(b"a/.wh..wh..opq", b'2', b"x"),
        ),
        (
            "opaque twice",
            tar().file(b"a/.wh..wh..opq").file(b"a/.wh..wh..opq"),
        ),
        (
            "opaque with content",
            tar().body(b"a/.wh..wh..opq", b'0', b"x"),
        ),
        ("below a whiteout", tar().file(b".wh.b/c")),
        ("of a whiteout", tar().file(b".wh..wh.b")),
    ] {
        let text = upper(archive).expect_err(name);
        assert!(
            text.contains("whiteout") || text.contains("twice") || text.contains("..`"),
            "{name}: {text}"
        );
    }
}

/// What is done to the image before it is read.
type Lie = fn(&Layout, Vec<Value>, Value) -> Digest;

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn documents_and_blobs_that_lie_are_refused_with_what_is_wrong() {
    let lies: Vec<(&str, Lie, &str)> = vec![
        (
            "another diff ID",
            |layout, layers, mut config| {
                config["rootfs"]["diff_ids"][0] = json!(Digest::of(b"x").to_string());
                layout.finish(&layers, &config)
            },
            "uncompressed layer",
        ),
        (
            "fewer diff IDs",
            |layout, layers, mut config| {
                config["rootfs"]["diff_ids"] = json!([]);
                layout.finish(&layers, &config)
            },
            "another number of layers",
        ),
        (
            "more layers than the configuration",
            |layout, mut layers, config| {
                layers.push(layers[0].clone());
                layout.finish(&layers, &config)
            },
            "another number of layers",
        ),
        (
            "no layers",
            |layout, _, mut config| {
                config["rootfs"]["diff_ids"] = json!([]);
                layout.finish(&[], &config)
            },
            "0 layers",
        ),
        (
            "layers without end",
            |layout, layers, mut config| {
                let id = config["rootfs"]["diff_ids"][0].clone();
                config["rootfs"]["diff_ids"] = json!(vec![id; 2000]);
                layout.finish(&vec![layers[0].clone(); 2000], &config)
            },
            "2000 layers",
        ),
        (
            "a blob longer than said",
            |layout, mut layers, config| {
                layers[0]["size"] = json!(1);
                layout.finish(&layers, &config)
            },
            "but 1 are named",
        ),
        (
            "a blob shorter than said",
            |layout, mut layers, config| {
                layers[0]["size"] = json!(u64::MAX);
                layout.finish(&layers, &config)
            },
            "but 18446744073709551615 are named",
        ),
        (
            "a negative size",
            |layout, mut layers, config| {
                layers[0]["size"] = json!(-1);
                layout.finish(&layers, &config)
            },
            "malformed",
        ),
        (
            "a size that is text",
            |layout, mut layers, config| {
                layers[0]["size"] = json!("10");
                layout.finish(&layers, &config)
            },
            "malformed",
        ),
        (
            "a blob that is cut off",
            |layout, layers, config| {
                let path = blob_of(layout, &layers[0]);
                let bytes = std::fs::read(&path).expect("read");
                std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("write");
                layout.finish(&layers, &config)
            },
            "are named",
        ),
        (
            "a blob of other bytes",
            |layout, layers, config| {
                let path = blob_of(layout, &layers[0]);
                let mut bytes = std::fs::read(&path).expect("read");
                bytes[0] ^= 1;
                std::fs::write(&path, bytes).expect("write");
                layout.finish(&layers, &config)
            },
            "a blob of the image has digest",
        ),
        (
            "a blob that is missing",
            |layout, layers, config| {
                std::fs::remove_file(blob_of(layout, &layers[0])).expect("remove");
                layout.finish(&layers, &config)
            },
            "the image has no",
        ),
        (
            "a blob that is a folder",
            |layout, layers, config| {
                let path = blob_of(layout, &layers[0]);
                std::fs::remove_file(&path).expect("remove");
                std::fs::create_dir(&path).expect("folder");
                layout.finish(&layers, &config)
            },
            "not a file",
        ),
        (
            "a blob that is a link out",
            |layout, layers, config| {
                let path = blob_of(layout, &layers[0]);
                std::fs::remove_file(&path).expect("remove");
                std::os::unix::fs::symlink("/etc/hostname", &path).expect("link");
                layout.finish(&layers, &config)
            },
            "cannot read",
        ),
        (
            "a digest that is a path",
            |layout, mut layers, config| {
                layers[0]["digest"] = json!("sha256:../../../etc/passwd");
                layout.finish(&layers, &config)
            },
            "malformed",
        ),
        (
            "a digest of another kind",
            |layout, mut layers, config| {
                layers[0]["digest"] = json!("md5:d41d8cd98f00b204e9800998ecf8427e");
                layout.finish(&layers, &config)
            },
            "malformed",
        ),
        (
            "a foreign layer",
            |layout, mut layers, config| {
                layers[0]["mediaType"] =
                    json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
                layout.finish(&layers, &config)
            },
            "not supported",
        ),
        (
            "an encrypted layer",
            |layout, mut layers, config| {
                layers[0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+encrypted");
                layout.finish(&layers, &config)
            },
            "not supported",
        ),
        (
            "a layer that is no archive",
            |layout, _, mut config| {
                config["rootfs"]["diff_ids"] = json!([Digest::of(b"text").to_string()]);
                let layer = layout.blob("layer.v1.tar", b"text");
                layout.finish(&[layer], &config)
            },
            "ends in the middle",
        ),
        (
            "gzip that is cut off",
            |layout, _, config| {
                let bytes = gzip(&tar().file(b"x").end());
                let layer = layout.blob("layer.v1.tar+gzip", &bytes[..bytes.len() - 9]);
                layout.finish(&[layer], &config)
            },
            "cannot be unpacked",
        ),
        (
            "a bomb",
            |layout, _, mut config| {
                let bytes = bomb();
                config["rootfs"]["diff_ids"] = json!([Digest::of(b"x").to_string()]);
                let layer = layout.blob("layer.v1.tar+zstd", &bytes);
                layout.finish(&[layer], &config)
            },
            "cannot be unpacked",
        ),
        (
            "a configuration that is no JSON",
            |layout, layers, _| {
                let config = layout.blob("config.v1+json", b"{");
                layout.manifest(&json!({ "schemaVersion": 2, "config": config, "layers": layers }))
            },
            "malformed",
        ),
        (
            "a configuration of other bytes",
            |layout, layers, config| {
                let digest = layout.finish(&layers, &config);
                let path = layout.path(&Digest::of(config.to_string().as_bytes()));
                std::fs::write(path, "{}").expect("write");
                digest
            },
            "a blob of the image has digest",
        ),
        (
            "a configuration without layers",
            |layout, layers, _| layout.finish(&layers, &json!({ "os": "linux" })),
            "malformed",
        ),
        (
            "a configuration beyond all bounds",
            |layout, layers, mut config| {
                config["padding"] = json!("x".repeat(5 << 20));
                layout.finish(&layers, &config)
            },
            "cannot read",
        ),
        (
            "a manifest of the first schema",
            |layout, layers, config| {
                let config = layout.json("config.v1+json", &config);
                layout.manifest(&json!({ "schemaVersion": 1, "config": config, "layers": layers }))
            },
            "schema version is 1",
        ),
        (
            "a manifest that is an index as well",
            |layout, layers, config| {
                let config = layout.json("config.v1+json", &config);
                layout.manifest(&json!({
                    "schemaVersion": 2, "config": config, "layers": layers, "manifests": [],
                }))
            },
            "malformed",
        ),
        (
            "an index for a manifest",
            |layout, _, _| layout.manifest(&json!({ "schemaVersion": 2, "manifests": [] })),
            "not a manifest",
        ),
        (
            "neither",
            |layout, _, _| layout.manifest(&json!({ "schemaVersion": 2 })),
            "malformed",
        ),
        (
            "an array",
            |layout, _, _| layout.manifest(&json!([])),
            "malformed",
        ),
        (
            "deep nesting",
            |layout, _, _| {
                let text = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
                layout.blob("manifest.v1+json", text.as_bytes());
                Digest::of(text.as_bytes())
            },
            "malformed",
        ),
        (
            "a manifest that is not there",
            |layout, layers, config| {
                layout.finish(&layers, &config);
                Digest::of(b"another")
            },
            "the image has no",
        ),
        (
            "a manifest of other bytes",
            |layout, layers, config| {
                let digest = layout.finish(&layers, &config);
                std::fs::write(layout.path(&digest), r#"{"schemaVersion":2}"#).expect("write");
                digest
            },
            "a blob of the image has digest",
        ),
    ];
    let mut wrong = Vec::new();
    for (name, lie, expected) in &lies {
        let folder = temp_folder();
        let layout = Layout::new(folder.path());
        let (layers, config) = layout.parts(&[tar().file(b"x").end()]);
        let manifest = lie(&layout, layers, config);
        match layout.read(manifest) {
            Ok(_) => wrong.push(format!("{name}: taken")),
            Err(error) => {
                let text = in_full(&error);
                if !text.contains(expected) || !text.starts_with("layer `app`") {
                    wrong.push(format!("{name}: {text}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let images = lies.len() + corpus().len() + 17;
    assert!(images + corpus().len() >= 100, "{images} images");
}

#[test]
fn indexes_that_lead_in_circles_or_nowhere_are_refused() {
    let folder = temp_folder();
    let layout = Layout::new(folder.path());
    let nested = |below: Value| {
        layout.json(
            "index.v1+json",
            &json!({
                "schemaVersion": 2, "manifests": [below],
            }),
        )
    };
    let mut index = layout.blob("index.v1+json", b"{}");
    for _ in 0..8 {
        index = nested(index);
    }
    let write = |index: &Value| {
        let index = json!({ "schemaVersion": 2, "manifests": [index] });
        std::fs::write(layout.0.join("index.json"), index.to_string()).expect("write");
    };
    let found = |image| find_manifest(&Blobs::Folder(layout.0.clone()), image);
    write(&index);
    let error = found(None).expect_err("eight of them");
    assert!(error.to_string().contains("too deep"), "{error}");
    // An index cannot hold its own digest, but it may claim to.
    let mut lying =
        nested(json!({ "mediaType": "", "digest": Digest::of(b"").to_string(), "size": 0 }));
    lying["size"] = json!(7);
    write(&lying);
    let error = found(None).expect_err("another size");
    assert!(error.to_string().contains("but 7 are named"), "{error}");
    std::fs::write(layout.0.join("index.json"), "{}").expect("write");
    assert!(found(None).is_err());
    std::fs::write(layout.0.join("index.json"), vec![b' '; 5 << 20]).expect("write");
    assert!(found(None).is_err());
}

fn blob_of(layout: &Layout, descriptor: &Value) -> PathBuf {
    let digest = descriptor["digest"].as_str().expect("a digest");
    layout.path(&Digest::parse(digest).expect("of ours"))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

/// More than a GiB of zeros in some KiB.
fn bomb() -> Vec<u8> {
    use std::io::Read as _;
    let zeros = std::io::repeat(0).take((1 << 30) + (128 << 20));
    zstd::encode_all(zeros, 1).expect("in memory")
}
