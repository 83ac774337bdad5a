//! The crates that the builder and the agent are made of, from the
//! workspace's own Cargo files, which are compiled in.
//!
//! `Cargo.lock` has no targets: crates for other systems are listed too.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

const LOCK: &str = include_str!("../../../Cargo.lock");
const BUILDER: &str = include_str!("../../../Cargo.toml");
const AGENT: &str = include_str!("../../../firstboot/Cargo.toml");
const SCHEMA: &str = include_str!("../../../firstboot/schema/Cargo.toml");

/// A crate as it is locked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its archive, 64 hex digits; none for our own.
    pub checksum: Option<String>,
}

/// The crates of `consign`, sorted, itself included.
#[must_use]
pub fn builder_crates() -> Vec<Crate> {
    closure("consign", BUILDER)
}

/// The crates of the first-boot agent, sorted, itself included.
#[must_use]
pub fn agent_crates() -> Vec<Crate> {
    closure("consign-firstboot", AGENT)
}

#[derive(Debug, Deserialize)]
struct LockFile {
    package: Vec<Locked>,
}

#[derive(Debug, Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct CargoFile {
    dependencies: BTreeMap<String, toml::Value>,
}

/// A lock names the development dependencies of workspace members too; their
/// manifests tell which ones count.
fn closure(root: &str, manifest: &str) -> Vec<Crate> {
    let lock: LockFile = toml::from_str(LOCK).expect("Cargo.lock is TOML");
    let own = [(root, wanted(manifest)), ("consign-schema", wanted(SCHEMA))];
    let mut seen = BTreeSet::new();
    let mut open = vec![root.to_owned()];
    while let Some(entry) = open.pop() {
        let Some(package) = find(&lock, &entry) else {
            continue;
        };
        if !seen.insert((package.name.as_str(), package.version.as_str())) {
            continue;
        }
        let wanted = own.iter().find(|(name, _)| *name == package.name);
        let counts = |dependency: &&String| {
            let name = dependency.split(' ').next().unwrap_or_default();
            wanted.is_none_or(|(_, wanted)| wanted.contains(name))
        };
        open.extend(package.dependencies.iter().filter(counts).cloned());
    }
    let packages = lock.package.iter();
    packages
        .filter(|one| seen.contains(&(one.name.as_str(), one.version.as_str())))
        .map(|one| Crate {
            name: one.name.clone(),
            version: one.version.clone(),
            checksum: one.checksum.clone(),
        })
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

fn wanted(manifest: &str) -> BTreeSet<String> {
    let file: CargoFile = toml::from_str(manifest).expect("Cargo.toml is TOML");
    file.dependencies.into_keys().collect()
}

/// `name`, or `name version` where there are several.
fn find<'a>(lock: &'a LockFile, entry: &str) -> Option<&'a Locked> {
    let mut words = entry.split(' ');
    let (name, version) = (words.next()?, words.next());
    let fits = |one: &&Locked| one.name == name && version.is_none_or(|v| one.version == v);
    lock.package.iter().find(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(crates: &[Crate]) -> Vec<&str> {
        crates.iter().map(|one| one.name.as_str()).collect()
    }

    #[test]
    fn the_lock_gives_what_is_linked_and_not_what_only_tests_use() {
        let (builder, agent) = (builder_crates(), agent_crates());
        for name in ["consign", "consign-schema", "sha2", "zstd-sys", "pgp"] {
            assert!(names(&builder).contains(&name), "{name}");
        }
        for name in ["consign-firstboot", "minijinja", "rustix"] {
            assert!(names(&agent).contains(&name), "{name}");
        }
        for name in ["proptest", "ext4-view", "qcow2-rs"] {
            assert!(!names(&builder).contains(&name), "{name}");
        }
        assert!(!names(&agent).contains(&"pgp"));
    }
}
