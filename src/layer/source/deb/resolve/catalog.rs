//! The packages that a request may choose from, with their relations worked
//! out: which packages satisfy each dependency, and which ones are excluded.
//!
//! Each name has one candidate: of the versions that the limits allow, the
//! one with the highest priority, then the newest, unless the request names
//! another one. Nothing else is chosen for that name on the straight way, as
//! apt does it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::super::error::SourceError;
use super::super::index::{Archive, PackageId};
use super::super::pattern::fits;
use super::super::relation::{Relation, alternatives, clauses};
use super::super::version::Version;
use super::request::Request;
use crate::layer::spec::PackageLimit;

/// The choices of a request.
#[derive(Debug)]
pub(super) struct Catalog<'a> {
    pub(super) archive: &'a Archive,
    architecture: &'a str,
    limits: &'a [PackageLimit],
    scope: Scope,
    /// Versions that the request names.
    fixed: BTreeMap<&'a str, PackageId>,
    /// Versions that are preferred to better ones.
    held: BTreeMap<&'a str, PackageId>,
    excluded: BTreeSet<&'a str>,
    /// Virtual packages that nobody needs to provide.
    provided: Vec<(&'a str, Option<Version<'a>>)>,
    /// Names of the layers, for messages.
    layers: Vec<String>,
    worked_out: RefCell<BTreeMap<PackageId, Rc<Facts<'a>>>>,
}

/// Which versions may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The candidate of each name, as apt does it.
    Candidates,
    /// All that the request allows.
    All,
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

impl Exclusion<'_> {
    /// The field that says so, in one line.
    pub(super) fn shown(&self, owner: &str) -> String {
        format!("{owner} {}: {}", self.field, self.relation)
    }
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
        request: &'a Request,
        excluded: impl IntoIterator<Item = &'a str>,
        provided: Vec<(&'a str, Option<Version<'a>>)>,
        layers: Vec<String>,
    ) -> Self {
        Self {
            archive,
            architecture: &request.architecture,
            limits: &request.limits,
            scope: Scope::Candidates,
            fixed: BTreeMap::new(),
            held: BTreeMap::new(),
            excluded: excluded.into_iter().collect(),
            provided,
            layers,
            worked_out: RefCell::default(),
        }
    }

    /// Makes `id` the only version of its name. Before any relation is asked for.
    pub(super) fn fix(&mut self, id: PackageId) {
        self.fixed.insert(self.archive.name(id), id);
    }

    /// Makes `id` the candidate of its name. Before any relation is asked for.
    pub(super) fn hold(&mut self, id: PackageId) {
        self.held.insert(self.archive.name(id), id);
    }

    /// Whether `id` is the candidate only because it is held.
    pub(super) fn is_held(&self, id: PackageId) -> bool {
        self.held.get(self.archive.name(id)) == Some(&id)
    }

    /// The same request with all versions to choose from.
    pub(super) fn widened(&self) -> Self {
        Self {
            archive: self.archive,
            architecture: self.architecture,
            limits: self.limits,
            scope: Scope::All,
            fixed: self.fixed.clone(),
            held: self.held.clone(),
            excluded: self.excluded.clone(),
            provided: self.provided.clone(),
            layers: self.layers.clone(),
            worked_out: RefCell::default(),
        }
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
        let preferred = self.fixed.get(name).or_else(|| self.held.get(name));
        preferred
            .copied()
            .or_else(|| self.ranked(name).first().copied())
    }

    /// The limit that counts for a name.
    pub(super) fn limit(&self, name: &str) -> Option<&'a PackageLimit> {
        let is_for = |limit: &&PackageLimit| limit.packages.iter().any(|it| fits(it, name));
        self.limits.iter().find(is_for)
    }

    /// The versions of a name that may be chosen, the best one first: the
    /// highest priority, then the newest.
    pub(super) fn ranked(&self, name: &str) -> Vec<PackageId> {
        let archive = self.archive;
        let limit = self.limit(name);
        let is_within = |id: &PackageId| {
            limit.is_none_or(|limit| {
                let version = limit.version.as_deref().unwrap_or("*");
                let source = limit.source.as_deref();
                fits(version, archive.version(*id).as_str())
                    && source.is_none_or(|source| archive.suite(*id) == source)
            })
        };
        let mut found: Vec<PackageId> = archive.versions(name).filter(is_within).collect();
        found.sort_by_key(|id| std::cmp::Reverse(archive.priority(*id)));
        found
    }

    /// The versions of a relation's name, whether they fit or not.
    pub(super) fn versions_of(&self, relation: &Relation<'_>) -> Vec<String> {
        if !relation.is_for(self.architecture) {
            return Vec::new();
        }
        let ids = match self.scope {
            Scope::Candidates => self.candidate(relation.name).into_iter().collect(),
            Scope::All => self.ranked(relation.name),
        };
        let version = |id| self.archive.version(id).to_string();
        ids.into_iter().map(version).collect()
    }

    /// Whether the limits leave no version of a name that there is.
    pub(super) fn is_limited_away(&self, name: &str) -> bool {
        self.limit(name).is_some()
            && self.ranked(name).is_empty()
            && self.archive.versions(name).next().is_some()
    }

    /// Whether a package may be chosen.
    fn may_come(&self, id: PackageId) -> bool {
        let name = self.archive.name(id);
        match self.scope {
            Scope::Candidates => self.candidate(name) == Some(id),
            Scope::All => self.allowed(name).contains(&id),
        }
    }

    /// All versions of a name that may be chosen, its candidate first.
    fn allowed(&self, name: &str) -> Vec<PackageId> {
        if self.is_excluded(name) {
            return Vec::new();
        }
        if let Some(&fixed) = self.fixed.get(name) {
            return vec![fixed];
        }
        let candidate = self.candidate(name);
        let mut versions = self.ranked(name);
        versions.sort_by_key(|id| Some(*id) != candidate);
        versions
    }

    /// The versions that may stand for a wanted candidate, itself first.
    pub(super) fn versions_for(&self, id: PackageId) -> Vec<PackageId> {
        match self.scope {
            Scope::Candidates => vec![id],
            Scope::All => self.allowed(self.archive.name(id)),
        }
    }

    /// Essential candidates, by name.
    pub(super) fn essentials(&self) -> Vec<PackageId> {
        let is_essential = |id: &PackageId| {
            self.candidate(self.archive.name(*id)) == Some(*id)
                && self.archive.field(*id, "Essential") == Some("yes")
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
        // Other versions come after every candidate; the sort keeps the order.
        options.sort_by_key(|id| self.candidate(self.archive.name(*id)) != Some(*id));
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
            .filter(|it| {
                relation.accepts_provided(it.version)
                    && self.fits_architecture(relation, it.by, it.architecture)
                    && self.may_come(it.by)
            })
            .map(|it| it.by)
            .collect();
        let of_name = match self.scope {
            Scope::Candidates => self.candidate(relation.name).into_iter().collect(),
            Scope::All => self.allowed(relation.name),
        };
        let fits = |id: &PackageId| {
            relation.accepts(archive.version(*id)) && self.fits_architecture(relation, *id, None)
        };
        found.extend(of_name.into_iter().filter(fits));
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

    /// Whether a package is one for the architecture of a relation; `provided`
    /// is what stands behind the colon where it provides the name. Of one
    /// architecture, only `:any` makes a difference: it means packages that
    /// allow it (Multi-Arch specification, "Dependencies on :any").
    fn fits_architecture(
        &self,
        relation: &Relation<'_>,
        id: PackageId,
        provided: Option<&str>,
    ) -> bool {
        let is_any = relation.architecture == Some("any");
        match provided {
            None => !is_any || self.archive.field(id, "Multi-Arch") == Some("allowed"),
            Some("any") => is_any,
            Some(architecture) => !is_any && architecture == self.architecture,
        }
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
