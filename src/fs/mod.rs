//! File systems: from a file tree to a volume.
//!
//! In: a [`FileTree`](crate::tree::FileTree) and the sizes and identifiers
//! that the plan chose. Out: a [`SparseSource`](crate::sparse::SparseSource).
//! Never here: choices. Checked by: `e2fsck -fn`, `fsck.vfat -n`, `xorriso`, a second
//! reader, a kernel mount (`tests/it/formats/`).

pub mod ext4;
pub mod fat;
pub mod iso9660;
