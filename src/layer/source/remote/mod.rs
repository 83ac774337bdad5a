//! Archives and images from elsewhere: checked, and kept in the cache.
//!
//! In: an address with a digest, or the name of an image. Out: files of the
//! cache whose bytes have the digest that names them. What is in the cache is
//! digested again before it is used, and fetched anew when it is damaged.
//! Never here: what the bytes mean.
//!
//! ```text
//! archives/<sha256>            archives of `tar` layers
//! oci/blobs/sha256/<sha256>    blobs of images, as an OCI layout has them
//! ```

mod error;
mod login;
mod registry;
mod web;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

pub use error::RemoteError;
pub use login::Logins;
pub use registry::{Registry, Upload};
use web::{Ask, Web};

use super::deb::Client;
use super::oci::reference::{Reference, Repository};
use super::oci::{Blobs, Document, MAX_DOCUMENT, Manifest};
use crate::artifact::PendingFile;
use crate::digest::{Digest, Hasher};
use crate::report::{Event, Outcome, Reporter, Unit};
use crate::units::ByteSize;

/// The longest archive or blob that is fetched.
const MAX_BLOB: u64 = 64 << 30;
/// A progress event for about this many bytes.
const PROGRESS_BYTES: u64 = 1 << 20;

/// The way to archives and images elsewhere, with the cache in front of it.
#[derive(Debug)]
pub struct Remote<'a> {
    web: Web,
    logins: Logins,
    cache: PathBuf,
    reporter: &'a dyn Reporter,
}

impl<'a> Remote<'a> {
    /// Goes through `client`'s proxies, and keeps what it gets in `cache`.
    #[must_use]
    pub fn new(client: Client, logins: Logins, cache: &Path, reporter: &'a dyn Reporter) -> Self {
        Self {
            web: Web::new(client),
            logins,
            cache: cache.to_owned(),
            reporter,
        }
    }

    /// The archive at `url`, whose bytes have the digest `sha256`.
    ///
    /// # Errors
    ///
    /// [`RemoteError`]; nothing is kept then.
    pub fn archive(&self, url: &str, sha256: &Digest) -> Result<PathBuf, RemoteError> {
        let folder = self.folder("archives")?;
        let target = folder.join(sha256.hex());
        if self.is_sound(&target, sha256)? {
            return Ok(target);
        }
        let expected = Expected {
            what: web::shown(url),
            digest: *sha256,
            size: None,
        };
        let response = self.web.send(&Ask::get(url), &expected.what)?;
        self.keep(response, &expected, &target)?;
        Ok(target)
    }

    /// The digest of the manifest that `reference` names today; of an image
    /// for several platforms, of the one for Linux on amd64.
    ///
    /// # Errors
    ///
    /// [`RemoteError`].
    pub fn resolve(&self, reference: &Reference) -> Result<Digest, RemoteError> {
        let registry = self.registry(&reference.repository);
        let (digest, bytes) = registry.manifest(&reference.selector())?;
        match Document::parse(&bytes, &reference.to_string())? {
            Document::Manifest(_) => Ok(digest),
            Document::Index(index) => Ok(index.for_this_platform()?.digest),
        }
    }

    /// The image of `repository` whose manifest is `manifest`: all its blobs
    /// are in the layout that is given back.
    ///
    /// # Errors
    ///
    /// [`RemoteError`].
    pub fn image(&self, repository: &Repository, manifest: &Digest) -> Result<Blobs, RemoteError> {
        let folder = self.folder("oci/blobs/sha256")?;
        let registry = self.registry(repository);
        let target = folder.join(manifest.hex());
        if !self.is_sound(&target, manifest)? {
            let (_, bytes) = registry.manifest(&manifest.to_string())?;
            crate::artifact::write_shared(&target, &bytes)
                .map_err(|source| RemoteError::cache(&target, source))?;
        }
        let mut bytes = Vec::new();
        File::open(&target)
            .and_then(|file| file.take(MAX_DOCUMENT).read_to_end(&mut bytes))
            .map_err(|source| RemoteError::cache(&target, source))?;
        let Document::Manifest(found) = Document::parse(&bytes, &manifest.to_string())? else {
            return Err(RemoteError::NotAnImage {
                digest: *manifest,
                repository: repository.to_string(),
            });
        };
        self.blobs_of(&found, &registry, &folder)?;
        Ok(Blobs::Folder(self.cache.join("oci")))
    }

    fn blobs_of(
        &self,
        manifest: &Manifest,
        registry: &Registry<'_>,
        folder: &Path,
    ) -> Result<(), RemoteError> {
        for blob in [&manifest.config].into_iter().chain(&manifest.layers) {
            let target = folder.join(blob.digest.hex());
            if !self.is_sound(&target, &blob.digest)? {
                let expected = Expected {
                    what: format!("{} of {}", blob.digest, registry.repository()),
                    digest: blob.digest,
                    size: Some(blob.size),
                };
                self.keep(registry.blob(&blob.digest)?, &expected, &target)?;
            }
        }
        Ok(())
    }

    /// A repository, with the login for its registry where there is one.
    #[must_use]
    pub fn registry(&self, repository: &Repository) -> Registry<'_> {
        Registry::new(
            &self.web,
            repository.clone(),
            self.logins.of(&repository.registry),
        )
    }

    /// Writes a blob of `repository` to the new file `target`, checked.
    ///
    /// # Errors
    ///
    /// [`RemoteError`]; there is no file then.
    pub fn fetch_blob(
        &self,
        registry: &Registry<'_>,
        (digest, size): (Digest, u64),
        target: &Path,
    ) -> Result<(), RemoteError> {
        let expected = Expected {
            what: format!("{digest} of {}", registry.repository()),
            digest,
            size: Some(size),
        };
        self.keep(registry.blob(&digest)?, &expected, target)
    }

    fn folder(&self, name: &str) -> Result<PathBuf, RemoteError> {
        let folder = self.cache.join(name);
        std::fs::create_dir_all(&folder).map_err(|source| RemoteError::cache(&folder, source))?;
        Ok(folder)
    }

    /// Whether the file of the cache is there and has its digest; a damaged
    /// one is dropped, and that is said.
    fn is_sound(&self, path: &Path, digest: &Digest) -> Result<bool, RemoteError> {
        let failed = |source| RemoteError::cache(path, source);
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(failed(source)),
        };
        let mut hasher = Hasher::new();
        io::copy(&mut file, &mut hasher).map_err(failed)?;
        if hasher.finish() == *digest {
            return Ok(true);
        }
        self.reporter.warn(
            format!("`{digest}` has been damaged in the cache and is fetched again"),
            Some("look at the disk if this comes again"),
        );
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(false),
        }
    }

    /// Writes the answer to `target` while it arrives, if it is what was expected.
    fn keep(
        &self,
        response: web::Response,
        expected: &Expected,
        target: &Path,
    ) -> Result<(), RemoteError> {
        let failed = |source| RemoteError::cache(target, source);
        let step = format!("fetch {}", expected.what);
        self.reporter.started(&step);
        let limit = expected.size.unwrap_or(MAX_BLOB).min(MAX_BLOB);
        let total = expected.size.or(response.length);
        let mut body = response.body;
        let mut pending = PendingFile::create(target).map_err(failed)?;
        let mut hasher = Hasher::new();
        let (mut length, mut said) = (0_u64, 0_u64);
        let mut buffer = vec![0; 128 << 10];
        loop {
            let count = body
                .read(&mut buffer)
                .map_err(|error| RemoteError::Unreachable {
                    host: response.host.clone(),
                    reason: error.to_string(),
                })?;
            let bytes = buffer.get(..count).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            length += count as u64;
            if length > limit {
                return Err(expected.wrong_size(format!("more than {limit} bytes")));
            }
            hasher.update(bytes);
            pending.file_mut().write_all(bytes).map_err(failed)?;
            if length - said >= PROGRESS_BYTES {
                said = length;
                self.reporter.event(Event::Progress {
                    step: step.clone(),
                    done: length,
                    total,
                    unit: Unit::Bytes,
                });
            }
        }
        if expected.size.is_some_and(|size| size != length) {
            return Err(expected.wrong_size(format!("{length} bytes")));
        }
        let found = hasher.finish();
        if found != expected.digest {
            return Err(RemoteError::WrongDigest {
                what: expected.what.clone(),
                expected: expected.digest,
                found,
            });
        }
        pending.commit_unsynced().map_err(failed)?;
        let detail = ByteSize::from_bytes(length).to_string();
        self.reporter.finished(&step, Outcome::Done, detail);
        Ok(())
    }
}

/// What an answer must be.
struct Expected {
    what: String,
    digest: Digest,
    size: Option<u64>,
}

impl Expected {
    fn wrong_size(&self, found: String) -> RemoteError {
        RemoteError::WrongSize {
            what: self.what.clone(),
            expected: self.size.unwrap_or(MAX_BLOB),
            found,
        }
    }
}
