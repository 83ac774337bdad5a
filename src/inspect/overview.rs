//! What is on a disk, in short.

use std::ops::Range;
use std::sync::Arc;

use super::container::DiskImage;
use super::error::InspectError;
use super::gpt::{self, Gpt};
use super::part::Part;
use super::volume::{Usage, Volume};
use crate::digest::ContentRoot;
use crate::image::{self, ImageFormat};
use crate::sparse::SparseSource;
use crate::units::{ByteSize, Guid};

/// What is on a disk.
#[derive(Debug)]
pub struct Overview {
    /// The container.
    pub format: ImageFormat,
    /// Its kind, in a few words.
    pub detail: &'static str,
    /// Length of the file.
    pub file_size: ByteSize,
    /// Length of the disk.
    pub disk_size: ByteSize,
    /// Bytes of the disk that are not known to be zeros.
    pub data: ByteSize,
    /// The root over the disk's content.
    pub content_root: Option<ContentRoot>,
    /// The partition table's identifier.
    pub disk_guid: Option<Guid>,
    /// What is wrong with the table at the end of the disk.
    pub backup_fault: Option<&'static str>,
    /// What is wrong with the primary table, when the backup had to be read.
    pub primary_fault: Option<&'static str>,
    /// By number; one without a number for a disk that is a volume.
    pub partitions: Vec<PartitionFacts>,
}

/// A partition.
#[derive(Debug)]
pub struct PartitionFacts {
    /// From 1; `None` when the whole disk is one volume.
    pub number: Option<u32>,
    /// Its name in the table.
    pub name: String,
    /// Its type in the table.
    pub type_guid: Option<Guid>,
    /// Its identifier in the table.
    pub guid: Option<Guid>,
    /// Its bytes on the disk.
    pub range: Range<u64>,
    /// What is in it.
    pub file_system: FileSystem,
}

/// What is in a partition.
#[derive(Debug)]
pub enum FileSystem {
    /// Zeros only, as far as the disk tells.
    Empty,
    /// Something else.
    Unknown,
    /// A file system.
    Known {
        /// `ext4`, `FAT32`, ….
        name: &'static str,
        /// Its label.
        label: Option<String>,
        /// Its identifier, as its own tools write it.
        id: String,
        /// How full it is.
        usage: Usage,
    },
    /// A file system that breaks its rules.
    Faulty(InspectError),
}

/// Looks at `image`; the content root is computed when `wants_root`.
///
/// # Errors
///
/// A partition table that is not sound, and what the container reports. A
/// file system that is not sound is no error here but a finding.
pub fn overview(image: &DiskImage, wants_root: bool) -> Result<Overview, InspectError> {
    let disk = &image.disk;
    let content_root = if wants_root {
        let root = image::content_root(disk.as_ref());
        Some(root.map_err(|source| InspectError::Root { source })?)
    } else {
        None
    };
    let data = disk.data_ranges().map(|range| range.end - range.start);
    let table = gpt::read(disk.as_ref())?;
    Ok(Overview {
        format: image.format,
        detail: image.detail,
        file_size: image.file_size,
        disk_size: disk.size(),
        data: ByteSize::from_bytes(data.sum()),
        content_root,
        disk_guid: table.as_ref().map(|table| table.disk_guid),
        primary_fault: table.as_ref().and_then(|table| table.primary_fault),
        backup_fault: table.as_ref().and_then(|table| table.backup_fault),
        partitions: match table {
            Some(table) => partitions(disk, table),
            None => vec![PartitionFacts {
                number: None,
                name: String::new(),
                type_guid: None,
                guid: None,
                range: 0..disk.size().bytes(),
                file_system: file_system(Arc::clone(disk)),
            }],
        },
    })
}

fn partitions(disk: &Arc<dyn SparseSource>, table: Gpt) -> Vec<PartitionFacts> {
    let facts = table.partitions.into_iter().map(|partition| {
        let part = Part::new(Arc::clone(disk), partition.range.clone());
        PartitionFacts {
            number: Some(partition.number),
            name: partition.name,
            type_guid: Some(partition.type_guid),
            guid: Some(partition.guid),
            range: partition.range,
            file_system: part.map_or(FileSystem::Unknown, |part| file_system(Arc::new(part))),
        }
    });
    facts.collect()
}

fn file_system(part: Arc<dyn SparseSource>) -> FileSystem {
    if part.data_ranges().next().is_none() {
        return FileSystem::Empty;
    }
    let known = Volume::open(part).and_then(|volume| volume.map(known).transpose());
    match known {
        Ok(Some(known)) => known,
        Ok(None) => FileSystem::Unknown,
        Err(error) => FileSystem::Faulty(error),
    }
}

fn known(volume: Volume) -> Result<FileSystem, InspectError> {
    Ok(match volume {
        Volume::Ext4(ext4) => FileSystem::Known {
            name: "ext4",
            label: ext4.label(),
            id: ext4.uuid().to_string(),
            usage: ext4.usage(),
        },
        Volume::Fat(fat) => FileSystem::Known {
            name: fat.type_name(),
            label: fat.label().map(str::to_owned),
            id: fat.serial(),
            usage: fat.usage()?,
        },
    })
}

impl DiskImage {
    /// The volume in the partition `wanted`, by number or name; without one
    /// the whole disk, or the only partition with a file system.
    ///
    /// # Errors
    ///
    /// [`InspectError::NoPartition`], [`InspectError::WhichPartition`],
    /// [`InspectError::NoFileSystem`], and what is wrong with the disk.
    pub fn volume(&self, wanted: Option<&str>) -> Result<Volume, InspectError> {
        let table = gpt::read(self.disk.as_ref())?;
        let parts = table.map_or_else(Vec::new, |table| table.partitions);
        let Some(wanted) = wanted else {
            if parts.is_empty() {
                let volume = Volume::open(Arc::clone(&self.disk))?;
                return volume.ok_or(InspectError::NoFileSystem);
            }
            return Err(InspectError::WhichPartition);
        };
        let number = wanted.parse::<u32>().ok();
        let found = parts
            .into_iter()
            .find(|part| Some(part.number) == number || part.name == wanted);
        let found = found.and_then(|part| Part::new(Arc::clone(&self.disk), part.range));
        let part = found.ok_or_else(|| InspectError::NoPartition {
            wanted: wanted.to_owned(),
        })?;
        Volume::open(Arc::new(part))?.ok_or(InspectError::NoFileSystem)
    }
}
