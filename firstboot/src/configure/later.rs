//! A machine that was configured before: it goes on with what it has, and
//! takes what is newer, signed and right on trial.

use std::collections::BTreeSet;

use super::offer::{self, Offer};
use super::tried::{self, End};
use super::{
    Refused, bundles, configured, correctable, fenced, finish_reset, first, listen, prepare,
};
use crate::generation::{Activation, CONFIGURED, Generation};
use crate::image::Image;
use crate::media::{Found, Roots, SITE_FILE};
use crate::root::Root;
use crate::state::{Phase, State, Then};
use crate::status::{FileProblems, Status, code};
use crate::step::Along;

/// Puts the configuration that counts in place, if there is one. `found` is
/// what is attached now.
///
/// # Errors
///
/// `None` on a machine that was never configured: it needs a medium.
pub fn go_on(root: &Root, found: &Found) -> Option<Status> {
    let state = match State::load(root) {
        Ok(state) => state?,
        Err(error) => return Some(fenced(error.to_string())),
    };
    if state.phase == Phase::Reset {
        return match finish_reset(root) {
            Ok(()) => None,
            Err(error) => Some(fenced(format!("the reset cannot be finished: {error}"))),
        };
    }
    let mut notes = Vec::new();
    let (generation, mut state) = match counting(root, state, &mut notes) {
        Ok(counting) => counting,
        Err(status) => return Some(listen::replace(root, found, *status)),
    };
    let (generation, hindrance) = renewed(root, generation, &mut state);
    let mut status = match put(root, &generation, &mut state) {
        Ok(outcome) => outcome.status,
        Err(status) => return Some(listen::replace(root, found, *status)),
    };
    if let Some((reason, files)) = hindrance {
        notes.push(format!(
            "the image is newer than the configuration, which {reason}; the files made for the older image are in use"
        ));
        status.files.extend(files);
    }
    status.notes.splice(0..0, notes);
    if state.phase == Phase::Active {
        status = consider(root, found, (&state, &generation), status);
    }
    Some(status)
}

/// The generation that counts at this start: after a trial that nobody
/// confirmed, or when it is damaged, the one before.
fn counting(
    root: &Root,
    state: State,
    notes: &mut Vec<String>,
) -> Result<(Generation, State), Box<Status>> {
    let failed = |error: &dyn ToString| Box::new(fenced(error.to_string()));
    let loaded = Generation::load(root, &state);
    let reason = match &loaded {
        Ok(_) if state.phase == Phase::Trial => {
            "the machine stopped before the new configuration was confirmed".to_owned()
        }
        Ok(_) => return loaded.map(|it| (it, state)).map_err(|error| failed(&error)),
        Err(error) => error.to_string(),
    };
    let previous = Generation::previous(root, &state).map_err(|error| failed(&error))?;
    let (Some(mut back), Some(previous)) = (state.back(Then::Forget), previous) else {
        // Nothing to go back to: what is there stays, or cannot be used.
        return loaded.map(|it| (it, state)).map_err(|error| failed(&error));
    };
    if let Ok(generation) = &loaded {
        tried::note(root, generation.digest(), End::Stopped).map_err(|error| failed(&error))?;
    }
    back.save(root).map_err(|error| failed(&error))?;
    notes.push(format!("{reason}; the one before it is in use again"));
    Ok((previous, back))
}

/// The generation for this build of the image: rendered again from the
/// customer's file when it was made for another build. Where that cannot be,
/// the old generation stays, and the reason and the problems say why.
fn renewed(
    root: &Root,
    generation: Generation,
    state: &mut State,
) -> (Generation, Option<(&'static str, Vec<FileProblems>)>) {
    if generation.image == Image::load(root).build {
        return (generation, None);
    }
    match prepare(root, &generation.site, SITE_FILE, Along::of(&generation)) {
        Ok(mut fresh) => {
            fresh.keys.clone_from(&generation.keys);
            fresh.secrets.clone_from(&generation.secrets);
            bundles::carry(&generation, &mut fresh);
            match fresh.commit(root, Some((state, &generation)), Then::Stay) {
                Ok(next) => {
                    *state = next;
                    (fresh, None)
                }
                Err(error) => {
                    let file =
                        FileProblems::whole(SITE_FILE, "unavailable", &error.to_string(), "");
                    (generation, Some(("cannot be kept", vec![file])))
                }
            }
        }
        Err(refused) => {
            let reason = match refused.code() {
                code::APPLY_FAILED => "cannot be judged now",
                _ => "it does not accept",
            };
            (generation, Some((reason, refused.files)))
        }
    }
}

/// What a generation that has been put in place is like.
#[derive(Debug)]
pub struct Outcome {
    /// What the machine is now.
    pub status: Status,
    /// What was written.
    pub activation: Activation,
}

/// Puts a generation in place, or else the one before it.
fn put(root: &Root, generation: &Generation, state: &mut State) -> Result<Outcome, Box<Status>> {
    let reason = match generation.activate(root, state) {
        Ok(activation) => {
            let mut status = configured(root, generation, state);
            let drifted = activation.drifted.iter().map(|path| {
                format!("{path} was changed by somebody; the change is kept in {path}.local")
            });
            status.notes.extend(drifted);
            let pruned = Generation::prune(root, state)
                .and_then(|()| Generation::prune_releases(root, state))
                .and_then(|()| Generation::prune_entered(root, state));
            if let Err(error) = pruned {
                let note = format!("old configurations cannot be removed: {error}");
                status.notes.push(note);
            }
            return Ok(Outcome { status, activation });
        }
        Err(error) => error.to_string(),
    };
    // One that cannot be read is none to go back to now.
    let before = Generation::previous(root, state).ok().flatten();
    let before = before.zip(state.back(Then::Forget));
    // Nor is one that this one is there instead of.
    let may_go_back = state.phase == Phase::Committed && state.then != Then::Forget;
    let Some((previous, mut back)) = before.filter(|_| may_go_back) else {
        lower_fence(root);
        return Err(Box::new(correctable(reason)));
    };
    let is_back = tried::note(root, generation.digest(), End::Failed)
        .and_then(|()| back.save(root))
        .map_err(|error| error.to_string())
        .and_then(|()| {
            previous
                .activate(root, &mut back)
                .map_err(|error| error.to_string())
        });
    match is_back {
        Ok(activation) => {
            let mut status = configured(root, &previous, &back);
            *state = back;
            status.refused = code::APPLY_KEPT;
            status.notes.push(format!(
                "the new configuration could not be put in place, the one before it is in use: {reason}"
            ));
            Ok(Outcome { status, activation })
        }
        Err(second) => {
            lower_fence(root);
            Err(Box::new(correctable(format!(
                "{reason}; and the configuration before it: {second}"
            ))))
        }
    }
}

/// What cannot be lifted at the next start is not up now.
fn lower_fence(root: &Root) {
    if let Err(error) = root.remove(CONFIGURED) {
        complain!("cannot remove {CONFIGURED}: {error}");
    }
}

/// Looks at what is attached: another configuration is taken, or refused with
/// the reason in `status`, which stays as it is.
pub(super) fn consider<'f>(
    root: &Root,
    found: &'f Found,
    (state, generation): (&State, &Generation),
    mut status: Status,
) -> Status {
    let offers = found.candidates.iter().filter_map(Offer::of);
    let mut offers: Vec<Offer<'f>> = offers
        .filter(|offer| offer.digest() != generation.digest())
        .collect();
    // What is refused by itself does not stand in the way of what is not.
    let mut passed = Vec::new();
    if offers.len() > 1 {
        let judge = |offer| (accept(root, &offer, (state, generation)).err(), offer);
        let judged: Vec<_> = offers.into_iter().map(judge).collect();
        let is_any_fit = judged.iter().any(|(reason, _)| reason.is_none());
        let keep = |(reason, offer): (Option<Refused>, Offer<'f>)| match reason {
            Some(reason) if is_any_fit => {
                passed.push(passed_over(&offer, &reason));
                None
            }
            _ => Some(offer),
        };
        offers = judged.into_iter().filter_map(keep).collect();
    }
    first::by_rank(&mut offers, |offer| offer, &mut passed);
    let different: BTreeSet<_> = offers.iter().map(Offer::digest).collect();
    if different.len() > 1 {
        let names: Vec<&str> = offers.iter().map(|offer| offer.device).collect();
        status.refused = code::INVALID;
        status.notes.extend(passed);
        status.files.push(first::conflict(&names));
        return status;
    }
    // Media stand before other ways.
    let Some(offer) = offers.into_iter().next() else {
        return status;
    };
    let mut status = match apply(root, &offer, (state, generation)) {
        Ok(outcome) => outcome.status,
        Err(Failed::Refused(refused)) => {
            status.refused = refused.code();
            status.notes.push(not_taken(&offer, &refused));
            status.files.extend(refused.about(offer.digest()).files);
            status
        }
        Err(Failed::Fenced(fenced)) => *fenced,
    };
    status.notes.extend(passed);
    status
}

fn not_taken(offer: &Offer<'_>, refused: &Refused) -> String {
    let summary = refused.summary();
    format!(
        "the configuration on {} is not taken: {summary}",
        offer.device
    )
}

/// As [`not_taken`], with the first thing that is wrong: its files are not
/// among the status's, since another configuration came into use.
fn passed_over(offer: &Offer<'_>, refused: &Refused) -> String {
    let problem = refused
        .files
        .iter()
        .find_map(|file| Some((&file.file, file.problems.first()?)));
    let problem = problem.map(|(file, first)| {
        let (line, column) = (first.line, first.column);
        format!(
            " ({file}:{line}:{column}: {}; {})",
            first.message, first.remedy
        )
    });
    not_taken(offer, refused) + &problem.unwrap_or_default()
}

/// What an offer becomes, when it is one that may follow `before`; nothing
/// but a claim code is written.
fn accept(
    root: &Root,
    offer: &Offer<'_>,
    before: (&State, &Generation),
) -> Result<Generation, Refused> {
    if tried::is_spent(root, offer.digest()) && offer.claim == offer::Claim::None {
        let message = "it was tried on this machine, and it did not work or was never confirmed";
        let remedy = "change it, and raise its serial";
        return Err(Refused::one(
            code::APPLY_KEPT,
            "it was tried before",
            FileProblems::whole(&offer.file, "tried", message, remedy),
        ));
    }
    offer.accept(root, Some(before)).map_err(Refused::kept)
}

/// Why an offer did not come into use.
#[derive(Debug)]
pub enum Failed {
    /// Nothing has changed.
    Refused(Refused),
    /// Neither it nor the one before it can be put in place.
    Fenced(Box<Status>),
}

/// Takes an offer on trial: accepts, commits and puts it in place.
///
/// # Errors
///
/// [`Failed`].
pub fn apply(
    root: &Root,
    offer: &Offer<'_>,
    (state, generation): (&State, &Generation),
) -> Result<Outcome, Failed> {
    let before = (state, generation);
    let mut fresh = accept(root, offer, before).map_err(Failed::Refused)?;
    bundles::carry(generation, &mut fresh);
    let roots = Roots::default();
    bundles::stage(root, &roots, offer.medium, &mut fresh)
        .map_err(|refused| Failed::Refused(refused.kept()))?;
    first::allowed_by_hooks(root, &offer.file, &fresh)?;
    // One that never came into place, or is damaged, is none to go back to.
    let then = if state.phase == Phase::Committed || generation.site.is_empty() {
        Then::Forget
    } else {
        Then::Trial
    };
    let mut state = fresh.commit(root, Some(before), then).map_err(|error| {
        let message = error.to_string();
        Failed::Refused(Refused::one(
            code::APPLY_KEPT,
            "it cannot be kept",
            FileProblems::whole(&offer.file, "unavailable", &message, "make room on /var"),
        ))
    })?;
    offer::spend_claim(root);
    put(root, &fresh, &mut state).map_err(Failed::Fenced)
}

/// Goes back to the configuration before the one that counts.
///
/// # Errors
///
/// `None` when there is none; the status that it leads to when it cannot be
/// put in place.
pub fn roll_back(root: &Root, state: &State, then: Then) -> Option<Result<Outcome, Box<Status>>> {
    let mut back = state.back(then)?;
    let previous = match Generation::previous(root, state) {
        Ok(previous) => previous?,
        // Nothing has changed, and what counts stays in place.
        Err(error) => return Some(Err(Box::new(fenced(error.to_string())))),
    };
    if let Err(error) = back.save(root) {
        return Some(Err(Box::new(fenced(error.to_string()))));
    }
    Some(put(root, &previous, &mut back))
}
