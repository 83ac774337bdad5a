//! What can go wrong inside the sandbox, in a form that crosses the pipe.

use serde::{Deserialize, Serialize};

use crate::units::ExitClass;

/// A failure inside the sandbox. All texts from packages are escaped where
/// they are shown, not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Fault {
    /// A system call on a path failed.
    #[error("cannot {action} `{path}`: {reason}")]
    System {
        action: String,
        path: String,
        reason: String,
        /// Whether the disk is full.
        is_full: bool,
    },
    /// A mount for the scripts failed.
    #[error("the sandbox cannot mount {what}: {reason}")]
    Mount { what: String, reason: String },
    /// A namespace for the scripts was refused.
    #[error("the sandbox cannot enter its namespaces: {reason}")]
    Namespaces { reason: String },
    /// A maintainer script failed.
    #[error("script `{script}` of package `{package}` {status}: {output}")]
    Script {
        package: String,
        script: String,
        status: String,
        /// The last KiB of what it said.
        output: String,
    },
    /// dpkg itself failed.
    #[error("dpkg {status} while it configured the packages: {output}")]
    Dpkg { status: String, output: String },
    /// Packages are left in some other state than installed.
    #[error("after configuration {} not installed: {}", counted(packages), packages.join(", "))]
    NotConfigured { packages: Vec<String> },
    /// The program of a `tools` layer failed.
    #[error("`{program}` {status}: {output}")]
    Program {
        program: String,
        status: String,
        output: String,
    },
    /// A program of a `tools` layer did not make what it should.
    #[error("`{program}` did not make `{path}`")]
    NotMade { program: String, path: String },
    /// The script of a `run` layer failed.
    #[error("the script {status}: {output}")]
    Run {
        status: String,
        /// The last KiB of what it said.
        output: String,
    },
    /// A .deb is not what its pin says.
    #[error("package `{package}` has digest `{found}`, but `{expected}` is pinned")]
    Digest {
        package: String,
        found: String,
        expected: String,
    },
    /// A .deb is malformed.
    #[error("package `{package}` is malformed: {reason}")]
    Package { package: String, reason: String },
    /// Two packages ship one file.
    #[error("packages `{package}` and `{owner}` both ship `{path}`")]
    Conflict {
        package: String,
        owner: String,
        path: String,
    },
    /// A package meets something of another kind.
    #[error("package `{package}` ships `{path}`, but {found} is in its place")]
    InTheWay {
        package: String,
        path: String,
        found: String,
    },
    /// A package is in a lower layer already.
    #[error("package `{package}` {version} is to be added, but {installed} is in a lower layer")]
    AlreadyInstalled {
        package: String,
        version: String,
        installed: String,
    },
    /// dpkg's database in the lower layers cannot be read.
    #[error("dpkg's database in the layers below is malformed: {reason}")]
    Database { reason: String },
    /// A lower layer's tar cannot be laid down.
    #[error("the layer below cannot be unpacked: {reason}")]
    Below { reason: String },
    /// The parent asked for nonsense, or broke off.
    #[error("the talk with the sandbox broke off: {reason}")]
    Talk { reason: String },
}

fn counted(packages: &[String]) -> &'static str {
    if packages.len() == 1 {
        "this package is"
    } else {
        "these packages are"
    }
}

impl Fault {
    /// A failed system call.
    pub(crate) fn system(
        action: &str,
        path: impl Into<String>,
        error: impl Into<std::io::Error>,
    ) -> Self {
        let error = error.into();
        Self::System {
            action: action.to_owned(),
            path: path.into(),
            is_full: matches!(
                error.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            ),
            reason: error.to_string(),
        }
    }

    /// Whether there was no room left for a file.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::System { is_full, .. } => *is_full,
            // Scripts say it in words: ENOSPC in the C locale.
            Self::Script { output, .. } | Self::Dpkg { output, .. } | Self::Run { output, .. } => {
                output.contains("No space left on device")
            }
            _ => false,
        }
    }

    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::System { is_full: true, .. } => "layer-disk-full",
            Self::System { .. } => "layer-io",
            Self::Mount { .. } => "sandbox-mount",
            Self::Namespaces { .. } => "sandbox-namespaces",
            Self::Script { .. } => "script-failed",
            Self::Dpkg { .. } => "dpkg-failed",
            Self::NotConfigured { .. } => "packages-not-configured",
            Self::Program { .. } => "layer-program-failed",
            Self::NotMade { .. } => "layer-program-made-nothing",
            Self::Run { .. } => "layer-script-failed",
            Self::Digest { .. } => "package-digest",
            Self::Package { .. } => "package-malformed",
            Self::Conflict { .. } => "package-conflict",
            Self::InTheWay { .. } => "package-in-the-way",
            Self::AlreadyInstalled { .. } => "package-already-installed",
            Self::Database { .. } => "dpkg-database",
            Self::Below { .. } => "layer-below",
            Self::Talk { .. } => "sandbox-talk",
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        match self {
            Self::Digest { .. } => ExitClass::Verification,
            Self::Mount { .. } | Self::Namespaces { .. } => ExitClass::Tool,
            _ => ExitClass::Build,
        }
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::System { is_full: true, .. } => {
                "make room in the cache folder, or choose another one with --cache"
            }
            Self::Mount { .. } | Self::Namespaces { .. } => {
                "build where namespaces and mounts are allowed: on the host itself, or in a \
                 container started with --security-opt seccomp=unconfined --security-opt \
                 apparmor=unconfined"
            }
            Self::Digest { .. } => {
                "remove the file from the cache and build again; if the mirror serves the same \
                 file again, do not trust it"
            }
            Self::Conflict { .. } => "exclude one of the packages, or the path with exclude_paths",
            Self::AlreadyInstalled { .. } => {
                "resolve all layers together, so that each package comes in one version"
            }
            Self::Script { output, .. } | Self::Dpkg { output, .. } | Self::Run { output, .. }
                if names_own_process(output) =>
            {
                "in a plain chroot there is no /proc/self and no /dev/fd: build with \
                 `--sandbox userns` or `--sandbox root` where that is allowed, or with \
                 `--sandbox vm`, which needs nothing but QEMU"
            }
            Self::Run { .. } => {
                "read the script's last words above; it runs as the image's root, without \
                 running services, and without network unless `layer.toml` says `network = true`"
            }
            Self::Script { .. } | Self::Dpkg { .. } | Self::NotConfigured { .. } => {
                "read the script's last words above; scripts run without network and without \
                 running services"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// Whether a script's last words are about a file that only the sandbox
/// without mounts lacks.
fn names_own_process(output: &str) -> bool {
    ["/proc/self", "/dev/fd", "/proc/thread-self"]
        .iter()
        .any(|name| output.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_misses_proc_self_is_sent_to_another_driver() {
        let hint = |output: &str| {
            let status = "ended with exit status 1".to_owned();
            let output = output.to_owned();
            Fault::Run { status, output }.hint().expect("a hint")
        };
        assert!(hint("bash: /dev/fd/63: No such file or directory").contains("--sandbox vm"));
        assert!(hint("cannot open /proc/self/fd/3").contains("--sandbox userns"));
        assert!(!hint("no such user").contains("--sandbox"));
    }
}
