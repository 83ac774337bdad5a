//! Time zone and time servers.

use consign_schema::{Endpoint, Problem, SiteConfig, TimeZone};

use super::{Feature, Machine};
use crate::item::Item;
use crate::root::Root;

const ZONES: &str = "/usr/share/zoneinfo";
/// The time service, where the image has it.
pub const TIMESYNCD_PROGRAM: &str = "/usr/lib/systemd/systemd-timesyncd";
/// Drop-in of systemd-timesyncd; on `/run`, as it is made at every start.
pub const TIMESYNCD: &str = "/run/systemd/timesyncd.conf.d/50-consign.conf";

/// The daemon of chrony.
pub const CHRONYD: &str = "/usr/sbin/chronyd";
/// chrony's own folder for sources (Debian's `chrony.conf`).
const CHRONY: &str = "/etc/chrony/sources.d/consign.sources";

/// Universal time needs no zone database: the C library takes it whenever
/// `/etc/localtime` leads nowhere, and systemd reads the name off the link.
const UNIVERSAL: &[&str] = &["UTC", "Etc/UTC"];

/// Whether the image has the zone.
pub fn has_zone(root: &Root, zone: Option<&TimeZone>) -> bool {
    zone.is_none_or(|zone| {
        UNIVERSAL.contains(&zone.as_str()) || root.exists(&format!("{ZONES}/{zone}"))
    })
}

/// `/etc/localtime`, `/etc/timezone` and the time servers.
///
/// # Errors
///
/// A zone that the image does not have, servers that nobody would ask.
pub fn decide(site: &SiteConfig, machine: &Machine) -> Result<Vec<Item>, Vec<Problem>> {
    let mut items = Vec::new();
    let mut problems = Vec::new();
    if let Some(zone) = &site.system.timezone {
        if !machine.has.contains(&Feature::Zone) {
            problems.push(site.problem(
                "system.timezone",
                "this appliance does not have the time zone",
                "write a zone such as \"UTC\", or ask the vendor for the package `tzdata`",
            ));
        }
        // Relative, as localtime(5) asks for it.
        let target = format!("..{ZONES}/{zone}");
        let path = "/etc/localtime".to_owned();
        items.push(Item::Link { path, target });
        items.push(Item::text("/etc/timezone", 0o644, format!("{zone}\n")));
    }
    if !site.ntp.servers.is_empty() {
        let servers: Vec<&str> = site.ntp.servers.iter().map(Endpoint::as_str).collect();
        if machine.has.contains(&Feature::Timesyncd) {
            let text = format!("[Time]\nNTP={}\n", servers.join(" "));
            items.push(Item::text(TIMESYNCD, 0o644, text));
        } else if machine.has.contains(&Feature::Chrony) {
            let lines = servers
                .iter()
                .map(|server| format!("server {server} iburst\n"));
            items.push(Item::text(CHRONY, 0o644, lines.collect::<String>()));
        } else {
            problems.push(site.problem(
                "ntp",
                "this appliance has no time service",
                "delete [ntp], or ask the vendor for the package `systemd-timesyncd` or `chrony`",
            ));
        }
    }
    if problems.is_empty() {
        Ok(items)
    } else {
        Err(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{machine, site, text_of};
    use super::*;

    const TEXT: &str = "[system]\ntimezone = \"Europe/Berlin\"\n[ntp]\nservers = [\"a.example.org\", \"10.0.0.1\"]\n";

    #[test]
    fn zone_and_servers_are_set() {
        let items = decide(&site(TEXT), &machine()).expect("decided");
        assert!(items.contains(&Item::Link {
            path: "/etc/localtime".into(),
            target: "../usr/share/zoneinfo/Europe/Berlin".into(),
        }));
        assert_eq!(
            text_of(&items, TIMESYNCD),
            Some("[Time]\nNTP=a.example.org 10.0.0.1\n")
        );
    }

    #[test]
    fn chrony_gets_the_servers_where_there_is_no_timesyncd() {
        let mut machine = machine();
        machine.has.remove(&Feature::Timesyncd);
        machine.has.insert(Feature::Chrony);
        let items = decide(&site(TEXT), &machine).expect("decided");
        assert_eq!(
            text_of(&items, CHRONY),
            Some("server a.example.org iburst\nserver 10.0.0.1 iburst\n")
        );
        assert_eq!(text_of(&items, TIMESYNCD), None);
    }

    #[test]
    fn universal_time_needs_no_zone_database() {
        let system = crate::root::testing::Folder::with(&[("/usr/share/zoneinfo/Asia/Tokyo", "")]);
        let has = |name: &str| {
            let site = site(&format!("[system]\ntimezone = \"{name}\"\n"));
            has_zone(&system.root, site.system.timezone.as_ref())
        };
        assert!(has("UTC") && has("Etc/UTC") && has("Asia/Tokyo") && !has("Europe/Berlin"));
    }

    #[test]
    fn what_the_image_cannot_do_is_said_at_its_place() {
        let machine = Machine::default();
        let problems = decide(&site(TEXT), &machine).expect_err("neither zone nor service");
        let places: Vec<_> = problems
            .iter()
            .map(|problem| (problem.key.as_str(), problem.line, problem.column))
            .collect();
        assert_eq!(places, [("system.timezone", 6, 12), ("ntp", 7, 2)]);
    }
}
