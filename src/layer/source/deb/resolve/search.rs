//! All choices, where the straight way got stuck.
//!
//! Every package that could come is a variable, every dependency, conflict
//! and wish a clause; `sat` decides whether they can hold together. The wish
//! for each next decision is that of the straight way: the preferred option
//! of the first dependency that is still open. Recommended packages do not
//! take part.
//!
//! First with one version for each name, then, where there is no way, with
//! all versions that the request allows.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::error::SourceError;
use super::super::index::PackageId;
use super::catalog::{Catalog, Exclusion, Facts, Need};
use super::sat::{Literal, Solver, Verdict, smallest};
use super::selection::{Cause, Selection};

/// Clauses of a contradiction up to which it is made as small as it can be.
const MAX_CORE: usize = 400;

/// How a search ended.
#[derive(Debug)]
pub(super) enum Outcome<'a> {
    /// With packages that fit.
    Found(Selection<'a>),
    /// There are none: these claims cannot hold together.
    Impossible(Vec<Claim<'a>>),
    /// After this many dead ends.
    GaveUp(usize),
}

/// One thing that has to hold.
#[derive(Debug, Clone)]
pub(super) enum Claim<'a> {
    /// One of these has to come.
    Wanted {
        options: Vec<PackageId>,
        cause: Cause,
    },
    /// A dependency of a package, by its number among those of its facts.
    Needs { id: PackageId, clause: usize },
    /// A package does not bear another.
    Excludes {
        owner: PackageId,
        exclusion: Exclusion<'a>,
    },
    /// Only one version of a name can be there.
    OneOf(PackageId, PackageId),
}

/// A package that has to come in any case: its candidate, and why.
pub(super) type Seed = (PackageId, Cause);

/// Looks for packages that satisfy all dependencies of `wanted`.
pub(super) fn search<'a>(
    wanted: &[Seed],
    catalog: &Catalog<'a>,
) -> Result<Outcome<'a>, SourceError> {
    let universe = Universe::reach(wanted, catalog)?;
    let claims = universe.claims(wanted, catalog);
    let clauses: Vec<Vec<Literal>> = claims.iter().map(|it| universe.clause(it)).collect();
    let mut solver = Solver::new(universe.ids.len());
    for clause in &clauses {
        solver.add(clause.clone());
    }
    match solver.solve(|solver| universe.wish(solver, wanted, catalog)) {
        Verdict::Holds(trail) => universe
            .selection(&trail, wanted, catalog)
            .map(Outcome::Found),
        Verdict::GaveUp(tries) => Ok(Outcome::GaveUp(tries)),
        Verdict::Contradicts(mut core) => {
            if core.len() <= MAX_CORE {
                core = smallest(universe.ids.len(), &clauses, &core);
            }
            let claims = core.iter().filter_map(|at| claims.get(*at).cloned());
            Ok(Outcome::Impossible(claims.collect()))
        }
    }
}

/// Every package that could come.
struct Universe<'a> {
    ids: Vec<PackageId>,
    numbers: BTreeMap<PackageId, usize>,
    facts: Vec<Rc<Facts<'a>>>,
}

impl<'a> Universe<'a> {
    fn reach(wanted: &[Seed], catalog: &Catalog<'a>) -> Result<Self, SourceError> {
        let mut universe = Self {
            ids: Vec::new(),
            numbers: BTreeMap::new(),
            facts: Vec::new(),
        };
        for (id, _) in wanted {
            for option in catalog.versions_for(*id) {
                universe.add(option);
            }
        }
        let mut at = 0;
        while let Some(&id) = universe.ids.get(at) {
            at += 1;
            let facts = catalog.facts(id)?;
            for clause in facts.clauses.iter().filter(|it| it.kind != Need::Usually) {
                for option in &clause.options {
                    universe.add(*option);
                }
            }
            universe.facts.push(facts);
        }
        Ok(universe)
    }

    fn add(&mut self, id: PackageId) {
        if let std::collections::btree_map::Entry::Vacant(place) = self.numbers.entry(id) {
            place.insert(self.ids.len());
            self.ids.push(id);
        }
    }

    /// The number of a package that is in it.
    fn number(&self, id: PackageId) -> usize {
        *self
            .numbers
            .get(&id)
            .expect("all that can come was reached before")
    }

    fn claims(&self, wanted: &[Seed], catalog: &Catalog<'a>) -> Vec<Claim<'a>> {
        let mut claims: Vec<Claim<'a>> = wanted
            .iter()
            .map(|(id, cause)| Claim::Wanted {
                options: catalog.versions_for(*id),
                cause: *cause,
            })
            .collect();
        for (id, facts) in self.ids.iter().zip(&self.facts) {
            for (number, clause) in facts.clauses.iter().enumerate() {
                let is_met = clause.is_provided || clause.options.contains(id);
                if clause.kind != Need::Usually && !is_met {
                    claims.push(Claim::Needs {
                        id: *id,
                        clause: number,
                    });
                }
            }
            let known = |it: &&Exclusion<'_>| self.numbers.contains_key(&it.with);
            for exclusion in facts.exclusions.iter().filter(known) {
                claims.push(Claim::Excludes {
                    owner: *id,
                    exclusion: *exclusion,
                });
            }
        }
        let mut by_name: BTreeMap<&str, Vec<PackageId>> = BTreeMap::new();
        for id in &self.ids {
            by_name
                .entry(catalog.archive.name(*id))
                .or_default()
                .push(*id);
        }
        for versions in by_name.values() {
            for (at, one) in versions.iter().enumerate() {
                let others = versions.iter().skip(at + 1);
                claims.extend(others.map(|other| Claim::OneOf(*one, *other)));
            }
        }
        claims
    }

    fn clause(&self, claim: &Claim<'_>) -> Vec<Literal> {
        let yes = |id: &PackageId| Literal::yes(self.number(*id));
        let no = |id: PackageId| Literal::no(self.number(id));
        match claim {
            Claim::Wanted { options, .. } => options.iter().map(yes).collect(),
            Claim::Needs { id, clause } => {
                let options = self
                    .facts
                    .get(self.number(*id))
                    .and_then(|facts| facts.clauses.get(*clause))
                    .map(|clause| clause.options.as_slice());
                let options = options.unwrap_or_default().iter().map(yes);
                options.chain([no(*id)]).collect()
            }
            Claim::Excludes { owner, exclusion } => vec![no(*owner), no(exclusion.with)],
            Claim::OneOf(one, other) => vec![no(*one), no(*other)],
        }
    }

    /// The preferred option of what is open first: a wish, then a dependency
    /// of what was chosen first.
    fn wish(&self, solver: &Solver, wanted: &[Seed], catalog: &Catalog<'a>) -> Option<Literal> {
        let preferred = |options: &[PackageId]| {
            let state = |id: &PackageId| solver.value(self.number(*id));
            if options.iter().any(|id| state(id) == Some(true)) {
                return None;
            }
            let free = options.iter().find(|id| state(id).is_none());
            free.map(|id| Literal::yes(self.number(*id)))
        };
        for (id, _) in wanted {
            if let Some(literal) = preferred(&catalog.versions_for(*id)) {
                return Some(literal);
            }
        }
        let chosen = solver.trail().iter().filter(|literal| literal.is_yes());
        for facts in chosen.filter_map(|literal| self.facts.get(literal.variable())) {
            for clause in &facts.clauses {
                if clause.kind == Need::Usually || clause.is_provided {
                    continue;
                }
                if let Some(literal) = preferred(&clause.options) {
                    return Some(literal);
                }
            }
        }
        None
    }

    /// The chosen packages with their causes: what is wanted, then what each
    /// needs, in the order in which it says so. What nobody needs any more,
    /// since another choice was made later, is left out.
    fn selection(
        &self,
        trail: &[Literal],
        wanted: &[Seed],
        catalog: &Catalog<'a>,
    ) -> Result<Selection<'a>, SourceError> {
        let mut is_chosen = vec![false; self.ids.len()];
        for literal in trail.iter().filter(|literal| literal.is_yes()) {
            if let Some(chosen) = is_chosen.get_mut(literal.variable()) {
                *chosen = true;
            }
        }
        let holds = |id: &&PackageId| is_chosen.get(self.number(**id)) == Some(&true);
        let mut selection = Selection::default();
        for (id, cause) in wanted {
            if let Some(option) = catalog.versions_for(*id).iter().find(holds) {
                selection.add(*option, *cause, catalog)?;
            }
        }
        let mut at = 0;
        while let Some(&id) = selection.order().get(at) {
            at += 1;
            let facts = catalog.facts(id)?;
            for clause in facts.clauses.iter().filter(|it| it.kind != Need::Usually) {
                if selection.satisfies(clause) {
                    continue;
                }
                if let Some(option) = clause.options.iter().find(holds) {
                    selection.add(*option, Cause::NeededBy(id), catalog)?;
                }
            }
        }
        Ok(selection)
    }
}
