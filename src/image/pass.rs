//! One pass over a disk for all that is made of it.
//!
//! Worker threads read, hash and pack the clusters; the calling thread writes
//! them in order. So what comes out does not depend on the number of threads,
//! and what is in memory does not depend on the size of the disk: at most
//! [`AHEAD`] bytes wait for their turn.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;

use super::ahead::Forms;
use super::cache::Stock;
use super::codec::{Form, Packer};
use super::root::{self, RootBuilder};
use super::{CLUSTER_SIZE, ImageError, ordered};
use crate::digest::{ContentRoot, Digest, Hasher};
use crate::sparse::{SparseSource, coalesce};

/// Clusters that a worker takes at once, when nobody asks for chunks.
const PIECE: u64 = 8;
/// Bytes of a chunk, which is a piece as well.
pub(super) const CHUNK_SIZE: usize = 4 << 20;
/// Clusters of a chunk.
const CHUNK: u64 = CHUNK_SIZE as u64 / CLUSTER_SIZE as u64;
/// Bytes of pieces that may be begun before their turn, by however many
/// threads; packed they are as much again.
const AHEAD: u64 = 32 << 20;

/// 64 KiB of the disk that are not all zeros; behind the end of the disk,
/// zeros.
#[derive(Debug)]
pub(super) struct Cluster {
    /// Offset on the disk in clusters.
    pub index: u64,
    pub data: Box<[u8]>,
    pub leaf: Digest,
    /// One for each packer of the pass.
    pub packed: Vec<Packed>,
}

/// A cluster in the form of one codec.
#[derive(Debug)]
pub(super) struct Packed {
    pub form: Form,
    /// Whether it came from the cache.
    pub reused: bool,
}

impl Cluster {
    /// Offset on the disk in bytes.
    pub(super) fn start(&self) -> u64 {
        self.index * CLUSTER_SIZE as u64
    }

    /// Its form by packer number `packer`; `None` when that is not smaller.
    pub(super) fn packed(&self, packer: usize) -> Option<&[u8]> {
        match &self.packed.get(packer)?.form {
            Form::Smaller(bytes) => Some(bytes),
            Form::AsItIs => None,
        }
    }
}

/// 4 MiB of the disk that are not all zeros; less at its end.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Offset on the disk in chunks.
    pub index: u64,
    /// Bytes of the disk in it.
    pub length: usize,
    /// Digest of its clusters' leaf hashes, their places, and its length.
    pub key: Digest,
    /// One for each packer of chunks.
    pub packed: Vec<Packed>,
}

/// What a worker makes at once: the clusters that are not zeros, and the
/// chunk, when one is wanted and not all zeros.
#[derive(Debug)]
pub(super) struct Piece {
    pub clusters: Vec<Cluster>,
    pub chunk: Option<Chunk>,
}

/// An image format: takes the clusters of a disk that are not zeros, in
/// ascending order, and writes a file.
pub(super) trait Container: Send {
    /// Writes one cluster.
    fn append(&mut self, file: &File, cluster: &Cluster) -> io::Result<()>;

    /// Writes one chunk; its clusters came just before.
    fn append_chunk(&mut self, _file: &File, _chunk: &Chunk) -> io::Result<()> {
        Ok(())
    }

    /// Writes what is left, after the last cluster.
    fn finish(&mut self, file: &File, root: &ContentRoot) -> io::Result<()>;
}

/// All presses of a pass.
#[derive(Debug, Default)]
pub(super) struct Presses {
    pub clusters: Vec<Press>,
    pub chunks: Vec<Press>,
}

/// What makes packed clusters, and where finished ones may be found.
#[derive(Debug)]
pub(super) struct Press {
    pub packer: Packer,
    pub stock: Option<Stock>,
    /// What was packed ahead.
    pub ahead: Forms,
}

impl Press {
    fn pack(&self, leaf: &Digest, data: &[u8]) -> io::Result<Packed> {
        let found = self.stock.as_ref().and_then(|stock| stock.find(leaf));
        let reused = found.is_some();
        let found = found.or_else(|| self.ahead.get(leaf).cloned());
        let form = found.map_or_else(|| self.packer.pack(data), Ok)?;
        Ok(Packed { form, reused })
    }
}

/// As many threads as asked for, or as the machine has cores, but for `most`.
pub(super) fn thread_count(
    wanted: Option<NonZeroUsize>,
    most: Option<NonZeroUsize>,
) -> NonZeroUsize {
    let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    wanted.unwrap_or_else(|| most.map_or_else(cores, |most| most.min(cores())))
}

/// Gives every piece of `disk` that is not all zeros to `take`, in ascending
/// order, packed by `presses`; returns the content root.
pub(super) fn run(
    disk: &dyn SparseSource,
    presses: &Presses,
    threads: NonZeroUsize,
    mut take: impl FnMut(Piece) -> Result<(), ImageError>,
) -> Result<ContentRoot, ImageError> {
    let mut root = RootBuilder::new(disk.size());
    let touched = clusters_of(disk.data_ranges());
    let chunk = (!presses.chunks.is_empty()).then_some(CHUNK);
    let step = chunk.unwrap_or(PIECE);
    let jobs = pieces(touched.iter().cloned().flatten(), chunk);
    let ahead = as_usize(AHEAD / (step * CLUSTER_SIZE as u64));
    let work = |clusters| make_piece(disk, presses, clusters);
    // Not more on a machine with more cores: what they hold would grow with them.
    ordered::map(jobs, threads, ahead, work, |piece| {
        let piece = piece?;
        for cluster in &piece.clusters {
            root.push(cluster.index, cluster.leaf);
        }
        if piece.clusters.is_empty() {
            return Ok(());
        }
        take(piece)
    })?;
    Ok(root.finish())
}

fn as_usize(small: u64) -> usize {
    usize::try_from(small).unwrap_or(usize::MAX)
}

fn make_piece(
    disk: &dyn SparseSource,
    presses: &Presses,
    clusters: Vec<u64>,
) -> Result<Piece, ImageError> {
    let first = clusters.first().copied().unwrap_or_default();
    let start = first / CHUNK * CHUNK;
    let clusters = clusters.into_iter();
    let made = clusters.filter_map(|index| make_one(disk, &presses.clusters, index).transpose());
    let clusters = made.collect::<Result<Vec<_>, _>>()?;
    let chunk = if presses.chunks.is_empty() || clusters.is_empty() {
        None
    } else {
        Some(make_chunk(
            disk.size().bytes(),
            &presses.chunks,
            start,
            &clusters,
        )?)
    };
    Ok(Piece { clusters, chunk })
}

/// The chunk that begins at cluster `start`, of its clusters that are not zeros.
fn make_chunk(
    size: u64,
    presses: &[Press],
    start: u64,
    clusters: &[Cluster],
) -> Result<Chunk, ImageError> {
    let offset = start * CLUSTER_SIZE as u64;
    let length = as_usize(size - offset).min(CHUNK_SIZE);
    let mut data = vec![0; length.next_multiple_of(CLUSTER_SIZE)];
    let mut hasher = Hasher::new();
    hasher.field(b"chunk v1");
    hasher.field(&(length as u64).to_be_bytes());
    for cluster in clusters {
        let place = cluster.index - start;
        let at = as_usize(place) * CLUSTER_SIZE;
        data[at..at + CLUSTER_SIZE].copy_from_slice(&cluster.data);
        hasher.field(&place.to_be_bytes());
        hasher.field(cluster.leaf.bytes());
    }
    let key = hasher.finish();
    let packed = presses
        .iter()
        .map(|press| press.pack(&key, &data[..length]));
    let packed = packed.collect::<io::Result<_>>();
    Ok(Chunk {
        index: offset / CHUNK_SIZE as u64,
        length,
        key,
        packed: packed.map_err(|source| ImageError::Pack { offset, source })?,
    })
}

fn make_one(
    disk: &dyn SparseSource,
    presses: &[Press],
    index: u64,
) -> Result<Option<Cluster>, ImageError> {
    let offset = index * CLUSTER_SIZE as u64;
    let failed = |source| ImageError::Read { offset, source };
    let left = disk.size().bytes() - offset;
    let length = usize::try_from(left).unwrap_or(usize::MAX);
    let mut data = vec![0; CLUSTER_SIZE].into_boxed_slice();
    let inside = &mut data[..length.min(CLUSTER_SIZE)];
    disk.read_exact_at(inside, offset).map_err(failed)?;
    if is_zero(&data) {
        return Ok(None);
    }
    let leaf = root::leaf(&data);
    let packed = presses.iter().map(|press| press.pack(&leaf, &data));
    let packed = packed.collect::<io::Result<_>>();
    let packed = packed.map_err(|source| ImageError::Pack { offset, source })?;
    Ok(Some(Cluster {
        index,
        data,
        leaf,
        packed,
    }))
}

pub(super) fn is_zero(cluster: &[u8]) -> bool {
    static ZEROS: [u8; CLUSTER_SIZE] = [0; CLUSTER_SIZE];
    *cluster == ZEROS
}

/// The clusters that `ranges`, in bytes, touch: ascending, not touching.
///
/// No other is read. Of a large disk with files here and there most would be
/// holes, and reading a hole takes memory from what is not one.
fn clusters_of(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    const SIZE: u64 = CLUSTER_SIZE as u64;
    coalesce(ranges.map(|range| range.start / SIZE..range.end.div_ceil(SIZE)))
}

/// `clusters` in pieces: all that are in one chunk of so many clusters, or
/// [`PIECE`] of them wherever they are.
fn pieces(
    clusters: impl Iterator<Item = u64> + Send,
    chunk: Option<u64>,
) -> impl Iterator<Item = Vec<u64>> + Send {
    let mut clusters = clusters.peekable();
    std::iter::from_fn(move || {
        let first = clusters.next()?;
        let mut piece = vec![first];
        while let Some(next) = clusters.next_if(|next| match chunk {
            Some(size) => next / size == first / size,
            None => (piece.len() as u64) < PIECE,
        }) {
            piece.push(next);
        }
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_touched_cluster_comes_once() {
        let ranges = [0..1, 2..65_536, 65_537..65_538, 300_000..400_000];
        assert_eq!(clusters_of(ranges.into_iter()), [0..2, 4..7]);
    }

    #[test]
    fn pieces_are_of_one_chunk_or_full() {
        let clusters = || [0, 1, 2, 7, 8, 9, 20, 21, 22, 23].into_iter();
        let all = |chunk| pieces(clusters(), chunk).collect::<Vec<_>>();
        assert_eq!(
            all(Some(8)),
            [vec![0, 1, 2, 7], vec![8, 9], vec![20, 21, 22, 23]]
        );
        assert_eq!(all(None), [vec![0, 1, 2, 7, 8, 9, 20, 21], vec![22, 23]]);
        assert_eq!(pieces(0..0, None).count(), 0);
    }
}
