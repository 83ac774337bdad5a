//! Which configuration this is, for everybody on the machine to read.

use std::fmt::Write as _;

use consign_schema::SiteConfig;

use crate::item::Item;
use crate::text::quoted;

/// Facts of the configuration for services and people; no secrets.
const FACTS: &str = "/run/consign/site-facts.toml";

/// A small file with identifier, serial and role.
pub fn decide(site: &SiteConfig) -> Vec<Item> {
    let mut text = format!(
        "id = {}\nserial = {}\n",
        quoted(site.id.as_str()),
        site.serial
    );
    if let Some(role) = &site.role {
        let _ = writeln!(text, "role = {}", quoted(role));
    }
    vec![Item::text(FACTS, 0o644, text)]
}
