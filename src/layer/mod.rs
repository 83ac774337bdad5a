//! Layers: from specs to content-addressed, cached file-tree changes.

pub mod spec;
