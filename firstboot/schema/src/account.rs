//! People who may log in: names, SSH keys, password hashes.

use std::fmt;

use crate::address::{all, parsed};
use crate::document::{Found, PRIVATE_KEY, Section};
use crate::name::text_type;
use crate::problem::Code;
use crate::report::{Finding, Report};
use crate::secret::Secret;

/// Accounts at most.
const MAX_USERS: usize = 64;
/// SSH keys of one account at most.
const MAX_KEYS: usize = 64;
/// Length of a user's name at most, as `useradd` has it.
const MAX_NAME: usize = 32;

/// Accounts and groups of every Debian system, and of the packages that an
/// appliance is likely to have; a person cannot take their names.
/// Source: base-passwd 3.6 `passwd.master` and `group.master`.
pub(crate) const TAKEN: &[&str] = &[
    "_apt",
    "adm",
    "audio",
    "backup",
    "bin",
    "cdrom",
    "crontab",
    "daemon",
    "dialout",
    "dip",
    "disk",
    "fax",
    "floppy",
    "games",
    "gnats",
    "input",
    "irc",
    "kmem",
    "kvm",
    "list",
    "lp",
    "mail",
    "man",
    "messagebus",
    "news",
    "nobody",
    "nogroup",
    "operator",
    "plugdev",
    "proxy",
    "render",
    "sasl",
    "sgx",
    "shadow",
    "src",
    "sshd",
    "staff",
    "sudo",
    "sync",
    "sys",
    "systemd-journal",
    "systemd-network",
    "systemd-resolve",
    "systemd-timesync",
    "tape",
    "tty",
    "users",
    "utmp",
    "uucp",
    "video",
    "voice",
    "www-data",
];

/// A user's name: a small letter or `_`, then small letters, digits, `_` and
/// `-`, 32 characters at most.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserName(String);
text_type!(UserName);

impl UserName {
    fn parse(text: &str) -> Result<Self, Finding> {
        let is_name = (1..=MAX_NAME).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && text
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        if !is_name {
            return Err(Finding::invalid("this is not a user's name")
                .allowed("a small letter, then small letters, digits, `_` and `-`, 32 at most")
                .remedy("write for example [user.admin]"));
        }
        if TAKEN.contains(&text) {
            return Err(
                Finding::new(Code::Conflict, "this name belongs to the system")
                    .remedy("choose another name, for example [user.admin]"),
            );
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether this is the superuser.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0 == "root"
    }
}

/// A public key as it stands in `authorized_keys`, without options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshKey {
    kind: &'static str,
    encoded: String,
    comment: String,
}

/// Kinds of keys that OpenSSH 9 accepts, and how many fields follow the name
/// of the kind in the encoded key (RFC 4253 section 6.6, RFC 5656, RFC 8709,
/// OpenSSH PROTOCOL.u2f).
const KINDS: &[(&str, usize)] = &[
    ("ssh-ed25519", 1),
    ("sk-ssh-ed25519@openssh.com", 2),
    ("ecdsa-sha2-nistp256", 2),
    ("ecdsa-sha2-nistp384", 2),
    ("ecdsa-sha2-nistp521", 2),
    ("sk-ecdsa-sha2-nistp256@openssh.com", 3),
    ("ssh-rsa", 2),
];

impl SshKey {
    pub(crate) fn parse(text: &str) -> Result<Self, Finding> {
        let refuse = |message: &str, remedy: &str| {
            Err(Finding::invalid(message)
                .allowed("one line of a public key file")
                .remedy(remedy))
        };
        let whole =
            "copy the whole line of the .pub file, for example \"ssh-ed25519 AAAA... name\"";
        if text.contains(PRIVATE_KEY) {
            return Err(Finding::private_key());
        }
        let mut words = text.split_ascii_whitespace();
        let (first, encoded) = (words.next().unwrap_or_default(), words.next());
        if first == "ssh-dss" {
            return refuse(
                "DSA keys are not accepted any more",
                "make an Ed25519 key with `ssh-keygen`",
            );
        }
        if first.contains("-cert-v01@") {
            return refuse(
                "this is a certificate of a key, which is not taken",
                "put the line of the .pub file here that the certificate was made for",
            );
        }
        let Some((kind, fields)) = KINDS.iter().find(|(kind, _)| *kind == first) else {
            let has_options = KINDS.iter().any(|(kind, _)| text.contains(kind));
            return if has_options {
                refuse(
                    "options before the key are not allowed",
                    "begin the line with the kind of key",
                )
            } else {
                refuse("this is not an SSH public key", whole)
            };
        };
        let Some(encoded) = encoded else {
            return refuse("the key itself is missing after its kind", whole);
        };
        let Some(blob) = base64(encoded) else {
            return refuse("the key is damaged: not base64", whole);
        };
        match wire_fields(&blob) {
            Some(found) if found.first() != Some(&kind.as_bytes()) => {
                return refuse("the key is of another kind than its first word says", whole);
            }
            Some(found) if found.len() == fields + 1 && is_sound(kind, &found) => {}
            _ => return refuse("the key is damaged: its parts do not fit", whole),
        }
        if *kind == "ssh-rsa" && rsa_bits(&blob) < 2048 {
            return refuse(
                "the RSA key is shorter than 2048 bits",
                "make an Ed25519 key with `ssh-keygen`",
            );
        }
        Ok(Self {
            kind,
            encoded: encoded.to_owned(),
            comment: words.collect::<Vec<_>>().join(" "),
        })
    }
}

impl fmt::Display for SshKey {
    /// The line of `authorized_keys`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.encoded)?;
        if self.comment.is_empty() {
            Ok(())
        } else {
            write!(f, " {}", self.comment)
        }
    }
}

/// Decodes RFC 4648 base64; `None` when it is not exactly that.
#[must_use]
pub fn base64(text: &str) -> Option<Vec<u8>> {
    let body = text.trim_end_matches('=');
    let padding = text.len() - body.len();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for c in body.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    (bits & ((1 << count) - 1) == 0).then_some(bytes)
}

/// The strings of an encoded key, each with its length before it (RFC 4251
/// section 5); `None` when they do not fill the bytes exactly.
fn wire_fields(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (field, rest) = rest.split_at_checked(length)?;
        fields.push(field);
        bytes = rest;
    }
    Some(fields)
}

/// Whether the fields have the lengths that their kind demands.
fn is_sound(kind: &str, fields: &[&[u8]]) -> bool {
    let length = |at: usize| fields.get(at).map_or(0, |field| field.len());
    // An uncompressed point is a byte 4 and two coordinates (SEC 1, 2.3.3).
    let is_point = |at: usize, size: usize| {
        length(at) == 1 + 2 * size && fields.get(at).and_then(|field| field.first()) == Some(&4)
    };
    let curve = kind.strip_prefix("ecdsa-sha2-").unwrap_or("nistp256");
    let names_curve = fields.get(1) == Some(&curve.as_bytes());
    match kind {
        "ssh-ed25519" => length(1) == 32,
        "sk-ssh-ed25519@openssh.com" => length(1) == 32 && length(2) > 0,
        "ecdsa-sha2-nistp256" => names_curve && is_point(2, 32),
        "ecdsa-sha2-nistp384" => names_curve && is_point(2, 48),
        "ecdsa-sha2-nistp521" => names_curve && is_point(2, 66),
        "sk-ecdsa-sha2-nistp256@openssh.com" => names_curve && is_point(2, 32) && length(3) > 0,
        _ => length(1) > 0 && length(2) > 0,
    }
}

/// Bits of the modulus, the third field of an RSA key.
fn rsa_bits(blob: &[u8]) -> usize {
    let fields = wire_fields(blob).unwrap_or_default();
    let modulus = fields.get(2).copied().unwrap_or_default();
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let top = modulus.get(zeros).map_or(0, |byte| byte.leading_zeros());
    ((modulus.len() - zeros) * 8).saturating_sub(usize::try_from(top).unwrap_or(0))
}

/// Checks a hash as `crypt(5)` writes them: yescrypt, SHA-512, SHA-256, bcrypt.
fn parse_hash(text: &str) -> Result<Secret, Finding> {
    let is_digest = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/'))
    };
    let mut parts = text.split('$');
    let before = parts.next();
    let method = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    let is_hash = before == Some("")
        && match (method, rest.as_slice()) {
            ("y" | "gy", [settings, salt, digest]) => {
                !settings.is_empty()
                    && is_digest(settings)
                    && is_digest(salt)
                    && !salt.is_empty()
                    && is_digest(digest)
                    && digest.len() == 43
            }
            ("6", [salt, digest]) => is_salt(salt) && is_digest(digest) && digest.len() == 86,
            ("6", [rounds, salt, digest]) => {
                is_rounds(rounds) && is_salt(salt) && is_digest(digest) && digest.len() == 86
            }
            ("5", [salt, digest]) => is_salt(salt) && is_digest(digest) && digest.len() == 43,
            ("5", [rounds, salt, digest]) => {
                is_rounds(rounds) && is_salt(salt) && is_digest(digest) && digest.len() == 43
            }
            ("2b" | "2y" | "2a", [cost, digest]) => {
                cost.len() == 2
                    && cost
                        .parse::<u8>()
                        .is_ok_and(|cost| (4..=31).contains(&cost))
                    && is_digest(digest)
                    && digest.len() == 53
            }
            _ => false,
        };
    if is_hash {
        return Ok(Secret::new(text.to_owned()));
    }
    let message = match (before, method) {
        (Some(""), "1" | "md5" | "sha1" | "3") => "this kind of hash is too weak",
        (Some(""), "y" | "gy" | "5" | "6" | "2a" | "2b" | "2y") => {
            "the hash is damaged or cut short"
        }
        _ => "this is not a password hash",
    };
    Err(Finding::invalid(message)
        .allowed(
            "a yescrypt, SHA-512, SHA-256 or bcrypt hash, beginning with $y$, $6$, $5$ or $2b$",
        )
        .remedy("put the output of `openssl passwd -6` or `mkpasswd -m yescrypt` in single quotes"))
}

fn is_salt(text: &str) -> bool {
    (1..=16).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/'))
}

fn is_rounds(text: &str) -> bool {
    text.strip_prefix("rounds=")
        .and_then(|number| number.parse::<u32>().ok())
        .is_some_and(|rounds| (1000..=999_999_999).contains(&rounds))
}

/// A `[user.NAME]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: UserName,
    /// Keys that may log in, in the order of the file.
    pub ssh_keys: Vec<SshKey>,
    /// The password as a `crypt(5)` hash; without one, no password fits.
    pub password_hash: Option<Secret>,
    /// Whether the user may become root through sudo.
    pub sudo: bool,
}

/// Reads the tables below `[user]`.
pub(crate) fn read_users(users: &Section<'_>, report: &mut Report<'_>) -> Vec<User> {
    let mut read = Vec::new();
    for (at, (name, value)) in users.entries().enumerate() {
        if at == MAX_USERS {
            let message = format!("there are more than {MAX_USERS} users");
            let finding =
                Finding::new(Code::OutOfRange, message).remedy("delete those that are not needed");
            name.note(report, finding);
            break;
        }
        let name = parsed(name, UserName::parse, report);
        let Some(section) = value.table(report) else {
            continue;
        };
        let user = read_user(section, report);
        if let Some(name) = name {
            if name.value.is_root() && user.sudo {
                let finding =
                    Finding::new(Code::Conflict, "root needs no sudo").remedy("delete `sudo`");
                name.note(report, finding);
            }
            read.push(User {
                name: name.value,
                ..user
            });
        }
    }
    read
}

/// Everything but the name, which stays empty.
fn read_user(mut section: Section<'_>, report: &mut Report<'_>) -> User {
    let can_log_in = section.has("ssh_keys") || section.has("password_hash");
    let keys = all(&mut section, "ssh_keys", MAX_KEYS, SshKey::parse, report);
    let hash = section
        .get("password_hash")
        .and_then(|found| found.text(report))
        .and_then(|found| parsed(found, parse_hash, report));
    let sudo = section
        .get("sudo")
        .and_then(|found| found.boolean(report))
        .is_some_and(|found| found.value);
    if !can_log_in {
        let finding = Finding::new(Code::MissingKey, "this user cannot log in")
            .allowed("ssh_keys, password_hash, sudo")
            .remedy("add ssh_keys = [\"ssh-ed25519 AAAA... name\"]");
        section.note(report, finding);
    }
    note_doubled(&keys, report);
    section.finish(report);
    User {
        name: UserName(String::new()),
        ssh_keys: keys.into_iter().map(|found| found.value).collect(),
        password_hash: hash.map(|found| found.value),
        sudo,
    }
}

fn note_doubled(keys: &[Found<SshKey>], report: &mut Report<'_>) {
    for (at, key) in keys.iter().enumerate() {
        let mut before = keys.iter().take(at);
        if before.any(|other| other.value.encoded == key.value.encoded) {
            let finding = Finding::new(Code::Conflict, "this key stands in the list already")
                .remedy("delete one of the two");
            key.note(report, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

    #[test]
    fn public_keys_are_kept_as_they_were_written() {
        let line = format!("{ED25519} ann at home");
        assert_eq!(
            SshKey::parse(&line).map(|key| key.to_string()).ok(),
            Some(line)
        );
        let spaced = format!("  {ED25519}  ");
        assert_eq!(
            SshKey::parse(&spaced)
                .map(|key| key.to_string())
                .ok()
                .as_deref(),
            Some(ED25519)
        );
    }

    #[test]
    fn damaged_keys_are_refused() {
        let cut = &ED25519[..ED25519.len() - 4];
        let wrong_kind = ED25519.replacen("ssh-ed25519", "ssh-rsa", 1);
        let option = format!("command=\"x\" {ED25519}");
        for bad in [
            "",
            "ssh-ed25519",
            "ssh-dss AAAA",
            "rubbish",
            cut,
            &wrong_kind,
            &option,
            "ssh-ed25519 AAAA*AAA",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
        ] {
            assert!(SshKey::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn base64_is_decoded_strictly() {
        assert_eq!(base64("Zm9vYg==").as_deref(), Some(b"foob".as_slice()));
        assert_eq!(base64("Zm9v").as_deref(), Some(b"foo".as_slice()));
        for bad in ["Zm9vYg=", "Zm9vYg", "Zm9vYh==", "Zm9v YmFy", "===="] {
            assert_eq!(base64(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_crypt_hashes_are_hashes() {
        let sha512 = format!("$6$saltsalt${}", "a".repeat(86));
        let slow = format!("$6$rounds=5000$saltsalt${}", "a".repeat(86));
        let yescrypt = format!("$y$j9T$saltsalt${}", "a".repeat(43));
        let bcrypt = format!("$2b$12${}", "a".repeat(53));
        for good in [&sha512, &slow, &yescrypt, &bcrypt] {
            assert!(parse_hash(good).is_ok(), "{good}");
        }
        let cut = &sha512[..sha512.len() - 1];
        let line = sha512.replace("salt", "sa:t");
        for bad in [
            "",
            "hunter2",
            "!",
            "*",
            "$1$salt$aaaaaaaaaaaaaaaaaaaaaa",
            cut,
            &line,
            "$6$",
            "$2b$99$x",
        ] {
            assert!(parse_hash(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_the_system_are_taken() {
        for bad in [
            "",
            "Ann",
            "1a",
            "-a",
            "a b",
            "a:b",
            "../a",
            "www-data",
            &"a".repeat(33),
        ] {
            assert!(UserName::parse(bad).is_err(), "{bad}");
        }
        assert!(UserName::parse("ann_2").is_ok() && UserName::parse("root").is_ok());
    }
}
