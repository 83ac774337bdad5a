//! apt's settings, as far as they say how to fetch and what to check.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::exec::{Call, ExecError, Tool};

use super::super::address::Address;
use super::super::error::SourceError;
use super::super::proxy::{Proxies, ProxyRule};

/// What of the environment matters here. The command line reads it.
#[derive(Debug, Clone, Copy)]
pub struct HostEnvironment<'a> {
    /// `PATH`.
    pub search_path: &'a OsStr,
    /// `http_proxy`; counts when apt has no setting.
    pub http_proxy: Option<&'a str>,
    /// `https_proxy`; counts when apt has no setting.
    pub https_proxy: Option<&'a str>,
    /// `no_proxy`: hosts that are reached directly, separated by commas.
    pub no_proxy: Option<&'a str>,
}

/// For how many seconds after its date a signed list counts. Both may name a
/// `Label` of the list; without one (`""`) they are for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ValidTime {
    /// At least so long, whatever its `Valid-Until`: `Acquire::Min-ValidTime`.
    pub least: BTreeMap<String, i64>,
    /// At most so long: `Acquire::Max-ValidTime`.
    pub most: BTreeMap<String, i64>,
}

impl ValidTime {
    /// What counts for a list of this `Label`: least and most.
    pub(in super::super) fn of(&self, label: &str) -> (Option<i64>, Option<i64>) {
        let find = |times: &BTreeMap<String, i64>| {
            let label = label.to_ascii_lowercase();
            let found = times.get(&label).or_else(|| times.get(""));
            found.copied().filter(|seconds| *seconds > 0)
        };
        (find(&self.least), find(&self.most))
    }
}

/// apt's settings on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AptSettings {
    /// Whether `Valid-Until` counts: `Acquire::Check-Valid-Until`, and
    /// `Acquire::Check-Date`, without which apt cannot check it either.
    pub checks_expiry: bool,
    /// Whether a date in the future counts: `Acquire::Check-Date`.
    pub checks_date: bool,
    /// `Acquire::Min-ValidTime` and `Acquire::Max-ValidTime`.
    pub valid_time: ValidTime,
    /// How to get out of the house.
    pub proxies: Proxies,
    /// Certificates that `https` mirrors are checked with, besides the
    /// host's: `Acquire::https::CaInfo`.
    pub ca_file: Option<PathBuf>,
    /// `Dir::Etc::sourcelist`.
    pub sources_list: PathBuf,
    /// `Dir::Etc::sourceparts`.
    pub sources_folder: PathBuf,
    /// `Dir::Etc::trusted`.
    pub trusted_file: PathBuf,
    /// `Dir::Etc::trustedparts`.
    pub trusted_folder: PathBuf,
    /// `APT::Architecture`.
    pub architecture: String,
}

impl Default for AptSettings {
    /// What apt does without any configuration, on amd64.
    fn default() -> Self {
        Self {
            checks_expiry: true,
            checks_date: true,
            valid_time: ValidTime::default(),
            proxies: Proxies::default(),
            ca_file: None,
            sources_list: "/etc/apt/sources.list".into(),
            sources_folder: "/etc/apt/sources.list.d".into(),
            trusted_file: "/etc/apt/trusted.gpg".into(),
            trusted_folder: "/etc/apt/trusted.gpg.d".into(),
            architecture: "amd64".into(),
        }
    }
}

/// Asks `apt-config` for apt's settings. A host without apt has the defaults.
///
/// # Errors
///
/// [`SourceError::AptSettings`] when it fails, [`SourceError::BadProxy`].
pub fn read_settings(host: &HostEnvironment<'_>) -> Result<AptSettings, SourceError> {
    let dump = match Call::find(Tool::AptConfig, host.search_path) {
        Ok(call) => call
            .arg("dump")
            .run(b"")
            .map_err(SourceError::AptSettings)?,
        Err(ExecError::Missing { .. }) => Vec::new(),
        Err(error) => return Err(SourceError::AptSettings(error)),
    };
    AptSettings::parse(&String::from_utf8_lossy(&dump), host)
}

impl AptSettings {
    /// Parses the output of `apt-config dump`.
    ///
    /// # Errors
    ///
    /// [`SourceError::BadProxy`].
    pub fn parse(dump: &str, host: &HostEnvironment<'_>) -> Result<Self, SourceError> {
        let settings = Settings::parse(dump);
        let defaults = Self::default();
        let checks_date = settings.boolean("acquire::check-date", true);
        let etc = settings.folder(
            "dir::etc",
            &settings.folder("dir", Path::new("/"), "/"),
            "etc/apt",
        );
        let below_etc = |key, default| settings.folder(key, &etc, default);
        Ok(Self {
            checks_expiry: checks_date && settings.boolean("acquire::check-valid-until", true),
            checks_date,
            valid_time: ValidTime {
                least: settings.by_label("acquire::min-validtime"),
                most: settings.by_label("acquire::max-validtime"),
            },
            proxies: proxies(&settings, host)?,
            ca_file: settings.get("acquire::https::cainfo").map(PathBuf::from),
            sources_list: below_etc("dir::etc::sourcelist", "sources.list"),
            sources_folder: below_etc("dir::etc::sourceparts", "sources.list.d"),
            trusted_file: below_etc("dir::etc::trusted", "trusted.gpg"),
            trusted_folder: below_etc("dir::etc::trustedparts", "trusted.gpg.d"),
            architecture: settings
                .get("apt::architecture")
                .map_or(defaults.architecture, str::to_owned),
        })
    }
}

/// The lines of a dump by their lower-case key: apt's keys know no case.
struct Settings(BTreeMap<String, String>);

impl Settings {
    fn parse(dump: &str) -> Self {
        let entry = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            let value = value.trim().strip_prefix('"')?.strip_suffix("\";")?;
            Some((key.to_ascii_lowercase(), value.to_owned()))
        };
        Self(dump.lines().filter_map(entry).collect())
    }

    /// The value of `key`, if it is not empty.
    fn get(&self, key: &str) -> Option<&str> {
        self.0
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// Numbers under `key` and under `key::LABEL`, by lower-case label.
    fn by_label(&self, key: &str) -> BTreeMap<String, i64> {
        let number = |(name, value): (&String, &String)| {
            let rest = name.strip_prefix(key)?;
            let label = match rest {
                "" => "",
                _ => rest.strip_prefix("::")?,
            };
            Some((label.to_owned(), value.parse().ok()?))
        };
        self.0.iter().filter_map(number).collect()
    }

    fn boolean(&self, key: &str, default: bool) -> bool {
        match self.get(key).map(str::to_ascii_lowercase).as_deref() {
            Some("0" | "no" | "false" | "without" | "off" | "disable") => false,
            Some("1" | "yes" | "true" | "with" | "on" | "enable") => true,
            _ => default,
        }
    }

    /// apt's `Dir` tree: a relative value lies below its parent.
    fn folder(&self, key: &str, parent: &Path, default: &str) -> PathBuf {
        parent.join(self.get(key).unwrap_or(default))
    }
}

fn proxies(settings: &Settings, host: &HostEnvironment<'_>) -> Result<Proxies, SourceError> {
    let mut proxies = Proxies {
        http: rule("Acquire::http::Proxy", settings.get("acquire::http::proxy"))?,
        https: rule(
            "Acquire::https::Proxy",
            settings.get("acquire::https::proxy"),
        )?,
        ..Proxies::default()
    };
    if proxies.https.is_none() {
        proxies.https.clone_from(&proxies.http);
    }
    if proxies.http.is_none() {
        proxies.http = rule("http_proxy", host.http_proxy)?;
    }
    if proxies.https.is_none() {
        proxies.https = rule("https_proxy", host.https_proxy)?;
    }
    for (key, value) in &settings.0 {
        for scheme in ["http", "https"] {
            let prefix = format!("acquire::{scheme}::proxy::");
            if let Some(name) = key.strip_prefix(&prefix).filter(|name| !name.is_empty())
                && let Some(rule) = rule(key, Some(value))?
            {
                proxies
                    .hosts
                    .insert((scheme.to_owned(), name.to_owned()), rule);
            }
        }
    }
    proxies.exempt = host
        .no_proxy
        .unwrap_or_default()
        .split(',')
        .map(|name| {
            name.trim()
                .trim_start_matches(['*', '.'])
                .to_ascii_lowercase()
        })
        .filter(|name| !name.is_empty())
        .collect();
    Ok(proxies)
}

fn rule(setting: &str, value: Option<&str>) -> Result<Option<ProxyRule>, SourceError> {
    match value.map(str::trim) {
        None | Some("") => Ok(None),
        Some(text) if text.eq_ignore_ascii_case("direct") => Ok(Some(ProxyRule::Direct)),
        Some(text) => {
            let with_scheme = if text.contains("://") {
                text.to_owned()
            } else {
                format!("http://{text}")
            };
            match Address::parse(&with_scheme) {
                Some(address) if address.scheme() != "file" => Ok(Some(ProxyRule::Via(address))),
                _ => Err(SourceError::BadProxy {
                    setting: setting.to_owned(),
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> HostEnvironment<'static> {
        HostEnvironment {
            search_path: OsStr::new(""),
            http_proxy: None,
            https_proxy: None,
            no_proxy: None,
        }
    }

    fn parse(dump: &str) -> AptSettings {
        AptSettings::parse(dump, &nobody()).expect("it parses")
    }

    #[test]
    fn an_empty_dump_gives_the_defaults() {
        assert_eq!(parse(""), AptSettings::default());
    }

    #[test]
    fn expiry_and_date_checks_follow_apt() {
        let settings = parse("Acquire::Check-Valid-Until \"false\";\n");
        assert!(!settings.checks_expiry && settings.checks_date);
        let settings = parse("acquire::check-date \"0\";\n");
        assert!(!settings.checks_expiry && !settings.checks_date);
    }

    #[test]
    fn valid_times_may_be_for_a_label() {
        let settings = parse(
            "Acquire::Max-ValidTime \"864000\";\nAcquire::Max-ValidTime::Debian \"60\";\n\
             Acquire::Min-ValidTime \"0\";\n",
        );
        assert_eq!(settings.valid_time.of("Debian"), (None, Some(60)));
        assert_eq!(settings.valid_time.of("Other"), (None, Some(864_000)));
    }

    #[test]
    fn folders_follow_their_parents_unless_absolute() {
        let settings = parse(
            "Dir \"/\";\nDir::Etc \"opt/apt\";\nDir::Etc::sourcelist \"/srv/list\";\n\
             Dir::Etc::sourceparts \"parts\";\n",
        );
        assert_eq!(settings.sources_list, Path::new("/srv/list"));
        assert_eq!(settings.sources_folder, Path::new("/opt/apt/parts"));
    }

    #[test]
    fn proxies_follow_apt_then_the_environment() {
        let host = HostEnvironment {
            http_proxy: Some("http://ignored:1"),
            https_proxy: Some("other:3128"),
            no_proxy: Some("localhost, .corp.example"),
            ..nobody()
        };
        let dump = "Acquire::http::Proxy \"http://u:p@cache.example:3142/\";\n\
                    Acquire::http::Proxy::near.example \"DIRECT\";\n";
        let settings = AptSettings::parse(dump, &host).expect("it parses");
        let via = |scheme, host| {
            settings
                .proxies
                .choose(scheme, host)
                .map(ToString::to_string)
        };
        assert_eq!(
            via("http", "far.example"),
            Some("http://cache.example:3142".into())
        );
        assert_eq!(
            via("https", "far.example"),
            Some("http://cache.example:3142".into())
        );
        assert_eq!(via("http", "near.example:80"), None);
        assert_eq!(via("http", "apt.corp.example"), None);
        let settings = AptSettings::parse("", &host).expect("it parses");
        let via = settings
            .proxies
            .choose("https", "far.example")
            .map(ToString::to_string);
        assert_eq!(via, Some("http://other:3128".into()));
    }

    #[test]
    fn a_broken_proxy_is_named_without_its_value() {
        let error = AptSettings::parse("Acquire::http::Proxy \"socks5h://u:p@x\";\n", &nobody())
            .expect_err("unknown scheme");
        assert_eq!(
            error.to_string(),
            "the proxy setting `Acquire::http::Proxy` of the host is not an address"
        );
    }
}
