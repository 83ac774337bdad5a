//! Forms of a site configuration for people and programs: a JSON Schema, a
//! sample with every key, a page that makes a config disk.
//!
//! In: the description of every key that `consign-schema` keeps, and the
//! roles of an appliance. Out: texts; the same input gives the same bytes.
//! Never here: keys of its own. Checked by: the reader itself (the sample), a
//! browser, fsck.vfat and the agent's reader (`ci/nightly.d/page`).

mod page;
mod sample;

pub use page::page;
pub use sample::sample;

use super::Shelf;

/// The JSON Schema for the roles of `shelf`.
#[must_use]
pub fn json_schema(shelf: &Shelf) -> serde_json::Value {
    let roles: Vec<&consign_schema::Role> = shelf.roles().collect();
    consign_schema::json_schema(&roles, shelf.policy())
}
