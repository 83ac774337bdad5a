//! All choices, where the straight way got stuck.
//!
//! A small search by the method of Davis, Putnam, Logemann and Loveland: what
//! follows is followed first (a dependency with one option left, a package
//! that a chosen one does not bear), then the first open dependency gets its
//! preferred option, and a dead end turns the last such decision around.
//! Complete within [`MAX_TRIES`] dead ends. Recommended packages do not take
//! part.

use std::collections::BTreeMap;

use super::super::error::SourceError;
use super::super::index::PackageId;
use super::catalog::{Catalog, Need};
use super::selection::{Cause, Selection};

/// Dead ends until it gives up.
const MAX_TRIES: usize = 2_000;

/// How a search ended.
#[derive(Debug)]
pub(super) enum Outcome<'a> {
    /// With packages that fit.
    Found(Selection<'a>),
    /// There are none.
    Impossible,
    /// After this many dead ends.
    GaveUp(usize),
}

/// One assignment on the trail.
#[derive(Debug, Clone, Copy)]
struct Step {
    id: PackageId,
    is_chosen: bool,
    cause: Cause,
    /// Whether it was a free choice that can be turned around.
    is_decision: bool,
}

struct Search<'a, 'b> {
    catalog: &'b Catalog<'a>,
    trail: Vec<Step>,
    assigned: BTreeMap<PackageId, bool>,
}

/// Looks for packages that satisfy all dependencies of `wanted`.
pub(super) fn search<'a>(
    wanted: &[(PackageId, Cause)],
    catalog: &Catalog<'a>,
) -> Result<Outcome<'a>, SourceError> {
    let mut search = Search {
        catalog,
        trail: Vec::new(),
        assigned: BTreeMap::new(),
    };
    for &(id, cause) in wanted {
        search.assign(id, true, cause, false);
    }
    let mut tries = 0;
    loop {
        if search.follow()? {
            let Some((id, cause)) = search.open_choice()? else {
                return search.selection().map(Outcome::Found);
            };
            search.assign(id, true, cause, true);
            continue;
        }
        tries += 1;
        if tries > MAX_TRIES {
            return Ok(Outcome::GaveUp(tries));
        }
        if !search.turn_around() {
            return Ok(Outcome::Impossible);
        }
    }
}

impl<'a> Search<'a, '_> {
    fn assign(&mut self, id: PackageId, is_chosen: bool, cause: Cause, is_decision: bool) {
        if self.assigned.insert(id, is_chosen).is_none() {
            self.trail.push(Step {
                id,
                is_chosen,
                cause,
                is_decision,
            });
        }
    }

    /// Draws all conclusions; `false` at a dead end.
    fn follow(&mut self) -> Result<bool, SourceError> {
        loop {
            let before = self.trail.len();
            for at in 0.. {
                let Some(step) = self.trail.get(at).copied() else {
                    break;
                };
                if step.is_chosen && !self.follow_one(step.id)? {
                    return Ok(false);
                }
            }
            if self.trail.len() == before {
                return Ok(true);
            }
        }
    }

    fn follow_one(&mut self, id: PackageId) -> Result<bool, SourceError> {
        let facts = self.catalog.facts(id)?;
        for exclusion in &facts.exclusions {
            match self.assigned.get(&exclusion.with) {
                Some(true) => return Ok(false),
                Some(false) => {}
                None => self.assign(exclusion.with, false, Cause::NeededBy(id), false),
            }
        }
        for clause in facts.clauses.iter().filter(|it| it.kind != Need::Usually) {
            let state = |id: &PackageId| self.assigned.get(id).copied();
            if clause.is_provided || clause.options.iter().any(|it| state(it) == Some(true)) {
                continue;
            }
            let mut left = clause.options.iter().filter(|it| state(it).is_none());
            match (left.next().copied(), left.next()) {
                (None, _) => return Ok(false),
                (Some(only), None) => self.assign(only, true, Cause::NeededBy(id), false),
                _ => {}
            }
        }
        Ok(true)
    }

    /// The preferred option of the first dependency that is still open.
    fn open_choice(&self) -> Result<Option<(PackageId, Cause)>, SourceError> {
        for step in self.trail.iter().filter(|step| step.is_chosen) {
            let facts = self.catalog.facts(step.id)?;
            for clause in facts.clauses.iter().filter(|it| it.kind != Need::Usually) {
                let state = |id: &&PackageId| self.assigned.get(id).copied();
                if clause.is_provided || clause.options.iter().any(|it| state(&it) == Some(true)) {
                    continue;
                }
                if let Some(option) = clause.options.iter().find(|it| state(it).is_none()) {
                    return Ok(Some((*option, Cause::NeededBy(step.id))));
                }
            }
        }
        Ok(None)
    }

    /// Goes back to the last decision and rules its choice out; `false` when
    /// there is none left.
    fn turn_around(&mut self) -> bool {
        while let Some(step) = self.trail.pop() {
            self.assigned.remove(&step.id);
            if step.is_decision {
                self.assign(step.id, false, step.cause, false);
                return true;
            }
        }
        false
    }

    fn selection(&self) -> Result<Selection<'a>, SourceError> {
        let mut selection = Selection::default();
        for step in self.trail.iter().filter(|step| step.is_chosen) {
            selection.add(step.id, step.cause, self.catalog)?;
        }
        Ok(selection)
    }
}
