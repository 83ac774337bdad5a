//! From claims that contradict each other to words.

use std::collections::BTreeSet;

use super::super::error::SourceError;
use super::super::index::PackageId;
use super::catalog::Catalog;
use super::failure::{Failure, Step};
use super::search::Claim;
use super::selection::{Cause, Selection, Stop};

/// Why `claims` cannot hold together. Where nothing could be chosen otherwise,
/// the one thing that does not fit, and the ways that lead to it; else all
/// of them, from what is wanted downwards.
pub(super) fn explain<'a>(
    claims: &[Claim<'a>],
    catalog: &Catalog<'a>,
) -> Result<Failure, SourceError> {
    match straight(claims, catalog)? {
        Some(failure) => Ok(failure),
        None => together(claims, catalog),
    }
}

/// The failure where each claim leaves one way.
fn straight<'a>(
    claims: &[Claim<'a>],
    catalog: &Catalog<'a>,
) -> Result<Option<Failure>, SourceError> {
    let mut selection = Selection::default();
    let mut needs = Vec::new();
    for claim in claims {
        match claim {
            Claim::Wanted { options, cause } => match options.as_slice() {
                // Wanted packages that exclude each other are told here.
                [only] => match selection.add_wanted(&[(*only, *cause)], catalog) {
                    Ok(()) => {}
                    Err(Stop::Stuck(failure)) => return Ok(Some(*failure)),
                    Err(Stop::Error(error)) => return Err(error),
                },
                _ => return Ok(None),
            },
            Claim::Needs { id, clause } => needs.push((*id, *clause)),
            Claim::Excludes { .. } => {}
            Claim::OneOf(..) => return Ok(None),
        }
    }
    // Each round adds what is needed by what is there already.
    loop {
        let before = needs.len();
        let mut left = Vec::new();
        for (id, number) in std::mem::take(&mut needs) {
            if !selection.contains(id) {
                left.push((id, number));
                continue;
            }
            let facts = catalog.facts(id)?;
            let Some(clause) = facts.clauses.get(number) else {
                return Ok(None);
            };
            let clash = match clause.options.as_slice() {
                [only] => {
                    let clash = selection.clash(*only, catalog)?;
                    if clash.is_none() {
                        selection.add(*only, Cause::NeededBy(id), catalog)?;
                    }
                    clash.is_some()
                }
                [] => true,
                _ => return Ok(None),
            };
            if clash {
                return selection.no_alternative(id, clause, catalog).map(Some);
            }
        }
        needs = left;
        if needs.len() == before {
            return Ok(None);
        }
    }
}

/// All claims as sentences.
fn together<'a>(claims: &[Claim<'a>], catalog: &Catalog<'a>) -> Result<Failure, SourceError> {
    let archive = catalog.archive;
    let shown = |id: PackageId| (archive.name(id).to_owned(), archive.version(id).to_string());
    let names: BTreeSet<&str> = claims
        .iter()
        .filter_map(|claim| match claim {
            Claim::OneOf(one, _) => Some(archive.name(*one)),
            _ => None,
        })
        .collect();
    // A version is told only where there are several.
    let call = |id: PackageId| match shown(id) {
        (name, version) if names.contains(name.as_str()) => format!("{name} {version}"),
        (name, _) => name,
    };
    let (mut steps, mut rest) = (Vec::new(), Vec::new());
    for claim in claims {
        match claim {
            Claim::Wanted { options, cause } => steps.push(Step::Wanted {
                package: options.first().map_or_else(String::new, |id| shown(*id).0),
                layer: match cause {
                    Cause::Wanted(layer) => Some(catalog.layer_name(*layer)),
                    _ => None,
                },
            }),
            Claim::Needs { id, clause } => {
                let facts = catalog.facts(*id)?;
                let Some(clause) = facts.clauses.get(*clause) else {
                    continue;
                };
                let obstacles = match clause.options.as_slice() {
                    [] => Selection::default().obstacles(clause, catalog)?,
                    _ => Vec::new(),
                };
                rest.push(Step::Needs {
                    package: call(*id),
                    relation: clause.shown(),
                    obstacles,
                });
            }
            Claim::Excludes { owner, exclusion } => rest.push(Step::Excludes {
                package: call(*owner),
                with: call(exclusion.with),
                rule: exclusion.shown(archive.name(*owner)),
            }),
            Claim::OneOf(..) => {}
        }
    }
    steps.extend(rest);
    for name in names {
        steps.push(Step::OneVersion {
            package: name.to_owned(),
        });
    }
    Ok(Failure::Together { steps })
}
