//! What a build leaves behind and an image must not have: identities of the
//! build host or of one machine, caches, logs, backups. By named rules.
//!
//! Patterns are paths in the tree: `*` matches within a component, a last
//! component `**` everything below.

use super::error::BootError;
use super::files::{path, text_file};
use crate::tree::{Content, FileTree, Node, TreePath};
use crate::units::Timestamp;

/// One rule: its name, why, what is done, and where.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// A stable name; the same as that of the layers' rule for the same files.
    pub name: &'static str,
    /// Why it is there.
    pub reason: &'static str,
    /// What is done.
    pub action: Action,
    /// Where.
    pub patterns: &'static [&'static str],
}

/// What is done by a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The entry goes, with all below it.
    Remove,
    /// A file stays, without its bytes.
    Empty,
    /// Its content is replaced by one that is the same everywhere.
    Replace,
}

use Action::{Empty, Remove, Replace};

const fn rule(
    name: &'static str,
    reason: &'static str,
    action: Action,
    patterns: &'static [&'static str],
) -> Rule {
    Rule {
        name,
        reason,
        action,
        patterns,
    }
}

/// All rules for the finished tree, in order.
pub const RULES: &[Rule] = &[
    // Identity: two machines from one image must share none of it.
    rule(
        "machine-id",
        "each machine makes its own at first boot; an empty file asks for that",
        Replace,
        &["etc/machine-id"],
    ),
    rule(
        "dbus-machine-id",
        "dbus reads /etc/machine-id where this one is missing",
        Remove,
        &["var/lib/dbus/machine-id"],
    ),
    rule(
        "ssh-host-keys",
        "a key that is in an image is no secret; each machine makes its own",
        Remove,
        &["etc/ssh/ssh_host_*"],
    ),
    rule(
        "random-seed",
        "a seed that many machines share seeds nothing",
        Remove,
        &[
            "var/lib/systemd/random-seed",
            "var/lib/systemd/credential.secret",
            "var/lib/urandom/random-seed",
        ],
    ),
    rule(
        "host-identity",
        "it names one machine",
        Remove,
        &["etc/machine-info", "etc/hostid"],
    ),
    rule(
        "snakeoil-key",
        "a key that is in an image is no secret; each machine makes its own at boot",
        Remove,
        &[
            "etc/ssl/private/ssl-cert-snakeoil.key",
            "etc/ssl/certs/ssl-cert-snakeoil.pem",
        ],
    ),
    rule(
        "rndc-key",
        "a key that is in an image is no secret; each machine makes its own at boot",
        Remove,
        &["etc/bind/rndc.key"],
    ),
    // The build host: names and resolvers that are wrong at the customer's.
    rule(
        "build-host",
        "names and resolvers of the build host are wrong at the customer's",
        Remove,
        &["etc/resolv.conf", "etc/mailname", "etc/adjtime"],
    ),
    rule(
        "host-name",
        "the site gives the name",
        Replace,
        &["etc/hostname"],
    ),
    rule(
        "shadow-dates",
        "the day of a password's last change is the day of the build: the source date stands there",
        Replace,
        &["etc/shadow"],
    ),
    // Litter: differs from build to build, or serves nobody.
    rule(
        "apt-lists",
        "they are out of date when the image boots",
        Remove,
        &["var/lib/apt/lists/**", "var/lib/apt/periodic/**"],
    ),
    rule(
        "caches",
        "programs make them again, and they hold times and inode numbers",
        Remove,
        &[
            "var/cache/apt/*.bin",
            "var/cache/apt/archives/**",
            "var/cache/ldconfig/aux-cache",
            "var/cache/man/**",
        ],
    ),
    rule(
        "dpkg-backups",
        "dpkg keeps the state before its last change, and locks",
        Remove,
        &[
            "var/lib/dpkg/*-old",
            "var/lib/dpkg/lock",
            "var/lib/dpkg/lock-frontend",
            "var/lib/dpkg/triggers/Lock",
            "var/backups/**",
        ],
    ),
    rule(
        "debconf-backups",
        "debconf keeps the state before its last change",
        Remove,
        &["var/cache/debconf/*-old", "var/cache/debconf/tmp.ci"],
    ),
    rule(
        "user-database-backups",
        "tools that change users keep the state before, and a lock",
        Remove,
        &[
            "etc/passwd-",
            "etc/group-",
            "etc/shadow-",
            "etc/gshadow-",
            "etc/subuid-",
            "etc/subgid-",
            "etc/.pwd.lock",
        ],
    ),
    rule(
        "build-logs",
        "they tell about the build, with its times",
        Remove,
        &[
            "var/log/alternatives.log",
            "var/log/apt/**",
            "var/log/bootstrap.log",
            "var/log/dpkg.log",
            "var/log/fontconfig.log",
            "var/log/journal/**",
        ],
    ),
    rule(
        "logs",
        "programs expect the files, nothing has happened yet",
        Empty,
        &["var/log/**"],
    ),
    rule(
        "runtime",
        "a running system mounts a fresh /run and empties /tmp",
        Remove,
        &["tmp/**", "var/tmp/**", "run/**"],
    ),
    rule(
        "mount-points",
        "the kernel's file systems are mounted there",
        Remove,
        &["proc/**", "sys/**", "dev/**"],
    ),
    rule(
        "shell-histories",
        "they tell what somebody typed",
        Remove,
        &[
            "root/.bash_history",
            "root/.wget-hsts",
            "root/.viminfo",
            "root/.lesshst",
        ],
    ),
    rule(
        "other-initramfs",
        "the initramfs is consign's own",
        Remove,
        &["initrd.img", "initrd.img.old", "vmlinuz", "vmlinuz.old"],
    ),
    rule(
        "kernel-on-root",
        "the kernel is on the EFI system partition",
        Remove,
        &[
            "boot/System.map-*",
            "boot/config-*",
            "boot/initrd.img-*",
            "boot/vmlinuz-*",
        ],
    ),
];

/// `/etc/hosts` where no layer brings one.
const HOSTS: &str = "\
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
";

/// Seconds of a day.
const DAY: i64 = 86_400;
/// No account file is longer.
const SHADOW_LIMIT: u64 = 1 << 20;

/// Applies every rule, and writes the neutral files: an empty
/// `/etc/machine-id`, the host name `localhost`, account dates of `time`.
///
/// # Errors
///
/// [`BootError::Tree`], [`BootError::Read`].
pub(super) fn clean(tree: &mut FileTree, time: Timestamp) -> Result<(), BootError> {
    for rule in RULES {
        for found in matches(tree, rule) {
            match rule.action {
                Remove => {
                    tree.remove(&found);
                }
                Empty => empty(tree, &found),
                // Below, each in its own way.
                Replace => {}
            }
        }
    }
    let mut machine_id = text_file("", time);
    machine_id.meta.mode = 0o444;
    tree.insert(path("etc/machine-id"), machine_id)?;
    tree.insert(path("etc/hostname"), text_file("localhost\n", time))?;
    if tree.at("etc/hosts").is_none() {
        tree.insert(path("etc/hosts"), text_file(HOSTS, time))?;
    }
    fix_account_dates(tree, time)
}

/// Something in a tree that a rule removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Name of the rule.
    pub rule: &'static str,
    /// Where it is.
    pub path: TreePath,
}

/// What `tree` has that an image must not have, by the same rules: nothing
/// in the root of a [`Bootable`](super::Bootable).
#[must_use]
pub fn leftovers(tree: &FileTree) -> Vec<Leftover> {
    let removing = RULES.iter().filter(|rule| matches!(rule.action, Remove));
    removing
        .flat_map(|rule| {
            matches(tree, rule).into_iter().map(|path| Leftover {
                rule: rule.name,
                path,
            })
        })
        .collect()
}

/// The rule that takes `entry` away, when there is one.
#[must_use]
pub fn rule_for(entry: &TreePath) -> Option<&'static Rule> {
    let removing = RULES.iter().filter(|rule| rule.action == Remove);
    removing
        .into_iter()
        .find(|rule| rule.patterns.iter().any(|pattern| is_match(pattern, entry)))
}

fn matches(tree: &FileTree, rule: &Rule) -> Vec<TreePath> {
    let mut found = Vec::new();
    for pattern in rule.patterns {
        // The fixed part of the pattern bounds the search.
        let fixed: Vec<&str> = pattern
            .split('/')
            .take_while(|component| !component.contains('*'))
            .collect();
        let top = path(&fixed.join("/"));
        found.extend(
            tree.subtree(&top)
                .filter(|(entry, _, _)| is_match(pattern, entry))
                .map(|(entry, _, _)| entry.clone()),
        );
    }
    found
}

fn is_match(pattern: &str, entry: &TreePath) -> bool {
    let mut components = entry.components();
    let mut last = None;
    for part in pattern.split('/') {
        last = Some(part);
        if part == "**" {
            return components.next().is_some();
        }
        match components.next() {
            Some(name) if is_name_match(part.as_bytes(), name) => {}
            _ => return false,
        }
    }
    last.is_some() && components.next().is_none()
}

/// At most one `*` in a component.
fn is_name_match(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.iter().position(|byte| *byte == b'*') {
        None => pattern == name,
        Some(star) => {
            let (before, after) = (&pattern[..star], &pattern[star + 1..]);
            name.len() >= before.len() + after.len()
                && name.starts_with(before)
                && name.ends_with(after)
        }
    }
}

fn empty(tree: &mut FileTree, found: &TreePath) {
    if let Some(node) = tree.get_mut(found)
        && node.content().is_some()
    {
        node.kind = crate::tree::NodeKind::File(Content::from_bytes(*b""));
    }
}

/// `/etc/shadow` holds the day of each password's last change, which is the
/// day of the build.
fn fix_account_dates(tree: &mut FileTree, time: Timestamp) -> Result<(), BootError> {
    let shadow = path("etc/shadow");
    let Some(content) = tree.get(&shadow).and_then(Node::content) else {
        return Ok(());
    };
    let bytes = content
        .read_all(SHADOW_LIMIT)
        .map_err(|source| BootError::Read {
            path: shadow.clone(),
            source,
        })?;
    let day = (time.seconds.div_euclid(DAY)).to_string();
    let lines: Vec<Vec<u8>> = bytes
        .split(|byte| *byte == b'\n')
        .map(|line| with_day(line, day.as_bytes()))
        .collect();
    if let Some(node) = tree.get_mut(&shadow) {
        node.kind = crate::tree::NodeKind::File(Content::from_bytes(lines.join(&b'\n')));
    }
    Ok(())
}

/// `shadow(5)`: the third field; empty and 0 (must change) mean something else.
fn with_day(line: &[u8], day: &[u8]) -> Vec<u8> {
    let mut fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
    if let Some(field) = fields.get_mut(2)
        && field.iter().all(u8::is_ascii_digit)
        && !matches!(*field, b"" | b"0")
    {
        *field = day;
    }
    fields.join(&b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Node {
        Node::file(0o640, Content::from_bytes(text.as_bytes()))
    }

    fn cleaned(files: &[(&str, &str)]) -> FileTree {
        let mut tree = FileTree::new();
        for (name, text) in files {
            tree.insert(path(name), file(text)).expect("insert");
        }
        clean(&mut tree, Timestamp::from_seconds(1_700_000_000)).expect("clean");
        tree
    }

    fn text(tree: &FileTree, name: &str) -> String {
        let content = tree.at(name).and_then(Node::content).expect("a file");
        String::from_utf8(content.read_all(1 << 16).expect("read")).expect("text")
    }

    #[test]
    fn identity_is_removed_and_neutral_files_stand_in() {
        let tree = cleaned(&[
            ("etc/ssh/ssh_host_ed25519_key", "secret"),
            ("etc/ssh/ssh_host_ed25519_key.pub", "public"),
            ("etc/ssh/sshd_config", "keep"),
            ("etc/machine-id", "0123"),
            ("etc/hostname", "builder"),
            ("etc/resolv.conf", "nameserver 10.0.0.1"),
            ("var/lib/systemd/random-seed", "seed"),
        ]);
        assert!(tree.at("etc/ssh/ssh_host_ed25519_key").is_none());
        assert!(tree.at("etc/ssh/ssh_host_ed25519_key.pub").is_none());
        assert_eq!(text(&tree, "etc/ssh/sshd_config"), "keep");
        assert_eq!(leftovers(&tree), []);
        assert_eq!(text(&tree, "etc/machine-id"), "");
        assert_eq!(text(&tree, "etc/hostname"), "localhost\n");
        assert!(tree.at("etc/resolv.conf").is_none());
        assert!(tree.at("var/lib/systemd/random-seed").is_none());
    }

    #[test]
    fn logs_are_emptied_and_keep_their_owner() {
        let tree = cleaned(&[
            ("var/log/nginx/access.log", "10.0.0.1 GET"),
            ("var/log/apt/term.log", "unpacked"),
            ("var/log/dpkg.log", "installed"),
        ]);
        assert_eq!(text(&tree, "var/log/nginx/access.log"), "");
        assert_eq!(
            tree.at("var/log/nginx/access.log")
                .expect("there")
                .meta
                .mode,
            0o640
        );
        assert!(tree.at("var/log/apt").is_some_and(Node::is_directory));
        assert!(tree.at("var/log/apt/term.log").is_none());
        assert!(tree.at("var/log/dpkg.log").is_none());
    }

    #[test]
    fn folders_that_are_mounted_over_stay_as_empty_folders() {
        let tree = cleaned(&[
            ("run/lock/x", ""),
            ("dev/null", ""),
            ("boot/vmlinuz-6.1", "kernel"),
            ("var/lib/apt/lists/mirror.example.com_InRelease", "x"),
        ]);
        for folder in ["run", "dev", "boot", "var/lib/apt/lists"] {
            assert_eq!(tree.subtree(&path(folder)).count(), 1, "{folder}");
        }
    }

    #[test]
    fn password_dates_are_those_of_the_source() {
        let tree = cleaned(&[(
            "etc/shadow",
            "root:*:20123:0:99999:7:::\nexpired:x:0:0:99999:7:::\nnew:!:20123::::::\n",
        )]);
        assert_eq!(
            text(&tree, "etc/shadow"),
            "root:*:19675:0:99999:7:::\nexpired:x:0:0:99999:7:::\nnew:!:19675::::::\n"
        );
    }

    #[test]
    fn rules_have_names_and_patterns_that_parse() {
        for rule in RULES {
            assert!(!rule.name.is_empty());
            for pattern in rule.patterns {
                assert!(TreePath::parse(pattern.as_bytes()).is_ok(), "{pattern}");
                assert!(
                    pattern
                        .split('/')
                        .all(|part| part == "**" || part.matches('*').count() < 2)
                );
            }
        }
    }
}
