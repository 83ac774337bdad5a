//! The protective MBR and both partition tables, through the `gpt` crate.

use std::collections::BTreeMap;
use std::io;

use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::partition_types::{OperatingSystem, Type};
use gpt::{GptConfig, GptError};
use uuid::Uuid;

use super::spec::{DiskSpec, PartitionSpec, SECTOR};
use crate::sparse::PageMap;
use crate::units::Guid;

/// A disk with its tables and boot code and nothing else. `spec` was checked.
pub(super) fn write(spec: &DiskSpec) -> io::Result<PageMap> {
    let mut disk = PageMap::new(spec.size);
    // The crate's own call is separate, and its size has 32 bits (UEFI 5.2.3).
    let sectors = u32::try_from(spec.size.bytes() / SECTOR - 1).unwrap_or(u32::MAX);
    let mut mbr = ProtectiveMBR::with_lb_size(sectors);
    mbr.set_bootcode(spec.boot_mbr.unwrap_or([0; 440]));
    mbr.overwrite_lba0(&mut disk).map_err(io::Error::other)?;
    let mut table = GptConfig::new()
        .writable(true)
        .create_from_device(disk, Some(uuid(spec.guid)))
        .map_err(into_io)?;
    table.update_partitions(entries(spec)).map_err(into_io)?;
    table.write().map_err(into_io)
}

/// Entries by number. Numbers without gaps, since the crate closes gaps when
/// it writes.
fn entries(spec: &DiskSpec) -> BTreeMap<u32, Partition> {
    (1..).zip(spec.partitions.iter().map(entry)).collect()
}

fn entry(partition: &PartitionSpec) -> Partition {
    Partition {
        part_type_guid: Type {
            guid: uuid(partition.type_guid),
            os: OperatingSystem::None,
        },
        part_guid: uuid(partition.guid),
        first_lba: partition.start.bytes() / SECTOR,
        last_lba: partition.end() / SECTOR - 1,
        flags: partition.attributes.bits(),
        name: partition.name.clone(),
    }
}

fn uuid(guid: Guid) -> Uuid {
    Uuid::from_bytes(guid.bytes())
}

fn into_io(error: GptError) -> io::Error {
    match error {
        GptError::Io(error) => error,
        other => io::Error::other(other),
    }
}
