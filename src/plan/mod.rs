//! Where decisions end: from the appliance and its lock to a [`BuildPlan`].
//!
//! In: a checked [`Appliance`](crate::appliance::Appliance), the [`Lock`], the
//! bytes of the files layers, the agent's digest. Out: a [`BuildPlan`] with
//! every size, identifier, time and order in it; after it there are no
//! options and no defaults. Also here, for the same reason: the lock itself,
//! the [`Stamp`] that tells when nothing has changed, and clock and chance,
//! which nobody else may ask. Never here: networks, packages, images. Checked by:
//! golden texts of plans and locks, and mutations of them
//! (`tests/it/formats/lock.rs`, `tests/it/formats/plan.rs`).

mod build;
pub mod chance;
pub mod clock;
mod drift;
mod error;
mod files;
mod identity;
mod layer;
mod lock;
mod partition;
mod request;
mod show;
mod stamp;

pub use build::{BuildPlan, Builder, Contents, PackageSpec, Wishes};
pub use drift::drift;
pub use error::PlanError;
pub use files::digest_of_folder;
pub use layer::check_local;
pub use lock::{Change, Drift, LOCK_FILE_NAME, Lock, LockedImage, LockedLayer, LockedRelease};
pub use request::request;
pub use stamp::{Freshness, STAMP_FILE_NAME, Stamp};
