//! From a repository to its packages: signed list, digests, package lists.
//!
//! In: [`Repository`]s. Out: the [`Archive`] of all their packages and what
//! is worth keeping of the signed lists. Package lists are kept in the cache
//! under the digest that the signed list gives for their plain text, and
//! hashed again while they are read. A signed list is asked for each time;
//! offline, the one of the last time is checked again as if it had just come.
//! A mirror that answers with an older list than the last one is not followed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::exec::escape;
use crate::units::ByteSize;

use super::address::Address;
use super::apt::Trust;
use super::error::SourceError;
use super::index::{Archive, Index, IndexError};
use super::openpgp::{self, Keyring};
use super::packed::{Checked, MAX_PLAIN, Packing};
use super::release::{ListedFile, Release};
use super::resolve::ReleaseFacts;
use super::transport::GetError;
use super::{Access, Network, Presence, Repository};

/// The largest signed list, in bytes; Debian's are below 200 KiB.
const MAX_RELEASE: u64 = 16 << 20;
/// The largest package list, packed, in bytes; Debian's are below 10 MiB.
const MAX_PACKED: u64 = 256 << 20;
/// What the distribution's archive calls itself.
const DISTRIBUTION: &str = "Debian";
/// zstd's level for the cache: the list is read more often than written.
const CACHE_LEVEL: i32 = 1;

/// All packages of the repositories, and the facts of their signed lists.
pub(super) fn open_all(
    repositories: &[Repository],
    locals: Option<Index>,
    architecture: &str,
    access: &Access<'_>,
) -> Result<(Archive, Vec<ReleaseFacts>), SourceError> {
    let opened = std::thread::scope(|scope| {
        let handles: Vec<_> = repositories
            .iter()
            .map(|repository| scope.spawn(move || open(repository, architecture, access)))
            .collect();
        let join = |handle: std::thread::ScopedJoinHandle<'_, _>| {
            handle.join().expect("opening a repository does not panic")
        };
        handles
            .into_iter()
            .map(join)
            .collect::<Result<Vec<_>, SourceError>>()
    })?;
    let (mut indices, mut facts): (Vec<_>, Vec<ReleaseFacts>) = (Vec::new(), Vec::new());
    for opened in of_one_archive(opened.into_iter().flatten().collect(), access) {
        // Two mirrors of one archive: the newer list stands for both.
        match facts.iter_mut().find(|it| it.suite == opened.facts.suite) {
            Some(there) if there.date >= opened.facts.date => {}
            Some(there) => *there = opened.facts,
            None => facts.push(opened.facts),
        }
        indices.extend(opened.indices);
    }
    indices.extend(locals);
    let archive = Archive::new(indices).map_err(|error| SourceError::Malformed {
        suite: repositories
            .first()
            .map(|it| it.label.clone())
            .unwrap_or_default(),
        file: "Packages".into(),
        problem: match error {
            IndexError::Malformed(problem) => problem,
            IndexError::Read(error) => error.to_string(),
        },
    })?;
    Ok((archive, facts))
}

/// One repository, read.
struct Opened {
    facts: ReleaseFacts,
    /// Whose archive it is.
    origin: String,
    indices: Vec<Index>,
}

/// Of repositories with the same label, only those of one archive: Debian's,
/// else the first one's. A host may well have another archive whose suites
/// are called the same; nobody would find its packages from another host.
fn of_one_archive(opened: Vec<Opened>, access: &Access<'_>) -> Vec<Opened> {
    let mut origins: BTreeMap<String, String> = BTreeMap::new();
    for one in &opened {
        let origin = origins
            .entry(one.facts.suite.clone())
            .or_insert_with(|| one.origin.clone());
        if one.origin == DISTRIBUTION {
            DISTRIBUTION.clone_into(origin);
        }
    }
    let is_of_it = |one: &Opened| {
        let is_of_it = origins.get(&one.facts.suite) == Some(&one.origin);
        if !is_of_it {
            access.reporter.warn(
                format!(
                    "the host's source of suite `{}` by `{}` is left out",
                    one.facts.suite,
                    escape(&one.origin)
                ),
                Some("if the appliance needs it, name it in a [[repository]] of appliance.toml"),
            );
        }
        is_of_it
    };
    opened.into_iter().filter(is_of_it).collect()
}

fn open(
    repository: &Repository,
    architecture: &str,
    access: &Access<'_>,
) -> Result<Option<Opened>, SourceError> {
    let Some((address, text)) = signed_text(repository, access)? else {
        access.reporter.warn(
            format!(
                "the mirror has no suite `{}`, which is left out",
                repository.suite
            ),
            Some("name a mirror that has it, or ignore this if there is none"),
        );
        return Ok(None);
    };
    let release = checked_release(repository, &address, &text, access)?;
    if let Some(change) = release.changed_validity(repository) {
        access.reporter.warn(change, None);
    }
    let place = Place {
        repository,
        address: &address,
        release: &release,
        access,
    };
    let mut indices = Vec::new();
    if repository.is_flat() {
        indices.push(place.index("", architecture)?);
    } else {
        for component in &repository.components {
            for listed in architectures(&release, component, architecture) {
                let folder = format!("{component}/binary-{listed}/");
                indices.push(place.index(&folder, architecture)?);
            }
        }
    }
    let preference = &repository.preference;
    let priority = preference.priority.unwrap_or(release.priority);
    let prefer = |index: Index| index.with_preference(priority, &preference.packages);
    Ok(Some(Opened {
        facts: ReleaseFacts {
            suite: repository.label.clone(),
            date: release.date,
            sha256: Digest::of(text.as_bytes()),
        },
        origin: release.origin.clone(),
        indices: indices.into_iter().map(prefer).collect(),
    }))
}

/// `amd64`, and `all` where that has a list of its own.
fn architectures<'a>(release: &Release, component: &str, native: &'a str) -> Vec<&'a str> {
    let has_all = |kind: &Packing| {
        release
            .file(&format!("{component}/binary-all/Packages{}", kind.suffix()))
            .is_some()
    };
    if release.has_separate_all && Packing::ALL.iter().any(has_all) {
        vec![native, "all"]
    } else {
        vec![native]
    }
}

pub(super) fn checked_release(
    repository: &Repository,
    address: &Address,
    text: &str,
    access: &Access<'_>,
) -> Result<Release, SourceError> {
    let release = Release::parse(text).map_err(|problem| SourceError::Malformed {
        suite: repository.label.clone(),
        file: "InRelease".into(),
        problem,
    })?;
    release.check(repository, address, access.now)?;
    Ok(release)
}

/// The text that a good signature vouches for, from the first address that
/// has the suite; `None` when none has and the suite is optional.
pub(super) fn signed_text(
    repository: &Repository,
    access: &Access<'_>,
) -> Result<Option<(Address, String)>, SourceError> {
    let keyring = match repository.trust {
        Trust::Signed => Some(Keyring::open(&repository.keys)?),
        Trust::Blind => None,
    };
    for address in &repository.addresses {
        let Some(message) = fetch_message(repository, address, access)? else {
            continue;
        };
        let fresh = vouched(repository, address, &message, keyring.as_ref(), access)?;
        let text = newer_of(
            repository,
            address,
            &message,
            fresh,
            keyring.as_ref(),
            access,
        )?;
        return Ok(Some((address.clone(), text)));
    }
    if repository.presence == Presence::Optional {
        return Ok(None);
    }
    let addresses: Vec<_> = repository
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    Err(SourceError::NoSuite {
        suite: repository.suite.clone(),
        address: addresses.join(", "),
    })
}

/// `InRelease`, else `Release` with the signature of `Release.gpg` before it,
/// or what the cache has of them when offline. Of a repository that needs no
/// signature, `Release` alone will do.
fn fetch_message(
    repository: &Repository,
    address: &Address,
    access: &Access<'_>,
) -> Result<Option<Vec<u8>>, SourceError> {
    if access.client.network() == Network::Offline && address.scheme() != "file" {
        let cached = read_if_there(&release_path(repository, address, access))?;
        return cached.map(Some).ok_or_else(|| SourceError::Offline {
            what: format!("the package list of suite `{}`", repository.label),
        });
    }
    if let Some(message) = fetch_one(repository, address, "InRelease", access)? {
        return Ok(Some(message));
    }
    let Some(text) = fetch_one(repository, address, "Release", access)? else {
        return Ok(None);
    };
    if repository.trust == Trust::Blind {
        return Ok(Some(text));
    }
    let signature = fetch_one(repository, address, "Release.gpg", access)?;
    Ok(signature.map(|signature| openpgp::with_signature(&signature, &text)))
}

/// One file beside the lists; `None` when it is not there.
fn fetch_one(
    repository: &Repository,
    address: &Address,
    name: &str,
    access: &Access<'_>,
) -> Result<Option<Vec<u8>>, SourceError> {
    let path = below(&repository.folder(), name);
    let mut message = Vec::new();
    match access.client.get(address, &path, MAX_RELEASE, &mut message) {
        Ok(_) => Ok(Some(message)),
        Err(GetError::NotFound) => Ok(None),
        Err(GetError::Offline) => Err(SourceError::Offline {
            what: format!("the package list of suite `{}`", repository.label),
        }),
        Err(GetError::TooLong) => Err(SourceError::Malformed {
            suite: repository.label.clone(),
            file: name.into(),
            problem: format!("it is longer than {}", ByteSize::from_bytes(MAX_RELEASE)),
        }),
        Err(GetError::Sink(source)) => Err(SourceError::Cache {
            path: path.into(),
            source,
        }),
        Err(GetError::Failed(error)) => Err(error),
    }
}

/// A path below a folder, which may be none.
pub(super) fn below(folder: &str, path: &str) -> String {
    match folder {
        "" => path.to_owned(),
        folder => format!("{folder}/{path}"),
    }
}

fn vouched(
    repository: &Repository,
    address: &Address,
    message: &[u8],
    keyring: Option<&Keyring>,
    access: &Access<'_>,
) -> Result<String, SourceError> {
    let outcome = if let Some(keyring) = keyring {
        openpgp::verify(message, keyring, access.now)
    } else {
        access.reporter.warn(
            format!(
                "suite `{}` is not checked for a signature: the host's apt trusts {address}",
                repository.suite
            ),
            Some("sign the repository, and remove `trusted` from the host's source"),
        );
        openpgp::unverified_text(message)
    };
    outcome
        .map(|verified| verified.text)
        .map_err(|problem| SourceError::Signature {
            suite: repository.label.clone(),
            address: address.to_string(),
            problem,
        })
}

/// The fresh list, or the one of the last time where that is newer and still
/// good: whoever holds back updates would answer with an old one. Keeps it.
fn newer_of(
    repository: &Repository,
    address: &Address,
    message: &[u8],
    fresh: String,
    keyring: Option<&Keyring>,
    access: &Access<'_>,
) -> Result<String, SourceError> {
    let path = release_path(repository, address, access);
    if access.client.network() == Network::Offline && address.scheme() != "file" {
        return Ok(fresh);
    }
    let kept = read_if_there(&path)?.filter(|kept| kept != message);
    if let (Some(kept), Some(keyring)) = (kept, keyring) {
        let text = openpgp::verify(&kept, keyring, access.now).ok();
        let kept = text
            .map(|it| it.text)
            .and_then(|text| Some((Release::parse(&text).ok()?, text)));
        if let (Some((kept, text)), Ok(answer)) = (kept, Release::parse(&fresh))
            && kept.date > answer.date
            && kept.check(repository, address, access.now).is_ok()
        {
            access.reporter.warn(
                format!(
                    "{address} answers suite `{}` with a list of {}, older than that of {} from \
                     before, which is used",
                    repository.suite, answer.date, kept.date
                ),
                None,
            );
            return Ok(text);
        }
    }
    write_cached(&path, message)?;
    Ok(fresh)
}

fn release_path(repository: &Repository, address: &Address, access: &Access<'_>) -> PathBuf {
    let address = address.to_string();
    let name = crate::digest::of_fields([address.as_bytes(), repository.suite.as_bytes()]);
    access
        .cache
        .join("releases")
        .join(format!("{}.InRelease", name.hex()))
}

/// A verified suite at the address that has it.
pub(super) struct Place<'a> {
    pub(super) repository: &'a Repository,
    pub(super) address: &'a Address,
    pub(super) release: &'a Release,
    pub(super) access: &'a Access<'a>,
}

impl Place<'_> {
    /// The list in `folder`, which ends with a slash or is empty.
    fn index(&self, folder: &str, architecture: &str) -> Result<Index, SourceError> {
        let plain_path = format!("{folder}Packages");
        let plain = self.release.file(&plain_path);
        let cache_path = plain.map(|plain| {
            self.access
                .cache
                .join("lists")
                .join(format!("{}.zst", plain.sha256.hex()))
        });
        if let (Some(plain), Some(path)) = (plain, &cache_path)
            && let Some(index) = self.cached(architecture, plain, path)?
        {
            return Ok(index);
        }
        for packing in Packing::ALL {
            let path = format!("{plain_path}{}", packing.suffix());
            let Some(listed) = self.release.file(&path) else {
                continue;
            };
            let Some(packed) = self.download(listed, &path)? else {
                continue;
            };
            let (index, kept) = self.unpack(architecture, packing, &packed, plain, &path)?;
            if let Some(path) = &cache_path {
                write_cached(path, &kept)?;
            }
            return Ok(index);
        }
        Err(SourceError::NoIndex {
            suite: self.repository.label.clone(),
            address: self.address.to_string(),
            component: folder.split("/binary-").next().unwrap_or(folder).to_owned(),
            architecture: architecture.to_owned(),
        })
    }

    /// The list from the cache; `None` when it is not there, or not right.
    fn cached(
        &self,
        architecture: &str,
        plain: ListedFile,
        path: &Path,
    ) -> Result<Option<Index>, SourceError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(SourceError::Cache {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let read = zstd::Decoder::new(file)
            .map_err(IndexError::Read)
            .and_then(|from| {
                let mut checked = Checked::new(from, plain.size, io::sink());
                let index = self.read_index(architecture, &mut checked)?;
                Ok((index, checked.hasher.finish()))
            });
        match read {
            Ok((index, found)) if found == plain.sha256 => Ok(Some(index)),
            _ => {
                let name = path.display();
                let message = format!("`{name}` in the cache is damaged, and is fetched again");
                self.access.reporter.warn(message, None);
                Ok(None)
            }
        }
    }

    fn read_index(&self, architecture: &str, from: impl Read) -> Result<Index, IndexError> {
        Index::read(
            &self.repository.label,
            architecture,
            BufReader::with_capacity(1 << 17, from),
        )
    }

    /// A packed list with the listed size and digest; `None` when the mirror
    /// does not have it.
    pub(super) fn download(
        &self,
        listed: ListedFile,
        path: &str,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        let folder = self.repository.folder();
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let hash = format!("by-hash/SHA256/{}", listed.sha256.hex());
        let by_hash = self
            .release
            .by_hash
            .then(|| below(&folder, &below(parent, &hash)));
        for place in by_hash.into_iter().chain([below(&folder, path)]) {
            let what = || format!("`{}/{place}`", self.address);
            let expected = ByteSize::from_bytes(listed.size);
            let wrong_size = |found: String| SourceError::WrongSize {
                what: what(),
                by: "signed",
                expected,
                found,
            };
            let mut packed = Vec::new();
            let limit = listed.size.min(MAX_PACKED);
            match self
                .access
                .client
                .get(self.address, &place, limit, &mut packed)
            {
                Ok(count) if count != listed.size => {
                    return Err(wrong_size(format!("{count} bytes")));
                }
                Ok(_) => {}
                Err(GetError::NotFound) => continue,
                Err(GetError::TooLong) => return Err(wrong_size("more".into())),
                Err(GetError::Offline) => return Err(SourceError::Offline { what: what() }),
                Err(GetError::Sink(source)) => {
                    return Err(SourceError::Cache {
                        path: place.into(),
                        source,
                    });
                }
                Err(GetError::Failed(error)) => return Err(error),
            }
            let found = Digest::of(&packed);
            if found != listed.sha256 {
                let (by, expected) = ("signed", listed.sha256);
                return Err(SourceError::WrongDigest {
                    what: what(),
                    by,
                    expected,
                    found,
                });
            }
            return Ok(Some(packed));
        }
        Ok(None)
    }

    /// Unpacks and parses at once; gives the bytes for the cache too.
    fn unpack(
        &self,
        architecture: &str,
        packing: Packing,
        packed: &[u8],
        plain: Option<ListedFile>,
        path: &str,
    ) -> Result<(Index, Vec<u8>), SourceError> {
        let malformed = |problem: String| SourceError::Malformed {
            suite: self.repository.label.clone(),
            file: path.to_owned(),
            problem,
        };
        let in_words = |error: &io::Error| malformed(error.to_string());
        let keep = zstd::Encoder::new(Vec::new(), CACHE_LEVEL).map_err(|error| in_words(&error))?;
        let limit = plain.map_or(MAX_PLAIN, |plain| plain.size);
        let stream = packing.unpack(packed).map_err(|error| in_words(&error))?;
        let mut checked = Checked::new(stream, limit, keep);
        let index = self
            .read_index(architecture, &mut checked)
            .map_err(|error| match error {
                IndexError::Read(error) => in_words(&error),
                IndexError::Malformed(problem) => malformed(problem),
            })?;
        let found = checked.hasher.finish();
        match plain.map(|plain| plain.sha256) {
            Some(expected) if expected != found => Err(SourceError::WrongDigest {
                what: format!("the unpacked `{}/{path}`", self.address),
                by: "signed",
                expected,
                found,
            }),
            _ => Ok((
                index,
                checked.keep.finish().map_err(|error| in_words(&error))?,
            )),
        }
    }
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, SourceError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SourceError::Cache {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Writes a file of the cache, whole or not at all. No sync: what a power cut
/// leaves is checked before it is used.
fn write_cached(path: &Path, bytes: &[u8]) -> Result<(), SourceError> {
    let write = || {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mut file = super::fetch::hidden_file(folder)?;
        file.write_all(bytes)?;
        file.persist(path).map(drop).map_err(|error| error.error)
    };
    write().map_err(|source| SourceError::Cache {
        path: path.to_owned(),
        source,
    })
}
