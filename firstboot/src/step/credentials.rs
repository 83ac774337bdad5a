//! Which service gets which secret.

use std::fmt::Write as _;

use consign_schema::{Problem, SecretSource, SiteConfig};

use super::{Machine, drop_in};
use crate::item::Item;
use crate::secrets::STORE;

/// Drop-ins that let services load their credentials; no secret is in them.
///
/// # Errors
///
/// Services that the role does not have, and that would get nothing.
pub fn decide(site: &SiteConfig, machine: &Machine) -> Result<Vec<Item>, Vec<Problem>> {
    let services: Vec<&String> = machine.services().collect();
    let problems = strangers(site, &services);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut items = Vec::new();
    for unit in services.iter().filter(|unit| unit.ends_with(".service")) {
        let mut text = "[Service]\n".to_owned();
        let gets = |services: &[String]| services.is_empty() || services.contains(*unit);
        let wanted = site.secrets.iter().filter(|secret| gets(&secret.services));
        let mut count = 0;
        let mut waits = String::new();
        for secret in wanted {
            if secret.from == SecretSource::Console {
                let _ = writeln!(waits, "ConditionPathExists={STORE}/{}", secret.name);
            }
            let _ = writeln!(text, "LoadCredential={0}:{STORE}/{0}", secret.name);
            count += 1;
        }
        if count > 0 {
            if !waits.is_empty() {
                // Skipped until somebody has entered it, and no failure.
                text = format!("[Unit]\n{waits}\n{text}");
            }
            items.push(drop_in(unit, "secrets", &text));
        }
    }
    Ok(items)
}

/// Without a role nothing gets a secret, whoever is named.
fn strangers(site: &SiteConfig, services: &[&String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let secrets = site.secrets.iter().filter(|_| !services.is_empty());
    for secret in secrets {
        let strangers = secret.services.iter();
        for unit in strangers.filter(|unit| !services.contains(unit)) {
            let key = format!("secret.{}.services", secret.name);
            let names: Vec<&str> = services.iter().map(|unit| unit.as_str()).collect();
            let message = format!("{unit} is no service of the role, and would not get it");
            let remedy = format!("name one of its services: {}", names.join(", "));
            problems.push(site.problem(&key, &message, &remedy));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::testing::{machine_with_role, site, text_of};
    use super::*;

    #[test]
    fn a_service_loads_what_it_is_given() {
        let text = "[secret.db]\nfrom = \"secrets.age\"\n[secret.other]\nfrom = \"secrets.age\"\nservices = [\"nginx.service\"]\n";
        let items = decide(&site(text), &machine_with_role()).expect("decided");
        assert_eq!(
            text_of(
                &items,
                "/run/systemd/system/nginx.service.d/50-consign-secrets.conf"
            ),
            Some(
                "[Service]\nLoadCredential=db:/run/credstore/db\nLoadCredential=other:/run/credstore/other\n"
            )
        );
        assert_eq!(items.len(), 1);
        let text = text.replace("nginx", "ngnix");
        let problems = decide(&site(&text), &machine_with_role()).expect_err("nobody's");
        assert_eq!(
            problems[0].message,
            "ngnix.service is no service of the role, and would not get it"
        );
        assert_eq!(
            problems[0].remedy,
            "name one of its services: nginx.service"
        );
    }

    #[test]
    fn a_service_waits_for_what_somebody_has_to_enter() {
        let items = decide(
            &site("[secret.pin]\nfrom = \"console\"\n"),
            &machine_with_role(),
        )
        .expect("decided");
        assert_eq!(
            text_of(
                &items,
                "/run/systemd/system/nginx.service.d/50-consign-secrets.conf"
            ),
            Some(
                "[Unit]\nConditionPathExists=/run/credstore/pin\n\n\
                 [Service]\nLoadCredential=pin:/run/credstore/pin\n"
            )
        );
    }
}
