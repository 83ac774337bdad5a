//! Packed clusters of earlier builds, by content.
//!
//! In: the leaf hash of a cluster. Out: its packed bytes, checked. A disk of
//! which one file changed packs the changed clusters only.
//!
//! An image has up to eight pack files for each codec, `NAME.CODEC.0` to `.7`,
//! in the cache folder. A pack is written once, through a
//! [`PendingFile`], and never changed: a killed build leaves the packs as they
//! were, and builds at the same time read what they opened. A build adds one
//! pack with what was new; when no number is free, or more than half of what
//! is kept was not used, it adds one with all that it used and removes the
//! others. Whatever does not check out counts as absent: each entry
//! carries a digest over its key and its bytes, the index one over itself and
//! the codec. So packs are not synced, and losing them only costs time.
//!
//! A pack is: the entries' bytes; the index, ascending by key; a [`Trailer`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::codec::{Codec, Form};
use super::pass::Packed;
use crate::artifact::PendingFile;
use crate::digest::{Digest, Hasher};

/// Packs of one image and codec.
const PACKS: usize = 8;
const MAGIC: [u8; 8] = *b"packs v1";

/// The last bytes of a pack.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Trailer {
    magic: [u8; 8],
    /// Entries in the index.
    count: U64,
    /// Digest of the codec's tag, `count` and the index.
    sum: [u8; 32],
}

/// One entry of the index.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    /// The leaf hash of the cluster, or the hash of the chunk.
    key: [u8; 32],
    /// Digest of the key and the packed bytes.
    sum: [u8; 32],
    offset: U64,
    /// Packed bytes; 0 for a cluster that does not get smaller.
    length: U32,
    reserved: U32,
}

/// What earlier builds left, for reading by many threads.
#[derive(Debug)]
pub(super) struct Stock {
    packs: Vec<Pack>,
    places: BTreeMap<Digest, Place>,
    /// No entry is longer.
    most_bytes: usize,
    /// Whether an entry did not check out.
    damaged: AtomicBool,
}

#[derive(Debug)]
struct Pack {
    file: File,
    number: usize,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    /// Index in [`Stock::packs`].
    pack: usize,
    offset: u64,
    length: u32,
    sum: Digest,
}

/// Where the packs of one image and codec are.
#[derive(Debug, Clone)]
pub(super) struct PackPaths {
    folder: PathBuf,
    stem: String,
    tag: String,
    most_bytes: usize,
}

impl PackPaths {
    pub(super) fn new(folder: &Path, image: &str, codec: Codec) -> Self {
        let tag = codec.tag();
        Self {
            folder: folder.to_owned(),
            stem: format!("{image}.{tag}"),
            tag,
            most_bytes: codec.most_bytes(),
        }
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{}.{number}", self.stem))
    }
}

impl Stock {
    /// All packs that check out.
    pub(super) fn open(paths: &PackPaths) -> Self {
        let mut stock = Self {
            packs: Vec::new(),
            places: BTreeMap::new(),
            most_bytes: paths.most_bytes,
            damaged: AtomicBool::new(false),
        };
        for number in 0..PACKS {
            let opened = File::open(paths.path(number));
            if let Some((file, entries)) = opened.ok().and_then(|file| index_of(file, &paths.tag)) {
                let pack = stock.packs.len();
                stock.packs.push(Pack { file, number });
                stock.places.extend(entries.iter().map(|entry| {
                    let place = Place {
                        pack,
                        offset: entry.offset.get(),
                        length: entry.length.get(),
                        sum: Digest::from_bytes(entry.sum),
                    };
                    (Digest::from_bytes(entry.key), place)
                }));
            }
        }
        stock
    }

    /// The form of the cluster with this leaf hash, if it is here and sound.
    pub(super) fn find(&self, leaf: &Digest) -> Option<Form> {
        let place = self.places.get(leaf)?;
        let Some(bytes) = self.read(leaf, place) else {
            self.damaged.store(true, Ordering::Relaxed);
            return None;
        };
        Some(if bytes.is_empty() {
            Form::AsItIs
        } else {
            Form::Smaller(bytes)
        })
    }

    /// Whether there is a form of it, which may be damaged.
    pub(super) fn has(&self, leaf: &Digest) -> bool {
        self.places.contains_key(leaf)
    }

    fn read(&self, leaf: &Digest, place: &Place) -> Option<Box<[u8]>> {
        let length = usize::try_from(place.length).ok()?;
        if length > self.most_bytes {
            return None;
        }
        let mut bytes = vec![0; length];
        let file = &self.packs.get(place.pack)?.file;
        file.read_exact_at(&mut bytes, place.offset).ok()?;
        (sum_of(leaf, &bytes) == place.sum).then(|| bytes.into())
    }

    fn free_number(&self) -> Option<usize> {
        (0..PACKS).find(|number| self.packs.iter().all(|pack| pack.number != *number))
    }

    fn remove_others(&self, paths: &PackPaths, kept: usize) -> io::Result<()> {
        for pack in self.packs.iter().filter(|pack| pack.number != kept) {
            match fs::remove_file(paths.path(pack.number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn bytes_of(&self, leaf: &Digest) -> u64 {
        self.places.get(leaf).map_or(0, |place| place.length.into())
    }
}

/// The index of a pack, if it is sound and of this codec.
fn index_of(file: File, tag: &str) -> Option<(File, Vec<Entry>)> {
    const TRAILER: u64 = size_of::<Trailer>() as u64;
    const ENTRY: u64 = size_of::<Entry>() as u64;
    let length = file.metadata().ok()?.len();
    let mut bytes = [0; size_of::<Trailer>()];
    let trailer_at = length.checked_sub(TRAILER)?;
    file.read_exact_at(&mut bytes, trailer_at).ok()?;
    let trailer = Trailer::read_from_bytes(&bytes).ok()?;
    let index_length = trailer.count.get().checked_mul(ENTRY)?;
    let index_at = trailer_at.checked_sub(index_length)?;
    if trailer.magic != MAGIC {
        return None;
    }
    let mut index = vec![0; usize::try_from(index_length).ok()?];
    file.read_exact_at(&mut index, index_at).ok()?;
    if trailer.sum != *index_sum(tag, &index).bytes() {
        return None;
    }
    let entries = index.chunks_exact(size_of::<Entry>());
    let entries = entries.map(|bytes| Entry::read_from_bytes(bytes).ok());
    Some((file, entries.collect::<Option<_>>()?))
}

fn index_sum(tag: &str, index: &[u8]) -> Digest {
    crate::digest::of_fields([tag.as_bytes(), index])
}

fn sum_of(leaf: &Digest, packed: &[u8]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(leaf.bytes());
    hasher.update(packed);
    hasher.finish()
}

/// Takes what a build uses, and leaves it for the next one.
#[derive(Debug)]
pub(super) struct Keeper {
    paths: PackPaths,
    /// The pack that this build would add.
    number: usize,
    fresh: Option<PackWriter>,
    /// Keys of all clusters that this build took from the stock.
    used: BTreeSet<Digest>,
}

impl Keeper {
    pub(super) fn new(paths: PackPaths, stock: &Stock) -> Self {
        Self {
            paths,
            number: stock.free_number().unwrap_or(0),
            fresh: None,
            used: BTreeSet::new(),
        }
    }

    /// Notes that this build uses a cluster, and keeps its packed form when
    /// that is new.
    pub(super) fn note(&mut self, leaf: &Digest, packed: &Packed) -> io::Result<()> {
        if packed.reused {
            self.used.insert(*leaf);
            return Ok(());
        }
        self.writer()?.add(leaf, &packed.form)
    }

    fn writer(&mut self) -> io::Result<&mut PackWriter> {
        Ok(match &mut self.fresh {
            Some(writer) => writer,
            none => none.insert(PackWriter::create(&self.paths.path(self.number))?),
        })
    }

    /// Names what was new; tidies up when too much is kept.
    pub(super) fn finish(mut self, stock: &Stock) -> io::Result<()> {
        if self.must_tidy(stock) {
            for leaf in std::mem::take(&mut self.used) {
                if let Some(form) = stock.find(&leaf) {
                    self.writer()?.add(&leaf, &form)?;
                }
            }
            self.commit()?;
            return stock.remove_others(&self.paths, self.number);
        }
        self.commit()
    }

    fn must_tidy(&self, stock: &Stock) -> bool {
        const NEVER_BELOW: u64 = 1 << 20;
        let kept: u64 = stock.places.keys().map(|leaf| stock.bytes_of(leaf)).sum();
        let used: u64 = self.used.iter().map(|leaf| stock.bytes_of(leaf)).sum();
        let fresh = self.fresh.as_ref().map_or(0, |fresh| fresh.at);
        let wasteful = kept.saturating_sub(used) > (used + fresh).max(NEVER_BELOW);
        let full = self.fresh.is_some() && stock.free_number().is_none();
        wasteful || full || stock.damaged.load(Ordering::Relaxed)
    }

    fn commit(&mut self) -> io::Result<()> {
        match self.fresh.take() {
            Some(fresh) => fresh.commit(&self.paths.tag),
            None => Ok(()),
        }
    }
}

/// A pack in the making.
#[derive(Debug)]
struct PackWriter {
    pending: PendingFile,
    at: u64,
    entries: BTreeMap<Digest, Entry>,
}

impl PackWriter {
    fn create(target: &Path) -> io::Result<Self> {
        Ok(Self {
            pending: PendingFile::create(target)?,
            at: 0,
            entries: BTreeMap::new(),
        })
    }

    fn add(&mut self, leaf: &Digest, form: &Form) -> io::Result<()> {
        if self.entries.contains_key(leaf) {
            return Ok(());
        }
        let packed: &[u8] = match form {
            Form::Smaller(bytes) => bytes,
            Form::AsItIs => &[],
        };
        self.pending.file().write_all_at(packed, self.at)?;
        let entry = Entry {
            key: *leaf.bytes(),
            sum: *sum_of(leaf, packed).bytes(),
            offset: self.at.into(),
            length: u32::try_from(packed.len())
                .map_err(io::Error::other)?
                .into(),
            reserved: U32::ZERO,
        };
        self.entries.insert(*leaf, entry);
        self.at += packed.len() as u64;
        Ok(())
    }

    fn commit(self, tag: &str) -> io::Result<()> {
        let index: Vec<Entry> = self.entries.into_values().collect();
        let trailer = Trailer {
            magic: MAGIC,
            count: (index.len() as u64).into(),
            sum: *index_sum(tag, index.as_bytes()).bytes(),
        };
        let file = self.pending.file();
        file.write_all_at(index.as_bytes(), self.at)?;
        let end = self.at + index.as_bytes().len() as u64;
        file.write_all_at(trailer.as_bytes(), end)?;
        self.pending.commit_unsynced()
    }
}
