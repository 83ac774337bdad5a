//! The packages that are chosen so far, and the straight way to choose them.
//!
//! The straight way is apt's: what is asked for first, then each dependency
//! in the order written, the first alternative that can be had unless one of
//! them is there already. It never takes a choice back; where it gets stuck,
//! [`super::search`] looks at the other choices.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::error::SourceError;
use super::super::index::PackageId;
use super::catalog::{Catalog, Clause, Exclusion, Facts, Need};
use super::failure::{Chosen, Failure, Obstacle, Root};

/// Why a package was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A layer, by its number, asks for it.
    Wanted(usize),
    /// It is essential.
    Essential,
    /// This one depends on it.
    NeededBy(PackageId),
}

/// Why choosing stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The choices do not fit.
    Stuck(Box<Failure>),
    /// Something is wrong with the lists.
    Error(SourceError),
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Self {
        Self::Error(error)
    }
}

/// Packages that are chosen.
#[derive(Debug, Default)]
pub(super) struct Selection<'a> {
    causes: BTreeMap<PackageId, Cause>,
    /// In the order of choice.
    order: Vec<PackageId>,
    /// For a candidate: the chosen packages that do not bear it.
    excluded_by: BTreeMap<PackageId, Vec<(PackageId, Exclusion<'a>)>>,
}

/// A package whose dependencies are being looked at.
#[derive(Debug)]
struct Frame<'a> {
    id: PackageId,
    facts: Rc<Facts<'a>>,
    next: usize,
}

impl<'a> Selection<'a> {
    pub(super) fn contains(&self, id: PackageId) -> bool {
        self.causes.contains_key(&id)
    }

    pub(super) fn cause(&self, id: PackageId) -> Option<Cause> {
        self.causes.get(&id).copied()
    }

    /// All chosen packages, in the order of choice.
    pub(super) fn order(&self) -> &[PackageId] {
        &self.order
    }

    /// Chooses one package, whatever it needs.
    pub(super) fn add(
        &mut self,
        id: PackageId,
        cause: Cause,
        catalog: &Catalog<'a>,
    ) -> Result<(), SourceError> {
        if self.contains(id) {
            return Ok(());
        }
        self.causes.insert(id, cause);
        self.order.push(id);
        for exclusion in &catalog.facts(id)?.exclusions {
            self.excluded_by
                .entry(exclusion.with)
                .or_default()
                .push((id, *exclusion));
        }
        Ok(())
    }

    /// Chooses the packages that are asked for, which must bear each other.
    pub(super) fn add_wanted(
        &mut self,
        wanted: &[(PackageId, Cause)],
        catalog: &Catalog<'a>,
    ) -> Result<(), Stop> {
        for &(id, cause) in wanted {
            if let Some((with, rule)) = self.clash(id, catalog)? {
                return Err(Stop::Stuck(Box::new(Failure::Conflict {
                    package: self.because(id, cause, catalog),
                    with: self.chosen(with, catalog),
                    rule,
                })));
            }
            self.add(id, cause, catalog)?;
        }
        Ok(())
    }

    /// Chooses what the packages from number `from` on need.
    pub(super) fn close(&mut self, from: usize, catalog: &Catalog<'a>) -> Result<(), Stop> {
        let starts = self.order.get(from..).unwrap_or_default().to_vec();
        for start in starts {
            let mut frames = vec![Frame {
                id: start,
                facts: catalog.facts(start)?,
                next: 0,
            }];
            while let Some(frame) = frames.last_mut() {
                let at = frame.next;
                frame.next += 1;
                let Some(clause) = frame.facts.clauses.get(at) else {
                    frames.pop();
                    continue;
                };
                if clause.kind == Need::Usually || self.satisfies(clause) {
                    continue;
                }
                let id = frame.id;
                let Some(option) = self.first_usable(clause, catalog)? else {
                    let failure = self.no_alternative(id, clause, catalog)?;
                    return Err(Stop::Stuck(Box::new(failure)));
                };
                self.add(option, Cause::NeededBy(id), catalog)?;
                frames.push(Frame {
                    id: option,
                    facts: catalog.facts(option)?,
                    next: 0,
                });
            }
        }
        Ok(())
    }

    /// Chooses what is recommended, where that fits, for those packages whose
    /// layer wants it; `follows` tells for the first cause of a package.
    pub(super) fn add_recommended(
        &mut self,
        follows: impl Fn(Cause) -> bool,
        catalog: &Catalog<'a>,
    ) -> Result<(), SourceError> {
        let mut at = 0;
        while let Some(&id) = self.order.get(at) {
            at += 1;
            if !follows(self.root_cause(id)) {
                continue;
            }
            let facts = catalog.facts(id)?;
            for clause in facts
                .clauses
                .iter()
                .filter(|clause| clause.kind == Need::Usually)
            {
                if !self.satisfies(clause) {
                    self.try_options(id, clause, catalog)?;
                }
            }
        }
        Ok(())
    }

    /// Chooses one option with all that it needs, or none.
    fn try_options(
        &mut self,
        id: PackageId,
        clause: &Clause<'a>,
        catalog: &Catalog<'a>,
    ) -> Result<(), SourceError> {
        for &option in &clause.options {
            if self.obstacle(option, catalog)?.is_some() {
                continue;
            }
            let before = self.order.len();
            self.add(option, Cause::NeededBy(id), catalog)?;
            match self.close(before, catalog) {
                Ok(()) => return Ok(()),
                Err(Stop::Stuck(_)) => self.take_back(before),
                Err(Stop::Error(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn take_back(&mut self, keep: usize) {
        for id in self.order.split_off(keep) {
            self.causes.remove(&id);
            for owners in self.excluded_by.values_mut() {
                owners.retain(|(owner, _)| *owner != id);
            }
        }
    }

    /// Whether a dependency holds already.
    pub(super) fn satisfies(&self, clause: &Clause<'a>) -> bool {
        clause.is_provided || clause.options.iter().any(|id| self.contains(*id))
    }

    fn first_usable(
        &self,
        clause: &Clause<'a>,
        catalog: &Catalog<'a>,
    ) -> Result<Option<PackageId>, SourceError> {
        for &option in &clause.options {
            if self.obstacle(option, catalog)?.is_none() {
                return Ok(Some(option));
            }
        }
        Ok(None)
    }

    /// What stands in the way of a candidate, at first sight.
    fn obstacle(
        &self,
        id: PackageId,
        catalog: &Catalog<'a>,
    ) -> Result<Option<Obstacle>, SourceError> {
        let package = || catalog.archive.name(id).to_owned();
        if let Some((with, rule)) = self.clash(id, catalog)? {
            let with = self.chosen(with, catalog);
            return Ok(Some(Obstacle::Conflicts {
                package: package(),
                with,
                rule,
            }));
        }
        let facts = catalog.facts(id)?;
        let hopeless = facts.clauses.iter().find(|clause| {
            clause.kind != Need::Usually && !clause.is_provided && clause.options.is_empty()
        });
        Ok(hopeless.map(|clause| Obstacle::Unusable {
            package: package(),
            relation: clause.shown(),
        }))
    }

    /// A chosen package that does not go with `id`, and the rule.
    pub(super) fn clash(
        &self,
        id: PackageId,
        catalog: &Catalog<'a>,
    ) -> Result<Option<(PackageId, String)>, SourceError> {
        let name = |id| catalog.archive.name(id);
        let rule = |owner, it: &Exclusion<'_>| it.shown(name(owner));
        if let Some((owner, exclusion)) = self.excluded_by.get(&id).and_then(|all| all.first()) {
            return Ok(Some((*owner, rule(*owner, exclusion))));
        }
        let facts = catalog.facts(id)?;
        let own = facts.exclusions.iter().find(|it| self.contains(it.with));
        Ok(own.map(|it| (it.with, rule(id, it))))
    }

    pub(super) fn no_alternative(
        &self,
        id: PackageId,
        clause: &Clause<'a>,
        catalog: &Catalog<'a>,
    ) -> Result<Failure, SourceError> {
        Ok(Failure::NoAlternative {
            package: self.chosen(id, catalog),
            relation: clause.shown(),
            obstacles: self.obstacles(clause, catalog)?,
        })
    }

    /// What stands in the way of each alternative of a dependency.
    pub(super) fn obstacles(
        &self,
        clause: &Clause<'a>,
        catalog: &Catalog<'a>,
    ) -> Result<Vec<Obstacle>, SourceError> {
        let mut obstacles = Vec::new();
        for relation in &clause.alternatives {
            let options = catalog.matching(relation);
            if options.is_empty() {
                let package = relation.name.to_owned();
                obstacles.push(if catalog.is_excluded(relation.name) {
                    Obstacle::Excluded { package }
                } else if catalog.is_limited_away(relation.name) {
                    Obstacle::Limited { package }
                } else {
                    let versions = catalog.versions_of(relation);
                    Obstacle::Absent {
                        relation: relation.to_string(),
                        versions,
                    }
                });
            }
            for option in options {
                obstacles.extend(self.obstacle(option, catalog)?);
            }
        }
        Ok(obstacles)
    }

    /// The cause at the beginning of the chain.
    fn root_cause(&self, id: PackageId) -> Cause {
        let mut cause = self.cause(id).unwrap_or(Cause::Essential);
        while let Cause::NeededBy(parent) = cause {
            cause = self.cause(parent).unwrap_or(Cause::Essential);
        }
        cause
    }

    fn chosen(&self, id: PackageId, catalog: &Catalog<'a>) -> Chosen {
        self.because(id, self.cause(id).unwrap_or(Cause::Essential), catalog)
    }

    fn because(&self, id: PackageId, cause: Cause, catalog: &Catalog<'a>) -> Chosen {
        let mut needed_by = Vec::new();
        let mut cause = cause;
        while let Cause::NeededBy(parent) = cause {
            needed_by.push(catalog.archive.name(parent).to_owned());
            cause = self.cause(parent).unwrap_or(Cause::Essential);
        }
        Chosen {
            name: catalog.archive.name(id).to_owned(),
            version: catalog.archive.version(id).to_string(),
            needed_by,
            root: match cause {
                Cause::Wanted(layer) => Root::Layer(catalog.layer_name(layer)),
                _ => Root::Essential,
            },
        }
    }
}
