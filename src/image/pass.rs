//! One pass over a disk for all that is made of it.
//!
//! Worker threads read, hash and pack the clusters; the calling thread writes
//! them in order. So what comes out does not depend on the number of threads,
//! and what is in memory does not depend on the size of the disk: at most
//! [`AHEAD`] pieces wait for their turn.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;

use super::cache::Stock;
use super::codec::{Form, Packer};
use super::root::{self, RootBuilder};
use super::{CLUSTER_SIZE, ImageError, ordered};
use crate::digest::{ContentRoot, Digest};
use crate::sparse::{SparseSource, coalesce};

/// Clusters that a worker takes at once.
const PIECE: usize = 8;
/// Pieces that may be begun before their turn: 32 MiB, and as packed as much again.
const AHEAD: usize = 64;

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

/// An image format: takes the clusters of a disk that are not zeros, in
/// ascending order, and writes a file.
pub(super) trait Container {
    /// Writes one cluster.
    fn append(&mut self, file: &File, cluster: &Cluster) -> io::Result<()>;

    /// Writes what is left, after the last cluster.
    fn finish(&mut self, file: &File) -> io::Result<()>;
}

/// What makes packed clusters, and where finished ones may be found.
#[derive(Debug)]
pub(super) struct Press {
    pub packer: Packer,
    pub stock: Option<Stock>,
}

impl Press {
    fn pack(&self, leaf: &Digest, data: &[u8]) -> io::Result<Packed> {
        let found = self.stock.as_ref().and_then(|stock| stock.find(leaf));
        let reused = found.is_some();
        let form = found.map_or_else(|| self.packer.pack(data), Ok)?;
        Ok(Packed { form, reused })
    }
}

/// As many threads as asked for, or as the machine has cores.
pub(super) fn thread_count(wanted: Option<NonZeroUsize>) -> NonZeroUsize {
    let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    wanted.unwrap_or_else(cores)
}

/// Gives every cluster of `disk` that is not all zeros to `take`, in
/// ascending order, packed by each of `presses`; returns the content root.
pub(super) fn run(
    disk: &dyn SparseSource,
    presses: &[Press],
    threads: NonZeroUsize,
    mut take: impl FnMut(Cluster) -> Result<(), ImageError>,
) -> Result<ContentRoot, ImageError> {
    let mut root = RootBuilder::new(disk.size());
    let touched = clusters_of(disk.data_ranges());
    let work = |piece: Range<u64>| -> Result<Vec<Cluster>, ImageError> {
        piece
            .filter_map(|index| make_one(disk, presses, index).transpose())
            .collect()
    };
    ordered::map(pieces(&touched), threads, AHEAD, work, |clusters| {
        for cluster in clusters? {
            root.push(cluster.index, cluster.leaf);
            take(cluster)?;
        }
        Ok(())
    })?;
    Ok(root.finish())
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

fn is_zero(cluster: &[u8]) -> bool {
    static ZEROS: [u8; CLUSTER_SIZE] = [0; CLUSTER_SIZE];
    *cluster == ZEROS
}

/// The clusters that `ranges`, in bytes, touch: ascending, not touching.
fn clusters_of(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let size = CLUSTER_SIZE as u64;
    coalesce(ranges.map(|range| range.start / size..range.end.div_ceil(size)))
}

/// Cuts ranges of clusters into pieces for the workers.
fn pieces(ranges: &[Range<u64>]) -> impl Iterator<Item = Range<u64>> + Send {
    ranges.iter().flat_map(|range| {
        let starts = range.clone().step_by(PIECE);
        starts.map(|start| start..range.end.min(start + PIECE as u64))
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
    fn pieces_cover_the_ranges() {
        let covered: Vec<u64> = pieces(&[0..1, 4..30, 40..48]).flatten().collect();
        let all: Vec<u64> = (0..1).chain(4..30).chain(40..48).collect();
        assert_eq!(covered, all);
        assert!(pieces(&[4..30, 40..48]).all(|piece| piece.end - piece.start <= 8));
    }
}
