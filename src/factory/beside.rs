//! What goes onto a config disk beside `site.toml`: its signature, encrypted
//! secrets, licences, bundles.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use consign_schema::{Secret, SecretSource, SiteConfig, bundle};

use super::FactoryError;
use super::roles::read_limited;
use crate::sign::age::{self, Recipient};
use crate::sign::{Signer, sshsig};
use crate::tree::{Blob, Content};

/// What a signature of a `site.toml` is for.
const PURPOSE: &str = "consign-config";
/// A licence is at most this long: the agent's limit.
const MAX_LICENSE: u64 = 256 << 10;

/// As `secrets.age` is: the agent's limit of a text file.
const MAX_SECRETS: usize = consign_schema::MAX_SIZE;
/// Files that the agent reads of a medium.
const MAX_NAMES: usize = 64;

/// What is asked for.
#[derive(Debug, Default)]
pub struct Beside<'a> {
    /// Who signs.
    pub signer: Option<&'a Signer>,
    /// Secrets: encrypted already, or `name = "text"` lines.
    pub secrets: Option<&'a Path>,
    /// A `request.toml`, or the recipient itself, and random bytes.
    pub encrypt: Option<(&'a str, [u8; age::CHANCE])>,
    /// Files for the folder `license`.
    pub licenses: &'a [PathBuf],
    /// Bundles for the folder `payload`.
    pub payload: &'a [PathBuf],
}

impl Beside<'_> {
    /// The files by their names on the medium.
    ///
    /// # Errors
    ///
    /// [`FactoryError`]; nothing of a secret is in it.
    pub(super) fn files(
        &self,
        site: &[u8],
        checked: &SiteConfig,
    ) -> Result<BTreeMap<String, Content>, FactoryError> {
        let mut files: BTreeMap<String, Content> = BTreeMap::new();
        if let Some(signer) = self.signer {
            let signature = sshsig::sign(signer, PURPOSE, site)?;
            files.insert(
                "site.toml.sig".into(),
                Content::from_bytes(signature.into_bytes()),
            );
        }
        if let Some(path) = self.secrets {
            let bytes = self.encrypted(path, checked)?;
            files.insert("secrets.age".into(), Content::from_bytes(bytes));
        }
        for path in self.licenses {
            let mut bytes = Vec::new();
            let read = |source| FactoryError::Read {
                path: path.clone(),
                source,
            };
            let file = std::fs::File::open(path).map_err(read)?;
            let mut file = file.take(MAX_LICENSE + 1);
            file.read_to_end(&mut bytes).map_err(read)?;
            if bytes.len() as u64 > MAX_LICENSE {
                return Err(read(std::io::ErrorKind::FileTooLarge.into()));
            }
            add(&mut files, "license", path, "", Content::from_bytes(bytes))?;
        }
        for path in self.payload {
            let read = |source| FactoryError::Read {
                path: path.clone(),
                source,
            };
            let blob = Blob::open(path).map_err(read)?;
            let metadata = blob.file().metadata().map_err(read)?;
            if metadata.len() > bundle::MAX_SIZE {
                return Err(too_long(path, metadata.len(), bundle::MAX_SIZE));
            }
            let content = Content::stored(blob, 0, metadata.len());
            add(&mut files, "payload", path, ".vab", content)?;
        }
        // One more is `site.toml` itself.
        if files.len() >= MAX_NAMES {
            return Err(FactoryError::TooMuch {
                what: "the config disk would have".to_owned(),
                found: files.len() as u64 + 1,
                most: MAX_NAMES as u64,
                unit: "files",
            });
        }
        Ok(files)
    }

    fn encrypted(&self, path: &Path, site: &SiteConfig) -> Result<Vec<u8>, FactoryError> {
        let wrong = |reason, hint| FactoryError::Secrets {
            path: path.to_owned(),
            reason,
            hint,
        };
        let bytes = read_limited(path)?;
        // What was read ends behind the limit, and what follows is not there.
        if bytes.len() > MAX_SECRETS {
            let found = std::fs::metadata(path).map_or(bytes.len() as u64, |it| it.len());
            return Err(too_long(path, found, MAX_SECRETS as u64));
        }
        let is_encrypted = bytes.starts_with(age::VERSION.as_bytes());
        let Some((request, chance)) = &self.encrypt else {
            if is_encrypted {
                return Ok(bytes);
            }
            return Err(wrong(
                "they are not encrypted",
                "add `--encrypt request.toml`, the file that the appliance wrote onto its config disk",
            ));
        };
        if is_encrypted {
            return Err(wrong(
                "they are encrypted already",
                "leave out `--encrypt`, or give the plain secrets",
            ));
        }
        let form = "write one `name = \"text\"` line for each secret";
        let text = String::from_utf8(bytes).map_err(|_| wrong("they are not text", form))?;
        let text = Secret::new(text);
        let table: BTreeMap<String, String> = toml::from_str(text.expose())
            .map_err(|_| wrong("they are not lines of texts", form))?;
        let wanted = site
            .secrets
            .iter()
            .filter(|secret| secret.from == SecretSource::Age);
        for secret in wanted {
            if !table.contains_key(&secret.entry) {
                return Err(wrong(
                    "one that the configuration names in [secret] is missing",
                    form,
                ));
            }
        }
        let recipient = recipient(request)?;
        let sealed = age::encrypt(&recipient, text.expose().as_bytes(), chance);
        if sealed.len() > MAX_SECRETS {
            return Err(too_long(path, sealed.len() as u64, MAX_SECRETS as u64));
        }
        Ok(sealed)
    }
}

/// Puts a file into a folder of the medium, where there is none of its name.
fn add(
    files: &mut BTreeMap<String, Content>,
    folder: &str,
    path: &Path,
    suffix: &str,
    content: Content,
) -> Result<(), FactoryError> {
    let name = name_in(folder, path, suffix)?;
    match files.insert(name.clone(), content) {
        None => Ok(()),
        Some(_) => Err(FactoryError::SameName {
            path: path.to_owned(),
            name,
        }),
    }
}

fn too_long(path: &Path, found: u64, most: u64) -> FactoryError {
    FactoryError::TooMuch {
        what: format!("`{}` would have", path.display()),
        found,
        most,
        unit: "bytes on the config disk",
    }
}

/// The recipient itself, or the one that a `request.toml` names.
fn recipient(request: &str) -> Result<Recipient, FactoryError> {
    if let Some(recipient) = Recipient::parse(request) {
        return Ok(recipient);
    }
    let none = || FactoryError::Request {
        request: request.to_owned(),
    };
    let bytes = read_limited(Path::new(request))?;
    let table: toml::Table =
        toml::from_str(std::str::from_utf8(&bytes).map_err(|_| none())?).map_err(|_| none())?;
    let named = table.get("recipient").and_then(toml::Value::as_str);
    named.and_then(Recipient::parse).ok_or_else(none)
}

fn name_in(folder: &str, path: &Path, suffix: &str) -> Result<String, FactoryError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.map(str::to_ascii_lowercase).filter(|name| {
        (1..=64).contains(&name.len())
            && !name.starts_with('.')
            && name.ends_with(suffix)
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    });
    match name {
        Some(name) => Ok(format!("{folder}/{name}")),
        None => Err(FactoryError::Name {
            path: path.to_owned(),
        }),
    }
}
