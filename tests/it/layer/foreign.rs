//! Layers of archives and images that other programs made: GNU tar, umoci,
//! skopeo. The same content in another form is the same layer.
#![expect(clippy::disallowed_types, reason = "other programs make what we read")]

use std::path::{Path, PathBuf};
use std::process::Command;

use consign::digest::Digest;
use consign::layer::source::deb::{AptSettings, Client, Network, SourceError};
use consign::layer::source::oci::{Blobs, find_manifest};
use consign::layer::source::remote::{Logins, Remote};
use consign::layer::spec::{
    ArchiveOrigin, FileRule, ImageOrigin, LayerSpec, OciRecipe, PackagePin, Recipe, Selection,
    TarRecipe,
};
use consign::layer::{
    DebSource, Layer, LayerError, LayerShop, Removals, SandboxSettings, Store, build_all,
};
use consign::report::Silent;
use consign::tree::{FileTree, Node, NodeKind, TreePath};
use consign::units::Timestamp;

use crate::support::{must_run, program, temp_folder};

/// No packages; archives and images by way of the network.
#[derive(Debug)]
pub(super) struct Elsewhere {
    pub(super) cache: PathBuf,
    pub(super) network: Network,
    pub(super) logins: Logins,
}

impl Elsewhere {
    pub(super) fn new(cache: &Path) -> Self {
        Self {
            cache: cache.to_owned(),
            network: Network::Online,
            logins: Logins::default(),
        }
    }
}

impl DebSource for Elsewhere {
    fn fetch(&self, _: &[PackagePin]) -> Result<Vec<PathBuf>, SourceError> {
        panic!("no layer here has packages")
    }

    fn remote(&self) -> Result<Remote<'_>, LayerError> {
        let client = Client::new(AptSettings::default(), self.network);
        Ok(Remote::new(
            client,
            self.logins.clone(),
            &self.cache,
            &Silent,
        ))
    }
}

pub(super) fn spec(recipe: Recipe) -> LayerSpec {
    LayerSpec {
        name: "app".into(),
        recipe,
        allow_secrets: vec![],
    }
}

/// Makes one layer with a sandbox that cannot be entered: none is needed.
pub(super) fn make(source: &Elsewhere, spec: &LayerSpec) -> Result<Layer, LayerError> {
    let shop = LayerShop {
        store: Store::open(&source.cache).expect("a store"),
        debs: source,
        sandbox: SandboxSettings {
            program: "/nonexistent".into(),
            search_path: "".into(),
            choice: consign::layer::SandboxChoice::default(),
            kernel: None,
        },
        source_date: Timestamp::from_seconds(1_700_000_000),
        removals: Removals::default(),
    };
    let mut layers = build_all(std::slice::from_ref(spec), &shop, &Silent)?;
    Ok(layers.remove(0))
}

pub(super) fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).expect("a path")
}

/// `app-1.0/bin/tool` and friends, in `folder`.
fn product(folder: &Path) {
    let at = |name: &str| folder.join(name);
    std::fs::create_dir_all(at("app-1.0/bin")).expect("folders");
    std::fs::create_dir_all(at("app-1.0/doc")).expect("folders");
    std::fs::write(at("app-1.0/bin/tool"), "#!/bin/sh\n").expect("file");
    std::fs::write(at("app-1.0/doc/README"), "read me\n").expect("file");
    std::fs::hard_link(at("app-1.0/bin/tool"), at("app-1.0/bin/other")).expect("link");
    std::os::unix::fs::symlink("tool", at("app-1.0/bin/link")).expect("link");
}

fn tar_recipe(file: &Path) -> TarRecipe {
    TarRecipe {
        origin: ArchiveOrigin::File(file.to_owned()),
        sha256: Digest::of(&std::fs::read(file).expect("the archive")),
        selection: Selection {
            strip: 1,
            into: path("opt/app"),
            exclude: vec!["/opt/app/doc*".into()],
        },
        rules: vec![FileRule {
            path: "/**".into(),
            uid: Some(0),
            gid: Some(0),
            ..FileRule::default()
        }],
    }
}

#[test]
fn an_archive_of_gnu_tar_is_the_same_layer_however_it_is_packed() {
    let folder = temp_folder();
    product(folder.path());
    let mut digests = Vec::new();
    for (name, flag) in [
        ("app.tar", "--posix"),
        ("app.tar.gz", "--gzip"),
        ("app.tar.xz", "--xz"),
        ("app.tar.zst", "--zstd"),
    ] {
        let Some(mut tar) = program("tar", "tar") else {
            return;
        };
        let file = folder.path().join(name);
        must_run(
            tar.args(["--sort=name", "--mtime=@1600000000", "-c", flag, "-f"])
                .arg(&file)
                .args(["--owner=1234", "--group=1234", "-C"])
                .arg(folder.path())
                .arg("app-1.0"),
        );
        let source = Elsewhere::new(&folder.path().join(format!("cache-{name}")));
        let layer = make(&source, &spec(Recipe::Tar(tar_recipe(&file))))
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let tree = &layer.delta.tree;
        let node = |at: &str| tree.at(at).unwrap_or_else(|| panic!("{name}: no {at}"));
        assert_eq!(node("opt/app/bin/tool").meta.uid, 0, "{name}");
        assert_eq!(
            node("opt/app/bin/link").kind,
            NodeKind::Symlink(b"tool".to_vec())
        );
        let id = |at: &str| tree.id(&path(at));
        assert_eq!(id("opt/app/bin/tool"), id("opt/app/bin/other"), "{name}");
        assert!(tree.at("opt/app/doc").is_none(), "{name}: left out");
        digests.push(layer.diff_id);
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "one layer, whatever packed it");
}

#[test]
fn an_archive_that_is_not_the_pinned_one_is_refused_by_name() {
    let folder = temp_folder();
    let file = folder.path().join("app.tar");
    std::fs::write(&file, [0; 1024]).expect("file");
    let mut recipe = tar_recipe(&file);
    recipe.sha256 = Digest::of(b"something else");
    let source = Elsewhere::new(&folder.path().join("cache"));
    let error = make(&source, &spec(Recipe::Tar(recipe))).expect_err("another digest");
    assert_eq!(error.slug(), "layer-archive-digest");
    assert_eq!(error.class().code(), 3);
    let cause = std::error::Error::source(&error)
        .expect("a cause")
        .to_string();
    assert!(
        cause.contains("app.tar` has digest `sha256:5f70bf"),
        "{cause}"
    );
}

#[test]
fn an_archive_lands_where_the_links_of_the_base_lead() {
    let folder = temp_folder();
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("bin")).expect("folder");
    std::fs::write(root.join("bin/tool"), "x").expect("file");
    let file = folder.path().join("app.tar");
    let Some(mut tar) = program("tar", "tar") else {
        return;
    };
    must_run(tar.arg("-cf").arg(&file).arg("-C").arg(&root).arg("."));
    let mut recipe = tar_recipe(&file);
    recipe.selection = Selection::default();
    let source = Elsewhere::new(&folder.path().join("cache"));
    let layer = make(&source, &spec(Recipe::Tar(recipe))).expect("a layer");
    let mut base = FileTree::new();
    base.insert(path("usr/bin"), Node::directory(0o755))
        .expect("insert");
    base.insert(path("bin"), Node::symlink("usr/bin"))
        .expect("insert");
    base.apply(&layer.delta).expect("apply");
    assert!(base.at("usr/bin/tool").is_some());
}

#[test]
fn a_huge_sparse_file_costs_neither_the_cache_nor_the_image() {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    const SIZE: u64 = 1 << 30;
    let folder = temp_folder();
    let place = folder.path().join("disk");
    let disk = std::fs::File::create(&place).expect("file");
    disk.set_len(SIZE).expect("length");
    disk.write_all_at(b"middle", 700 << 20).expect("write");
    let file = folder.path().join("app.tar.zst");
    let Some(mut tar) = program("tar", "tar") else {
        return;
    };
    must_run(
        tar.args(["-c", "--zstd", "-f"])
            .arg(&file)
            .arg("-C")
            .arg(folder.path())
            .arg("disk"),
    );
    let mut recipe = tar_recipe(&file);
    recipe.selection = Selection::default();
    let cache = folder.path().join("cache");
    let layer = make(&Elsewhere::new(&cache), &spec(Recipe::Tar(recipe))).expect("a layer");
    assert!(layer.size.bytes() > SIZE, "its tar has all the zeros");
    let blob = cache.join("blobs/sha256").join(layer.diff_id.0.hex());
    let status = std::fs::metadata(blob).expect("the tar");
    assert!(status.blocks() * 512 < 1 << 20, "{}", status.blocks());
    let content = layer.delta.tree.at("disk").and_then(Node::content);
    let content = content.expect("a file");
    let ranges = content.data_ranges();
    let [only] = ranges.as_slice() else {
        panic!("{ranges:?}");
    };
    assert_eq!(*only, (700 << 20)..(700 << 20) + (64 << 10));
    let mut middle = [0; 6];
    content
        .read_exact_at(&mut middle, 700 << 20)
        .expect("readable");
    assert_eq!(&middle, b"middle");
}

/// `umoci` with the image `img:app` in `folder`: files, one of which a
/// whiteout hides, and a folder that is opaque.
pub(super) fn image(folder: &Path) -> Option<PathBuf> {
    let layout = folder.join("img");
    let at = |name: &str| folder.join(name);
    let write = |name: &str, text: &str| {
        let path = at(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(path, text).expect("file");
    };
    write("one/etc/one", "one\n");
    write("one/etc/two", "two\n");
    write("one/opt/old/x", "x\n");
    write("one/usr/bin/tool", "tool\n");
    std::os::unix::fs::symlink("usr/bin", at("one/bin")).expect("link");
    write("two/y", "y\n");
    let umoci = |arguments: &[&str]| -> Option<()> {
        let mut command = program("umoci", "umoci")?;
        must_run(command.args(arguments).current_dir(folder));
        Some(())
    };
    let insert =
        |rest: &[&str]| umoci(&[&["insert", "--rootless", "--image", "img:app"], rest].concat());
    umoci(&["init", "--layout", "img"])?;
    umoci(&["new", "--image", "img:app"])?;
    insert(&["one", "/"])?;
    insert(&["--whiteout", "/etc/one"])?;
    insert(&["--opaque", "two", "/opt/old"])?;
    Some(layout)
}

pub(super) fn oci(origin: ImageOrigin, digest: Digest) -> LayerSpec {
    spec(Recipe::Oci(OciRecipe {
        origin,
        digest,
        selection: Selection::default(),
        rules: vec![],
    }))
}

pub(super) fn skopeo(folder: &Path, from: &str, to: &str, more: &[&str]) -> Option<()> {
    let mut command: Command = program("skopeo", "skopeo")?;
    must_run(
        command
            .args(["copy", "-q"])
            .args(more)
            .args([from, to])
            .current_dir(folder),
    );
    Some(())
}

#[test]
fn an_image_is_the_same_layer_as_a_folder_an_archive_and_dockers_archive() {
    let folder = temp_folder();
    let Some(layout) = image(folder.path()) else {
        return;
    };
    let manifest = find_manifest(&Blobs::Folder(layout.clone()), Some("app")).expect("an image");
    let source = Elsewhere::new(&folder.path().join("cache"));
    let from_folder = make(&source, &oci(ImageOrigin::Folder(layout), manifest))
        .unwrap_or_else(|error| panic!("{error:?}"));
    let tree = &from_folder.delta.tree;
    assert!(tree.at("etc/one").is_none(), "hidden by a whiteout");
    assert!(tree.at("opt/old/x").is_none(), "hidden by an opaque folder");
    assert!(tree.at("opt/old/y").is_some() && tree.at("usr/bin/tool").is_some());
    // What the image hides, it hides from layers below too.
    assert!(from_folder.delta.removed.contains(&path("etc/one")));
    assert!(from_folder.delta.opaque.contains(&path("opt/old")));

    for (number, (to, image)) in [
        ("oci-archive:oci.tar:app", Some("app")),
        ("docker-archive:docker.tar:registry.example.com/app:1", None),
        (
            "docker-archive:named.tar:registry.example.com/app:2",
            Some("registry.example.com/app:2"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        if skopeo(folder.path(), "oci:img:app", to, &[]).is_none() {
            return;
        }
        let name = to.split(':').nth(1).expect("a file");
        let file = folder.path().join(name);
        let digest = Digest::of(&std::fs::read(&file).expect("the archive"));
        let source = Elsewhere::new(&folder.path().join(format!("cache-{number}")));
        let origin = ImageOrigin::Archive(file, image.map(str::to_owned));
        let layer = make(&source, &oci(origin, digest)).unwrap_or_else(|e| panic!("{to}: {e:?}"));
        assert_eq!(layer.diff_id, from_folder.diff_id, "{to}");
    }
}

#[test]
fn a_damaged_image_is_refused_with_the_blob_named() {
    let folder = temp_folder();
    let Some(layout) = image(folder.path()) else {
        return;
    };
    let manifest = find_manifest(&Blobs::Folder(layout.clone()), None).expect("an image");
    for (number, entry) in consign::tree::list_folder(&layout.join("blobs/sha256"))
        .expect("blobs")
        .into_iter()
        .enumerate()
    {
        let sound = std::fs::read(&entry.path).expect("a blob");
        let mut bytes = sound.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&entry.path, &bytes).expect("write");
        let source = Elsewhere::new(&folder.path().join(format!("cache-{number}")));
        let outcome = make(&source, &oci(ImageOrigin::Folder(layout.clone()), manifest));
        std::fs::write(&entry.path, &sound).expect("write");
        // Blobs of earlier versions of the image are not part of it.
        let is_used = |error: &LayerError| {
            assert_eq!(error.slug(), "image-digest", "{error:?}");
            assert_eq!(error.class().code(), 3);
        };
        if let Err(error) = outcome {
            is_used(&error);
        } else {
            let name = entry.name.to_string_lossy().into_owned();
            let text = std::fs::read_to_string(layout.join("index.json")).expect("index");
            assert!(!text.contains(&name), "{name} is the manifest");
        }
    }
}

#[test]
fn an_image_that_is_not_there_names_those_that_are() {
    let folder = temp_folder();
    let Some(layout) = image(folder.path()) else {
        return;
    };
    let error = find_manifest(&Blobs::Folder(layout), Some("ap")).expect_err("no such image");
    assert_eq!(error.to_string(), "there is no image `ap`, only app");
    assert_eq!(error.class().code(), 2);
}
