//! What a new lock brings, package by package.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::Lock;
use crate::layer::spec::PackagePin;

/// One package that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// It is new.
    Added {
        /// Its name.
        package: String,
        /// The layer that it joins.
        layer: String,
        /// Its version.
        version: String,
    },
    /// It is gone.
    Removed {
        /// Its name.
        package: String,
        /// The layer that it leaves.
        layer: String,
        /// The version that it had.
        version: String,
    },
    /// It has another version.
    Version {
        /// Its name.
        package: String,
        /// The version that it had.
        from: String,
        /// The version that it has.
        to: String,
    },
    /// The same version has other bytes, which no archive should ever do.
    Content {
        /// Its name.
        package: String,
        /// Its version.
        version: String,
    },
    /// It is in another layer.
    Layer {
        /// Its name.
        package: String,
        /// The layer that it was in.
        from: String,
        /// The layer that it is in.
        to: String,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added {
                package,
                layer,
                version,
            } => write!(f, "+ {package} {version} ({layer})"),
            Self::Removed {
                package,
                layer,
                version,
            } => write!(f, "- {package} {version} ({layer})"),
            Self::Version { package, from, to } => write!(f, "  {package} {from} -> {to}"),
            Self::Content { package, version } => {
                write!(f, "! {package} {version} has other bytes than before")
            }
            Self::Layer { package, from, to } => {
                write!(f, "  {package} moves from {from} to {to}")
            }
        }
    }
}

/// Where a package is: the tools layer may have one that another layer has.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key<'l> {
    package: &'l str,
    architecture: &'l str,
    is_tool: bool,
}

type Places<'l> = BTreeMap<Key<'l>, (&'l str, &'l PackagePin)>;

impl Lock {
    /// What changes from this lock to `newer`, sorted by package.
    #[must_use]
    pub fn changes(&self, newer: &Self) -> Vec<Change> {
        let (old, new) = (self.places(), newer.places());
        let mut changes = Vec::new();
        for (key, (layer, pin)) in &old {
            match new.get(key) {
                None => changes.push(Change::Removed {
                    package: pin.name.clone(),
                    layer: (*layer).to_owned(),
                    version: pin.version.clone(),
                }),
                Some((new_layer, new_pin)) => {
                    changes.extend(change(pin, new_pin));
                    if layer != new_layer {
                        changes.push(Change::Layer {
                            package: pin.name.clone(),
                            from: (*layer).to_owned(),
                            to: (*new_layer).to_owned(),
                        });
                    }
                }
            }
        }
        for (_, (layer, pin)) in new.iter().filter(|(key, _)| !old.contains_key(key)) {
            changes.push(Change::Added {
                package: pin.name.clone(),
                layer: (*layer).to_owned(),
                version: pin.version.clone(),
            });
        }
        changes.sort_by(|a, b| a.package().cmp(b.package()));
        changes
    }

    /// What changes from this lock to `newer`, as a part of release notes;
    /// `since` names what this one is of.
    #[must_use]
    pub fn news(&self, newer: &Self, since: &str) -> String {
        let changes = self.changes(newer);
        let mut text = format!("Packages since {since}:\n");
        for change in &changes {
            writeln!(text, "  {change}").expect("a string takes all");
        }
        if changes.is_empty() {
            text.push_str("  the same\n");
        }
        text
    }

    fn places(&self) -> Places<'_> {
        let layers = self.layers.iter().flat_map(|locked| {
            let layer = locked.group.layer.as_str();
            let place = move |pin| (key(pin, false), (layer, pin));
            locked.packages.iter().map(place)
        });
        let tools = self
            .tools
            .iter()
            .map(|pin| (key(pin, true), ("boot tools", pin)));
        layers.chain(tools).collect()
    }
}

fn key(pin: &PackagePin, is_tool: bool) -> Key<'_> {
    Key {
        package: &pin.name,
        architecture: &pin.architecture,
        is_tool,
    }
}

fn change(old: &PackagePin, new: &PackagePin) -> Option<Change> {
    if old.version != new.version {
        return Some(Change::Version {
            package: old.name.clone(),
            from: old.version.clone(),
            to: new.version.clone(),
        });
    }
    (old.sha256 != new.sha256).then(|| Change::Content {
        package: old.name.clone(),
        version: old.version.clone(),
    })
}

impl Change {
    fn package(&self) -> &str {
        match self {
            Self::Added { package, .. }
            | Self::Removed { package, .. }
            | Self::Version { package, .. }
            | Self::Content { package, .. }
            | Self::Layer { package, .. } => package,
        }
    }
}
