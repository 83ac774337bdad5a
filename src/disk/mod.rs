//! GPT disks: from volumes to one partitioned disk.
//!
//! In: a [`DiskSpec`] and the volume of each partition. Out: a [`Disk`],
//! readable at any offset; nothing is written here. Never here: file systems,
//! image formats, choices, random identifiers. Checked by: `sgdisk -v`,
//! `sfdisk --verify` and `--json` (`tests/it/formats/gpt.rs`), and every boot.
//!
//! Source: UEFI Specification 2.10, chapter 5. Narrower than that: 512-byte
//! sectors, 128 entries of 128 bytes, partitions start on whole mebibytes and
//! are numbered from 1 without gaps.

mod error;
mod spec;
mod table;
pub mod types;

use std::io;
use std::ops::Range;

pub use error::DiskError;
pub use spec::{ALIGNMENT, BACKUP_TABLE, DiskSpec, PartitionSpec, SECTOR};
pub use types::Attributes;

use crate::sparse::{Padded, PageMap, SparseSource, check_range, coalesce};
use crate::units::ByteSize;

type Volume = Padded<Box<dyn SparseSource>>;

/// A partitioned disk, readable at any offset.
#[derive(Debug)]
pub struct Disk {
    /// Boot code, protective MBR and both tables; zeros where the partitions are.
    tables: PageMap,
    /// By where they are on the disk, ascending.
    volumes: Vec<Placed>,
    data: Vec<Range<u64>>,
}

/// A volume, and where its partition is on the disk.
#[derive(Debug)]
struct Placed {
    range: Range<u64>,
    volume: Volume,
}

impl Disk {
    /// Puts `volumes`, one for each partition in the order of their numbers,
    /// on a new disk. A volume may be smaller than its partition: zeros follow.
    ///
    /// # Errors
    ///
    /// [`DiskError`] for every rule that `spec` breaks, and for a volume that
    /// is larger than its partition.
    pub fn assemble(
        spec: &DiskSpec,
        volumes: Vec<Box<dyn SparseSource>>,
    ) -> Result<Self, DiskError> {
        spec.check()?;
        if volumes.len() != spec.partitions.len() {
            return Err(DiskError::VolumeCount {
                partitions: spec.partitions.len(),
                volumes: volumes.len(),
            });
        }
        let mut placed = spec
            .partitions
            .iter()
            .zip(volumes)
            .map(|(partition, volume)| place(partition, volume))
            .collect::<Result<Vec<_>, _>>()?;
        placed.sort_by_key(|placed| placed.range.start);
        let tables = table::write(spec).map_err(|source| DiskError::Table { source })?;
        let data = data_ranges(&tables, &placed);
        Ok(Self {
            tables,
            volumes: placed,
            data,
        })
    }
}

fn place(partition: &PartitionSpec, volume: Box<dyn SparseSource>) -> Result<Placed, DiskError> {
    let too_large = DiskError::VolumeTooLarge {
        partition: partition.name.clone(),
        volume: volume.size(),
        size: partition.size,
    };
    Ok(Placed {
        range: partition.start.bytes()..partition.end(),
        volume: Padded::new(volume, partition.size).ok_or(too_large)?,
    })
}

fn data_ranges(tables: &PageMap, volumes: &[Placed]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = tables.data_ranges().collect();
    for placed in volumes {
        let start = placed.range.start;
        let inner = placed.volume.data_ranges();
        ranges.extend(inner.map(|range| start + range.start..start + range.end));
    }
    ranges.sort_by_key(|range| range.start);
    coalesce(ranges)
}

impl SparseSource for Disk {
    fn size(&self) -> ByteSize {
        self.tables.size()
    }

    fn data_ranges(&self) -> Box<dyn Iterator<Item = Range<u64>> + '_> {
        Box::new(self.data.iter().cloned())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(offset, buf.len(), self.size())?;
        let end = offset + buf.len() as u64;
        let first = self
            .volumes
            .partition_point(|placed| placed.range.end <= offset);
        let from_first = &self.volumes[first..];
        if let Some(only) = from_first.first()
            && only.range.start <= offset
            && end <= only.range.end
        {
            return only.volume.read_exact_at(buf, offset - only.range.start);
        }
        self.tables.read_exact_at(buf, offset)?;
        for placed in from_first {
            if placed.range.start >= end {
                break;
            }
            let from = placed.range.start.max(offset);
            let to = placed.range.end.min(end);
            let index = |at: u64| usize::try_from(at - offset).expect("inside the buffer");
            let part = &mut buf[index(from)..index(to)];
            placed
                .volume
                .read_exact_at(part, from - placed.range.start)?;
        }
        Ok(())
    }
}
