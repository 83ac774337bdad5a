//! Readers of other people, kept out of the release graph.
