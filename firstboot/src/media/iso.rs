//! ISO 9660 with Joliet and Rock Ridge names, as a stranger wrote it: read
//! only, bounded, and never believed.
//!
//! Source: ECMA-119 (ISO 9660), 4th edition; Joliet Specification, 1995;
//! SUSP 1.12 and RRIP 1.12 (IEEE P1281, P1282). Narrower than they are:
//! 2048-byte blocks, files in one section and not interleaved, folders of at
//! most 128 KiB; of Rock Ridge the names (NM), the kinds of files (PX) and
//! their continuation (CE), no relocated folders.

use super::damage::Damage;
use super::volume::{Entry, FileSystem, Kind, Sink, is_label, pass, to_usize, u32_at};
use crate::init::gpt::ReadAt;

/// `Logical Block Size` and the size of a sector.
const BLOCK: u64 = 2048;
/// The first volume descriptor's sector; 16 before it belong to the system.
const FIRST_DESCRIPTOR: u64 = 16;
/// Descriptors that are looked at.
const DESCRIPTORS: u64 = 32;
/// The longest folder that is read.
const FOLDER_LIMIT: u64 = 128 << 10;
/// Continuation areas of one record that are followed.
const CONTINUATIONS: usize = 8;
/// Bytes of a long name.
const NAME_LIMIT: usize = 255;

const PRIMARY: u8 = 1;
const SUPPLEMENTARY: u8 = 2;
const TERMINATOR: u8 = 255;

/// `File Flags`.
const FLAG_DIRECTORY: u8 = 0x02;
const FLAG_ASSOCIATED: u8 = 0x04;
const FLAG_MULTI_EXTENT: u8 = 0x80;

/// `POSIX File Mode`, the bits of the kind.
const MODE_KIND: u32 = 0o170_000;

/// How names are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// `SITE.TOM;1`.
    Plain,
    /// UCS-2, big endian.
    Joliet,
    /// `NM` entries; the number of bytes that SUSP skips in each record.
    RockRidge(usize),
}

/// A volume with a primary descriptor.
pub struct Volume<'d> {
    disk: &'d dyn ReadAt,
    size: u64,
    names: Names,
    root: Entry,
    label: Vec<u8>,
    joliet_label: Option<String>,
}

impl std::fmt::Debug for Volume<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume")
            .field("names", &self.names)
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl<'d> Volume<'d> {
    /// Reads the descriptors of a device of `size` bytes.
    ///
    /// # Errors
    ///
    /// [`Damage::NotThis`], [`Damage::Unreadable`].
    pub fn open(disk: &'d dyn ReadAt, size: u64) -> Result<Self, Damage> {
        let mut primary = None;
        let mut joliet = None;
        for at in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + DESCRIPTORS {
            if (at + 1) * BLOCK > size {
                break;
            }
            let descriptor = block(disk, at)?;
            if descriptor.get(1..6) != Some(b"CD001") {
                break;
            }
            match descriptor.first() {
                Some(&PRIMARY) if primary.is_none() => primary = Some(descriptor),
                Some(&SUPPLEMENTARY) if joliet.is_none() && is_joliet(&descriptor) => {
                    joliet = Some(descriptor);
                }
                Some(&TERMINATOR) => break,
                _ => {}
            }
        }
        let primary = primary.ok_or(Damage::NotThis)?;
        let root = root_of(&primary).ok_or(Damage::NotThis)?;
        let label = primary.get(40..72).unwrap_or_default().to_vec();
        let joliet_label = joliet
            .as_ref()
            .map(|found| ucs2(found.get(40..72).unwrap_or_default()));
        let mut volume = Self {
            disk,
            size,
            names: Names::Plain,
            root,
            label,
            joliet_label,
        };
        if let Some(skip) = volume.rock_ridge()? {
            volume.names = Names::RockRidge(skip);
        } else if let Some(root) = joliet.as_deref().and_then(root_of) {
            volume.names = Names::Joliet;
            volume.root = root;
        }
        Ok(volume)
    }

    /// Whether the root's own record has the indicator of Rock Ridge (`SP`),
    /// and how many bytes it says are skipped.
    fn rock_ridge(&self) -> Result<Option<usize>, Damage> {
        // Damage of the folder is told when it is read.
        if !self.fits(&self.root) || self.root.size < BLOCK {
            return Ok(None);
        }
        let folder = block(self.disk, self.root.place)?;
        let length = folder.first().map_or(0, |length| usize::from(*length));
        let record = folder.get(..length).unwrap_or_default();
        let system = record.get(34..).unwrap_or_default();
        let skip = system.get(6).map(|skip| usize::from(*skip));
        Ok(match system.get(..6) {
            Some([b'S', b'P', 7, 1, 0xbe, 0xef]) => skip,
            _ => None,
        })
    }

    fn fits(&self, entry: &Entry) -> bool {
        let start = entry.place.checked_mul(BLOCK);
        start
            .and_then(|start| start.checked_add(entry.size))
            .is_some_and(|end| end <= self.size)
    }

    fn check(&self, entry: &Entry) -> Result<(), Damage> {
        if self.fits(entry) {
            return Ok(());
        }
        Err(Damage::BrokenChain {
            name: entry.escaped(),
        })
    }

    fn list(&self, folder: &Entry) -> Result<Vec<Entry>, Damage> {
        self.check(folder)?;
        if folder.size > FOLDER_LIMIT {
            return Err(Damage::FolderTooLong {
                name: folder.escaped(),
            });
        }
        let mut entries = Vec::new();
        for at in 0..folder.size.div_ceil(BLOCK) {
            let block = block(self.disk, folder.place + at)?;
            let mut rest = block.as_slice();
            // Records do not cross blocks; a zero ends the block's.
            while let Some(length @ 1..) = rest.first().copied().map(usize::from) {
                let (record, more) = rest
                    .split_at_checked(length)
                    .filter(|_| length >= 34)
                    .ok_or(Damage::Nonsense { what: "folder" })?;
                rest = more;
                entries.extend(self.entry(record)?);
            }
        }
        Ok(entries)
    }

    /// One record; `None` for `.` and `..`.
    fn entry(&self, record: &[u8]) -> Result<Option<Entry>, Damage> {
        let nonsense = Damage::Nonsense { what: "folder" };
        let flags = record.get(25).copied().unwrap_or_default();
        let length = usize::from(record.get(32).copied().unwrap_or_default());
        let Some(identifier) = record.get(33..33 + length).filter(|_| length > 0) else {
            return Err(nonsense);
        };
        if matches!(identifier, [0 | 1]) || flags & FLAG_ASSOCIATED != 0 {
            return Ok(None);
        }
        let mut kind = if flags & FLAG_DIRECTORY != 0 {
            Kind::Folder
        } else if flags & FLAG_MULTI_EXTENT != 0 || record.get(26..28) != Some(&[0, 0]) {
            Kind::Other("a file in several parts")
        } else {
            Kind::File
        };
        let name = match self.names {
            Names::Plain => plain_name(identifier),
            Names::Joliet => without_version(&ucs2(identifier)),
            Names::RockRidge(skip) => {
                // The identifier is padded to an even length.
                let from = 33 + length + (1 - length % 2) + skip;
                let system = record.get(from..).unwrap_or_default();
                let found = self.system_use(system)?;
                if kind == Kind::File
                    && let Some(other) = found.mode.and_then(other_kind)
                {
                    kind = Kind::Other(other);
                }
                found.name.unwrap_or_else(|| plain_name(identifier))
            }
        };
        let is_bad = matches!(name.as_str(), "" | "." | "..")
            || name.contains(['/', '\0'])
            || name.chars().any(char::is_control);
        if is_bad {
            let name = name.escape_default().to_string();
            return Err(Damage::BadName { name });
        }
        let extended = u64::from(record.get(1).copied().unwrap_or_default());
        let place = u32_at(record, 2).ok_or(nonsense)?;
        Ok(Some(Entry {
            name,
            kind,
            place: u64::from(place) + extended,
            size: u64::from(u32_at(record, 10).unwrap_or_default()),
        }))
    }

    /// Reads the system use entries of a record, and where they go on.
    fn system_use(&self, first: &[u8]) -> Result<SystemUse, Damage> {
        let mut found = SystemUse::default();
        let mut name: Option<Vec<u8>> = None;
        let mut area = first.to_vec();
        for _ in 0..=CONTINUATIONS {
            let mut next = None;
            let mut rest = area.as_slice();
            while let Some(length) = rest.get(2).map(|length| usize::from(*length)) {
                let Some((field, more)) = rest.split_at_checked(length).filter(|_| length >= 4)
                else {
                    break;
                };
                rest = more;
                match field.get(..2) {
                    Some(b"NM") => {
                        // CURRENT and PARENT name the folder itself.
                        if field.get(4).is_some_and(|flags| flags & 6 != 0) {
                            continue;
                        }
                        let name = name.get_or_insert_default();
                        name.extend_from_slice(field.get(5..).unwrap_or_default());
                        if name.len() > NAME_LIMIT {
                            return Err(Damage::Nonsense { what: "long name" });
                        }
                    }
                    Some(b"PX") => found.mode = u32_at(field, 4),
                    Some(b"CE") => next = Some(self.continuation(field)?),
                    Some(b"ST") => break,
                    _ => {}
                }
            }
            if let Some(more) = next {
                area = more;
            } else {
                found.name = name
                    .map(|name| {
                        String::from_utf8(name).map_err(|error| {
                            let name = error.as_bytes().escape_ascii().to_string();
                            Damage::BadName { name }
                        })
                    })
                    .transpose()?;
                return Ok(found);
            }
        }
        Err(Damage::Loop { name: "/".into() })
    }

    fn continuation(&self, field: &[u8]) -> Result<Vec<u8>, Damage> {
        let number = |at| u32_at(field, at).map(u64::from);
        let nonsense = || Damage::Nonsense { what: "long name" };
        let (at, offset, length) = (number(4), number(12), number(20));
        let (Some(at), Some(offset), Some(length)) = (at, offset, length) else {
            return Err(nonsense());
        };
        if offset + length > BLOCK || (at + 1) * BLOCK > self.size {
            return Err(nonsense());
        }
        let (start, end) = (to_usize(offset)?, to_usize(offset + length)?);
        let block = block(self.disk, at)?;
        Ok(block.get(start..end).unwrap_or_default().to_vec())
    }
}

/// What Rock Ridge adds to a record.
#[derive(Debug, Default)]
struct SystemUse {
    name: Option<String>,
    mode: Option<u32>,
}

impl FileSystem for Volume<'_> {
    fn kind(&self) -> &'static str {
        match self.names {
            Names::Plain => "ISO 9660",
            Names::Joliet => "ISO 9660 with Joliet",
            Names::RockRidge(_) => "ISO 9660 with Rock Ridge",
        }
    }

    fn is_labelled(&self, label: &str) -> Result<bool, Damage> {
        Ok(self.claims(label))
    }

    fn claims(&self, label: &str) -> bool {
        let joliet = self.joliet_label.as_deref();
        is_label(&self.label, label) || joliet.is_some_and(|own| is_label(own.as_bytes(), label))
    }

    fn root(&self) -> Result<Vec<Entry>, Damage> {
        self.list(&self.root)
    }

    fn folder(&self, folder: &Entry) -> Result<Vec<Entry>, Damage> {
        self.list(folder)
    }

    fn read(&self, file: &Entry, limit: u64, sink: Sink<'_>) -> Result<(), Damage> {
        if file.size > limit {
            return Err(Damage::TooLong {
                name: file.escaped(),
                says: file.size,
                limit,
            });
        }
        self.check(file)?;
        pass(self.disk, file.place * BLOCK, file.size, sink)
    }
}

fn block(disk: &dyn ReadAt, at: u64) -> Result<Vec<u8>, Damage> {
    let offset = at
        .checked_mul(BLOCK)
        .ok_or(Damage::Nonsense { what: "length" })?;
    let mut bytes = vec![0; to_usize(BLOCK)?];
    disk.read_exact_at(&mut bytes, offset)
        .map_err(Damage::Unreadable)?;
    Ok(bytes)
}

/// Escape sequences of UCS-2 levels 1 to 3.
fn is_joliet(descriptor: &[u8]) -> bool {
    matches!(
        descriptor.get(88..91),
        Some([b'%', b'/', b'@' | b'C' | b'E'])
    )
}

/// The root's record within a descriptor.
fn root_of(descriptor: &[u8]) -> Option<Entry> {
    let record = descriptor.get(156..190)?;
    let block_size = descriptor.get(128..130)?;
    if block_size != 2048_u16.to_le_bytes() || record.get(25)? & FLAG_DIRECTORY == 0 {
        return None;
    }
    let extended = u64::from(*record.get(1)?);
    Some(Entry {
        name: "/".into(),
        kind: Kind::Folder,
        place: u64::from(u32_at(record, 2)?) + extended,
        size: u64::from(u32_at(record, 10)?),
    })
}

fn ucs2(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).filter_map(|pair| {
        let pair: [u8; 2] = pair.try_into().ok()?;
        Some(u16::from_be_bytes(pair))
    });
    char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

/// `SITE.TOM;1` is `SITE.TOM`, and `SITE.;1` is `SITE`.
fn plain_name(identifier: &[u8]) -> String {
    let text: String = identifier
        .iter()
        .map(|byte| {
            if byte.is_ascii() {
                char::from(*byte)
            } else {
                '?'
            }
        })
        .collect();
    without_version(&text)
}

fn without_version(name: &str) -> String {
    let base = match name.rsplit_once(';') {
        Some((base, version)) if version.bytes().all(|byte| byte.is_ascii_digit()) => base,
        _ => name,
    };
    base.strip_suffix('.').unwrap_or(base).to_owned()
}

/// What is neither a file nor a folder.
pub(super) fn other_kind(mode: u32) -> Option<&'static str> {
    match mode & MODE_KIND {
        0o100_000 | 0o040_000 | 0 => None,
        0o120_000 => Some("a symbolic link"),
        0o060_000 | 0o020_000 => Some("a device"),
        0o010_000 => Some("a pipe"),
        0o140_000 => Some("a socket"),
        _ => Some("something unknown"),
    }
}
