//! One request over HTTP: redirects, tries, and who may see a login.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use ureq::Body;
use ureq::http::{self, HeaderMap, header};

use super::error::RemoteError;
use crate::layer::source::deb::{Address, AptSettings, Client, Network, SourceError};
use crate::layer::source::oci::reference::is_loopback;

/// Pauses before the second and third try.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(1)];
/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// How much of an error's body is told.
const DETAIL: u64 = 512;

/// The network, by way of the host's proxies; not for this machine itself.
#[derive(Debug)]
pub(super) struct Web {
    proxied: Client,
    direct: Client,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Put,
}

/// What goes with a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Payload<'a> {
    Nothing,
    Bytes(&'a [u8]),
    File(&'a File),
}

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) accept: Option<&'static str>,
    pub(super) content_type: Option<&'static str>,
    /// For the first host only: whoever it redirects to does not get it.
    pub(super) authorization: Option<String>,
    pub(super) payload: Payload<'a>,
}

impl Ask<'_> {
    pub(super) fn get(url: &str) -> Self {
        Self {
            method: Method::Get,
            url: url.to_owned(),
            accept: None,
            content_type: None,
            authorization: None,
            payload: Payload::Nothing,
        }
    }
}

/// An answer whose body has not been read yet.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) length: Option<u64>,
    pub(super) host: String,
    pub(super) body: Box<dyn Read>,
}

impl Response {
    /// The whole body, when it has at most `limit` bytes.
    pub(super) fn bytes(mut self, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.body
            .by_ref()
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::other(format!("it is longer than {limit} bytes")));
        }
        Ok(bytes)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What the server says about its refusal, cut.
    pub(super) fn detail(mut self) -> String {
        let mut bytes = Vec::new();
        // A refusal without words is a refusal as well.
        drop(self.body.by_ref().take(DETAIL).read_to_end(&mut bytes));
        let text = String::from_utf8_lossy(&bytes);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// `url` without what must not be shown: credentials and a query.
pub(super) fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match Address::parse(url) {
        Some(address) => address.to_string(),
        None => url.split('@').next_back().unwrap_or_default().to_owned(),
    }
}

impl Web {
    pub(super) fn new(proxied: Client) -> Self {
        let network = proxied.network();
        Self {
            proxied,
            direct: Client::new(AptSettings::default(), network),
        }
    }

    /// Asks; an answer that is not a success is an error, `what` names what
    /// was wanted.
    pub(super) fn send(&self, ask: &Ask<'_>, what: &str) -> Result<Response, RemoteError> {
        let response = self.send_any(ask, what)?;
        match response.status {
            200..=299 => Ok(response),
            404 | 410 => Err(RemoteError::NotFound { what: what.into() }),
            status => Err(RemoteError::Refused {
                what: what.into(),
                status,
                detail: response.detail(),
            }),
        }
    }

    /// Asks, again where that may help, and gives whatever the answer is.
    pub(super) fn send_any(&self, ask: &Ask<'_>, what: &str) -> Result<Response, RemoteError> {
        if self.proxied.network() == Network::Offline {
            return Err(RemoteError::Offline { what: what.into() });
        }
        let may_repeat = matches!(ask.method, Method::Get | Method::Head);
        let mut pauses = PAUSES.iter().filter(|_| may_repeat);
        loop {
            let outcome = self.follow(ask);
            let is_passing = match &outcome {
                Ok(response) => matches!(response.status, 408 | 429 | 500..=599),
                Err(RemoteError::Unreachable { .. }) => true,
                Err(_) => false,
            };
            match pauses.next() {
                Some(pause) if is_passing => std::thread::sleep(*pause),
                _ => return outcome,
            }
        }
    }

    fn follow(&self, ask: &Ask<'_>) -> Result<Response, RemoteError> {
        let mut ask = ask.clone();
        for _ in 0..=REDIRECTS {
            let response = self.once(&ask)?;
            let may_follow = matches!(ask.method, Method::Get | Method::Head);
            if !matches!(response.status, 301 | 302 | 303 | 307 | 308) || !may_follow {
                return Ok(response);
            }
            let target = response
                .header(header::LOCATION.as_str())
                .and_then(|location| target_of(&ask.url, location));
            let refused = || RemoteError::Unreachable {
                host: response.host.clone(),
                reason: "it redirects to somewhere that is not allowed".into(),
            };
            let target = target.ok_or_else(refused)?;
            if authority(&target) != authority(&ask.url) {
                ask.authorization = None;
            }
            ask.url = target;
        }
        Err(RemoteError::Unreachable {
            host: authority(&ask.url).to_owned(),
            reason: "it redirects in circles".into(),
        })
    }

    fn once(&self, ask: &Ask<'_>) -> Result<Response, RemoteError> {
        let bad = || RemoteError::Address {
            url: shown(&ask.url),
        };
        let address = Address::parse(&ask.url).ok_or_else(bad)?;
        if address.scheme() == "file" {
            return Err(bad());
        }
        let host = address.host().to_owned();
        let client = if is_loopback(&host) {
            &self.direct
        } else {
            &self.proxied
        };
        let (agent, proxy) = client.agent_for(&address).map_err(|error| match error {
            SourceError::Unreachable { host, reason } => RemoteError::Unreachable { host, reason },
            other => RemoteError::Settings(other),
        })?;
        let own = own_authorization(&address);
        let mut headers = vec![(header::PROXY_AUTHORIZATION, proxy)];
        headers.push((header::AUTHORIZATION, ask.authorization.clone().or(own)));
        headers.push((header::ACCEPT, ask.accept.map(str::to_owned)));
        headers.push((header::CONTENT_TYPE, ask.content_type.map(str::to_owned)));
        let url = without_credentials(&ask.url);
        let sent = match ask.method {
            Method::Get => with(agent.get(&url), headers).call(),
            Method::Head => with(agent.head(&url), headers).call(),
            Method::Post => send(with(agent.post(&url), headers), ask.payload),
            Method::Put => send(with(agent.put(&url), headers), ask.payload),
        };
        let response = sent.map_err(|error| RemoteError::Unreachable {
            host: host.clone(),
            reason: in_words(&error),
        })?;
        let (parts, body) = response.into_parts();
        Ok(Response {
            status: parts.status.as_u16(),
            headers: parts.headers,
            length: body.content_length(),
            host,
            body: Box::new(body.into_reader()),
        })
    }
}

fn with<B>(
    mut request: ureq::RequestBuilder<B>,
    headers: Vec<(header::HeaderName, Option<String>)>,
) -> ureq::RequestBuilder<B> {
    for (name, value) in headers {
        if let Some(value) = value {
            request = request.header(name, value);
        }
    }
    request
}

fn send(
    request: ureq::RequestBuilder<ureq::typestate::WithBody>,
    payload: Payload<'_>,
) -> Result<http::Response<Body>, ureq::Error> {
    match payload {
        Payload::Nothing => request.send_empty(),
        Payload::Bytes(bytes) => request.send(bytes),
        Payload::File(file) => request.send(file),
    }
}

/// Credentials that stand in the address itself.
fn own_authorization(address: &Address) -> Option<String> {
    address.basic_authorization()
}

fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// Scheme, host and port of an address.
fn authority(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let rest = url.get(start..).unwrap_or_default();
    let end = rest
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| start + at);
    url.get(..end).unwrap_or_default()
}

/// Where a redirect leads; never from `https` to something weaker.
pub(super) fn target_of(from: &str, location: &str) -> Option<String> {
    let target = if location.starts_with('/') && !location.starts_with("//") {
        format!("{}{location}", authority(from))
    } else {
        location.to_owned()
    };
    let is_weaker = from.starts_with("https://") && !target.starts_with("https://");
    let address = Address::parse(&target)?;
    (!is_weaker && address.scheme() != "file").then_some(target)
}

/// ureq's error without addresses, which may hold credentials.
fn in_words(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "the name is not known".into(),
        ureq::Error::Timeout(_) => "it does not answer in time".into(),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => "the address is not valid".into(),
        ureq::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_never_weaken_and_stay_on_the_web() {
        let from = "https://a.example/v2/x/blobs/y";
        assert_eq!(
            target_of(from, "/other?x=1").as_deref(),
            Some("https://a.example/other?x=1")
        );
        assert_eq!(
            target_of(from, "https://b.example/y").as_deref(),
            Some("https://b.example/y")
        );
        for location in [
            "http://b.example/y",
            "file:///etc/shadow",
            "//b.example",
            "y",
        ] {
            assert_eq!(target_of(from, location), None, "{location}");
        }
    }

    #[test]
    fn what_is_shown_has_no_secrets() {
        assert_eq!(
            shown("https://bob:s3cr3t@a.example/x.tar?token=abc"),
            "https://a.example/x.tar"
        );
        assert_eq!(
            without_credentials("https://bob:s3cr3t@a.example/x?y=1"),
            "https://a.example/x?y=1"
        );
        assert_eq!(authority("https://a.example:1/x"), "https://a.example:1");
        assert_eq!(authority("https://a.example?x"), "https://a.example");
    }
}
