//! The last partition and its file system follow the disk when that has been
//! made larger: first the table, then the kernel's idea of it, then ext4, all
//! while it is mounted. Every step looks first and can be cut anywhere.

mod table;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use crate::init::superblock::Superblock;
use crate::sys;

/// The kernel counts in sectors of this size in `/sys`.
const SECTOR: u64 = 512;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There was nothing to do.
    Same,
    /// The partition reaches further, or its file system fills it now.
    Grown,
}

/// Why something could not be done; what is there is whole.
#[derive(Debug)]
pub struct GrowError {
    what: &'static str,
    source: io::Error,
}

impl fmt::Display for GrowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> GrowError {
    move |source| GrowError { what, source }
}

/// A mounted partition, as `/sys` shows it.
#[derive(Debug)]
struct Partition {
    /// Number, from 1.
    number: i32,
    /// First byte on the disk.
    start: u64,
    /// Its device node.
    node: String,
    /// Its disk's device node.
    disk: String,
    /// Bytes of the disk.
    disk_size: u64,
    /// Bytes of a logical sector of the disk.
    sector: u64,
    /// Folder in `/sys`.
    sys: String,
}

/// Lets the partition that holds `mount_point`, and its file system, fill
/// the disk, if it is the last one there.
///
/// # Errors
///
/// [`GrowError`] when a device cannot be read or written.
pub fn settle(mount_point: &Path) -> Result<Outcome, GrowError> {
    let Some(partition) = Partition::below(mount_point).map_err(failed("cannot look at /sys"))?
    else {
        return Ok(Outcome::Same);
    };
    let table = grow_table(&partition)?;
    let size = partition.size().map_err(failed("cannot look at /sys"))?;
    let files = grow_files(&partition.node, size, mount_point)?;
    let is_same = table == Outcome::Same && files == Outcome::Same;
    Ok(if is_same {
        Outcome::Same
    } else {
        Outcome::Grown
    })
}

impl Partition {
    /// The partition that is mounted there; nothing when it is something else.
    fn below(mount_point: &Path) -> io::Result<Option<Self>> {
        let device = std::fs::metadata(mount_point)?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let sys = format!("/sys/dev/block/{major}:{minor}");
        let value = |name: &str| std::fs::read_to_string(format!("{sys}/{name}"));
        let Ok(number) = value("partition") else {
            return Ok(None);
        };
        let number_of = |name: &str| {
            let text = value(name)?;
            text.trim().parse::<u64>().map_err(io::Error::other)
        };
        Ok(Some(Self {
            number: number.trim().parse().map_err(io::Error::other)?,
            start: number_of("start")? * SECTOR,
            node: node(&value("uevent")?)?,
            disk: node(&value("../uevent")?)?,
            disk_size: number_of("../size")? * SECTOR,
            sector: number_of("../queue/logical_block_size")?.max(SECTOR),
            sys,
        }))
    }

    /// Bytes that the kernel gives it now.
    fn size(&self) -> io::Result<u64> {
        let text = std::fs::read_to_string(format!("{}/size", self.sys))?;
        Ok(text.trim().parse::<u64>().map_err(io::Error::other)? * SECTOR)
    }
}

/// The device node that an uevent file names.
fn node(uevent: &str) -> io::Result<String> {
    let name = uevent
        .lines()
        .find_map(|line| line.strip_prefix("DEVNAME="));
    name.map(|name| format!("/dev/{name}"))
        .ok_or_else(|| io::Error::other("no device name"))
}

struct OpenDisk {
    file: File,
    size: u64,
    sector: u64,
}

impl table::Disk for OpenDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector(&self) -> u64 {
        self.sector
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

fn grow_table(partition: &Partition) -> Result<Outcome, GrowError> {
    let file = File::open(&partition.disk).map_err(failed("cannot open the disk"))?;
    let disk = OpenDisk {
        file,
        size: partition.disk_size,
        sector: partition.sector,
    };
    if let Some(plan) = table::plan(&disk, partition.start) {
        let writable = File::options().write(true).open(&partition.disk);
        let writable = writable.map_err(failed("cannot write to the disk"))?;
        for write in &plan.writes {
            writable
                .write_all_at(&write.bytes, write.offset)
                .and_then(|()| writable.sync_all())
                .map_err(failed("cannot write the partition table"))?;
        }
        let length = plan.partition.end - plan.partition.start;
        sys::resize_partition(disk.file.as_fd(), partition.number, partition.start, length)
            .map_err(failed("the kernel does not take the partition's new size"))?;
        return Ok(Outcome::Grown);
    }
    Ok(Outcome::Same)
}

/// Lets the file system of a whole disk that is mounted there fill it.
///
/// # Errors
///
/// As [`settle`].
pub fn settle_whole(mount_point: &Path) -> Result<Outcome, GrowError> {
    let look = || -> io::Result<Option<(String, u64)>> {
        let device = std::fs::metadata(mount_point)?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let sys = format!("/sys/dev/block/{major}:{minor}");
        if !Path::new(&sys).exists() || Path::new(&sys).join("partition").exists() {
            return Ok(None);
        }
        let size = std::fs::read_to_string(format!("{sys}/size"))?;
        let size = size.trim().parse::<u64>().map_err(io::Error::other)? * SECTOR;
        Ok(Some((
            node(&std::fs::read_to_string(format!("{sys}/uevent"))?)?,
            size,
        )))
    };
    match look().map_err(failed("cannot look at /sys"))? {
        Some((node, size)) => grow_files(&node, size, mount_point),
        None => Ok(Outcome::Same),
    }
}

fn grow_files(node: &str, size: u64, mount_point: &Path) -> Result<Outcome, GrowError> {
    let read = || Superblock::read(&File::open(node)?);
    let superblock = read().map_err(failed("cannot read the file system"))?;
    let Some(before) = Superblock::parse(&superblock) else {
        return Ok(Outcome::Same);
    };
    let room = size / before.block;
    if room <= before.blocks {
        return Ok(Outcome::Same);
    }
    if !is_counted(node, before.groups()) {
        let reason = io::Error::other("it grew when the power was cut; restart the machine");
        return Err(failed("the file system cannot grow now")(reason));
    }
    let folder = File::open(mount_point).map_err(failed("cannot open the file system"))?;
    sys::resize_ext4(folder.as_fd(), room).map_err(failed("the file system cannot grow"))?;
    let superblock = read().map_err(failed("cannot read the file system"))?;
    let now = Superblock::parse(&superblock);
    let is_same = now.is_none_or(|now| now.blocks == before.blocks);
    Ok(if is_same {
        Outcome::Same
    } else {
        Outcome::Grown
    })
}

/// Whether Linux goes by as many groups as the superblock says. A journal that
/// it replayed while it mounted may have brought others, and a volume that
/// grows further then is the end of whoever asked for that (`init/journal.rs`).
fn is_counted(node: &str, groups: u64) -> bool {
    let name = node.trim_start_matches("/dev/");
    let told = std::fs::read_to_string(format!("/proc/fs/ext4/{name}/mb_groups"));
    // Where that is not told, nothing speaks against it.
    told.map_or(true, |told| groups_in(&told) == groups)
}

/// Groups in the kernel's list, below its heading: `#0    : 11 ...`.
fn groups_in(list: &str) -> u64 {
    let numbers = list.lines().filter_map(|line| line.strip_prefix('#'));
    let groups = numbers.filter(|text| text.starts_with(|c: char| c.is_ascii_digit()));
    groups.map(|_| 1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_counted_in_the_kernels_list() {
        let list = "#group: free  frags first [ 2^0 ]\n#0    : 11 2 9 [ 1 ]\n#1    : 8 1 1 [ 0 ]\n";
        assert_eq!(groups_in(list), 2);
    }

    #[test]
    fn device_nodes_come_from_the_kernel() {
        assert_eq!(
            node("MAJOR=8\nDEVNAME=sda1\n").ok().as_deref(),
            Some("/dev/sda1")
        );
        assert!(node("MAJOR=8\n").is_err());
    }

    #[test]
    fn what_is_no_partition_is_left_alone() {
        assert_eq!(settle(Path::new("/proc")).expect("looked"), Outcome::Same);
    }
}
