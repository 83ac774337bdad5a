//! Where the first-boot agent comes from: a file that was named, a source
//! checkout (built first), or the folder of consign itself.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::artifact::write_file;
use crate::digest::{Digest, Hasher};
use crate::exec::{Call, ExecError, Tool};
use crate::report::{Outcome, Reporter};
use crate::tree::list_folder;
use crate::units::{ByteSize, ExitClass};

/// File name of the agent.
const AGENT: &str = "consign-firstboot";
/// What the agent is built for. It runs in amd64 appliances.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The agent's own build profile in `Cargo.toml`.
const PROFILE: &str = "firstboot";
/// What the agent is built from, in a checkout.
const SOURCES: [&str; 4] = [
    "firstboot",
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain.toml",
];
/// Beside the agent: how its sources and it itself looked when it was built.
const STAMP: &str = "consign-firstboot.stamp";
/// Environment variables that cargo and rustup need to find themselves.
pub const CARGO_ENVIRONMENT: &[&str] = &[
    "PATH",
    "HOME",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "CARGO_HTTP_CAINFO",
    "CARGO_NET_OFFLINE",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
];

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// Neither beside consign nor in a checkout.
    #[error("the first-boot agent `{AGENT}` is not beside `{}`", executable.display())]
    Missing {
        /// consign itself.
        executable: PathBuf,
    },
    /// The file that was named is not there.
    #[error("the first-boot agent `{}` is not a file", path.display())]
    NotAFile {
        /// As named.
        path: PathBuf,
    },
    /// `cargo build` failed.
    #[error("cannot build the first-boot agent")]
    Build {
        /// What cargo said.
        #[from]
        source: ExecError,
    },
}

impl AgentError {
    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::NotAFile { .. } => "agent-missing",
            Self::Build { .. } => "agent-build",
        }
    }

    /// What the reader can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } | Self::NotAFile { .. } => Some(
                "name the agent's file with --agent FILE, or run from a source checkout".into(),
            ),
            Self::Build { source } => source.hint(),
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::Missing { .. } | Self::NotAFile { .. } => ExitClass::Usage,
            Self::Build { .. } => ExitClass::Tool,
        }
    }
}

/// What is known about the place that consign runs from.
#[derive(Debug, Clone)]
pub struct AgentSearch {
    /// The file that the user named.
    pub explicit: Option<PathBuf>,
    /// consign itself.
    pub executable: PathBuf,
    /// The value of `PATH`.
    pub search_path: OsString,
    /// Those of [`CARGO_ENVIRONMENT`] that are set.
    pub environment: Vec<(OsString, OsString)>,
}

/// Finds the agent, building it first in a source checkout.
///
/// # Errors
///
/// [`AgentError`].
pub fn locate(search: &AgentSearch, reporter: &dyn Reporter) -> Result<PathBuf, AgentError> {
    if let Some(path) = &search.explicit {
        let missing = || AgentError::NotAFile { path: path.clone() };
        return if path.is_file() {
            Ok(path.clone())
        } else {
            Err(missing())
        };
    }
    if let Some(checkout) = checkout_of(&search.executable) {
        return build(&checkout, search, reporter);
    }
    let beside = search.executable.with_file_name(AGENT);
    if beside.is_file() {
        return Ok(beside);
    }
    Err(AgentError::Missing {
        executable: search.executable.clone(),
    })
}

/// The source checkout that `executable` was built in, if any.
fn checkout_of(executable: &Path) -> Option<PathBuf> {
    let is_checkout = |folder: &&Path| folder.join("firstboot/schema/Cargo.toml").is_file();
    executable
        .ancestors()
        .skip(1)
        .find(is_checkout)
        .map(Path::to_owned)
}

fn build(
    checkout: &Path,
    search: &AgentSearch,
    reporter: &dyn Reporter,
) -> Result<PathBuf, AgentError> {
    const STEP: &str = "agent";
    let target_dir = checkout.join("target");
    let agent = target_dir.join(TARGET).join(PROFILE).join(AGENT);
    let stamp_file = agent.with_file_name(STAMP);
    let flags = rust_flags(checkout, search);
    // Before cargo looks at them, so that what changes meanwhile counts as changed.
    let sources = look_of_sources(checkout, &flags).ok();
    let stamp = || Some(stamp_of(sources?, &agent).ok()?.to_string());
    let known = std::fs::read_to_string(&stamp_file).ok();
    if known.is_some() && known == stamp() {
        return Ok(agent);
    }
    reporter.started(STEP);
    Call::find(Tool::Cargo, &search.search_path)?
        .args([
            "build",
            "--locked",
            "--quiet",
            "--package",
            AGENT,
            "--profile",
            PROFILE,
        ])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .in_folder(checkout)
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .envs(search.environment.iter().cloned())
        .run(b"")?;
    if let Some(stamp) = stamp()
        && let Err(error) = write_file(&stamp_file, stamp.as_bytes())
    {
        reporter.warn(format!("cargo will look at the agent again: {error}"), None);
    }
    let size = agent.metadata().map(|meta| meta.len()).unwrap_or_default();
    reporter.finished(STEP, Outcome::Done, ByteSize::from_bytes(size).to_string());
    Ok(agent)
}

/// How the sources look from outside: starting cargo only to hear that they
/// are as they were costs more than a build with nothing to do may take.
fn look_of_sources(checkout: &Path, flags: &OsStr) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    hasher.field(flags.as_encoded_bytes());
    for name in SOURCES {
        note(&mut hasher, &checkout.join(name))?;
    }
    Ok(hasher.finish())
}

fn note(hasher: &mut Hasher, path: &Path) -> io::Result<()> {
    let metadata = std::fs::symlink_metadata(path)?;
    hasher.field(path.as_os_str().as_encoded_bytes());
    for number in [metadata.mtime(), metadata.mtime_nsec()] {
        hasher.field(&number.to_be_bytes());
    }
    for number in [metadata.size(), metadata.ino()] {
        hasher.field(&number.to_be_bytes());
    }
    if metadata.is_dir() {
        for entry in list_folder(path)? {
            note(hasher, &entry.path)?;
        }
    }
    Ok(())
}

/// The sources' look and the finished agent's.
fn stamp_of(sources: Digest, agent: &Path) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    hasher.field(sources.bytes());
    note(&mut hasher, agent)?;
    Ok(hasher.finish())
}

/// How the agent is linked: static, without tables for unwinding, which never
/// happens there, and functions of the same instructions once (nothing in it
/// compares functions by their addresses; rustc's own lld knows how). rustc
/// links in the workspace's folder; the full name of the script would make the
/// bytes depend on where the checkout lies.
const LINKING: [&str; 6] = [
    "-Ctarget-feature=+crt-static",
    "-Crelocation-model=static",
    "-Clink-arg=-Wl,--no-eh-frame-hdr",
    "-Clink-arg=-Wl,--icf=all",
    "-Clink-arg=-T",
    "-Clink-arg=firstboot/link.ld",
];

/// [`LINKING`], and no path of this machine in the bytes. Flags are separated
/// by 0x1f, as cargo wants them.
fn rust_flags(checkout: &Path, search: &AgentSearch) -> OsString {
    let mut flags = OsString::from(LINKING.join("\u{1f}"));
    let mut remap = |from: &Path, to: &str| {
        flags.push("\u{1f}--remap-path-prefix=");
        flags.push(from);
        flags.push(to);
    };
    remap(checkout, "=/consign");
    let variable = |wanted: &str| {
        search
            .environment
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| PathBuf::from(value))
    };
    let home = variable("CARGO_HOME").or_else(|| variable("HOME").map(|home| home.join(".cargo")));
    if let Some(home) = home {
        remap(&home, "=/cargo");
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Silent;

    fn search(executable: &Path, explicit: Option<&str>) -> AgentSearch {
        AgentSearch {
            explicit: explicit.map(PathBuf::from),
            executable: executable.to_owned(),
            search_path: OsString::new(),
            environment: Vec::new(),
        }
    }

    #[test]
    fn an_installed_consign_takes_the_agent_beside_it() {
        let folder = tempfile::tempdir().expect("folder");
        let executable = folder.path().join("consign");
        let error = locate(&search(&executable, None), &Silent).expect_err("nothing there");
        assert_eq!(error.slug(), "agent-missing");
        let agent = folder.path().join(AGENT);
        std::fs::write(&agent, b"x").expect("write");
        assert_eq!(
            locate(&search(&executable, None), &Silent).expect("found"),
            agent
        );
    }

    #[test]
    fn an_agent_whose_sources_look_the_same_is_not_built_again() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        let put = |name: &str, text: &str| {
            std::fs::create_dir_all(at(name).parent().expect("a folder")).expect("folders");
            std::fs::write(at(name), text).expect("write");
        };
        for name in ["firstboot/schema/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
            put(name, "x");
        }
        put("rust-toolchain.toml", "x");
        let agent = format!("target/{TARGET}/{PROFILE}/{AGENT}");
        put(&agent, "agent");
        let search = search(&at("target/release/consign"), None);
        // Without a stamp cargo is wanted, and this search path has none.
        let error = locate(&search, &Silent).expect_err("no cargo");
        assert_eq!(error.slug(), "agent-build");
        let sources = look_of_sources(folder.path(), &rust_flags(folder.path(), &search));
        let stamp = stamp_of(sources.expect("sources"), &at(&agent)).expect("an agent");
        let stamp_file = at(&agent).with_file_name(STAMP);
        std::fs::write(&stamp_file, stamp.to_string()).expect("write");
        assert_eq!(
            locate(&search, &Silent).expect("the stamp fits"),
            at(&agent)
        );
        for changed in ["firstboot/schema/Cargo.toml", &agent] {
            put(changed, "another");
            locate(&search, &Silent).expect_err("something has changed");
        }
    }

    #[test]
    fn a_named_agent_must_be_a_file() {
        let error = locate(
            &search(Path::new("/x"), Some("/nonexistent/agent")),
            &Silent,
        )
        .expect_err("not there");
        assert_eq!(
            error.to_string(),
            "the first-boot agent `/nonexistent/agent` is not a file"
        );
    }
}
