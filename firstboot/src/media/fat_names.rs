//! The slots of FAT folders: short and long names, labels.

use super::damage::Damage;
use super::volume::{Entry, Kind, u16_at, u32_at};

/// Bytes of a folder's slot.
pub(super) const SLOT: usize = 32;
/// Slots that one long name may have: 255 units, 13 in each.
const LONG_SLOTS: usize = 20;

const ATTR_VOLUME_ID: u8 = 0x08;
const ATTR_DIRECTORY: u8 = 0x10;
const ATTR_LONG_NAME: u8 = 0x0f;
const ATTR_LONG_NAME_MASK: u8 = 0x3f;
const LAST_LONG_ENTRY: u8 = 0x40;
const FREE: u8 = 0xe5;
const FREE_AND_LAST: u8 = 0x00;

/// The labels among the slots of a root folder.
pub(super) fn labels(slots: &[u8]) -> impl Iterator<Item = &[u8]> {
    slots
        .chunks_exact(SLOT)
        .take_while(|slot| slot.first() != Some(&FREE_AND_LAST))
        .filter(|slot| slot.first() != Some(&FREE))
        .filter(|slot| {
            slot.get(11).is_some_and(|attr| {
                attr & ATTR_LONG_NAME_MASK != ATTR_LONG_NAME && attr & ATTR_VOLUME_ID != 0
            })
        })
        .filter_map(|slot| slot.get(..11))
}

/// The entries in a folder's slots; `.`, `..`, labels and free slots left out.
pub(super) fn entries(slots: &[u8]) -> Result<Vec<Entry>, Damage> {
    let mut entries = Vec::new();
    let mut long = LongName::default();
    for slot in slots.chunks_exact(SLOT) {
        let (Some(first), Some(attr)) = (slot.first(), slot.get(11)) else {
            break;
        };
        match *first {
            FREE_AND_LAST => break,
            FREE => {
                long = LongName::default();
                continue;
            }
            _ => {}
        }
        if attr & ATTR_LONG_NAME_MASK == ATTR_LONG_NAME {
            long.add(slot);
            continue;
        }
        let long_name = std::mem::take(&mut long).finish(slot);
        if attr & ATTR_VOLUME_ID != 0
            || slot.starts_with(b".          ")
            || slot.starts_with(b"..         ")
        {
            continue;
        }
        entries.push(entry(slot, long_name)?);
    }
    Ok(entries)
}

fn entry(slot: &[u8], long_name: Option<String>) -> Result<Entry, Damage> {
    let name = long_name.unwrap_or_else(|| short_name(slot));
    let is_bad = matches!(name.as_str(), "" | "." | "..")
        || name.contains(['/', '\\', '\0'])
        || name.chars().any(char::is_control);
    if is_bad {
        return Err(Damage::BadName {
            name: name.escape_default().to_string(),
        });
    }
    let (high, low) = (
        u16_at(slot, 20).unwrap_or_default(),
        u16_at(slot, 26).unwrap_or_default(),
    );
    Ok(Entry {
        name,
        kind: if slot.get(11).is_some_and(|attr| attr & ATTR_DIRECTORY != 0) {
            Kind::Folder
        } else {
            Kind::File
        },
        place: u64::from(high) << 16 | u64::from(low),
        size: u64::from(u32_at(slot, 28).unwrap_or_default()),
    })
}

/// `SITE    TOM` is `SITE.TOM`. Bytes above ASCII are in an unknown code page
/// and become `?`: no name that we know has any.
fn short_name(slot: &[u8]) -> String {
    let text = |bytes: Option<&[u8]>| -> String {
        bytes
            .unwrap_or_default()
            .trim_ascii_end()
            .iter()
            .map(|byte| {
                if byte.is_ascii() {
                    char::from(*byte)
                } else {
                    '?'
                }
            })
            .collect()
    };
    let (base, extension) = (text(slot.get(..8)), text(slot.get(8..11)));
    if extension.is_empty() {
        base
    } else {
        format!("{base}.{extension}")
    }
}

/// A long name in the making: its slots come last part first.
#[derive(Debug, Default)]
struct LongName {
    parts: Vec<[u16; 13]>,
    checksum: u8,
    /// Number of the slot that must come next; 0 when all are there.
    next: u8,
}

impl LongName {
    fn add(&mut self, slot: &[u8]) {
        let (Some(order), Some(checksum)) = (slot.first(), slot.get(13)) else {
            return;
        };
        let number = order & !LAST_LONG_ENTRY;
        if order & LAST_LONG_ENTRY != 0 {
            *self = Self {
                parts: Vec::new(),
                checksum: *checksum,
                next: number,
            };
        }
        let fits = number != 0
            && usize::from(number) <= LONG_SLOTS
            && number == self.next
            && *checksum == self.checksum;
        if !fits {
            *self = Self::default();
            return;
        }
        let mut units = [0; 13];
        let places = (1..11)
            .step_by(2)
            .chain((14..26).step_by(2))
            .chain((28..32).step_by(2));
        for (unit, at) in units.iter_mut().zip(places) {
            *unit = u16_at(slot, at).unwrap_or_default();
        }
        self.parts.push(units);
        self.next = number - 1;
    }

    /// The name, if all its slots came and belong to the short name of `slot`.
    fn finish(self, slot: &[u8]) -> Option<String> {
        let sum = slot
            .get(..11)?
            .iter()
            .fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.parts.is_empty() || self.next != 0 || sum != self.checksum {
            return None;
        }
        let units = self
            .parts
            .iter()
            .rev()
            .flatten()
            .copied()
            .take_while(|unit| *unit != 0);
        char::decode_utf16(units)
            .collect::<Result<String, _>>()
            .ok()
    }
}
