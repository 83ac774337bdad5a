//! Reading a GPT that may be damaged, foreign or hostile.
//!
//! Source: UEFI Specification 2.10, chapter 5.3. Narrower than that: only the
//! entries' identifiers, names and extents are of interest, and a table is at
//! most [`TABLE_LIMIT`] long.

use std::fmt;
use std::io;

use super::crc::crc32;

/// `Signature`.
const SIGNATURE: &[u8; 8] = b"EFI PART";
/// The shortest `HeaderSize`.
const HEADER_SIZE: usize = 92;
/// The longest partition entry array that is read: 8 times the usual.
const TABLE_LIMIT: usize = 128 << 10;
/// Partition names have 36 UTF-16 units.
const NAME_UNITS: usize = 36;

/// An identifier, in the order of its text form.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Guid([u8; 16]);

/// Bytes of the text form in the order in which the disk has them: the first
/// three fields are little endian.
const DISK_ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

impl Guid {
    /// Parses 8-4-4-4-12 hex digits of either case.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 {
            return None;
        }
        let mut digits = Vec::with_capacity(32);
        for (at, byte) in bytes.iter().enumerate() {
            match (at, *byte) {
                (8 | 13 | 18 | 23, b'-') => {}
                (8 | 13 | 18 | 23, _) => return None,
                (_, byte) => digits.push(u8::try_from(char::from(byte).to_digit(16)?).ok()?),
            }
        }
        let mut guid = [0; 16];
        for (byte, pair) in guid.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair.iter().fold(0, |value, digit| value << 4 | digit);
        }
        Some(Self(guid))
    }

    fn from_disk(bytes: &[u8]) -> Option<Self> {
        let mut guid = [0; 16];
        for (byte, from) in guid.iter_mut().zip(DISK_ORDER) {
            *byte = *bytes.get(from)?;
        }
        Some(Self(guid))
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One used entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partition {
    /// Number as the kernel counts, from 1.
    pub number: u32,
    /// `PartitionTypeGUID`.
    pub kind: Guid,
    /// `UniquePartitionGUID`.
    pub id: Guid,
    /// `StartingLBA`.
    pub first: u64,
    /// `EndingLBA`, which still belongs to it.
    pub last: u64,
    /// `PartitionName`, what is not printable left out.
    pub name: String,
}

/// Why a disk has no partitions for us.
#[derive(Debug)]
pub enum GptError {
    /// It could not be read.
    Unreadable(io::Error),
    /// It has no GPT, neither at its start nor at its end.
    None,
    /// It was written with 512-byte sectors and is attached with larger ones.
    SectorSize,
}

impl fmt::Display for GptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Self::None => f.write_str("has no GPT"),
            Self::SectorSize => {
                f.write_str("has a GPT for 512-byte sectors; attach it as a 512-byte disk")
            }
        }
    }
}

/// A disk to read from.
pub trait ReadAt {
    /// Fills `buf` from byte `offset` on.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for std::fs::File {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buf, offset)
    }
}

/// The used partitions of a disk of `size` bytes, from the table at its start
/// or, where that is damaged, at its end.
///
/// # Errors
///
/// [`GptError`].
pub fn read(disk: &impl ReadAt, sector: u64, size: u64) -> Result<Vec<Partition>, GptError> {
    if !(512..=65_536).contains(&sector) || size < 4 * sector {
        return Err(GptError::None);
    }
    let last = size / sector - 1;
    for lba in [1, last] {
        match table(disk, sector, last, lba) {
            Ok(Some(partitions)) => return Ok(partitions),
            Err(error) if lba == 1 => return Err(GptError::Unreadable(error)),
            // A disk that is cut off has no end that can be read.
            Ok(None) | Err(_) => {}
        }
    }
    let mut small = [0; 8];
    let has_small = sector > 512 && disk.read_exact_at(&mut small, 512).is_ok();
    if has_small && &small == SIGNATURE {
        return Err(GptError::SectorSize);
    }
    Err(GptError::None)
}

/// The partitions of the header at `lba`; `None` when it is not a good one.
fn table(
    disk: &impl ReadAt,
    sector: u64,
    last: u64,
    lba: u64,
) -> io::Result<Option<Vec<Partition>>> {
    let mut header = vec![0; usize::try_from(sector).map_err(io::Error::other)?];
    disk.read_exact_at(&mut header, lba * sector)?;
    let Some(place) = check_header(&header, lba).filter(|place| place.lba <= last) else {
        return Ok(None);
    };
    let mut entries = vec![0; place.count * place.entry_size];
    disk.read_exact_at(&mut entries, place.lba * sector)?;
    if crc32(&entries) != place.crc {
        return Ok(None);
    }
    let used = entries
        .chunks_exact(place.entry_size)
        .zip(1..)
        .filter_map(|(entry, number)| partition(entry, number))
        .collect();
    Ok(Some(used))
}

struct TablePlace {
    lba: u64,
    count: usize,
    entry_size: usize,
    crc: u32,
}

/// Checks a header that was read from `lba`.
fn check_header(sector: &[u8], lba: u64) -> Option<TablePlace> {
    let size = usize::try_from(u32_at(sector, 12)?).ok()?;
    if sector.get(..8)? != SIGNATURE || size < HEADER_SIZE || size > sector.len() {
        return None;
    }
    let mut header = sector.get(..size)?.to_vec();
    header.get_mut(16..20)?.fill(0);
    if crc32(&header) != u32_at(sector, 16)? || u64_at(sector, 24)? != lba {
        return None;
    }
    let place = TablePlace {
        lba: u64_at(sector, 72)?,
        count: usize::try_from(u32_at(sector, 80)?).ok()?,
        entry_size: usize::try_from(u32_at(sector, 84)?).ok()?,
        crc: u32_at(sector, 88)?,
    };
    let is_sound = place.entry_size >= 128
        && place.entry_size.is_power_of_two()
        && place.count > 0
        && place.count.checked_mul(place.entry_size)? <= TABLE_LIMIT
        && place.lba >= 1
        && place.lba.checked_mul(65_536).is_some();
    is_sound.then_some(place)
}

fn partition(entry: &[u8], number: u32) -> Option<Partition> {
    let kind = Guid::from_disk(entry.get(..16)?)?;
    if kind == Guid::default() {
        return None;
    }
    let units: Vec<u16> = entry
        .get(56..56 + 2 * NAME_UNITS)?
        .chunks_exact(2)
        .map(|pair| {
            pair.iter()
                .rev()
                .fold(0, |unit, byte| unit << 8 | u16::from(*byte))
        })
        .take_while(|unit| *unit != 0)
        .collect();
    let name = char::decode_utf16(units)
        .filter_map(Result::ok)
        .filter(|c| !c.is_control())
        .collect();
    Some(Partition {
        number,
        kind,
        first: u64_at(entry, 32)?,
        last: u64_at(entry, 40)?,
        id: Guid::from_disk(entry.get(16..32)?)?,
        name,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    impl ReadAt for Vec<u8> {
        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let bytes = start
                .checked_add(buf.len())
                .and_then(|end| self.get(start..end))
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            buf.copy_from_slice(bytes);
            Ok(())
        }
    }

    const ID: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";
    const SECTORS: usize = 128;

    fn header(sector: usize, lba: u64, table_lba: u64, entries: &[u8]) -> Vec<u8> {
        let mut header = vec![0; sector];
        header[..8].copy_from_slice(SIGNATURE);
        header[8..12].copy_from_slice(&0x0001_0000_u32.to_le_bytes());
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[24..32].copy_from_slice(&lba.to_le_bytes());
        header[72..80].copy_from_slice(&table_lba.to_le_bytes());
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        header[88..92].copy_from_slice(&crc32(entries).to_le_bytes());
        let crc = crc32(&header[..92]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        header
    }

    /// A disk whose third entry is `ID`, named `root-a`.
    fn disk(sector: usize) -> Vec<u8> {
        let mut entries = vec![0; 128 * 128];
        let entry = &mut entries[256..384];
        entry[..16].fill(7);
        for (to, from) in DISK_ORDER.iter().enumerate() {
            entry[16 + to] = Guid::parse(ID).expect("an id").0[*from];
        }
        for (at, unit) in "root-a".encode_utf16().enumerate() {
            entry[56 + 2 * at..58 + 2 * at].copy_from_slice(&unit.to_le_bytes());
        }
        let mut disk = vec![0; sector * SECTORS];
        let last = SECTORS as u64 - 1;
        let backup = SECTORS - 1 - entries.len().div_ceil(sector);
        disk[sector..2 * sector].copy_from_slice(&header(sector, 1, 2, &entries));
        disk[2 * sector..][..entries.len()].copy_from_slice(&entries);
        disk[backup * sector..][..entries.len()].copy_from_slice(&entries);
        let end = header(sector, last, backup as u64, &entries);
        disk[(SECTORS - 1) * sector..].copy_from_slice(&end);
        disk
    }

    fn ids(disk: &Vec<u8>, sector: u64) -> Result<Vec<(u32, String, String)>, String> {
        read(disk, sector, disk.len() as u64)
            .map(|found| {
                found
                    .into_iter()
                    .map(|p| (p.number, p.id.to_string(), p.name))
                    .collect()
            })
            .map_err(|error| error.to_string())
    }

    #[test]
    fn partitions_keep_their_number_identifier_and_name() {
        let expected = Ok(vec![(3, ID.to_owned(), "root-a".to_owned())]);
        assert_eq!(ids(&disk(512), 512), expected);
        assert_eq!(ids(&disk(4096), 4096), expected);
    }

    #[test]
    fn the_backup_table_serves_when_the_first_is_damaged() {
        for damage in [512, 530, 1100] {
            let mut disk = disk(512);
            disk[damage] ^= 1;
            assert_eq!(ids(&disk, 512).map(|ids| ids.len()), Ok(1), "{damage}");
        }
    }

    #[test]
    fn without_a_sound_table_the_disk_says_why() {
        assert_eq!(ids(&vec![0; 65_536], 512), Err("has no GPT".into()));
        assert_eq!(ids(&Vec::new(), 512), Err("has no GPT".into()));
        let small = disk(512);
        assert_eq!(
            ids(&small, 4096),
            Err("has a GPT for 512-byte sectors; attach it as a 512-byte disk".into())
        );
    }

    #[test]
    fn a_hostile_header_asks_for_no_memory_and_no_far_read() {
        let entries = vec![0; 16_384];
        for (at, value) in [
            (80, u32::MAX),
            (84, u32::MAX),
            (84, 0),
            (84, 129),
            (72, u32::MAX),
        ] {
            let mut disk = vec![0; 65_536];
            let mut head = header(512, 1, 2, &entries);
            head[at..at + 4].copy_from_slice(&value.to_le_bytes());
            head[16..20].fill(0);
            let crc = crc32(&head[..92]);
            head[16..20].copy_from_slice(&crc.to_le_bytes());
            disk[512..1024].copy_from_slice(&head);
            assert_eq!(ids(&disk, 512), Err("has no GPT".into()), "{at} {value}");
        }
    }
}
