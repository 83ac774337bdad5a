//! Import: from a descriptor and its disks to a guest on this host.
//!
//! In: a virt-image descriptor, ours or anybody's, the files beside it, and
//! what the user wishes otherwise. Out: a guest in libvirt, or in QEMU alone,
//! with disks of its own; or nothing at all: whatever fails takes back what
//! came before it. Everything is verified and decided before the first change.
//! Never here: the vendor's files used in place, storage pools, links into
//! libvirt (it is asked through `virsh`), choices after the plan. Checked by:
//! libvirt's schema, a libvirt of the tests' own, hostile descriptors
//! (`tests/it/import/`).

mod aside;
mod decide;
pub mod descriptor;
mod devices;
pub mod domain;
pub mod emit;
mod error;
mod finding;
pub mod host;
mod host_firmware;
mod lock;
pub mod master;
pub mod plan;
mod qemu;
mod replace;
pub mod run;
mod store;
pub mod virsh;
pub mod wishes;
mod xml;

pub use decide::plan;
pub use error::ImportError;
pub use finding::{Finding, NetworkState, Problem, Refusal};
pub use host::Host;
pub use host_firmware::HostFirmware;
pub use plan::Plan;
pub use run::{Acts, Imported, import, plan_upgrade, remove, start_again, upgrade};
pub use wishes::Wishes;
pub use xml::Place;
