//! `[proxy]`: how programs of the machine reach the web.

use std::fmt;

use crate::address::{Endpoint, all, parse_network, parsed};
use crate::document::Section;
use crate::name::{HostName, text_type};
use crate::report::{Finding, Report};

/// Exceptions at most.
const MAX_EXCEPTIONS: usize = 64;

/// `[proxy]`; without an address there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxy {
    /// For `http:` addresses.
    pub http: Option<ProxyAddress>,
    /// For `https:` addresses.
    pub https: Option<ProxyAddress>,
    /// What is reached without it: names, domains with a dot before them,
    /// addresses, networks.
    pub no_proxy: Vec<String>,
}

/// Where a proxy is, such as `http://proxy.example.org:3128`: no user, no
/// password, no path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyAddress(String);
text_type!(ProxyAddress);

impl ProxyAddress {
    fn parse(text: &str) -> Result<Self, Finding> {
        let example = "write it as \"http://proxy.example.org:3128\"";
        let refuse = |message: &str, remedy: &str| {
            Err(Finding::invalid(message)
                .allowed("http:// or https://, a name or an address, and a port")
                .remedy(remedy))
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            return refuse("the proxy has no http:// before it", example);
        };
        if !matches!(scheme, "http" | "https") {
            return refuse("a proxy is reached by http or https", example);
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return refuse(
                "a user or a password stands in the proxy's address",
                "leave them out; every program of the machine can read this",
            );
        }
        if rest.contains(['/', '?', '#']) {
            return refuse(
                "a path stands in the proxy's address, and proxies have none",
                "end the address after the port",
            );
        }
        let (host, port) = split_port(rest);
        let Ok(host) = Endpoint::parse(host) else {
            return refuse("the proxy's host is neither a name nor an address", example);
        };
        let is_port = |port: &str| {
            port.bytes().all(|byte| byte.is_ascii_digit())
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        };
        let host = if host.as_str().contains(':') {
            format!("[{host}]")
        } else {
            host.to_string()
        };
        match port {
            None => Ok(Self(format!("{scheme}://{host}"))),
            Some(port) if is_port(port) => Ok(Self(format!("{scheme}://{host}:{port}"))),
            Some(_) => refuse("the proxy's port is not a number from 1 to 65535", example),
        }
    }
}

/// Host and port of `host:port`, `[v6]:port`, or a host alone.
fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some(inner) = text.strip_prefix('[') {
        return match inner.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, after)) => (host, Some(after.strip_prefix(':').unwrap_or("x"))),
            None => (text, None),
        };
    }
    match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    }
}

fn parse_exception(text: &str) -> Result<String, Finding> {
    let name = text.strip_prefix('.').unwrap_or(text);
    if HostName::parse(name).is_ok()
        || text.parse::<std::net::IpAddr>().is_ok()
        || parse_network(text).is_ok()
    {
        return Ok(text.to_owned());
    }
    Err(Finding::invalid("this is neither a name nor an address")
        .allowed("a name, a domain with a dot before it, an address or a network")
        .remedy("write for example \".example.org\" or \"10.0.0.0/8\""))
}

/// Reads `[proxy]`.
pub(crate) fn read_proxy(root: &mut Section<'_>, report: &mut Report<'_>) -> Proxy {
    let Some(mut section) = root.table("proxy", report) else {
        return Proxy::default();
    };
    let mut address = |key| {
        let text = section.get(key)?.text(report)?;
        parsed(text, ProxyAddress::parse, report).map(|found| found.value)
    };
    let (http, https) = (address("http"), address("https"));
    let exceptions = all(
        &mut section,
        "no_proxy",
        MAX_EXCEPTIONS,
        parse_exception,
        report,
    );
    section.finish(report);
    Proxy {
        http,
        https,
        no_proxy: exceptions.into_iter().map(|found| found.value).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_addresses_without_secrets() {
        for (text, kept) in [
            ("http://proxy:3128/", "http://proxy:3128"),
            ("https://10.1.2.3", "https://10.1.2.3"),
            ("http://[fd00::1]:8080", "http://[fd00::1]:8080"),
        ] {
            let address = ProxyAddress::parse(text).ok();
            assert_eq!(address.as_ref().map(ProxyAddress::as_str), Some(kept));
        }
        for bad in [
            "",
            "proxy:3128",
            "socks5://proxy",
            "http://",
            "http://me:pw@proxy",
            "http://proxy:0",
            "http://proxy:x",
            "http://proxy/path",
            "http://[fd00::1",
        ] {
            assert!(ProxyAddress::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn exceptions_are_names_and_networks() {
        for good in ["localhost", ".example.org", "10.0.0.0/8", "::1", "fd00::/8"] {
            assert!(parse_exception(good).is_ok(), "{good}");
        }
        for bad in ["", "*", "10.0.0.0/40", "a b"] {
            assert!(parse_exception(bad).is_err(), "{bad}");
        }
    }
}
