//! Unpacked files into their places, by dpkg's rules.
//!
//! Directories that are there stay as they are, also when they are links to
//! directories (`bin` on a merged-/usr system). Diversions and statoverrides
//! in the root's database count. A file of another package gives way only to
//! a package that replaces it.

use std::collections::BTreeMap;

use rustix::fs::FileType;

use super::archive::{Entry, Unpacked, What};
use super::arrivals::Arrivals;
use super::control::Control;
use super::database::Database;
use crate::layer::sandbox::{Fault, Root};
use crate::tree::{Metadata, TreePath};

/// Names at the top that may be links below `usr` on a merged-/usr system.
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Which of the packages of this run a file came from.
#[derive(Debug, Default)]
pub(crate) struct Owners(BTreeMap<TreePath, usize>);

/// What placing a package left to be written into the database.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    /// Conffiles that dpkg must decide about, since a file was there.
    pub(crate) new_conffiles: Vec<TreePath>,
}

/// Puts the files of package number `at` of `arrivals` into `root`.
pub(crate) fn place(
    root: &mut Root,
    arrivals: &Arrivals<'_>,
    at: usize,
    owners: &mut Owners,
    database: &mut Database,
) -> Result<Placed, Fault> {
    let package = arrivals.wait_for(at)?;
    let mut placer = Placer {
        root,
        controls: arrivals.controls(),
        at,
        package,
        owners,
        database,
        conffiles: conffiles(&package.control),
        placed: Placed::default(),
    };
    for entry in &package.entries {
        placer.entry(entry)?;
    }
    Ok(placer.placed)
}

fn conffiles(control: &Control) -> Vec<TreePath> {
    control
        .conffiles()
        .iter()
        .filter_map(|path| TreePath::parse(path.trim_start_matches('/').as_bytes()).ok())
        .collect()
}

struct Placer<'a> {
    root: &'a mut Root,
    controls: &'a [Control],
    at: usize,
    package: &'a Unpacked,
    owners: &'a mut Owners,
    database: &'a mut Database,
    conffiles: Vec<TreePath>,
    placed: Placed,
}

impl Placer<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<(), Fault> {
        let name = self.package.control.package();
        let diverted = self.database.diverted(&entry.path, name);
        let target = diverted.as_ref().unwrap_or(&entry.path);
        let changed;
        let meta = match self.database.override_of(&entry.path) {
            Some(wish) => {
                changed = wish.applied_to(&entry.meta);
                &changed
            }
            None => &entry.meta,
        };
        match &entry.what {
            What::Excluded => Ok(()),
            What::Directory => self.directory(target, meta),
            What::File(staged) => {
                let target = self.conffile_place(target)?;
                self.make_way(&target)?;
                self.root.place_file(staged, &target)?;
                if meta != &entry.meta {
                    self.root.set_metadata(&target, meta)?;
                }
                Ok(())
            }
            What::Symlink(link) => {
                // A folder is never replaced by a link: dpkg leaves that to
                // maintainer scripts.
                if self.root.is_directory(target) {
                    return Ok(());
                }
                self.make_way(target)?;
                self.root.place_symlink(target, link, meta)
            }
            What::HardLink(other) => {
                let diverted = self.database.diverted(other, name);
                let other = diverted.as_ref().unwrap_or(other);
                self.make_way(target)?;
                self.root.place_link(target, other)
            }
            What::Special(kind) => {
                self.make_way(target)?;
                self.root.place_special(target, kind, meta)
            }
        }
    }

    fn directory(&mut self, path: &TreePath, meta: &Metadata) -> Result<(), Fault> {
        match self.root.status(path)? {
            None => self.root.place_directory(path, meta),
            Some(_) if self.root.is_directory(path) => Ok(()),
            Some(status) => Err(Fault::InTheWay {
                package: self.package.control.package().to_owned(),
                path: format!("/{path}"),
                found: kind_in_words(status.st_mode).to_owned(),
            }),
        }
    }

    /// A conffile that is there already is not ours to replace: dpkg decides
    /// when it configures the package.
    fn conffile_place(&mut self, path: &TreePath) -> Result<TreePath, Fault> {
        if !self.conffiles.contains(path) || self.root.status(path)?.is_none() {
            return Ok(path.clone());
        }
        self.placed.new_conffiles.push(path.clone());
        let name = [path.name().unwrap_or_default(), b".dpkg-new"].concat();
        Ok(path
            .parent()
            .and_then(|parent| parent.join(&name))
            .unwrap_or_else(|| path.clone()))
    }

    /// Checks that nothing at `path` is in the way, and claims it.
    fn make_way(&mut self, path: &TreePath) -> Result<(), Fault> {
        let key = usr_path(path);
        if let Some(status) = self.root.status(path)? {
            if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
                return Err(Fault::InTheWay {
                    package: self.package.control.package().to_owned(),
                    path: format!("/{path}"),
                    found: kind_in_words(status.st_mode).to_owned(),
                });
            }
            self.check_owner(path, &key)?;
        }
        self.owners.0.insert(key, self.at);
        Ok(())
    }

    fn check_owner(&mut self, path: &TreePath, key: &TreePath) -> Result<(), Fault> {
        let (owner, version) = match self.owners.0.get(key) {
            Some(at) if *at == self.at => return Ok(()),
            Some(at) => match self.controls.get(*at) {
                Some(other) => (other.package().to_owned(), other.version().to_owned()),
                None => return Ok(()),
            },
            None => match self.database.owner(self.root, path)? {
                Some(owner) => owner,
                // Made by a script, or part of a layer without packages.
                None => return Ok(()),
            },
        };
        let replaces = self.package.control.relations("Replaces");
        let gives_way = replaces.iter().flatten().any(|relation| {
            relation.name == owner
                && relation
                    .version
                    .as_ref()
                    .is_none_or(|(operator, limit)| super::satisfies(&version, operator, limit))
        });
        if gives_way {
            return self.database.disown(self.root, &owner, path);
        }
        Err(Fault::Conflict {
            package: self.package.control.package().to_owned(),
            owner,
            path: format!("/{path}"),
        })
    }
}

/// `path` as it is on a merged-/usr system.
fn usr_path(path: &TreePath) -> TreePath {
    let first = path.components().next().unwrap_or_default();
    let is_merged = MERGED.iter().any(|name| name.as_bytes() == first);
    if is_merged {
        let text = [b"usr/", path.as_bytes()].concat();
        TreePath::parse(&text).unwrap_or_else(|_| path.clone())
    } else {
        path.clone()
    }
}

fn kind_in_words(mode: u32) -> &'static str {
    match FileType::from_raw_mode(mode) {
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link that leads to no folder",
        FileType::RegularFile => "a file",
        _ => "a special file",
    }
}
