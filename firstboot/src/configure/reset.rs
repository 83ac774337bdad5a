//! Back to the machine that nobody configured yet.
//!
//! The record says that a reset has begun, so that a cut leads to its end;
//! the record itself goes last.

use std::collections::BTreeMap;
use std::io;

use crate::generation::{CONFIGURED, Generation, GenerationError};
use crate::item::Item;
use crate::root::Root;
use crate::state::{FILES, Name, Phase, State, StateError, Then};
use crate::step::people::with_homes;

/// The agent's state, and what makes this machine this machine.
const GONE: [&str; 8] = [
    "/var/lib/consign/claim",
    "/var/lib/consign/tried",
    "/var/lib/consign/recipient",
    "/var/lib/consign/identity.age",
    "/var/lib/consign/machine-id",
    "/var/lib/systemd/random-seed",
    "/var/lib/dbus/machine-id",
    CONFIGURED,
];
const GONE_FOLDERS: [&str; 6] = [
    crate::secrets::ENTERED,
    "/var/lib/consign/current",
    "/var/lib/consign/ssh",
    "/var/lib/consign/releases",
    "/var/lib/consign/journal",
    "/run/credstore",
];

/// A list of accounts is never longer.
const MAX_PASSWD: usize = 1 << 20;

/// What the machine wrote down: one folder for each machine-id below it.
const JOURNAL: &str = "/var/log/journal";

/// Commits to a reset; whether there was anything to reset. A record that is
/// damaged is no reason to stay as it is: a reset is the way out of that.
///
/// # Errors
///
/// What the system reports; nothing has changed then.
pub fn begin_reset(root: &Root) -> io::Result<bool> {
    let mut state = match State::load(root) {
        Ok(None) => return Ok(false),
        Ok(Some(state)) => state,
        Err(StateError::Damaged) => State {
            sequence: 0,
            generation: Generation::newest(root)?.unwrap_or(Name {
                number: 1,
                manifest: [0; 16],
            }),
            previous: None,
            phase: Phase::Reset,
            then: Then::Stay,
            serial_floor: 0,
        },
        Err(error) => return Err(io::Error::other(error.to_string())),
    };
    state.phase = Phase::Reset;
    state.save(root)?;
    Ok(true)
}

/// Does what is left of a reset that has begun.
///
/// # Errors
///
/// What the system reports; it can be done again.
pub fn finish_reset(root: &Root) -> io::Result<()> {
    let state = State::load(root).map_err(|error| io::Error::other(error.to_string()))?;
    if let Some(generation) = what_is_known(root, state.as_ref())? {
        for item in generation.without() {
            item.put(root)?;
        }
        take_what_people_have(root, &generation)?;
    }
    take_left_homes(root)?;
    for file in GONE {
        root.remove(file)?;
    }
    for folder in GONE_FOLDERS {
        root.remove_tree(folder)?;
    }
    for machine in root.list(JOURNAL)? {
        root.remove_tree(&format!("{JOURNAL}/{machine}"))?;
    }
    // The older copy first: what is left until then still says reset.
    let mut files = FILES;
    if state.is_some_and(|state| state.sequence.is_multiple_of(2)) {
        files.reverse();
    }
    // Without its generations a cut record is a reset with nothing to put back.
    Generation::remove_all(root)?;
    for file in files {
        root.remove(file)?;
    }
    Ok(())
}

/// What was put where: by the generation that counts, by what its manifest
/// says where it is damaged, or else by the one before it.
fn what_is_known(root: &Root, state: Option<&State>) -> io::Result<Option<Generation>> {
    let Some(state) = state else {
        return Ok(None);
    };
    match Generation::load(root, state) {
        Ok(generation) => return Ok(Some(generation)),
        Err(GenerationError::Unread { source, .. }) => return Err(source),
        Err(_) => {}
    }
    let salvaged = Generation::salvaged(root, state)?;
    if !salvaged.id.is_empty() {
        return Ok(Some(salvaged));
    }
    // Where that cannot be read either, nobody knows it any more.
    Ok(Generation::previous(root, state).ok().flatten())
}

/// Homes of people whom nobody knows now: a configuration that was taken back
/// had made them.
fn take_left_homes(root: &Root) -> io::Result<()> {
    let passwd = root.read_text("/etc/passwd", MAX_PASSWD)?;
    for name in with_homes(root, BTreeMap::new())?.keys() {
        let is_account = |line: &str| line.split(':').next() == Some(name);
        if !passwd.lines().any(is_account) {
            root.remove_tree(&format!("/home/{name}"))?;
        }
    }
    Ok(())
}

/// Home directories of accounts that this configuration or an older one made,
/// and what people wrote into files of theirs.
fn take_what_people_have(root: &Root, generation: &Generation) -> io::Result<()> {
    for item in generation.items.iter().chain(&generation.retired) {
        match item {
            Item::Account(account) if account.id != 0 => root.remove_tree(&account.home)?,
            Item::NoAccount { name, id } if *id != 0 => {
                root.remove_tree(&format!("/home/{name}"))?;
            }
            Item::File { path, .. } | Item::Absent { path } if item.is_kept() => {
                let local = format!("{path}.local");
                // The image, or the role, may have one of its own.
                let is_it = |item: &Item| item.place() == local;
                if !generation.items.iter().any(is_it) {
                    root.remove(&local)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}
