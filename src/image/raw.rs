//! Raw images: the disk itself, blocks of zeros left out as holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::pass::{Cluster, Container};
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

impl Container for RawWriter {
    fn append(&mut self, file: &File, cluster: &Cluster) -> io::Result<()> {
        let start = cluster.start();
        let left = self.size.bytes() - start;
        let length = usize::try_from(left).unwrap_or(usize::MAX);
        let data = &cluster.data[..length.min(cluster.data.len())];
        let mut at = 0;
        for run in data
            .chunks(BLOCK)
            .collect::<Vec<_>>()
            .chunk_by(|a, b| is_zero(a) == is_zero(b))
        {
            let length: usize = run.iter().map(|block| block.len()).sum();
            if !is_zero(run[0]) {
                file.write_all_at(&data[at..at + length], start + at as u64)?;
            }
            at += length;
        }
        Ok(())
    }

    fn finish(&mut self, file: &File) -> io::Result<()> {
        file.set_len(self.size.bytes())
    }
}

/// Whether all of at most [`BLOCK`] bytes are zero.
fn is_zero(block: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    *block == ZEROS[..block.len()]
}
