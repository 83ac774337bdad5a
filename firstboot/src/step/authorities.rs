//! Certificate authorities of the site.
//!
//! Each stands in Debian's folder for local ones, and all are added to the
//! bundle that programs read, behind a line of ours.

use consign_schema::{Problem, SiteConfig};

use super::{Feature, Machine};
use crate::digest::Digest;
use crate::item::Item;

const FOLDER: &str = "/usr/local/share/ca-certificates";

/// The files, and the bundle.
///
/// # Errors
///
/// An image without a store.
pub fn decide(site: &SiteConfig, machine: &Machine) -> Result<Vec<Item>, Vec<Problem>> {
    if site.authorities.is_empty() {
        return Ok(Vec::new());
    }
    if !machine.has.contains(&Feature::Authorities) {
        return Err(vec![site.problem(
            "ca",
            "this appliance has no store of certificate authorities",
            "delete [[ca]], or ask the vendor for the package `ca-certificates`",
        )]);
    }
    let mut items = Vec::new();
    let mut all = String::new();
    for certificate in &site.authorities {
        let pem = certificate.pem();
        let name = Digest::of(&certificate.der).short();
        all.push_str(&pem);
        items.push(Item::text(
            format!("{FOLDER}/consign-{name}.crt"),
            0o644,
            pem,
        ));
    }
    items.push(Item::Authorities { pem: all });
    Ok(items)
}
