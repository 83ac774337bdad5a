//! Why no sandbox can be had, and what to run.

use super::choice::Refused;
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

    /// User namespaces can be had, but nothing can be done in them.
    #[error("the system gives user namespaces without the powers that belong to them: {reason}")]
    Powerless {
        /// What failed.
        reason: String,
        /// Whether `AppArmor` is known to do that here.
        by_apparmor: bool,
    },

    /// The driver is for root.
    #[error("it needs root")]
    NotRoot,

    /// Root without what makes it root.
    #[error("root has no {} here", missing.join(", "))]
    Capabilities {
        /// Names of capabilities.
        missing: Vec<&'static str>,
    },

    /// Root of a user namespace that knows few ids.
    #[error("`{file}` knows {found} ids of {}", NEEDED + 1)]
    FewIds {
        /// The map.
        file: &'static str,
        /// Ids from 0 on.
        found: u64,
    },

    /// The driver was tried and does not work.
    #[error("{reason}")]
    Trial {
        /// What failed.
        reason: String,
    },

    /// There is nothing that a machine could boot.
    #[error("a machine needs the appliance's kernel, and its package is not in the cache")]
    NoKernel,

    /// No driver works.
    #[error("packages need a sandbox, and none can be had: {refused}")]
    All {
        /// Each driver, and why not.
        refused: Refused,
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

/// What makes `AppArmor` allow user namespaces to consign, and to nobody else.
const APPARMOR: &str = "allow it for consign with the profile that comes with it, as root: consign \
                        sandbox --apparmor-profile >/etc/apparmor.d/consign && apparmor_parser -r \
                        /etc/apparmor.d/consign";
/// What a container has to be started with.
const CONTAINER: &str = "build as root, or outside of this container, or start the container with \
                         --security-opt seccomp=unconfined --security-opt apparmor=unconfined";

const SETTINGS: [Setting; 3] = [
    Setting {
        file: "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        forbids: "1",
        remedy: APPARMOR,
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
            remedy: CONTAINER.to_owned(),
        }
    }

    /// The refusal behind a namespace that was entered, where `reason` failed.
    #[must_use]
    pub(crate) fn powerless(reason: String) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let is = |path: &str, value: &str| read(path).trim() == value;
        let by_apparmor = SETTINGS
            .iter()
            .take(1)
            .any(|setting| is(setting.file, setting.forbids))
            || is("/sys/module/apparmor/parameters/enabled", "Y");
        Self::Powerless {
            reason,
            by_apparmor,
        }
    }

    /// What to say when all of them were refused.
    #[must_use]
    pub(crate) fn of_all(mut refused: Refused) -> Self {
        match refused.0.pop() {
            // The user's own choice, whose reason says it all.
            Some((_, only)) if refused.0.is_empty() => only,
            Some(last) => {
                refused.0.push(last);
                Self::All { refused }
            }
            None => Self::All { refused },
        }
    }

    /// A stable name of the kind of error.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Mapping(_) | Self::Map { .. } => "sandbox-id-mapping",
            Self::NoIds { .. } => "sandbox-no-subordinate-ids",
            Self::Namespaces { .. } => "sandbox-no-user-namespaces",
            Self::Powerless { .. } => "sandbox-powerless-namespaces",
            Self::NotRoot | Self::Capabilities { .. } | Self::FewIds { .. } => "sandbox-not-root",
            Self::Trial { .. } => "sandbox-refused",
            Self::NoKernel => "sandbox-no-kernel",
            Self::All { .. } => "sandbox-none",
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
            Self::Powerless { by_apparmor, .. } => {
                let remedy = if *by_apparmor { APPARMOR } else { CONTAINER };
                Some(remedy.to_owned())
            }
            Self::NotRoot => Some("build as root, or choose another --sandbox".to_owned()),
            Self::Capabilities { missing } => Some(format!(
                "start the container with --cap-add {}",
                missing.join(" --cap-add ")
            )),
            Self::FewIds { .. } => {
                Some("map 65536 ids into the container's user namespace".to_owned())
            }
            Self::Trial { .. } => Some(CONTAINER.to_owned()),
            Self::NoKernel => {
                Some("fetch the appliance's packages first, and run this in its folder".to_owned())
            }
            Self::All { refused } => refused.0.iter().find_map(|(_, refusal)| refusal.hint()),
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
