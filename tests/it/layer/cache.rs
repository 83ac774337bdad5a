//! The cache: shared by way of a registry, verified, trimmed; and what no
//! layer may bring.

use std::path::{Path, PathBuf};

use consign::layer::files::digest_folder;
use consign::layer::share::{self, ShareOutcome};
use consign::layer::source::oci::reference::Repository;
use consign::layer::spec::{FilesRecipe, LayerSpec, Recipe};
use consign::layer::upkeep::{self, Kind, Limits};
use consign::layer::{DebSource as _, Layer, LayerError, Store};
use consign::report::Silent;
use consign::units::{ByteSize, Timestamp};

use super::foreign::{Elsewhere, make, spec};
use super::registry::Registry;
use crate::support::temp_folder;

const DATE: Timestamp = Timestamp::from_seconds(1_700_000_000);

/// A files layer with one file.
fn files(folder: &Path, name: &str, bytes: &[u8]) -> LayerSpec {
    let folder = folder.join(format!("files-{}", name.replace('/', "-")));
    let file = folder.join(name);
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("folders");
    std::fs::write(&file, bytes).expect("file");
    spec(Recipe::Files(FilesRecipe {
        digest: digest_folder(&folder).expect("digest"),
        folder,
        rules: vec![],
        entries: vec![],
        remove: vec![],
        templates: vec![],
        values: [].into(),
    }))
}

fn made(cache: &Path, specs: &[LayerSpec]) -> Vec<Layer> {
    let source = Elsewhere::new(cache);
    let make = |spec| make(&source, spec).unwrap_or_else(|error| panic!("{error:?}"));
    specs.iter().map(make).collect()
}

struct Sharing {
    registry: Registry,
    folder: crate::support::TestFolder,
    specs: Vec<LayerSpec>,
}

impl Sharing {
    fn start() -> Option<Self> {
        let folder = temp_folder();
        let registry = Registry::start(folder.path(), "")?;
        let specs = vec![
            files(folder.path(), "etc/one", b"one\n"),
            files(folder.path(), "etc/two", &vec![7; 300_000]),
        ];
        Some(Self {
            registry,
            folder,
            specs,
        })
    }

    fn cache(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn share(&self, name: &str, is_push: bool) -> Result<Vec<ShareOutcome>, LayerError> {
        let source = Elsewhere::new(&self.cache(name));
        let store = Store::open(&source.cache).expect("a store");
        let remote = source.remote().expect("a way there");
        let repository = format!("{}/team/layers", self.registry.host);
        let registry = remote.registry(&Repository::parse(&repository).expect("a name"));
        let shared = if is_push {
            share::push(&self.specs, DATE, &store, &registry, &Silent)?
        } else {
            share::pull(&self.specs, DATE, &store, (&remote, &registry), &Silent)?
        };
        Ok(shared.into_iter().map(|one| one.outcome).collect())
    }

    /// Files of the registry's own store that hold blobs.
    fn blobs(&self) -> Vec<PathBuf> {
        let top = self
            .folder
            .path()
            .join("data/docker/registry/v2/blobs/sha256");
        let list = |folder: &Path| consign::tree::list_folder(folder).expect("a folder");
        list(&top)
            .iter()
            .flat_map(|group| list(&group.path))
            .map(|blob| blob.path.join("data"))
            .collect()
    }
}

#[test]
fn what_one_machine_pushes_another_pulls() {
    let Some(sharing) = Sharing::start() else {
        return;
    };
    let layers = made(&sharing.cache("a"), &sharing.specs);
    let outcomes = |outcome| vec![outcome; 2];
    let push = || sharing.share("a", true).expect("a push");
    assert_eq!(push(), outcomes(ShareOutcome::Copied));
    assert_eq!(push(), outcomes(ShareOutcome::There));
    let pull = || sharing.share("b", false).expect("a pull");
    assert_eq!(pull(), outcomes(ShareOutcome::Copied));
    assert_eq!(pull(), outcomes(ShareOutcome::There));
    // Made of nothing but what was pulled: their folders are gone.
    for spec in &sharing.specs {
        let Recipe::Files(recipe) = &spec.recipe else {
            panic!("files only");
        };
        std::fs::remove_dir_all(&recipe.folder).expect("the folder");
    }
    let pulled = made(&sharing.cache("b"), &sharing.specs);
    let ids = |layers: &[Layer]| layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>();
    assert_eq!(ids(&pulled), ids(&layers));
    assert_eq!(
        sharing.share("empty", true).expect("nothing"),
        outcomes(ShareOutcome::Missing)
    );
}

#[test]
fn a_poisoned_registry_is_refused_and_leaves_the_cache_as_it_was() {
    let Some(sharing) = Sharing::start() else {
        return;
    };
    made(&sharing.cache("a"), &sharing.specs);
    sharing.share("a", true).expect("a push");
    for (number, blob) in sharing.blobs().into_iter().enumerate() {
        let cache = format!("b-{number}");
        let sound = std::fs::read(&blob).expect("a blob");
        let mut bytes = sound.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&blob, &bytes).expect("write");
        let error = sharing
            .share(&cache, false)
            .expect_err("one bit is another");
        assert_eq!(error.class().code(), 3, "{error:?}");
        std::fs::write(&blob, &sound).expect("write");
        let verified = upkeep::verify(
            &Store::open(&sharing.cache(&cache)).expect("a store"),
            &Silent,
        );
        assert_eq!(verified.expect("verified").dropped, []);
    }
    assert!(sharing.share("b", false).is_ok(), "sound again");
}

#[test]
fn a_layer_under_another_layers_key_is_refused() {
    let Some(sharing) = Sharing::start() else {
        return;
    };
    made(&sharing.cache("a"), &sharing.specs);
    sharing.share("a", true).expect("a push");
    // Whoever may write to the registry moves one tag to the other's manifest.
    let tags = sharing
        .folder
        .path()
        .join("data/docker/registry/v2/repositories/team/layers/_manifests/tags");
    let link = |entry: &consign::tree::HostEntry| entry.path.join("current/link");
    let entries = consign::tree::list_folder(&tags).expect("tags");
    assert_eq!(entries.len(), 2);
    std::fs::copy(link(&entries[0]), link(&entries[1])).expect("copy");
    let error = sharing.share("b", false).expect_err("another layer");
    assert_eq!(error.slug(), "layer-poisoned", "{error:?}");
    let cause = std::error::Error::source(&error).expect("a cause");
    assert!(
        cause.to_string().contains("its record is of another key"),
        "{cause}"
    );
}

#[test]
fn verify_drops_what_is_damaged_and_nothing_else() {
    let folder = temp_folder();
    let cache = folder.path().join("cache");
    let specs = [
        files(folder.path(), "etc/one", b"one\n"),
        files(folder.path(), "etc/two", b"two\n"),
    ];
    let layers = made(&cache, &specs);
    let store = Store::open(&cache).expect("a store");
    let debs = cache.join("debs");
    std::fs::create_dir_all(&debs).expect("folder");
    let sound = consign::digest::Digest::of(b"sound").hex();
    std::fs::write(debs.join(format!("{sound}.deb")), b"sound").expect("file");
    std::fs::write(debs.join(format!("{}.deb", "0".repeat(64))), b"not").expect("file");
    let tar = store.blob_path(&layers[0].diff_id);
    let mut bytes = std::fs::read(&tar).expect("a tar");
    bytes[600] ^= 1;
    std::fs::write(&tar, bytes).expect("write");

    let verified = upkeep::verify(&store, &Silent).expect("verified");
    let dropped: Vec<_> = verified.dropped.iter().map(|damage| damage.kind).collect();
    assert_eq!(dropped, [Kind::Layer, Kind::Package]);
    assert_eq!(verified.sound, 2);
    assert!(!tar.exists());
    assert_eq!(
        upkeep::verify(&store, &Silent).expect("verified").dropped,
        []
    );
    let again = made(&cache, &specs);
    assert_eq!(again[0].diff_id, layers[0].diff_id, "made again");
}

#[test]
fn trim_takes_the_least_used_first_and_spares_what_a_build_uses() {
    let folder = temp_folder();
    let cache = folder.path().join("cache");
    let specs = [
        files(folder.path(), "etc/one", &vec![1; 100_000]),
        files(folder.path(), "etc/two", &vec![2; 100_000]),
    ];
    made(&cache, &specs);
    let store = Store::open(&cache).expect("a store");
    let held = upkeep::list(&store).expect("a list");
    assert_eq!(held.len(), 2);
    // The second layer was used a day and more before the first.
    let layers = made(&cache, &specs);
    let record = |layer: &Layer| cache.join(format!("layers/{}.json", layer.key.0.hex()));
    let now = held[0].used;
    let old = std::time::UNIX_EPOCH
        + std::time::Duration::from_secs(u64::try_from(now.seconds - 200_000).expect("a date"));
    let age = |layer: &Layer| {
        let file = std::fs::File::options()
            .write(true)
            .open(record(layer))
            .expect("a record");
        file.set_modified(old).expect("a time");
    };
    age(&layers[1]);
    let limits = Limits {
        size: Some(ByteSize::from_bytes(150_000)),
        is_rehearsal: true,
        ..Limits::default()
    };
    let rehearsed = upkeep::trim(&store, &limits, now).expect("a rehearsal");
    assert_eq!(rehearsed.removed.len(), 1);
    assert!(record(&layers[1]).exists(), "only said");
    let limits = Limits {
        is_rehearsal: false,
        ..limits
    };
    let trimmed = upkeep::trim(&store, &limits, now).expect("trimmed");
    assert_eq!(trimmed.freed, rehearsed.freed);
    assert!(record(&layers[0]).exists() && !record(&layers[1]).exists());
    assert!(!store.blob_path(&layers[1].diff_id).exists());

    // While a build works, only what was not used for a day goes.
    let everything = Limits {
        size: Some(ByteSize::ZERO),
        ..Limits::default()
    };
    let in_use = store.in_use().expect("a build");
    let trimmed = upkeep::trim(&store, &everything, now).expect("trimmed");
    assert!(trimmed.is_in_use && trimmed.removed.is_empty());
    age(&layers[0]);
    assert_eq!(
        upkeep::trim(&store, &everything, now)
            .expect("trimmed")
            .removed
            .len(),
        1
    );
    drop(in_use);
    assert!(
        !upkeep::trim(&store, &everything, now)
            .expect("trimmed")
            .is_in_use
    );
}

const KEY: &[u8] = b"-----BEGIN OPENSSH PRIVATE KEY-----\n\
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n\
-----END OPENSSH PRIVATE KEY-----\n";

#[test]
fn a_private_key_in_a_layer_is_refused_by_file_and_layer_cached_or_not() {
    let folder = temp_folder();
    let source = Elsewhere::new(&folder.path().join("cache"));
    let mut spec = files(folder.path(), "opt/app/id_ed25519", KEY);
    for round in ["made", "cached"] {
        let error = make(&source, &spec).expect_err("a private key");
        assert_eq!(error.slug(), "layer-secrets", "{round}");
        assert_eq!(error.class().code(), 1);
        assert_eq!(
            error.to_string(),
            "layer `app`: it brings a private key in `/opt/app/id_ed25519`",
            "{round}"
        );
        assert!(error.hint().expect("a hint").contains("allow_secrets"));
    }
    spec.allow_secrets = vec!["/opt/app/*".into()];
    assert!(make(&source, &spec).is_ok(), "allowed by name");
}

#[test]
fn an_identity_in_a_layer_is_refused() {
    let folder = temp_folder();
    let source = Elsewhere::new(&folder.path().join("cache"));
    let id = b"0123456789abcdef0123456789abcdef\n";
    for (name, bytes, what) in [
        ("etc/machine-id", &id[..], "a machine id"),
        ("etc/ssh/ssh_host_rsa_key", b"x", "an SSH host key"),
        ("var/lib/systemd/random-seed", b"x", "a random seed"),
    ] {
        let error = make(&source, &files(folder.path(), name, bytes)).expect_err(name);
        assert_eq!(
            error.to_string(),
            format!("layer `app`: it brings {what} in `/{name}`")
        );
    }
}
