//! The one record that says which configuration counts.
//!
//! Renaming it is the commit: before, nothing has changed; after, the new
//! generation is put in place, again at every start until that is done. The
//! record names the manifest by digest, and itself ends with a digest, so
//! that damage is noticed and never taken for a new machine.

use std::fmt;
use std::io;

use crate::digest::Digest;
use crate::root::{Access, Root};
use crate::text::{number, parse, string};

/// Where the record is.
const FILE: &str = "/var/lib/consign/state";
/// It is never longer.
const MAX_SIZE: usize = 4096;

/// How far a generation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It counts, and may not be in place yet.
    Committed,
    /// It has been put in place once.
    Active,
}

/// The record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Number of the generation that counts, from 1.
    pub generation: u32,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// The generation before it, to go back to.
    pub previous: Option<u32>,
    /// How far it is.
    pub phase: Phase,
}

/// Why there is no record.
#[derive(Debug)]
pub enum StateError {
    /// It is not what was written.
    Damaged,
    /// It cannot be read.
    Io(io::Error),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged => write!(f, "{FILE} is damaged"),
            Self::Io(error) => write!(f, "{FILE} cannot be read: {error}"),
        }
    }
}

impl State {
    /// The record; nothing on a machine that was never configured.
    ///
    /// # Errors
    ///
    /// When there is one that cannot be trusted.
    pub fn load(root: &Root) -> Result<Option<Self>, StateError> {
        let Some(bytes) = root.read(FILE, MAX_SIZE).map_err(StateError::Io)? else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| StateError::Damaged)?;
        Self::parse(text).ok_or(StateError::Damaged).map(Some)
    }

    /// Makes it the record that counts.
    ///
    /// # Errors
    ///
    /// What the system reports; the old record counts then.
    pub fn save(&self, root: &Root) -> io::Result<()> {
        root.put(FILE, self.text().as_bytes(), Access::own(0o600))?;
        Ok(())
    }

    fn text(&self) -> String {
        let phase = match self.phase {
            Phase::Committed => "committed",
            Phase::Active => "active",
        };
        let body = format!(
            "# Which configuration counts. Written by the first-boot agent.\n\
             generation = {}\nprevious = {}\nphase = \"{phase}\"\nmanifest = \"{}\"\n",
            self.generation,
            self.previous.unwrap_or(0),
            self.manifest
        );
        let sum = Digest::of(body.as_bytes());
        format!("{body}sum = \"{sum}\"\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let (body, sum) = text.split_once("sum = \"")?;
        let sum = Digest::parse(sum.strip_suffix("\"\n")?)?;
        if Digest::of(body.as_bytes()) != sum {
            return None;
        }
        let table = parse(body)?;
        let small = |key| u32::try_from(number(&table, key)?).ok();
        Some(Self {
            generation: small("generation").filter(|number| *number > 0)?,
            manifest: Digest::parse(&string(&table, "manifest")?)?,
            previous: small("previous").filter(|number| *number > 0),
            phase: match string(&table, "phase")?.as_str() {
                "committed" => Phase::Committed,
                "active" => Phase::Active,
                _ => return None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::testing::Folder;

    fn sample() -> State {
        State {
            generation: 2,
            manifest: Digest::of(b"x"),
            previous: Some(1),
            phase: Phase::Committed,
        }
    }

    #[test]
    fn the_record_is_read_as_it_was_written() {
        let folder = Folder::new();
        assert_eq!(State::load(&folder.root).expect("none"), None);
        sample().save(&folder.root).expect("saved");
        assert_eq!(State::load(&folder.root).expect("there"), Some(sample()));
    }

    #[test]
    fn every_damage_is_noticed() {
        let text = sample().text();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let damaged = String::from_utf8(bytes).expect("ASCII");
            assert_eq!(State::parse(&damaged), None, "byte {at}");
            assert_eq!(State::parse(&text[..at]), None, "cut at {at}");
        }
    }
}
