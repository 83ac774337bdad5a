//! Logins for registries, as docker keeps them.
//!
//! Source: docker's `config.json`: `auths` by registry, each with `auth`
//! (Base64 of `USER:PASSWORD`) or `username` and `password`.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Logins by registry. Never printed.
#[derive(Clone, Default)]
pub struct Logins(BTreeMap<String, String>);

#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    auths: BTreeMap<String, WrittenLogin>,
}

#[derive(Deserialize)]
struct WrittenLogin {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl Logins {
    /// Reads the text of a `config.json`; `None` when it is not one. Entries
    /// that hold no password (a helper has it) are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let written: Written = serde_json::from_str(text).ok()?;
        let logins = written.auths.into_iter().filter_map(|(registry, login)| {
            let plain = match (login.auth, login.username, login.password) {
                (Some(auth), _, _) if !auth.is_empty() => {
                    let plain = STANDARD.decode(auth.trim()).ok()?;
                    // Some tools end the password with a NUL.
                    let plain = String::from_utf8(plain).ok()?;
                    plain.trim_end_matches('\0').to_owned()
                }
                (_, Some(user), Some(password)) => format!("{user}:{password}"),
                _ => return None,
            };
            let has_password = plain
                .split_once(':')
                .is_some_and(|(_, rest)| !rest.is_empty());
            has_password.then(|| (host_of(&registry), plain))
        });
        Some(Self(logins.collect()))
    }

    /// What to show `registry`: the value of an `Authorization` header.
    pub(super) fn of(&self, registry: &str) -> Option<String> {
        let plain = self.0.get(registry)?;
        Some(format!("Basic {}", STANDARD.encode(plain)))
    }
}

/// `https://index.docker.io/v1/` is how docker files its own registry.
fn host_of(written: &str) -> String {
    let rest = written.split_once("://").map_or(written, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".into(),
        host => host.to_owned(),
    }
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Logins({} of them)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_read_as_docker_writes_them() {
        let text = r#"{
            "auths": {
                "registry.example.com:5000": { "auth": "Ym9iOnMzY3I6M3Q=" },
                "https://index.docker.io/v1/": { "username": "ann", "password": "pw" },
                "helper.example.com": {},
                "odd.example.com": { "auth": "!" }
            },
            "credsStore": "desktop"
        }"#;
        let logins = Logins::parse(text).expect("a config.json");
        assert_eq!(
            logins.of("registry.example.com:5000").as_deref(),
            Some("Basic Ym9iOnMzY3I6M3Q=")
        );
        assert_eq!(logins.of("docker.io").as_deref(), Some("Basic YW5uOnB3"));
        assert_eq!(logins.of("helper.example.com"), None);
        assert_eq!(logins.of("odd.example.com"), None);
        assert_eq!(format!("{logins:?}"), "Logins(2 of them)");
        assert!(Logins::parse("not JSON").is_none());
        assert!(Logins::parse("{}").is_some());
    }
}
