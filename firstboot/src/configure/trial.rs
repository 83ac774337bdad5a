//! Whether a configuration on trial stays.

use std::time::Duration;

use consign_schema::DiskFileSystem;

use super::later::Outcome;
use super::tried::{self, End};
use super::{judge, reach, roll_back};
use crate::generation::{Generation, GenerationError};
use crate::hook;
use crate::item::Item;
use crate::media::SITE_FILE;
use crate::root::Root;
use crate::state::{Phase, State, Then};
use crate::status::Status;
use crate::systemd::SILENT;

/// How long addresses may take to come, and gateways to answer.
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

/// Confirms a configuration on trial, if it is this generation, when its network has come up and its units
/// run, and goes back otherwise.
pub fn verdict(root: &Root, number: u32, failed_units: &[String]) -> Verdict {
    let Ok(Some(state)) = State::load(root) else {
        return Verdict::None;
    };
    // Somebody else's, who asked to confirm it, is not ours to judge.
    if state.phase != Phase::Trial || state.generation.number != number {
        return Verdict::None;
    }
    let loaded = Generation::load(root, &state);
    let fault = match &loaded {
        Ok(generation) => {
            let before = Generation::previous(root, &state).ok().flatten();
            fault(root, generation, &before.unwrap_or_default(), failed_units)
        }
        Err(error) => Some(error.to_string()),
    };
    let reason = match fault {
        None => match confirm(root) {
            Ok(_) => return Verdict::Confirmed,
            Err(error) => format!("that it works could not be noted: {error}"),
        },
        Some(reason) => reason,
    };
    if let Ok(generation) = &loaded
        && let Err(error) = tried::note(root, generation.digest(), End::Failed)
    {
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

/// Takes back the configuration of this digest, if it is on trial; what became
/// of that. It may be asked any number of times.
///
/// # Errors
///
/// When what counts cannot be read.
pub fn take_back(
    root: &Root,
    digest: &str,
) -> std::io::Result<Option<Result<Outcome, Box<Status>>>> {
    let other = |error: &dyn ToString| std::io::Error::other(error.to_string());
    let Some(state) = State::load(root).map_err(|error| other(&error))? else {
        return Ok(None);
    };
    if !state.is_on_trial() {
        return Ok(None);
    }
    match Generation::load(root, &state) {
        Ok(generation) if generation.digest().to_string() != digest => Ok(None),
        // The same file is not taken again from a medium that is still there:
        // then nobody would be asked to confirm it.
        Ok(generation) => {
            tried::note(root, generation.digest(), End::Failed)?;
            Ok(roll_back(root, &state, Then::Forget))
        }
        // What is on trial and damaged is nothing to keep.
        Err(GenerationError::Damaged(_)) => Ok(roll_back(root, &state, Then::Forget)),
        Err(error) => Err(other(&error)),
    }
}

/// Why the configuration does not work, if it does not.
fn fault(
    root: &Root,
    generation: &Generation,
    before: &Generation,
    failed_units: &[String],
) -> Option<String> {
    let (site, vendor) = match judge(root, &generation.site, SITE_FILE) {
        Ok(judged) => judged,
        Err(refused) => return Some(refused.summary().to_owned()),
    };
    let role = vendor
        .roles
        .iter()
        .find(|role| Some(&role.name) == site.role.as_ref());
    let services = role
        .map(|role| role.services.as_slice())
        .unwrap_or_default();
    if failed_units.iter().any(|unit| unit == SILENT) {
        return Some("the service manager does not say which units failed".to_owned());
    }
    let is_needed = |unit: &&String| NEEDED.contains(&unit.as_str()) || services.contains(*unit);
    if let Some(unit) = failed_units.iter().find(is_needed) {
        return Some(format!("{unit} failed"));
    }
    reach::fault(root, &generation.items, &before.items, PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::super::go_on;
    use super::*;
    use crate::digest::Digest;
    use crate::media::Found;
    use crate::root::testing::Folder;
    use crate::status::Standing;

    /// A machine whose second configuration is on trial, and its record.
    fn on_trial(system: &Folder) -> (Generation, State) {
        on_trial_after(system, Vec::new())
    }

    /// The same, where the first one had these items.
    fn on_trial_after(system: &Folder, items: Vec<Item>) -> (Generation, State) {
        let root = &system.root;
        let mut one = Generation {
            site: b"one".to_vec(),
            items,
            ..Generation::default()
        };
        let mut state = one.commit(root, None, Then::Stay).expect("committed");
        one.activate(root, &mut state).expect("in place");
        let mut two = Generation {
            site: b"two".to_vec(),
            ..Generation::default()
        };
        let state = two
            .commit(root, Some((&state, &one)), Then::Trial)
            .expect("committed");
        (two, state)
    }

    fn counting(system: &Folder) -> (Vec<u8>, Phase) {
        let state = State::load(&system.root).expect("good").expect("there");
        let generation = Generation::load(&system.root, &state).expect("good");
        (generation.site, state.phase)
    }

    #[test]
    fn what_can_no_longer_be_judged_does_not_work() {
        let system = Folder::new();
        let (two, mut state) = on_trial(&system);
        two.activate(&system.root, &mut state).expect("in place");
        let Verdict::Back(_, reason) = verdict(&system.root, state.generation.number, &[]) else {
            panic!("a file that is no configuration was confirmed");
        };
        assert_eq!(reason, "the configuration is wrong");
        assert_eq!(counting(&system), (b"one".to_vec(), Phase::Active));
    }

    #[test]
    fn what_failed_on_trial_never_comes_back() {
        let system = Folder::new();
        let root = &system.root;
        let items = vec![Item::text("/etc/one", 0o644, "1\n")];
        let (two, mut state) = on_trial_after(&system, items);
        two.activate(root, &mut state).expect("in place");
        // Where the first one's file goes, somebody made a folder.
        let in_the_way = system.path().join("etc/one/x");
        std::fs::create_dir_all(&in_the_way).expect("made");
        let Verdict::Back(status, _) = verdict(root, state.generation.number, &[]) else {
            panic!("a file that is no configuration was confirmed");
        };
        assert_eq!(status.standing, Standing::Fenced);
        for _ in 0..3 {
            let status = go_on(root, &Found::default()).expect("a status");
            assert_eq!(status.standing, Standing::Fenced);
            assert_eq!(counting(&system), (b"one".to_vec(), Phase::Committed));
        }
        std::fs::remove_dir_all(system.path().join("etc/one")).expect("gone");
        let status = go_on(root, &Found::default()).expect("a status");
        assert_eq!(status.standing, Standing::Starting);
        assert_eq!(counting(&system), (b"one".to_vec(), Phase::Active));
        assert!(!tried::is_spent(root, Digest::of(b"one")));
        assert!(tried::is_spent(root, two.digest()));
    }

    #[test]
    fn only_what_is_on_trial_is_taken_back() {
        let system = Folder::new();
        let root = &system.root;
        assert!(take_back(root, "x").expect("asked").is_none());
        let (two, mut state) = on_trial(&system);
        let digest = two.digest().to_string();
        two.activate(root, &mut state).expect("in place");
        assert!(take_back(root, "x").expect("asked").is_none());
        assert_eq!(counting(&system), (b"two".to_vec(), Phase::Trial));
        let outcome = take_back(root, &digest).expect("asked");
        assert!(outcome.is_some_and(|outcome| outcome.is_ok()));
        assert_eq!(counting(&system), (b"one".to_vec(), Phase::Active));
        assert!(take_back(root, &digest).expect("asked").is_none());
        // Its medium may still be there.
        assert!(tried::is_spent(root, two.digest()));
    }

    #[test]
    fn a_trial_that_was_never_put_in_place_is_taken_back_too() {
        let system = Folder::new();
        let (two, _) = on_trial(&system);
        let outcome = take_back(&system.root, &two.digest().to_string()).expect("asked");
        assert!(outcome.is_some_and(|outcome| outcome.is_ok()));
        assert_eq!(counting(&system), (b"one".to_vec(), Phase::Active));
    }

    #[test]
    fn what_was_confirmed_in_time_stays() {
        let system = Folder::new();
        let root = &system.root;
        let (two, mut state) = on_trial(&system);
        two.activate(root, &mut state).expect("in place");
        assert!(confirm(root).expect("confirmed"));
        let digest = two.digest().to_string();
        assert!(take_back(root, &digest).expect("asked").is_none());
        assert_eq!(counting(&system), (b"two".to_vec(), Phase::Active));
    }
}
