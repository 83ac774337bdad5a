//! Accounts in `/etc/passwd`, `/etc/shadow`, `/etc/group` and `/etc/gshadow`.
//!
//! Source: passwd(5), shadow(5), group(5), gshadow(5). Lines of others are
//! kept byte for byte. A home directory is made once and is its owner's from
//! then on: nothing is ever written below one later, since its owner could
//! put a link in the way.

use std::io;

use crate::item::Account;
use crate::root::{Access, Change, Root};

const PASSWD: &str = "/etc/passwd";
const SHADOW: &str = "/etc/shadow";
const GROUP: &str = "/etc/group";
const GSHADOW: &str = "/etc/gshadow";
const SKELETON: &str = "/etc/skel";
/// Account files above this are not ours to touch.
const MAX_FILE: usize = 4 << 20;
/// `HOME_MODE` of Debian's `login.defs`.
const HOME_MODE: u32 = 0o700;
/// A password field that no password matches; keys still do (sshd with PAM
/// refuses `!`, which means a locked account).
const NO_PASSWORD: &str = "*";
/// Groups that give rights, and that a configuration gives and takes.
const RIGHTS: &[&str] = &["sudo"];
/// First number of a person's account (`UID_MIN`).
const FIRST_ID: u32 = 1000;
/// Numbers from here on are for containers and dynamic users.
const LAST_ID: u32 = 59_999;

/// Makes the system have the account.
///
/// # Errors
///
/// What the system reports.
pub fn put(root: &Root, account: &Account) -> io::Result<Change> {
    let mut changes = Vec::new();
    let is_root = account.id == 0;
    if !is_root {
        for (file, mode) in [(GROUP, 0o644), (GSHADOW, 0o640)] {
            changes.push(edit(root, file, mode, |text| {
                without_member(text, RIGHTS, &account.name, &account.groups)
            })?);
        }
        changes.push(edit(root, GROUP, 0o644, |text| {
            with_line(text, &account.name, &group_line(account))
        })?);
        let gshadow = format!("{}:!::", account.name);
        changes.push(edit(root, GSHADOW, 0o640, |text| {
            with_line(text, &account.name, &gshadow)
        })?);
        for group in &account.groups {
            changes.push(edit(root, GROUP, 0o644, |text| {
                with_member(text, group, &account.name)
            })?);
            changes.push(edit(root, GSHADOW, 0o640, |text| {
                with_member(text, group, &account.name)
            })?);
        }
        changes.push(put_home(root, account)?);
    }
    let hash = account
        .password_hash
        .as_ref()
        .map_or(NO_PASSWORD, |hash| hash.expose());
    changes.push(edit(root, SHADOW, 0o640, |text| {
        with_password(text, &account.name, hash)
    })?);
    if !is_root {
        // The line that makes the account exist comes last.
        changes.push(edit(root, PASSWD, 0o644, |text| {
            with_line(text, &account.name, &passwd_line(account))
        })?);
    }
    let is_same = changes.iter().all(|change| *change == Change::Same);
    Ok(if is_same {
        Change::Same
    } else {
        Change::Written
    })
}

/// Makes the system not have the account; its home stays. Root only loses
/// its password.
///
/// # Errors
///
/// What the system reports.
pub fn remove(root: &Root, name: &str, id: u32) -> io::Result<Change> {
    let mut changes = Vec::new();
    if id == 0 {
        return edit(root, SHADOW, 0o640, |text| {
            with_password(text, name, NO_PASSWORD)
        });
    }
    // The line that makes the account exist goes first.
    for (file, mode) in [(PASSWD, 0o644), (SHADOW, 0o640)] {
        changes.push(edit(root, file, mode, |text| without_line(text, name))?);
    }
    for (file, mode) in [(GROUP, 0o644), (GSHADOW, 0o640)] {
        changes.push(edit(root, file, mode, |text| {
            without_member(&without_line(text, name), RIGHTS, name, &[])
        })?);
    }
    let is_same = changes.iter().all(|change| *change == Change::Same);
    Ok(if is_same {
        Change::Same
    } else {
        Change::Written
    })
}

/// Number of the account `name` in the text of a passwd file.
pub fn id_of(passwd: &str, name: &str) -> Option<u32> {
    line_of(passwd, name)?.split(':').nth(2)?.parse().ok()
}

/// The lowest number for a person that neither users nor groups have, nor
/// `taken` holds.
pub fn free_id(passwd: &str, group: &str, taken: &[u32]) -> Option<u32> {
    let numbers = |text: &str| -> Vec<u32> {
        let third = |line: &str| line.split(':').nth(2)?.parse().ok();
        text.lines().filter_map(third).collect()
    };
    let (users, groups) = (numbers(passwd), numbers(group));
    (FIRST_ID..=LAST_ID).find(|id| {
        ![users.as_slice(), &groups, taken]
            .iter()
            .any(|list| list.contains(id))
    })
}

/// Rewrites one file, keeping owner and mode of what is there.
fn edit(
    root: &Root,
    path: &str,
    mode: u32,
    change: impl FnOnce(&str) -> String,
) -> io::Result<Change> {
    let old = root.read(path, MAX_FILE)?;
    let access = match (&old, root.stat(path)?) {
        (Some(_), Some(stat)) => Access {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
        },
        _ => Access::own(mode),
    };
    let is_missing = old.is_none();
    let old = String::from_utf8(old.unwrap_or_default()).map_err(|_| io::ErrorKind::InvalidData)?;
    let new = change(&old);
    if is_missing && new.trim().is_empty() {
        return Ok(Change::Same);
    }
    root.put(path, new.as_bytes(), access)
}

fn line_of<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let is_it = |line: &&str| line.split(':').next() == Some(name);
    text.lines().find(is_it)
}

/// `text` with `line` in place of the line for `name`, or at its end.
fn with_line(text: &str, name: &str, line: &str) -> String {
    let is_it = |line: &str| line.split(':').next() == Some(name);
    let mut lines: Vec<&str> = text.lines().collect();
    match lines.iter_mut().find(|found| is_it(found)) {
        // Others may have joined the group; the number is what counts.
        Some(found) if same_start(found, line) => {}
        Some(found) => *found = line,
        None => lines.push(line),
    }
    lines.join("\n") + "\n"
}

/// Whether a group line differs from ours in nothing but its members.
fn same_start(found: &str, line: &str) -> bool {
    line.ends_with(':') && found.starts_with(line)
}

/// `text` without the line for `name`.
fn without_line(text: &str, name: &str) -> String {
    let lines = text
        .lines()
        .filter(|line| line.split(':').next() != Some(name));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// `text` with `user` among the members of none of `groups` but those `kept`.
fn without_member(text: &str, groups: &[&str], user: &str, kept: &[String]) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let group = line.split(':').next().unwrap_or_default();
        let is_it = groups.contains(&group) && !kept.iter().any(|kept| kept == group);
        match line.rsplit_once(':').filter(|_| is_it) {
            Some((start, members)) => {
                let members: Vec<&str> = members
                    .split(',')
                    .filter(|member| *member != user)
                    .collect();
                out.push_str(start);
                out.push(':');
                out.push_str(&members.join(","));
            }
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// `text` with `user` among the members of `group`, the last field.
fn with_member(text: &str, group: &str, user: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let is_it = line.split(':').next() == Some(group);
            let (start, members) = line.rsplit_once(':').unwrap_or((line, ""));
            if !is_it || members.split(',').any(|member| member == user) {
                line.to_owned()
            } else if members.is_empty() {
                format!("{start}:{user}")
            } else {
                format!("{start}:{members},{user}")
            }
        })
        .collect();
    lines.join("\n") + "\n"
}

/// `text` with the password field of `name` set; the other fields stay.
fn with_password(text: &str, name: &str, hash: &str) -> String {
    let line = match line_of(text, name).and_then(|line| line.split_once(':')?.1.split_once(':')) {
        Some((_, rest)) => format!("{name}:{hash}:{rest}"),
        // Never expires; no date of change, since there may be no clock.
        None => format!("{name}:{hash}::0:99999:7:::"),
    };
    with_line(text, name, &line)
}

fn passwd_line(account: &Account) -> String {
    let Account {
        name,
        id,
        home,
        shell,
        ..
    } = account;
    format!("{name}:x:{id}:{id}::{home}:{shell}")
}

fn group_line(account: &Account) -> String {
    format!("{}:x:{}:", account.name, account.id)
}

/// Makes the home directory with the skeleton's files, once.
fn put_home(root: &Root, account: &Account) -> io::Result<Change> {
    if root.exists(&account.home) {
        return Ok(Change::Same);
    }
    let access = |mode| Access::of(account.id, mode);
    // Under another name until it is whole, so that a cut leaves no half.
    let (parent, name) = account.home.rsplit_once('/').unwrap_or(("", &account.home));
    let fresh = format!("{parent}/.{name}.consign-new");
    root.put_directory(&fresh, access(HOME_MODE))?;
    for name in root.list(SKELETON)? {
        let path = format!("{SKELETON}/{name}");
        if root.is_file(&path)?
            && let Some(bytes) = root.read(&path, MAX_FILE)?
        {
            root.put(&format!("{fresh}/{name}"), &bytes, access(0o644))?;
        }
    }
    root.rename(&fresh, &account.home)?;
    Ok(Change::Written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::testing::Folder;
    use consign_schema::Secret;

    const PASSWD_TEXT: &str =
        "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33:w:/var/www:/usr/sbin/nologin\n";
    const GROUP_TEXT: &str = "root:x:0:\nsudo:x:27:bob\n";

    fn account(name: &str, id: u32) -> Account {
        Account {
            name: name.into(),
            id,
            home: format!("/home/{name}"),
            shell: "/bin/sh".into(),
            password_hash: Some(Secret::new("$6$x$y".into())),
            groups: vec!["sudo".into()],
        }
    }

    fn system() -> Folder {
        Folder::with(&[
            (PASSWD, PASSWD_TEXT),
            (GROUP, GROUP_TEXT),
            (SHADOW, "root:*:19675:0:99999:7:::\n"),
            (GSHADOW, "root:*::\nsudo:*::bob\n"),
            ("/etc/skel/.profile", "# profile\n"),
        ])
    }

    #[test]
    fn an_account_is_made_once_and_whole() {
        let system = system();
        let ann = account("ann", 1000);
        assert_eq!(put(&system.root, &ann).expect("put"), Change::Written);
        assert_eq!(
            system.text(PASSWD),
            format!("{PASSWD_TEXT}ann:x:1000:1000::/home/ann:/bin/sh\n")
        );
        assert_eq!(
            system.text(GROUP),
            "root:x:0:\nsudo:x:27:bob,ann\nann:x:1000:\n"
        );
        assert_eq!(
            system.text(SHADOW),
            "root:*:19675:0:99999:7:::\nann:$6$x$y::0:99999:7:::\n"
        );
        assert_eq!(system.text(GSHADOW), "root:*::\nsudo:*::bob,ann\nann:!::\n");
        assert_eq!(system.text("/home/ann/.profile"), "# profile\n");
        assert_eq!(put(&system.root, &ann).expect("put"), Change::Same);
    }

    #[test]
    fn root_keeps_all_but_its_password() {
        let system = system();
        let mut root = account("root", 0);
        root.home = "/root".into();
        assert_eq!(put(&system.root, &root).expect("put"), Change::Written);
        assert_eq!(system.text(PASSWD), PASSWD_TEXT);
        assert_eq!(system.text(SHADOW), "root:$6$x$y:19675:0:99999:7:::\n");
        root.password_hash = None;
        put(&system.root, &root).expect("put");
        assert_eq!(system.text(SHADOW), "root:*:19675:0:99999:7:::\n");
    }

    #[test]
    fn a_home_that_is_there_is_left_alone() {
        let system = system();
        std::fs::create_dir_all(system.path().join("home/ann")).expect("a home");
        put(&system.root, &account("ann", 1000)).expect("put");
        assert!(!system.path().join("home/ann/.profile").exists());
    }

    #[test]
    fn members_that_others_added_stay() {
        let system = system();
        put(&system.root, &account("ann", 1000)).expect("put");
        let group = system.text(GROUP).replace("ann:x:1000:", "ann:x:1000:bob");
        std::fs::write(system.path().join("etc/group"), &group).expect("write");
        assert_eq!(
            put(&system.root, &account("ann", 1000)).expect("put"),
            Change::Same
        );
        assert_eq!(system.text(GROUP), group);
    }

    #[test]
    fn numbers_are_free_among_users_and_groups() {
        assert_eq!(free_id(PASSWD_TEXT, GROUP_TEXT, &[]), Some(1000));
        assert_eq!(
            free_id("a:x:1000:5::/:/\n", "b:x:1001:\n", &[1002]),
            Some(1003)
        );
        assert_eq!(id_of(PASSWD_TEXT, "www-data"), Some(33));
        assert_eq!(id_of(PASSWD_TEXT, "www"), None);
    }
}
