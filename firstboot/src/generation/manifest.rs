//! A generation as text, and back.

use std::fmt::Write as _;
use std::io;

use consign_schema::{DiskFileSystem, DiskMatch, DiskUse, MAX_SIZE, Secret};
use toml::de::DeTable;

use super::{Generation, MAX_FILE, folder};
use crate::data_disk::DataDisk;
use crate::digest::Digest;
use crate::item::{Account, Item};
use crate::root::Root;
use crate::state::Name;
use crate::text::{number, parse, quoted, quoted_list, string, strings, tables};

/// A manifest is never longer.
pub const MAX_MANIFEST: usize = 4 << 20;

/// The text, which names all other files of the generation by digest.
pub fn text(generation: &Generation) -> String {
    let mut text =
        "# A rendered configuration. Written by the first-boot agent.\nschema = 1\n".to_owned();
    let mut put = |key: &str, value: String| {
        let _ = writeln!(text, "{key} = {value}");
    };
    put("id", quoted(&generation.id));
    put("serial", generation.serial.to_string());
    if let Some(role) = &generation.role {
        put("role", quoted(role));
    }
    put("image", quoted(&generation.image));
    put("site", quoted(&generation.digest().to_string()));
    let mut put_file = |key, bytes: &Option<Vec<u8>>| {
        if let Some(bytes) = bytes {
            put(key, quoted(&Digest::of(bytes).to_string()));
        }
    };
    put_file("secrets", &generation.secrets);
    put_file("license", &generation.license);
    let list = |list: &[String]| quoted_list(list.iter().map(String::as_str));
    put("keys", list(&generation.keys));
    let releases: Vec<String> = generation
        .releases
        .iter()
        .map(|(digest, role)| match role {
            Some(role) => format!("{digest} {role}"),
            None => digest.clone(),
        })
        .collect();
    put("releases", list(&releases));
    let credentials: Vec<String> = generation
        .credentials
        .iter()
        .map(|(name, entry)| format!("{name}={entry}"))
        .collect();
    put("credentials", list(&credentials));
    for (table, items) in [
        ("item", &generation.items),
        ("retired", &generation.retired),
        ("original", &generation.originals),
    ] {
        for item in items {
            let _ = writeln!(text, "\n[[{table}]]");
            put_item(&mut text, item);
        }
    }
    text
}

/// What the manifest of the generation `number` makes it known by.
///
/// # Errors
///
/// What the system reports.
pub fn name(root: &Root, number: u32) -> io::Result<Option<Name>> {
    let path = format!("{}/manifest.toml", folder(number));
    let manifest = root.read(&path, MAX_MANIFEST)?;
    Ok(manifest.map(|bytes| Name::of(number, &Digest::of(&bytes))))
}

/// The generation `number` whose manifest has this digest; nothing when any
/// part is not what was committed.
///
/// # Errors
///
/// What the system reports; a file that is missing or too long is no error.
pub fn read(root: &Root, number: u32, half: [u8; 16]) -> io::Result<Option<Generation>> {
    generation(root, number, half, true)
}

/// As [`read`], with what the manifest says alone where other parts are damaged:
/// no customer's file, and empty what is not whole. What it would put back is
/// there when it is whole.
///
/// # Errors
///
/// What the system reports.
pub fn salvage(root: &Root, number: u32, half: [u8; 16]) -> io::Result<Option<Generation>> {
    generation(root, number, half, false)
}

fn generation(
    root: &Root,
    number: u32,
    half: [u8; 16],
    is_whole: bool,
) -> io::Result<Option<Generation>> {
    let mut reader = Reader {
        root,
        folder: folder(number),
        is_whole,
        error: None,
    };
    let found = reader.generation(half);
    match reader.error {
        Some(error) => Err(error),
        None => Ok(found),
    }
}

/// Reads the files of a generation, and keeps the first error.
struct Reader<'r> {
    root: &'r Root,
    folder: String,
    /// Whether every part has to be what was committed.
    is_whole: bool,
    error: Option<io::Error>,
}

impl Reader<'_> {
    fn file(&mut self, name: &str, limit: usize) -> Option<Vec<u8>> {
        match self.root.read(&format!("{}/{name}", self.folder), limit) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => None,
            Err(error) => {
                self.error.get_or_insert(error);
                None
            }
        }
    }

    /// The file that `key` names by its digest.
    fn content(&mut self, table: &DeTable<'_>, key: &str) -> Option<Vec<u8>> {
        let digest = Digest::parse(&string(table, key)?)?;
        let bytes = self.file(&format!("files/{digest}"), MAX_FILE)?;
        (Digest::of(&bytes) == digest).then_some(bytes)
    }

    fn items(&mut self, table: &DeTable<'_>, key: &str) -> Option<Vec<Item>> {
        let is_whole = self.is_whole;
        let read = |item| {
            read_item(item, |item| {
                let content = self.content(item, "content");
                // Where it was is known, and that is what has to go.
                let empty = (!is_whole && key == "item").then(Vec::new);
                content.or(empty)
            })
        };
        let items = tables(table, key).map(read);
        if is_whole {
            items.collect()
        } else {
            Some(items.flatten().collect())
        }
    }

    fn generation(&mut self, half: [u8; 16]) -> Option<Generation> {
        let manifest = self.file("manifest.toml", MAX_MANIFEST)?;
        if Digest::of(&manifest).half() != half {
            return None;
        }
        let table = parse(std::str::from_utf8(&manifest).ok()?)?;
        let mut site = Vec::new();
        if self.is_whole {
            site = self.file("site.toml", MAX_SIZE)?;
            if Digest::of(&site) != Digest::parse(&string(&table, "site")?)? {
                return None;
            }
        }
        let mut optional = |key| match table.get(key) {
            Some(_) if self.is_whole => self.content(&table, key).map(Some),
            _ => Some(None),
        };
        let (secrets, license) = (optional("secrets")?, optional("license")?);
        let credentials = strings(&table, "credentials");
        let release = |text: &String| match text.split_once(' ') {
            Some((digest, role)) => (digest.to_owned(), Some(role.to_owned())),
            None => (text.clone(), None),
        };
        let split = |pair: &String| {
            let (name, entry) = pair.split_once('=')?;
            Some((name.to_owned(), entry.to_owned()))
        };
        Some(Generation {
            credentials: credentials.iter().map(split).collect::<Option<_>>()?,
            site,
            id: string(&table, "id")?,
            serial: self::number(&table, "serial")?,
            role: string(&table, "role"),
            image: string(&table, "image")?,
            secrets,
            license,
            keys: strings(&table, "keys"),
            releases: strings(&table, "releases").iter().map(release).collect(),
            items: self.items(&table, "item")?,
            retired: self.items(&table, "retired")?,
            originals: self.items(&table, "original")?,
        })
    }
}

fn put_item(text: &mut String, item: &Item) {
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
        Item::Authorities { pem } => put("authorities", quoted(pem)),
        Item::DataDisk(disk) => {
            put("data_disk", quoted(&disk.name));
            match &disk.matches {
                DiskMatch::Serial(serial) => put("disk_serial", quoted(serial)),
                DiskMatch::Position(place) => put("disk_place", place.to_string()),
                _ => {}
            }
            put("fs", quoted(disk.fs.name()));
            put("uuid", quoted(&disk.uuid));
            put("format", (disk.usage == DiskUse::Format).to_string());
        }
        Item::Absent { path } => put("absent", quoted(path)),
        Item::NoHostsName => put("no_hosts_name", "true".to_owned()),
        Item::NoAccount { name, id } => {
            put("no_account", quoted(name));
            put("number", id.to_string());
        }
    }
}

fn read_item(
    table: &DeTable<'_>,
    mut content: impl FnMut(&DeTable<'_>) -> Option<Vec<u8>>,
) -> Option<Item> {
    let small = |key| u32::try_from(number(table, key)?).ok();
    if let Some(path) = string(table, "file") {
        return Some(Item::File {
            path,
            mode: small("mode")?,
            bytes: content(table)?,
        });
    }
    if let Some(path) = string(table, "link") {
        let target = string(table, "target")?;
        return Some(Item::Link { path, target });
    }
    if let Some(name) = string(table, "hosts_name") {
        return Some(Item::HostsName { name });
    }
    if let Some(pem) = string(table, "authorities") {
        return Some(Item::Authorities { pem });
    }
    if let Some(path) = string(table, "absent") {
        return Some(Item::Absent { path });
    }
    if let Some(name) = string(table, "data_disk") {
        let serial = string(table, "disk_serial").map(DiskMatch::Serial);
        let place = || u8::try_from(number(table, "disk_place")?).ok();
        let fs = string(table, "fs")?;
        let known = [DiskFileSystem::Ext4, DiskFileSystem::Xfs];
        let is_free = table.get("format")?.get_ref().as_bool()?;
        return Some(Item::DataDisk(DataDisk {
            name,
            matches: match serial {
                Some(serial) => serial,
                None => DiskMatch::Position(place()?),
            },
            fs: known.into_iter().find(|known| known.name() == fs)?,
            uuid: string(table, "uuid")?,
            usage: if is_free {
                DiskUse::Format
            } else {
                DiskUse::Adopt
            },
        }));
    }
    if table.get("no_hosts_name").is_some() {
        return Some(Item::NoHostsName);
    }
    if let Some(name) = string(table, "no_account") {
        let id = small("number")?;
        return Some(Item::NoAccount { name, id });
    }
    Some(Item::Account(Account {
        name: string(table, "account")?,
        id: small("number")?,
        home: string(table, "home")?,
        shell: string(table, "shell")?,
        password_hash: string(table, "password_hash").map(Secret::new),
        groups: strings(table, "groups"),
    }))
}
