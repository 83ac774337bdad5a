//! The language of the system.

use consign_schema::{Locale, Problem, SiteConfig};

use super::{Feature, Machine};
use crate::item::Item;
use crate::root::Root;

/// Locales that every C library of Debian 12 has built in.
const BUILT_IN: &[&str] = &["C", "POSIX", "C.UTF-8"];
const LOCALES: &str = "/usr/lib/locale";
/// An archive above this size is not searched.
const MAX_ARCHIVE: usize = 32 << 20;

/// Whether the image has the locale: built in, as a folder, or in the archive.
pub fn has_locale(root: &Root, locale: Option<&Locale>) -> bool {
    let Some(locale) = locale else {
        return true;
    };
    if BUILT_IN.contains(&locale.as_str()) {
        return true;
    }
    // Names are stored with the character set as locale-gen normalises it.
    let stored = locale.as_str().replace(".UTF-8", ".utf8");
    if root.exists(&format!("{LOCALES}/{stored}")) {
        return true;
    }
    let archive = root.read(&format!("{LOCALES}/locale-archive"), MAX_ARCHIVE);
    let name = format!("\0{stored}\0");
    archive.is_ok_and(|bytes| {
        bytes.is_some_and(|bytes| {
            bytes
                .windows(name.len())
                .any(|window| window == name.as_bytes())
        })
    })
}

/// `/etc/default/locale`.
///
/// # Errors
///
/// A locale that the image does not have.
pub fn decide(site: &SiteConfig, machine: &Machine) -> Result<Vec<Item>, Vec<Problem>> {
    let mut items = keymap(site, machine)?;
    let Some(locale) = &site.system.locale else {
        return Ok(items);
    };
    if !machine.has.contains(&Feature::Locale) {
        return Err(vec![site.problem(
            "system.locale",
            "this appliance does not have the locale",
            "write \"C.UTF-8\", or ask the vendor for the locale",
        )]);
    }
    items.push(Item::text(
        "/etc/default/locale",
        0o644,
        format!("LANG={locale}\n"),
    ));
    Ok(items)
}

/// `/etc/vconsole.conf`, which systemd-vconsole-setup reads.
fn keymap(site: &SiteConfig, machine: &Machine) -> Result<Vec<Item>, Vec<Problem>> {
    let Some(keymap) = &site.system.keymap else {
        return Ok(Vec::new());
    };
    if !machine.has.contains(&Feature::Keymaps) {
        return Err(vec![site.problem(
            "system.keymap",
            "this appliance has no keyboard tables",
            "delete `keymap`, or ask the vendor for the packages `kbd` and `console-data`",
        )]);
    }
    let text = format!("KEYMAP={keymap}\n");
    Ok(vec![Item::text("/etc/vconsole.conf", 0o644, text)])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{machine, site, text_of};
    use super::*;
    use crate::root::testing::Folder;

    #[test]
    fn locales_are_found_where_the_c_library_looks() {
        let system = Folder::with(&[
            ("/usr/lib/locale/de_DE.utf8/LC_CTYPE", ""),
            ("/usr/lib/locale/locale-archive", "x\0fr_FR.utf8\0y"),
        ]);
        let has = |name: &str| {
            let site = site(&format!("[system]\nlocale = \"{name}\"\n"));
            has_locale(&system.root, site.system.locale.as_ref())
        };
        assert!(has("C.UTF-8") && has("de_DE.UTF-8") && has("fr_FR.UTF-8") && !has("it_IT.UTF-8"));
    }

    #[test]
    fn the_language_is_written_for_logins_and_services() {
        let site = site("[system]\nlocale = \"C.UTF-8\"\n");
        let items = decide(&site, &machine()).expect("decided");
        assert_eq!(
            text_of(&items, "/etc/default/locale"),
            Some("LANG=C.UTF-8\n")
        );
        let problems = decide(&site, &Machine::default()).expect_err("not there");
        assert_eq!(
            problems
                .first()
                .map(|problem| (problem.line, problem.column)),
            Some((6, 10))
        );
    }
}
