//! From one generation to another, on the system itself.
//!
//! Every piece is compared first and may be put in place any number of times.
//! A file of ours that somebody else changed is kept once beside it, with
//! `.local` at the end of its name, before it becomes ours again.

use std::collections::BTreeMap;
use std::io;

use consign_schema::hook::When;

use super::{CONFIGURED, Generation, GenerationError, MAX_FILE};
use crate::hook;
use crate::item::Item;
use crate::root::{Access, Change, Root};
use crate::secrets;
use crate::state::{Phase, State};

/// What putting a generation in place did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Activation {
    /// Places that were written, in order.
    pub written: Vec<String>,
    /// Files of ours that somebody had changed; each is kept as `.local`.
    pub drifted: Vec<String>,
}

impl Activation {
    /// Whether everything was in place already.
    #[cfg(test)]
    pub fn is_same(&self) -> bool {
        self.written.is_empty() && self.drifted.is_empty()
    }
}

impl Generation {
    /// Takes note of what the system has where this generation will have
    /// something, and of what `before` had and this one has not.
    pub(super) fn follow(&mut self, root: &Root, before: Option<&Self>) -> io::Result<()> {
        self.originals = Vec::new();
        for item in self.items.iter().filter(|item| item.is_kept()) {
            let (Item::File { path, .. } | Item::Link { path, .. }) = item else {
                continue;
            };
            let original = match before {
                Some(before) if before.has(path) => at(&before.originals, path).cloned(),
                Some(before) if at(&before.retired, path).is_some() => at(&before.retired, path)
                    .filter(|item| !matches!(item, Item::Absent { .. }))
                    .cloned(),
                _ => found(root, path)?,
            };
            self.originals.extend(original);
        }
        self.retired = Vec::new();
        if let Some(before) = before {
            let mut retired = before.left_for(self);
            retired.retain(Item::is_kept);
            let is_open = |item: &&Item| !self.has_like(item);
            retired.extend(before.retired.iter().filter(is_open).cloned());
            self.retired = retired;
        }
        Ok(())
    }

    /// This generation, as `state` left it: on the way to it, what the one
    /// before had may still be in place, and is to be taken away by the next.
    pub(super) fn with_left(&self, root: &Root, state: &State) -> io::Result<Self> {
        let mut seen = self.clone();
        if state.phase == Phase::Committed {
            let other = Self::previous(root, state);
            let other = other.map_err(|error| io::Error::other(error.to_string()))?;
            let mut left = other.map_or_else(Vec::new, |other| other.left_for(self));
            left.retain(|item| !self.retired.iter().any(|it| is_like(it, item)));
            seen.retired.extend(left);
        }
        Ok(seen)
    }

    /// What stands in the places that this generation has and `next` has not.
    fn left_for(&self, next: &Self) -> Vec<Item> {
        let left = self.items.iter().filter(|item| !next.has_like(item));
        left.filter_map(|item| {
            let original = at(&self.originals, item.place());
            original.cloned().or_else(|| item.undone())
        })
        .collect()
    }

    /// What stands in the places of all that it has, and of all that older
    /// ones had, when no configuration counts.
    pub fn without(&self) -> Vec<Item> {
        let mut items = self.left_for(&Self::default());
        items.extend(self.retired.iter().cloned());
        items
    }

    /// Whether a file or link of it is there.
    fn has(&self, path: &str) -> bool {
        at(&self.items, path).is_some()
    }

    /// Whether it decides about the same thing as `item`.
    fn has_like(&self, item: &Item) -> bool {
        self.items.iter().any(|own| is_like(own, item))
    }

    /// Puts every piece in place, takes away what only the generation before
    /// had, and lifts the fence. Safe to repeat: what is in place is not
    /// touched.
    ///
    /// # Errors
    ///
    /// The first piece that cannot be put in place, with the fence as it was.
    pub fn activate(&self, root: &Root, state: &mut State) -> Result<Activation, GenerationError> {
        let other = match state.phase {
            Phase::Committed => Self::previous(root, state)?,
            _ => None,
        };
        // Without the one that is left, nobody knows what is whose. That is for
        // one that is damaged; one that cannot be read now may be read later.
        let is_lost = state.phase == Phase::Committed && state.previous.is_some();
        let expected = if is_lost && other.is_none() {
            Expected::new()
        } else {
            self.expected(state.phase, other.as_ref())
        };
        let mut done = Activation::default();
        let left = other.as_ref().map(|other| other.left_for(self));
        let left = left.unwrap_or_default();
        for item in left.iter().chain(&self.retired).chain(&self.items) {
            let put = |source| GenerationError::Put {
                place: item.place().to_owned(),
                source,
            };
            if keep_local(root, item, &expected).map_err(put)? {
                done.drifted.push(item.place().to_owned());
            }
            if item.put(root).map_err(put)? == Change::Written {
                done.written.push(item.place().to_owned());
            }
        }
        let put = |source| GenerationError::Put {
            place: secrets::STORE.to_owned(),
            source,
        };
        secrets::put(root, &self.credentials, self.secrets.as_deref()).map_err(put)?;
        if state.phase == Phase::Committed {
            // Before it is noted as done: after a cut it runs again.
            hook::run(root, self, When::PostActivate).map_err(GenerationError::Hook)?;
            let mut next = state.in_place(self.serial);
            next.save(root).map_err(GenerationError::State)?;
            *state = next;
        }
        lift_fence(root)?;
        Ok(done)
    }

    /// What files may hold without somebody else having changed them.
    fn expected<'g>(&'g self, phase: Phase, other: Option<&'g Self>) -> Expected<'g> {
        let mut expected = Expected::new();
        let mut lists = vec![&self.items, &self.retired];
        // On the way from the other generation, or from what the image has.
        if phase == Phase::Committed {
            lists.push(&self.originals);
            if let Some(other) = other {
                lists.extend([&other.items, &other.originals, &other.retired]);
            }
        }
        for item in lists.into_iter().flatten() {
            if let Item::File { path, bytes, .. } = item {
                expected.entry(path).or_default().push(bytes);
            }
        }
        expected
    }
}

type Expected<'g> = BTreeMap<&'g str, Vec<&'g [u8]>>;

fn is_like(one: &Item, two: &Item) -> bool {
    let kind = |item: &Item| match item {
        Item::File { .. } | Item::Link { .. } | Item::Absent { .. } => 0,
        Item::HostsName { .. } | Item::NoHostsName => 1,
        Item::Account(_) | Item::NoAccount { .. } => 2,
        Item::Authorities { .. } => 3,
        Item::DataDisk(_) => 4,
    };
    kind(one) == kind(two) && one.place() == two.place()
}

/// The file or link at `path` among `items`.
fn at<'i>(items: &'i [Item], path: &str) -> Option<&'i Item> {
    let is_it = |item: &&Item| {
        matches!(
            item,
            Item::File { .. } | Item::Link { .. } | Item::Absent { .. }
        ) && item.place() == path
    };
    items.iter().find(is_it)
}

/// The file or link that the system has at `path`.
fn found(root: &Root, path: &str) -> io::Result<Option<Item>> {
    let path = path.to_owned();
    if let Some(target) = root.read_link(&path)? {
        return Ok(Some(Item::Link { path, target }));
    }
    let Some(stat) = root.stat(&path)? else {
        return Ok(None);
    };
    if stat.st_mode & 0o170_000 != 0o100_000 {
        return Ok(None);
    }
    let bytes = root.read(&path, MAX_FILE)?;
    let mode = stat.st_mode & 0o7777;
    Ok(bytes.map(|bytes| Item::File { path, mode, bytes }))
}

/// Keeps what somebody else wrote into a file of ours; whether they did.
fn keep_local(root: &Root, item: &Item, expected: &Expected<'_>) -> io::Result<bool> {
    let (Item::File { path, .. } | Item::Absent { path }) = item else {
        return Ok(false);
    };
    if !item.is_kept() || !root.is_file(path)? {
        return Ok(false);
    }
    let Some(ours) = expected.get(path.as_str()) else {
        return Ok(false);
    };
    let Some(current) = root.read(path, MAX_FILE)? else {
        return Ok(false);
    };
    if ours.contains(&current.as_slice()) {
        return Ok(false);
    }
    let local = format!("{path}.local");
    if root.stat(&local)?.is_none() {
        root.put(&local, &current, Access::own(0o600))?;
    }
    Ok(true)
}

/// Lets units behind the fence start.
fn lift_fence(root: &Root) -> Result<(), GenerationError> {
    root.put(CONFIGURED, b"", Access::own(0o644))
        .map(|_| ())
        .map_err(|source| GenerationError::Put {
            place: CONFIGURED.to_owned(),
            source,
        })
}
