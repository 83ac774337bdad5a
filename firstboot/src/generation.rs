//! Rendered configurations, kept on `/var`: staged, committed, put in place.
//!
//! ```text
//! /var/lib/consign/gen/0001/site.toml       as the customer wrote it
//! /var/lib/consign/gen/0001/files/DIGEST    content of the files
//! /var/lib/consign/gen/0001/manifest.toml   everything else, written last
//! /var/lib/consign/state                    which one counts
//! ```
//!
//! A generation has all that it needs to be put in place again: on a new root
//! in the other slot, after a cut, and as the one to go back to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::io;

use consign_schema::{MAX_SIZE, Secret};
use toml::de::DeTable;

use crate::digest::Digest;
use crate::item::{Account, Item};
use crate::root::{Access, Change, Root};
use crate::state::{Phase, State};
use crate::text::{number, parse, quoted, quoted_list, string, strings, tables};

const FOLDER: &str = "/var/lib/consign/gen";
/// Written when everything is in place; units behind the fence ask for it.
pub const CONFIGURED: &str = "/run/consign/configured";
/// A manifest is never longer.
const MAX_MANIFEST: usize = 4 << 20;
/// Nor is a rendered file.
const MAX_FILE: usize = 4 << 20;

/// A rendered configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The customer's file.
    pub site: Vec<u8>,
    /// `config.id`.
    pub id: String,
    /// `config.serial`.
    pub serial: u64,
    /// The role, if the image has any.
    pub role: Option<String>,
    /// The build of the image that it was rendered for.
    pub image: String,
    /// The pieces, in the order in which they are put in place.
    pub items: Vec<Item>,
}

/// Why a generation cannot be used.
#[derive(Debug)]
pub enum GenerationError {
    /// It is not what was committed.
    Damaged(u32),
    /// A piece could not be put in place.
    Put {
        /// Which.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// The record of the state could not be written.
    State(io::Error),
    /// It could not be kept.
    Stage(io::Error),
}

impl fmt::Display for GenerationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(number) => write!(f, "the kept configuration {number} is damaged"),
            Self::Put { place, source } => write!(f, "{place} cannot be written: {source}"),
            Self::State(error) => write!(f, "the state cannot be written: {error}"),
            Self::Stage(error) => write!(f, "the configuration cannot be kept: {error}"),
        }
    }
}

impl Generation {
    /// The digest of the customer's file: what a configuration is known by.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.site)
    }

    /// Numbers of its accounts, by name.
    pub fn account_ids(&self) -> BTreeMap<String, u32> {
        let accounts = self.items.iter().filter_map(|item| match item {
            Item::Account(account) => Some((account.name.clone(), account.id)),
            _ => None,
        });
        accounts.collect()
    }

    /// Keeps it as the one after `before` and makes it count.
    ///
    /// # Errors
    ///
    /// [`GenerationError::Stage`] and [`GenerationError::State`]; what counted
    /// before counts then.
    pub fn commit(&self, root: &Root, before: Option<&State>) -> Result<State, GenerationError> {
        let next = before.map_or(1, |state| state.generation + 1);
        let manifest = self.stage(root, next).map_err(GenerationError::Stage)?;
        let state = State {
            generation: next,
            manifest,
            previous: before.map(|state| state.generation),
            phase: Phase::Committed,
        };
        state.save(root).map_err(GenerationError::State)?;
        Ok(state)
    }

    /// Writes all of it; the digest of the manifest, which is written last.
    fn stage(&self, root: &Root, number: u32) -> io::Result<Digest> {
        let folder = folder(number);
        let private = |path: &str, bytes: &[u8]| root.put(path, bytes, Access::own(0o600));
        root.put_directory(&folder, Access::own(0o700))?;
        for item in &self.items {
            if let Item::File { bytes, .. } = item {
                private(&format!("{folder}/files/{}", Digest::of(bytes)), bytes)?;
            }
        }
        private(&format!("{folder}/site.toml"), &self.site)?;
        let manifest = self.manifest();
        private(&format!("{folder}/manifest.toml"), manifest.as_bytes())?;
        Ok(Digest::of(manifest.as_bytes()))
    }

    /// The generation that counts.
    ///
    /// # Errors
    ///
    /// [`GenerationError::Damaged`] when it is not what was committed.
    pub fn load(root: &Root, state: &State) -> Result<Self, GenerationError> {
        Self::read(root, state).ok_or(GenerationError::Damaged(state.generation))
    }

    fn read(root: &Root, state: &State) -> Option<Self> {
        let folder = folder(state.generation);
        let manifest = root
            .read(&format!("{folder}/manifest.toml"), MAX_MANIFEST)
            .ok()??;
        if Digest::of(&manifest) != state.manifest {
            return None;
        }
        let table = parse(std::str::from_utf8(&manifest).ok()?)?;
        let site = root.read(&format!("{folder}/site.toml"), MAX_SIZE).ok()??;
        if Digest::of(&site) != Digest::parse(&string(&table, "site")?)? {
            return None;
        }
        let content = |digest: Digest| {
            let bytes = root
                .read(&format!("{folder}/files/{digest}"), MAX_FILE)
                .ok()??;
            (Digest::of(&bytes) == digest).then_some(bytes)
        };
        let items = tables(&table, "item").map(|item| read_item(item, content));
        Some(Self {
            site,
            id: string(&table, "id")?,
            serial: number(&table, "serial")?,
            role: string(&table, "role"),
            image: string(&table, "image")?,
            items: items.collect::<Option<_>>()?,
        })
    }

    /// Puts every piece in place and lifts the fence. Safe to repeat: what is
    /// in place is not touched.
    ///
    /// # Errors
    ///
    /// The first piece that cannot be put in place, with the fence down.
    pub fn activate(&self, root: &Root, state: &State) -> Result<Change, GenerationError> {
        let mut is_written = false;
        for item in &self.items {
            let change = item.put(root).map_err(|source| GenerationError::Put {
                place: item.place().to_owned(),
                source,
            })?;
            is_written |= change == Change::Written;
        }
        if state.phase != Phase::Active {
            let state = State {
                phase: Phase::Active,
                ..state.clone()
            };
            state.save(root).map_err(GenerationError::State)?;
        }
        let stamp = root.put(CONFIGURED, b"", Access::own(0o644));
        stamp.map_err(|source| GenerationError::Put {
            place: CONFIGURED.to_owned(),
            source,
        })?;
        Ok(if is_written {
            Change::Written
        } else {
            Change::Same
        })
    }

    /// Removes every generation but the one that counts and the one before.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn prune(root: &Root, state: &State) -> io::Result<()> {
        let kept: BTreeSet<String> = [Some(state.generation), state.previous]
            .into_iter()
            .flatten()
            .map(folder)
            .collect();
        for name in root.list(FOLDER)? {
            let path = format!("{FOLDER}/{name}");
            if !kept.contains(&path) {
                root.remove_tree(&path)?;
            }
        }
        Ok(())
    }

    fn manifest(&self) -> String {
        let mut text =
            "# A rendered configuration. Written by the first-boot agent.\nschema = 1\n".to_owned();
        let mut put = |key: &str, value: String| {
            let _ = writeln!(text, "{key} = {value}");
        };
        put("id", quoted(&self.id));
        put("serial", self.serial.to_string());
        if let Some(role) = &self.role {
            put("role", quoted(role));
        }
        put("image", quoted(&self.image));
        put("site", quoted(&self.digest().to_string()));
        for item in &self.items {
            put_item(&mut text, item);
        }
        text
    }
}

fn folder(number: u32) -> String {
    format!("{FOLDER}/{number:04}")
}

fn put_item(text: &mut String, item: &Item) {
    text.push_str("\n[[item]]\n");
    let mut put = |key: &str, value: String| {
        let _ = writeln!(text, "{key} = {value}");
    };
    match item {
        Item::File { path, mode, bytes } => {
            put("file", quoted(path));
            put("mode", format!("0o{mode:o}"));
            put("content", quoted(&Digest::of(bytes).to_string()));
        }
        Item::Link { path, target } => {
            put("link", quoted(path));
            put("target", quoted(target));
        }
        Item::HostsName { name } => put("hosts_name", quoted(name)),
        Item::Account(account) => {
            put("account", quoted(&account.name));
            put("number", account.id.to_string());
            put("home", quoted(&account.home));
            put("shell", quoted(&account.shell));
            put(
                "groups",
                quoted_list(account.groups.iter().map(String::as_str)),
            );
            if let Some(hash) = &account.password_hash {
                put("password_hash", quoted(hash.expose()));
            }
        }
    }
}

fn read_item(table: &DeTable<'_>, content: impl Fn(Digest) -> Option<Vec<u8>>) -> Option<Item> {
    if let Some(path) = string(table, "file") {
        return Some(Item::File {
            path,
            mode: u32::try_from(number(table, "mode")?).ok()?,
            bytes: content(Digest::parse(&string(table, "content")?)?)?,
        });
    }
    if let Some(path) = string(table, "link") {
        let target = string(table, "target")?;
        return Some(Item::Link { path, target });
    }
    if let Some(name) = string(table, "hosts_name") {
        return Some(Item::HostsName { name });
    }
    Some(Item::Account(Account {
        name: string(table, "account")?,
        id: u32::try_from(number(table, "number")?).ok()?,
        home: string(table, "home")?,
        shell: string(table, "shell")?,
        password_hash: string(table, "password_hash").map(Secret::new),
        groups: strings(table, "groups"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::testing::Folder;

    fn sample() -> Generation {
        Generation {
            site: b"schema = 1\n".to_vec(),
            id: "acme-01".into(),
            serial: 3,
            role: Some("web".into()),
            image: "build \"1\"".into(),
            items: vec![
                Item::text("/etc/motd", 0o640, "hello\n"),
                Item::text("/run/x", 0o644, ""),
                Item::Link {
                    path: "/etc/localtime".into(),
                    target: "../usr/share/zoneinfo/UTC".into(),
                },
                Item::HostsName { name: "web".into() },
                Item::Account(Account {
                    name: "ann".into(),
                    id: 1000,
                    home: "/home/ann".into(),
                    shell: "/bin/sh".into(),
                    password_hash: Some(Secret::new("$6$a$b".into())),
                    groups: vec!["sudo".into()],
                }),
            ],
        }
    }

    #[test]
    fn a_generation_is_read_as_it_was_committed() {
        let folder = Folder::new();
        let state = sample().commit(&folder.root, None).expect("committed");
        assert_eq!(
            (state.generation, state.previous, state.phase),
            (1, None, Phase::Committed)
        );
        assert_eq!(
            State::load(&folder.root).expect("a state"),
            Some(state.clone())
        );
        assert_eq!(
            Generation::load(&folder.root, &state).expect("loaded"),
            sample()
        );
        let next = sample()
            .commit(&folder.root, Some(&state))
            .expect("committed");
        assert_eq!((next.generation, next.previous), (2, Some(1)));
    }

    #[test]
    fn a_second_activation_writes_nothing() {
        let folder = Folder::new();
        let state = sample().commit(&folder.root, None).expect("committed");
        assert_eq!(
            sample().activate(&folder.root, &state).expect("activated"),
            Change::Written
        );
        let state = State::load(&folder.root).expect("a state").expect("there");
        assert_eq!(state.phase, Phase::Active);
        assert_eq!(
            sample().activate(&folder.root, &state).expect("activated"),
            Change::Same
        );
        assert_eq!(folder.text("/etc/motd"), "hello\n");
        assert_eq!(folder.text(CONFIGURED), "");
    }

    #[test]
    fn any_damaged_part_is_noticed() {
        for part in [
            "manifest.toml",
            "site.toml",
            &format!("files/{}", Digest::of(b"hello\n")),
        ] {
            let folder = Folder::new();
            let state = sample().commit(&folder.root, None).expect("committed");
            let path = folder.path().join("var/lib/consign/gen/0001").join(part);
            let mut bytes = std::fs::read(&path).expect(part);
            bytes[0] ^= 1;
            std::fs::write(&path, bytes).expect(part);
            assert!(
                matches!(
                    Generation::load(&folder.root, &state),
                    Err(GenerationError::Damaged(1))
                ),
                "{part}"
            );
        }
    }

    #[test]
    fn a_piece_that_cannot_be_written_keeps_the_fence_down() {
        let folder = Folder::with(&[("/etc/motd/in-the-way", "")]);
        let state = sample().commit(&folder.root, None).expect("committed");
        let error = sample()
            .activate(&folder.root, &state)
            .expect_err("a folder is in the way");
        assert!(
            error
                .to_string()
                .starts_with("/etc/motd cannot be written: "),
            "{error}"
        );
        assert!(!folder.path().join("run/consign/configured").exists());
        let state = State::load(&folder.root).expect("a state").expect("there");
        assert_eq!(state.phase, Phase::Committed);
    }

    #[test]
    fn only_two_generations_are_kept() {
        let folder = Folder::new();
        let mut state = sample().commit(&folder.root, None).expect("committed");
        for _ in 0..3 {
            state = sample()
                .commit(&folder.root, Some(&state))
                .expect("committed");
        }
        Generation::prune(&folder.root, &state).expect("pruned");
        assert_eq!(folder.root.list(FOLDER).expect("list"), ["0003", "0004"]);
        assert!(Generation::load(&folder.root, &state).is_ok());
    }

    #[test]
    fn secrets_are_kept_where_only_root_reads() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = Folder::new();
        sample().commit(&folder.root, None).expect("committed");
        let mode = |path: &str| {
            let path = folder.path().join("var/lib/consign/gen").join(path);
            std::fs::metadata(path).expect("there").permissions().mode() & 0o777
        };
        assert_eq!(
            (
                mode("0001"),
                mode("0001/manifest.toml"),
                mode("0001/site.toml")
            ),
            (0o700, 0o600, 0o600)
        );
    }
}
