//! Which configuration this is, for everybody on the machine to read.

use consign_schema::{Problem, SiteConfig};

use super::Machine;
use crate::item::Item;
use crate::text::quoted;

/// Facts of the configuration for services and people; no secrets.
const FACTS: &str = "/run/consign/site-facts.toml";

/// A small file with identifier, serial and role.
///
/// # Errors
///
/// None.
pub fn decide(site: &SiteConfig, _machine: &Machine) -> Result<Vec<Item>, Vec<Problem>> {
    let mut text = format!(
        "id = {}\nserial = {}\n",
        quoted(site.id.as_str()),
        site.serial
    );
    if let Some(role) = &site.role {
        text.push_str(&format!("role = {}\n", quoted(role)));
    }
    Ok(vec![Item::text(FACTS, 0o644, text)])
}
