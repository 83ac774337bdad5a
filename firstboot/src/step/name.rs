//! The machine's name.

use consign_schema::SiteConfig;

use crate::item::Item;
use crate::root::Root;

/// Where the name is kept.
pub const HOSTNAME: &str = "/etc/hostname";

/// `/etc/hostname`, and the name in `/etc/hosts`.
pub fn decide(site: &SiteConfig) -> Vec<Item> {
    let Some(name) = &site.system.hostname else {
        return Vec::new();
    };
    vec![
        Item::text(HOSTNAME, 0o644, format!("{name}\n")),
        Item::HostsName {
            name: name.to_string(),
        },
    ]
}

/// Tells the kernel the name that the system has now; systemd read the file
/// before the agent wrote it.
///
/// # Errors
///
/// What the system reports.
pub fn tell_kernel(root: &Root) -> std::io::Result<()> {
    let text = root.read_text(HOSTNAME, consign_schema::MAX_SIZE)?;
    let name = text.trim();
    let current = rustix::system::uname();
    if !name.is_empty() && current.nodename().to_bytes() != name.as_bytes() {
        rustix::system::sethostname(name.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{paths, site, text_of};
    use super::*;

    #[test]
    fn a_name_is_written_with_its_domain() {
        let site = site("[system]\nhostname = \"web-1.example.org\"\n");
        let items = decide(&site);
        assert_eq!(paths(&items), ["/etc/hostname", "/etc/hosts"]);
        assert_eq!(text_of(&items, HOSTNAME), Some("web-1.example.org\n"));
    }

    #[test]
    fn without_a_name_the_image_keeps_its_own() {
        assert_eq!(decide(&site("")), []);
    }
}
