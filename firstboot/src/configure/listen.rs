//! A machine behind its fence listens: it takes its first configuration, or
//! one in place of what could not be put in place, as soon as it is attached.

use std::collections::BTreeSet;

use super::later::{consider, go_on};
use super::{configured, correctable, fenced, take};
use crate::digest::Digest;
use crate::generation::{CONFIGURED, Generation, GenerationError};
use crate::media::Found;
use crate::root::Root;
use crate::state::{Phase, State};
use crate::status::{Standing, Status, code};

/// What a machine that listens becomes with what is attached now. Whoever
/// calls it holds the lock.
///
/// # Errors
///
/// `None` when somebody else has configured it meanwhile, and will say so.
pub fn offered(
    root: &Root,
    found: &Found,
    refused: &mut BTreeSet<Digest>,
    shown: &Status,
) -> Option<Status> {
    match State::load(root) {
        Ok(None) if shown.standing == Standing::Waiting => Some(take(root, found, refused)),
        // After a reset the machine restarts, and is another one.
        Ok(None) => Some(shown.clone()),
        Ok(Some(_)) if root.exists(CONFIGURED) => None,
        // What was in the way may be gone. Nothing is taken twice from this.
        Ok(Some(_)) => Some(go_on(root, found).unwrap_or_else(|| shown.clone())),
        Err(error) => Some(fenced(error.to_string())),
    }
}

/// Looks for a configuration in place of the one that counts and cannot be put
/// in place, or is damaged. The rules are those of any other that follows it.
pub(super) fn replace(root: &Root, found: &Found, status: Status) -> Status {
    let Ok(Some(state)) = State::load(root) else {
        return status;
    };
    let generation = match Generation::load(root, &state) {
        Err(GenerationError::Damaged(_)) => Generation::salvaged(root, &state).ok(),
        loaded => loaded.ok(),
    };
    match generation.filter(|_| state.phase != Phase::Reset) {
        Some(generation) => {
            let status = correctable(status.summary);
            consider(root, found, (&state, &generation), status)
        }
        // What cannot be read now may be read later.
        None => status,
    }
}

/// The status of the configuration that counts, which is in place.
pub fn present(root: &Root) -> Option<Status> {
    let state = State::load(root).ok()??;
    let generation = Generation::load(root, &state).ok()?;
    Some(configured(root, &generation, &state))
}

/// Whether what is attached was not taken for a reason that goes by itself,
/// such as a full disk.
pub fn may_be_kept_later(status: &Status) -> bool {
    match status.standing {
        Standing::Waiting => status.code == code::APPLY_FAILED,
        Standing::Fenced => status.refused == code::APPLY_KEPT,
        _ => false,
    }
}
