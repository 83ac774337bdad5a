//! What changes the machine: apply, confirm, rollback, factory-reset; and what
//! only says what would change: plan.

use std::process::ExitCode;

use super::arguments::{Arguments, USAGE};
use super::secret::{self, Entered};
use super::trial::{Trial, confirmed, end, locked, save, started};
use super::{Place, read_bounded, show_problems};
use crate::boot::{last_resort, send_back};
use crate::configure::tried::{self, End};
use crate::configure::{
    Claim, Failed, Offer, Outcome, apply, begin_reset, confirm, finish_reset, go_on, roll_back,
    spend_claim, take_offer, wanted_claim,
};
use crate::generation::{Activation, CONFIGURED, Generation};
use crate::item::Item;
use crate::media::{self, Found};
use crate::root::Root;
use crate::state::{Phase, State, Then};
use crate::status::{Standing, code};
use crate::systemd::{self, Request};
use crate::write_back;

/// A rendered file is never longer.
const MAX_FILE: usize = 4 << 20;

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
        let mut given = Self {
            file: (*file).to_owned(),
            site: read(file)?,
            signature: option("--signature")?,
            secrets: option("--secrets")?,
            license: option("--license")?,
            claim: Claim::None,
        };
        given.claim = claim(arguments)?;
        Ok(Some(given))
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

/// The code of `--claim`, from the terminal or a pipe: nobody reads it from a
/// list of processes.
fn claim(arguments: &Arguments<'_>) -> Result<Claim, ExitCode> {
    if !arguments.has("--claim") {
        return Ok(Claim::None);
    }
    match secret::read("claim code") {
        Ok(Entered::Secret(code)) => Ok(Claim::Code(code.expose().to_owned())),
        Ok(Entered::Wrong) => {
            complain!("appliance: this is no claim code; it stands on the console");
            Err(ExitCode::from(USAGE))
        }
        Ok(Entered::Aborted) => Err(ExitCode::from(secret::ABORTED)),
        Err(error) => Err(super::no_input("the terminal", &error)),
    }
}

/// `apply [FILE]`: takes a configuration on trial, and keeps it when it works.
pub fn run_apply(place: &Place, arguments: &Arguments<'_>) -> ExitCode {
    with_offer(place, arguments, place.is_system, |root, offer| {
        let mut trial = Trial::of(arguments, offer.digest().to_string())?;
        let lock = locked(root)?;
        let outcome = match kept(root)? {
            Some((state, generation)) if is_in_use(root, &state, &generation, offer) => {
                return Ok(in_use(offer));
            }
            // What was never confirmed is nothing to go back to.
            Some((state, _)) if state.is_on_trial() => return Err(other_on_trial()),
            Some((_, generation)) if generation.digest() == offer.digest() => again(root)?,
            Some((state, generation)) => {
                trial.arm(place)?;
                apply(root, offer, (&state, &generation))
            }
            None => take_offer(root, offer),
        };
        if let Ok(outcome) = &outcome
            && place.is_system
        {
            save(root, &outcome.status);
        }
        drop(lock);
        let status = match outcome {
            Ok(outcome) => {
                let mut status = trial.settle(place, outcome)?;
                // It was on a medium, which is told what became of it.
                if place.is_system && offer.medium.is_some() {
                    let _lock = locked(root)?;
                    send_back(root, &mut status);
                }
                status
            }
            Err(Failed::Refused(refused)) => {
                trial.disarm(place);
                complain!("appliance: not applied: {}", refused.summary());
                show_problems(&refused.files);
                return Ok(ExitCode::from(refused.code()));
            }
            Err(Failed::Fenced(status)) => *status,
        };
        trial.disarm(place);
        Ok(end(place, &status))
    })
}

/// Whether the offer is what the machine has, all of it in place.
fn is_in_use(root: &Root, state: &State, generation: &Generation, offer: &Offer<'_>) -> bool {
    generation.digest() == offer.digest()
        && state.phase != Phase::Committed
        && root.exists(CONFIGURED)
}

fn in_use(offer: &Offer<'_>) -> ExitCode {
    tell!("{}: this configuration is in use", offer.file);
    ExitCode::SUCCESS
}

fn other_on_trial() -> ExitCode {
    complain!(
        "appliance: not applied: another configuration is on trial; say `appliance confirm` or `appliance rollback` first"
    );
    ExitCode::from(code::APPLY_KEPT)
}

/// Puts what counts and is not in place there, as the next start would.
fn again(root: &Root) -> Result<Result<Outcome, Failed>, ExitCode> {
    if last_resort(root).is_some() {
        complain!(
            "appliance: not applied: no slot has tries left; install an update or the image again"
        );
        return Err(ExitCode::from(code::APPLY_FAILED));
    }
    let Some(status) = go_on(root, &Found::default()) else {
        complain!("appliance: a factory reset is over; restart the machine");
        return Err(ExitCode::from(code::INTERNAL));
    };
    Ok(if status.standing == Standing::Starting {
        let activation = Activation::default();
        Ok(Outcome { status, activation })
    } else {
        Err(Failed::Fenced(Box::new(status)))
    })
}

/// Finds the offer on the command line, or else on what is attached. Media are
/// taken note of where something may be written to them.
fn with_offer(
    place: &Place,
    arguments: &Arguments<'_>,
    is_noted: bool,
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
        if is_noted {
            write_back::note(&place.root, &found);
        }
        let offers = found.candidates.iter().filter_map(Offer::of);
        let mut offers: Vec<Offer<'_>> = offers.collect();
        match offers.as_mut_slice() {
            [offer] => claim(arguments).and_then(|claim| {
                if claim != Claim::None {
                    offer.claim = claim;
                }
                act(&place.root, offer)
            }),
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

/// `plan [FILE]`: what apply would do; nothing is written.
pub fn run_plan(place: &Place, arguments: &Arguments<'_>) -> ExitCode {
    with_offer(place, arguments, false, |root, offer| {
        let kept = kept(root)?;
        let before = kept.as_ref().map(|(state, generation)| (state, generation));
        let fresh = match before {
            Some((state, generation)) if is_in_use(root, state, generation, offer) => {
                return Ok(in_use(offer));
            }
            Some((state, _)) if state.is_on_trial() => return Err(other_on_trial()),
            // It was taken, and is put in place again.
            Some((_, generation)) if generation.digest() == offer.digest() => generation,
            _ => &acceptable(root, offer, before)?,
        };
        let lines = difference(root, fresh, before.map(|(_, generation)| generation));
        if lines.is_empty() {
            tell!("nothing would change");
        }
        for line in lines {
            tell!("{line}");
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// What the machine would make of the offer, or why it would not take it.
fn acceptable(
    root: &Root,
    offer: &Offer<'_>,
    before: Option<(&State, &Generation)>,
) -> Result<Generation, ExitCode> {
    let had_claim = wanted_claim(root).is_some();
    let accepted = offer.accept(root, before);
    // Only who applies it needs a code.
    if !had_claim {
        spend_claim(root);
    }
    accepted.map_err(|refused| {
        let refused = match before {
            Some(_) => refused.kept(),
            None => refused,
        };
        complain!("appliance: it would not be applied: {}", refused.summary());
        show_problems(&refused.files);
        if refused.code() == code::SIGNATURE && !had_claim {
            complain!("appliance: the console shows a claim code when `apply` was refused too");
        }
        ExitCode::from(refused.code())
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
            let edited = edited(root, item.place(), fresh, before);
            lines.push(format!("write {}{edited}", item.place()));
        }
    }
    for item in before.into_iter().flat_map(|before| &before.items) {
        if !fresh.items.iter().any(|new| new.place() == item.place()) {
            let edited = edited(root, item.place(), fresh, before);
            lines.push(format!("take away {}{edited}", item.place()));
        }
    }
    lines
}

/// What to say of a file that somebody has changed since it was written.
fn edited(root: &Root, path: &str, fresh: &Generation, before: Option<&Generation>) -> String {
    let is_it = |item: &&Item| item.is_kept() && item.place() == path;
    let content = |item: &Item| match item {
        Item::File { bytes, .. } => Some(bytes.clone()),
        _ => None,
    };
    let Some(before) = before else {
        return String::new();
    };
    let own = before.items.iter().find(is_it).and_then(content);
    let current = root.read(path, MAX_FILE).ok().flatten();
    let (Some(_), Some(current)) = (own, current) else {
        return String::new();
    };
    let ours = [&before.items, &before.originals, &fresh.items];
    let mut ours = ours.into_iter().flatten().filter(is_it);
    if ours.any(|item| content(item).as_ref() == Some(&current)) {
        return String::new();
    }
    format!(" (somebody changed it: that is kept in {path}.local)")
}

/// `confirm`: a configuration on trial stays.
pub fn run_confirm(place: &Place) -> ExitCode {
    let lock = match locked(&place.root) {
        Ok(lock) => lock,
        Err(exit) => return exit,
    };
    let done = confirm(&place.root);
    drop(lock);
    match done {
        Ok(true) => {
            tell!("confirmed");
            if place.is_system {
                confirmed(&place.root);
            }
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
    rolled_back(place).unwrap_or_else(|exit| exit)
}

fn rolled_back(place: &Place) -> Result<ExitCode, ExitCode> {
    let root = &place.root;
    let lock = locked(root)?;
    let Some((state, generation)) = kept(root)? else {
        complain!("appliance: the machine was never configured");
        return Err(ExitCode::from(code::WAITING));
    };
    if state.is_on_trial()
        && let Err(error) = tried::note(root, generation.digest(), End::Failed)
    {
        complain!("appliance: nothing has changed: {error}");
        return Err(ExitCode::from(code::INTERNAL));
    }
    let mut status = match roll_back(root, &state, Then::Stay) {
        None => {
            complain!("appliance: nothing has changed: there is no configuration before this one");
            return Err(ExitCode::from(code::APPLY_KEPT));
        }
        Some(Err(status)) => return Ok(end(place, &status)),
        Some(Ok(outcome)) => outcome.status,
    };
    save(root, &status);
    drop(lock);
    if place.is_system {
        started(root, &mut status);
    }
    Ok(end(place, &status))
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
    reset(place).unwrap_or_else(|exit| exit)
}

fn reset(place: &Place) -> Result<ExitCode, ExitCode> {
    let root = &place.root;
    let _lock = locked(root)?;
    let has_begun = begin_reset(root).map_err(|error| {
        complain!("appliance: nothing has changed, the reset cannot begin: {error}");
        ExitCode::from(code::INTERNAL)
    })?;
    if !has_begun {
        tell!("the machine was never configured");
        return Ok(ExitCode::SUCCESS);
    }
    if let Err(error) = finish_reset(root) {
        complain!("appliance: the reset is not finished, and goes on at the next start: {error}");
        return Err(ExitCode::from(code::INTERNAL));
    }
    tell!("the machine is as it was delivered; it restarts now");
    if place.is_system
        && let Err(error) = systemd::ask(Request::Reboot)
    {
        complain!("appliance: {error}; restart it by hand");
    }
    Ok(ExitCode::SUCCESS)
}
