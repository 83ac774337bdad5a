//! What a layer is made of: the spec types that the plan fills in.

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use super::source::oci::reference::{Reference, Repository};
pub use super::tar::{MemberKind, Selection};
use crate::digest::Digest;
pub use crate::tree::TreePath;

/// A layer to be made on top of the ones before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSpec {
    /// Its name: lower-case letters, digits and `-`.
    pub name: String,
    /// How it is made.
    pub recipe: Recipe,
    /// Patterns of paths that may hold private keys, as in [`FileRule::path`].
    pub allow_secrets: Vec<String>,
}

/// How a layer is made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recipe {
    /// Debian packages, installed and configured by the target's own dpkg.
    Packages(PackagesRecipe),
    /// A folder laid over the tree.
    Files(FilesRecipe),
    /// An archive laid over the tree.
    Tar(TarRecipe),
    /// An image of containers laid over the tree.
    Oci(OciRecipe),
    /// A script, run in the sandbox on top of the layers below.
    Run(RunRecipe),
    /// Debian packages that are only unpacked, a program of theirs run in the
    /// sandbox, and the files that it made.
    Tools(ToolsRecipe),
}

impl Recipe {
    /// Whether the layer comes out differently on top of other layers.
    #[must_use]
    pub fn depends_on_parents(&self) -> bool {
        matches!(self, Self::Packages(_) | Self::Run(_))
    }
}

/// Recipe of a `packages` layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackagesRecipe {
    /// The packages that this layer adds, by name, as the lock has them. In
    /// which order they are unpacked, the packages themselves say.
    pub pins: Vec<PackagePin>,
    /// Paths that are not unpacked, as in dpkg's `path-exclude`: `*` matches
    /// any characters, slashes too; patterns begin with `/`. Directories and
    /// symbolic links that match are left out too.
    pub exclude_paths: Vec<String>,
    /// Exceptions to `exclude_paths`, as in dpkg's `path-include`; they win.
    pub include_paths: Vec<String>,
}

/// Recipe of a `files` layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesRecipe {
    /// The folder on the host. Its owners, modes and times do not count.
    pub folder: PathBuf,
    /// Digest over names, kinds and bytes of the folder, taken by the plan.
    pub digest: Digest,
    /// Rules in order; the last match for a path wins, field by field.
    /// Without a rule: root, 0755 for directories and for files that are
    /// executable on the host by their owner, 0644 for other files.
    pub rules: Vec<FileRule>,
    /// What the folder cannot hold, sorted by path.
    pub entries: Vec<FileEntry>,
    /// Paths of the layers below that go, sorted.
    pub remove: Vec<TreePath>,
    /// Patterns of the files in which values are put.
    pub templates: Vec<String>,
    /// The values by name: `appliance.version`. Empty without templates.
    pub values: BTreeMap<String, String>,
}

/// Something in a `files` layer that is not in its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Where.
    pub path: TreePath,
    /// What; never a file.
    pub kind: MemberKind,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Low 12 bits of `st_mode`.
    pub mode: u16,
}

/// Recipe of a `tar` layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarRecipe {
    /// Where the archive is.
    pub origin: ArchiveOrigin,
    /// The digest of its bytes.
    pub sha256: Digest,
    /// Which members count, and where they land.
    pub selection: Selection,
    /// As in a [`FilesRecipe`].
    pub rules: Vec<FileRule>,
}

/// Where an archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArchiveOrigin {
    /// A file on the host.
    File(PathBuf),
    /// An address on the web.
    Url(String),
}

/// Recipe of an `oci` layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciRecipe {
    /// Where the image is.
    pub origin: ImageOrigin,
    /// Of a folder or a registry: the digest of the image's manifest. Of an
    /// archive: that of its bytes.
    pub digest: Digest,
    /// Which members count, and where they land.
    pub selection: Selection,
    /// As in a [`FilesRecipe`].
    pub rules: Vec<FileRule>,
}

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageOrigin {
    /// An image layout.
    Folder(PathBuf),
    /// An archive of either kind, and the image's name where there are several.
    Archive(PathBuf, Option<String>),
    /// A repository of a registry.
    Registry(Repository),
}

/// Recipe of a `run` layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRecipe {
    /// The script, with a `#!` line or for `/bin/sh`.
    pub script: Vec<u8>,
    /// Files that stand beside it while it runs.
    pub input: Option<FilesRecipe>,
    /// Variables besides the sandbox's own.
    pub environment: BTreeMap<String, String>,
    /// Whether it may use the host's network.
    pub network: bool,
}

/// An image that a layer asks a registry for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageRequest {
    /// The layer's name.
    pub layer: String,
    /// As written: `REGISTRY/NAME:TAG`, or with `@sha256:…`.
    pub reference: String,
}

/// An archive that a layer takes from the web.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchiveRequest {
    /// The layer's name.
    pub layer: String,
    /// Its address.
    pub url: String,
    /// Its digest.
    pub sha256: Digest,
}

/// Owner, mode and xattrs for the paths of a `files` layer that match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileRule {
    /// Pattern of the path in the image, with a leading `/`: `*` matches within a
    /// component, `**` across them.
    pub path: String,
    /// Numeric owner.
    pub uid: Option<u32>,
    /// Numeric group.
    pub gid: Option<u32>,
    /// Low 12 bits of `st_mode`; for files only.
    pub mode: Option<u16>,
    /// The same for directories.
    pub directory_mode: Option<u16>,
    /// Extended attributes to set.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// Recipe of a `tools` layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolsRecipe {
    /// The packages that are unpacked, with all that the program needs to run.
    pub pins: Vec<PackagePin>,
    /// Files written into the sandbox before the program runs.
    pub input: BTreeMap<TreePath, Vec<u8>>,
    /// Absolute path of the program in the sandbox, and its arguments.
    pub command: Vec<String>,
    /// Files that make up the layer; all else is dropped. Missing is an error.
    pub keep: Vec<TreePath>,
}

/// What the resolver is asked; its answer goes into the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageRequest {
    /// The distribution's release by code name: `bookworm`.
    pub suite: String,
    /// Debian's name of the architecture: `amd64`.
    pub architecture: String,
    /// One for each `packages` layer, lowest first: a group sees what the
    /// groups before it brought.
    pub groups: Vec<PackageGroup>,
    /// The packages of the tools layer, sorted: a closure of its own.
    pub tools: Vec<String>,
    /// The appliance's own repositories, as far as they decide which package
    /// is chosen; sorted by name.
    pub repositories: Vec<RepositoryRequest>,
    /// Which versions and sources count for some packages, in order.
    pub limits: Vec<PackageLimit>,
    /// Images of registries, sorted by layer.
    pub images: Vec<ImageRequest>,
    /// Archives of the web, sorted by layer.
    pub archives: Vec<ArchiveRequest>,
}

/// An own repository of the appliance. Where it is does not count: the
/// digests of its packages do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryRequest {
    /// What the appliance calls it; pins name it as their suite.
    pub name: String,
    /// Its suite, below its address.
    pub suite: String,
    /// Its components.
    #[serde(default)]
    pub components: Vec<String>,
    /// As apt's: the package with the highest one is chosen, then the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// If not empty: only packages whose name fits one of these patterns come
    /// from it.
    #[serde(default)]
    pub packages: Vec<String>,
}

/// Which versions of some packages count, and from where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageLimit {
    /// Patterns of names.
    pub packages: Vec<String>,
    /// A pattern of versions: `1.22.*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Name of a repository, or a suite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// What one `packages` layer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageGroup {
    /// The layer's name.
    pub layer: String,
    /// Asked for by name, sorted.
    pub packages: Vec<String>,
    /// Whether what they recommend comes too.
    pub recommends: bool,
    /// Never to be chosen, sorted.
    pub exclude: Vec<String>,
    /// Package files of the appliance that this layer installs: paths below
    /// its folder, sorted.
    pub debs: Vec<String>,
}

/// The [`suite`](PackagePin::suite) of packages that are files of the appliance.
pub const LOCAL: &str = "local";

/// One locked package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackagePin {
    /// Binary package name.
    pub name: String,
    /// Full Debian version.
    pub version: String,
    /// `amd64` or `all`.
    pub architecture: String,
    /// Where to fetch it: the suite whose index named it (`bookworm-security`),
    /// the name of one of the appliance's own repositories, or [`LOCAL`].
    pub suite: String,
    /// Path below the repository's base address (`pool/main/...`); for
    /// [`LOCAL`], below the appliance's folder.
    pub path: String,
    /// Length of the .deb in bytes.
    pub size: u64,
    /// Digest of the .deb.
    pub sha256: Digest,
    /// Source package and version, `name (version)` or `name`.
    pub source: String,
    /// Why it is here: `requested`, `essential`, or `needed by NAME`.
    pub reason: String,
}
