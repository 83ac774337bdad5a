//! The sources of packages, from the same signed lists as the packages.
//!
//! In: pins of packages that were shipped. Out: pins of the files that their
//! source packages are made of, and those files in a folder.
//!
//! Source: Debian wiki DebianRepository/Format, "Sources" indices; Debian
//! Policy 5.6.1 for the field `Source`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use super::error::SourceError;
use super::fetch::{Kind, fetch_named, stays_below};
use super::lists::{Place, below, checked_release, signed_text};
use super::packed::{Checked, MAX_PLAIN, Packing};
use super::stanza::{stanzas, value};
use super::{Access, Repository};
use crate::digest::Digest;
use crate::layer::spec::PackagePin;

/// A source package by name and version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WantedSource {
    /// Its name.
    pub name: String,
    /// Its version, which may differ from that of its packages.
    pub version: String,
}

impl WantedSource {
    /// What a package was built from.
    #[must_use]
    pub fn of(pin: &PackagePin) -> Self {
        match pin.source.split_once(" (") {
            Some((name, version)) => Self {
                name: name.to_owned(),
                version: version.trim_end_matches(')').to_owned(),
            },
            None => Self {
                name: pin.source.clone(),
                version: pin.version.clone(),
            },
        }
    }

    /// Its folder among others: without the epoch, as in names of files.
    #[must_use]
    pub fn folder(&self) -> String {
        let version = self.version.split_once(':');
        let version = version.map_or(self.version.as_str(), |(_, rest)| rest);
        format!("{}_{version}", self.name)
    }
}

/// The files of sources by their paths below a folder, each with its pin; and
/// the sources that could not be had.
pub type FoundSources = (Vec<(PathBuf, PackagePin)>, Vec<WantedSource>);

/// The files of the wanted sources, sorted; and what no repository has.
/// A pin's name and version are the source's.
///
/// # Errors
///
/// What is wrong with a list or its signature.
pub fn find_sources(
    wanted: &BTreeSet<WantedSource>,
    repositories: &[Repository],
    access: &Access<'_>,
) -> Result<(Vec<PackagePin>, Vec<WantedSource>), SourceError> {
    let mut found: BTreeMap<WantedSource, Vec<PackagePin>> = BTreeMap::new();
    for repository in repositories {
        let Some((address, text)) = signed_text(repository, access)? else {
            continue;
        };
        let release = checked_release(repository, &address, &text, access)?;
        let place = Place {
            repository,
            address: &address,
            release: &release,
            access,
        };
        let folders: Vec<String> = if repository.is_flat() {
            vec![String::new()]
        } else {
            let components = repository.components.iter();
            components
                .map(|component| format!("{component}/source/"))
                .collect()
        };
        for folder in folders {
            let Some(text) = place.sources(&folder)? else {
                continue;
            };
            for (source, files) in read(&text, repository, wanted)? {
                found.entry(source).or_insert(files);
            }
        }
    }
    let is_missing = |source: &&WantedSource| !found.contains_key(*source);
    let missing = wanted.iter().filter(is_missing).cloned().collect();
    Ok((found.into_values().flatten().collect(), missing))
}

/// Files of sources in a folder of the user's.
const FILES: Kind = Kind {
    name: named,
    one: "source",
    several: "files",
    place: "in the folder",
    by: "signed",
};

/// Brings the files of sources into `folder`, each source in its own, with
/// what is there already checked and kept. Gives those that came, by their
/// paths below `folder`, and the sources that are listed but not there: of
/// those nothing stays.
///
/// # Errors
///
/// Those of fetching packages.
pub fn fetch_sources(
    mut pins: Vec<PackagePin>,
    repositories: &[Repository],
    access: &Access<'_>,
    folder: &Path,
) -> Result<FoundSources, SourceError> {
    let make = |path: &Path| {
        std::fs::create_dir_all(path).map_err(|source| SourceError::Cache {
            path: path.to_owned(),
            source,
        })
    };
    make(folder)?;
    for pin in &pins {
        make(folder.join(named(pin)).parent().unwrap_or(folder))?;
    }
    let mut missing = Vec::new();
    loop {
        match fetch_named(&pins, repositories, access, folder, &FILES) {
            Ok(_) => break,
            // One source less is no reason to have none of the others.
            Err(SourceError::Gone {
                package, version, ..
            }) => {
                let is_gone = |pin: &PackagePin| pin.name == package && pin.version == version;
                let (gone, left) = pins.into_iter().partition(is_gone);
                pins = left;
                remove(&gone, folder)?;
                missing.push(WantedSource {
                    name: package,
                    version,
                });
            }
            Err(error) => return Err(error),
        }
    }
    let found = pins.into_iter().map(|pin| (named(&pin), pin));
    Ok((found.collect(), missing))
}

/// Removes the files of a source, and its folder when nothing else is there.
fn remove(pins: &[PackagePin], folder: &Path) -> Result<(), SourceError> {
    for pin in pins {
        let path = folder.join(named(pin));
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(SourceError::Cache { path, source });
            }
            _ => {}
        }
        // Not while something of the user's is in it.
        let _kept = path.parent().map(std::fs::remove_dir);
    }
    Ok(())
}

fn named(pin: &PackagePin) -> PathBuf {
    let source = WantedSource {
        name: pin.name.clone(),
        version: pin.version.clone(),
    };
    let file = pin.path.rsplit('/').next().unwrap_or(&pin.path);
    Path::new(&source.folder()).join(file)
}

/// The wanted ones of a list.
fn read(
    text: &str,
    repository: &Repository,
    wanted: &BTreeSet<WantedSource>,
) -> Result<Vec<(WantedSource, Vec<PackagePin>)>, SourceError> {
    let mut found = Vec::new();
    for stanza in stanzas(text) {
        let get = |name: &str| value(stanza, name);
        let (Some(name), Some(version)) = (get("Package"), get("Version")) else {
            continue;
        };
        let source = WantedSource {
            name: name.to_owned(),
            version: version.to_owned(),
        };
        if !wanted.contains(&source) {
            continue;
        }
        let malformed = |problem: &str| SourceError::Malformed {
            suite: repository.label.clone(),
            file: "Sources".into(),
            problem: format!("`{name}` {version}: {problem}"),
        };
        let folder = get("Directory").unwrap_or_default();
        let folder = folder.trim_start_matches("./").trim_matches(['.', '/']);
        let sums = get("Checksums-Sha256").ok_or_else(|| malformed("it has no SHA-256 sums"))?;
        let mut files = Vec::new();
        for line in sums.lines().filter(|line| !line.trim().is_empty()) {
            let mut words = line.split_whitespace();
            let digest = words
                .next()
                .and_then(|hex| Digest::parse(&format!("sha256:{hex}")));
            let size = words.next().and_then(|size| size.parse().ok());
            let file = words
                .next()
                .filter(|file| !file.contains('/') && !file.starts_with('.'));
            let (Some(sha256), Some(size), Some(file)) = (digest, size, file) else {
                return Err(malformed("a line of its sums is none"));
            };
            let path = below(folder, file);
            if !stays_below(&path)
                || !stays_below(&source.folder())
                || source.folder().contains('/')
            {
                return Err(malformed("its files are outside of the repository"));
            }
            if files.iter().any(|pin: &PackagePin| pin.path == path) {
                return Err(malformed("a file is listed twice"));
            }
            files.push(PackagePin {
                name: source.name.clone(),
                version: source.version.clone(),
                architecture: "source".into(),
                suite: repository.label.clone(),
                path,
                size,
                sha256,
                source: source.name.clone(),
                reason: "shipped".into(),
            });
        }
        found.push((source, files));
    }
    Ok(found)
}

impl Place<'_> {
    /// The text of the list of sources in `folder`; `None` where the suite
    /// has none.
    fn sources(&self, folder: &str) -> Result<Option<String>, SourceError> {
        let plain_path = format!("{folder}Sources");
        let plain = self.release.file(&plain_path);
        for packing in Packing::ALL {
            let path = format!("{plain_path}{}", packing.suffix());
            let Some(listed) = self.release.file(&path) else {
                continue;
            };
            let Some(packed) = self.download(listed, &path)? else {
                continue;
            };
            let malformed = |problem: String| SourceError::Malformed {
                suite: self.repository.label.clone(),
                file: path.clone(),
                problem,
            };
            let limit = plain.map_or(MAX_PLAIN, |plain| plain.size);
            let stream = packing
                .unpack(&packed)
                .map_err(|e| malformed(e.to_string()))?;
            let mut checked = Checked::new(stream, limit, std::io::sink());
            let mut text = String::new();
            BufReader::with_capacity(1 << 17, &mut checked)
                .read_to_string(&mut text)
                .map_err(|e| malformed(e.to_string()))?;
            let found = checked.hasher.finish();
            return match plain.map(|plain| plain.sha256) {
                Some(expected) if expected != found => Err(SourceError::WrongDigest {
                    what: format!("the unpacked `{}/{path}`", self.address),
                    by: "signed",
                    expected,
                    found,
                }),
                _ => Ok(Some(text)),
            };
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_source_may_name_another_version() {
        let mut pin = PackagePin {
            name: "libc6".into(),
            version: "2.36-9+b1".into(),
            architecture: "amd64".into(),
            suite: "bookworm".into(),
            path: "pool/x.deb".into(),
            size: 1,
            sha256: Digest::of(b""),
            source: "glibc (1:2.36-9)".into(),
            reason: String::new(),
        };
        let source = WantedSource::of(&pin);
        assert_eq!(
            (source.name.as_str(), source.version.as_str()),
            ("glibc", "1:2.36-9")
        );
        assert_eq!(source.folder(), "glibc_2.36-9");
        pin.source = "glibc".into();
        assert_eq!(WantedSource::of(&pin).version, "2.36-9+b1");
    }
}
