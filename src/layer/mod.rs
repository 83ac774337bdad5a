//! Layers: from specs to content-addressed, cached file-tree changes.

pub mod source;
pub mod spec;
