//! `appliance.toml` and its layers' recipes: from text to a checked [`Appliance`].
//!
//! In: the vendor's files, as bytes. Out: domain types without a doubt left,
//! or every error at once, each with its place in the source. Never here:
//! decisions (the plan makes them), networks, the layers' content but for
//! roles and policies, which the agent's own rules judge. Checked by: a corpus
//! of wrong files with the exact text of what is said about each
//! (`tests/it/formats/appliance.rs`, `tests/golden/appliance/`).
//!
//! The way: [`Source`] (bytes) → `fields` (TOML tables, each key asked for by
//! name and type) → `written` (what stands there, each value with its place)
//! → `check` (what it means) → [`Appliance`].
//!
//! Serde's derive is not used on these files: it stops at the first error
//! and words it for programmers. The cursor in `fields` goes on.

mod check;
mod diagnostic;
mod error;
mod fields;
mod layer;
mod model;
mod names;
mod repository;
mod source;
mod vendor;
mod written;

pub use diagnostic::{Diagnostic, FileProblems, Style};
pub use error::ApplianceError;
pub use layer::{
    Entry, EntryKind, FilesLayer, LayerKind, LayerRecipe, OciLayer, OciSource, PackagesLayer,
    PathRule, RunLayer, TarLayer, TarSource,
};
pub use model::{
    Appliance, Architecture, BootSettings, DiskLayout, DiskProfile, Distribution, Firmware,
    ImageKind, Kernel, MachineFacts, Outputs, Qcow2Compression, System, UserDisk,
};
pub use names::{LayerName, Mirror, Name, PackageName, RepositoryName, Suite, Version};
pub use repository::{OwnRepository, VersionPin};
pub use source::{Shelf, ShelfLayer, Source};

/// What `appliance.toml` is called.
pub const FILE_NAME: &str = "appliance.toml";
/// The folder beside it that holds one folder for each layer.
pub const LAYERS_FOLDER: &str = "layers";
/// What a layer's recipe is called.
pub const LAYER_FILE_NAME: &str = "layer.toml";
/// The only version of the schema so far.
pub const SCHEMA: u64 = 1;
