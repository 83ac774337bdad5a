//! What a configuration makes of a system, piece by piece: values that can be
//! kept, compared and put in place any number of times.

use std::io;

use consign_schema::Secret;

use crate::accounts;
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
            Self::HostsName { name } => put_hosts_name(root, name),
            Self::Account(account) => accounts::put(root, account),
        }
    }

    /// Where it is, for messages.
    pub fn place(&self) -> &str {
        match self {
            Self::File { path, .. } | Self::Link { path, .. } => path,
            Self::HostsName { .. } => HOSTS,
            Self::Account(account) => &account.name,
        }
    }
}

const HOSTS: &str = "/etc/hosts";
/// Debian's address of a machine's own name (Debian Reference, section 5.1.1).
const OWN_ADDRESS: &str = "127.0.1.1";

fn put_hosts_name(root: &Root, name: &str) -> io::Result<Change> {
    let old = root.read_text(HOSTS, consign_schema::MAX_SIZE)?;
    let new = hosts_with(&old, name);
    root.put(HOSTS, new.as_bytes(), Access::own(0o644))
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
