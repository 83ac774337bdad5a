//! Formats and fills a volume through `fatfs`, in memory.

use std::io::{self, Write as _};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

use super::FatOptions;
use super::layout::{ChildKind, Layout};
use crate::sparse::PageMap;
use crate::tree::TreePath;
use crate::units::ByteSize;

/// Why nothing was written.
#[derive(Debug)]
pub(super) enum Refused {
    /// What `fatfs` says.
    Build(io::Error),
    /// The name is already there, as another entry's generated short name.
    ShortName(TreePath),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Build(error)
    }
}

/// The volume with every name and every FAT chain, and zeros for the files'
/// bytes: the page map keeps none of them.
pub(super) fn write(layout: &Layout, options: &FatOptions) -> Result<PageMap, Refused> {
    let mut volume = PageMap::new(options.size);
    let cluster = u32::try_from(layout.geometry.cluster_bytes).map_err(io::Error::other)?;
    let format = FormatVolumeOptions::new()
        .bytes_per_cluster(cluster)
        .total_sectors(layout.geometry.sectors)
        .volume_id(options.volume_id)
        .volume_label(options.label.padded());
    fatfs::format_volume(&mut volume, format)?;
    io::Seek::rewind(&mut volume)?;
    let filesystem = FileSystem::new(&mut volume, FsOptions::new())?;
    fill(&filesystem, layout)?;
    let stats = filesystem.stats()?;
    if u64::from(stats.total_clusters()) != layout.geometry.clusters {
        return Err(io::Error::other(format!(
            "{} clusters were planned, and there are {}",
            layout.geometry.clusters,
            stats.total_clusters()
        ))
        .into());
    }
    filesystem.unmount()?;
    Ok(volume)
}

fn fill(filesystem: &FileSystem<&mut PageMap>, layout: &Layout) -> Result<(), Refused> {
    let mut opened = vec![Some(filesystem.root_dir())];
    opened.resize_with(layout.directories.len(), || None);
    for (index, directory) in layout.directories.iter().enumerate() {
        let here = opened
            .get_mut(index)
            .and_then(Option::take)
            .ok_or_else(|| io::Error::other("a directory was planned before its parent"))?;
        for child in &directory.children {
            match &child.kind {
                ChildKind::Directory(number) => {
                    refuse_existing(here.open_dir(&child.name).map(drop), &child.path)?;
                    opened[*number] = Some(here.create_dir(&child.name)?);
                }
                ChildKind::File(content) => {
                    refuse_existing(here.open_file(&child.name).map(drop), &child.path)?;
                    let file = here.create_file(&child.name)?;
                    reserve(file, ByteSize::from_bytes(content.size()))?;
                }
            }
        }
    }
    Ok(())
}

/// `fatfs` opens what is there instead of making it anew, and a long name may
/// be another file's generated short name.
fn refuse_existing(opened: io::Result<()>, path: &TreePath) -> Result<(), Refused> {
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(Refused::ShortName(path.clone())),
    }
}

/// Gives `file` its chain of clusters by writing zeros.
fn reserve(mut file: fatfs::File<&mut PageMap>, size: ByteSize) -> io::Result<()> {
    static ZEROS: [u8; 32 << 10] = [0; 32 << 10];
    let mut left = size.bytes();
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
        file.write_all(&ZEROS[..count])?;
        left -= count as u64;
    }
    file.flush()
}
