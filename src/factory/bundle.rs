//! Payload bundles: a vendor's files for a role, signed, to go onto config
//! media. The form is told in the agent's own `bundle.rs`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use consign_schema::bundle as limits;

use super::FactoryError;
use crate::artifact::PendingFile;
use crate::digest::{Digest, Hasher};
use crate::sign::{Signer, sshsig};
use crate::tree::list_folder;

/// What a signature of a bundle's manifest is for.
const PURPOSE: &str = "consign-bundle";
/// Of a tar, in bytes.
const BLOCK: u64 = 512;
/// The agent's limit of a signature, in bytes; ours are shorter.
const MAX_SIGNATURE: u64 = 16 << 10;

/// What a bundle is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleName {
    /// The link that leads to it on the appliance.
    pub name: String,
    /// The vendor's version.
    pub version: String,
    /// The role that it is for.
    pub role: Option<String>,
}

/// A bundle that was made.
#[derive(Debug)]
pub struct Bundle {
    /// Files in it.
    pub files: usize,
    /// Digest of its manifest: what its release is called on the appliance.
    pub digest: Digest,
}

struct Entry {
    path: String,
    source: PathBuf,
    size: u64,
    mode: u32,
    digest: Digest,
}

/// Writes the files below `folder` to a bundle, whole or not at all. The same
/// files and key give the same bytes.
///
/// # Errors
///
/// [`FactoryError`].
pub fn write_bundle(
    folder: &Path,
    name: &BundleName,
    signer: &Signer,
    output: &Path,
) -> Result<Bundle, FactoryError> {
    name.check()?;
    let mut entries = Vec::new();
    collect(folder, "", &mut entries)?;
    entries.sort_by(|one, two| one.path.cmp(&two.path));
    let manifest = manifest(name, &entries);
    check_sizes(&manifest, &entries)?;
    let signature = sshsig::sign(signer, PURPOSE, manifest.as_bytes())?;
    let write = |source| FactoryError::Write {
        path: output.to_owned(),
        source,
    };
    let mut pending = PendingFile::create(output).map_err(write)?;
    let mut tar = tar::Builder::new(pending.file_mut());
    let mut put = |path: &str, mode, size, bytes: &mut dyn io::Read| {
        let mut header = tar::Header::new_ustar();
        header.set_path(path)?;
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        tar.append(&header, bytes)
    };
    for (path, text) in [
        ("manifest.toml", &manifest),
        ("manifest.toml.sig", &signature),
    ] {
        put(path, 0o644, text.len() as u64, &mut text.as_bytes()).map_err(write)?;
    }
    for entry in &entries {
        let read = |source| FactoryError::Read {
            path: entry.source.clone(),
            source,
        };
        let mut hashed = Hashed {
            file: File::open(&entry.source).map_err(read)?.take(entry.size),
            hasher: Hasher::new(),
        };
        let path = format!("files/{}", entry.path);
        put(&path, entry.mode, entry.size, &mut hashed).map_err(write)?;
        if hashed.hasher.finish() != entry.digest {
            return Err(read(io::Error::other("it changes while it is read")));
        }
    }
    tar.finish().map_err(write)?;
    drop(tar);
    pending.commit().map_err(write)?;
    Ok(Bundle {
        files: entries.len(),
        digest: Digest::of(manifest.as_bytes()),
    })
}

impl BundleName {
    /// What the agent will ask of it.
    fn check(&self) -> Result<(), FactoryError> {
        let role = self.role.as_deref();
        let fields = [
            ("name", &*self.name, limits::is_name(&self.name)),
            ("version", &*self.version, limits::is_version(&self.version)),
            (
                "role",
                role.unwrap_or_default(),
                role.is_none_or(limits::is_name),
            ),
        ];
        match fields.into_iter().find(|(_, _, is_right)| !is_right) {
            None => Ok(()),
            Some((what, value, _)) => Err(FactoryError::BundleName {
                what,
                value: value.to_owned(),
            }),
        }
    }
}

/// The agent's limits of a bundle as a whole.
fn check_sizes(manifest: &str, entries: &[Entry]) -> Result<(), FactoryError> {
    let in_tar = |size: u64| size.div_ceil(BLOCK) * BLOCK + BLOCK;
    let files: u64 = entries.iter().map(|entry| in_tar(entry.size)).sum();
    let whole = files + in_tar(manifest.len() as u64) + in_tar(MAX_SIGNATURE) + 2 * BLOCK;
    let found = [
        (
            "the list of the bundle's files has",
            manifest.len() as u64,
            limits::MAX_MANIFEST,
        ),
        ("the bundle would have", whole, limits::MAX_SIZE),
    ];
    match found.into_iter().find(|(_, found, most)| found > most) {
        None => Ok(()),
        Some((what, found, most)) => Err(FactoryError::TooMuch {
            what: what.to_owned(),
            found,
            most,
            unit: "bytes",
        }),
    }
}

struct Hashed {
    file: io::Take<File>,
    hasher: Hasher,
}

impl io::Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

fn check_total(found: u64) -> Result<(), FactoryError> {
    if found <= limits::MAX_SIZE {
        return Ok(());
    }
    Err(FactoryError::TooMuch {
        what: "the files of the bundle have".to_owned(),
        found,
        most: limits::MAX_SIZE,
        unit: "bytes",
    })
}

fn collect(folder: &Path, below: &str, entries: &mut Vec<Entry>) -> Result<(), FactoryError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        move |source| FactoryError::Read { path, source }
    };
    for host in list_folder(folder).map_err(read(folder))? {
        let source = folder.join(&host.name);
        let wrong = |reason| FactoryError::BundleFile {
            path: source.clone(),
            reason,
        };
        let name = host
            .name
            .to_str()
            .filter(|name| limits::is_plain(name))
            .ok_or_else(|| wrong("has a name that is not plain ASCII without spaces"))?;
        let path = format!("{below}{name}");
        if !limits::is_path(&path) {
            return Err(wrong("has a path that is too long"));
        }
        let metadata = source.symlink_metadata().map_err(read(&source))?;
        if metadata.is_dir() {
            collect(&source, &format!("{path}/"), entries)?;
            continue;
        }
        if !metadata.is_file() {
            return Err(wrong("is neither a file nor a folder"));
        }
        if entries.len() == limits::MAX_FILES {
            return Err(wrong("is one file too many: a bundle has 4096 at most"));
        }
        // Not after minutes of reading.
        check_total(entries.iter().map(|entry| entry.size).sum::<u64>() + metadata.len())?;
        let mut hasher = Hasher::new();
        let mut file = File::open(&source).map_err(read(&source))?;
        let size = io::copy(&mut file, &mut hasher).map_err(read(&source))?;
        let is_program = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o100;
        entries.push(Entry {
            mode: if is_program == 0 { 0o644 } else { 0o755 },
            digest: hasher.finish(),
            path,
            source,
            size,
        });
    }
    Ok(())
}

fn manifest(name: &BundleName, entries: &[Entry]) -> String {
    let mut text = format!(
        "kind = \"consign-bundle\"\nschema = 1\nname = \"{}\"\nversion = \"{}\"\n",
        name.name, name.version
    );
    let mut put = |line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("a string takes all");
    };
    if let Some(role) = &name.role {
        put(format_args!("role = \"{role}\"\n"));
    }
    for entry in entries {
        put(format_args!(
            "\n[[file]]\npath = \"{}\"\nsize = {}\nmode = 0o{:o}\nsha256 = \"{}\"\n",
            entry.path.replace('"', "\\\""),
            entry.size,
            entry.mode,
            entry.digest.hex()
        ));
    }
    text
}
