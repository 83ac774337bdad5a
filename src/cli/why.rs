//! `consign why`: where a file of the image comes from.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::build::Context;
use super::cache::layers_of;
use super::draw::ReportFormat;
use super::error::{CliError, output};
use crate::appliance::{Appliance, FILE_NAME};
use crate::boot;
use crate::error::Error;
use crate::layer::key::layer_key;
use crate::layer::spec::{LayerSpec, Recipe};
use crate::layer::tar::read_delta;
use crate::layer::{LayerError, Store};
use crate::pipeline::PipelineError;
use crate::plan::{BuildPlan, LOCK_FILE_NAME, Lock};
use crate::tree::{FileTree, Node, NodeKind, TreeDelta, TreePath};

/// Longest list of a package's files.
const MAX_LIST: u64 = 64 << 20;
/// Where dpkg lists the files of its packages while layers are merged.
const LISTS: &str = "var/lib/dpkg/info";

/// Tells which layer brings a file of the image, and which package of the
/// layer, or that a script made it. Links among the folders are followed, as
/// in the image: /bin/ls is /usr/bin/ls. Reads the layers in the cache: build
/// once, or pull them, before.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct WhyArgs {
    /// A path in the image: /usr/sbin/nginx.
    #[arg(value_name = "PATH")]
    path: String,
    /// The appliance.
    #[arg(long, value_name = "FILE", default_value = FILE_NAME)]
    file: PathBuf,
    /// What to print.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: ReportFormat,
}

/// Runs the subcommand.
///
/// # Errors
///
/// [`CliError::NoSuchFile`], [`CliError::NotBuilt`], and those of the plan
/// and of the cache.
pub(super) fn run(args: &WhyArgs, context: &Context<'_>, out: &mut dyn Write) -> Result<(), Error> {
    let asked = TreePath::parse(args.path.trim_start_matches('/').as_bytes());
    let asked = asked.map_err(|_| CliError::NotAPath {
        path: args.path.clone(),
    })?;
    let appliance = Appliance::open(&args.file)?;
    let lock_path = args.file.with_file_name(LOCK_FILE_NAME);
    let lock = Lock::open(&lock_path)?.ok_or(CliError::NoLock { path: lock_path })?;
    let plan = layers_of(&appliance, &lock)?;
    let store = Store::open(&context.cache()?)?;
    let deltas = deltas(&plan, &store, context)?;
    let answer = search(&asked, &plan, &deltas)?;
    let answer = answer.ok_or_else(|| CliError::NoSuchFile {
        path: args.path.clone(),
        why: match boot::rule_for(&asked) {
            Some(rule) => format!("the clean-image rule `{}` removes such files", rule.name),
            None => String::new(),
        },
    })?;
    let text = match args.format {
        ReportFormat::Text => answer.text(),
        ReportFormat::Json => answer.json(),
    };
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}

/// The change of every layer, lowest first.
fn deltas(plan: &BuildPlan, store: &Store, context: &Context<'_>) -> Result<Vec<TreeDelta>, Error> {
    let mut parents = Vec::new();
    let mut deltas = Vec::new();
    for layer in &plan.layers {
        let key = layer_key(layer, &parents, plan.source_date);
        let (record, blob) =
            store
                .find(&key, context.reporter)?
                .ok_or_else(|| CliError::NotBuilt {
                    layer: layer.name.clone(),
                })?;
        parents.push(record.diff_id);
        deltas.push(read_delta(&blob).map_err(LayerError::from)?);
    }
    Ok(deltas)
}

/// Where a file comes from.
struct Answer {
    path: TreePath,
    node: Node,
    layer: LayerSpec,
    /// Name and version.
    package: Option<(String, String, String)>,
    /// Layers that have it too, below.
    hides: Vec<String>,
    removed_by: Option<&'static boot::CleanRule>,
}

fn search(
    asked: &TreePath,
    plan: &BuildPlan,
    deltas: &[TreeDelta],
) -> Result<Option<Answer>, Error> {
    let mut tree = FileTree::new();
    // Which layers name each path that ends as the asked one does.
    let mut bringers: Vec<(TreePath, usize)> = Vec::new();
    for (number, (layer, delta)) in plan.layers.iter().zip(deltas).enumerate() {
        let misfit = |source| PipelineError::Merge {
            layer: layer.name.clone(),
            source,
        };
        let entries = delta.tree.iter().map(|(path, _, _)| path);
        for path in entries.chain(delta.links.keys()) {
            if path.name() == asked.name() && !delta.implied.contains(path) {
                bringers.push((tree.resolve(path).map_err(misfit)?, number));
            }
        }
        tree.apply(delta).map_err(misfit)?;
    }
    let lost = |source| PipelineError::Merge {
        layer: "all".into(),
        source,
    };
    let path = tree.resolve(asked).map_err(lost)?;
    let Some(node) = tree.get(&path).cloned() else {
        return Ok(None);
    };
    let mut all: Vec<usize> = bringers
        .into_iter()
        .filter(|(found, _)| *found == path)
        .map(|(_, number)| number)
        .collect();
    let Some(top) = all.pop() else {
        return Ok(None);
    };
    let layer = plan.layers.get(top).expect("a number of a layer").clone();
    let name = |number: &usize| plan.layers.get(*number).map(|layer| layer.name.clone());
    Ok(Some(Answer {
        package: package(&tree, &path, plan)?,
        removed_by: boot::rule_for(&path),
        hides: all.iter().filter_map(name).collect(),
        node,
        layer,
        path,
    }))
}

/// The package whose list has the path, under either name of a merged /usr.
fn package(
    tree: &FileTree,
    path: &TreePath,
    plan: &BuildPlan,
) -> Result<Option<(String, String, String)>, Error> {
    let full = [b"/", path.as_bytes()].concat();
    let short = full.strip_prefix(b"/usr").unwrap_or(&full);
    let folder = TreePath::parse(LISTS.as_bytes()).expect("a relative path");
    for (list, _, node) in tree.subtree(&folder) {
        let name = list.name().and_then(|name| name.strip_suffix(b".list"));
        let (Some(name), Some(content)) = (name, node.content()) else {
            continue;
        };
        let bytes = content
            .read_all(MAX_LIST)
            .map_err(|source| CliError::Read {
                path: list.to_string().into(),
                source,
            })?;
        let mut lines = bytes.split(|byte| *byte == b'\n');
        if !lines.any(|line| line == full || line == short) {
            continue;
        }
        let name = String::from_utf8_lossy(name);
        let name = name.split(':').next().unwrap_or_default().to_owned();
        let mut pins = plan.lock.packages();
        let pin = pins.find(|pin| pin.name == name);
        let facts = pin.map(|pin| (pin.version.clone(), pin.reason.clone()));
        let (version, reason) = facts.unwrap_or_default();
        return Ok(Some((name, version, reason)));
    }
    Ok(None)
}

impl Answer {
    fn kind(&self) -> &'static str {
        match self.layer.recipe {
            Recipe::Packages(_) => "packages",
            Recipe::Files(_) => "files",
            Recipe::Tar(_) => "tar",
            Recipe::Oci(_) => "oci",
            Recipe::Run(_) => "run",
            _ => "tools",
        }
    }

    /// What brought it, where no package did.
    fn maker(&self) -> &'static str {
        match self.layer.recipe {
            Recipe::Packages(_) => "made by the script of a package, or by dpkg",
            Recipe::Run(_) => "made by the layer's script",
            Recipe::Files(_) => "in the layer's folder, or declared in its layer.toml",
            Recipe::Tar(_) => "in the layer's archive",
            Recipe::Oci(_) => "in the layer's image",
            _ => "made by a tool",
        }
    }

    fn what(&self) -> String {
        match &self.node.kind {
            NodeKind::Directory => "a folder".into(),
            NodeKind::File(content) => {
                format!(
                    "a file, {}",
                    crate::units::ByteSize::from_bytes(content.size())
                )
            }
            NodeKind::Symlink(target) => {
                let target = String::from_utf8_lossy(target);
                format!("a link to {}", target.escape_debug())
            }
            _ => "a device or a pipe".into(),
        }
    }

    fn text(&self) -> String {
        let meta = &self.node.meta;
        let mut lines = vec![
            format!("/{}", self.path),
            format!(
                "  is       {}, mode {:04o}, owner {}:{}",
                self.what(),
                meta.mode,
                meta.uid,
                meta.gid
            ),
            format!("  layer    {} ({})", self.layer.name, self.kind()),
        ];
        match &self.package {
            Some((name, version, reason)) => {
                lines.push(format!("  package  {name} {version} ({reason})"));
            }
            None => lines.push(format!("  package  none: {}", self.maker())),
        }
        if !self.hides.is_empty() {
            lines.push(format!("  hides    that of {}", self.hides.join(", ")));
        }
        if let Some(rule) = self.removed_by {
            lines.push(format!(
                "  removed  by the clean-image rule `{}`: {}",
                rule.name, rule.reason
            ));
        }
        lines.push(String::new());
        lines.join("\n")
    }

    fn json(&self) -> String {
        let package = self.package.as_ref().map(
            |(name, version, reason)| json!({ "name": name, "version": version, "reason": reason }),
        );
        let report = json!({
            "path": format!("/{}", self.path),
            "layer": self.layer.name,
            "kind": self.kind(),
            "package": package,
            "made": if self.package.is_none() { Some(self.maker()) } else { None },
            "hides": self.hides,
            "removed_by": self.removed_by.map(|rule| rule.name),
            "mode": format!("{:04o}", self.node.meta.mode),
            "uid": self.node.meta.uid,
            "gid": self.node.meta.gid,
        });
        format!("{report}\n")
    }
}
