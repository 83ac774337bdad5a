//! dpkg's database, written as dpkg would after unpacking.
//!
//! Source: dpkg's `doc/` and dpkg(1), dpkg-query(1), deb-triggers(5): `status`
//! (stanzas), `info/NAME.list` and the control files beside it, `triggers/`,
//! `diversions` (three lines each), `statoverride` (user, group, mode, path).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::archive::{Unpacked, What};
use super::control::{Control, Stanza, stanzas};
use super::place::Placed;
use crate::layer::sandbox::{Fault, Root};
use crate::tree::{Metadata, TreePath};

/// Where the database is.
const ADMIN: &str = "var/lib/dpkg";
/// Longest file of the database that is read.
const MAX_FILE: u64 = 256 << 20;

/// A package in the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installed {
    /// `NAME`, or `NAME:ARCHITECTURE` where the files are named so.
    pub(crate) database_name: String,
    pub(crate) stanza: Stanza,
}

/// What the root's database says, kept as long as the root is not scanned.
#[derive(Debug, Default)]
pub(crate) struct Database {
    /// In the order of the file.
    pub(crate) packages: Vec<Installed>,
    diversions: Vec<Diversion>,
    overrides: BTreeMap<TreePath, Override>,
    /// Lists of files that were read, by database name.
    lists: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Diversion {
    from: TreePath,
    to: TreePath,
    /// Package whose own file stays in place; `:` for none.
    package: String,
}

/// Owner and mode that the administrator of the root has set for a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Override {
    uid: u32,
    gid: u32,
    mode: u16,
}

impl Override {
    pub(crate) fn applied_to(&self, meta: &Metadata) -> Metadata {
        Metadata {
            uid: self.uid,
            gid: self.gid,
            mode: self.mode,
            ..meta.clone()
        }
    }
}

fn admin(name: &str) -> TreePath {
    TreePath::parse(format!("{ADMIN}/{name}").as_bytes()).expect("a relative path without dots")
}

fn damaged(reason: impl Into<String>) -> Fault {
    Fault::Database {
        reason: reason.into(),
    }
}

fn text_of(root: &Root, path: &TreePath) -> Result<String, Fault> {
    let bytes = root.read(path, MAX_FILE)?.unwrap_or_default();
    String::from_utf8(bytes).map_err(|_| damaged(format!("`/{path}` is not UTF-8")))
}

impl Database {
    /// Reads the root's database; a root without one has an empty one.
    pub(crate) fn read(root: &Root) -> Result<Self, Fault> {
        let status = text_of(root, &admin("status"))?;
        let mut packages = Vec::new();
        for stanza in stanzas(&status) {
            let stanza = stanza.ok_or_else(|| damaged("`status` has a line that is no field"))?;
            let name = stanza.get("Package").unwrap_or_default().to_owned();
            let database_name = match (stanza.get("Multi-Arch"), stanza.get("Architecture")) {
                (Some("same"), Some(architecture)) => format!("{name}:{architecture}"),
                _ => name,
            };
            packages.push(Installed {
                database_name,
                stanza,
            });
        }
        let mut database = Self {
            packages,
            ..Self::default()
        };
        database.reread_rules(root)?;
        Ok(database)
    }

    /// Reads what preinst scripts may have changed.
    pub(crate) fn reread_rules(&mut self, root: &Root) -> Result<(), Fault> {
        self.diversions = diversions(&text_of(root, &admin("diversions"))?)?;
        let text = text_of(root, &admin("statoverride"))?;
        self.overrides = if text.trim().is_empty() {
            BTreeMap::new()
        } else {
            let users = text_of(root, &parse("etc/passwd"))?;
            let groups = text_of(root, &parse("etc/group"))?;
            overrides(&text, &users, &groups)?
        };
        Ok(())
    }

    /// Where `package` puts its file `path`, when it is diverted.
    pub(crate) fn diverted(&self, path: &TreePath, package: &str) -> Option<TreePath> {
        self.diversions
            .iter()
            .find(|diversion| &diversion.from == path && diversion.package != package)
            .map(|diversion| diversion.to.clone())
    }

    pub(crate) fn override_of(&self, path: &TreePath) -> Option<&Override> {
        self.overrides.get(path)
    }

    /// The installed package with the file `path`, and its version.
    pub(crate) fn owner(
        &mut self,
        root: &Root,
        path: &TreePath,
    ) -> Result<Option<(String, String)>, Fault> {
        let line = format!("/{path}");
        for at in 0..self.packages.len() {
            let Some(installed) = self.packages.get(at) else {
                break;
            };
            let field = |name| installed.stanza.get(name).unwrap_or_default().to_owned();
            let (name, version) = (field("Package"), field("Version"));
            let database_name = installed.database_name.clone();
            let list = self.list(root, &database_name)?;
            if list.lines().any(|listed| listed == line) {
                return Ok(Some((name, version)));
            }
        }
        Ok(None)
    }

    fn list(&mut self, root: &Root, database_name: &str) -> Result<&mut String, Fault> {
        if !self.lists.contains_key(database_name) {
            let path = admin(&format!("info/{database_name}.list"));
            let bytes = root.read(&path, MAX_FILE)?.unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            self.lists.insert(database_name.to_owned(), text);
        }
        Ok(self.lists.entry(database_name.to_owned()).or_default())
    }

    /// Takes `path` from the list of `owner`, whose file was replaced.
    pub(crate) fn disown(
        &mut self,
        root: &mut Root,
        owner: &str,
        path: &TreePath,
    ) -> Result<(), Fault> {
        let line = format!("/{path}");
        let names: Vec<String> = self
            .packages
            .iter()
            .filter(|installed| installed.stanza.get("Package") == Some(owner))
            .map(|installed| installed.database_name.clone())
            .collect();
        for name in names {
            let list = self.list(root, &name)?;
            let kept: String = list
                .lines()
                .filter(|listed| *listed != line)
                .flat_map(|listed| [listed, "\n"])
                .collect();
            list.clone_from(&kept);
            root.write(&admin(&format!("info/{name}.list")), kept.as_bytes(), 0o644)?;
        }
        Ok(())
    }

    /// Enters a package whose files have been placed, as unpacked.
    pub(crate) fn enter(
        &mut self,
        root: &mut Root,
        package: &Unpacked,
        placed: &Placed,
    ) -> Result<(), Fault> {
        let control = &package.control;
        let name = control.database_name();
        for (file, (bytes, mode)) in &control.files {
            root.write(&admin(&format!("info/{name}.{file}")), bytes, *mode)?;
        }
        let list = list_text(package);
        root.write(&admin(&format!("info/{name}.list")), list.as_bytes(), 0o644)?;
        if !control.files.contains_key("md5sums") {
            let sums = sums_text(package);
            root.write(
                &admin(&format!("info/{name}.md5sums")),
                sums.as_bytes(),
                0o644,
            )?;
        }
        let mut stanza = control.stanza.clone();
        stanza.set("Status", "install ok unpacked".into());
        let conffiles = conffiles_field(package, placed);
        if !conffiles.is_empty() {
            stanza.push("Conffiles", conffiles);
        }
        self.lists.insert(name.clone(), list);
        self.packages.push(Installed {
            database_name: name,
            stanza,
        });
        Ok(())
    }

    /// Enters a package without files, with the state that its stanza says.
    pub(crate) fn enter_empty(
        &mut self,
        root: &mut Root,
        name: &str,
        stanza: Stanza,
    ) -> Result<(), Fault> {
        root.write(&admin(&format!("info/{name}.list")), b"/.\n", 0o644)?;
        root.write(&admin(&format!("info/{name}.md5sums")), b"", 0o644)?;
        self.packages.push(Installed {
            database_name: name.to_owned(),
            stanza,
        });
        Ok(())
    }

    /// Writes `status`.
    pub(crate) fn write_status(&self, root: &mut Root) -> Result<(), Fault> {
        let mut text = String::new();
        for installed in &self.packages {
            text.push_str(&installed.stanza.to_text());
        }
        root.write(&admin("status"), text.as_bytes(), 0o644)
    }

    /// Packages that are not `install ok installed`, with their state.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        self.packages
            .iter()
            .filter_map(|installed| {
                let state = installed.stanza.get("Status").unwrap_or("no state");
                (state != "install ok installed")
                    .then(|| format!("{} ({state})", installed.database_name))
            })
            .collect()
    }

    /// Makes the files that dpkg expects to find.
    pub(crate) fn create(root: &mut Root) -> Result<(), Fault> {
        for folder in ["alternatives", "info", "parts", "triggers", "updates"] {
            root.make_directories(&admin(folder))?;
        }
        for (name, text) in [
            ("status", ""),
            ("available", ""),
            ("diversions", ""),
            ("statoverride", ""),
            ("info/format", "1\n"),
        ] {
            if root.status(&admin(name))?.is_none() {
                root.write(&admin(name), text.as_bytes(), 0o644)?;
            }
        }
        Ok(())
    }
}

fn parse(path: &str) -> TreePath {
    TreePath::parse(path.as_bytes()).expect("a relative path without dots")
}

fn diversions(text: &str) -> Result<Vec<Diversion>, Fault> {
    let path = |line: &str| {
        TreePath::parse(line.trim_start_matches('/').as_bytes())
            .map_err(|_| damaged("`diversions` has a path with `..`"))
    };
    let mut lines = text.lines();
    let mut found = Vec::new();
    while let Some(from) = lines.next() {
        let (Some(to), Some(package)) = (lines.next(), lines.next()) else {
            return Err(damaged("`diversions` ends in the middle"));
        };
        found.push(Diversion {
            from: path(from)?,
            to: path(to)?,
            package: package.to_owned(),
        });
    }
    Ok(found)
}

fn overrides(text: &str, users: &str, groups: &str) -> Result<BTreeMap<TreePath, Override>, Fault> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.splitn(4, ' ');
        let entry = (|| {
            let uid = id(fields.next()?, users)?;
            let gid = id(fields.next()?, groups)?;
            let mode = u16::from_str_radix(fields.next()?, 8).ok()? & 0o7777;
            let path = fields.next()?.trim_start_matches('/');
            let path = TreePath::parse(path.as_bytes()).ok()?;
            Some((path, Override { uid, gid, mode }))
        })();
        let (path, wish) =
            entry.ok_or_else(|| damaged("`statoverride` has a line it should not"))?;
        found.insert(path, wish);
    }
    Ok(found)
}

/// `#NUMBER`, or a name looked up in the text of /etc/passwd or /etc/group.
fn id(text: &str, names: &str) -> Option<u32> {
    if let Some(number) = text.strip_prefix('#') {
        return number.parse().ok();
    }
    names.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == text).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Every path of the package, parents as the archive has them.
fn list_text(package: &Unpacked) -> String {
    let mut text = String::from("/.\n");
    for entry in &package.entries {
        text.push('/');
        text.push_str(&String::from_utf8_lossy(entry.path.as_bytes()));
        text.push('\n');
    }
    text
}

fn sums_text(package: &Unpacked) -> String {
    let mut text = String::new();
    for (path, sum) in &package.sums {
        let path = String::from_utf8_lossy(path.as_bytes());
        writeln!(text, "{sum}  {path}").expect("writing to a string cannot fail");
    }
    text
}

fn conffiles_field(package: &Unpacked, placed: &Placed) -> String {
    let mut field = String::new();
    for path in package.control.conffiles() {
        let tree_path = parse_conffile(&path);
        let is_new = tree_path
            .as_ref()
            .is_some_and(|path| placed.new_conffiles.contains(path));
        let sum = tree_path.and_then(|path| package.sums.get(&path));
        let state = match sum {
            Some(sum) if !is_new => sum.as_str(),
            _ => "newconffile",
        };
        write!(field, "\n {path} {state}").expect("writing to a string cannot fail");
    }
    field
}

fn parse_conffile(path: &str) -> Option<TreePath> {
    TreePath::parse(path.trim_start_matches('/').as_bytes()).ok()
}

/// Adds the packages' interests to the trigger files, and notes the triggers
/// of packages below that files of `packages` set off; dpkg takes those in when it
/// runs next. Triggers that the new packages activate themselves are dpkg's
/// business: it sets them off when it configures them.
pub(crate) fn write_triggers(
    root: &mut Root,
    controls: &[Control],
    packages: &[&Unpacked],
    interested_before: &BTreeSet<String>,
) -> Result<(), Fault> {
    let mut by_path = lines_of(root, "triggers/File")?;
    let mut by_name: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let set_off = triggers_set_off(&by_path, packages, interested_before);
    for control in controls {
        let name = control.database_name();
        for (directive, trigger) in control.triggers() {
            let who = match directive.as_str() {
                "interest" | "interest-await" => name.clone(),
                "interest-noawait" => format!("{name}/noawait"),
                _ => continue,
            };
            if trigger.starts_with('/') {
                by_path.insert(format!("{trigger} {who}"));
            } else {
                by_name.entry(trigger).or_default().insert(who);
            }
        }
    }
    write_lines(root, "triggers/File", &by_path)?;
    for (trigger, mut who) in by_name {
        let file = format!("triggers/{trigger}");
        who.append(&mut lines_of(root, &file)?);
        write_lines(root, &file, &who)?;
    }
    let mut waiting = lines_of(root, "triggers/Unincorp")?;
    waiting.extend(set_off.into_iter().map(|trigger| format!("{trigger} -")));
    write_lines(root, "triggers/Unincorp", &waiting)
}

fn triggers_set_off(
    by_path: &BTreeSet<String>,
    packages: &[&Unpacked],
    interested_before: &BTreeSet<String>,
) -> BTreeSet<String> {
    let watched: Vec<(&str, TreePath)> = by_path
        .iter()
        .filter_map(|line| {
            let (trigger, who) = line.split_once(' ')?;
            let package = who.trim_end_matches("/noawait");
            let path = parse_conffile(trigger)?;
            interested_before
                .contains(package)
                .then_some((trigger, path))
        })
        .collect();
    let mut set_off = BTreeSet::new();
    for entry in packages.iter().flat_map(|package| &package.entries) {
        if matches!(entry.what, What::Excluded) {
            continue;
        }
        for (trigger, path) in &watched {
            if entry.path.starts_with(path) {
                set_off.insert((*trigger).to_owned());
            }
        }
    }
    set_off
}

fn lines_of(root: &Root, name: &str) -> Result<BTreeSet<String>, Fault> {
    let text = text_of(root, &admin(name))?;
    Ok(text
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

fn write_lines(root: &mut Root, name: &str, lines: &BTreeSet<String>) -> Result<(), Fault> {
    let text: String = lines
        .iter()
        .flat_map(|line| [line.as_str(), "\n"])
        .collect();
    root.write(&admin(name), text.as_bytes(), 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diversions_come_in_threes() {
        let found = diversions("/bin/sh\n/bin/sh.distrib\ndash\n").expect("one");
        let database = Database {
            diversions: found,
            ..Database::default()
        };
        let path = parse("bin/sh");
        assert_eq!(
            database.diverted(&path, "bash"),
            Some(parse("bin/sh.distrib"))
        );
        assert_eq!(database.diverted(&path, "dash"), None);
        assert!(diversions("/bin/sh\n").is_err());
    }

    #[test]
    fn overrides_know_names_and_numbers() {
        let found = overrides(
            "root ssh 2755 /usr/bin/ssh-agent\n#7 #8 640 /etc/x\n",
            "root:x:0:0::/root:/bin/sh\n",
            "root:x:0:\nssh:x:101:\n",
        )
        .expect("two");
        let agent = found.get(&parse("usr/bin/ssh-agent")).expect("there");
        assert_eq!((agent.uid, agent.gid, agent.mode), (0, 101, 0o2755));
        let other = found.get(&parse("etc/x")).expect("there");
        assert_eq!((other.uid, other.gid), (7, 8));
        assert!(overrides("nobody ssh 755 /x\n", "", "").is_err());
    }
}
