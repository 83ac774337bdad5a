//! Getting one file from a repository: HTTP, HTTPS or the local disk.
//!
//! In: an [`Address`], a path below it and a limit. Out: the bytes, handed to
//! a [`Sink`] while they arrive. Connections are kept; what may pass by itself
//! (no connection, a broken one, a busy server) is tried again. Never here:
//! what the bytes mean.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ureq::http::{Response, Uri, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::{Connector as _, TcpConnector};
use ureq::{Agent, Body};

use super::address::Address;
use super::apt::AptSettings;
use super::error::SourceError;
use super::proxy::{ForwardConnector, ProxyResolver};

/// Whether the network may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// It may.
    Online,
    /// Only the cache and `file:` repositories.
    Offline,
}

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a server may be silent.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pauses before the second, third and fourth try.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_millis(750),
    Duration::from_millis(2250),
];
/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// Where Debian and its relatives keep the certificates that the host trusts.
const HOST_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Takes the bytes of a file; a broken transfer goes on where it ended, or
/// starts again from its first byte.
pub(super) trait Sink: Write {
    /// Forgets all bytes so far.
    fn restart(&mut self) -> io::Result<()>;

    /// How many bytes it has, where a broken transfer may go on behind them.
    fn kept(&self) -> u64 {
        0
    }
}

impl Sink for Vec<u8> {
    fn restart(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }
}

/// Why a file did not come.
#[derive(Debug)]
pub(super) enum GetError {
    /// It is not there.
    NotFound,
    /// It would have to come over the network.
    Offline,
    /// It is longer than the limit.
    TooLong,
    /// The sink failed.
    Sink(io::Error),
    /// Anything else, told already.
    Failed(SourceError),
}

/// Fetches files; keeps connections open between them. To be shared.
#[derive(Debug)]
pub struct Client {
    network: Network,
    settings: AptSettings,
    /// How long a server may be silent.
    silence: Duration,
    /// By scheme and proxy.
    agents: Mutex<BTreeMap<(String, Option<Address>), Agent>>,
}

impl Client {
    /// A client with the host's proxies and certificates.
    #[must_use]
    pub fn new(settings: AptSettings, network: Network) -> Self {
        Self {
            network,
            settings,
            silence: SILENCE_TIMEOUT,
            agents: Mutex::default(),
        }
    }

    /// The same with another time that a server may be silent.
    #[must_use]
    pub fn with_patience(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }

    /// Whether the network may be used.
    #[must_use]
    pub fn network(&self) -> Network {
        self.network
    }

    /// apt's settings, as the client was given them.
    #[must_use]
    pub fn settings(&self) -> &AptSettings {
        &self.settings
    }

    /// Gives the file `path` below `address` to `sink`: at most `limit` bytes.
    pub(super) fn get(
        &self,
        address: &Address,
        path: &str,
        limit: u64,
        sink: &mut dyn Sink,
    ) -> Result<u64, GetError> {
        if let Some(file) = address.local_path(path) {
            return match File::open(&file) {
                Ok(mut open) => copy(&mut open, limit, sink, |source| unreadable(&file, source)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(GetError::NotFound),
                Err(source) => Err(unreadable(&file, source)),
            };
        }
        if self.network == Network::Offline {
            return Err(GetError::Offline);
        }
        let mut pauses = PAUSES.iter();
        sink.restart().map_err(GetError::Sink)?;
        loop {
            match (self.attempt(address, path, limit, sink), pauses.next()) {
                (Err(GetError::Failed(error)), Some(pause)) if may_pass(&error) => {
                    std::thread::sleep(*pause);
                }
                (outcome, _) => return outcome,
            }
        }
    }

    fn attempt(
        &self,
        address: &Address,
        path: &str,
        limit: u64,
        sink: &mut dyn Sink,
    ) -> Result<u64, GetError> {
        let host = address.host().to_owned();
        let broken = |reason: String| {
            GetError::Failed(SourceError::Unreachable {
                host: host.clone(),
                reason,
            })
        };
        let kept = sink.kept();
        let response = self.request(address, path, kept)?;
        let goes_on = response.status().as_u16() == 206 && begins_at(&response, kept);
        if !goes_on {
            sink.restart().map_err(GetError::Sink)?;
        }
        let before = if goes_on { kept } else { 0 };
        match response.status().as_u16() {
            200 => {}
            206 if goes_on => {}
            // It has another idea of the file: from the beginning next time.
            206 | 416 => return Err(broken("it does not go on where it ended".into())),
            404 | 410 => return Err(GetError::NotFound),
            status => {
                return Err(GetError::Failed(SourceError::Refused {
                    url: format!("{address}/{path}"),
                    status,
                }));
            }
        }
        let announced = response.body().content_length();
        if announced.is_some_and(|length| length.saturating_add(before) > limit) {
            return Err(GetError::TooLong);
        }
        let mut body = response.into_body().into_reader();
        let count = copy(&mut body, limit - before, sink, |error| {
            broken(in_words(&ureq::Error::from(error)))
        })?;
        match announced {
            Some(length) if length != count => Err(broken(
                "the connection ended in the middle of a file".into(),
            )),
            _ => Ok(before + count),
        }
    }

    /// Follows redirects, but never from `https` to something weaker.
    fn request(
        &self,
        address: &Address,
        path: &str,
        from: u64,
    ) -> Result<Response<Body>, GetError> {
        let unreachable = |address: &Address, reason: String| {
            let proxies = &self.settings.proxies;
            let reason = match proxies.choose(address.scheme(), address.host()) {
                Some(proxy) => format!("through the proxy `{}`: {reason}", proxy.host()),
                None => reason,
            };
            GetError::Failed(SourceError::Unreachable {
                host: address.host().to_owned(),
                reason,
            })
        };
        let mut url = address.url(path);
        let mut current = address.clone();
        for _ in 0..=REDIRECTS {
            let (agent, authorization) = self.agent(&current)?;
            let mut request = agent.get(&url);
            if let Some(value) = authorization {
                request = request.header(header::PROXY_AUTHORIZATION, value);
            }
            if from > 0 {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            let response = request
                .call()
                .map_err(|error| unreachable(&current, in_words(&error)))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let target = response
                .headers()
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok())
                .and_then(|location| redirect(&current, &url, location));
            let Some((next, address)) = target else {
                let reason = "it redirects to somewhere that is not allowed";
                return Err(unreachable(&current, reason.into()));
            };
            (url, current) = (next, address);
        }
        Err(unreachable(&current, "it redirects in circles".into()))
    }

    /// The same agents for others that speak HTTP: with the header that a
    /// proxy wants to see.
    pub(crate) fn agent_for(
        &self,
        address: &Address,
    ) -> Result<(Agent, Option<String>), SourceError> {
        self.agent(address).map_err(|error| match error {
            GetError::Failed(error) => error,
            _ => SourceError::BadProxy {
                setting: "proxy".into(),
            },
        })
    }

    /// The agent for an address, and what the proxy wants to see.
    fn agent(&self, address: &Address) -> Result<(Agent, Option<String>), GetError> {
        let proxy = self
            .settings
            .proxies
            .choose(address.scheme(), address.host())
            .cloned();
        let forwards =
            address.scheme() == "http" && proxy.as_ref().is_some_and(|p| p.scheme() == "http");
        let authorization = proxy
            .as_ref()
            .filter(|_| forwards)
            .and_then(Address::basic_authorization);
        let key = (address.scheme().to_owned(), proxy);
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&key) {
            return Ok((agent.clone(), authorization));
        }
        let agent = self
            .new_agent(&key.0, key.1.as_ref(), forwards)
            .map_err(GetError::Failed)?;
        agents.insert(key, agent.clone());
        Ok((agent, authorization))
    }

    fn new_agent(
        &self,
        scheme: &str,
        proxy: Option<&Address>,
        forwards: bool,
    ) -> Result<Agent, SourceError> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(self.silence))
            .timeout_per_read(Some(self.silence))
            .max_idle_connections_per_host(super::fetch::CONNECTIONS)
            .user_agent(concat!("consign/", env!("CARGO_PKG_VERSION")))
            .proxy(None);
        if scheme == "https" {
            config = config.tls_config(
                TlsConfig::builder()
                    .root_certs(self.certificates()?)
                    .build(),
            );
        }
        let bad_proxy = || SourceError::BadProxy {
            setting: format!("{scheme} proxy"),
        };
        let Some(proxy) = proxy else {
            return Ok(config.build().new_agent());
        };
        let url = proxy.url("");
        if !forwards {
            let proxy = ureq::Proxy::new(&url).map_err(|_| bad_proxy())?;
            return Ok(config.proxy(Some(proxy)).build().new_agent());
        }
        let proxy: Uri = url.parse().map_err(|_| bad_proxy())?;
        let connector = ().chain(TcpConnector::default()).chain(ForwardConnector);
        Ok(Agent::with_parts(
            config.build(),
            connector,
            ProxyResolver { proxy },
        ))
    }

    /// What the host trusts, so that a mirror with a company's own certificate
    /// works as it does with apt; else Mozilla's list as it was compiled in.
    fn certificates(&self) -> Result<RootCerts, SourceError> {
        let mut certificates = Vec::new();
        let host = Some(HOST_CERTIFICATES.into());
        for path in [host, self.settings.ca_file.clone()].into_iter().flatten() {
            let is_named = Some(&path) == self.settings.ca_file.as_ref();
            match std::fs::read(&path) {
                Ok(pem) => certificates.extend(parse_pem(&pem).filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })),
                Err(source) if is_named => return Err(SourceError::ReadHost { path, source }),
                Err(_) => {}
            }
        }
        if certificates.is_empty() {
            Ok(RootCerts::WebPki)
        } else {
            Ok(RootCerts::new_with_certs(&certificates))
        }
    }
}

/// Whether an answer to a part of a file begins where it should.
fn begins_at(response: &Response<Body>, from: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE);
    let range = range.and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}

/// Copies to the end, or until `limit` is passed.
fn copy(
    from: &mut impl Read,
    limit: u64,
    sink: &mut dyn Sink,
    read_error: impl Fn(io::Error) -> GetError,
) -> Result<u64, GetError> {
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0_u64;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read_error(error)),
        };
        total += count as u64;
        if total > limit {
            return Err(GetError::TooLong);
        }
        let bytes = buffer
            .get(..count)
            .expect("a reader fills at most the buffer");
        sink.write_all(bytes).map_err(GetError::Sink)?;
    }
}

fn unreadable(path: &Path, source: io::Error) -> GetError {
    GetError::Failed(SourceError::ReadHost {
        path: path.to_owned(),
        source,
    })
}

/// Whether another try may do better.
fn may_pass(error: &SourceError) -> bool {
    match error {
        SourceError::Unreachable { .. } => true,
        SourceError::Refused { status, .. } => matches!(status, 408 | 429 | 500..=599),
        _ => false,
    }
}

/// Where a redirect leads: the address to ask, and its host for messages.
fn redirect(from: &Address, url: &str, location: &str) -> Option<(String, Address)> {
    let next = if location.starts_with('/') && !location.starts_with("//") {
        let end = url.find("://").map_or(0, |at| at + 3);
        let path = url.get(end..)?.find('/').map_or(url.len(), |at| end + at);
        format!("{}{location}", url.get(..path)?)
    } else {
        location.to_owned()
    };
    let address = Address::parse(&next)?;
    let weaker = from.scheme() == "https" && address.scheme() != "https";
    (!weaker && address.scheme() != "file").then_some((next, address))
}

/// ureq's error without addresses, which may hold credentials.
fn in_words(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "its name is not known".into(),
        ureq::Error::Timeout(_) => "it does not answer in time".into(),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => "the address is not valid".into(),
        ureq::Error::Io(error) => in_short(&error.to_string()),
        other => in_short(&other.to_string()),
    }
}

/// What a certificate is refused for and why a name is not known, in words
/// that say so.
fn in_short(text: &str) -> String {
    if let Some((_, reason)) = text.split_once("peer certificate: ") {
        return format!("its certificate is not trusted ({reason})");
    }
    match text.strip_prefix("failed to lookup address information: ") {
        Some(reason) => format!("its name cannot be looked up ({reason})"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).expect("an address")
    }

    #[test]
    fn redirects_never_weaken() {
        let from = address("https://a.example/debian");
        let url = "https://u:p@a.example/debian/dists/x";
        let to = |location| redirect(&from, url, location).map(|(next, _)| next);
        assert_eq!(to("/other"), Some("https://u:p@a.example/other".into()));
        assert_eq!(
            to("https://b.example/x"),
            Some("https://b.example/x".into())
        );
        for location in [
            "http://b.example/x",
            "file:///etc/shadow",
            "//b.example/x",
            "x",
        ] {
            assert_eq!(to(location), None, "{location}");
        }
    }

    #[test]
    fn a_dead_mirror_is_named_without_its_password() {
        let client = Client::new(AptSettings::default(), Network::Online);
        // Port 1 of this machine: nobody listens there.
        let address = address("http://bob:s3cr3t@127.0.0.1:1/debian");
        let error = match client.get(&address, "dists/x/InRelease", 10, &mut Vec::new()) {
            Err(GetError::Failed(error)) => error,
            other => panic!("{other:?}"),
        };
        assert!(
            error
                .to_string()
                .starts_with("cannot reach `127.0.0.1:1`: "),
            "{error}"
        );
        assert!(!format!("{error:?}").contains("s3cr3t"));
        let hint = error.hint().expect("a hint");
        assert!(
            hint.contains("CONSIGN_MIRROR") && hint.contains("proxy"),
            "{hint}"
        );
    }

    #[test]
    fn offline_asks_nobody() {
        let client = Client::new(AptSettings::default(), Network::Offline);
        let outcome = client.get(&address("http://127.0.0.1:1"), "x", 10, &mut Vec::new());
        assert!(matches!(outcome, Err(GetError::Offline)), "{outcome:?}");
    }

    #[test]
    fn local_repositories_are_bounded_too() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("x"), b"12345").expect("write");
        let client = Client::new(AptSettings::default(), Network::Offline);
        let address = address(&format!("file:{}", folder.path().display()));
        let mut bytes = Vec::new();
        let outcome = client.get(&address, "x", 5, &mut bytes);
        assert!(matches!(outcome, Ok(5)), "{outcome:?}");
        assert_eq!(bytes, b"12345");
        let outcome = client.get(&address, "x", 4, &mut Vec::new());
        assert!(matches!(outcome, Err(GetError::TooLong)), "{outcome:?}");
        let outcome = client.get(&address, "y", 4, &mut Vec::new());
        assert!(matches!(outcome, Err(GetError::NotFound)), "{outcome:?}");
    }
}
