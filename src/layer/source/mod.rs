//! Where a layer's content comes from: sources that are fetched and verified.
//!
//! In: what a layer asks for, and the addresses and keys to trust. Out: exact
//! pins, and local files whose digest is the pinned one. Never here:
//! unpacking, running, the tree.

pub mod deb;
pub mod oci;
pub mod remote;
