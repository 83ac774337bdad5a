//! Walks the finished volume: repairs what `fatfs` 0.3.6 writes wrongly, puts
//! the source date everywhere, and finds where each file went.
//!
//! Repaired, by Microsoft's text: `.` and `..` have no long name (`fatfs`
//! gives them one), and `..` of a first-level directory names cluster 0, also
//! on FAT32 (`fatfs` names the root's cluster). Both are known there (issue
//! 117, pull requests 99 and 100). Sector 7 of FAT32 gets the backup of the
//! `FSInfo` sector that belongs beside the backup boot sector.

use std::io;

use zerocopy::{FromBytes as _, IntoBytes as _};

use super::format::{
    ATTR_LONG_NAME, ATTR_VOLUME_ID, BootSectorHead, DirectoryEntry, DosTime, FAT16_END, FAT32_END,
    FIRST_CLUSTER, SECTOR, SLOT, SLOT_END, SLOT_FREE,
};
use super::layout::{Child, ChildKind, Layout};
use super::{FatKind, FatOptions, PlacedFile};
use crate::sparse::{PageMap, SparseSource as _};
use crate::units::ByteSize;

/// `BPB_FSInfo` as `fatfs` sets it.
const FSINFO_SECTOR: u64 = 1;
/// `BPB_BkBootSec` as `fatfs` sets it; the backup `FSInfo` follows.
const BACKUP_SECTOR: u64 = 6;

pub(super) fn repair(
    volume: &mut PageMap,
    layout: &Layout,
    options: &FatOptions,
) -> io::Result<Vec<PlacedFile>> {
    let areas = Areas::read(volume, layout.geometry.kind)?;
    if areas.kind == FatKind::Fat32 {
        let mut sector = [0; 512];
        volume.read_exact_at(&mut sector, FSINFO_SECTOR * SECTOR)?;
        volume.write_at(&sector, (BACKUP_SECTOR + FSINFO_SECTOR) * SECTOR)?;
    }
    let mut walk = Walk {
        volume,
        areas,
        time: DosTime::from_timestamp(options.source_date),
        clusters: vec![0; layout.directories.len()],
        files: Vec::new(),
    };
    for (index, directory) in layout.directories.iter().enumerate() {
        let parent = walk.clusters[directory.parent];
        walk.directory(index, parent, &directory.children)?;
    }
    Ok(walk.files)
}

struct Walk<'a> {
    volume: &'a mut PageMap,
    areas: Areas,
    time: DosTime,
    /// First cluster by directory; 0 for the root and for those not seen yet.
    clusters: Vec<u32>,
    files: Vec<PlacedFile>,
}

impl Walk<'_> {
    fn directory(&mut self, index: usize, parent: u32, children: &[Child]) -> io::Result<()> {
        let own = self.clusters[index];
        let slots = self.slots_of(own)?;
        let mut slots = slots.as_slice();
        if index > 0 {
            slots = self.repair_dots(slots, own, parent)?;
        }
        let mut children = children.iter();
        for at in slots {
            let mut entry = self.read(*at)?;
            match entry.dir_name[0] {
                SLOT_END => break,
                SLOT_FREE => continue,
                _ if entry.dir_attr == ATTR_LONG_NAME => continue,
                _ => {}
            }
            entry.stamp(self.time);
            self.write(*at, &entry)?;
            if entry.dir_attr & ATTR_VOLUME_ID == 0 {
                let child = children.next().ok_or_else(|| other("an entry too many"))?;
                self.place(child, &entry)?;
            }
        }
        match children.next() {
            None => Ok(()),
            Some(child) => Err(other(&format!("`{}` is missing", child.path))),
        }
    }

    /// Rewrites the first four slots as `.`, `..` and two free ones, and
    /// returns the others.
    fn repair_dots<'s>(
        &mut self,
        slots: &'s [u64],
        own: u32,
        parent: u32,
    ) -> io::Result<&'s [u64]> {
        let (first, rest) = slots
            .split_first_chunk::<4>()
            .ok_or_else(|| other("a directory of fewer than four slots"))?;
        let mut fixed = [
            DirectoryEntry::dots(1, own),
            DirectoryEntry::dots(2, parent),
            DirectoryEntry::free(),
            DirectoryEntry::free(),
        ];
        for entry in &mut fixed[..2] {
            entry.stamp(self.time);
        }
        for (at, entry) in first.iter().zip(&fixed) {
            self.write(*at, entry)?;
        }
        Ok(rest)
    }

    /// Notes where `child` is, and makes sure that a file is one run.
    fn place(&mut self, child: &Child, entry: &DirectoryEntry) -> io::Result<()> {
        match &child.kind {
            ChildKind::Directory(number) => self.clusters[*number] = entry.cluster(),
            ChildKind::File(content) if content.size() > 0 => {
                let start = self.areas.cluster_offset(entry.cluster())?;
                self.check_run(child, entry.cluster(), content.size())?;
                self.files.push(PlacedFile {
                    path: child.path.clone(),
                    range: start..start + content.size(),
                    content: content.clone(),
                });
            }
            ChildKind::File(_) => {}
        }
        Ok(())
    }

    fn check_run(&self, child: &Child, first: u32, size: u64) -> io::Result<()> {
        let mut at = first;
        for _ in 1..size.div_ceil(self.areas.cluster) {
            let next = self.next(at)?;
            if next != Some(at + 1) {
                return Err(other(&format!("`{}` is not in one run", child.path)));
            }
            at += 1;
        }
        match self.next(at)? {
            None => Ok(()),
            Some(_) => Err(other(&format!("`{}` is too long", child.path))),
        }
    }

    /// Offsets of all slots of the directory that starts at `cluster`; of the
    /// root when that is 0.
    fn slots_of(&self, cluster: u32) -> io::Result<Vec<u64>> {
        let slots =
            |start: u64, length: u64| (start..start + length).step_by(size_of::<DirectoryEntry>());
        let mut at = match (cluster, self.areas.root) {
            (0, Root::Area { start, length }) => return Ok(slots(start, length).collect()),
            (0, Root::Cluster(root)) => Some(root),
            _ => Some(cluster),
        };
        let mut all = Vec::new();
        while let Some(cluster) = at {
            all.extend(slots(
                self.areas.cluster_offset(cluster)?,
                self.areas.cluster,
            ));
            at = self.next(cluster)?;
        }
        Ok(all)
    }

    /// The cluster after `cluster` in its chain.
    fn next(&self, cluster: u32) -> io::Result<Option<u32>> {
        let cluster = u64::from(cluster);
        if self.areas.kind == FatKind::Fat32 {
            let mut bytes = [0; 4];
            let at = self.areas.fat + cluster * 4;
            self.volume.read_exact_at(&mut bytes, at)?;
            let value = u32::from_le_bytes(bytes) & 0x0fff_ffff;
            Ok((value < FAT32_END).then_some(value))
        } else {
            let mut bytes = [0; 2];
            let at = self.areas.fat + cluster * 2;
            self.volume.read_exact_at(&mut bytes, at)?;
            let value = u16::from_le_bytes(bytes);
            Ok((value < FAT16_END).then_some(value.into()))
        }
    }

    fn read(&self, at: u64) -> io::Result<DirectoryEntry> {
        let mut bytes = [0; size_of::<DirectoryEntry>()];
        self.volume.read_exact_at(&mut bytes, at)?;
        DirectoryEntry::read_from_bytes(&bytes).map_err(|_| other("a slot has 32 bytes"))
    }

    fn write(&mut self, at: u64, entry: &DirectoryEntry) -> io::Result<()> {
        self.volume.write_at(entry.as_bytes(), at)
    }
}

/// Byte offsets in the volume, read back from its boot sector.
#[derive(Debug, Clone, Copy)]
struct Areas {
    kind: FatKind,
    /// The first FAT.
    fat: u64,
    root: Root,
    /// The first cluster.
    data: u64,
    /// Bytes in a cluster.
    cluster: u64,
    size: ByteSize,
}

#[derive(Debug, Clone, Copy)]
enum Root {
    /// FAT16: between the FATs and the data, in bytes.
    Area { start: u64, length: u64 },
    /// FAT32: a directory like others.
    Cluster(u32),
}

impl Areas {
    fn read(volume: &PageMap, kind: FatKind) -> io::Result<Self> {
        let mut bytes = [0; size_of::<BootSectorHead>()];
        volume.read_exact_at(&mut bytes, 0)?;
        let head = BootSectorHead::read_from_bytes(&bytes)
            .map_err(|_| other("a boot sector has 48 bytes"))?;
        let fat_sectors = match kind {
            FatKind::Fat32 => u64::from(head.bpb_fatsz32.get()),
            _ => u64::from(head.bpb_fatsz16.get()),
        };
        if fat_sectors == 0 || u64::from(head.bpb_byts_per_sec.get()) != SECTOR {
            return Err(other("the volume is of another type than planned"));
        }
        let fat = u64::from(head.bpb_rsvd_sec_cnt.get()) * SECTOR;
        let start = fat + u64::from(head.bpb_num_fats) * fat_sectors * SECTOR;
        let length = u64::from(head.bpb_root_ent_cnt.get()) * SLOT;
        Ok(Self {
            kind,
            fat,
            root: match kind {
                FatKind::Fat32 => Root::Cluster(head.bpb_root_clus.get()),
                _ => Root::Area { start, length },
            },
            data: start + length,
            cluster: u64::from(head.bpb_sec_per_clus) * SECTOR,
            size: volume.size(),
        })
    }

    fn cluster_offset(&self, cluster: u32) -> io::Result<u64> {
        cluster
            .checked_sub(FIRST_CLUSTER)
            .map(|number| self.data + u64::from(number) * self.cluster)
            .filter(|start| start + self.cluster <= self.size.bytes())
            .ok_or_else(|| other(&format!("cluster {cluster} is outside the volume")))
    }
}

fn other(message: &str) -> io::Error {
    io::Error::other(message.to_owned())
}
