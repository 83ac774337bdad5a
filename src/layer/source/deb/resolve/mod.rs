//! From names to pins: which packages, in which layer, in which order.
//!
//! In: a [`Request`] and all packages of the repositories. Out: a
//! [`Resolution`]. The straight way of apt first; where it gets stuck, a
//! search over all choices; where that finds nothing, a [`Failure`] that names
//! who does not go with whom and why each one is there.
//! Checked by: apt's simulation of the same request (`tests/it/formats/deb.rs`).

mod catalog;
mod explain;
mod failure;
mod order;
mod request;
mod sat;
mod search;
mod selection;

use std::collections::BTreeSet;

use crate::digest::Digest;
use crate::layer::spec::PackagePin;
use crate::report::{self, Reporter};

use super::error::SourceError;
use super::fetch::stays_below;
use super::index::{Archive, PackageId};
use super::lists;
use super::local::{self, LocalPackage};
use super::relation::Relation;
use super::version::Version;
use super::{Access, Expiry, Repository};
use catalog::Catalog;
use explain::explain;
use search::{Outcome, Seed, search};
use selection::{Cause, Selection, Stop};

pub use failure::{Chosen, Failure, Obstacle, Root, Step, Suggestion};
pub use request::{Base, Held, LayerRequest, ReleaseFacts, Request, Resolution, ResolvedLayer};

/// The steps' names in events.
const LISTS_STEP: &str = "package lists";
const STEP: &str = "resolve";
/// How many similar names an error suggests.
const SUGGESTIONS: usize = 3;

/// Everything that the repositories offer, read and verified: opened once,
/// asked as often as needed.
#[derive(Debug)]
pub struct Offer {
    archive: Archive,
    releases: Vec<ReleaseFacts>,
}

impl Offer {
    /// Reads and verifies the lists of all repositories.
    ///
    /// # Errors
    ///
    /// [`SourceError::Signature`], [`SourceError::Expired`],
    /// [`SourceError::Unreachable`] and whatever else can be wrong with lists.
    pub fn open(
        repositories: &[Repository],
        locals: &[LocalPackage],
        architecture: &str,
        access: &Access<'_>,
    ) -> Result<Self, SourceError> {
        access.reporter.started(LISTS_STEP);
        say_what_is_not_checked(repositories, access);
        let locals = local::index(locals, architecture)?;
        let (archive, releases) = lists::open_all(repositories, locals, architecture, access)?;
        let detail = format!("{} packages in {} suites", archive.len(), releases.len());
        access
            .reporter
            .finished(LISTS_STEP, report::Outcome::Done, detail);
        Ok(Self { archive, releases })
    }

    /// Chooses exact packages for every layer of the request.
    ///
    /// # Errors
    ///
    /// [`SourceError::UnknownPackage`], [`SourceError::NoSuchVersion`],
    /// [`SourceError::Unsatisfiable`].
    pub fn resolve(
        &self,
        request: &Request,
        reporter: &dyn Reporter,
    ) -> Result<Resolution, SourceError> {
        reporter.started(STEP);
        let is_unknown = |name: &&String| self.archive.versions(name).next().is_none();
        for name in request.exclude.iter().filter(is_unknown) {
            reporter.warn(format!("`{name}` is excluded, but no source has it"), None);
        }
        if request.base == Base::Essential {
            self.warn_of_excluded_essentials(request, reporter);
        }
        let layers = solve(&self.archive, request, reporter)?;
        let count: usize = layers.iter().map(|layer| layer.pins.len()).sum();
        reporter.finished(STEP, report::Outcome::Done, format!("{count} packages"));
        Ok(Resolution {
            layers,
            releases: self.releases.clone(),
        })
    }

    fn warn_of_excluded_essentials(&self, request: &Request, reporter: &dyn Reporter) {
        let is_essential = |name: &&String| {
            let newest = self.archive.versions(name).next();
            newest.is_some_and(|id| self.archive.field(id, "Essential") == Some("yes"))
        };
        for name in request.exclude.iter().filter(is_essential) {
            reporter.warn(
                format!("`{name}` is excluded, but essential: others need it without saying so"),
                None,
            );
        }
    }
}

/// One line about the lists whose age is not looked at, and why.
fn say_what_is_not_checked(repositories: &[Repository], access: &Access<'_>) {
    let mut labels: Vec<&str> = repositories
        .iter()
        .filter(|it| it.expiry == Expiry::Ignored)
        .map(|it| it.label.as_str())
        .collect();
    labels.dedup();
    if labels.is_empty() {
        return;
    }
    access.reporter.warn(
        format!(
            "apt's settings on this host switch off the expiry check of `{}`, so that an old \
             package list would not be noticed",
            labels.join("`, `")
        ),
        Some(
            "remove Acquire::Check-Valid-Until and Acquire::Check-Date from apt's settings, and \
             check-valid-until from its sources",
        ),
    );
}

/// Opens the repositories' offer and resolves one request from it.
///
/// # Errors
///
/// Those of [`Offer::open`] and of [`Offer::resolve`].
pub fn resolve(
    request: &Request,
    repositories: &[Repository],
    access: &Access<'_>,
) -> Result<Resolution, SourceError> {
    Offer::open(repositories, &[], &request.architecture, access)?.resolve(request, access.reporter)
}

/// The decisions alone.
fn solve(
    archive: &Archive,
    request: &Request,
    reporter: &dyn Reporter,
) -> Result<Vec<ResolvedLayer>, SourceError> {
    let mut provided = Vec::new();
    for text in &request.provided {
        let relation = Relation::parse(text).ok_or_else(|| SourceError::UnknownPackage {
            layer: "provided".into(),
            package: text.clone(),
            suggestion: Suggestion::default(),
        })?;
        provided.push((relation.name, relation.version.map(|(_, version)| version)));
    }
    let names = || {
        request
            .layers
            .iter()
            .map(|layer| layer.name.clone())
            .collect()
    };
    let excluded = request.exclude.iter().map(String::as_str);
    let mut catalog = Catalog::new(archive, request, excluded, provided, names());
    hold(request, &mut catalog);
    let wanted = wanted(request, &mut catalog)?;
    let essential = match request.base {
        Base::Essential => catalog.essentials(),
        Base::Nothing => Vec::new(),
    };
    let seeds = seeds(&essential, &wanted);
    let (mut selection, catalog) = choose(&seeds, catalog)?;
    let wanted = as_chosen(&wanted, &selection, &catalog);
    let essential = as_chosen(&[essential], &selection, &catalog).remove(0);
    say_what_is_older(&selection, &catalog, reporter);
    let follows = |cause| match cause {
        Cause::Wanted(layer) => request.layers.get(layer).is_some_and(|it| it.recommends),
        _ => false,
    };
    selection.add_recommended(follows, &catalog)?;
    let layers = order::assign(&selection, &wanted, &essential, &catalog)?;
    let pinned = |(layer, ids): (&LayerRequest, BTreeSet<PackageId>)| {
        let pins: Result<_, _> = ids
            .into_iter()
            .map(|id| pin(id, &selection, archive))
            .collect();
        Ok(ResolvedLayer {
            name: layer.name.clone(),
            pins: pins?,
        })
    };
    request.layers.iter().zip(layers).map(pinned).collect()
}

/// The candidates that each layer asks for.
fn wanted<'a>(
    request: &'a Request,
    catalog: &mut Catalog<'a>,
) -> Result<Vec<Vec<PackageId>>, SourceError> {
    let mut layers = Vec::new();
    for layer in &request.layers {
        let mut ids = Vec::new();
        for text in &layer.packages {
            let id = find(&layer.name, text, catalog)?;
            if text.contains(['=', '/']) {
                catalog.fix(id);
            }
            ids.push(id);
        }
        layers.push(ids);
    }
    Ok(layers)
}

/// Makes the versions that are held the candidates of their names, where they
/// are still there.
fn hold<'a>(request: &'a Request, catalog: &mut Catalog<'a>) {
    for held in &request.held {
        let archive = catalog.archive;
        let is_it = |id: &PackageId| {
            archive.version(*id).as_str() == held.version
                && archive.field(*id, "SHA256").and_then(Digest::parse) == Some(held.sha256)
        };
        if let Some(id) = catalog.ranked(&held.name).into_iter().find(is_it) {
            catalog.hold(id);
        }
    }
}

/// The package that `NAME`, `NAME=VERSION` or `NAME/SUITE` means.
fn find(layer: &str, text: &str, catalog: &Catalog<'_>) -> Result<PackageId, SourceError> {
    let archive = catalog.archive;
    let (name, version) = text
        .split_once('=')
        .map_or((text, None), |(n, v)| (n, Some(v)));
    let (name, suite) = name
        .split_once('/')
        .map_or((name, None), |(n, s)| (n, Some(s)));
    if catalog.is_excluded(name) {
        let (package, layer) = (name.to_owned(), layer.to_owned());
        return Err(SourceError::Unsatisfiable(Box::new(Failure::Excluded {
            package,
            layer,
        })));
    }
    if version.is_none() && suite.is_none() {
        return catalog
            .candidate(name)
            .ok_or_else(|| not_wanted(layer, name, catalog));
    }
    let asked = version.map(Version::parse);
    let is_it = |id: &PackageId| {
        let version_fits = match asked {
            None => true,
            Some(asked) => asked == Some(archive.version(*id)),
        };
        version_fits && suite.is_none_or(|suite| archive.suite(*id) == suite)
    };
    archive.versions(name).find(is_it).ok_or_else(|| {
        let shown = |id| format!("{} ({})", archive.version(id), archive.suite(id));
        let available: Vec<_> = archive.versions(name).map(shown).collect();
        if available.is_empty() {
            return unknown(layer, name, archive);
        }
        let (layer, wanted) = (layer.to_owned(), text.to_owned());
        SourceError::NoSuchVersion {
            layer,
            wanted,
            available,
        }
    })
}

/// Why a name has no candidate.
fn not_wanted(layer: &str, name: &str, catalog: &Catalog<'_>) -> SourceError {
    let archive = catalog.archive;
    let shown = |id| format!("{} ({})", archive.version(id), archive.suite(id));
    let available: Vec<_> = archive.versions(name).map(shown).collect();
    match catalog.limit(name) {
        Some(limit) if !available.is_empty() => {
            let version = limit.version.as_deref().unwrap_or("*");
            let wanted = match &limit.source {
                Some(source) => format!("{name} {version} from {source}"),
                None => format!("{name} {version}"),
            };
            SourceError::NoSuchVersion {
                layer: layer.to_owned(),
                wanted,
                available,
            }
        }
        _ => unknown(layer, name, archive),
    }
}

fn unknown(layer: &str, name: &str, archive: &Archive) -> SourceError {
    let mut providers: Vec<_> = archive
        .providers(name)
        .map(|it| archive.name(it.by).to_owned())
        .collect();
    providers.sort();
    providers.dedup();
    let near = if providers.is_empty() {
        near(name, archive)
    } else {
        Vec::new()
    };
    SourceError::UnknownPackage {
        layer: layer.to_owned(),
        package: name.to_owned(),
        suggestion: Suggestion { near, providers },
    }
}

/// Names that differ by little, or go on where `name` ends.
fn near(name: &str, archive: &Archive) -> Vec<String> {
    let most = 1 + name.len() / 4;
    let mut found: Vec<(usize, &str)> = archive
        .all_names()
        .filter_map(|other| {
            if name.len() >= 4 && other.starts_with(name) {
                return Some((1 + (other.len() - name.len()) / 4, other));
            }
            let is_close = other.len().abs_diff(name.len()) <= most;
            let distance = is_close.then(|| strsim::damerau_levenshtein(name, other))?;
            (distance <= most).then_some((distance, other))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    let best = found.first().map_or(0, |(distance, _)| *distance);
    found.retain(|(distance, _)| *distance == best);
    found
        .into_iter()
        .take(SUGGESTIONS)
        .map(|(_, other)| other.to_owned())
        .collect()
}

/// What has to come in any case, each package once. The essential ones first,
/// so that the choices below do not depend on what is wanted above.
fn seeds(essential: &[PackageId], wanted: &[Vec<PackageId>]) -> Vec<Seed> {
    let layers = wanted.iter().enumerate();
    let asked: Vec<Seed> = layers
        .flat_map(|(at, ids)| ids.iter().map(move |&id| (id, Cause::Wanted(at))))
        .collect();
    let mut seeds: Vec<Seed> = Vec::new();
    for &id in essential {
        let cause = asked
            .iter()
            .find(|(asked, _)| *asked == id)
            .map(|(_, cause)| *cause);
        seeds.push((id, cause.unwrap_or(Cause::Essential)));
    }
    for seed in asked {
        if !seeds.iter().any(|(id, _)| *id == seed.0) {
            seeds.push(seed);
        }
    }
    seeds
}

/// The straight way; then all choices of packages; then all their versions.
/// Gives the catalog in which the answer was found.
fn choose<'a>(
    seeds: &[Seed],
    catalog: Catalog<'a>,
) -> Result<(Selection<'a>, Catalog<'a>), SourceError> {
    let mut selection = Selection::default();
    let straight = selection
        .add_wanted(seeds, &catalog)
        .and_then(|()| selection.close(0, &catalog));
    let first = match straight {
        Ok(()) => return Ok((selection, catalog)),
        Err(Stop::Error(error)) => return Err(error),
        Err(Stop::Stuck(failure)) => failure,
    };
    let narrow = search(seeds, &catalog)?;
    if let Outcome::Found(selection) = narrow {
        return Ok((selection, catalog));
    }
    let wide = catalog.widened();
    let wider = search(seeds, &wide)?;
    let failure = match (wider, narrow) {
        (Outcome::Found(selection), _) => return Ok((selection, wide)),
        (_, Outcome::Impossible(claims)) => Box::new(explain(&claims, &catalog)?),
        (Outcome::Impossible(claims), _) => Box::new(explain(&claims, &wide)?),
        (Outcome::GaveUp(tries), _) => Box::new(Failure::TooHard { tries, first }),
    };
    Err(SourceError::Unsatisfiable(failure))
}

/// The versions that were chosen for candidates.
fn as_chosen(
    lists: &[Vec<PackageId>],
    selection: &Selection<'_>,
    catalog: &Catalog<'_>,
) -> Vec<Vec<PackageId>> {
    let chosen = |id: &PackageId| {
        let versions = catalog.versions_for(*id);
        let chosen = versions.into_iter().find(|id| selection.contains(*id));
        chosen.unwrap_or(*id)
    };
    lists
        .iter()
        .map(|ids| ids.iter().map(chosen).collect())
        .collect()
}

/// Says which packages are not what they would be by themselves.
fn say_what_is_older(selection: &Selection<'_>, catalog: &Catalog<'_>, reporter: &dyn Reporter) {
    let archive = catalog.archive;
    for &id in selection.order() {
        let candidate = catalog.candidate(archive.name(id));
        if let Some(candidate) = candidate.filter(|it| *it != id && !catalog.is_held(*it)) {
            reporter.warn(
                format!(
                    "`{}` {} is chosen, since version {} does not go with the other packages",
                    archive.name(id),
                    archive.version(id),
                    archive.version(candidate)
                ),
                None,
            );
        }
    }
}

fn pin(
    id: PackageId,
    selection: &Selection<'_>,
    archive: &Archive,
) -> Result<PackagePin, SourceError> {
    let malformed = |problem: &str| SourceError::Malformed {
        suite: archive.suite(id).to_owned(),
        file: "Packages".into(),
        problem: format!("{} has {problem}", archive.name(id)),
    };
    let field = |name| archive.field(id, name);
    let sha256 = field("SHA256").and_then(Digest::parse);
    let size = field("Size").and_then(|size| size.parse().ok());
    // Lists of a single folder write `./NAME`.
    let path = field("Filename").map(|path| path.strip_prefix("./").unwrap_or(path));
    let path = path.filter(|path| stays_below(path));
    Ok(PackagePin {
        name: archive.name(id).to_owned(),
        version: archive.version(id).to_string(),
        architecture: field("Architecture").unwrap_or_default().to_owned(),
        suite: archive.suite(id).to_owned(),
        path: path
            .ok_or_else(|| malformed("no good Filename"))?
            .to_owned(),
        size: size.ok_or_else(|| malformed("no good Size"))?,
        sha256: sha256.ok_or_else(|| malformed("no good SHA256"))?,
        source: field("Source").unwrap_or(archive.name(id)).to_owned(),
        reason: match selection.cause(id) {
            Some(Cause::Wanted(_)) => "requested".into(),
            Some(Cause::NeededBy(parent)) => format!("needed by {}", archive.name(parent)),
            Some(Cause::Essential) | None => "essential".into(),
        },
    })
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod universe;
