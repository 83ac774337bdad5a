//! Which layer a package comes in.

use std::collections::{BTreeMap, BTreeSet};

use super::super::error::SourceError;
use super::super::index::PackageId;
use super::catalog::{Catalog, Need};
use super::selection::{Cause, Selection};

/// The packages of each layer, by name. A package is in the lowest layer that
/// needs it; the essential packages are in the first one, since no package
/// has to say that it needs them.
pub(super) fn assign(
    selection: &Selection<'_>,
    wanted: &[Vec<PackageId>],
    essential: &[PackageId],
    catalog: &Catalog<'_>,
) -> Result<Vec<BTreeSet<PackageId>>, SourceError> {
    let mut placed = BTreeSet::new();
    let mut layers: Vec<BTreeSet<PackageId>> = Vec::new();
    let base = needed(essential, selection, &mut placed, catalog)?;
    for (number, wanted) in wanted.iter().enumerate() {
        let own = needed(wanted, selection, &mut placed, catalog)?;
        layers.push(match number {
            0 => own.union(&base).copied().collect(),
            _ => own,
        });
    }
    let rest = left_over(selection, &layers);
    for (layer, rest) in layers.iter_mut().zip(rest) {
        layer.extend(rest);
    }
    Ok(layers)
}

/// What was chosen before something else made it superfluous, or because it
/// is recommended: for each layer, it comes with what it was chosen for.
fn left_over(
    selection: &Selection<'_>,
    layers: &[BTreeSet<PackageId>],
) -> Vec<BTreeSet<PackageId>> {
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
