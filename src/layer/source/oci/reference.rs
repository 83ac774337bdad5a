//! Names of images in registries: `REGISTRY/NAME[:TAG][@sha256:…]`.
//!
//! Source: OCI distribution specification 1.1, "Pulling manifests" (names and
//! tags), and the habits of docker for what has no registry in front.

use std::fmt;

use crate::digest::Digest;

/// Docker's own registry, which answers under another name.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// A repository of a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Repository {
    /// Host, and port when one is named.
    pub registry: String,
    /// The name below it: `library/debian`.
    pub name: String,
}

/// An image in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where it is.
    pub repository: Repository,
    /// Its tag, where one is named.
    pub tag: Option<String>,
    /// Its digest, where one is named: it counts, the tag does not then.
    pub digest: Option<Digest>,
}

impl Repository {
    /// Parses `REGISTRY/NAME`.
    ///
    /// # Errors
    ///
    /// One clause about what is wrong.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (registry, name) = text
            .split_once('/')
            .ok_or("a registry comes first: `registry.example.com/NAME`")?;
        let is_host = registry.contains(['.', ':']) || registry == "localhost";
        if !is_host || !registry.chars().all(in_host) {
            return Err("a registry comes first: `registry.example.com/NAME`");
        }
        let is_name = |part: &str| {
            let mut ends = part.chars().next().into_iter().chain(part.chars().last());
            !part.is_empty() && part.chars().all(in_name) && ends.all(|c| c.is_ascii_alphanumeric())
        };
        if name.len() > 255 || !name.split('/').all(is_name) {
            return Err("the name is made of lower-case letters, digits, `.`, `_`, `-` and `/`");
        }
        Ok(Self {
            registry: registry.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Whether the registry is this machine itself.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.registry)
    }

    /// The address to ask: `http` for this machine itself, `https` elsewhere.
    pub(crate) fn base(&self) -> String {
        let scheme = if self.is_loopback() { "http" } else { "https" };
        let host = if self.registry == DOCKER_HUB.0 {
            DOCKER_HUB.1
        } else {
            &self.registry
        };
        format!("{scheme}://{host}/v2/{}", self.name)
    }
}

/// Whether `host`, with or without a port, is this machine itself.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let address = name.parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn in_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']')
}

fn in_name(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-')
}

impl Reference {
    /// Parses `REGISTRY/NAME[:TAG][@sha256:…]`.
    ///
    /// # Errors
    ///
    /// One clause about what is wrong.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let hex = digest.strip_prefix("sha256:");
                let digest = hex.and_then(Digest::parse);
                (
                    rest,
                    Some(digest.ok_or("a digest is `sha256:` and 64 hex digits")?),
                )
            }
            None => (text, None),
        };
        // A port stands before the first slash, a tag after the last.
        let end = rest.rfind('/').unwrap_or(0);
        let tag_at = rest.get(end..).and_then(|last| last.find(':'));
        let (name, tag) = match tag_at {
            Some(at) => {
                let (name, tag) = rest.split_at(end + at);
                (name, tag.strip_prefix(':'))
            }
            None => (rest, None),
        };
        let is_tag = |tag: &str| {
            let is_first = |c: char| c.is_ascii_alphanumeric() || c == '_';
            tag.len() <= 128
                && tag.chars().next().is_some_and(is_first)
                && tag.chars().all(|c| is_first(c) || matches!(c, '.' | '-'))
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err("a tag is made of letters, digits, `_`, `.` and `-`");
        }
        if tag.is_none() && digest.is_none() {
            return Err("it names neither a tag nor a digest");
        }
        Ok(Self {
            repository: Repository::parse(name)?,
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// What a registry is asked for.
    pub(crate) fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_come_back_as_they_were_written() {
        for text in [
            "registry.example.com/team/app:1.0",
            "localhost:5000/app:latest",
            "127.0.0.1:41234/a/b-c/d_e:v1",
            "[::1]:5000/app:x",
            &format!("docker.io/library/debian@sha256:{HEX}"),
            &format!("registry.example.com/app:1@sha256:{HEX}"),
        ] {
            let reference = Reference::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_reference_is_told_why() {
        for (text, part) in [
            ("debian:12", "registry"),
            ("library/debian:12", "registry"),
            ("registry.example.com/App:1", "lower-case"),
            ("registry.example.com/../x:1", "lower-case"),
            ("registry.example.com/app", "neither"),
            ("registry.example.com/app:", "tag"),
            ("registry.example.com/app@sha256:00", "64 hex"),
            ("registry.example.com/app@md5:00", "64 hex"),
            ("user@registry.example.com/app:1", "64 hex"),
            ("exa mple.com/app:1", "registry"),
        ] {
            let why = Reference::parse(text).expect_err(text);
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    #[test]
    fn only_this_machine_is_asked_in_clear() {
        let base = |text: &str| Repository::parse(text).expect("a name").base();
        assert_eq!(base("localhost:5000/a"), "http://localhost:5000/v2/a");
        assert_eq!(base("127.0.0.9:1/a"), "http://127.0.0.9:1/v2/a");
        assert_eq!(base("[::1]:5000/a"), "http://[::1]:5000/v2/a");
        assert_eq!(
            base("localhost.example.com/a"),
            "https://localhost.example.com/v2/a"
        );
        assert_eq!(base("10.0.0.1:5000/a"), "https://10.0.0.1:5000/v2/a");
        assert_eq!(
            base("docker.io/library/a"),
            "https://registry-1.docker.io/v2/library/a"
        );
    }
}
