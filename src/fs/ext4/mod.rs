//! ext4: from a file tree to a volume.
//!
//! In: a [`FileTree`](crate::tree::FileTree) and [`Ext4Options`]. Out: an
//! [`Ext4Volume`], readable at any offset; nothing is written here. Never
//! here: mounts, external programs, choices.
//! Checked by: `e2fsck -fn`, `dumpe2fs` beside `mke2fs`, `debugfs`,
//! `resize2fs`, ext4-view and a kernel mount (`tests/it/formats/ext4.rs`).
//!
//! The features are those of `mke2fs -t ext4` 1.47 (Debian 12): journal,
//! extents, 64bit, `flex_bg`, `resize_inode`, `dir_index`, `metadata_csum` and so on.
//! Left out on purpose: `orphan_file`, `inline_data`, bigalloc, quota, casefold,
//! encrypt, verity and `metadata_csum_seed`, since older boot loaders and tools
//! refuse them.
//!
//! | file | from | to |
//! |---|---|---|
//! | `format/` | | structures on disk |
//! | `census` | the tree | inode numbers, directories, attributes |
//! | `geometry` | size and number of inodes | groups and their tables |
//! | `placing` | both | the place of every block, so that little moves when little changes |
//! | `layout` | those | which blocks hold what |
//! | `volume` | the layout | bytes, when asked |
//!
//! The same tree and options give the same bytes: inode numbers and blocks
//! follow the order of the tree, and all four times of an inode are its time
//! of last change.
//!
//! Source: Linux kernel documentation, "ext4 Data Structures and Algorithms";
//! where it is silent, the behaviour of Linux and of e2fsprogs.

mod census;
mod checksum;
mod directory;
mod error;
mod extents;
pub mod format;
mod geometry;
mod groups;
mod hash;
mod inode;
mod layout;
mod options;
mod placing;
mod space;
mod volume;
mod xattr;

pub use error::{EntryProblem, Ext4Error};
pub use geometry::Geometry;
pub use options::{Ext4Options, Sizing};
pub use placing::OWN_STRETCH_BYTES;
pub use volume::Ext4Volume;
