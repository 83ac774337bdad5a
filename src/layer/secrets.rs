//! Private keys and identities that a layer must not bring.
//!
//! What all customers of an image share is no secret. The cleaning rules take
//! away what the packages' own scripts make; what is left in a layer of any
//! kind was put there, by a person or by a script that nobody has a rule for.
//! It is found when the layer is made and kept in its record, so that later
//! builds need not look again; `allow_secrets` of `layer.toml` lets it pass.
//!
//! Looked at: files that no Debian package of the layer ships (what is in a
//! package is public already). A key is told by its first line, as RFC 7468
//! and the tools of PGP, SSH and `PuTTY` write it.

use std::collections::BTreeSet;
use std::io;

use serde::{Deserialize, Serialize};

use super::rules::matches;
use super::tar::escape_bytes;
use crate::tree::{Content, NodeKind, TreeDelta, TreePath};

/// Bytes of a file that are looked through: keys are short, and come early in
/// a file that holds several things.
const LOOKED_AT: u64 = 256 << 10;
/// Longest list of a package's files.
const MAX_LIST: u64 = 64 << 20;
/// Where dpkg lists the files of its packages.
const LISTS: [&str; 2] = ["var/lib/dpkg/info", "usr/lib/sysimage/dpkg/info"];
/// Lines that begin a private key, without dashes.
const ARMOUR: [&[u8]; 2] = [b" PRIVATE KEY-----", b"PGP PRIVATE KEY BLOCK-----"];
const PUTTY: &[u8] = b"PuTTY-User-Key-File-";
const AGE: &[u8] = b"AGE-SECRET-KEY-1";

/// A secret in a layer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// Where it is in the image, with a leading `/`, escaped.
    pub path: String,
    /// What it is.
    pub kind: SecretKind,
}

/// What a secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretKind {
    /// A private key.
    PrivateKey,
    /// A host key of SSH.
    HostKey,
    /// The identity of one machine.
    MachineId,
    /// A seed or a secret that each machine makes for itself.
    Seed,
}

impl SecretKind {
    /// A noun for messages.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::PrivateKey => "a private key",
            Self::HostKey => "an SSH host key",
            Self::MachineId => "a machine id",
            Self::Seed => "a random seed",
        }
    }
}

impl Secret {
    /// Whether one of the patterns allows it.
    pub(super) fn is_allowed(&self, patterns: &[String]) -> bool {
        let path = TreePath::parse(self.path.trim_start_matches('/').as_bytes());
        path.is_ok_and(|path| patterns.iter().any(|pattern| matches(pattern, &path)))
    }
}

/// Every secret of a layer, by path.
pub(super) fn find(delta: &TreeDelta) -> io::Result<Vec<Secret>> {
    let shipped = shipped(delta)?;
    let mut found = Vec::new();
    for (path, _, node) in delta.tree.iter() {
        let NodeKind::File(content) = &node.kind else {
            continue;
        };
        if content.size() == 0 || shipped.contains(path) {
            continue;
        }
        let kind = match identity(path, content)? {
            Some(kind) => Some(kind),
            None => holds_key(content)?.then_some(SecretKind::PrivateKey),
        };
        if let Some(kind) = kind {
            found.push(Secret {
                path: format!("/{}", escape_bytes(path.as_bytes())),
                kind,
            });
        }
    }
    Ok(found)
}

/// Files that are one machine's by their place.
fn identity(path: &TreePath, content: &Content) -> io::Result<Option<SecretKind>> {
    let is_id = |content: &Content| -> io::Result<bool> {
        let text = head(content, 64)?;
        let text = text.trim_ascii();
        Ok(text.len() == 32 && text.iter().all(u8::is_ascii_hexdigit))
    };
    Ok(match path.as_bytes() {
        b"etc/machine-id" | b"var/lib/dbus/machine-id" if is_id(content)? => {
            Some(SecretKind::MachineId)
        }
        b"var/lib/systemd/random-seed"
        | b"var/lib/systemd/credential.secret"
        | b"var/lib/urandom/random-seed" => Some(SecretKind::Seed),
        name => {
            let is_host_key = name.starts_with(b"etc/ssh/ssh_host_") && !name.ends_with(b".pub");
            is_host_key.then_some(SecretKind::HostKey)
        }
    })
}

fn head(content: &Content, limit: u64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(content.size().min(limit)).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    content.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn holds_key(content: &Content) -> io::Result<bool> {
    // Most files are told by less; programs hold the lines as constants.
    let start = head(content, 4096)?;
    if start.starts_with(b"\x7fELF") || start.contains(&0) {
        return Ok(false);
    }
    if begins_key(&start) {
        return Ok(true);
    }
    Ok(content.size() > start.len() as u64 && begins_key(&head(content, LOOKED_AT)?))
}

/// Whether a line begins a private key, with another line after it.
fn begins_key(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let line = line.trim_ascii();
        let is_armour = line
            .strip_prefix(b"-----BEGIN ")
            .is_some_and(|kind| ARMOUR.iter().any(|end| is_end(kind, end)));
        // A line alone is a mention, not a key.
        let has_body = lines
            .peek()
            .is_some_and(|next| next.trim_ascii().len() > 16);
        if is_armour && has_body || line.starts_with(PUTTY) || line.starts_with(AGE) {
            return true;
        }
    }
    false
}

fn is_end(kind: &[u8], end: &[u8]) -> bool {
    // `BEGIN PRIVATE KEY` has nothing between the two words.
    kind.ends_with(end) || end.strip_prefix(b" ") == Some(kind)
}

/// Paths that the layer's packages ship, under every name that a merged /usr
/// gives them.
fn shipped(delta: &TreeDelta) -> io::Result<BTreeSet<TreePath>> {
    let mut shipped = BTreeSet::new();
    for folder in LISTS {
        let folder = TreePath::parse(folder.as_bytes()).expect("a relative path");
        for (path, _, node) in delta.tree.subtree(&folder) {
            let is_list = path.as_bytes().ends_with(b".list");
            let Some(content) = node.content().filter(|_| is_list) else {
                continue;
            };
            for line in content.read_all(MAX_LIST)?.split(|byte| *byte == b'\n') {
                let name = line.strip_prefix(b"/").unwrap_or(line);
                if let Ok(path) = TreePath::parse(name) {
                    if let Ok(merged) = TreePath::parse(&[b"usr/", name].concat()) {
                        shipped.insert(merged);
                    }
                    shipped.insert(path);
                }
            }
        }
    }
    Ok(shipped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    const BODY: &str = "MC4CAQAwBQYDK2VwBCIEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n";

    fn delta(files: &[(&str, &[u8])]) -> TreeDelta {
        let mut delta = TreeDelta::new();
        for (path, bytes) in files {
            let path = TreePath::parse(path.as_bytes()).expect("a path");
            let node = Node::file(0o644, Content::from_bytes(*bytes));
            delta.put(path, node).expect("put");
        }
        delta
    }

    fn found(files: &[(&str, &[u8])]) -> Vec<(String, SecretKind)> {
        let secrets = find(&delta(files)).expect("in memory");
        secrets
            .into_iter()
            .map(|secret| (secret.path, secret.kind))
            .collect()
    }

    fn key(kind: &str) -> Vec<u8> {
        format!("-----BEGIN {kind}-----\n{BODY}-----END {kind}-----\n").into_bytes()
    }

    #[test]
    fn private_keys_of_every_tool_are_found() {
        for kind in [
            "PRIVATE KEY",
            "RSA PRIVATE KEY",
            "EC PRIVATE KEY",
            "ENCRYPTED PRIVATE KEY",
            "OPENSSH PRIVATE KEY",
            "PGP PRIVATE KEY BLOCK",
        ] {
            let found = found(&[("opt/app/key", &key(kind))]);
            assert_eq!(
                found,
                [("/opt/app/key".into(), SecretKind::PrivateKey)],
                "{kind}"
            );
        }
        let putty = b"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n";
        assert_eq!(found(&[("a.ppk", putty)]).len(), 1);
        let behind = [&[b'#'; 8000][..], b"\n", &key("PRIVATE KEY")].concat();
        assert_eq!(found(&[("bundle.pem", &behind)]).len(), 1);
        let windows = key("PRIVATE KEY");
        let windows = String::from_utf8(windows)
            .expect("text")
            .replace('\n', "\r\n");
        assert_eq!(found(&[("dos.pem", windows.as_bytes())]).len(), 1);
    }

    #[test]
    fn what_only_speaks_of_keys_is_none() {
        for (what, bytes) in [
            ("a public key", key("PUBLIC KEY")),
            ("a certificate", key("CERTIFICATE")),
            (
                "a manual",
                b"Begins with -----BEGIN PRIVATE KEY-----.\n".to_vec(),
            ),
            ("a mention", b"-----BEGIN PRIVATE KEY-----\n...\n".to_vec()),
            (
                "a program",
                [b"\x7fELF\0", &key("PRIVATE KEY")[..]].concat(),
            ),
        ] {
            assert_eq!(found(&[("x", &bytes)]), [], "{what}");
        }
    }

    #[test]
    fn identities_are_told_by_their_place() {
        let id = b"0123456789abcdef0123456789abcdef\n";
        assert_eq!(
            found(&[
                ("etc/machine-id", id),
                ("etc/ssh/ssh_host_ed25519_key", b"x"),
                ("etc/ssh/ssh_host_ed25519_key.pub", b"x"),
                ("etc/ssh/sshd_config", b"x"),
                ("var/lib/dbus/machine-id", b"uninitialized\n"),
                ("var/lib/systemd/random-seed", b"x"),
            ]),
            [
                ("/etc/machine-id".into(), SecretKind::MachineId),
                ("/etc/ssh/ssh_host_ed25519_key".into(), SecretKind::HostKey),
                ("/var/lib/systemd/random-seed".into(), SecretKind::Seed),
            ]
        );
        assert_eq!(found(&[("etc/machine-id", b"")]), []);
    }

    #[test]
    fn what_a_package_ships_is_public() {
        let key = key("RSA PRIVATE KEY");
        assert_eq!(
            found(&[
                ("usr/lib/python3/test/keycert.pem", &key),
                ("usr/lib/tls/key.pem", &key),
                ("var/lib/app/own.pem", &key),
                (
                    "var/lib/dpkg/info/x.list",
                    b"/.\n/usr/lib/python3/test/keycert.pem\n/lib/tls/key.pem\n",
                ),
            ]),
            [("/var/lib/app/own.pem".into(), SecretKind::PrivateKey)]
        );
    }

    #[test]
    fn a_pattern_allows() {
        let secret = Secret {
            path: "/opt/app/test/a.pem".into(),
            kind: SecretKind::PrivateKey,
        };
        let allows = |pattern: &str| secret.is_allowed(&[pattern.to_owned()]);
        assert!(allows("/opt/app/test/*.pem") && allows("/opt/**"));
        assert!(!allows("/opt/app/*.pem") && !secret.is_allowed(&[]));
    }
}
