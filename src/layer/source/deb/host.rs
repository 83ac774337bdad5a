//! Which repositories serve a suite on this host.
//!
//! Without a mirror: those of the host's sources whose suite is the asked one,
//! or the asked one with `-updates` or `-security`; the asked one must be there.
//!
//! With `mirror = ADDRESS`: the suite and its `-updates` come from ADDRESS
//! alone. Its `-security` comes from ADDRESS with `-security` appended to the
//! last part (Debian's custom: `…/debian` beside `…/debian-security`), else
//! from ADDRESS itself, else from where the host's own sources have it; a
//! mirror's `-updates` and `-security` may be missing, which a warning says.
//! Components and keys are those of the host's sources for the suite; a host
//! that has none uses `main` and the general keyrings.

use std::path::{Path, PathBuf};

use crate::report::Reporter;
use crate::tree::list_folder;

use super::address::Address;
use super::apt::{AptSettings, SourceEntry, Trust, read_sources};
use super::error::SourceError;
use super::{Expiry, Keys, Preference, Presence, Repository};

/// What belongs to a suite besides itself.
const COMPANIONS: [&str; 3] = ["", "-updates", "-security"];
/// Debian's keys, where the package `debian-archive-keyring` puts them.
const ARCHIVE_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The repositories of `suite` on this host; `mirror` replaces the host's
/// addresses as this room says.
///
/// # Errors
///
/// [`SourceError::NoSource`] on a host of another distribution or suite,
/// [`SourceError::BadMirror`], [`SourceError::NoKeyring`], and those of
/// [`read_sources`].
pub fn host_repositories(
    suite: &str,
    mirror: Option<&str>,
    settings: &AptSettings,
    reporter: &dyn Reporter,
) -> Result<Vec<Repository>, SourceError> {
    let entries = read_sources(settings)?;
    let general = general_keyrings(settings);
    let repositories = choose_repositories(suite, mirror, &entries, &general, settings)?;
    warn_of_schemes(&entries, &repositories, reporter);
    have_keys(&repositories, settings)?;
    Ok(repositories)
}

fn have_keys(repositories: &[Repository], settings: &AptSettings) -> Result<(), SourceError> {
    for repository in repositories {
        let keys = &repository.keys;
        if repository.trust == Trust::Signed && keys.files.is_empty() && keys.inline.is_empty() {
            let tried = vec![settings.trusted_folder.clone(), ARCHIVE_KEYRING.into()];
            return Err(SourceError::NoKeyring {
                suite: repository.suite.clone(),
                tried,
            });
        }
    }
    Ok(())
}

/// A repository of the appliance's own.
#[derive(Debug, Clone, Copy)]
pub struct OwnSource<'a> {
    /// What pins call it.
    pub name: &'a str,
    /// Where it is; `None`: another suite of the distribution.
    pub address: Option<&'a str>,
    /// Its suite.
    pub suite: &'a str,
    /// Its components; empty: those of the host's sources, or `main`.
    pub components: &'a [String],
    /// Its keys, when it has an address.
    pub key: Option<&'a Path>,
    /// As apt's.
    pub priority: Option<i32>,
    /// If not empty: patterns of the names that come from it.
    pub packages: &'a [String],
}

/// The appliance's own repositories; those without an address are where the
/// distribution is for this host.
///
/// # Errors
///
/// As [`host_repositories`].
pub fn own_repositories(
    own: &[OwnSource<'_>],
    mirror: Option<&str>,
    settings: &AptSettings,
) -> Result<Vec<Repository>, SourceError> {
    if own.is_empty() {
        return Ok(Vec::new());
    }
    let entries = read_sources(settings)?;
    let general = general_keyrings(settings);
    let mut repositories = Vec::new();
    for source in own {
        let found = match source.address {
            Some(address) => vec![at_address(source, address, settings)?],
            None => choose(source.suite, &[""], mirror, &entries, &general, settings)?,
        };
        repositories.extend(found.into_iter().map(|found| Repository {
            label: source.name.to_owned(),
            components: match source.components {
                [] => found.components,
                named => named.to_vec(),
            },
            preference: Preference {
                priority: source.priority,
                packages: source.packages.to_vec(),
            },
            ..found
        }));
    }
    have_keys(&repositories, settings)?;
    Ok(repositories)
}

fn at_address(
    source: &OwnSource<'_>,
    address: &str,
    settings: &AptSettings,
) -> Result<Repository, SourceError> {
    Ok(Repository {
        label: source.name.to_owned(),
        suite: source.suite.to_owned(),
        addresses: vec![parse_mirror(address)?],
        components: vec!["main".into()],
        keys: Keys {
            files: source.key.map(Path::to_owned).into_iter().collect(),
            ..Keys::default()
        },
        trust: Trust::Signed,
        expiry: expiry(settings.checks_expiry),
        valid_time: settings.valid_time.clone(),
        presence: Presence::Required,
        preference: Preference::default(),
    })
}

/// An address of the user's; wrong ones are shown without their password.
fn parse_mirror(text: &str) -> Result<Address, SourceError> {
    Address::parse(text).ok_or_else(|| {
        let shown = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
        SourceError::BadMirror {
            mirror: shown.to_owned(),
        }
    })
}

/// [`host_repositories`] without the host: from sources that were read
/// already. `general` are the keyrings for sources without `Signed-By`.
///
/// # Errors
///
/// [`SourceError::NoSource`], [`SourceError::BadMirror`].
pub fn choose_repositories(
    suite: &str,
    mirror: Option<&str>,
    entries: &[SourceEntry],
    general: &[PathBuf],
    settings: &AptSettings,
) -> Result<Vec<Repository>, SourceError> {
    choose(suite, &COMPANIONS, mirror, entries, general, settings)
}

fn choose(
    suite: &str,
    companions: &[&str],
    mirror: Option<&str>,
    entries: &[SourceEntry],
    general: &[PathBuf],
    settings: &AptSettings,
) -> Result<Vec<Repository>, SourceError> {
    let mut found = Vec::new();
    for companion in companions {
        let name = format!("{suite}{companion}");
        for entry in entries
            .iter()
            .filter(|entry| serves(entry, &name, settings))
        {
            found.push(from_entry(entry, &name, general, settings));
        }
    }
    if let Some(mirror) = mirror {
        return from_mirror((suite, companions), mirror, &found, general, settings);
    }
    if found.iter().any(|repository| repository.suite == suite) {
        return Ok(found);
    }
    let mut others: Vec<_> = entries
        .iter()
        .flat_map(|entry| entry.suites.clone())
        .collect();
    others.sort();
    others.dedup();
    Err(SourceError::NoSource {
        suite: suite.to_owned(),
        found: others,
    })
}

fn serves(entry: &SourceEntry, suite: &str, settings: &AptSettings) -> bool {
    let architecture = &settings.architecture;
    entry.suites.iter().any(|it| it == suite)
        && !entry.addresses.is_empty()
        && !entry.components.is_empty()
        && (entry.architectures.is_empty() || entry.architectures.contains(architecture))
}

fn from_entry(
    entry: &SourceEntry,
    suite: &str,
    general: &[PathBuf],
    settings: &AptSettings,
) -> Repository {
    let mut keys = entry.keys.clone();
    if keys.files.is_empty() && keys.inline.is_empty() {
        keys.files = general.to_vec();
    }
    let mut valid_time = settings.valid_time.clone();
    valid_time.least.extend(entry.valid_time.least.clone());
    valid_time.most.extend(entry.valid_time.most.clone());
    Repository {
        label: suite.to_owned(),
        suite: suite.to_owned(),
        addresses: entry.addresses.clone(),
        components: entry.components.clone(),
        keys,
        trust: entry.trust,
        expiry: expiry(entry.checks_expiry.unwrap_or(settings.checks_expiry)),
        valid_time,
        presence: Presence::Required,
        preference: Preference::default(),
    }
}

fn expiry(is_checked: bool) -> Expiry {
    if is_checked {
        Expiry::Checked
    } else {
        Expiry::Ignored
    }
}

fn from_mirror(
    (suite, companions): (&str, &[&str]),
    mirror: &str,
    found: &[Repository],
    general: &[PathBuf],
    settings: &AptSettings,
) -> Result<Vec<Repository>, SourceError> {
    let address = parse_mirror(mirror)?;
    let same = |name: &str| {
        found
            .iter()
            .filter(|it| it.suite == name)
            .collect::<Vec<_>>()
    };
    let main = same(suite);
    let mut repositories = Vec::new();
    for companion in companions {
        let name = format!("{suite}{companion}");
        let own = same(&name);
        let mut addresses = vec![address.clone()];
        if *companion == "-security" {
            addresses.insert(0, address.with_suffix(companion));
            addresses.extend(own.iter().flat_map(|it| it.addresses.clone()));
        }
        let like = if own.is_empty() { &main } else { &own };
        let mut components: Vec<String> = Vec::new();
        for component in like.iter().flat_map(|it| &it.components) {
            if !components.contains(component) {
                components.push(component.clone());
            }
        }
        if components.is_empty() {
            components.push("main".into());
        }
        repositories.push(Repository {
            label: name.clone(),
            suite: name,
            addresses,
            components,
            keys: merged_keys(like, general),
            // `trusted=yes` was said of the host's address, not of this one.
            trust: Trust::Signed,
            expiry: expiry(settings.checks_expiry),
            valid_time: settings.valid_time.clone(),
            preference: Preference::default(),
            presence: if companion.is_empty() {
                Presence::Required
            } else {
                Presence::Optional
            },
        });
    }
    Ok(repositories)
}

fn merged_keys(repositories: &[&Repository], general: &[PathBuf]) -> Keys {
    let mut keys = Keys::default();
    for repository in repositories {
        keys.files.extend(repository.keys.files.iter().cloned());
        keys.inline.extend(repository.keys.inline.iter().cloned());
        keys.fingerprints
            .extend(repository.keys.fingerprints.iter().cloned());
    }
    if keys.files.is_empty() && keys.inline.is_empty() {
        keys.files = general.to_vec();
    }
    keys.files.sort();
    keys.files.dedup();
    keys
}

/// The keyrings for sources that name none: apt's own, and Debian's.
fn general_keyrings(settings: &AptSettings) -> Vec<PathBuf> {
    let mut files = vec![settings.trusted_file.clone(), ARCHIVE_KEYRING.into()];
    let is_keyring = |path: &Path| {
        path.extension()
            .is_some_and(|extension| extension == "gpg" || extension == "asc")
    };
    // A host without apt has no such folder, and may still have a keyring.
    let parts = list_folder(&settings.trusted_folder).unwrap_or_default();
    files.extend(
        parts
            .into_iter()
            .map(|entry| entry.path)
            .filter(|path| is_keyring(path)),
    );
    files.retain(|path| path.is_file());
    files
}

fn warn_of_schemes(entries: &[SourceEntry], chosen: &[Repository], reporter: &dyn Reporter) {
    for entry in entries {
        let is_asked = |suite: &&String| chosen.iter().any(|it| it.suite == **suite);
        let Some(suite) = entry.suites.iter().find(is_asked) else {
            continue;
        };
        for scheme in &entry.other_schemes {
            reporter.warn(
                format!("the host's source of `{suite}` at a `{scheme}:` address is left out"),
                None,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ValidTime;
    use super::*;

    fn entry(address: &str, suites: &[&str], keyring: &str) -> SourceEntry {
        SourceEntry {
            addresses: Address::parse(address).into_iter().collect(),
            other_schemes: Vec::new(),
            suites: suites.iter().map(|&suite| suite.to_owned()).collect(),
            components: vec!["main".into(), "contrib".into()],
            architectures: Vec::new(),
            keys: Keys {
                files: vec![keyring.into()],
                ..Keys::default()
            },
            trust: Trust::Blind,
            checks_expiry: None,
            valid_time: ValidTime::default(),
        }
    }

    fn choose(
        mirror: Option<&str>,
        entries: &[SourceEntry],
    ) -> Result<Vec<Repository>, SourceError> {
        let general = [PathBuf::from("/k/general.gpg")];
        choose_repositories(
            "bookworm",
            mirror,
            entries,
            &general,
            &AptSettings::default(),
        )
    }

    fn shown(repositories: &[Repository]) -> Vec<String> {
        let address = |it: &Repository| {
            it.addresses
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        repositories
            .iter()
            .map(|it| format!("{} {}", it.suite, address(it)))
            .collect()
    }

    #[test]
    fn the_hosts_sources_count_for_the_suite_and_its_companions() {
        let entries = [
            entry(
                "http://a.example/debian",
                &["bookworm", "bookworm-updates"],
                "/k/a.gpg",
            ),
            entry(
                "http://s.example/debian-security",
                &["bookworm-security"],
                "/k/s.gpg",
            ),
            entry(
                "http://v.example/vendor",
                &["bookworm-vendor", "stable"],
                "/k/v.gpg",
            ),
        ];
        let found = choose(None, &entries).expect("served");
        assert_eq!(
            shown(&found),
            [
                "bookworm http://a.example/debian",
                "bookworm-updates http://a.example/debian",
                "bookworm-security http://s.example/debian-security",
            ]
        );
        assert_eq!(found[0].trust, Trust::Blind);
    }

    #[test]
    fn a_mirror_replaces_the_addresses_but_not_the_keys() {
        let entries = [
            entry("http://a.example/debian", &["bookworm"], "/k/a.gpg"),
            entry(
                "http://s.example/debian-security",
                &["bookworm-security"],
                "/k/s.gpg",
            ),
        ];
        let found = choose(Some("https://m.example/debian/"), &entries).expect("served");
        assert_eq!(
            shown(&found),
            [
                "bookworm https://m.example/debian",
                "bookworm-updates https://m.example/debian",
                "bookworm-security https://m.example/debian-security https://m.example/debian \
                 http://s.example/debian-security",
            ]
        );
        assert_eq!(found[0].keys.files, [Path::new("/k/a.gpg")]);
        assert_eq!(found[2].keys.files, [Path::new("/k/s.gpg")]);
        assert_eq!(found[0].trust, Trust::Signed);
        assert_eq!(found[2].presence, Presence::Optional);
    }

    #[test]
    fn another_distribution_is_asked_for_a_mirror() {
        let entries = [entry(
            "http://u.example/ubuntu",
            &["noble", "noble-updates"],
            "/k/u.gpg",
        )];
        let error = choose(None, &entries).expect_err("not served");
        assert_eq!(
            error.to_string(),
            "the apt sources of this host do not serve suite `bookworm`, only `noble`, \
             `noble-updates`"
        );
        assert!(error.hint().expect("a hint").contains("mirror = "));
        let found = choose(Some("http://m.example/debian"), &entries).expect("a mirror will do");
        assert_eq!(found[0].components, ["main"]);
        assert_eq!(found[0].keys.files, [Path::new("/k/general.gpg")]);
    }

    #[test]
    fn a_mirror_that_is_none_is_shown_without_its_password() {
        let error = choose(Some("ftp://u:s3cr3t@m.example/debian"), &[]).expect_err("no address");
        assert_eq!(
            error.to_string(),
            "`m.example/debian` is not the address of a mirror"
        );
        assert_eq!(error.slug(), "source-bad-mirror");
    }
}
