//! Which proxy a request takes, and plain HTTP through one.
//!
//! ureq tunnels everything through a proxy with CONNECT. Proxies of the kind
//! that apt is used with (apt-cacher-ng, squid) refuse that for port 80: they
//! want the absolute form of the request target (RFC 9112, section 3.2.2).
//! [`ForwardConnector`] adds it to requests on their way out.

use std::collections::BTreeMap;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

use super::address::Address;

/// The host's proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http`.
    pub http: Option<ProxyRule>,
    /// For `https`.
    pub https: Option<ProxyRule>,
    /// For a scheme and a host, lower-case, without the port.
    pub hosts: BTreeMap<(String, String), ProxyRule>,
    /// Domains that are reached directly, lower-case, without a leading dot.
    pub exempt: Vec<String>,
}

/// One proxy setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyRule {
    /// No proxy.
    Direct,
    /// This one.
    Via(Address),
}

impl Proxies {
    /// The proxy for a request to `host` (a port is ignored); `None`: directly.
    #[must_use]
    pub fn choose(&self, scheme: &str, host: &str) -> Option<&Address> {
        let name = host_name(host).to_ascii_lowercase();
        let by_host = self.hosts.get(&(scheme.to_owned(), name.clone()));
        if by_host.is_none() && self.exempt.iter().any(|domain| is_below(&name, domain)) {
            return None;
        }
        let general = if scheme == "https" {
            &self.https
        } else {
            &self.http
        };
        match by_host.or(general.as_ref()) {
            Some(ProxyRule::Via(address)) => Some(address),
            Some(ProxyRule::Direct) | None => None,
        }
    }
}

fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The host without a port; an IPv6 address keeps its brackets.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Resolves every name to the proxy.
#[derive(Debug)]
pub(super) struct ProxyResolver {
    /// The proxy.
    pub(super) proxy: Uri,
}

impl Resolver for ProxyResolver {
    fn resolve(
        &self,
        _uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        DefaultResolver::default().resolve(&self.proxy, config, timeout)
    }
}

/// Puts `http://HOST` in front of the path of each request.
#[derive(Debug)]
pub(super) struct ForwardConnector;

impl<In: Transport> Connector<In> for ForwardConnector {
    type Out = ForwardTransport<In>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let host = details.uri.authority().map_or("", |authority| {
            let text = authority.as_str();
            text.rsplit_once('@').map_or(text, |(_, host)| host)
        });
        let prefix = format!("http://{host}").into_bytes();
        Ok(chained.map(|inner| ForwardTransport { inner, prefix }))
    }
}

/// A connection to a proxy.
#[derive(Debug)]
pub(super) struct ForwardTransport<In> {
    inner: In,
    prefix: Vec<u8>,
}

impl<In: Transport> Transport for ForwardTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    /// Requests without a body are sent in one piece, so every piece begins
    /// with a request line. What does not is passed on as it is.
    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        const METHOD: &[u8] = b"GET ";
        let output = self.inner.buffers().output();
        let longer = amount + self.prefix.len();
        let is_request = output.starts_with(METHOD) && output.get(METHOD.len()) == Some(&b'/');
        if !is_request || amount > output.len() || longer > output.len() {
            return self.inner.transmit_output(amount, timeout);
        }
        output.copy_within(METHOD.len()..amount, METHOD.len() + self.prefix.len());
        if let Some(gap) = output.get_mut(METHOD.len()..METHOD.len() + self.prefix.len()) {
            gap.copy_from_slice(&self.prefix);
        }
        self.inner.transmit_output(longer, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}
