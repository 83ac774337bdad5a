//! Finished disks, read: containers, partition tables, file systems.
//!
//! In: a disk image, ours or anybody's. Out: the disk inside as a
//! [`SparseSource`], what is on it, and files of its volumes. Never here:
//! mounts, kernels, external programs, writing. What an image names is never
//! opened: readers get the bytes of one file and nothing else. Checked by:
//! our own images and those of qemu-img, mke2fs and mkfs.vfat, compared with
//! what was put in (`tests/it/formats/inspect.rs`), a corpus of hostile
//! images, and fuzzing (`tests/fuzz`).
//!
//! Nothing is allocated from a number in an image beyond what its length, or
//! a stated cap, allows; every loop that an image steers has a bound.

mod blocks;
pub mod container;
mod difference;
mod error;
pub mod ext4;
pub mod fat;
pub mod gpt;
mod overview;
mod part;
mod volume;

pub use container::{DiskImage, open, open_source};
pub use difference::{Difference, Place, differences, first_difference};
pub use error::InspectError;
pub use overview::{FileSystem, Overview, PartitionFacts, overview};
pub use part::Part;
pub use volume::{Entries, Entry, Kind, Volume};
