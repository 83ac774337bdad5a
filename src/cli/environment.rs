//! The environment, read once. Nothing else in the library may look at it.
#![expect(clippy::disallowed_methods, reason = "this room reads the environment")]

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use crate::layer::source::remote::Logins;
use crate::pipeline::agent::CARGO_ENVIRONMENT;

/// Where a user's own libvirt keeps its sockets and settings; its password
/// file for remote hosts is of no use here.
const FOR_VIRSH: [&str; 5] = [
    "HOME",
    "PATH",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
];
/// Where a user's gpg keeps its keys, and how its agent asks for a passphrase.
const FOR_GPG: [&str; 8] = [
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "GNUPGHOME",
    "GPG_TTY",
    "HOME",
    "TERM",
    "WAYLAND_DISPLAY",
    "XDG_RUNTIME_DIR",
];
/// Longer files of logins are not meant.
const MAX_LOGINS: u64 = 1 << 20;

/// What consign takes from its environment.
#[derive(Debug, Clone)]
pub(super) struct Environment {
    /// `PATH`, with the folders of the system's administration tools behind it:
    /// an ordinary user's often lacks them.
    pub search_path: OsString,
    /// `$XDG_CACHE_HOME/consign`, else `$HOME/.cache/consign`.
    pub cache: Option<PathBuf>,
    /// `CONSIGN_MIRROR`: base address of the Debian mirror.
    pub mirror: Option<String>,
    /// Whether this is a build of nobody's hand: `CI`.
    pub is_ci: bool,
    /// Whether standard error may be coloured (a terminal, and no `NO_COLOR`).
    pub color: bool,
    /// The file of consign itself.
    pub executable: PathBuf,
    /// What cargo and rustup need, for the agent in a source checkout.
    pub for_cargo: Vec<(OsString, OsString)>,
    /// What virsh needs to find a user's own libvirt.
    pub for_virsh: Vec<(OsString, OsString)>,
    /// `SOURCE_DATE_EPOCH` as it stands: the moment that a signature by gpg
    /// says.
    pub source_date: Option<String>,
    /// What gpg needs to find a user's keys and to ask for a passphrase.
    pub for_gpg: Vec<(OsString, OsString)>,
    /// `LIBVIRT_DEFAULT_URI`: the libvirt that is meant when none is named.
    pub libvirt: Option<String>,
    /// `$XDG_DATA_HOME`, else `$HOME/.local/share`.
    pub user_data: Option<PathBuf>,
    /// `SSH_AUTH_SOCK`: where an SSH agent listens.
    pub ssh_agent: Option<PathBuf>,
    /// Logins for registries, from docker's `config.json`.
    pub logins: Logins,
    /// `http_proxy` or `HTTP_PROXY`, `https_proxy` or `HTTPS_PROXY`.
    pub proxies: Proxies,
}

/// Proxies by scheme of the address that is fetched.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxies {
    /// For `http:`.
    pub http: Option<String>,
    /// For `https:`.
    pub https: Option<String>,
    /// Hosts that are reached without one, separated by commas: `no_proxy`.
    pub none_for: Option<String>,
}

impl Environment {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// When the system does not tell where consign itself is.
    pub(super) fn read() -> io::Result<Self> {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let absolute = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let mut search_path = std::env::var_os("PATH").unwrap_or_default();
        search_path.push(":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin");
        let cache = absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .map(|folder| folder.join("consign"));
        let those = |names: &[&str]| -> Vec<(OsString, OsString)> {
            let pair = |name: &&str| Some((OsString::from(name), std::env::var_os(name)?));
            names.iter().filter_map(pair).collect()
        };
        Ok(Self {
            search_path,
            cache,
            mirror: text("CONSIGN_MIRROR"),
            is_ci: text("CI").is_some_and(|value| value != "false" && value != "0"),
            color: io::stderr().is_terminal() && text("NO_COLOR").is_none(),
            executable: std::env::current_exe()?,
            logins: logins(&[
                absolute("DOCKER_CONFIG").map(|folder| folder.join("config.json")),
                absolute("HOME").map(|home| home.join(".docker/config.json")),
                absolute("REGISTRY_AUTH_FILE"),
                absolute("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")),
            ]),
            for_cargo: those(CARGO_ENVIRONMENT),
            for_virsh: those(&FOR_VIRSH),
            source_date: std::env::var_os("SOURCE_DATE_EPOCH")
                .map(|value| value.to_string_lossy().into_owned())
                .filter(|value| !value.is_empty()),
            for_gpg: those(&FOR_GPG),
            libvirt: text("LIBVIRT_DEFAULT_URI"),
            user_data: absolute("XDG_DATA_HOME")
                .or_else(|| absolute("HOME").map(|home| home.join(".local/share"))),
            ssh_agent: absolute("SSH_AUTH_SOCK"),
            proxies: Proxies {
                http: text("http_proxy").or_else(|| text("HTTP_PROXY")),
                https: text("https_proxy").or_else(|| text("HTTPS_PROXY")),
                none_for: text("no_proxy").or_else(|| text("NO_PROXY")),
            },
        })
    }
}

/// The logins of the first file that is one, as docker and podman look for it.
fn logins(places: &[Option<PathBuf>]) -> Logins {
    use std::io::Read as _;
    for path in places.iter().flatten() {
        let mut text = String::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(MAX_LOGINS).read_to_string(&mut text));
        if read.is_ok()
            && let Some(logins) = Logins::parse(&text)
        {
            return logins;
        }
    }
    Logins::default()
}
