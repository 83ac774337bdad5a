//! qcow2 images: compressed, deterministic, readable by every QEMU since 1.1
//! (deflate) or 5.1 (zstd).
//!
//! File, front to back: header, L1 table, then clusters and L2 tables as they
//! come, then refcount table and blocks. An L2 table follows the last cluster
//! that it names, so only one is in memory. Clusters of zeros are not
//! allocated; a cluster that does not get smaller is stored as it is.

pub(crate) mod format;
mod layout;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use zerocopy::IntoBytes as _;
use zerocopy::big_endian::{U16, U32, U64};

use super::pass::{Cluster, Container};
use crate::digest::ContentRoot;
use crate::units::ByteSize;
use format::{
    CLUSTER, CLUSTER_BITS, COMPRESSED, COMPRESSED_OFFSET_BITS, COMPRESSION_ZSTD, COPIED,
    CompressionField, ENTRIES_PER_CLUSTER, Header, INCOMPATIBLE_COMPRESSION, MAGIC, MAX_SIZE,
    REFCOUNT_ORDER, REFCOUNTS_PER_BLOCK, SECTOR,
};
use layout::{Allocator, RefcountArea};

/// The largest disk that QEMU opens in this format.
pub(super) const LIMIT: ByteSize = ByteSize::from_bytes(MAX_SIZE);

/// What the packed clusters are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CompressionType {
    /// Raw deflate.
    Deflate,
    /// zstd frames.
    Zstd,
}

/// A qcow2 image in the making.
#[derive(Debug)]
pub(super) struct Qcow2Writer {
    size: ByteSize,
    compression: CompressionType,
    /// Which of the packed forms of a cluster is ours.
    packer: usize,
    allocator: Allocator,
    l1_offset: u64,
    l1: Vec<U64>,
    /// The L2 table that is being filled, and its number.
    l2: Option<(usize, Vec<U64>)>,
}

impl Qcow2Writer {
    /// An image of a disk of `size` bytes, at most [`LIMIT`].
    pub(super) fn new(size: ByteSize, compression: CompressionType, packer: usize) -> Self {
        let entries = size.bytes().div_ceil(CLUSTER * ENTRIES_PER_CLUSTER);
        let l1 = vec![U64::ZERO; usize::try_from(entries).expect("at most 4 Mi entries")];
        let mut allocator = Allocator::new();
        allocator.whole(1); // the header
        let l1_offset = allocator.whole(entries.div_ceil(ENTRIES_PER_CLUSTER));
        Self {
            size,
            compression,
            packer,
            allocator,
            l1_offset,
            l1,
            l2: None,
        }
    }

    /// Puts the bytes of a cluster into the file, and returns its L2 entry.
    fn store(&mut self, file: &File, cluster: &Cluster) -> io::Result<u64> {
        let Some(packed) = cluster.packed(self.packer) else {
            let offset = self.allocator.whole(1);
            file.write_all_at(&cluster.data, offset)?;
            return Ok(offset | COPIED);
        };
        let length = packed.len() as u64;
        let offset = self.allocator.packed(length)?;
        if offset >> COMPRESSED_OFFSET_BITS != 0 {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        file.write_all_at(packed, offset)?;
        // Sectors after the first.
        let sectors = (offset + length - 1) / SECTOR - offset / SECTOR;
        Ok(COMPRESSED | (sectors << COMPRESSED_OFFSET_BITS) | offset)
    }

    fn write_l2(&mut self, file: &File) -> io::Result<()> {
        let Some((number, table)) = self.l2.take() else {
            return Ok(());
        };
        let offset = self.allocator.whole(1);
        self.l1[number] = U64::new(offset | COPIED);
        file.write_all_at(table.as_bytes(), offset)
    }

    fn write_refcounts(&mut self, file: &File) -> io::Result<RefcountArea> {
        let area = self.allocator.refcount_area();
        let table: Vec<U64> = (0..area.block_count)
            .map(|block| U64::new((area.blocks + block) * CLUSTER))
            .collect();
        file.write_all_at(table.as_bytes(), area.table * CLUSTER)?;
        let per_block = usize::try_from(REFCOUNTS_PER_BLOCK).expect("32,768");
        let blocks = self.allocator.refcounts().chunks(per_block);
        for (number, refcounts) in (area.blocks..).zip(blocks) {
            let block: Vec<U16> = refcounts.iter().map(|count| U16::new(*count)).collect();
            file.write_all_at(block.as_bytes(), number * CLUSTER)?;
        }
        Ok(area)
    }

    fn header(&self, area: &RefcountArea) -> io::Result<Vec<u8>> {
        let small = |number: u64| {
            u32::try_from(number)
                .map(U32::new)
                .map_err(io::Error::other)
        };
        let zstd = self.compression == CompressionType::Zstd;
        let field = CompressionField {
            compression_type: COMPRESSION_ZSTD,
            padding: [0; 7],
        };
        let extra = if zstd { field.as_bytes() } else { &[] };
        let header = Header {
            magic: MAGIC.into(),
            version: 3.into(),
            backing_file_offset: U64::ZERO,
            backing_file_size: U32::ZERO,
            cluster_bits: CLUSTER_BITS.into(),
            size: self.size.bytes().into(),
            crypt_method: U32::ZERO,
            l1_size: small(self.l1.len() as u64)?,
            l1_table_offset: self.l1_offset.into(),
            refcount_table_offset: (area.table * CLUSTER).into(),
            refcount_table_clusters: small(area.table_clusters)?,
            nb_snapshots: U32::ZERO,
            snapshots_offset: U64::ZERO,
            incompatible_features: if zstd { INCOMPATIBLE_COMPRESSION } else { 0 }.into(),
            compatible_features: U64::ZERO,
            autoclear_features: U64::ZERO,
            refcount_order: REFCOUNT_ORDER.into(),
            header_length: small((size_of::<Header>() + extra.len()) as u64)?,
        };
        Ok([header.as_bytes(), extra].concat())
    }
}

impl Container for Qcow2Writer {
    fn append(&mut self, file: &File, cluster: &Cluster) -> io::Result<()> {
        let place = |n: u64| usize::try_from(n).map_err(io::Error::other);
        let number = place(cluster.index / ENTRIES_PER_CLUSTER)?;
        if self.l2.as_ref().is_some_and(|(open, _)| *open != number) {
            self.write_l2(file)?;
        }
        let entry = self.store(file, cluster)?;
        let (_, table) = self.l2.get_or_insert_with(|| {
            let entries = usize::try_from(ENTRIES_PER_CLUSTER).expect("8,192");
            (number, vec![U64::ZERO; entries])
        });
        table[place(cluster.index % ENTRIES_PER_CLUSTER)?] = U64::new(entry);
        Ok(())
    }

    fn finish(&mut self, file: &File, _root: &ContentRoot) -> io::Result<()> {
        self.write_l2(file)?;
        let area = self.write_refcounts(file)?;
        file.write_all_at(self.l1.as_bytes(), self.l1_offset)?;
        file.write_all_at(&self.header(&area)?, 0)?;
        file.set_len(self.allocator.clusters() * CLUSTER)
    }
}
