//! `[[repository]]` and `[[pin]]`: where packages come from besides the
//! distribution, and which of their versions count.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::check::{mirror, named};
use super::diagnostic::{Diagnostic, list, nearest, quoted};
use super::fields::{Fields, Problems};
use super::names::{Mirror, RepositoryName};

/// What package files of the appliance are locked from.
const RESERVED: &str = "local";
/// What belongs to a suite besides itself.
const COMPANIONS: [&str; 3] = ["", "-updates", "-security"];
/// The largest priority; apt's means no more above it either, where nothing
/// is installed yet.
const MAX_PRIORITY: u64 = 1000;
/// Characters of a suite, a component or a pattern.
const WORD: usize = 128;

/// A repository besides the distribution's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnRepository {
    /// What the lock calls it.
    pub name: RepositoryName,
    /// Where it is; `None`: another suite where the distribution's are.
    pub url: Option<Mirror>,
    /// Its suite; with a slash at its end, a folder without components.
    pub suite: String,
    /// Its components; empty: `main`, or those of the host's sources.
    pub components: Vec<String>,
    /// The file with its keys; there is one where there is an address.
    pub key: Option<PathBuf>,
    /// As apt's; `None`: 500, or what the repository says of itself.
    pub priority: Option<i32>,
    /// If not empty: patterns of the names that come from it.
    pub packages: Vec<String>,
}

/// Which versions of some packages count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionPin {
    /// Patterns of names; not empty.
    pub packages: Vec<String>,
    /// A pattern of versions.
    pub version: Option<String>,
    /// A repository, or a suite of the distribution.
    pub source: Option<String>,
}

/// Reads all `[[repository]]` tables; key files are beside the file in `folder`.
pub(super) fn repositories(
    tables: Vec<Fields<'_>>,
    folder: &Path,
    problems: &mut Problems,
) -> Vec<OwnRepository> {
    let mut found: Vec<OwnRepository> = Vec::new();
    for table in tables {
        let place = table.span();
        let Some(one) = repository(table, folder, problems) else {
            continue;
        };
        if found.iter().any(|it| it.name == one.name) {
            let message = format!("the repository `{}` stands here twice", one.name);
            let twice = place.map_or_else(
                || Diagnostic::whole(message.clone()),
                |span| Diagnostic::at(span, message.clone()),
            );
            problems.push(twice.help("give one of the two another name"));
        }
        found.push(one);
    }
    found.sort_by(|one, two| one.name.cmp(&two.name));
    found
}

fn repository(
    mut table: Fields<'_>,
    folder: &Path,
    problems: &mut Problems,
) -> Option<OwnRepository> {
    table.require("name", "\"vendor\"");
    table.require("suite", "\"stable\"");
    let name = table.text("name", "\"vendor\"", problems);
    let url = table.text("url", "\"https://deb.example.com/debian\"", problems);
    let suite = table.text("suite", "\"stable\"", problems);
    let components = table.texts("components", "[\"main\"]", problems);
    let key = table.text("key", "\"keys/vendor.asc\"", problems);
    let priority = table.number("priority", "500", problems);
    let packages = table.texts("packages", "[\"vendor-*\"]", problems);
    let place = table.span();
    table.finish(problems);
    let before = problems.len();
    let name = named(
        &name?,
        RepositoryName::KIND,
        RepositoryName::ALLOWED,
        RepositoryName::check,
        problems,
    )?;
    if name.as_str() == RESERVED {
        problems.push(whole_or_at(
            place.clone(),
            format!("the repository name `{name}` is taken"),
        ));
    }
    let suite = word(&suite?, "suite", problems)?;
    let url = match &url {
        Some(text) => Some(mirror(text, problems)?),
        None => None,
    };
    let key = key_file(url.is_some(), key.as_ref(), &name, place, folder, problems);
    let components = words(components, "component", problems);
    let packages = words(packages, "pattern", problems);
    let priority = priority.and_then(|number| in_range(&number, problems));
    (problems.len() == before).then_some(OwnRepository {
        name,
        url,
        suite,
        components,
        key,
        priority,
        packages,
    })
}

fn whole_or_at(place: Option<std::ops::Range<usize>>, message: String) -> Diagnostic {
    match place {
        Some(span) => Diagnostic::at(span, message),
        None => Diagnostic::whole(message),
    }
}

/// The file of the keys, which has to be there just when there is an address.
fn key_file(
    has_address: bool,
    key: Option<&Spanned<String>>,
    name: &RepositoryName,
    place: Option<std::ops::Range<usize>>,
    folder: &Path,
    problems: &mut Problems,
) -> Option<PathBuf> {
    let Some(text) = key else {
        if has_address {
            let message = format!("repository `{name}` has an address but no `key`");
            problems.push(whole_or_at(place, message).help(
                "put the file with its public keys beside appliance.toml, for example key = \
                 \"keys/vendor.asc\"",
            ));
        }
        return None;
    };
    if !has_address {
        problems.push(
            Diagnostic::at(text.span(), "a `key` without a `url`")
                .help("remove it; the keys of the distribution count, or add the `url`"),
        );
        return None;
    }
    let is_below = |path: &Path| {
        path.components()
            .all(|part| matches!(part, std::path::Component::Normal(_)))
    };
    let path = Path::new(text.get_ref());
    if text.get_ref().is_empty() || !is_below(path) || text.get_ref().contains('\0') {
        problems.push(
            Diagnostic::at(
                text.span(),
                format!(
                    "`{}` is not a path beside appliance.toml",
                    quoted(text.get_ref())
                ),
            )
            .help("copy the key file into the appliance's folder, so that it is part of it"),
        );
        return None;
    }
    Some(folder.join(path))
}

fn in_range(number: &Spanned<u64>, problems: &mut Problems) -> Option<i32> {
    let found = Some(*number.get_ref())
        .filter(|it| (1..=MAX_PRIORITY).contains(it))
        .and_then(|it| i32::try_from(it).ok());
    if found.is_none() {
        problems.push(
            Diagnostic::at(number.span(), format!("`priority` is {}", number.get_ref())).help(
                format!("choose from 1 to {MAX_PRIORITY}; Debian's suites have 500"),
            ),
        );
    }
    found
}

/// Reads all `[[pin]]` tables.
pub(super) fn pins(tables: Vec<Fields<'_>>, problems: &mut Problems) -> Vec<WrittenPin> {
    tables
        .into_iter()
        .filter_map(|table| pin(table, problems))
        .collect()
}

/// A pin whose source is not looked up yet.
#[derive(Debug)]
pub(super) struct WrittenPin {
    packages: Vec<String>,
    version: Option<String>,
    source: Option<Spanned<String>>,
}

fn pin(mut table: Fields<'_>, problems: &mut Problems) -> Option<WrittenPin> {
    table.require("packages", "[\"nginx\"]");
    let packages = table.texts("packages", "[\"nginx\"]", problems);
    let version = table.text("version", "\"1.22.*\"", problems);
    let source = table.text("source", "\"vendor\"", problems);
    let says_nothing = !table.has("version") && !table.has("source");
    table.finish(problems);
    let packages = packages?;
    if packages.get_ref().is_empty() || says_nothing {
        problems.push(
            Diagnostic::at(packages.span(), "this [[pin]] changes nothing")
                .help("name packages, and add `version` or `source`"),
        );
    }
    let version = version.and_then(|text| word(&text, "version", problems));
    Some(WrittenPin {
        packages: words(Some(packages), "pattern", problems),
        version,
        source,
    })
}

/// Judges what needs the rest of the file: sources that must be there, names
/// that the distribution has.
pub(super) fn settle(
    suite: &str,
    repositories: &[OwnRepository],
    pins: Vec<WrittenPin>,
    problems: &mut Problems,
) -> Vec<VersionPin> {
    let suites: BTreeSet<String> = COMPANIONS
        .iter()
        .map(|companion| format!("{suite}{companion}"))
        .collect();
    for repository in repositories {
        if suites.contains(repository.name.as_str()) {
            problems.push(
                Diagnostic::whole(format!(
                    "the repository name `{}` is a suite of the distribution",
                    repository.name
                ))
                .help("choose another name; that suite is used anyway"),
            );
        }
    }
    let own = repositories.iter().map(|it| it.name.as_str());
    let known: Vec<&str> = own.chain(suites.iter().map(String::as_str)).collect();
    let settled = pins.into_iter().map(|pin| {
        if let Some(source) = &pin.source
            && !known.contains(&source.get_ref().as_str())
        {
            let unknown = Diagnostic::at(
                source.span(),
                format!("there is no source `{}`", quoted(source.get_ref())),
            );
            problems.push(match nearest(source.get_ref(), known.iter().copied()) {
                Some(near) => unknown.help(format!("did you mean `{near}`?")),
                None => unknown.help(format!("choose from {}", list(&known, "and"))),
            });
        }
        VersionPin {
            packages: pin.packages,
            version: pin.version,
            source: pin.source.map(Spanned::into_inner),
        }
    });
    settled.collect()
}

/// Printable ASCII that makes no path of its own.
fn word(text: &Spanned<String>, what: &str, problems: &mut Problems) -> Option<String> {
    let it = text.get_ref();
    let is_odd = |c: char| !c.is_ascii_graphic() || "\"'\\?#%".contains(c);
    let climbs = it.split('/').any(|part| part == "..") || it.starts_with('/');
    if it.is_empty() || it.len() > WORD || it.contains(is_odd) || climbs {
        problems.push(
            Diagnostic::at(text.span(), format!("`{}` is not a {what}", quoted(it)))
                .help("use letters, digits, and the signs that Debian uses"),
        );
        return None;
    }
    Some(it.clone())
}

fn words(
    texts: Option<Spanned<Vec<Spanned<String>>>>,
    what: &str,
    problems: &mut Problems,
) -> Vec<String> {
    let texts = texts.map(Spanned::into_inner).unwrap_or_default();
    let mut found: Vec<String> = texts
        .iter()
        .filter_map(|text| word(text, what, problems))
        .collect();
    found.sort();
    found.dedup();
    found
}
