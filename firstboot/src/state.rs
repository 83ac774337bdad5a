//! The one record that says which configuration counts.
//!
//! Writing it is the commit: before, nothing has changed; after, the new
//! generation is put in place, again at every start until that is done. There
//! are two copies, and the older one is replaced each time, so that a record
//! that cannot be read leaves the one before it. Each copy ends with its
//! digest: damage is noticed, and never taken for a new machine.
//!
//! A copy is 96 bytes, all numbers little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | `VAS1` |
//! | 4 | phase: 1 committed, 2 on trial, 3 active, 4 reset |
//! | 5 | what follows when it is in place: 0 it stays, 1 trial, 2 it stays and the other goes |
//! | 6..8 | zero |
//! | 8..16 | sequence, one more with each record |
//! | 16..24 | the highest serial that was ever active |
//! | 24..28, 28..32 | generation, the one before it (0: none) |
//! | 32..48, 48..64 | the first half of the SHA-256 of their manifests |
//! | 64..96 | SHA-256 of bytes 0..64 |

use std::fmt;
use std::io;

use crate::digest::Digest;
use crate::root::{Access, Root};

/// Where the two copies are.
pub const FILES: [&str; 2] = ["/var/lib/consign/state.a", "/var/lib/consign/state.b"];
const MAGIC: [u8; 4] = *b"VAS1";
const RECORD: usize = 64;
const SIZE: usize = RECORD + 32;

/// How far a generation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It counts, and may not be in place yet.
    Committed,
    /// It is in place, and goes again unless somebody or something confirms it.
    Trial,
    /// It is in place and stays.
    Active,
    /// A factory reset has begun.
    Reset,
}

/// What follows when a committed generation is in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It stays.
    Stay,
    /// It goes again unless it is confirmed.
    Trial,
    /// It stays, and the one before it is no longer one to go back to.
    Forget,
}

/// A generation by its number and its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// From 1.
    pub number: u32,
    /// The first half of the manifest's SHA-256.
    pub manifest: [u8; 16],
}

impl Name {
    /// Number and manifest together.
    pub fn of(number: u32, manifest: &Digest) -> Self {
        Self {
            number,
            manifest: manifest.half(),
        }
    }
}

/// The record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Which record is the newest.
    pub sequence: u64,
    /// The generation that counts.
    pub generation: Name,
    /// The generation to go back to.
    pub previous: Option<Name>,
    /// How far it is.
    pub phase: Phase,
    /// What follows when it is in place.
    pub then: Then,
    /// The highest serial that was ever active.
    pub serial_floor: u64,
}

/// Why there is no record.
#[derive(Debug)]
pub enum StateError {
    /// Neither copy is what was written.
    Damaged,
    /// It cannot be read.
    Io(io::Error),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged => f.write_str(
                "both copies of the state are damaged; `appliance factory-reset --yes` makes the machine new",
            ),
            Self::Io(error) => write!(f, "the state cannot be read: {error}"),
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
        let mut newest: Option<Self> = None;
        let mut is_there = false;
        for file in FILES {
            let Some(bytes) = root.read(file, 2 * SIZE).map_err(StateError::Io)? else {
                continue;
            };
            is_there = true;
            let found = Self::from_bytes(&bytes);
            if let Some(found) = found
                && newest
                    .as_ref()
                    .is_none_or(|newest| newest.sequence < found.sequence)
            {
                newest = Some(found);
            }
        }
        if newest.is_none() && is_there {
            return Err(StateError::Damaged);
        }
        Ok(newest)
    }

    /// Makes it the record that counts, with the next sequence number.
    ///
    /// # Errors
    ///
    /// What the system reports; the old record counts then.
    pub fn save(&mut self, root: &Root) -> io::Result<()> {
        let mut next = self.clone();
        next.sequence += 1;
        let file = if next.sequence.is_multiple_of(2) {
            FILES[0]
        } else {
            FILES[1]
        };
        root.put(file, &next.to_bytes(), Access::own(0o600))?;
        *self = next;
        Ok(())
    }

    /// Lets the previous generation count again; the record is not written
    /// yet. With [`Then::Stay`] the one that counted becomes the one to go
    /// back to. `None` when there is none before.
    pub fn back(&self, then: Then) -> Option<Self> {
        Some(Self {
            generation: self.previous?,
            previous: Some(self.generation),
            phase: Phase::Committed,
            then,
            ..self.clone()
        })
    }

    /// The record after everything has been put in place.
    pub fn in_place(&self, serial: u64) -> Self {
        let mut next = self.clone();
        if self.then == Then::Trial && self.previous.is_some() {
            next.phase = Phase::Trial;
            return next;
        }
        if self.then == Then::Forget {
            next.previous = None;
        }
        next.then = Then::Stay;
        next.confirmed(serial)
    }

    /// The record after it has been confirmed.
    pub fn confirmed(&self, serial: u64) -> Self {
        Self {
            phase: Phase::Active,
            then: Then::Stay,
            serial_floor: self.serial_floor.max(serial),
            ..self.clone()
        }
    }

    /// Whether it goes again unless it is confirmed; also where whoever put it
    /// in place was ended before that was done.
    pub fn is_on_trial(&self) -> bool {
        self.phase == Phase::Trial || (self.phase == Phase::Committed && self.then == Then::Trial)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(match self.phase {
            Phase::Committed => 1,
            Phase::Trial => 2,
            Phase::Active => 3,
            Phase::Reset => 4,
        });
        let then = match self.then {
            Then::Stay => 0,
            Then::Trial => 1,
            Then::Forget => 2,
        };
        bytes.extend_from_slice(&[then, 0, 0]);
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.serial_floor.to_le_bytes());
        let previous = self.previous.unwrap_or(Name {
            number: 0,
            manifest: [0; 16],
        });
        bytes.extend_from_slice(&self.generation.number.to_le_bytes());
        bytes.extend_from_slice(&previous.number.to_le_bytes());
        bytes.extend_from_slice(&self.generation.manifest);
        bytes.extend_from_slice(&previous.manifest);
        let sum = Digest::of(&bytes);
        bytes.extend_from_slice(sum.bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (record, sum) = bytes.split_at_checked(RECORD)?;
        if Digest::of(record).bytes() != sum || !record.starts_with(&MAGIC) {
            return None;
        }
        let u64_at = |at: usize| Some(u64::from_le_bytes(*record.get(at..)?.first_chunk()?));
        let name_at = |number: usize, manifest: usize| {
            Some(Name {
                number: u32::from_le_bytes(*record.get(number..)?.first_chunk()?),
                manifest: *record.get(manifest..)?.first_chunk()?,
            })
        };
        Some(Self {
            sequence: u64_at(8)?,
            serial_floor: u64_at(16)?,
            generation: name_at(24, 32).filter(|name| name.number > 0)?,
            previous: name_at(28, 48).filter(|name| name.number > 0),
            phase: match record.get(4)? {
                1 => Phase::Committed,
                2 => Phase::Trial,
                3 => Phase::Active,
                4 => Phase::Reset,
                _ => return None,
            },
            then: match record.get(5)? {
                0 => Then::Stay,
                1 => Then::Trial,
                2 => Then::Forget,
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
            sequence: 6,
            generation: Name::of(2, &Digest::of(b"x")),
            previous: Some(Name::of(1, &Digest::of(b"y"))),
            phase: Phase::Committed,
            then: Then::Trial,
            serial_floor: 1 << 40,
        }
    }

    #[test]
    fn the_record_is_read_as_it_was_written() {
        let folder = Folder::new();
        assert_eq!(State::load(&folder.root).expect("none"), None);
        let mut state = sample();
        for sequence in 7..10 {
            state.save(&folder.root).expect("saved");
            assert_eq!(state.sequence, sequence);
            let loaded = State::load(&folder.root).expect("there");
            assert_eq!(loaded.as_ref(), Some(&state));
        }
        assert_eq!(state.to_bytes().len(), SIZE);
    }

    #[test]
    fn a_damaged_copy_leaves_the_one_before_it() {
        let folder = Folder::new();
        let mut state = sample();
        state.save(&folder.root).expect("saved");
        let first = state.clone();
        state.phase = Phase::Active;
        state.save(&folder.root).expect("saved");
        let newest = folder.path().join(&FILES[0][1..]);
        std::fs::write(&newest, b"VAS1 torn").expect("damaged");
        assert_eq!(State::load(&folder.root).expect("the other"), Some(first));
        std::fs::write(folder.path().join(&FILES[1][1..]), b"").expect("damaged");
        assert!(matches!(
            State::load(&folder.root),
            Err(StateError::Damaged)
        ));
    }

    #[test]
    fn every_damage_is_noticed() {
        let good = sample().to_bytes();
        assert_eq!(State::from_bytes(&good), Some(sample()));
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            assert_eq!(State::from_bytes(&bytes), None, "byte {at}");
            assert_eq!(State::from_bytes(&good[..at]), None, "cut at {at}");
        }
    }
}
