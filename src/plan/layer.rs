//! From a layer as the vendor describes it to one whose every input has a digest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use super::error::PlanError;
use super::files::digest_of_folder;
use super::lock::Lock;
use crate::appliance::{
    Appliance, Entry, EntryKind, FilesLayer, LayerKind, LayerRecipe, OciLayer, OciSource,
    PackagesLayer, PathRule, RunLayer, TarLayer, TarSource,
};
use crate::boot;
use crate::digest::{Digest, Hasher};
use crate::layer::files::check_templates;
use crate::layer::spec::{
    ArchiveOrigin, FileEntry, FileRule, FilesRecipe, ImageOrigin, LayerSpec, MemberKind, OciRecipe,
    PackagePin, PackagesRecipe, Recipe, Reference, RunRecipe, Selection, TarRecipe, TreePath,
};

/// How Debian's packages with kernel and modules begin; only layers with one
/// leave modules out.
const KERNEL_PACKAGES: &str = "linux-image-";
/// Longest script of a `run` layer.
const MAX_SCRIPT: u64 = 1 << 20;

/// Decides everything about `recipe`. Reads what is on the host, to know its digest.
pub(super) fn decide(
    recipe: &LayerRecipe,
    appliance: &Appliance,
    lock: &Lock,
) -> Result<LayerSpec, PlanError> {
    let name = recipe.name.to_string();
    let made = match &recipe.kind {
        LayerKind::Packages(packages) => Recipe::Packages(packages_recipe(packages, &name, lock)),
        LayerKind::Files(files) => Recipe::Files(files_recipe(files, appliance)?),
        LayerKind::Tar(tar) => Recipe::Tar(tar_recipe(tar)?),
        LayerKind::Oci(oci) => Recipe::Oci(oci_recipe(oci, &name, lock)?),
        LayerKind::Run(run) => Recipe::Run(run_recipe(run)?),
    };
    Ok(LayerSpec {
        name,
        recipe: made,
        allow_secrets: recipe.allow_secrets.clone(),
    })
}

/// What is wrong with the files of a layer on this host; reads no network.
///
/// # Errors
///
/// As [`BuildPlan::resolve`](super::BuildPlan::resolve).
pub fn check_local(recipe: &LayerRecipe, appliance: &Appliance) -> Result<(), PlanError> {
    match &recipe.kind {
        LayerKind::Files(files) => {
            let recipe = files_recipe(files, appliance)?;
            check_templates(&recipe).map_err(|source| PlanError::Folder {
                source: Box::new(source),
            })
        }
        LayerKind::Tar(tar) => tar_recipe(tar).map(drop),
        LayerKind::Oci(OciLayer {
            source: OciSource::Path { path, image },
            ..
        }) => local_image(path, image.as_deref()).map(drop),
        LayerKind::Run(run) => run_recipe(run).map(drop),
        LayerKind::Packages(_)
        | LayerKind::Oci(OciLayer {
            source: OciSource::Registry(_),
            ..
        }) => Ok(()),
    }
}

fn packages_recipe(layer: &PackagesLayer, name: &str, lock: &Lock) -> PackagesRecipe {
    let locked = lock
        .layer(name)
        .expect("the lock has every layer: drift was checked");
    let mut recipe = PackagesRecipe {
        pins: locked.packages.clone(),
        exclude_paths: layer.exclude_paths.clone(),
        include_paths: layer.include_paths.clone(),
    };
    let is_kernel = |pin: &PackagePin| pin.name.starts_with(KERNEL_PACKAGES);
    if recipe.pins.iter().any(is_kernel) {
        let lean = boot::lean_kernel();
        recipe.exclude_paths.extend(lean.exclude);
        recipe.include_paths.extend(lean.include);
    }
    recipe
}

fn files_recipe(layer: &FilesLayer, appliance: &Appliance) -> Result<FilesRecipe, PlanError> {
    Ok(FilesRecipe {
        digest: digest_of_folder(&layer.folder)?,
        folder: layer.folder.clone(),
        rules: rules(&layer.rules),
        entries: layer.entries.iter().map(entry).collect(),
        remove: layer.remove.iter().map(|text| path(text)).collect(),
        values: if layer.templates.is_empty() {
            BTreeMap::new()
        } else {
            values(appliance)
        },
        templates: layer.templates.clone(),
    })
}

/// What templates may name.
fn values(appliance: &Appliance) -> BTreeMap<String, String> {
    let fixed = [
        ("appliance.name", appliance.name.to_string()),
        ("appliance.version", appliance.version.to_string()),
        (
            "appliance.label",
            appliance
                .label
                .clone()
                .unwrap_or_else(|| appliance.name.to_string()),
        ),
        ("system.suite", appliance.system.suite.to_string()),
        (
            "system.distribution",
            appliance.system.distribution.to_string(),
        ),
    ];
    let own = appliance.values.iter();
    fixed
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text))
        .chain(own.map(|(name, text)| (format!("values.{name}"), text.clone())))
        .collect()
}

fn entry(entry: &Entry) -> FileEntry {
    FileEntry {
        path: path(&entry.path),
        kind: match &entry.kind {
            EntryKind::Directory => MemberKind::Directory,
            EntryKind::Symlink(target) => MemberKind::Symlink(target.clone().into_bytes()),
            EntryKind::Link(target) => MemberKind::HardLink(path(target).as_bytes().to_vec()),
            EntryKind::Char { major, minor } => MemberKind::CharDevice {
                major: *major,
                minor: *minor,
            },
            EntryKind::Block { major, minor } => MemberKind::BlockDevice {
                major: *major,
                minor: *minor,
            },
            EntryKind::Fifo => MemberKind::Fifo,
        },
        uid: entry.uid,
        gid: entry.gid,
        mode: entry.mode,
    }
}

/// A path that begins with `/`, without `.`, `..` and NUL.
fn path(text: &str) -> TreePath {
    TreePath::parse(text.trim_start_matches('/').as_bytes())
        .expect("judged when `layer.toml` was read")
}

fn rules(rules: &[PathRule]) -> Vec<FileRule> {
    let rule = |rule: &PathRule| FileRule {
        path: rule.path.clone(),
        uid: rule.uid,
        gid: rule.gid,
        mode: rule.mode,
        directory_mode: rule.directory_mode,
        xattrs: rule.xattrs.clone(),
    };
    rules.iter().map(rule).collect()
}

fn tar_recipe(layer: &TarLayer) -> Result<TarRecipe, PlanError> {
    let (origin, sha256) = match &layer.source {
        TarSource::Url { url, sha256 } => (ArchiveOrigin::Url(url.clone()), *sha256),
        TarSource::File { path, sha256 } => {
            let sha256 = match sha256 {
                Some(sha256) => *sha256,
                None => digest_of_file(path)?,
            };
            (ArchiveOrigin::File(path.clone()), sha256)
        }
    };
    Ok(TarRecipe {
        origin,
        sha256,
        selection: Selection {
            strip: usize::try_from(layer.strip).expect("at most 64"),
            into: path(&layer.into),
            exclude: layer.exclude_paths.clone(),
        },
        rules: rules(&layer.rules),
    })
}

fn oci_recipe(layer: &OciLayer, name: &str, lock: &Lock) -> Result<OciRecipe, PlanError> {
    let (origin, digest) = match &layer.source {
        OciSource::Path { path, image } => local_image(path, image.as_deref())?,
        OciSource::Registry(_) => {
            let locked = lock
                .image(name)
                .expect("the lock has every image: drift was checked");
            let reference = Reference::parse(&locked.request.reference)
                .expect("judged when the lock was made or read");
            (ImageOrigin::Registry(reference.repository), locked.manifest)
        }
    };
    Ok(OciRecipe {
        origin,
        digest,
        selection: Selection {
            exclude: layer.exclude_paths.clone(),
            ..Selection::default()
        },
        rules: rules(&layer.rules),
    })
}

fn local_image(path: &Path, image: Option<&str>) -> Result<(ImageOrigin, Digest), PlanError> {
    use crate::layer::source::oci::{Blobs, find_manifest};
    if path.is_dir() {
        let blobs = Blobs::Folder(path.to_owned());
        let digest = find_manifest(&blobs, image).map_err(|source| PlanError::Image {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        return Ok((ImageOrigin::Folder(path.to_owned()), digest));
    }
    let digest = digest_of_file(path)?;
    let image = image.map(str::to_owned);
    Ok((ImageOrigin::Archive(path.to_owned(), image), digest))
}

fn run_recipe(layer: &RunLayer) -> Result<RunRecipe, PlanError> {
    let failed = cannot_read(&layer.script);
    let mut script = Vec::new();
    open(&layer.script)
        .and_then(|file| {
            use io::Read as _;
            file.take(MAX_SCRIPT + 1).read_to_end(&mut script)
        })
        .map_err(failed)?;
    if script.len() as u64 > MAX_SCRIPT {
        return Err(cannot_read(&layer.script)(io::Error::other(
            "a script of more than 1 MiB",
        )));
    }
    let input = match &layer.folder {
        None => None,
        Some(folder) => Some(FilesRecipe {
            digest: digest_of_folder(folder)?,
            folder: folder.clone(),
            rules: Vec::new(),
            entries: Vec::new(),
            remove: Vec::new(),
            templates: Vec::new(),
            values: BTreeMap::new(),
        }),
    };
    Ok(RunRecipe {
        script,
        input,
        environment: layer.environment.clone(),
        network: layer.network,
    })
}

fn digest_of_file(path: &Path) -> Result<Digest, PlanError> {
    let mut hasher = Hasher::new();
    open(path)
        .and_then(|mut file| io::copy(&mut file, &mut hasher))
        .map_err(cannot_read(path))?;
    Ok(hasher.finish())
}

/// A pipe would wait for its other end.
fn open(path: &Path) -> io::Result<File> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    File::open(path)
}

fn cannot_read(path: &Path) -> impl FnOnce(io::Error) -> PlanError + '_ {
    move |source| PlanError::ReadFolder {
        path: path.to_owned(),
        source,
    }
}
