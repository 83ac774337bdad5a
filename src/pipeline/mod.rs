//! The spine: one function, one line for each step of a build.
//!
//! In: a [`BuildPlan`], the agent, a [`Workshop`]. Out: the [`Artifact`]s in
//! the output folder. No step looks back, none edits its input, none reads
//! configuration. Never here: work of its own. Checked by: every boot test,
//! and two builds in different surroundings that give the same bytes.

pub mod agent;
mod kept;
mod package;
pub mod packages;

use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crate::artifact::{Artifact, ArtifactKind, Draft, PendingFile, write_drafts};
use crate::boot::{self, Bootable, DirectBoot};
use crate::descriptor::ovf::{Package, Seal};
use crate::descriptor::{self, Direct, DiskFacts};
use crate::disk::{Disk, DiskSpec};
use crate::error::Error;
use crate::fs::ext4::{Ext4Error, Ext4Volume, OWN_STRETCH_BYTES};
use crate::fs::fat::FatVolume;
use crate::image::{self, Ahead, Envelope, ImageFormat, ImageSpec, Voucher, WriteOptions};
use crate::layer::spec::LayerSpec;
use crate::layer::{self, Layer, LayerShop, Proofs};
use crate::plan::{BuildPlan, Contents, STAMP_FILE_NAME, Stamp};
use crate::release;
use crate::release::certificate::PackageSigner;
use crate::report::Reporter;
use crate::sparse::{Bytes, SparseSource, Zeros};
use crate::tree::{Content, FileTree, TreeError};
use crate::units::{ByteSize, ExitClass};
use kept::KeptPacks;

/// Names of the files for loaders on the host.
const DIRECT: [&str; 3] = ["vmlinuz", "initrd", "cmdline"];
/// One line for each disk: its content root, and its name.
const ROOTS_FILE: &str = "CONTENT-ROOTS";

/// Where a build works.
#[derive(Debug)]
pub struct Workshop<'a> {
    /// Makes layers and keeps them.
    pub layers: LayerShop<'a>,
    /// Folder for packed clusters of earlier builds.
    pub cluster_cache: PathBuf,
    /// Where the outputs go; it is there.
    pub out: &'a Path,
    /// Worker threads; `None`: as many as there are cores.
    pub threads: Option<NonZeroUsize>,
    /// The file of consign itself, for the stamp.
    pub executable: &'a Path,
    /// Who signs packages of machine and disk.
    pub package_signer: Option<&'a PackageSigner>,
    /// Who is told.
    pub reporter: &'a dyn Reporter,
}

/// Builds what `plan` describes, and leaves it in the workshop's output folder.
///
/// # Errors
///
/// The first room's error that stops it; nothing half-made is left under a
/// final name.
pub fn build(
    plan: &BuildPlan,
    agent: &Content,
    shop: &Workshop<'_>,
) -> Result<Vec<Artifact>, Error> {
    let proofs = Proofs::new(&shop.layers.store, shop.reporter);
    match build_once(plan, agent, shop, Some(&proofs)) {
        // Made of what was damaged in the cache, and is there no longer.
        Err(_) if !proofs.hold() => build_once(plan, agent, shop, None),
        result => result,
    }
}

/// One go at it. With `proofs`, cached layers are digested beside the work.
fn build_once(
    plan: &BuildPlan,
    agent: &Content,
    shop: &Workshop<'_>,
    proofs: Option<&Proofs<'_>>,
) -> Result<Vec<Artifact>, Error> {
    let ahead = Ahead::new(&plan.images, &cluster_options(shop));
    let (layers, tools) = make_layers((plan, agent), shop, proofs, &ahead)?;
    let tree = merge(&layers)?;
    let kept = KeptPacks {
        folder: &shop.cluster_cache,
        reporter: shop.reporter,
    };
    let packer = |archive: &[u8]| kept.pack(archive);
    let bootable = boot::install(tree, &merge(&tools)?, agent, &plan.boot, &packer)?;
    let direct = bootable.direct.clone();
    let spec = DiskSpec {
        boot_mbr: Some(bootable.boot_code.mbr),
        ..plan.disk.clone()
    };
    let disk = Disk::assemble(&spec, volumes(plan, bootable)?)?;
    let mut artifacts = write_images(plan, &disk, shop, (proofs, &ahead))?;
    let facts = disk_facts(plan, &disk, &artifacts);
    let files = direct_files(&direct);
    let mut drafts = descriptor::drafts(&plan.machine, &facts, Some(&files), shop.out)?;
    drafts.extend(direct_drafts(&direct, shop.out)?);
    drafts.push(roots_draft(&artifacts, shop.out));
    artifacts.extend(drafts.iter().map(Draft::artifact));
    let sums = release::sums::draft(&artifacts, shop.out)?;
    artifacts.push(sums.artifact());
    drafts.push(sums);
    write_drafts(&drafts).map_err(|(path, source)| PipelineError::Write { path, source })?;
    write_stamp(plan, shop)?;
    Ok(artifacts)
}

/// The appliance's layers, and meanwhile the one with the loaders: it needs
/// nothing of theirs, and much of installing packages is one process at a time.
fn make_layers(
    (plan, agent): (&BuildPlan, &Content),
    shop: &Workshop<'_>,
    proofs: Option<&Proofs<'_>>,
    ahead: &Ahead,
) -> Result<(Vec<Layer>, Vec<Layer>), Error> {
    let make = |specs: &[LayerSpec], watch: &dyn Fn(&[Layer])| match proofs {
        Some(proofs) => layer::build_ahead(specs, &shop.layers, proofs, watch, shop.reporter),
        None => layer::build_all(specs, &shop.layers, shop.reporter),
    };
    // Tidies up after builds that were killed, which only one may do.
    make(&[], &|_| {})?;
    let (layers, tools) = std::thread::scope(|scope| {
        let tools = scope.spawn(|| make(std::slice::from_ref(&plan.tools), &|_| {}));
        scope.spawn(|| pack_ahead(plan, shop, ahead));
        let watch = |layers: &[Layer]| {
            let layers = layers.to_vec();
            scope.spawn(move || rehearse(plan, agent, shop, &layers));
        };
        // Also when making them panics.
        let ending = EndAhead(ahead);
        let layers = make(&plan.layers, &watch);
        drop(ending);
        (layers, tools.join())
    });
    let tools = tools.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    Ok((layers?, tools?))
}

/// Dropped, it ends the packing ahead.
struct EndAhead<'a>(&'a Ahead);

impl Drop for EndAhead<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Packs what will be on the disk in any case, as long as cores are idle.
fn pack_ahead(plan: &BuildPlan, shop: &Workshop<'_>, ahead: &Ahead) {
    // Of this thread alone; where it is refused, the others wait a little.
    let _lower = rustix::process::nice(10);
    let mut take = |content: &mut dyn Read, size: u64| ahead.offer(content, size).is_ok();
    let is_over = || ahead.is_over();
    let at_least = OWN_STRETCH_BYTES;
    layer::large_files_ahead(&plan.layers, &shop.layers, at_least, &mut take, &is_over);
}

/// Packs the initramfs while further layers are being made, of which most
/// change nothing in it. It is found again by what it was packed of.
fn rehearse(plan: &BuildPlan, agent: &Content, shop: &Workshop<'_>, layers: &[Layer]) {
    let _lower = rustix::process::nice(10);
    let kept = KeptPacks {
        folder: &shop.cluster_cache,
        reporter: shop.reporter,
    };
    if let Ok(tree) = merge(layers) {
        // What is wrong is said when it counts.
        drop(boot::rehearse(&tree, agent, &plan.boot, &|archive| {
            kept.pack(archive)
        }));
    }
}

/// Which layer brought a path of the image last, of all that layers name.
///
/// # Errors
///
/// Those of the layers; all of them are in the store after a build.
pub fn layer_owners(
    plan: &BuildPlan,
    shop: &LayerShop<'_>,
    reporter: &dyn Reporter,
) -> Result<(Vec<Layer>, BTreeMap<String, String>), Error> {
    let layers = layer::build_all(&plan.layers, shop, reporter)?;
    let mut tree = FileTree::new();
    let mut owners = BTreeMap::new();
    for layer in &layers {
        let misfit = |source| PipelineError::Merge {
            layer: layer.name.clone(),
            source,
        };
        tree.apply(&layer.delta).map_err(misfit)?;
        let entries = layer.delta.tree.iter().map(|(path, _, _)| path);
        for path in entries.chain(layer.delta.links.keys()) {
            if !layer.delta.implied.contains(path) {
                let path = tree.resolve(path).map_err(misfit)?;
                owners.insert(format!("/{path}"), layer.name.clone());
            }
        }
    }
    Ok((layers, owners))
}

/// Names of all files that a build of `plan` leaves, without the stamp.
#[must_use]
pub fn output_names(plan: &BuildPlan) -> Vec<String> {
    let images = plan.images.iter().map(|image| image.file_name.clone());
    let formats: Vec<_> = plan.images.iter().map(|image| image.format).collect();
    let descriptors = descriptor::file_names(&plan.machine, &formats);
    let others = [ROOTS_FILE, release::sums::SUMS_FILE]
        .into_iter()
        .chain(DIRECT);
    images
        .chain(descriptors)
        .chain(others.map(str::to_owned))
        .collect()
}

fn merge(layers: &[Layer]) -> Result<FileTree, PipelineError> {
    let mut tree = FileTree::new();
    for layer in layers {
        let merge = |source| PipelineError::Merge {
            layer: layer.name.clone(),
            source,
        };
        tree.apply(&layer.delta).map_err(merge)?;
    }
    Ok(tree)
}

/// One volume for each partition, in the order of the disk's.
fn volumes(plan: &BuildPlan, bootable: Bootable) -> Result<Vec<Box<dyn SparseSource>>, Error> {
    let Bootable {
        root,
        var,
        esp,
        boot_code,
        ..
    } = bootable;
    let (mut root, mut var) = (Some(root), var);
    let mut volumes: Vec<Box<dyn SparseSource>> = Vec::new();
    for (contents, partition) in plan.contents.iter().zip(&plan.disk.partitions) {
        let in_partition = |source| PipelineError::Volume {
            partition: partition.name.clone(),
            source,
        };
        volumes.push(match contents {
            Contents::CoreImage => Box::new(Bytes(boot_code.core_image.as_slice().into())),
            Contents::Esp => Box::new(FatVolume::new(&esp, &plan.esp)?),
            Contents::Nothing => Box::new(Zeros(ByteSize::ZERO)),
            Contents::Root => {
                let tree = root.take().unwrap_or_default();
                Box::new(Ext4Volume::new(tree, &plan.root).map_err(in_partition)?)
            }
            Contents::Var => {
                let options = plan
                    .var
                    .as_ref()
                    .expect("a plan with this partition has its options");
                let tree = var.take().unwrap_or_default();
                Box::new(Ext4Volume::new(tree, options).map_err(in_partition)?)
            }
        });
    }
    Ok(volumes)
}

fn write_images(
    plan: &BuildPlan,
    disk: &Disk,
    shop: &Workshop<'_>,
    (proofs, ahead): (Option<&Proofs<'_>>, &Ahead),
) -> Result<Vec<Artifact>, Error> {
    let has_package = |image: &ImageSpec| image.format == ImageFormat::Ova;
    let package = if plan.images.iter().any(has_package) {
        let seal = shop.package_signer.map(|signer| signer as &dyn Seal);
        Some(Package::new(&plan.machine, plan.package.sum, seal)?)
    } else {
        None
    };
    let options = WriteOptions {
        envelope: package.as_ref().map(|package| package as &dyn Envelope),
        voucher: proofs.map(|proofs| proofs as &dyn Voucher),
        ahead: Some(ahead),
        ..cluster_options(shop)
    };
    Ok(image::write_all(
        &plan.images,
        disk,
        shop.out,
        &options,
        shop.reporter,
    )?)
}

/// How clusters are packed, and where they are kept.
fn cluster_options<'a>(shop: &Workshop<'_>) -> WriteOptions<'a> {
    WriteOptions {
        threads: shop.threads,
        cluster_cache: Some(shop.cluster_cache.clone()),
        ..WriteOptions::default()
    }
}

impl Voucher for Proofs<'_> {
    fn vouches(&self) -> bool {
        self.hold()
    }
}

fn disk_facts(plan: &BuildPlan, disk: &Disk, artifacts: &[Artifact]) -> Vec<DiskFacts> {
    let facts = plan
        .images
        .iter()
        .zip(artifacts)
        .map(|(image, artifact)| DiskFacts {
            file: image.file_name.clone(),
            format: image.format,
            size: disk.size(),
            digest: artifact.digest,
            content_root: artifact.content_root,
        });
    facts.collect()
}

/// The files for loaders on the host, as descriptors name them.
fn direct_files(direct: &DirectBoot) -> Direct {
    let [kernel, initrd, _] = DIRECT;
    Direct {
        kernel: kernel.to_owned(),
        initrd: initrd.to_owned(),
        command_line: direct.cmdline.clone(),
    }
}

/// Kernel, initramfs and command line, for hosts that load them themselves.
fn direct_drafts(direct: &DirectBoot, out: &Path) -> Result<[Draft; 3], PipelineError> {
    const LIMIT: u64 = 64 << 20;
    let read = |content: &Content| {
        content
            .read_all(LIMIT)
            .map_err(|source| PipelineError::Read { source })
    };
    let draft = |name: &str, bytes| Draft {
        path: out.join(name),
        kind: ArtifactKind::DirectBoot,
        bytes,
    };
    let [kernel, initrd, cmdline] = DIRECT;
    Ok([
        draft(kernel, read(&direct.kernel)?),
        draft(initrd, read(&direct.initrd)?),
        draft(cmdline, format!("{}\n", direct.cmdline).into_bytes()),
    ])
}

/// `sha256:<root>  <file>`, a line for each disk.
fn roots_draft(artifacts: &[Artifact], out: &Path) -> Draft {
    let line = |artifact: &Artifact| {
        Some(format!(
            "{}  {}\n",
            artifact.content_root?,
            artifact.file_name()
        ))
    };
    let text: String = artifacts.iter().filter_map(line).collect();
    Draft {
        path: out.join(ROOTS_FILE),
        kind: ArtifactKind::Sums,
        bytes: text.into_bytes(),
    }
}

/// Remembers what made the outputs, so that the next build may be none.
fn write_stamp(plan: &BuildPlan, shop: &Workshop<'_>) -> Result<(), PipelineError> {
    let path = shop.out.join(STAMP_FILE_NAME);
    let failed = |source| PipelineError::Write {
        path: path.clone(),
        source,
    };
    let names = output_names(plan);
    let stamp =
        Stamp::take(plan.outputs_digest(), shop.executable, shop.out, &names).map_err(failed)?;
    // A torn record counts as none, and what it is about is synced already.
    PendingFile::create(&path)
        .and_then(|mut pending| {
            pending.file_mut().write_all(stamp.to_json().as_bytes())?;
            pending.commit_unsynced()
        })
        .map_err(failed)
}

/// What the spine itself can fail at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// A layer does not fit those below it.
    #[error("layer `{layer}` does not fit the layers below it")]
    Merge {
        /// The layer.
        layer: String,
        /// What does not fit.
        source: TreeError,
    },
    /// A tree does not become the volume of its partition.
    #[error("cannot make the file system of partition `{partition}`")]
    Volume {
        /// The partition's name.
        partition: String,
        /// Why not.
        source: Ext4Error,
    },
    /// The store lost what it had.
    #[error("cannot read the kernel or the initramfs from the store")]
    Read {
        /// What the system said.
        source: std::io::Error,
    },
    /// An output could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl PipelineError {
    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Merge { .. } => "layer-conflict",
            Self::Volume { source, .. } => source.slug(),
            Self::Read { .. } => "store-read",
            Self::Write { .. } => "output-write",
        }
    }

    /// What the reader can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Merge { .. } | Self::Read { .. } => None,
            Self::Volume { source, .. } => source.hint(),
            Self::Write { .. } => {
                Some("choose another folder with `-o FOLDER`, or make room".into())
            }
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::Volume { source, .. } => source.class(),
            _ => ExitClass::Build,
        }
    }
}
