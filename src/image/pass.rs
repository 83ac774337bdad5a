//! One pass over a disk for all that is made of it.
//!
//! Batches of clusters are read, hashed and packed by worker threads while
//! the batch before is written in order by the calling thread. So what comes
//! out does not depend on the number of threads, and what is in memory does
//! not depend on the size of the disk: at most three batches.

use std::fs::File;
use std::io;
use std::iter;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::mpsc;

use rayon::prelude::*;

use super::cache::Stock;
use super::codec::{Form, Packer};
use super::root::{self, RootBuilder};
use super::{CLUSTER_SIZE, ImageError};
use crate::digest::{ContentRoot, Digest};
use crate::sparse::SparseSource;

/// Clusters in a batch for each thread, and at most.
const BATCH_PER_THREAD: usize = 32;
const BATCH_MOST: usize = 192;

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

/// Starts the worker threads: `count`, or as many as the machine has cores.
pub(super) fn start_threads(count: Option<NonZeroUsize>) -> Result<rayon::ThreadPool, ImageError> {
    let count = count.map_or(0, NonZeroUsize::get);
    rayon::ThreadPoolBuilder::new()
        .num_threads(count)
        .thread_name(|number| format!("image-{number}"))
        .build()
        .map_err(|error| ImageError::Threads {
            count,
            source: io::Error::other(error),
        })
}

/// Gives every cluster of `disk` that is not all zeros to `take`, in
/// ascending order, packed by each of `presses`; returns the content root.
pub(super) fn run(
    disk: &dyn SparseSource,
    presses: &[Press],
    threads: &rayon::ThreadPool,
    mut take: impl FnMut(Cluster) -> Result<(), ImageError>,
) -> Result<ContentRoot, ImageError> {
    let mut root = RootBuilder::new(disk.size());
    std::thread::scope(|scope| {
        let (sender, batches) = mpsc::sync_channel(1);
        scope.spawn(move || {
            for batch in batches_of(disk, threads.current_num_threads()) {
                let made = threads.install(|| make(disk, presses, &batch));
                // The other side is gone when it failed.
                if sender.send(made).is_err() {
                    break;
                }
            }
        });
        for batch in batches {
            for cluster in batch? {
                root.push(cluster.index, cluster.leaf);
                take(cluster)?;
            }
        }
        Ok(root.finish())
    })
}

fn make(
    disk: &dyn SparseSource,
    presses: &[Press],
    batch: &[u64],
) -> Result<Vec<Cluster>, ImageError> {
    batch
        .par_iter()
        .filter_map(|index| make_one(disk, presses, *index).transpose())
        .collect()
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

/// The clusters that may hold data, in batches.
fn batches_of(disk: &dyn SparseSource, threads: usize) -> impl Iterator<Item = Vec<u64>> {
    let most = (threads * BATCH_PER_THREAD).clamp(BATCH_PER_THREAD, BATCH_MOST);
    let mut clusters = clusters_of(disk.data_ranges());
    iter::from_fn(move || {
        let batch: Vec<u64> = clusters.by_ref().take(most).collect();
        (!batch.is_empty()).then_some(batch)
    })
}

/// The clusters that `ranges` touch, ascending, each once.
fn clusters_of(ranges: impl Iterator<Item = Range<u64>>) -> impl Iterator<Item = u64> {
    let size = CLUSTER_SIZE as u64;
    let mut next = 0;
    ranges.flat_map(move |range| {
        let clusters = next.max(range.start / size)..range.end.div_ceil(size);
        next = next.max(clusters.end);
        clusters
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_touched_cluster_comes_once() {
        let ranges = [0..1, 2..65_536, 65_537..65_538, 300_000..400_000];
        let clusters: Vec<u64> = clusters_of(ranges.into_iter()).collect();
        assert_eq!(clusters, [0, 1, 4, 5, 6]);
    }
}
