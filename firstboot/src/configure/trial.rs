//! Whether a configuration on trial stays.

use std::net::IpAddr;
use std::time::Duration;

use consign_schema::DiskFileSystem;

use super::tried::{self, End};
use super::{judge, roll_back};
use crate::generation::Generation;
use crate::hook;
use crate::item::Item;
use crate::media::SITE_FILE;
use crate::neighbours;
use crate::root::Root;
use crate::state::{Phase, State, Then};
use crate::status::Status;

/// How long a gateway may take to answer.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// Units that every machine needs besides those of its role.
const NEEDED: [&str; 3] = ["systemd-networkd.service", "ssh.service", hook::UNIT];

/// What became of a trial.
#[derive(Debug)]
pub enum Verdict {
    /// There was none.
    None,
    /// The configuration stays.
    Confirmed,
    /// It does not work; what the machine is now, and why.
    Back(Box<Status>, String),
}

/// Folders where data disks are mounted that may grow, and whether they have
/// XFS.
pub fn growing_disks(root: &Root) -> Vec<(String, bool)> {
    let Ok(Some(state)) = State::load(root) else {
        return Vec::new();
    };
    let Ok(generation) = Generation::load(root, &state) else {
        return Vec::new();
    };
    let has_disks = |item: &Item| matches!(item, Item::DataDisk(_));
    if !generation.items.iter().any(has_disks) {
        return Vec::new();
    }
    let Ok((site, _)) = judge(root, &generation.site, SITE_FILE) else {
        return Vec::new();
    };
    let growing = site.disks.into_iter().filter(|disk| disk.grow);
    growing
        .map(|disk| (disk.mount, disk.fs == DiskFileSystem::Xfs))
        .collect()
}

/// Confirms a configuration on trial when its gateways answer and its units
/// run, and goes back otherwise.
pub fn verdict(root: &Root, failed_units: &[String]) -> Verdict {
    let Ok(Some(state)) = State::load(root) else {
        return Verdict::None;
    };
    if state.phase != Phase::Trial {
        return Verdict::None;
    }
    let Ok(generation) = Generation::load(root, &state) else {
        return Verdict::None;
    };
    let reason = match fault(root, &generation, failed_units) {
        None => match confirm(root) {
            Ok(_) => return Verdict::Confirmed,
            Err(error) => format!("that it works could not be noted: {error}"),
        },
        Some(reason) => reason,
    };
    if let Err(error) = tried::note(root, generation.digest(), End::Failed) {
        complain!("cannot note a failed configuration: {error}");
    }
    match roll_back(root, &state, Then::Forget) {
        Some(Ok(outcome)) => Verdict::Back(Box::new(outcome.status), reason),
        Some(Err(status)) => Verdict::Back(status, reason),
        None => Verdict::None,
    }
}

/// Lets the configuration on trial stay; whether there was one.
///
/// # Errors
///
/// What the system reports.
pub fn confirm(root: &Root) -> std::io::Result<bool> {
    let other = |error: &dyn ToString| std::io::Error::other(error.to_string());
    let Some(state) = State::load(root).map_err(|error| other(&error))? else {
        return Ok(false);
    };
    if state.phase != Phase::Trial {
        return Ok(false);
    }
    let generation = Generation::load(root, &state).map_err(|error| other(&error))?;
    state.confirmed(generation.serial).save(root)?;
    Ok(true)
}

/// Why the configuration does not work, if it does not.
fn fault(root: &Root, generation: &Generation, failed_units: &[String]) -> Option<String> {
    let (site, vendor) = judge(root, &generation.site, SITE_FILE).ok()?;
    let role = vendor
        .roles
        .iter()
        .find(|role| Some(&role.name) == site.role.as_ref());
    let services = role
        .map(|role| role.services.as_slice())
        .unwrap_or_default();
    let is_needed = |unit: &&String| NEEDED.contains(&unit.as_str()) || services.contains(*unit);
    if let Some(unit) = failed_units.iter().find(is_needed) {
        return Some(format!("{unit} failed"));
    }
    let nics = site.nics.iter().map(|nic| &nic.link);
    let bonds = site.bonds.iter().map(|bond| &bond.link);
    let vlans = site.vlans.iter().map(|vlan| &vlan.link);
    let links = nics.chain(bonds).chain(vlans);
    let gateways: Vec<IpAddr> = links
        .flat_map(|link| link.gateways.iter().copied())
        .collect();
    let silent = neighbours::silent(&gateways, PATIENCE);
    silent
        .first()
        .map(|gateway| format!("the gateway {gateway} does not answer"))
}
