//! Raw images: the disk itself, blocks of zeros left out as holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::pass::{Cluster, Container};
use crate::digest::ContentRoot;
use crate::units::ByteSize;

/// Granularity of holes: the block of common file systems.
const BLOCK: usize = 4096;

/// A raw image in the making.
#[derive(Debug)]
pub(super) struct RawWriter {
    size: ByteSize,
}

impl RawWriter {
    pub(super) fn new(size: ByteSize) -> Self {
        Self { size }
    }
}

/// Writes `cluster` where it is on the disk, up to the end of that.
pub(super) fn write_cluster(file: &File, cluster: &Cluster, size: ByteSize) -> io::Result<()> {
    let start = cluster.start();
    let left = size.bytes() - start;
    let length = usize::try_from(left).unwrap_or(usize::MAX);
    let data = &cluster.data[..length.min(cluster.data.len())];
    write_without_zeros(file, data, start)
}

/// Writes the blocks of `data` that are not zeros from byte `start` on, each
/// run of them at once.
pub(super) fn write_without_zeros(file: &File, data: &[u8], start: u64) -> io::Result<()> {
    let mut run = 0;
    let mut at = 0;
    while at < data.len() {
        let end = data.len().min(at + BLOCK);
        if is_zero(&data[at..end]) {
            write_run(file, data, run..at, start)?;
            run = end;
        }
        at = end;
    }
    write_run(file, data, run..at, start)
}

fn write_run(file: &File, data: &[u8], run: std::ops::Range<usize>, start: u64) -> io::Result<()> {
    if run.is_empty() {
        return Ok(());
    }
    let at = start + run.start as u64;
    file.write_all_at(&data[run], at)
}

impl Container for RawWriter {
    fn append(&mut self, file: &File, cluster: &Cluster) -> io::Result<()> {
        write_cluster(file, cluster, self.size)
    }

    fn finish(&mut self, file: &File, _root: &ContentRoot) -> io::Result<()> {
        file.set_len(self.size.bytes())
    }
}

/// Whether all of at most [`BLOCK`] bytes are zero.
fn is_zero(block: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    *block == ZEROS[..block.len()]
}
