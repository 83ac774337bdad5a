//! Accounts, SSH keys and sudo.
//!
//! Keys stand in a folder of root's (`AuthorizedKeysFile` of our sshd
//! drop-in), not below home directories: an owner could put a link there and
//! have root write through it. People may add keys of their own in `~/.ssh`.

use std::collections::BTreeMap;
use std::io;

use consign_schema::{Problem, SiteConfig, User};

use super::{Feature, Machine};
use crate::accounts::{free_id, id_of};
use crate::item::{Account, Item};
use crate::root::Root;

/// Folder of the keys, one file for each account.
pub const KEYS: &str = "/etc/ssh/authorized_keys.d";
const HOMES: &str = "/home";
/// Numbers below this are the system's own.
const FIRST_PERSON: u32 = 1000;
/// Numbers from here on are for containers, dynamic users and nobody.
const NO_PERSON: u32 = 60_000;

/// Accounts with their keys and rights.
///
/// # Errors
///
/// Names that the system has, sudo where there is none.
pub fn decide(site: &SiteConfig, machine: &Machine) -> Result<Vec<Item>, Vec<Problem>> {
    let mut items = Vec::new();
    let mut problems = Vec::new();
    let mut taken = Vec::new();
    for user in &site.users {
        let key = format!("user.{}", user.name);
        match number(user, machine, &taken) {
            Some(id) => {
                taken.push(id);
                items.extend(user_items(user, id, machine));
            }
            None => problems.push(site.problem(
                &key,
                "this name belongs to an account or a group of the system",
                "choose another name",
            )),
        }
        if user.sudo && !machine.has.contains(&Feature::Sudo) {
            problems.push(site.problem(
                &format!("{key}.sudo"),
                "this appliance has no sudo",
                "delete `sudo`, or ask the vendor for the package `sudo`",
            ));
        }
    }
    if problems.is_empty() {
        Ok(items)
    } else {
        Err(problems)
    }
}

/// `known`, with the owners of homes that no configuration knows of: one that
/// was taken back made them.
///
/// # Errors
///
/// What the system reports.
pub fn with_homes(
    root: &Root,
    mut known: BTreeMap<String, u32>,
) -> io::Result<BTreeMap<String, u32>> {
    for name in root.list(HOMES)? {
        let Some(stat) = root.stat(&format!("{HOMES}/{name}"))? else {
            continue;
        };
        let is_person = (FIRST_PERSON..NO_PERSON).contains(&stat.st_uid);
        let is_new = !known.values().any(|id| *id == stat.st_uid);
        // One with a dot in front was never whole.
        if is_person && is_new && !name.starts_with('.') {
            known.entry(name).or_insert(stat.st_uid);
        }
    }
    Ok(known)
}

/// The account's number; `None` when the name is the system's.
fn number(user: &User, machine: &Machine, taken: &[u32]) -> Option<u32> {
    let name = user.name.as_str();
    if user.name.is_root() {
        return Some(0);
    }
    if let Some(id) = id_of(&machine.passwd, name) {
        return Some(id).filter(|id| *id >= FIRST_PERSON);
    }
    if id_of(&machine.group, name).is_some_and(|id| id < FIRST_PERSON) {
        return None;
    }
    if let Some(id) = machine.known_ids.get(name) {
        return Some(*id);
    }
    let known: Vec<u32> = machine.known_ids.values().chain(taken).copied().collect();
    free_id(&machine.passwd, &machine.group, &known)
}

fn user_items(user: &User, id: u32, machine: &Machine) -> Vec<Item> {
    let name = user.name.as_str();
    let home = if id == 0 {
        "/root".to_owned()
    } else {
        format!("/home/{name}")
    };
    let mut items = vec![Item::Account(Account {
        name: name.to_owned(),
        id,
        home,
        shell: machine.shell.clone(),
        password_hash: user.password_hash.clone(),
        groups: if user.sudo {
            vec!["sudo".to_owned()]
        } else {
            Vec::new()
        },
    })];
    if !user.ssh_keys.is_empty() {
        let lines: String = user
            .ssh_keys
            .iter()
            .map(|key| key.to_string() + "\n")
            .collect();
        items.push(Item::text(format!("{KEYS}/{name}"), 0o644, lines));
    }
    if user.sudo {
        // Who has no password cannot be asked for one.
        let tag = if user.password_hash.is_some() {
            ""
        } else {
            "NOPASSWD: "
        };
        let text = format!("{name} ALL=(ALL:ALL) {tag}ALL\n");
        items.push(Item::text(
            format!("/etc/sudoers.d/50-consign-{name}"),
            0o440,
            text,
        ));
    }
    items
}

#[cfg(test)]
mod tests {
    use super::super::testing::{KEY, machine, paths, site, text_of};
    use super::*;
    use crate::root::testing::Folder;

    fn accounts(items: &[Item]) -> Vec<(&str, u32)> {
        let mut found = Vec::new();
        for item in items {
            if let Item::Account(account) = item {
                found.push((account.name.as_str(), account.id));
            }
        }
        found
    }

    #[test]
    fn each_user_gets_a_number_keys_and_rights() {
        let text = format!(
            "[user.ann]\nssh_keys = [\"{KEY} ann\"]\nsudo = true\n[user.bob]\nssh_keys = [\"{KEY} bob\"]\n[user.root]\nssh_keys = [\"{KEY}\"]\n"
        );
        let items = decide(&site(&text), &machine()).expect("decided");
        assert_eq!(
            accounts(&items),
            [("ann", 1000), ("bob", 1001), ("root", 0)]
        );
        assert_eq!(
            text_of(&items, "/etc/ssh/authorized_keys.d/ann"),
            Some(format!("{KEY} ann\n").as_str())
        );
        assert_eq!(
            text_of(&items, "/etc/sudoers.d/50-consign-ann"),
            Some("ann ALL=(ALL:ALL) NOPASSWD: ALL\n")
        );
        assert!(!paths(&items).contains(&"/etc/sudoers.d/50-consign-bob"));
    }

    #[test]
    fn numbers_outlive_the_root_they_were_given_on() {
        let text =
            format!("[user.ann]\nssh_keys = [\"{KEY}\"]\n[user.bob]\nssh_keys = [\"{KEY}\"]\n");
        let mut machine = machine();
        machine.known_ids.insert("bob".into(), 1000);
        let items = decide(&site(&text), &machine).expect("decided");
        assert_eq!(accounts(&items), [("ann", 1001), ("bob", 1000)]);
        machine.passwd = "bob:x:1007:1007::/home/bob:/bin/sh\n".into();
        let items = decide(&site(&text), &machine).expect("decided");
        assert_eq!(accounts(&items), [("ann", 1001), ("bob", 1007)]);
    }

    /// A configuration that was taken back is not there to say who had it.
    #[test]
    fn a_home_keeps_the_number_of_its_owner() {
        use std::os::unix::fs::{MetadataExt as _, chown};
        let folder = Folder::with(&[("/home/bob/x", ""), ("/home/.carl.consign-new/x", "")]);
        let home = folder.path().join("home/bob");
        if rustix::process::geteuid().is_root() {
            chown(&home, Some(1007), Some(1007)).expect("given away");
        }
        let id = std::fs::metadata(&home).expect("there").uid();
        let known = with_homes(&folder.root, BTreeMap::new()).expect("looked");
        assert_eq!(known, [("bob".to_owned(), id)].into());
        let ann = BTreeMap::from([("ann".to_owned(), id)]);
        let known = with_homes(&folder.root, ann.clone()).expect("looked");
        assert_eq!(known, ann, "one number has one owner");
        let known = with_homes(&Folder::new().root, ann.clone()).expect("looked");
        assert_eq!(known, ann);
    }

    #[test]
    fn accounts_of_the_system_are_refused() {
        let text = format!("[user.nginx]\nssh_keys = [\"{KEY}\"]\nsudo = true\n");
        let mut machine = machine();
        machine.has.remove(&Feature::Sudo);
        machine.passwd = "nginx:x:101:101::/:/bin/false\n".into();
        let problems = decide(&site(&text), &machine).expect_err("taken, and no sudo");
        let keys: Vec<&str> = problems
            .iter()
            .map(|problem| problem.key.as_str())
            .collect();
        assert_eq!(keys, ["user.nginx", "user.nginx.sudo"]);
        machine.passwd.clear();
        machine.group = "nginx:x:101:\n".into();
        assert!(decide(&site(&text), &machine).is_err());
    }
}
