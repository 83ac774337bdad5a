//! What a `packages` layer does not keep of what its packages' scripts made.
//!
//! Identity, since an image is booted many times; caches and logs, since they
//! tell about the build and are made again; leftovers of tools. Each rule has
//! a name and a reason, and the table is all there is. What a lower layer put
//! somewhere on purpose stays; only emptying rules apply to it.

use std::collections::BTreeSet;

use crate::tree::TreePath;

/// Grows with every change of [`RULES`] that changes layers.
pub(crate) const RULES_VERSION: u32 = 2;

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// A stable name.
    pub name: &'static str,
    /// Why it is there.
    pub reason: &'static str,
    /// What happens to the files.
    pub action: Action,
    /// Patterns of paths from the root: `*` matches within a component, a
    /// trailing `/**` everything below.
    pub paths: &'static [&'static str],
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Leaves the file out.
    Remove,
    /// Leaves the file out unless a package ships it.
    RemoveUnlessShipped,
    /// Keeps the file without its content.
    Empty,
}

/// The rules, in the order in which they are tried; the first match counts.
pub const RULES: &[Rule] = &[
    Rule {
        name: "machine-id",
        reason: "each machine makes its own at first boot; an empty file asks for that",
        action: Action::Empty,
        paths: &["etc/machine-id"],
    },
    Rule {
        name: "dbus-machine-id",
        reason: "dbus reads /etc/machine-id where this one is missing",
        action: Action::Remove,
        paths: &["var/lib/dbus/machine-id"],
    },
    Rule {
        name: "ssh-host-keys",
        reason: "a key that is in an image is no secret; each machine makes its own",
        action: Action::Remove,
        paths: &["etc/ssh/ssh_host_*"],
    },
    Rule {
        name: "random-seed",
        reason: "a seed that many machines share seeds nothing",
        action: Action::Remove,
        paths: &[
            "var/lib/systemd/random-seed",
            "var/lib/systemd/credential.secret",
            "var/lib/urandom/random-seed",
        ],
    },
    Rule {
        name: "snakeoil-key",
        reason: "a key that is in an image is no secret; each machine makes its own at boot",
        action: Action::Remove,
        paths: &[
            "etc/ssl/private/ssl-cert-snakeoil.key",
            "etc/ssl/certs/ssl-cert-snakeoil.pem",
        ],
    },
    Rule {
        name: "rndc-key",
        reason: "a key that is in an image is no secret; each machine makes its own at boot",
        action: Action::Remove,
        paths: &["etc/bind/rndc.key"],
    },
    Rule {
        name: "login-records",
        reason: "programs expect the files, nobody has logged in yet",
        action: Action::Empty,
        paths: &[
            "var/log/btmp",
            "var/log/wtmp",
            "var/log/lastlog",
            "var/log/faillog",
        ],
    },
    Rule {
        name: "logs",
        reason: "they tell about the build, with its times",
        action: Action::RemoveUnlessShipped,
        paths: &["var/log/**"],
    },
    Rule {
        name: "runtime",
        reason: "a running system mounts a fresh /run and empties /tmp",
        action: Action::Remove,
        paths: &["run/**", "tmp/**", "var/tmp/**"],
    },
    Rule {
        name: "apt-lists",
        reason: "they are out of date when the image boots",
        action: Action::Remove,
        paths: &["var/lib/apt/lists/**"],
    },
    Rule {
        name: "caches",
        reason: "programs make them again, and they hold times and inode numbers",
        action: Action::RemoveUnlessShipped,
        paths: &[
            "var/cache/apt/*.bin",
            "var/cache/apt/archives/**",
            "var/cache/ldconfig/aux-cache",
            "var/cache/man/**",
            "var/cache/fontconfig/**",
        ],
    },
    Rule {
        name: "debconf-backups",
        reason: "debconf keeps the state before its last change",
        action: Action::Remove,
        paths: &["var/cache/debconf/*-old"],
    },
    Rule {
        name: "dpkg-backups",
        reason: "dpkg keeps the state before its last change, and locks",
        action: Action::Remove,
        paths: &[
            "var/lib/dpkg/*-old",
            "var/lib/dpkg/lock",
            "var/lib/dpkg/lock-frontend",
            "var/lib/dpkg/triggers/Lock",
            "var/backups/**",
        ],
    },
    Rule {
        name: "user-database-backups",
        reason: "tools that change users keep the state before, and a lock",
        action: Action::Remove,
        paths: &[
            "etc/passwd-",
            "etc/group-",
            "etc/shadow-",
            "etc/gshadow-",
            "etc/subuid-",
            "etc/subgid-",
            "etc/.pwd.lock",
        ],
    },
    Rule {
        name: "conffile-leftovers",
        reason: "versions of settings that are not in force",
        action: Action::RemoveUnlessShipped,
        paths: &[
            "etc/**/*.dpkg-old",
            "etc/**/*.dpkg-dist",
            "etc/**/*.dpkg-new",
            "etc/**/*.dpkg-tmp",
            "etc/**/*.ucf-old",
            "etc/**/*.ucf-dist",
        ],
    },
    Rule {
        name: "python-bytecode",
        reason: "it holds times of the build; python compiles again where it may write",
        action: Action::RemoveUnlessShipped,
        paths: &["**/__pycache__/*.pyc"],
    },
];

/// The rule for a file that is not a directory, when there is one. `shipped`
/// are the paths of this layer's packages.
pub(crate) fn rule_for(path: &TreePath, shipped: &BTreeSet<TreePath>) -> Option<&'static Rule> {
    let rule = RULES
        .iter()
        .find(|rule| rule.paths.iter().any(|pattern| matches(pattern, path)))?;
    if rule.action == Action::RemoveUnlessShipped && shipped.contains(path) {
        return None;
    }
    Some(rule)
}

/// Whether everything below the directory goes, directories too.
pub(crate) fn empties(path: &TreePath) -> bool {
    ["run", "tmp", "var/tmp"]
        .iter()
        .any(|name| path.as_bytes() == name.as_bytes())
}

fn matches(pattern: &str, path: &TreePath) -> bool {
    let parts: Vec<&[u8]> = pattern.split('/').map(str::as_bytes).collect();
    let names: Vec<&[u8]> = path.components().collect();
    components_match(&parts, &names)
}

fn components_match(parts: &[&[u8]], names: &[&[u8]]) -> bool {
    match (parts.split_first(), names.split_first()) {
        (None, None) => true,
        // Last: something below. Before others: any number of components.
        (Some((&b"**", [])), names) => names.is_some(),
        (Some((&b"**", rest)), Some((_, below))) => {
            components_match(rest, names) || components_match(parts, below)
        }
        (Some((part, parts)), Some((name, names))) => {
            name_matches(part, name) && components_match(parts, names)
        }
        _ => false,
    }
}

/// One `*` at most.
fn name_matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.iter().position(|byte| *byte == b'*') {
        None => pattern == name,
        Some(star) => {
            let (head, tail) = pattern.split_at(star);
            let tail = tail.strip_prefix(b"*").unwrap_or_default();
            name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(path: &str) -> Option<&'static str> {
        let path = TreePath::parse(path.as_bytes()).expect("a path");
        rule_for(&path, &BTreeSet::new()).map(|rule| rule.name)
    }

    #[test]
    fn identity_does_not_stay() {
        assert_eq!(rule("etc/machine-id"), Some("machine-id"));
        assert_eq!(rule("etc/ssh/ssh_host_rsa_key.pub"), Some("ssh-host-keys"));
        assert_eq!(rule("etc/ssh/sshd_config"), None);
        assert_eq!(rule("etc/passwd-"), Some("user-database-backups"));
        assert_eq!(rule("etc/passwd"), None);
    }

    #[test]
    fn patterns_stay_within_their_components() {
        assert_eq!(rule("var/lib/dpkg/status-old"), Some("dpkg-backups"));
        assert_eq!(rule("var/lib/dpkg/info/x-old"), None);
        assert_eq!(rule("var/log/apt/history.log"), Some("logs"));
        assert_eq!(rule("var/log"), None);
        assert_eq!(rule("etc/a/b/c.dpkg-old"), Some("conffile-leftovers"));
        assert_eq!(rule("etc/c.dpkg-old"), Some("conffile-leftovers"));
        assert_eq!(
            rule("usr/lib/python3/__pycache__/a.cpython-311.pyc"),
            Some("python-bytecode")
        );
    }

    #[test]
    fn what_a_package_ships_stays() {
        let path = TreePath::parse(b"var/log/README").expect("a path");
        let shipped = BTreeSet::from([path.clone()]);
        assert!(rule_for(&path, &shipped).is_none());
        assert!(rule_for(&path, &BTreeSet::new()).is_some());
    }

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = RULES.iter().map(|rule| rule.name).collect();
        assert_eq!(names.len(), RULES.len());
    }
}
