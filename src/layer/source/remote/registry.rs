//! A repository of a registry: manifests and blobs, both ways.
//!
//! Sources: OCI distribution specification 1.1; the token protocol of
//! registries (RFC 6750 for the challenge).

use std::fs::File;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use super::error::RemoteError;
use super::web::{Ask, Method, Payload, Response, Web, target_of};
use crate::digest::Digest;
use crate::layer::source::oci::MAX_DOCUMENT;
use crate::layer::source::oci::reference::{Repository, is_loopback};

/// Every form of manifest that is understood.
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
                      application/vnd.oci.image.index.v1+json, \
                      application/vnd.docker.distribution.manifest.v2+json, \
                      application/vnd.docker.distribution.manifest.list.v2+json";
/// Longest answer of a token server.
const MAX_TOKEN: u64 = 256 << 10;
const OCTETS: &str = "application/octet-stream";

/// A repository, and what it wants to see from us.
#[derive(Debug)]
pub struct Registry<'a> {
    web: &'a Web,
    repository: Repository,
    login: Option<String>,
    /// The header that was good the last time.
    authorization: Mutex<Option<Secret>>,
}

/// Not for printing.
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A blob to bring.
#[derive(Debug)]
pub enum Upload<'a> {
    /// Bytes in memory.
    Bytes(&'a [u8]),
    /// A file, from its beginning.
    File(&'a File),
}

impl<'a> Registry<'a> {
    pub(super) fn new(web: &'a Web, repository: Repository, login: Option<String>) -> Self {
        Self {
            web,
            repository,
            login,
            authorization: Mutex::new(None),
        }
    }

    /// Which repository it is.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The manifest or index under a tag or digest, and its digest.
    ///
    /// # Errors
    ///
    /// [`RemoteError`]; [`RemoteError::WrongDigest`] when a digest was asked
    /// for and other bytes came.
    pub fn manifest(&self, selector: &str) -> Result<(Digest, Vec<u8>), RemoteError> {
        let separator = if selector.contains(':') { '@' } else { ':' };
        let what = format!("`{}{separator}{selector}`", self.repository);
        let url = format!("{}/manifests/{selector}", self.repository.base());
        let ask = Ask {
            accept: Some(ACCEPT),
            ..Ask::get(&url)
        };
        let response = self.ask(&ask, &what)?;
        let announced = response.header("docker-content-digest");
        let announced = announced.and_then(|text| Digest::parse(text.strip_prefix("sha256:")?));
        let bytes = response
            .bytes(MAX_DOCUMENT)
            .map_err(|error| self.answer(error.to_string()))?;
        let found = Digest::of(&bytes);
        let wanted = selector.strip_prefix("sha256:").and_then(Digest::parse);
        match wanted.or(announced) {
            Some(expected) if expected != found => Err(RemoteError::WrongDigest {
                what,
                expected,
                found,
            }),
            _ => Ok((found, bytes)),
        }
    }

    /// The bytes of a blob, unchecked.
    pub(super) fn blob(&self, digest: &Digest) -> Result<Response, RemoteError> {
        let url = format!("{}/blobs/{digest}", self.repository.base());
        self.ask(&Ask::get(&url), &format!("`{}@{digest}`", self.repository))
    }

    /// Whether the repository has a blob.
    ///
    /// # Errors
    ///
    /// [`RemoteError`].
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, RemoteError> {
        let url = format!("{}/blobs/{digest}", self.repository.base());
        self.is_there(&url)
    }

    /// Whether the repository has a manifest under a tag.
    ///
    /// # Errors
    ///
    /// [`RemoteError`].
    pub fn has_manifest(&self, tag: &str) -> Result<bool, RemoteError> {
        let url = format!("{}/manifests/{tag}", self.repository.base());
        self.is_there(&url)
    }

    fn is_there(&self, url: &str) -> Result<bool, RemoteError> {
        let ask = Ask {
            method: Method::Head,
            accept: Some(ACCEPT),
            ..Ask::get(url)
        };
        match self.ask(&ask, "it") {
            Ok(_) => Ok(true),
            Err(RemoteError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Brings a blob, if it is not there; says whether it had to.
    ///
    /// # Errors
    ///
    /// [`RemoteError`].
    pub fn push_blob(&self, digest: &Digest, blob: &Upload<'_>) -> Result<bool, RemoteError> {
        if self.has_blob(digest)? {
            return Ok(false);
        }
        let what = format!("an upload to `{}`", self.repository);
        let start = Ask {
            method: Method::Post,
            ..Ask::get(&format!("{}/blobs/uploads/", self.repository.base()))
        };
        let response = self.ask(&start, &what)?;
        let place = response
            .header("location")
            .and_then(|location| target_of(&start.url, location))
            .ok_or_else(|| self.answer("it names no place to upload to".into()))?;
        let separator = if place.contains('?') { '&' } else { '?' };
        let hex = digest.hex();
        let ask = Ask {
            method: Method::Put,
            url: format!("{place}{separator}digest=sha256%3A{hex}"),
            content_type: Some(OCTETS),
            payload: match blob {
                Upload::Bytes(bytes) => Payload::Bytes(bytes),
                Upload::File(file) => Payload::File(file),
            },
            ..start
        };
        self.ask(&ask, &what).map(|_| true)
    }

    /// Brings a manifest, under a tag or its digest.
    ///
    /// # Errors
    ///
    /// [`RemoteError`].
    pub fn push_manifest(
        &self,
        selector: &str,
        media_type: &'static str,
        bytes: &[u8],
    ) -> Result<(), RemoteError> {
        let ask = Ask {
            method: Method::Put,
            content_type: Some(media_type),
            payload: Payload::Bytes(bytes),
            ..Ask::get(&format!("{}/manifests/{selector}", self.repository.base()))
        };
        self.ask(&ask, &format!("`{}:{selector}`", self.repository))
            .map(|_| ())
    }

    /// Asks with what was good before, and once more with what the registry
    /// then wants to see.
    fn ask(&self, ask: &Ask<'_>, what: &str) -> Result<Response, RemoteError> {
        // A login goes to the registry itself, wherever it says to upload to.
        let base = self.repository.base();
        let is_own = |url: &str| url.split('/').take(3).eq(base.split('/').take(3));
        let mut ask = ask.clone();
        let mut was_challenged = false;
        loop {
            if is_own(&ask.url) {
                let known = self.authorization.lock();
                let known = known.unwrap_or_else(PoisonError::into_inner);
                ask.authorization = known.as_ref().map(|secret| secret.0.clone());
            }
            let response = self.web.send_any(&ask, what)?;
            match response.status {
                200..=299 => return Ok(response),
                401 if !was_challenged && is_own(&ask.url) => {
                    was_challenged = true;
                    let answer = self.authorize(&response, ask.method)?;
                    let known = self.authorization.lock();
                    *known.unwrap_or_else(PoisonError::into_inner) = Some(Secret(answer));
                }
                401 | 403 => return Err(self.refused(ask.method)),
                404 => return Err(RemoteError::NotFound { what: what.into() }),
                status => {
                    return Err(RemoteError::Refused {
                        what: what.into(),
                        status,
                        detail: response.detail(),
                    });
                }
            }
        }
    }

    fn refused(&self, method: Method) -> RemoteError {
        let verb = match method {
            Method::Get | Method::Head => "read",
            Method::Post | Method::Put => "write",
        };
        RemoteError::Login {
            registry: self.repository.registry.clone(),
            what: format!("{verb} `{}`", self.repository.name),
            has_login: self.login.is_some(),
        }
    }

    fn answer(&self, reason: String) -> RemoteError {
        RemoteError::Answer {
            registry: self.repository.registry.clone(),
            reason,
        }
    }

    /// The header that the registry's challenge asks for.
    fn authorize(&self, response: &Response, method: Method) -> Result<String, RemoteError> {
        let challenges = response.headers.get_all("www-authenticate");
        let challenges: Vec<Challenge> = challenges
            .iter()
            .filter_map(|value| Challenge::parse(value.to_str().ok()?))
            .collect();
        if let Some(bearer) = challenges.iter().find(|one| one.is("bearer")) {
            return self.token(bearer, method);
        }
        match (&self.login, challenges.iter().any(|one| one.is("basic"))) {
            (Some(login), true) => Ok(login.clone()),
            _ => Err(self.refused(method)),
        }
    }

    fn token(&self, challenge: &Challenge, method: Method) -> Result<String, RemoteError> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let realm = challenge.value("realm").unwrap_or_default();
        let host = realm.split('/').nth(2).unwrap_or_default();
        let is_safe = realm.starts_with("https://")
            || (realm.starts_with("http://") && is_loopback(host) && self.repository.is_loopback());
        if !is_safe {
            return Err(RemoteError::Realm {
                registry: self.repository.registry.clone(),
                realm: realm.to_owned(),
            });
        }
        let scope = match challenge.value("scope") {
            Some(scope) => scope.to_owned(),
            None => format!("repository:{}:pull,push", self.repository.name),
        };
        let separator = if realm.contains('?') { '&' } else { '?' };
        let mut url = format!("{realm}{separator}scope={}", encoded(&scope));
        if let Some(service) = challenge.value("service") {
            url.push_str("&service=");
            url.push_str(&encoded(service));
        }
        let ask = Ask {
            authorization: self.login.clone(),
            ..Ask::get(&url)
        };
        let response = self.web.send_any(&ask, "a token")?;
        if !matches!(response.status, 200..=299) {
            return Err(self.refused(method));
        }
        let bytes = response
            .bytes(MAX_TOKEN)
            .map_err(|error| self.answer(error.to_string()))?;
        let token: Option<Token> = serde_json::from_slice(&bytes).ok();
        let token = token.and_then(|token| token.token.or(token.access_token));
        let is_plain = |token: &String| token.bytes().all(|byte| byte.is_ascii_graphic());
        match token.filter(is_plain) {
            Some(token) => Ok(format!("Bearer {token}")),
            None => Err(self.answer("it gives no token".into())),
        }
    }
}

/// A `WWW-Authenticate` header.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    fields: Vec<(String, String)>,
}

impl Challenge {
    fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    fn value(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name))?;
        Some(&found.1)
    }

    /// `Bearer realm="…",service="…",scope="…"`.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let mut fields = Vec::new();
        loop {
            rest = rest.trim_start_matches([' ', ',']);
            if rest.is_empty() {
                break;
            }
            let (name, after) = rest.split_once('=')?;
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_at(after.find(',').unwrap_or(after.len())),
            };
            fields.push((name.trim().to_owned(), value.to_owned()));
            rest = after;
        }
        Some(Self {
            scheme: scheme.to_owned(),
            fields,
        })
    }
}

/// A value in a query: everything that is not plain becomes `%XX`.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a string takes all");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_with_and_without_quotes() {
        let challenge = Challenge::parse(
            "Bearer realm=\"https://auth.example/token\",service=\"reg, x\",scope=repository:a:pull",
        )
        .expect("a challenge");
        assert!(challenge.is("bearer"));
        assert_eq!(challenge.value("Realm"), Some("https://auth.example/token"));
        assert_eq!(challenge.value("service"), Some("reg, x"));
        assert_eq!(challenge.value("scope"), Some("repository:a:pull"));
        assert!(Challenge::parse("Basic").expect("no fields").is("basic"));
        assert_eq!(Challenge::parse("Bearer realm=\"x"), None);
        assert_eq!(Challenge::parse("Bearer realm"), None);
    }

    #[test]
    fn a_scope_is_fit_for_a_query() {
        assert_eq!(
            encoded("repository:a/b:pull,push x&y"),
            "repository:a/b:pull%2Cpush%20x%26y"
        );
    }
}
