//! The packages that a request may choose from, with their relations worked
//! out: which packages satisfy each dependency, and which ones are excluded.
//!
//! Each name has one candidate: the newest version over all suites, unless
//! the request names another one. Nothing else is ever chosen for that name,
//! as apt does it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::super::error::SourceError;
use super::super::index::{Archive, PackageId};
use super::super::relation::{Relation, alternatives, clauses};
use super::super::version::Version;

/// The choices of a request.
#[derive(Debug)]
pub(super) struct Catalog<'a> {
    pub(super) archive: &'a Archive,
    architecture: &'a str,
    /// Candidates that are not simply the newest.
    wanted: BTreeMap<&'a str, PackageId>,
    excluded: BTreeSet<&'a str>,
    /// Virtual packages that nobody needs to provide.
    provided: Vec<(&'a str, Option<Version<'a>>)>,
    /// Names of the layers, for messages.
    layers: Vec<String>,
    worked_out: RefCell<BTreeMap<PackageId, Rc<Facts<'a>>>>,
}

/// What a package needs and does not bear.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// Dependencies in the order in which they are looked at.
    pub(super) clauses: Vec<Clause<'a>>,
    /// Candidates that may not be there too.
    pub(super) exclusions: Vec<Exclusion<'a>>,
}

/// One dependency.
#[derive(Debug)]
pub(super) struct Clause<'a> {
    pub(super) kind: Need,
    pub(super) alternatives: Vec<Relation<'a>>,
    /// Candidates that satisfy it, the preferred one first.
    pub(super) options: Vec<PackageId>,
    /// Whether the request says that it is satisfied.
    pub(super) is_provided: bool,
}

/// How strong a dependency is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// `Pre-Depends`
    Before,
    /// `Depends`
    Always,
    /// `Recommends`
    Usually,
}

/// A candidate that a package does not bear, and the rule that says so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exclusion<'a> {
    pub(super) with: PackageId,
    pub(super) field: &'static str,
    pub(super) relation: Relation<'a>,
}

impl Clause<'_> {
    /// The dependency, in one line.
    pub(super) fn shown(&self) -> String {
        let shown: Vec<_> = self.alternatives.iter().map(ToString::to_string).collect();
        shown.join(" | ")
    }
}

impl<'a> Catalog<'a> {
    /// The choices among `archive`.
    pub(super) fn new(
        archive: &'a Archive,
        architecture: &'a str,
        excluded: impl IntoIterator<Item = &'a str>,
        provided: Vec<(&'a str, Option<Version<'a>>)>,
        layers: Vec<String>,
    ) -> Self {
        Self {
            archive,
            architecture,
            wanted: BTreeMap::new(),
            excluded: excluded.into_iter().collect(),
            provided,
            layers,
            worked_out: RefCell::default(),
        }
    }

    /// Makes `id` the candidate of its name. Before any relation is asked for.
    pub(super) fn prefer(&mut self, id: PackageId) {
        self.wanted.insert(self.archive.name(id), id);
    }

    /// The name of a layer, by its number.
    pub(super) fn layer_name(&self, layer: usize) -> String {
        self.layers.get(layer).cloned().unwrap_or_default()
    }

    /// Whether the request excludes the name.
    pub(super) fn is_excluded(&self, name: &str) -> bool {
        self.excluded.contains(name)
    }

    /// The one version of a name that may be chosen.
    pub(super) fn candidate(&self, name: &str) -> Option<PackageId> {
        if self.is_excluded(name) {
            return None;
        }
        self.wanted
            .get(name)
            .copied()
            .or_else(|| self.archive.versions(name).next())
    }

    /// The candidate of a relation's name, whether its version fits or not.
    pub(super) fn candidate_for(&self, relation: &Relation<'_>) -> Option<PackageId> {
        relation
            .is_for(self.architecture)
            .then(|| self.candidate(relation.name))?
    }

    fn is_candidate(&self, id: PackageId) -> bool {
        self.candidate(self.archive.name(id)) == Some(id)
    }

    /// Essential candidates, by name.
    pub(super) fn essentials(&self) -> Vec<PackageId> {
        let is_essential = |id: &PackageId| {
            self.is_candidate(*id) && self.archive.field(*id, "Essential") == Some("yes")
        };
        self.archive.ids().filter(is_essential).collect()
    }

    /// What a package needs and does not bear.
    ///
    /// # Errors
    ///
    /// [`SourceError::Malformed`].
    pub(super) fn facts(&self, id: PackageId) -> Result<Rc<Facts<'a>>, SourceError> {
        if let Some(facts) = self.worked_out.borrow().get(&id) {
            return Ok(Rc::clone(facts));
        }
        let facts = Rc::new(self.work_out(id)?);
        self.worked_out.borrow_mut().insert(id, Rc::clone(&facts));
        Ok(facts)
    }

    fn work_out(&self, id: PackageId) -> Result<Facts<'a>, SourceError> {
        let malformed = |field: &str, clause: &str| SourceError::Malformed {
            suite: self.archive.suite(id).to_owned(),
            file: "Packages".into(),
            problem: format!("{field} of {} has `{clause}`", self.archive.name(id)),
        };
        let mut facts = Facts {
            clauses: Vec::new(),
            exclusions: Vec::new(),
        };
        // apt's order, so that choices come out as apt's do.
        let positive = [
            ("Depends", Need::Always),
            ("Pre-Depends", Need::Before),
            ("Recommends", Need::Usually),
        ];
        for (field, kind) in positive {
            for text in clauses(self.archive.field(id, field).unwrap_or_default()) {
                let alternatives = alternatives(text).ok_or_else(|| malformed(field, text))?;
                facts.clauses.push(self.clause(kind, alternatives));
            }
        }
        for field in ["Conflicts", "Breaks"] {
            for text in clauses(self.archive.field(id, field).unwrap_or_default()) {
                let relation = Relation::parse(text).ok_or_else(|| malformed(field, text))?;
                let bad = self
                    .matching(&relation)
                    .into_iter()
                    .filter(|with| *with != id);
                facts.exclusions.extend(bad.map(|with| Exclusion {
                    with,
                    field,
                    relation,
                }));
            }
        }
        Ok(facts)
    }

    fn clause(&self, kind: Need, alternatives: Vec<Relation<'a>>) -> Clause<'a> {
        let mut options = Vec::new();
        for relation in &alternatives {
            for id in self.matching(relation) {
                if !options.contains(&id) {
                    options.push(id);
                }
            }
        }
        let is_provided = alternatives.iter().any(|relation| self.provides(relation));
        Clause {
            kind,
            alternatives,
            options,
            is_provided,
        }
    }

    fn provides(&self, relation: &Relation<'_>) -> bool {
        self.provided
            .iter()
            .any(|(name, version)| *name == relation.name && relation.accepts_provided(*version))
    }

    /// Candidates that a relation means, in apt's order of preference: the
    /// package of that name, then essential ones, then by priority. Where apt
    /// goes by the order of its cache, we go by name.
    pub(super) fn matching(&self, relation: &Relation<'_>) -> Vec<PackageId> {
        if !relation.is_for(self.architecture) {
            return Vec::new();
        }
        let archive = self.archive;
        let mut found: Vec<PackageId> = archive
            .providers(relation.name)
            .filter(|(id, version)| relation.accepts_provided(*version) && self.is_candidate(*id))
            .map(|(id, _)| id)
            .collect();
        if let Some(id) = self.candidate(relation.name)
            && relation.accepts(archive.version(id))
        {
            found.push(id);
        }
        found.sort_by_key(|&id| {
            let is_set = |field| archive.field(id, field) == Some("yes");
            let is_important = is_set("Protected") || is_set("Important");
            let is_own_name = archive.name(id) == relation.name;
            (
                !is_own_name,
                !is_set("Essential"),
                !is_important,
                self.priority(id),
                id,
            )
        });
        found.dedup();
        found
    }

    /// 0 for `required`, and so on.
    fn priority(&self, id: PackageId) -> usize {
        const ORDER: [&str; 5] = ["required", "important", "standard", "optional", "extra"];
        let priority = self.archive.field(id, "Priority").unwrap_or_default();
        ORDER
            .iter()
            .position(|name| *name == priority)
            .unwrap_or(ORDER.len())
    }
}
