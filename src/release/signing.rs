//! Signatures beside the manifest: which files, made how, read how strictly.
//!
//! | file | verified by |
//! |---|---|
//! | `MANIFEST.sig` | `ssh-keygen -Y verify -n consign-release` |
//! | `MANIFEST.minisig` | `minisign -V` |
//! | `MANIFEST.ed25519` | `openssl pkeyutl -verify -rawin` |
//! | `MANIFEST.asc` | `gpgv --keyring ./openpgp.gpg`, where the vendor has an OpenPGP key |
//! | `provenance.dsse.json` | DSSE libraries: the provenance, signed |
//!
//! The first signer's files have these names; another one's have a key id
//! before the ending: `MANIFEST.1a2b3c4d.sig`.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::ReleaseError;
use super::dsse;
use super::manifest::{Container, MANIFEST_FILE, Manifest};
use crate::artifact::write_file;
use crate::digest::Digest;
use crate::sign::{PublicKey, SignError, Signer, minisign, sshsig};
use crate::tree::list_folder;

/// The purpose that `ssh-keygen -Y` is told with `-n`.
pub const NAMESPACE: &str = "consign-release";
/// The provenance, which the envelope carries.
pub const PROVENANCE_FILE: &str = "provenance.json";
/// The envelope: one, with a signature for each signer.
pub const ENVELOPE_FILE: &str = "provenance.dsse.json";
/// The signature by gpg.
pub const OPENPGP_FILE: &str = "MANIFEST.asc";
/// The certificate of the key that gpg signs with, as a keyring.
pub const OPENPGP_KEY_FILE: &str = "openpgp.gpg";
/// Longest signature file that is read.
const MAX_SIGNATURE: u64 = 64 << 10;

/// Whose signatures a folder holds, by the names of its files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stem(Option<String>);

impl Stem {
    /// The first signer's.
    pub(super) const FIRST: Self = Self(None);

    /// Another signer's.
    pub(super) fn of(key: &PublicKey) -> Self {
        Self(Some(
            Digest::of(key.bytes()).hex().chars().take(8).collect(),
        ))
    }

    /// The name of a signature over the manifest; `None` for the envelope.
    pub(super) fn file(&self, container: Container) -> Option<String> {
        let ending = match container {
            Container::SshSig => "sig",
            Container::Minisign => "minisig",
            Container::Raw => "ed25519",
            Container::Dsse => return None,
        };
        Some(match &self.0 {
            None => format!("{MANIFEST_FILE}.{ending}"),
            Some(id) => format!("{MANIFEST_FILE}.{id}.{ending}"),
        })
    }

    /// Whose SSHSIG a file is, by its name.
    fn of_sshsig(name: &str) -> Option<Self> {
        let middle = name.strip_prefix(MANIFEST_FILE)?.strip_suffix(".sig")?;
        if middle.is_empty() {
            return Some(Self::FIRST);
        }
        let id = middle.strip_prefix('.')?;
        let is_id = id.len() == 8 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        is_id.then(|| Self(Some(id.to_owned())))
    }
}

/// The line that minisign shows, and that is signed with the manifest.
fn trusted_comment(manifest: &Manifest) -> String {
    format!("timestamp:{}\tfile:{MANIFEST_FILE}\thashed", manifest.epoch)
}

/// The manifest of a folder, as text and as what it says.
#[derive(Debug, Clone)]
pub struct Open {
    /// The folder.
    pub folder: PathBuf,
    /// The exact text, which signatures are over.
    pub text: String,
    /// What it says.
    pub manifest: Manifest,
}

impl Open {
    /// Reads the manifest of `folder`.
    ///
    /// # Errors
    ///
    /// [`ReleaseError::Read`], [`ReleaseError::NotAManifest`].
    pub fn folder(folder: &Path) -> Result<Self, ReleaseError> {
        Self::file(&folder.join(MANIFEST_FILE), folder)
    }

    /// Reads the manifest `path`, whose signatures and files are in `folder`.
    ///
    /// # Errors
    ///
    /// As [`folder`](Self::folder).
    pub fn file(path: &Path, folder: &Path) -> Result<Self, ReleaseError> {
        let bytes = read_small(path, super::manifest::MAX_MANIFEST)?;
        let not = |line, expected| ReleaseError::NotAManifest {
            path: path.to_owned(),
            line,
            expected,
        };
        let text = String::from_utf8(bytes).map_err(|_| not(1, "text"))?;
        let manifest = text
            .parse()
            .map_err(|e: super::manifest::NotAManifest| not(e.line, e.expected))?;
        Ok(Self {
            folder: folder.to_owned(),
            text,
            manifest,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn read_text(&self, name: &str) -> Result<String, ReleaseError> {
        let path = self.path(name);
        let bytes = read_small(&path, MAX_SIGNATURE)?;
        String::from_utf8(bytes).map_err(|_| ReleaseError::Signature {
            name: name.to_owned(),
            source: SignError::Malformed {
                kind: "text",
                problem: "it is not text",
            },
        })
    }

    /// Signs the manifest and the provenance, in every container that the
    /// manifest names for this signer. Gives the names of the files.
    ///
    /// # Errors
    ///
    /// [`ReleaseError::NotASigner`] when the manifest names others only;
    /// [`ReleaseError::Sign`], and what reading and writing report.
    pub fn sign(&self, signer: &Signer) -> Result<Vec<String>, ReleaseError> {
        let key = signer.public();
        let containers = self.containers_of(key)?;
        let stem = self.stem_for(key)?;
        let mut written = Vec::new();
        for container in containers {
            written.push(self.sign_as(container, &stem, signer)?);
        }
        Ok(written)
    }

    fn containers_of(&self, key: &PublicKey) -> Result<Vec<Container>, ReleaseError> {
        let fingerprint = key.fingerprint();
        if self.manifest.signers.is_empty() {
            return Ok(Container::ALL.to_vec());
        }
        let named = self
            .manifest
            .signers
            .iter()
            .find(|line| line.fingerprint == fingerprint);
        match named {
            Some(line) => Ok(line.containers.clone()),
            None => Err(ReleaseError::NotASigner { fingerprint }),
        }
    }

    /// Under which names this key's signatures go: the first names are the
    /// first signer's.
    fn stem_for(&self, key: &PublicKey) -> Result<Stem, ReleaseError> {
        let fingerprint = key.fingerprint();
        let name = Stem::FIRST
            .file(Container::SshSig)
            .expect("not the envelope");
        let first = if let Some(line) = self.manifest.signers.first() {
            line.fingerprint == fingerprint
        } else {
            matches!(self.path(&name).try_exists(), Ok(false)) || self.sshsig(&name)? == *key
        };
        Ok(if first { Stem::FIRST } else { Stem::of(key) })
    }

    fn sign_as(
        &self,
        container: Container,
        stem: &Stem,
        signer: &Signer,
    ) -> Result<String, ReleaseError> {
        let message = self.text.as_bytes();
        let sign = |source| ReleaseError::Sign { source };
        let bytes = match container {
            Container::SshSig => sshsig::sign(signer, NAMESPACE, message)
                .map_err(sign)?
                .into_bytes(),
            Container::Minisign => {
                minisign::sign(signer, message, &trusted_comment(&self.manifest))
                    .map_err(sign)?
                    .into_bytes()
            }
            Container::Raw => signer.sign(message).map_err(sign)?.to_vec(),
            Container::Dsse => self.envelope_with(signer)?.into_bytes(),
        };
        let name = stem
            .file(container)
            .unwrap_or_else(|| ENVELOPE_FILE.to_owned());
        self.write(&name, &bytes)?;
        Ok(name)
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), ReleaseError> {
        let path = self.path(name);
        write_file(&path, bytes).map_err(|source| ReleaseError::Write { path, source })
    }

    /// The envelope with this signer's signature among the ones that are there.
    fn envelope_with(&self, signer: &Signer) -> Result<String, ReleaseError> {
        let payload = read_small(&self.path(PROVENANCE_FILE), super::manifest::MAX_MANIFEST)?;
        let mut signatures = match self.path(ENVELOPE_FILE).try_exists() {
            Ok(false) => Vec::new(),
            _ => self.envelope(&payload)?,
        };
        let id = signer.public().fingerprint();
        signatures.retain(|(known, _)| *known != id);
        let signature = signer.sign(&dsse::signed_bytes(&payload));
        signatures.push((
            id,
            signature.map_err(|source| ReleaseError::Sign { source })?,
        ));
        Ok(dsse::render(&payload, &signatures))
    }

    fn envelope(&self, payload: &[u8]) -> Result<Vec<dsse::Signature>, ReleaseError> {
        let text = self.read_text(ENVELOPE_FILE)?;
        dsse::parse(&text, payload).ok_or_else(|| ReleaseError::Signature {
            name: ENVELOPE_FILE.into(),
            source: SignError::Malformed {
                kind: "DSSE",
                problem: "it is not the envelope of this provenance, exactly as it is written",
            },
        })
    }

    /// Takes a signature of the manifest that was made elsewhere: an SSHSIG,
    /// one by gpg, or the 64 bytes of a token, which are by `key`. Gives the
    /// name of the file and the key's fingerprint.
    ///
    /// # Errors
    ///
    /// [`ReleaseError::Signature`] and [`ReleaseError::OpenPgp`] when it does
    /// not fit, and as [`sign`](Self::sign).
    pub fn attach(
        &self,
        signature: &Path,
        key: Option<&PublicKey>,
    ) -> Result<(String, String), ReleaseError> {
        let bytes = read_small(signature, MAX_SIGNATURE)?;
        if super::openpgp::is_signature(&bytes) {
            let name = signature.display().to_string();
            let fingerprint = super::openpgp::attach(self, &bytes, &name)?;
            return Ok((OPENPGP_FILE.to_owned(), fingerprint));
        }
        if let Ok(raw) = <[u8; 64]>::try_from(bytes.as_slice()) {
            return self.attach_raw(signature, &raw, key);
        }
        let wrong = |source| ReleaseError::Signature {
            name: signature.display().to_string(),
            source,
        };
        let text = String::from_utf8_lossy(&bytes);
        let key = sshsig::verify(&text, NAMESPACE, self.text.as_bytes()).map_err(wrong)?;
        self.containers_of(&key)?;
        let name = self
            .stem_for(&key)?
            .file(Container::SshSig)
            .expect("not the envelope");
        self.write(&name, text.as_bytes())?;
        Ok((name, key.fingerprint()))
    }

    /// The bytes that a token signs for an SSHSIG of the manifest.
    #[must_use]
    pub fn bytes_to_sign(&self) -> Vec<u8> {
        sshsig::signed_bytes(NAMESPACE, self.text.as_bytes())
    }

    /// A token's bare signature: over [`bytes_to_sign`](Self::bytes_to_sign)
    /// it becomes an SSHSIG, over the manifest itself it stays what it is.
    fn attach_raw(
        &self,
        from: &Path,
        signature: &[u8; 64],
        key: Option<&PublicKey>,
    ) -> Result<(String, String), ReleaseError> {
        let wrong = |source| ReleaseError::Signature {
            name: from.display().to_string(),
            source,
        };
        let Some(key) = key else {
            return Err(wrong(SignError::WhoseRaw));
        };
        let containers = self.containers_of(key)?;
        let is_sshsig = key.accepts(&self.bytes_to_sign(), signature);
        if !is_sshsig && !key.accepts(self.text.as_bytes(), signature) {
            return Err(wrong(SignError::Wrong {
                kind: "raw",
                key: key.fingerprint(),
            }));
        }
        let (container, bytes) = if is_sshsig {
            let text = sshsig::render(key, NAMESPACE, signature);
            (Container::SshSig, text.into_bytes())
        } else {
            (Container::Raw, signature.to_vec())
        };
        // A file that is not named would be refused with the whole release.
        if !containers.contains(&container) {
            return Err(ReleaseError::NotASigner {
                fingerprint: format!("{} by a {} signature", key.fingerprint(), container.name()),
            });
        }
        let name = self.stem_for(key)?.file(container);
        let name = name.expect("not the envelope");
        self.write(&name, &bytes)?;
        Ok((name, key.fingerprint()))
    }

    /// Whose the SSHSIG `name` is; it fits the manifest.
    fn sshsig(&self, name: &str) -> Result<PublicKey, ReleaseError> {
        let text = self.read_text(name)?;
        sshsig::verify(&text, NAMESPACE, self.text.as_bytes()).map_err(|source| {
            ReleaseError::Signature {
                name: name.to_owned(),
                source,
            }
        })
    }

    /// Judges every signature that is there. Gives the keys that signed, with
    /// the names of all signature files.
    ///
    /// # Errors
    ///
    /// [`ReleaseError::Signature`] for the first that does not fit,
    /// [`ReleaseError::Unsigned`] when one is missing that the manifest names.
    pub fn judge(&self) -> Result<Judged, ReleaseError> {
        let entries = list_folder(&self.folder).map_err(|source| ReleaseError::Read {
            path: self.folder.clone(),
            source,
        })?;
        let names: Vec<String> = entries
            .iter()
            .map(|entry| entry.name.to_string_lossy().into_owned())
            .collect();
        let mut judged = Judged::default();
        for stem in names.iter().filter_map(|name| Stem::of_sshsig(name)) {
            self.judge_signer(&stem, &names, &mut judged)?;
        }
        self.judge_envelope(&names, &mut judged)?;
        self.judge_missing(&judged)?;
        Ok(judged)
    }

    fn judge_signer(
        &self,
        stem: &Stem,
        names: &[String],
        judged: &mut Judged,
    ) -> Result<(), ReleaseError> {
        let message = self.text.as_bytes();
        let name = stem.file(Container::SshSig).expect("not the envelope");
        let key = self.sshsig(&name)?;
        if *stem != Stem::FIRST && *stem != Stem::of(&key) || judged.keys.contains(&key) {
            let found = key.fingerprint();
            let source = SignError::OtherKey { found };
            return Err(ReleaseError::Signature { name, source });
        }
        let fingerprint = key.fingerprint();
        judged.take(&fingerprint, Container::SshSig, name);
        for container in [Container::Minisign, Container::Raw] {
            let name = stem.file(container).expect("not the envelope");
            if !names.contains(&name) {
                continue;
            }
            let verdict = match container {
                Container::Raw => self.judge_raw(&name, &key)?,
                _ => minisign::verify(
                    &self.read_text(&name)?,
                    &key,
                    message,
                    &trusted_comment(&self.manifest),
                ),
            };
            verdict.map_err(|source| ReleaseError::Signature {
                name: name.clone(),
                source,
            })?;
            judged.take(&fingerprint, container, name);
        }
        judged.keys.push(key);
        Ok(())
    }

    fn judge_raw(
        &self,
        name: &str,
        key: &PublicKey,
    ) -> Result<Result<(), SignError>, ReleaseError> {
        let bytes = read_small(&self.path(name), MAX_SIGNATURE)?;
        let Ok(signature) = <[u8; 64]>::try_from(bytes.as_slice()) else {
            return Ok(Err(SignError::Malformed {
                kind: "raw",
                problem: "it is not of 64 bytes",
            }));
        };
        let fits = key.accepts(self.text.as_bytes(), &signature);
        Ok(fits.then_some(()).ok_or_else(|| SignError::Wrong {
            kind: "raw",
            key: key.fingerprint(),
        }))
    }

    fn judge_envelope(&self, names: &[String], judged: &mut Judged) -> Result<(), ReleaseError> {
        if !names.iter().any(|name| name == ENVELOPE_FILE) {
            return Ok(());
        }
        let payload = read_small(&self.path(PROVENANCE_FILE), super::manifest::MAX_MANIFEST)?;
        let message = dsse::signed_bytes(&payload);
        for (id, signature) in self.envelope(&payload)? {
            let key = judged.keys.iter().find(|key| key.fingerprint() == id);
            let source = match key {
                None => SignError::OtherKey { found: id },
                Some(key) if key.accepts(&message, &signature) => {
                    judged.take(&id, Container::Dsse, ENVELOPE_FILE.into());
                    continue;
                }
                Some(_) => SignError::Wrong {
                    kind: "DSSE",
                    key: id,
                },
            };
            let name = ENVELOPE_FILE.into();
            return Err(ReleaseError::Signature { name, source });
        }
        Ok(())
    }

    /// Everything that the manifest promises is there.
    fn judge_missing(&self, judged: &Judged) -> Result<(), ReleaseError> {
        for signer in &self.manifest.signers {
            for container in &signer.containers {
                let promised = (signer.fingerprint.clone(), *container);
                if !judged.found.contains(&promised) {
                    return Err(ReleaseError::Unsigned {
                        fingerprint: signer.fingerprint.clone(),
                        container: container.name(),
                    });
                }
            }
        }
        Ok(())
    }
}

/// The signatures of a folder, each of which fits.
#[derive(Debug, Default)]
pub struct Judged {
    /// Who signed.
    pub keys: Vec<PublicKey>,
    /// The names of the signature files.
    pub files: Vec<String>,
    found: Vec<(String, Container)>,
}

impl Judged {
    fn take(&mut self, fingerprint: &str, container: Container, name: String) {
        self.found.push((fingerprint.to_owned(), container));
        self.files.push(name);
    }
}

/// Reads a file that has to be a regular one of at most `limit` bytes.
pub(super) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>, ReleaseError> {
    let read = || {
        if !path.symlink_metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "far too long for what it is",
            ));
        }
        Ok(bytes)
    };
    read().map_err(|source| ReleaseError::Read {
        path: path.to_owned(),
        source,
    })
}
