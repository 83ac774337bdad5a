//! What only a machine, a clock or a medium knows, and what it says of a
//! configuration.

use std::collections::BTreeSet;

use crate::date::Moment;
use crate::disk::DiskMatch;
use crate::link::VlanParent;
use crate::medium::SecretSource;
use crate::nic_match::NicMatch;
use crate::problem::{Code, Problem};
use crate::site::SiteConfig;

/// Facts to judge by; nothing is said about what is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The present moment, from a clock that can be trusted.
    pub now: Option<Moment>,
    /// The network interfaces, in their order. Only where all drivers are loaded.
    pub nics: Option<Vec<NicFact>>,
    /// Disks besides the system's own and config media, in their order.
    pub disks: Option<Vec<DiskFact>>,
    /// Names of the files on the medium, in small letters, folders with a slash.
    pub files: Option<BTreeSet<String>>,
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NicFact {
    /// Its name.
    pub name: String,
    /// Its hardware address in small hexadecimal digits with colons.
    pub mac: String,
    /// Its PCI address, such as `0000:00:03.0`; empty on other buses.
    pub slot: String,
}

/// A disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskFact {
    /// The kernel's name.
    pub name: String,
    /// Its serial number; empty where it has none.
    pub serial: String,
    /// Its length in bytes.
    pub size: u64,
}

/// The problems of `site`, in the order of the file.
pub(crate) fn judge(site: &SiteConfig, facts: &Facts) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(now) = facts.now {
        judge_dates(site, now, &mut problems);
    }
    if let Some(nics) = &facts.nics {
        judge_nics(site, nics, &mut problems);
    }
    if let Some(disks) = &facts.disks {
        judge_disks(site, disks, &mut problems);
    }
    if let Some(files) = &facts.files {
        judge_files(site, files, &mut problems);
    }
    Problem::sort(&mut problems);
    problems
}

fn judge_dates(site: &SiteConfig, now: Moment, problems: &mut Vec<Problem>) {
    let clock = format!("the clock says {now}");
    if let Some(first) = site.not_before.filter(|first| now < *first) {
        let message = format!("the file counts from {first} on, and {clock}");
        let remedy = "set the machine's clock, or ask for a file that counts now";
        problems.push(site.problem_of(Code::NotYetValid, "config.not_before", &message, remedy));
    }
    if let Some(last) = site.not_after.filter(|last| now > *last) {
        let message = format!("the file counted until {last}, and {clock}");
        let remedy = "ask for a newer file, or set the machine's clock";
        problems.push(site.problem_of(Code::Expired, "config.not_after", &message, remedy));
    }
    for authority in &site.authorities {
        if now > authority.not_after {
            let message = format!(
                "the certificate ended on {}, and {clock}",
                authority.not_after
            );
            let remedy = "ask for the authority's present certificate";
            problems.push(site.problem_of(Code::Expired, &authority.key, &message, remedy));
        } else if now < authority.not_before {
            let message = format!(
                "the certificate begins on {}, and {clock}",
                authority.not_before
            );
            let remedy = "set the machine's clock";
            problems.push(site.problem_of(Code::NotYetValid, &authority.key, &message, remedy));
        }
    }
}

fn judge_nics(site: &SiteConfig, nics: &[NicFact], problems: &mut Vec<Problem>) {
    let own = (1..).zip(&site.nics);
    let mut asked: Vec<(String, &NicMatch)> = own
        .map(|(at, nic): (usize, _)| (format!("nic[{at}].match"), &nic.matches))
        .collect();
    for bond in &site.bonds {
        let members = (1..).zip(&bond.members);
        asked.extend(
            members.map(|(at, member): (usize, _)| {
                (format!("bond.{}.members[{at}]", bond.name), member)
            }),
        );
    }
    for vlan in &site.vlans {
        if let VlanParent::Nic(matches) = &vlan.on {
            asked.push((format!("vlan.{}.match", vlan.name), matches));
        }
    }
    for (key, matches) in asked {
        let is_there = match matches {
            NicMatch::Mac(mac) => nics.iter().any(|nic| nic.mac == mac.to_string()),
            NicMatch::Position(place) => usize::from(*place) <= nics.len(),
            NicMatch::Slot(slot) => nics.iter().any(|nic| nic.slot == *slot),
            // A pattern may be meant for what comes later.
            NicMatch::Name(_) => true,
        };
        if !is_there {
            let list: Vec<String> = nics
                .iter()
                .map(|nic| format!("{} ({})", nic.name, nic.mac))
                .collect();
            let message = "the machine has no such network interface";
            let remedy = "name one that it has, or attach it";
            let mut problem = site.problem(&key, message, remedy);
            problem.allowed = Some(list.join(", "));
            problems.push(problem);
        }
    }
}

fn judge_disks(site: &SiteConfig, disks: &[DiskFact], problems: &mut Vec<Problem>) {
    for disk in &site.disks {
        let found = match &disk.matches {
            DiskMatch::Position(place) => disks.get(usize::from(*place) - 1),
            DiskMatch::Serial(serial) => disks.iter().find(|disk| disk.serial == *serial),
        };
        let key = |part: &str| format!("disk.{}.{part}", disk.name);
        match found {
            None => {
                let list: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
                let message = "the machine has no such disk";
                let remedy = "attach it, or name one that is there";
                let mut problem = site.problem(&key("match"), message, remedy);
                problem.allowed = Some(list.join(", ")).filter(|list| !list.is_empty());
                problems.push(problem);
            }
            Some(fact) if fact.size < disk.min_size => {
                let mib = |bytes: u64| bytes >> 20;
                let message = format!(
                    "the disk {} has {} MiB, and {} are needed",
                    fact.name,
                    mib(fact.size),
                    mib(disk.min_size)
                );
                problems.push(site.problem(&key("min_size"), &message, "attach a larger disk"));
            }
            Some(_) => {}
        }
    }
}

fn judge_files(site: &SiteConfig, files: &BTreeSet<String>, problems: &mut Vec<Problem>) {
    if let Some(license) = &site.license
        && !files.contains(&license.file)
    {
        let message = format!("the medium has no file {}", license.file);
        let remedy = "copy the file into the folder license of the medium";
        problems.push(site.problem("license.file", &message, remedy));
    }
    let sealed = site
        .secrets
        .iter()
        .find(|secret| secret.from == SecretSource::Age);
    if let Some(secret) = sealed
        && !files.contains("secrets.age")
    {
        let key = format!("secret.{}", secret.name);
        let message = "the medium has no file secrets.age";
        let remedy = "copy it to the root of the medium, or write from = \"console\"";
        problems.push(site.problem(&key, message, remedy));
    }
}
