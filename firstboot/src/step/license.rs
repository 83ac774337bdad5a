//! The licence beside the configuration, where the vendor's program looks.

use consign_schema::{Problem, SiteConfig};

use super::Machine;
use crate::item::Item;

/// Where it goes when the vendor's policy names no place.
const FOLDER: &str = "/etc/consign/license";

/// The licence as a file.
///
/// # Errors
///
/// When it did not come with the configuration.
pub fn decide(site: &SiteConfig, machine: &Machine) -> Result<Vec<Item>, Vec<Problem>> {
    let Some(license) = &site.license else {
        return Ok(Vec::new());
    };
    let Some(bytes) = &machine.license else {
        let message = format!("{} did not come with the configuration", license.file);
        let remedy = "copy it into the folder license of the medium; for `appliance apply`, name it with --license";
        return Err(vec![site.problem("license.file", &message, remedy)]);
    };
    let name = license.file.rsplit('/').next().unwrap_or_default();
    let place = machine.license_place.clone();
    Ok(vec![Item::File {
        path: place.unwrap_or_else(|| format!("{FOLDER}/{name}")),
        mode: 0o644,
        bytes: bytes.clone(),
    }])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{machine, site, text_of};
    use super::*;

    #[test]
    fn a_licence_goes_where_the_vendor_says() {
        let site = site("[license]\nfile = \"Product.key\"\n");
        let mut machine = machine();
        let problems = decide(&site, &machine).expect_err("it is missing");
        assert_eq!((problems[0].line, problems[0].column), (6, 8));
        machine.license = Some(b"KEY".to_vec());
        let items = decide(&site, &machine).expect("decided");
        assert_eq!(
            text_of(&items, "/etc/consign/license/product.key"),
            Some("KEY")
        );
        machine.license_place = Some("/etc/app/key".into());
        let items = decide(&site, &machine).expect("decided");
        assert_eq!(text_of(&items, "/etc/app/key"), Some("KEY"));
    }
}
