//! The first configuration of a machine.

use std::collections::BTreeSet;

use consign_schema::Code;
use consign_schema::hook::When;

use super::later::{Failed, Outcome};
use super::offer::{self, Offer};
use super::{Refused, bundles, configured, correctable, fenced};
use crate::digest::Digest;
use crate::generation::Generation;
use crate::hook;
use crate::media::{Candidate, Found, Roots, SITE_FILE};
use crate::root::Root;
use crate::state::{State, Then};
use crate::status::{FileProblems, Standing, Status, code};

/// What `consign config disk` prepares for the agent to write to.
const OUR_FILES: [&str; 3] = ["report.json", "request.toml", "support.tar"];

/// Takes the configuration among `found` into use on a machine that has none.
/// One that is refused joins `refused`, and stands back from then on when
/// another comes.
pub fn take(root: &Root, found: &Found, refused: &mut BTreeSet<Digest>) -> Status {
    let (candidate, offer, outranked) = match choose(found, refused) {
        Ok(chosen) => chosen,
        Err(status) => return *status,
    };
    let mut status = match take_offer(root, &offer) {
        Ok(outcome) => outcome.status,
        Err(Failed::Refused(reason)) => {
            // What cannot be kept now may be kept later.
            if reason.code() != code::APPLY_FAILED {
                refused.insert(offer.digest());
            }
            return reason.about(offer.digest()).status();
        }
        Err(Failed::Fenced(status)) => return *status,
    };
    let is_strange =
        |name: &&String| !OUR_FILES.contains(&name.as_str()) && *name != offer::CLAIM_FILE;
    let ignored = candidate.ignored.iter().filter(is_strange);
    status.notes.extend(outranked);
    status
        .notes
        .extend(ignored.map(|name| format!("{}: {name} is ignored", candidate.device)));
    status
}

/// Takes one offer on a machine that has none.
///
/// # Errors
///
/// [`Failed`].
pub fn take_offer(root: &Root, offer: &Offer<'_>) -> Result<Outcome, Failed> {
    refuse_another(root, offer)?;
    let mut generation = offer.accept(root, None).map_err(Failed::Refused)?;
    let roots = Roots::default();
    bundles::stage(root, &roots, offer.medium, &mut generation).map_err(Failed::Refused)?;
    allowed_by_hooks(root, &offer.file, &generation)?;
    let mut state = generation.commit(root, None, Then::Stay).map_err(|error| {
        let message = error.to_string();
        Failed::Refused(Refused::one(
            code::APPLY_FAILED,
            "it cannot be kept",
            FileProblems::whole(&offer.file, "unavailable", &message, "make room on /var"),
        ))
    })?;
    offer::spend_claim(root);
    match generation.activate(root, &mut state) {
        Ok(activation) => Ok(Outcome {
            status: configured(root, &generation, &state),
            activation,
        }),
        Err(error) => Err(Failed::Fenced(Box::new(correctable(error.to_string())))),
    }
}

/// What follows another configuration has rules of its own.
fn refuse_another(root: &Root, offer: &Offer<'_>) -> Result<(), Failed> {
    match State::load(root) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(Failed::Refused(Refused::one(
            code::APPLY_KEPT,
            "the machine is configured already",
            FileProblems::whole(
                &offer.file,
                Code::Conflict.slug(),
                "another configuration came first",
                "attach it again, with a higher serial",
            ),
        ))),
        Err(error) => Err(Failed::Fenced(Box::new(fenced(error.to_string())))),
    }
}

/// Asks the role's hooks, before a configuration counts.
///
/// # Errors
///
/// [`Failed::Refused`].
pub(super) fn allowed_by_hooks(
    root: &Root,
    file: &str,
    generation: &Generation,
) -> Result<(), Failed> {
    hook::run(root, generation, When::PreApply).map_err(|error| {
        let remedy = "change what it says, or ask the vendor of the appliance";
        Failed::Refused(Refused::one(
            code::INVALID,
            "the role does not accept the configuration",
            FileProblems::whole(file, "hook", &error.to_string(), remedy),
        ))
    })
}

/// The one configuration among the media, or why there is none.
fn choose<'f>(
    found: &'f Found,
    refused: &BTreeSet<Digest>,
) -> Result<(&'f Candidate, Offer<'f>, Vec<String>), Box<Status>> {
    let mut offers: Vec<(&Candidate, Offer<'_>)> = found
        .candidates
        .iter()
        .filter_map(|candidate| Some((candidate, Offer::of(candidate)?)))
        .collect();
    let is_new = |(_, offer): &(&Candidate, Offer<'_>)| !refused.contains(&offer.digest());
    if offers.iter().any(is_new) {
        offers.retain(is_new);
    }
    let mut outranked = Vec::new();
    by_rank(&mut offers, |(_, offer)| offer, &mut outranked);
    let different: BTreeSet<Digest> = offers.iter().map(|(_, offer)| offer.digest()).collect();
    if different.len() > 1 {
        let names: Vec<&str> = offers.iter().map(|(_, offer)| offer.device).collect();
        return Err(Box::new(invalid(
            "more than one configuration is attached",
            vec![conflict(&names)],
        )));
    }
    if let Some((candidate, offer)) = offers.into_iter().next() {
        return Ok((candidate, offer, outranked));
    }
    let files = without_offer(found);
    Err(Box::new(if found.candidates.is_empty() {
        Status {
            files,
            ..Status::new(
                Standing::Waiting,
                code::WAITING,
                "no configuration is attached",
            )
        }
    } else {
        invalid("the config disk has no configuration", files)
    }))
}

/// Where a medium of ours offers something, other ways do not count; of those
/// that offer something else a note tells.
pub(super) fn by_rank<'f, T>(
    offers: &mut Vec<T>,
    of: impl Fn(&T) -> &Offer<'f>,
    notes: &mut Vec<String>,
) {
    let is_ours = |offer: &Offer<'_>| offer.medium.is_some_and(Candidate::is_ours);
    let ours = offers.iter().map(&of).filter(|offer| is_ours(offer));
    let ours: BTreeSet<Digest> = ours.map(Offer::digest).collect();
    if ours.is_empty() {
        return;
    }
    offers.retain(|offer| {
        let offer = of(offer);
        if !is_ours(offer) && !ours.contains(&offer.digest()) {
            notes.push(format!(
                "the configuration of {} is ignored: a config disk outranks it",
                offer.device
            ));
        }
        is_ours(offer)
    });
}

/// The media that hold different configurations.
pub(super) fn conflict(names: &[&str]) -> FileProblems {
    let message = format!(
        "the media {} hold different configurations",
        names.join(" and ")
    );
    let remedy = "detach all but one config disk";
    FileProblems::whole(SITE_FILE, Code::Conflict.slug(), &message, remedy)
}

/// What is wrong with media that offer nothing.
fn without_offer(found: &Found) -> Vec<FileProblems> {
    let empty = found.candidates.iter().map(|candidate| {
        let message = format!("the medium has no {SITE_FILE} in its root");
        let remedy = format!("copy {SITE_FILE} to the root of the medium");
        FileProblems::whole(
            &candidate.device,
            Code::MissingKey.slug(),
            &message,
            &remedy,
        )
    });
    let unreadable = found.unreadable.iter().map(|medium| {
        let remedy = "format a medium as FAT with the label VACONFIG";
        FileProblems::whole(
            &medium.device,
            Code::Unavailable.slug(),
            &medium.reason,
            remedy,
        )
    });
    empty.chain(unreadable).collect()
}

fn invalid(summary: &str, files: Vec<FileProblems>) -> Status {
    Status {
        files,
        ..Status::new(Standing::Waiting, code::INVALID, summary)
    }
}
