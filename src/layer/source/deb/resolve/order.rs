//! Which layer a package comes in, and in which order it is unpacked there.

use std::collections::{BTreeMap, BTreeSet};

use super::super::error::SourceError;
use super::super::index::PackageId;
use super::catalog::{Catalog, Need};
use super::selection::{Cause, Selection};

/// The packages of each layer, unpack order. A package is in the lowest
/// layer that needs it. Within a layer the essential packages and what they
/// need come first, since no package has to say that it needs them.
pub(super) fn assign(
    selection: &Selection<'_>,
    wanted: &[Vec<PackageId>],
    essential: &[PackageId],
    catalog: &Catalog<'_>,
) -> Result<Vec<Vec<PackageId>>, SourceError> {
    let mut placed = BTreeSet::new();
    let mut layers = Vec::new();
    let base = needed(essential, selection, &mut placed, catalog)?;
    for (number, wanted) in wanted.iter().enumerate() {
        let own = needed(wanted, selection, &mut placed, catalog)?;
        let mut packages = if number == 0 {
            unpack_order(&base, catalog)?
        } else {
            Vec::new()
        };
        packages.extend(unpack_order(&own, catalog)?);
        layers.push(packages);
    }
    let rest = left_over(selection, &layers);
    for (layer, rest) in layers.iter_mut().zip(rest) {
        layer.extend(unpack_order(&rest, catalog)?);
    }
    Ok(layers)
}

/// What was chosen before something else made it superfluous, or because it
/// is recommended: for each layer, it comes with what it was chosen for.
fn left_over(selection: &Selection<'_>, layers: &[Vec<PackageId>]) -> Vec<BTreeSet<PackageId>> {
    let mut home = BTreeMap::new();
    for (number, layer) in layers.iter().enumerate() {
        home.extend(layer.iter().map(|&id| (id, number)));
    }
    let mut rest = vec![BTreeSet::new(); layers.len()];
    // The order of choice has causes before effects.
    for &id in selection.order() {
        if home.contains_key(&id) {
            continue;
        }
        let number = match selection.cause(id) {
            Some(Cause::NeededBy(parent)) => home.get(&parent).copied().unwrap_or(0),
            Some(Cause::Wanted(layer)) => layer,
            _ => 0,
        };
        home.insert(id, number);
        if let Some(layer) = rest.get_mut(number) {
            layer.insert(id);
        }
    }
    rest
}

/// What `starts` need, themselves included, that has no place yet.
fn needed(
    starts: &[PackageId],
    selection: &Selection<'_>,
    placed: &mut BTreeSet<PackageId>,
    catalog: &Catalog<'_>,
) -> Result<BTreeSet<PackageId>, SourceError> {
    let mut found = BTreeSet::new();
    let mut open: Vec<PackageId> = starts.iter().rev().copied().collect();
    while let Some(id) = open.pop() {
        if !placed.insert(id) {
            continue;
        }
        found.insert(id);
        for clause in &catalog.facts(id)?.clauses {
            let is_met = clause.is_provided || clause.options.iter().any(|it| placed.contains(it));
            if clause.kind == Need::Usually || is_met {
                continue;
            }
            open.extend(clause.options.iter().find(|it| selection.contains(**it)));
        }
    }
    Ok(found)
}

/// Pre-dependencies strictly before, dependencies before dependents; a cycle
/// is entered where the fewest dependencies are missing, then by name.
fn unpack_order(
    packages: &BTreeSet<PackageId>,
    catalog: &Catalog<'_>,
) -> Result<Vec<PackageId>, SourceError> {
    let graph = Graph::new(packages, catalog)?;
    let mut order = Vec::new();
    for mut knot in graph.knots() {
        while !knot.is_empty() {
            let missing = |id: &PackageId, needs: &BTreeMap<PackageId, BTreeSet<PackageId>>| {
                needs
                    .get(id)
                    .map_or(0, |needs| needs.intersection(&knot).count())
            };
            let next = knot
                .iter()
                .copied()
                .min_by_key(|id| (missing(id, &graph.before), missing(id, &graph.all), *id));
            let next = next.expect("the knot is not empty: checked above");
            knot.remove(&next);
            order.push(next);
        }
    }
    Ok(order)
}

/// Who needs whom, within one layer.
struct Graph {
    all: BTreeMap<PackageId, BTreeSet<PackageId>>,
    /// Pre-dependencies only.
    before: BTreeMap<PackageId, BTreeSet<PackageId>>,
}

impl Graph {
    fn new(packages: &BTreeSet<PackageId>, catalog: &Catalog<'_>) -> Result<Self, SourceError> {
        let (mut all, mut before) = (BTreeMap::new(), BTreeMap::new());
        for &id in packages {
            let (mut needs, mut needs_before) = (BTreeSet::new(), BTreeSet::new());
            for clause in &catalog.facts(id)?.clauses {
                let met = clause
                    .options
                    .iter()
                    .find(|it| packages.contains(it) && **it != id);
                if clause.kind != Need::Usually {
                    needs.extend(met);
                }
                if clause.kind == Need::Before {
                    needs_before.extend(met);
                }
            }
            all.insert(id, needs);
            before.insert(id, needs_before);
        }
        Ok(Self { all, before })
    }

    /// Sets of packages that need each other in a circle, mostly of one
    /// package; what a knot needs comes in earlier ones.
    ///
    /// Source: R. Tarjan, "Depth-first search and linear graph algorithms",
    /// 1972; with a stack of its own instead of recursion.
    fn knots(&self) -> Vec<BTreeSet<PackageId>> {
        let mut walk = Walk::default();
        for &start in self.all.keys() {
            if !walk.number.contains_key(&start) {
                walk.from(start, &self.all);
            }
        }
        walk.knots
    }
}

#[derive(Default)]
struct Walk {
    /// In the order of discovery.
    number: BTreeMap<PackageId, usize>,
    /// The lowest number that is reached and not yet in a knot.
    low: BTreeMap<PackageId, usize>,
    open: Vec<PackageId>,
    is_open: BTreeSet<PackageId>,
    knots: Vec<BTreeSet<PackageId>>,
}

impl Walk {
    fn from(&mut self, start: PackageId, needs: &BTreeMap<PackageId, BTreeSet<PackageId>>) {
        let targets = |id: PackageId| needs.get(&id).into_iter().flatten().copied();
        self.discover(start);
        let mut path = vec![(start, targets(start).collect::<Vec<_>>().into_iter())];
        while let Some((id, rest)) = path.last_mut() {
            let id = *id;
            match rest.next() {
                Some(target) if !self.number.contains_key(&target) => {
                    self.discover(target);
                    path.push((target, targets(target).collect::<Vec<_>>().into_iter()));
                }
                Some(target) if self.is_open.contains(&target) => {
                    let seen = self.number.get(&target).copied().unwrap_or(0);
                    self.lower(id, seen);
                }
                Some(_) => {}
                None => {
                    path.pop();
                    let low = self.low.get(&id).copied().unwrap_or(0);
                    if let Some((parent, _)) = path.last() {
                        self.lower(*parent, low);
                    }
                    if self.number.get(&id) == Some(&low) {
                        self.close(id);
                    }
                }
            }
        }
    }

    fn discover(&mut self, id: PackageId) {
        let number = self.number.len();
        self.number.insert(id, number);
        self.low.insert(id, number);
        self.open.push(id);
        self.is_open.insert(id);
    }

    fn lower(&mut self, id: PackageId, to: usize) {
        if let Some(low) = self.low.get_mut(&id) {
            *low = (*low).min(to);
        }
    }

    fn close(&mut self, root: PackageId) {
        let mut knot = BTreeSet::new();
        while let Some(id) = self.open.pop() {
            self.is_open.remove(&id);
            knot.insert(id);
            if id == root {
                break;
            }
        }
        self.knots.push(knot);
    }
}
