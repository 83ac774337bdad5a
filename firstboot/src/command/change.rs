//! What changes the machine: apply, confirm, rollback, factory-reset; and what
//! only says what would change: plan.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::{Arguments, Place, USAGE, read_bounded, show_problems};
use crate::boot::{LOCK, after_trial, bring_up, check_role, judge};
use crate::configure::{
    Claim, Failed, Offer, Outcome, apply, begin_reset, confirm, finish_reset, roll_back, take_offer,
};
use crate::generation::Generation;
use crate::item::Item;
use crate::media;
use crate::root::Root;
use crate::state::{Phase, State, Then};
use crate::status::{Standing, Status, code};
use crate::systemd::{self, Request};
use crate::write_back;

/// How often a trial looks whether somebody confirmed it.
const LOOK: Duration = Duration::from_millis(500);

/// What is kept, or nothing on a machine that was never configured.
type Kept = Option<(State, Generation)>;

fn kept(root: &Root) -> Result<Kept, ExitCode> {
    let say = |error: &dyn std::fmt::Display| {
        complain!("appliance: {error}");
        ExitCode::from(code::INTERNAL)
    };
    let Some(state) = State::load(root).map_err(|error| say(&error))? else {
        return Ok(None);
    };
    if state.phase == Phase::Reset {
        complain!("appliance: a factory reset has begun; restart the machine");
        return Err(ExitCode::from(code::INTERNAL));
    }
    let generation = Generation::load(root, &state).map_err(|error| say(&error))?;
    Ok(Some((state, generation)))
}

/// The bytes that an offer on the command line is made of.
struct Given {
    file: String,
    site: Vec<u8>,
    signature: Option<Vec<u8>>,
    secrets: Option<Vec<u8>>,
    license: Option<Vec<u8>>,
    claim: Claim,
}

impl Given {
    fn read(arguments: &Arguments<'_>) -> Result<Option<Self>, ExitCode> {
        let Some(file) = arguments.words.first() else {
            return Ok(None);
        };
        let read = |file: &str| read_bounded(file).map_err(|error| super::no_input(file, &error));
        let option = |name| arguments.value(name).map(read).transpose();
        Ok(Some(Self {
            file: (*file).to_owned(),
            site: read(file)?,
            signature: option("--signature")?,
            secrets: option("--secrets")?,
            license: option("--license")?,
            claim: arguments
                .value("--claim")
                .map_or(Claim::None, |code| Claim::Code(code.to_owned())),
        }))
    }

    fn offer(&self) -> Offer<'_> {
        Offer {
            file: self.file.clone(),
            device: &self.file,
            site: &self.site,
            signature: self.signature.as_deref(),
            secrets: self.secrets.as_deref(),
            license: self.license.as_deref(),
            claim: self.claim.clone(),
            medium: None,
        }
    }
}

/// `apply [FILE]`: takes a configuration on trial, and keeps it when it works.
pub fn run_apply(place: &Place, arguments: &Arguments<'_>) -> ExitCode {
    with_offer(place, arguments, |root, offer| {
        let lock = root.lock(LOCK);
        let outcome = match kept(root)? {
            Some((_, generation)) if generation.digest() == offer.digest() => {
                tell!("{}: this configuration is in use", offer.file);
                return Ok(ExitCode::SUCCESS);
            }
            Some((state, generation)) => apply(root, offer, (&state, &generation)),
            None => take_offer(root, offer),
        };
        drop(lock);
        match outcome {
            Ok(outcome) => Ok(settle(place, outcome, arguments)),
            Err(Failed::Refused(refused)) => {
                complain!("appliance: not applied: {}", refused.summary());
                show_problems(&refused.files);
                Ok(ExitCode::from(refused.code()))
            }
            Err(Failed::Fenced(status)) => Ok(end(root, &status)),
        }
    })
}

/// Finds the offer on the command line, or else on what is attached.
fn with_offer(
    place: &Place,
    arguments: &Arguments<'_>,
    act: impl Fn(&Root, &Offer<'_>) -> Result<ExitCode, ExitCode>,
) -> ExitCode {
    let given = match Given::read(arguments) {
        Ok(given) => given,
        Err(exit) => return exit,
    };
    let acted = if let Some(given) = &given {
        act(&place.root, &given.offer())
    } else {
        let found = media::look(&crate::boot::roots(&place.root));
        if place.is_system {
            write_back::note(&place.root, &found);
        }
        let offers = found.candidates.iter().filter_map(Offer::of);
        let mut offers: Vec<Offer<'_>> = offers.collect();
        if let (Some(code), Some(offer)) = (arguments.value("--claim"), offers.last_mut()) {
            offer.claim = Claim::Code(code.to_owned());
        }
        match offers.as_slice() {
            [offer] => act(&place.root, offer),
            [] => {
                complain!("appliance: no config disk with a site.toml is attached");
                Err(ExitCode::from(code::WAITING))
            }
            _ => {
                complain!("appliance: more than one config disk is attached; detach all but one");
                Err(ExitCode::from(code::INVALID))
            }
        }
    };
    acted.unwrap_or_else(|exit| exit)
}

/// Lets the running system have what was put in place, and sees whether it
/// works. A folder has no system: there it stays on trial.
fn settle(place: &Place, outcome: Outcome, arguments: &Arguments<'_>) -> ExitCode {
    for path in &outcome.activation.drifted {
        tell!("kept a local change of {path} in {path}.local");
    }
    for path in &outcome.activation.written {
        tell!("wrote {path}");
    }
    let mut status = outcome.status;
    if !place.is_system {
        return end(&place.root, &status);
    }
    status.system = bring_up(&place.root);
    judge(&mut status);
    check_role(&place.root, &mut status);
    let seconds = arguments.value("--confirm");
    if let Some(seconds) = seconds.and_then(|text| text.parse().ok()) {
        let wait = Duration::from_secs(seconds);
        tell!("confirm with `appliance confirm` within {seconds} s");
        if !is_confirmed_within(&place.root, wait) {
            return rolled_back(place, Then::Forget);
        }
    }
    let status = after_trial(&place.root, status);
    end(&place.root, &status)
}

fn is_confirmed_within(root: &Root, wait: Duration) -> bool {
    let end = Instant::now() + wait;
    loop {
        let phase = State::load(root).ok().flatten().map(|state| state.phase);
        if phase == Some(Phase::Active) {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

/// Saves and says what the machine is now.
fn end(root: &Root, status: &Status) -> ExitCode {
    if let Err(error) = status.save(root) {
        complain!("appliance: cannot write the status: {error}");
    }
    for line in status.lines() {
        tell!("{line}");
    }
    match status.standing {
        Standing::Starting => ExitCode::from(status.refused),
        _ => ExitCode::from(status.code),
    }
}

/// `plan [FILE]`: what apply would do; nothing is written.
pub fn run_plan(place: &Place, arguments: &Arguments<'_>) -> ExitCode {
    with_offer(place, arguments, |root, offer| {
        let kept = kept(root)?;
        let before = kept.as_ref().map(|(state, generation)| (state, generation));
        let fresh = offer.accept(root, before).map_err(|refused| {
            complain!("appliance: it would not be applied: {}", refused.summary());
            show_problems(&refused.files);
            ExitCode::from(refused.code())
        })?;
        let lines = difference(root, &fresh, before.map(|(_, generation)| generation));
        if lines.is_empty() {
            tell!("nothing would change");
        }
        for line in lines {
            tell!("{line}");
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// One line for each thing that would change.
fn difference(root: &Root, fresh: &Generation, before: Option<&Generation>) -> Vec<String> {
    let mut lines = Vec::new();
    let had = |item: &Item| before.is_some_and(|before| before.items.contains(item));
    for item in &fresh.items {
        let is_new = match item {
            Item::File { path, bytes, .. } => {
                root.read(path, bytes.len()).ok().flatten().as_ref() != Some(bytes)
            }
            Item::Link { path, target } => {
                root.read_link(path).ok().flatten().as_ref() != Some(target)
            }
            item => !had(item),
        };
        if is_new {
            lines.push(format!("write {}", item.place()));
        }
    }
    for item in before.into_iter().flat_map(|before| &before.items) {
        if !fresh.items.iter().any(|new| new.place() == item.place()) {
            lines.push(format!("take away {}", item.place()));
        }
    }
    lines
}

/// `confirm`: a configuration on trial stays.
pub fn run_confirm(place: &Place) -> ExitCode {
    let lock = place.root.lock(LOCK);
    if let Err(error) = &lock {
        complain!("appliance: {LOCK}: {error}");
    }
    match confirm(&place.root) {
        Ok(true) => {
            tell!("confirmed");
            ExitCode::SUCCESS
        }
        Ok(false) => {
            tell!("nothing is on trial");
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain!("appliance: cannot confirm: {error}");
            ExitCode::from(code::INTERNAL)
        }
    }
}

/// `rollback`: the configuration before this one.
pub fn run_rollback(place: &Place) -> ExitCode {
    rolled_back(place, Then::Stay)
}

fn rolled_back(place: &Place, then: Then) -> ExitCode {
    let root = &place.root;
    let lock = root.lock(LOCK);
    let state = match kept(root) {
        Ok(Some((state, _))) => state,
        Ok(None) => {
            complain!("appliance: the machine was never configured");
            return ExitCode::from(code::WAITING);
        }
        Err(exit) => return exit,
    };
    let outcome = roll_back(root, &state, then);
    drop(lock);
    match outcome {
        None => {
            complain!("appliance: there is no configuration before this one");
            ExitCode::from(code::INTERNAL)
        }
        Some(Err(status)) => end(root, &status),
        Some(Ok(outcome)) => {
            let mut status = outcome.status;
            if place.is_system {
                status.system = bring_up(root);
                judge(&mut status);
            }
            end(root, &status)
        }
    }
}

/// `factory-reset --yes`: state and identity go; the machine restarts and
/// waits for a configuration.
pub fn run_reset(place: &Place, arguments: &Arguments<'_>) -> ExitCode {
    if !arguments.has("--yes") {
        complain!(
            "appliance: this takes away the configuration, the accounts that it made with their homes, the host key and the machine-id; say `appliance factory-reset --yes`"
        );
        return ExitCode::from(USAGE);
    }
    let root = &place.root;
    let _lock = root.lock(LOCK);
    let done = match begin_reset(root) {
        Ok(true) => finish_reset(root),
        Ok(false) => {
            tell!("the machine was never configured");
            return ExitCode::SUCCESS;
        }
        Err(error) => Err(error),
    };
    if let Err(error) = done {
        complain!("appliance: the reset is not finished, and goes on at the next start: {error}");
        return ExitCode::from(code::INTERNAL);
    }
    tell!("the machine is as it was delivered; it restarts now");
    if place.is_system
        && let Err(error) = systemd::ask(Request::Reboot)
    {
        complain!("appliance: {error}; restart it by hand");
    }
    ExitCode::SUCCESS
}
