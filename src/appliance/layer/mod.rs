//! `layer.toml`: how one layer is made.

mod archive;
mod files;
mod packages;
mod rule;
mod run;

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::Spanned;

use super::diagnostic::{Diagnostic, FileProblems, list, nearest, quoted};
use super::fields::{Fields, Problems, parse};
use super::names::{LayerName, PackageName};
use super::source::{ShelfLayer, Source};
use crate::digest::Digest;

const KINDS: [&str; 5] = ["packages", "files", "tar", "oci", "run"];

/// A layer as its `layer.toml` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRecipe {
    /// Its name, which is its folder's.
    pub name: LayerName,
    /// What it is made of.
    pub kind: LayerKind,
    /// Patterns of paths that may hold private keys, though all customers get
    /// the same ones.
    pub allow_secrets: Vec<String>,
}

/// What a layer is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerKind {
    /// Packages of the distribution.
    Packages(PackagesLayer),
    /// A folder laid over the tree.
    Files(FilesLayer),
    /// An archive laid over the tree.
    Tar(TarLayer),
    /// An image of containers laid over the tree.
    Oci(OciLayer),
    /// A script that runs on top of the layers below.
    Run(RunLayer),
}

/// `kind = "packages"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackagesLayer {
    /// Asked for by name, sorted; what they need comes too.
    pub packages: Vec<PackageName>,
    /// Whether what they recommend comes too.
    pub recommends: bool,
    /// Never installed, sorted.
    pub exclude: Vec<PackageName>,
    /// Paths that are not unpacked: patterns as in dpkg's `path-exclude`.
    pub exclude_paths: Vec<String>,
    /// Exceptions to them.
    pub include_paths: Vec<String>,
    /// Package files that are installed too: paths below the layer's folder,
    /// sorted.
    pub debs: Vec<String>,
}

/// `kind = "files"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesLayer {
    /// The folder on the host.
    pub folder: PathBuf,
    /// Owners and modes, in the order written; the last match wins.
    pub rules: Vec<PathRule>,
    /// What a folder of the host cannot hold, sorted by path.
    pub entries: Vec<Entry>,
    /// Paths of the layers below that go, sorted.
    pub remove: Vec<String>,
    /// Patterns of files in which `@appliance.name@` and the like are replaced.
    pub templates: Vec<String>,
}

/// One `[[entry]]`: something that a folder of the host cannot hold, or that
/// version control does not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// A path with a leading `/`.
    pub path: String,
    /// What is there.
    pub kind: EntryKind,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Low 12 bits of the mode.
    pub mode: u16,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory, empty for all that this layer says.
    Directory,
    /// A symbolic link with its target.
    Symlink(String),
    /// Another name of a file of this layer.
    Link(String),
    /// A character device.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// `kind = "tar"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarLayer {
    /// Where the archive is.
    pub source: TarSource,
    /// Leading components that are dropped from each name.
    pub strip: u32,
    /// The directory of the image that it is laid into; `/` where nobody says.
    pub into: String,
    /// Patterns of paths that are left out.
    pub exclude_paths: Vec<String>,
    /// Owners and modes, in the order written; the last match wins.
    pub rules: Vec<PathRule>,
}

/// Where the archive of a [`TarLayer`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TarSource {
    /// A file on the host.
    File {
        /// Which one.
        path: PathBuf,
        /// What it must be, if that is said.
        sha256: Option<Digest>,
    },
    /// Somewhere on the web.
    Url {
        /// The address.
        url: String,
        /// What it must be.
        sha256: Digest,
    },
}

/// `kind = "oci"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciLayer {
    /// Where the image is.
    pub source: OciSource,
    /// Patterns of paths that are left out.
    pub exclude_paths: Vec<String>,
    /// Owners and modes, in the order written; the last match wins.
    pub rules: Vec<PathRule>,
}

/// Where the image of an [`OciLayer`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OciSource {
    /// An image layout, or an archive, on the host.
    Path {
        /// The folder or file.
        path: PathBuf,
        /// Its name, where there are several.
        image: Option<String>,
    },
    /// An image in a registry: `REGISTRY/NAME:TAG`, or with `@sha256:…`.
    Registry(String),
}

/// `kind = "run"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunLayer {
    /// The script on the host.
    pub script: PathBuf,
    /// A folder whose files stand beside the script while it runs.
    pub folder: Option<PathBuf>,
    /// Whether the script may use the host's network.
    pub network: bool,
    /// Variables for the script.
    pub environment: BTreeMap<String, String>,
}

/// One `[[rule]]`: owner, mode and xattrs of the paths that match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    /// A pattern with a leading `/`.
    pub path: String,
    /// Numeric owner.
    pub uid: Option<u32>,
    /// Numeric group.
    pub gid: Option<u32>,
    /// Low 12 bits of the mode of files.
    pub mode: Option<u16>,
    /// The same for directories.
    pub directory_mode: Option<u16>,
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl LayerRecipe {
    /// Reads and checks `source`, the `layer.toml` of `layer`.
    ///
    /// # Errors
    ///
    /// Every problem of the file.
    pub(super) fn parse(
        name: LayerName,
        source: &Source,
        layer: &ShelfLayer,
    ) -> Result<Self, FileProblems> {
        let mut problems = Problems::new();
        let read = read(source, layer, &mut problems);
        match (FileProblems::new(source, problems), read) {
            (None, Some((kind, allow_secrets))) => Ok(Self {
                name,
                kind,
                allow_secrets,
            }),
            (Some(problems), _) => Err(problems),
            (None, None) => unreachable!("`read` reports why it gives nothing"),
        }
    }
}

fn read(
    source: &Source,
    layer: &ShelfLayer,
    problems: &mut Problems,
) -> Option<(LayerKind, Vec<String>)> {
    let table = parse(source, problems)?;
    let mut top = Fields::top(&table);
    top.require("kind", "\"packages\"");
    let Some(kind) = top.text("kind", "\"packages\"", problems) else {
        top.missing(&[], problems);
        return None;
    };
    let allow_secrets = patterns(
        top.texts("allow_secrets", "[\"/opt/app/test/*.pem\"]", problems),
        "allow_secrets",
        problems,
    );
    let kind = match kind.get_ref().as_str() {
        "packages" => packages::read(top, layer, problems).map(LayerKind::Packages),
        "files" => files::read(top, layer, problems).map(LayerKind::Files),
        "tar" => archive::tar(top, layer, problems).map(LayerKind::Tar),
        "oci" => archive::oci(top, layer, problems).map(LayerKind::Oci),
        "run" => run::read(top, layer, problems).map(LayerKind::Run),
        other => {
            let unknown = Diagnostic::at(
                kind.span(),
                format!("unknown kind of layer `{}`", quoted(other)),
            );
            problems.push(match nearest(other, KINDS) {
                Some(near) => unknown.help(format!("did you mean `{near}`?")),
                None => unknown.help(format!("choose from {}", list(&KINDS, "and"))),
            });
            None
        }
    };
    Some((kind?, allow_secrets))
}

fn patterns(
    texts: Option<Spanned<Vec<Spanned<String>>>>,
    key: &str,
    problems: &mut Problems,
) -> Vec<String> {
    let texts = texts.map(Spanned::into_inner).unwrap_or_default();
    for text in &texts {
        absolute(text, key, problems);
    }
    texts.into_iter().map(Spanned::into_inner).collect()
}

fn absolute(text: &Spanned<String>, key: &str, problems: &mut Problems) {
    let pattern = text.get_ref();
    let is_bad = |part: &str| matches!(part, "." | "..");
    if !pattern.starts_with('/') || pattern.contains('\0') || pattern.split('/').any(is_bad) {
        problems.push(
            Diagnostic::at(
                text.span(),
                format!("`{key}`: `{}` is not a path in the image", quoted(pattern)),
            )
            .help("begin it with `/` and leave out `.` and `..`"),
        );
    }
}

fn layer_name(layer: &ShelfLayer) -> String {
    let name = layer.folder.file_name().unwrap_or_default();
    quoted(&name.to_string_lossy())
}

/// The file `name` of the layer's folder. A path that leads elsewhere is
/// looked at by the plan.
fn file_of(
    name: &Spanned<String>,
    key: &str,
    layer: &ShelfLayer,
    problems: &mut Problems,
) -> Option<PathBuf> {
    let text = name.get_ref();
    if text.is_empty() || text.contains('\0') {
        problems.push(
            Diagnostic::at(name.span(), format!("`{key}` names no file"))
                .help("write a path that begins in the layer's folder"),
        );
        return None;
    }
    if text.contains('/') || layer.files.contains(text) {
        return Some(layer.folder.join(text));
    }
    let path = format!("layers/{}/{}", layer_name(layer), quoted(text));
    let missing = Diagnostic::at(name.span(), format!("there is no file `{path}`"));
    let near = nearest(text, layer.files.iter().map(String::as_str));
    problems.push(match near {
        Some(near) => missing.help(format!("did you mean `{key} = \"{near}\"`?")),
        None => missing.help("put it there, or write a path that leads to it"),
    });
    None
}
