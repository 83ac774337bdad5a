//! The proxy, for the services that the role names and for people.
//!
//! A service gets it in its environment by a drop-in on `/run`, made at every
//! start; programs differ in which case they read, so both are set.

use std::fmt::Write as _;

use consign_schema::SiteConfig;

use super::{Machine, drop_in};
use crate::item::Item;

/// What shells of people read (environment.d(5), by way of PAM).
const PEOPLE: &str = "/etc/environment.d/50-consign-proxy.conf";

/// Drop-ins of the role's services, and the variables for people.
pub fn decide(site: &SiteConfig, machine: &Machine) -> Vec<Item> {
    let proxy = &site.proxy;
    let none = (!proxy.no_proxy.is_empty()).then(|| proxy.no_proxy.join(","));
    let http = proxy.http.as_ref().map(ToString::to_string);
    let https = proxy.https.as_ref().map(ToString::to_string);
    let mut variables = Vec::new();
    for (name, value) in [
        ("http_proxy", http),
        ("https_proxy", https),
        ("no_proxy", none),
    ] {
        let Some(value) = value else { continue };
        variables.push((name.to_owned(), value.clone()));
        variables.push((name.to_ascii_uppercase(), value));
    }
    if variables.is_empty() {
        return Vec::new();
    }
    let mut people = String::new();
    let mut service = "[Service]\n".to_owned();
    for (name, value) in &variables {
        let _ = writeln!(people, "{name}={value}");
        // Percent signs begin specifiers in units.
        let _ = writeln!(
            service,
            "Environment=\"{name}={}\"",
            value.replace('%', "%%")
        );
    }
    let mut items = vec![Item::text(PEOPLE, 0o644, people)];
    for unit in machine.services().filter(|unit| unit.ends_with(".service")) {
        items.push(drop_in(unit, "proxy", &service));
    }
    items
}

#[cfg(test)]
mod tests {
    use super::super::testing::{machine_with_role, paths, site, text_of};
    use super::*;

    #[test]
    fn services_of_the_role_and_people_get_it() {
        let text =
            "[proxy]\nhttp = \"http://proxy.example.org:3128\"\nno_proxy = [\".example.org\"]\n";
        let items = decide(&site(text), &machine_with_role());
        let unit = "/run/systemd/system/nginx.service.d/50-consign-proxy.conf";
        assert_eq!(paths(&items), [PEOPLE, unit]);
        let text = text_of(&items, unit).expect("a drop-in");
        assert!(
            text.contains("Environment=\"http_proxy=http://proxy.example.org:3128\"\n"),
            "{text}"
        );
        assert!(text.contains("NO_PROXY=.example.org") && !text.contains("https_proxy"));
        assert_eq!(decide(&site(""), &machine_with_role()), []);
    }
}
