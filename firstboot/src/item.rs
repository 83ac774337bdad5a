//! What a configuration makes of a system, piece by piece: values that can be
//! kept, compared and put in place any number of times.

use std::io;

use consign_schema::Secret;

use crate::accounts;
use crate::data_disk::{self, DataDisk};
use crate::root::{Access, Change, Root};

/// One piece of a rendered configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A file with exactly these bytes, owned by root.
    File {
        /// Absolute path.
        path: String,
        /// Permission bits.
        mode: u32,
        /// The content.
        bytes: Vec<u8>,
    },
    /// A symbolic link.
    Link {
        /// Absolute path.
        path: String,
        /// Where it leads.
        target: String,
    },
    /// The machine's own name in `/etc/hosts`.
    HostsName {
        /// The name, with its domain if it has one.
        name: String,
    },
    /// A person's account.
    Account(Account),
    /// Certificate authorities at the end of the bundle that programs read.
    Authorities {
        /// All of them, as PEM; empty: none.
        pem: String,
    },
    /// No file or link, where an older configuration had one.
    Absent {
        /// Absolute path.
        path: String,
    },
    /// No line of ours in `/etc/hosts`.
    NoHostsName,
    /// A file system on a data disk. It outlives every configuration.
    DataDisk(DataDisk),
    /// No account, where an older configuration had one; its home stays. Root
    /// only loses its password.
    NoAccount {
        /// The login name.
        name: String,
        /// The number; 0 for root.
        id: u32,
    },
}

/// An account as `/etc/passwd` and its companions hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// User and group number; 0 for root, whose entry keeps all but the password.
    pub id: u32,
    /// Absolute path of the home directory.
    pub home: String,
    /// Absolute path of the shell.
    pub shell: String,
    /// A `crypt(5)` hash; without one, no password fits.
    pub password_hash: Option<Secret>,
    /// Groups that it belongs to besides its own.
    pub groups: Vec<String>,
}

impl Item {
    /// A file of text.
    pub fn text(path: impl Into<String>, mode: u32, text: impl Into<String>) -> Self {
        Self::File {
            path: path.into(),
            mode,
            bytes: text.into().into_bytes(),
        }
    }

    /// Puts it in place; what is in place already is not touched.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn put(&self, root: &Root) -> io::Result<Change> {
        match self {
            Self::File { path, mode, bytes } => root.put(path, bytes, Access::own(*mode)),
            Self::Link { path, target } => root.put_link(path, target),
            Self::HostsName { name } => put_hosts_name(root, Some(name)),
            Self::Account(account) => accounts::put(root, account),
            Self::Absent { path } => root.remove(path),
            Self::Authorities { pem } => put_authorities(root, pem),
            Self::NoHostsName => put_hosts_name(root, None),
            Self::DataDisk(disk) => data_disk::settle(root, disk),
            Self::NoAccount { name, id } => accounts::remove(root, name, *id),
        }
    }

    /// What takes it away again; nothing for what is only taken away.
    pub fn undone(&self) -> Option<Self> {
        match self {
            Self::File { path, .. } | Self::Link { path, .. } => {
                Some(Self::Absent { path: path.clone() })
            }
            Self::HostsName { .. } => Some(Self::NoHostsName),
            Self::Account(account) => Some(Self::NoAccount {
                name: account.name.clone(),
                id: account.id,
            }),
            Self::Authorities { .. } => Some(Self::Authorities { pem: String::new() }),
            Self::Absent { .. }
            | Self::NoHostsName
            | Self::NoAccount { .. }
            | Self::DataDisk(_) => None,
        }
    }

    /// Whether it outlives a restart of the machine.
    pub fn is_kept(&self) -> bool {
        !self.place().starts_with("/run/")
    }

    /// Where it is, for messages.
    pub fn place(&self) -> &str {
        match self {
            Self::File { path, .. } | Self::Link { path, .. } | Self::Absent { path } => path,
            Self::HostsName { .. } | Self::NoHostsName => HOSTS,
            Self::Authorities { .. } => BUNDLE,
            Self::Account(Account { name, .. })
            | Self::NoAccount { name, .. }
            | Self::DataDisk(DataDisk { name, .. }) => name,
        }
    }
}

const HOSTS: &str = "/etc/hosts";
/// Debian's address of a machine's own name (Debian Reference, section 5.1.1).
const OWN_ADDRESS: &str = "127.0.1.1";

fn put_hosts_name(root: &Root, name: Option<&str>) -> io::Result<Change> {
    let old = root.read_text(HOSTS, consign_schema::MAX_SIZE)?;
    let new = match name {
        Some(name) => hosts_with(&old, name),
        None => hosts_without(&old),
    };
    root.put(HOSTS, new.as_bytes(), Access::own(0o644))
}

/// What programs read (Debian's `ca-certificates`).
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Everything after it is ours.
const MARK: &str = "# Added by the first-boot agent from site.toml.\n";
/// A bundle is never longer.
const MAX_BUNDLE: usize = 4 << 20;

fn put_authorities(root: &Root, pem: &str) -> io::Result<Change> {
    let old = root.read_text(BUNDLE, MAX_BUNDLE)?;
    let vendor = old.split(MARK).next().unwrap_or_default();
    let mut new = vendor.to_owned();
    if !pem.is_empty() {
        new.push_str(MARK);
        new.push_str(pem);
    }
    if old == new {
        return Ok(Change::Same);
    }
    root.put(BUNDLE, new.as_bytes(), Access::own(0o644))
}

/// `hosts` with one line for the machine's own name.
fn hosts_with(hosts: &str, name: &str) -> String {
    let short = name.split('.').next().unwrap_or(name);
    let names = if short == name {
        name.to_owned()
    } else {
        format!("{name} {short}")
    };
    let own = format!("{OWN_ADDRESS}\t{names}");
    let mut lines: Vec<&str> = hosts
        .lines()
        .filter(|line| line.split_ascii_whitespace().next() != Some(OWN_ADDRESS))
        .collect();
    let is_local = |line: &&str| line.split_ascii_whitespace().next() == Some("127.0.0.1");
    if !lines.iter().any(is_local) {
        lines.insert(0, "127.0.0.1\tlocalhost");
    }
    let at = lines.iter().position(is_local).map_or(0, |at| at + 1);
    lines.insert(at, &own);
    lines.join("\n") + "\n"
}

/// `hosts` without a line for the machine's own name.
fn hosts_without(hosts: &str) -> String {
    let lines = hosts
        .lines()
        .filter(|line| line.split_ascii_whitespace().next() != Some(OWN_ADDRESS));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::testing::Folder;

    #[test]
    fn the_own_name_has_one_line_and_the_rest_stays() {
        let vendor = "127.0.0.1 localhost\n127.0.1.1 old\n::1 localhost\n10.0.0.1 db\n";
        let hosts = hosts_with(vendor, "web-1.example.org");
        assert_eq!(
            hosts,
            "127.0.0.1 localhost\n127.0.1.1\tweb-1.example.org web-1\n::1 localhost\n10.0.0.1 db\n"
        );
        assert_eq!(hosts_with(&hosts, "web-1.example.org"), hosts);
        assert_eq!(
            hosts_with("", "web"),
            "127.0.0.1\tlocalhost\n127.0.1.1\tweb\n"
        );
    }

    #[test]
    fn authorities_come_and_go_behind_those_of_the_image() {
        let folder = Folder::with(&[(BUNDLE, "vendor\n")]);
        let put = |pem: &str| {
            let item = Item::Authorities { pem: pem.into() };
            item.put(&folder.root).expect("put");
            folder.text(BUNDLE)
        };
        assert_eq!(put("one\n"), format!("vendor\n{MARK}one\n"));
        assert_eq!(put("two\n"), format!("vendor\n{MARK}two\n"));
        assert_eq!(put(""), "vendor\n");
    }

    #[test]
    fn a_second_put_changes_nothing() {
        let folder = Folder::new();
        let items = [
            Item::text("/etc/hostname", 0o644, "web\n"),
            Item::Link {
                path: "/etc/localtime".into(),
                target: "../usr/share/zoneinfo/UTC".into(),
            },
            Item::HostsName { name: "web".into() },
        ];
        for item in &items {
            assert_eq!(
                item.put(&folder.root).expect("put"),
                Change::Written,
                "{}",
                item.place()
            );
        }
        for item in &items {
            assert_eq!(
                item.put(&folder.root).expect("put"),
                Change::Same,
                "{}",
                item.place()
            );
        }
    }
}
