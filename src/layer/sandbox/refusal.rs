//! Why no sandbox can be had, and what to run.

use crate::exec::ExecError;
use crate::units::ExitClass;

/// Why no sandbox can be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxRefusal {
    /// `newuidmap` or `newgidmap` is missing or fails.
    #[error("packages need a sandbox with many users, and the host cannot map them")]
    Mapping(#[source] ExecError),

    /// The user has no range of subordinate ids, or a short one.
    #[error(
        "packages need a sandbox with many users, and `{file}` gives user `{user}` {found} \
         subordinate ids of {NEEDED}"
    )]
    NoIds {
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
        /// Name of the user, or the number.
        user: String,
        /// The longest range there.
        found: u64,
    },

    /// A map file in /proc could not be written.
    #[error("the sandbox's users cannot be mapped: {reason}")]
    Map {
        /// What the system said.
        reason: String,
    },

    /// The kernel refuses user namespaces, for a reason that was found.
    #[error("packages need a sandbox, and the system refuses user namespaces: {reason}")]
    Namespaces {
        /// What the system said and which setting explains it.
        reason: String,
        /// The command that changes the setting.
        remedy: String,
    },
}

/// Ids that a Debian system uses: 0 to 65535, of which the user's own is 0.
pub(crate) const NEEDED: u64 = 65_535;

/// A setting of the kernel that forbids user namespaces.
struct Setting {
    file: &'static str,
    forbids: &'static str,
    remedy: &'static str,
}

const SETTINGS: [Setting; 3] = [
    Setting {
        file: "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        forbids: "1",
        remedy: "allow it for consign with an AppArmor profile that has `userns,`, or for all: \
                 sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    },
    Setting {
        file: "/proc/sys/kernel/unprivileged_userns_clone",
        forbids: "0",
        remedy: "allow them: sysctl kernel.unprivileged_userns_clone=1",
    },
    Setting {
        file: "/proc/sys/user/max_user_namespaces",
        forbids: "0",
        remedy: "allow them: sysctl user.max_user_namespaces=10000",
    },
];

impl SandboxRefusal {
    /// The refusal behind error number `errno` of `unshare`.
    #[must_use]
    pub(crate) fn namespaces(errno: i32) -> Self {
        let error = std::io::Error::from_raw_os_error(errno);
        for setting in SETTINGS {
            let value = std::fs::read_to_string(setting.file).unwrap_or_default();
            if value.trim() == setting.forbids {
                return Self::Namespaces {
                    reason: format!("{error}; `{}` is {}", setting.file, setting.forbids),
                    remedy: setting.remedy.to_owned(),
                };
            }
        }
        Self::Namespaces {
            reason: error.to_string(),
            remedy: "build as root, or outside of this container, or start the container with \
                     --security-opt seccomp=unconfined"
                .to_owned(),
        }
    }

    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Mapping(_) | Self::Map { .. } => "sandbox-id-mapping",
            Self::NoIds { .. } => "sandbox-no-subordinate-ids",
            Self::Namespaces { .. } => "sandbox-no-user-namespaces",
        }
    }

    /// The exit code.
    #[must_use]
    pub fn class(&self) -> ExitClass {
        ExitClass::Tool
    }

    /// What the reader can do about it, as one imperative sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Mapping(error) => error.hint(),
            Self::NoIds { user, .. } => Some(format!(
                "give the user a range, as root: usermod --add-subuids 100000-165535 \
                 --add-subgids 100000-165535 {user}"
            )),
            Self::Map { .. } => Some("build as root, or as a user with subordinate ids".to_owned()),
            Self::Namespaces { remedy, .. } => Some(remedy.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_range_says_what_to_run() {
        let refusal = SandboxRefusal::NoIds {
            file: "/etc/subuid",
            user: "alice".into(),
            found: 0,
        };
        assert_eq!(
            refusal.to_string(),
            "packages need a sandbox with many users, and `/etc/subuid` gives user `alice` 0 \
             subordinate ids of 65535"
        );
        assert_eq!(
            refusal.hint().as_deref(),
            Some(
                "give the user a range, as root: usermod --add-subuids 100000-165535 \
                 --add-subgids 100000-165535 alice"
            )
        );
    }
}
