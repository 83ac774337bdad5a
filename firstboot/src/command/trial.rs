//! A configuration on trial: what the machine makes of it, and how it goes
//! again when nobody keeps it.
//!
//! Before one begins, the service manager is asked to take it back at a
//! deadline. So it goes whatever becomes of this process: a network that it
//! cut is how most of them end.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::Place;
use super::arguments::{Arguments, USAGE};
use crate::boot::{LOCK, after_trial, bring_up, check_role, judge};
use crate::configure::{Outcome, take_back};
use crate::generation::Generation;
use crate::root::Root;
use crate::state::{Phase, State};
use crate::status::{Standing, Status, code};
use crate::systemd::{self, Request};

/// How often a trial looks whether somebody confirmed it.
const LOOK: Duration = Duration::from_millis(500);
/// The command that takes a configuration back.
pub const COMMAND: &str = "unconfirmed";
/// Who listens for a config disk.
const VERIFY: &str = "appliance-verify.service";
/// Where the manager has units that were made at run time.
const TRANSIENT: &str = "/run/systemd/transient";
/// Without `--confirm` the machine itself decides, and not later than this.
const PATIENCE: u32 = 1800;
/// The longest that somebody may take to confirm.
const LONGEST: u32 = 86_400;
const ON_TRIAL: &str = "the configuration goes again unless `appliance confirm` comes in time";

/// A trial that is to begin.
#[derive(Debug)]
pub struct Trial {
    /// The digest of the customer's file.
    digest: String,
    seconds: u32,
    end: Instant,
    /// Whether somebody is to confirm it.
    is_asked: bool,
}

impl Trial {
    /// What the command line says about it.
    pub fn of(arguments: &Arguments<'_>, digest: String) -> Result<Self, ExitCode> {
        let given = arguments.value("--confirm");
        let seconds = match given {
            None => Some(PATIENCE),
            Some(text) => text.parse().ok().filter(|it| (1..=LONGEST).contains(it)),
        };
        let Some(seconds) = seconds else {
            complain!("appliance: --confirm takes a number of seconds, from 1 to {LONGEST}");
            return Err(ExitCode::from(USAGE));
        };
        Ok(Self {
            digest,
            seconds,
            end: Instant::now() + Duration::from_secs(seconds.into()),
            is_asked: given.is_some(),
        })
    }

    /// Sees to it that it ends, before it begins. Who wants to confirm it gets
    /// no trial that nobody would end.
    pub fn arm(&mut self, place: &Place) -> Result<(), ExitCode> {
        if !place.is_system {
            return Ok(());
        }
        disarm(&place.root, &self.digest);
        self.end = Instant::now() + Duration::from_secs(self.seconds.into());
        let armed = systemd::run_later(&unit(&self.digest), self.seconds, &[COMMAND, &self.digest]);
        let Err(error) = armed else {
            return Ok(());
        };
        if self.is_asked {
            complain!("appliance: not applied: nobody would take it back in time: {error}");
            return Err(ExitCode::from(code::INTERNAL));
        }
        complain!("appliance: nobody takes it back should this command be ended: {error}");
        Ok(())
    }

    /// The timer has nothing to do any more.
    pub fn disarm(&self, place: &Place) {
        if place.is_system {
            disarm(&place.root, &self.digest);
        }
    }

    /// Lets the running system have what was put in place, and sees whether it
    /// works. A folder has no system: there it stays on trial.
    pub fn settle(&self, place: &Place, outcome: Outcome) -> Result<Status, ExitCode> {
        for path in &outcome.activation.drifted {
            tell!("kept a local change of {path} in {path}.local");
        }
        for path in &outcome.activation.written {
            tell!("wrote {path}");
        }
        let (root, mut status) = (&place.root, outcome.status);
        if !place.is_system {
            return Ok(status);
        }
        // It could not be put in place, and the one before it is.
        let is_back = status.refused == code::APPLY_KEPT;
        started(root, &mut status);
        check_role(root, &mut status);
        if self.is_asked && is_on_trial(root) {
            let mut shown = status.clone();
            shown.notes.push(ON_TRIAL.to_owned());
            save(root, &shown);
            let left = self.end.saturating_duration_since(Instant::now()).as_secs();
            tell!("confirm with `appliance confirm` within {left} s");
            while is_on_trial(root) && Instant::now() < self.end {
                std::thread::sleep(LOOK);
            }
            if let Some(back) = took_back(place, &self.digest)? {
                return Ok(back);
            }
        }
        // Whoever takes it back now has said so before the lock is free.
        drop(locked(root)?);
        if !is_back && is_another(root, &self.digest) {
            // The timer was first, or somebody else.
            let mut back = Status::load(root).unwrap_or(status);
            started(root, &mut back);
            return Ok(back);
        }
        Ok(after_trial(root, status))
    }
}

/// Each trial has units of its own, and none stands in the way of another.
fn unit(digest: &str) -> String {
    let short = digest.get(..16).unwrap_or(digest);
    format!("appliance-unconfirmed-{short}")
}

fn disarm(root: &Root, digest: &str) {
    let timer = format!("{}.timer", unit(digest));
    if root.exists(&format!("{TRANSIENT}/{timer}"))
        && let Err(error) = systemd::ask(Request::Stop(&timer))
    {
        complain!("appliance: {error}");
    }
}

/// Has the lock that whoever changes what counts must have.
pub fn locked(root: &Root) -> Result<std::os::fd::OwnedFd, ExitCode> {
    root.lock(LOCK).map_err(|error| {
        complain!("appliance: nothing has changed: {LOCK} cannot be locked: {error}");
        ExitCode::from(code::INTERNAL)
    })
}

/// Whether something waits to be confirmed. What cannot be read may.
fn is_on_trial(root: &Root) -> bool {
    let state = State::load(root);
    state.map_or(true, |state| {
        state.is_some_and(|state| state.phase == Phase::Trial)
    })
}

/// The digest of the configuration that counts, where it is known.
fn counting(root: &Root) -> Option<String> {
    let state = State::load(root).ok()??;
    let generation = Generation::load(root, &state).ok()?;
    Some(generation.digest().to_string())
}

/// Whether it is known that another configuration than this counts.
fn is_another(root: &Root, digest: &str) -> bool {
    counting(root).is_some_and(|counting| counting != digest)
}

/// `unconfirmed DIGEST`, run at the deadline.
pub fn run(place: &Place, digest: &str) -> ExitCode {
    match took_back(place, digest) {
        Ok(Some(status)) => end(place, &status),
        Ok(None) => ExitCode::SUCCESS,
        Err(exit) => exit,
    }
}

/// Takes back what nobody confirmed: what the machine is then; nothing where
/// this configuration is on trial no more.
fn took_back(place: &Place, digest: &str) -> Result<Option<Status>, ExitCode> {
    let root = &place.root;
    let lock = locked(root)?;
    let taken = take_back(root, digest).map_err(|error| {
        complain!("appliance: it cannot be taken back: {error}");
        ExitCode::from(code::INTERNAL)
    })?;
    let mut status = match taken {
        None => return Ok(None),
        Some(Err(status)) => return Ok(Some(*status)),
        Some(Ok(outcome)) => outcome.status,
    };
    status.refused = code::APPLY_KEPT;
    let note = "nobody confirmed the new configuration in time, the one before it is in use again";
    status.notes.push(note.to_owned());
    save(root, &status);
    drop(lock);
    if place.is_system {
        started(root, &mut status);
    }
    Ok(Some(status))
}

/// Lets the running system have what has been put in place. Until it has, the
/// status says that it starts.
pub fn started(root: &Root, status: &mut Status) {
    if status.standing == Standing::Fenced {
        return;
    }
    status.standing = Standing::Starting;
    status.code = code::NOT_YET;
    save(root, status);
    status.system = bring_up(root);
    judge(status);
}

/// What is confirmed is not on trial any more, and whoever waited for that may
/// be gone.
pub fn confirmed(root: &Root) {
    if let Some(digest) = counting(root) {
        disarm(root, &digest);
    }
    let Some(mut status) = Status::load(root) else {
        return;
    };
    status.notes.retain(|note| note != ON_TRIAL);
    if status.standing == Standing::Starting {
        status.system = systemd::wait_until_started();
        judge(&mut status);
    }
    save(root, &status);
}

pub fn save(root: &Root, status: &Status) {
    if let Err(error) = status.save(root) {
        complain!("appliance: cannot write the status: {error}");
    }
}

/// Saves and says what the machine is now. Behind its fence somebody has to
/// listen for what corrects it.
pub fn end(place: &Place, status: &Status) -> ExitCode {
    save(&place.root, status);
    if place.is_system
        && status.standing == Standing::Fenced
        && let Err(error) = systemd::ask(Request::Begin(VERIFY))
    {
        complain!("appliance: {error}");
    }
    for line in status.lines() {
        tell!("{line}");
    }
    match status.standing {
        Standing::Starting => ExitCode::from(status.refused),
        _ => ExitCode::from(status.code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(words: &[&str]) -> Option<(u32, bool)> {
        let arguments = Arguments::parse("apply", words).expect("words");
        let trial = Trial::of(&arguments, String::new()).ok()?;
        Some((trial.seconds, trial.is_asked))
    }

    #[test]
    fn every_trial_has_a_deadline() {
        assert_eq!(seconds(&["x"]), Some((PATIENCE, false)));
        assert_eq!(seconds(&["x", "--confirm", "600"]), Some((600, true)));
        for wrong in ["0", "-1", "5m", "", "86401", "1.5"] {
            assert_eq!(seconds(&["--confirm", wrong]), None, "{wrong}");
        }
    }

    #[test]
    fn every_trial_has_a_timer_of_its_own() {
        let digest = "0123456789abcdef".repeat(4);
        assert_eq!(unit(&digest), "appliance-unconfirmed-0123456789abcdef");
    }
}
