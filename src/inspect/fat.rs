//! FAT12, FAT16 and FAT32, read within bounds.
//!
//! Source: Microsoft, *FAT: General Overview of On-Disk Format* 1.03; field
//! names are its. Each chain has the length that its entry promises, no
//! directory is longer than the format allows, and what leaves the volume or
//! enters free clusters is an error.

use std::sync::Arc;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::blocks::read_vec;
use super::error::InspectError;
use super::volume::{Content, Entry, Kind, Usage};
use crate::sparse::SparseSource;
use crate::units::ByteSize;

/// The longest directory: 65,536 entries.
const MOST_DIRECTORY: u64 = 65_536 * 32;
/// The largest cluster in use, in bytes.
const MOST_CLUSTER: u64 = 256 << 10;

/// The head of the volume up to where the types differ.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Bpb {
    jump: [u8; 3],
    oem_name: [u8; 8],
    byts_per_sec: U16,
    sec_per_clus: u8,
    rsvd_sec_cnt: U16,
    num_fats: u8,
    root_ent_cnt: U16,
    tot_sec16: U16,
    media: u8,
    fat_sz16: U16,
    sec_per_trk: U16,
    num_heads: U16,
    hidd_sec: U32,
    tot_sec32: U32,
    fat_sz32: U32,
    ext_flags: U16,
    fs_ver: U16,
    root_clus: U32,
}

/// A short entry of a directory.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Short {
    name: [u8; 11],
    attr: u8,
    nt_res: u8,
    crt_time_tenth: u8,
    crt_time: U16,
    crt_date: U16,
    lst_acc_date: U16,
    fst_clus_hi: U16,
    wrt_time: U16,
    wrt_date: U16,
    fst_clus_lo: U16,
    file_size: U32,
}

const _: () = {
    assert!(size_of::<Bpb>() == 48);
    assert!(size_of::<Short>() == 32);
};

const VOLUME_ID: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const LONG_NAME: u8 = 0x0f;
const READ_ONLY: u8 = 0x01;

/// How wide an entry of the FAT is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

/// A FAT volume.
#[derive(Debug)]
pub struct Fat {
    source: Arc<dyn SparseSource>,
    width: Width,
    /// Bytes.
    cluster: u64,
    table: u64,
    root: u64,
    root_length: u64,
    data: u64,
    clusters: u32,
    root_cluster: u32,
    serial: u32,
    label: Option<String>,
}

fn damaged<T>(what: &'static str) -> Result<T, InspectError> {
    Err(InspectError::Volume {
        file_system: "FAT",
        what,
    })
}

impl Fat {
    /// The volume in `source`; `None` when it does not look like FAT.
    ///
    /// # Errors
    ///
    /// [`InspectError::Volume`] for one whose numbers are impossible.
    pub fn open(source: Arc<dyn SparseSource>) -> Result<Option<Self>, InspectError> {
        let head = read_vec(source.as_ref(), 0, 512);
        let head = head.map_err(|source| InspectError::Read { offset: 0, source })?;
        let Some(head) = head else { return Ok(None) };
        let Ok((bpb, _)) = Bpb::read_from_prefix(&head) else {
            return Ok(None);
        };
        let jumps = matches!(bpb.jump, [0xeb, _, 0x90] | [0xe9, _, _]);
        let sector = u64::from(bpb.byts_per_sec.get());
        let looks_right = jumps
            && matches!(sector, 512 | 1024 | 2048 | 4096)
            && bpb.sec_per_clus.is_power_of_two()
            && matches!(bpb.media, 0xf0 | 0xf8..=0xff)
            && matches!(bpb.num_fats, 1 | 2)
            && head[510..] == [0x55, 0xaa];
        if !looks_right {
            return Ok(None);
        }
        let mut volume = Self::lay_out(source, &bpb, sector)?;
        let at = if volume.width == Width::Fat32 { 67 } else { 39 };
        let serial = [head[at], head[at + 1], head[at + 2], head[at + 3]];
        volume.serial = u32::from_le_bytes(serial);
        volume.label = volume.find_label()?;
        Ok(Some(volume))
    }

    fn lay_out(
        source: Arc<dyn SparseSource>,
        bpb: &Bpb,
        sector: u64,
    ) -> Result<Self, InspectError> {
        let of = |short: U16, long: U32| match short.get() {
            0 => u64::from(long.get()),
            short => u64::from(short),
        };
        let sectors = of(bpb.tot_sec16, bpb.tot_sec32);
        let fat_sectors = of(bpb.fat_sz16, bpb.fat_sz32);
        let root_length = u64::from(bpb.root_ent_cnt.get()) * 32;
        let fat = u64::from(bpb.rsvd_sec_cnt.get());
        let root = fat + u64::from(bpb.num_fats) * fat_sectors;
        let data = root + root_length.div_ceil(sector);
        let cluster = u64::from(bpb.sec_per_clus) * sector;
        if fat == 0 || fat_sectors == 0 || cluster > MOST_CLUSTER {
            return damaged("its head is impossible");
        }
        let Some(left) = sectors.checked_sub(data) else {
            return damaged("its tables do not fit");
        };
        if sectors * sector > source.size().bytes() {
            return damaged("it is longer than its partition");
        }
        let clusters = left / u64::from(bpb.sec_per_clus);
        let (width, bits) = match clusters {
            0..4085 => (Width::Fat12, 12),
            4085..65_525 => (Width::Fat16, 16),
            _ => (Width::Fat32, 32),
        };
        if (clusters + 2) * bits > fat_sectors * sector * 8 {
            return damaged("its table is too short for its clusters");
        }
        if (width == Width::Fat32) != (root_length == 0) {
            return damaged("its number of clusters does not fit its type");
        }
        Ok(Self {
            source,
            width,
            cluster,
            table: fat * sector,
            root: root * sector,
            root_length,
            data: data * sector,
            clusters: u32::try_from(clusters).unwrap_or(u32::MAX),
            root_cluster: bpb.root_clus.get(),
            serial: 0,
            label: None,
        })
    }

    /// `FAT12`, `FAT16` or `FAT32`.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self.width {
            Width::Fat12 => "FAT12",
            Width::Fat16 => "FAT16",
            Width::Fat32 => "FAT32",
        }
    }

    /// The label in the root directory.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// The serial number as people write it.
    #[must_use]
    pub fn serial(&self) -> String {
        format!("{:04X}-{:04X}", self.serial >> 16, self.serial & 0xffff)
    }

    /// Counts the free clusters.
    ///
    /// # Errors
    ///
    /// What the disk reports.
    pub fn usage(&self) -> Result<Usage, InspectError> {
        const PIECE: u32 = 1 << 14;
        let mut free = 0;
        let mut cluster = 2;
        let end = self.clusters + 2;
        while cluster < end {
            let count = PIECE.min(end - cluster);
            free += self.free_among(cluster, count)?;
            cluster += count;
        }
        let size = |clusters: u64| ByteSize::from_bytes(clusters * self.cluster);
        Ok(Usage {
            total: size(self.clusters.into()),
            free: size(free),
        })
    }

    /// Free clusters among `count`, a small number of them, from `first` on.
    fn free_among(&self, first: u32, count: u32) -> Result<u64, InspectError> {
        if self.width == Width::Fat12 {
            let mut free = 0;
            for cluster in first..first + count {
                free += u64::from(self.next(cluster)? == 0);
            }
            return Ok(free);
        }
        let width = if self.width == Width::Fat16 { 2 } else { 4 };
        let at = self.table + u64::from(first) * width as u64;
        let bytes = self.bytes(at, count as usize * width)?;
        let is_free = |entry: &[u8]| match entry {
            [a, b, c, d] => u32::from_le_bytes([*a, *b, *c, d & 0x0f]) == 0,
            entry => entry.iter().all(|byte| *byte == 0),
        };
        Ok(bytes.chunks(width).filter(|entry| is_free(entry)).count() as u64)
    }

    fn bytes(&self, offset: u64, length: usize) -> Result<Vec<u8>, InspectError> {
        let read = read_vec(self.source.as_ref(), offset, length);
        match read.map_err(|source| InspectError::Read { offset, source })? {
            Some(bytes) => Ok(bytes),
            None => damaged("it is cut off"),
        }
    }

    /// The FAT's entry of a cluster.
    fn next(&self, cluster: u32) -> Result<u32, InspectError> {
        let number = u64::from(cluster);
        Ok(match self.width {
            Width::Fat12 => {
                let pair = self.bytes(self.table + number * 3 / 2, 2)?;
                let pair = u32::from(u16::from_le_bytes([pair[0], pair[1]]));
                if number % 2 == 1 {
                    pair >> 4
                } else {
                    pair & 0xfff
                }
            }
            Width::Fat16 => {
                let pair = self.bytes(self.table + number * 2, 2)?;
                u16::from_le_bytes([pair[0], pair[1]]).into()
            }
            Width::Fat32 => {
                let four = self.bytes(self.table + number * 4, 4)?;
                u32::from_le_bytes([four[0], four[1], four[2], four[3] & 0x0f])
            }
        })
    }

    fn is_end(&self, entry: u32) -> bool {
        entry
            >= match self.width {
                Width::Fat12 => 0xff8,
                Width::Fat16 => 0xfff8,
                Width::Fat32 => 0x0fff_fff8,
            }
    }

    /// The clusters from `first` on, at most `most`. One more is an error.
    fn chain(&self, first: u32, most: u64) -> Result<Vec<u32>, InspectError> {
        let mut chain = Vec::new();
        let mut cluster = first;
        loop {
            if !(2..self.clusters + 2).contains(&cluster) {
                return damaged("a chain leaves the volume");
            }
            if chain.len() as u64 >= most {
                return damaged("a chain is longer than its file, or loops");
            }
            chain.push(cluster);
            let next = self.next(cluster)?;
            if self.is_end(next) {
                return Ok(chain);
            }
            if next == 0 {
                return damaged("a chain enters free clusters");
            }
            cluster = next;
        }
    }

    fn place(&self, cluster: u32) -> u64 {
        self.data + u64::from(cluster - 2) * self.cluster
    }

    /// The bytes of a directory; `None` for the root.
    fn directory(&self, first: Option<u32>) -> Result<Vec<u8>, InspectError> {
        let first = match (first, self.width) {
            (None, Width::Fat32) => self.root_cluster,
            (None, _) => {
                let length = usize::try_from(self.root_length).unwrap_or_default();
                return self.bytes(self.root, length);
            }
            (Some(first), _) => first,
        };
        let mut bytes = Vec::new();
        for cluster in self.chain(first, (MOST_DIRECTORY / self.cluster).max(1))? {
            let length = usize::try_from(self.cluster).unwrap_or_default();
            bytes.extend(self.bytes(self.place(cluster), length)?);
        }
        Ok(bytes)
    }

    fn find_label(&self) -> Result<Option<String>, InspectError> {
        let root = self.directory(None)?;
        let mut entries = root.chunks_exact(32).take_while(|entry| entry[0] != 0);
        let label = entries.find(|entry| {
            entry[0] != 0xe5 && entry[11] & VOLUME_ID != 0 && entry[11] & LONG_NAME != LONG_NAME
        });
        Ok(label.map(|entry| String::from_utf8_lossy(&entry[..11]).trim_end().to_owned()))
    }

    fn entries(&self, first: Option<u32>) -> Result<Vec<Entry>, InspectError> {
        let bytes = self.directory(first)?;
        let mut entries = Vec::new();
        let mut long = LongName::default();
        for bytes in bytes.chunks_exact(32) {
            let Ok(short) = Short::read_from_bytes(bytes) else {
                continue;
            };
            match (short.name[0], short.attr) {
                (0, _) => break,
                (0xe5, _) => long = LongName::default(),
                (_, attr) if attr & LONG_NAME == LONG_NAME => long.add(bytes),
                (_, attr) if attr & VOLUME_ID != 0 => long = LongName::default(),
                (b'.', _) => long = LongName::default(),
                _ => {
                    let name = std::mem::take(&mut long).finish(&short.name);
                    let name = name.unwrap_or_else(|| short_name(&short));
                    if name.is_empty() || name == ".." || name.contains(['/', '\0']) {
                        return damaged("a name is impossible");
                    }
                    entries.push(entry(name, &short));
                }
            }
        }
        Ok(entries)
    }

    /// The directory and the entry of `path`; no entry for the root.
    fn find(&self, path: &[u8]) -> Result<Option<Entry>, InspectError> {
        let mut found: Option<Entry> = None;
        // Names on the volume are text, whatever its bytes are.
        let text = std::str::from_utf8(path).map_err(|_| no_path(path))?;
        for name in text.split('/').filter(|name| !matches!(*name, "" | ".")) {
            let first = match &found {
                None => None,
                Some(entry) if entry.kind == Kind::Directory => u32::try_from(entry.inode).ok(),
                Some(_) => return Err(no_path(path)),
            };
            let entries = self.entries(first)?;
            let same = |entry: &Entry| {
                String::from_utf8_lossy(&entry.name).to_lowercase() == name.to_lowercase()
            };
            let entry = entries.into_iter().find(same);
            found = Some(entry.ok_or_else(|| no_path(path))?);
        }
        Ok(found)
    }

    pub(super) fn list(&self, path: &[u8]) -> Result<Vec<Entry>, InspectError> {
        match self.find(path)? {
            None => self.entries(None),
            Some(entry) if entry.kind == Kind::Directory => {
                self.entries(u32::try_from(entry.inode).ok())
            }
            Some(entry) => Ok(vec![entry]),
        }
    }

    pub(super) fn content(
        &self,
        path: &[u8],
    ) -> Result<(u64, Box<dyn Content + '_>), InspectError> {
        let entry = self.find(path)?;
        let Some(entry) = entry.filter(|entry| entry.kind == Kind::File) else {
            return Err(InspectError::OtherKind {
                path: path.to_owned(),
                wanted: "file",
            });
        };
        let clusters = entry.size.div_ceil(self.cluster);
        let chain = if clusters == 0 {
            Vec::new()
        } else {
            self.chain(u32::try_from(entry.inode).unwrap_or(0), clusters)?
        };
        if (chain.len() as u64) < clusters {
            return damaged("a chain is shorter than its file");
        }
        Ok((
            entry.size,
            Box::new(FatFile {
                volume: self,
                chain,
            }),
        ))
    }
}

fn no_path(path: &[u8]) -> InspectError {
    InspectError::NoPath {
        path: path.to_owned(),
    }
}

struct FatFile<'a> {
    volume: &'a Fat,
    chain: Vec<u32>,
}

impl Content for FatFile<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), InspectError> {
        let cluster = self.volume.cluster;
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let number = usize::try_from(at / cluster).ok();
            let Some(number) = number.and_then(|number| self.chain.get(number)) else {
                return damaged("a chain is shorter than its file");
            };
            let inside = at % cluster;
            let left = usize::try_from(cluster - inside).unwrap_or(usize::MAX);
            let (piece, behind) = rest.split_at_mut(left.min(rest.len()));
            let offset = self.volume.place(*number) + inside;
            let read = self.volume.source.read_exact_at(piece, offset);
            read.map_err(|source| InspectError::Read { offset, source })?;
            at += piece.len() as u64;
            rest = behind;
        }
        Ok(())
    }
}

/// A long name, which stands in parts before its short entry, the last first.
#[derive(Debug, Default)]
struct LongName {
    units: Vec<u16>,
    expected: u8,
    sum: u8,
}

impl LongName {
    fn add(&mut self, entry: &[u8]) {
        let (order, sum) = (entry[0], entry[13]);
        if order & 0x40 != 0 {
            *self = Self {
                units: Vec::new(),
                expected: order & 0x3f,
                sum,
            };
        }
        if order & 0x3f != self.expected || self.expected == 0 || self.sum != sum {
            *self = Self::default();
            return;
        }
        self.expected -= 1;
        let places = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
        let part = places.map(|at| u16::from_le_bytes([entry[at], entry[at + 1]]));
        self.units.splice(0..0, part);
    }

    /// The name, when all its parts were there and belong to `short`.
    fn finish(self, short: &[u8; 11]) -> Option<String> {
        let sum = short
            .iter()
            .fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.units.is_empty() || self.expected != 0 || self.sum != sum {
            return None;
        }
        let units = self
            .units
            .split(|unit| *unit == 0)
            .next()
            .unwrap_or_default();
        Some(String::from_utf16_lossy(units))
    }
}

/// `NAME.EXT`, in lower case where the entry says so.
fn short_name(short: &Short) -> String {
    let part = |bytes: &[u8], lower: bool| {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_end();
        if lower {
            text.to_lowercase()
        } else {
            text.to_owned()
        }
    };
    let base = part(&short.name[..8], short.nt_res & 0x08 != 0);
    let extension = part(&short.name[8..], short.nt_res & 0x10 != 0);
    if extension.is_empty() {
        base
    } else {
        format!("{base}.{extension}")
    }
}

fn entry(name: String, short: &Short) -> Entry {
    let is_directory = short.attr & DIRECTORY != 0;
    let write = if short.attr & READ_ONLY != 0 {
        0
    } else {
        0o200
    };
    Entry {
        name: name.into_bytes(),
        kind: if is_directory {
            Kind::Directory
        } else {
            Kind::File
        },
        mode: write | if is_directory { 0o555 } else { 0o444 },
        uid: 0,
        gid: 0,
        size: if is_directory {
            0
        } else {
            short.file_size.get().into()
        },
        links: 1,
        mtime: (seconds(short.wrt_date.get(), short.wrt_time.get()), 0),
        inode: u64::from(short.fst_clus_hi.get()) << 16 | u64::from(short.fst_clus_lo.get()),
        xattrs: Vec::new(),
    }
}

/// Seconds since 1970 of a FAT date and time, taken as UTC.
fn seconds(date: u16, time: u16) -> i64 {
    let (year, month, day) = (
        i64::from(date >> 9) + 1980,
        i64::from(date >> 5 & 15).clamp(1, 12),
        i64::from(date & 31).max(1),
    );
    // Days of the proleptic Gregorian calendar, years beginning in March.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let time = i64::from(time);
    days * 86_400 + (time >> 11) * 3600 + (time >> 5 & 63) * 60 + (time & 31) * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_counted_from_1970() {
        assert_eq!(seconds(0x0021, 0), 315_532_800);
        assert_eq!(seconds(0x585d, 0), 1_709_164_800);
    }
}
