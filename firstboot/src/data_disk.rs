//! Data disks: which one is meant, what it holds, and a file system on it.
//!
//! In: `/sys`, the first and last bytes of disks. Out: a disk with the file
//! system that the configuration says.
//! Never here: a device by its name alone; a write to a disk that holds
//! anything that is not ours.
//!
//! Formatting cannot be repeated, so it is written down before: intent, then
//! the file system, then done. A cut leaves an intent, and the disk is
//! formatted again; its identifier says what is ours.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use consign_schema::{DiskFact, DiskFileSystem, DiskMatch, DiskUse};

use crate::digest::Digest;
use crate::init::journal;
use crate::media::{Roots, Watcher};
use crate::root::{Access, Change, Root};
use crate::systemd::{self, Program};
use crate::text;
use crate::write_back::config_disks;

const BLOCK: &str = "/sys/class/block";
const JOURNAL: &str = "/var/lib/consign/journal";
/// Devices that are no disks, by what their names begin with.
const NO_DISKS: [&str; 8] = ["loop", "ram", "zram", "dm-", "nbd", "sr", "fd", "md"];
/// What has to be zero at the beginning and at the end of a blank disk, and
/// how many places between them are looked at.
const HEAD: u64 = 16 << 20;
const TAIL: u64 = 1 << 20;
const SAMPLES: u64 = 64;
const SAMPLE: u64 = 4096;
/// So many seconds after the kernel began, disks may still come by themselves.
const STARTING: u64 = 120;
/// No more are expected when none has come for that time; they are not waited
/// for longer than that.
const QUIET: Duration = Duration::from_secs(3);
const LONGEST: Duration = Duration::from_secs(30);
/// Which disks are expected: those of a start, none, or more, as one has come.
static EXPECTED: AtomicU8 = AtomicU8::new(0);
const NONE: u8 = 1;
const MORE: u8 = 2;

/// A data disk of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDisk {
    /// Its name.
    pub name: String,
    /// Which disk.
    pub matches: DiskMatch,
    /// Its file system.
    pub fs: DiskFileSystem,
    /// The file system's identifier.
    pub uuid: String,
    /// Whether it may be formatted.
    pub usage: DiskUse,
}

/// What a disk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// Zeros, as far as one can look.
    Blank,
    /// A file system, with its identifier.
    Files(DiskFileSystem, String),
    /// A configuration.
    Medium,
    /// Something else.
    Other(&'static str),
}

/// A disk that is not the system's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Name, serial number, length.
    pub fact: DiskFact,
    /// What it holds.
    pub holds: Holds,
}

/// Waits, while the machine starts, until no disk has come for some time: which
/// one is in which place is not known before. Drivers are still loaded when a
/// configuration on a fast disk has long been read.
pub fn wait_for_all(root: &Root) {
    let expected = EXPECTED.swap(NONE, Ordering::Relaxed);
    if expected == NONE || !root.is_system().unwrap_or(false) {
        return;
    }
    let up = root.read_text("/proc/uptime", 64).unwrap_or_default();
    let seconds = up.split('.').next().and_then(|text| text.parse().ok());
    let is_starting = seconds.is_some_and(|seconds: u64| seconds < STARTING);
    if !is_starting && expected != MORE {
        return;
    }
    let mut watcher = Watcher::new(&Roots::default());
    let last = Instant::now() + LONGEST;
    loop {
        let end = last.min(watcher.heard() + QUIET);
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        watcher.wait(left);
    }
}

/// A disk has come, and others may: the next [`wait_for_all`] waits.
pub fn expect_more() {
    EXPECTED.store(MORE, Ordering::Relaxed);
}

/// Disks besides the system's own and config media, in the order of their
/// controllers; nothing where there is no `/sys`.
///
/// Who judges a configuration and who puts it in place ask here, and must
/// count alike: a config medium is none of them, in use or not, whole or in a
/// partition.
///
/// # Errors
///
/// What the system reports.
pub fn look(root: &Root) -> io::Result<Option<Vec<Found>>> {
    if !root.exists(BLOCK) {
        return Ok(None);
    }
    let own = own_disks(root)?;
    let media = config_disks(root)?;
    let mut disks = Vec::new();
    for name in root.list(BLOCK)? {
        let folder = format!("{BLOCK}/{name}");
        let is_disk = !NO_DISKS.iter().any(|no| name.starts_with(no))
            && !root.exists(&format!("{folder}/partition"))
            && !media.contains(&name)
            && !own.contains(&name);
        if !is_disk {
            continue;
        }
        // One that is not counted moves all others.
        let size = root.read_text(&format!("{folder}/size"), 4096)?;
        let size = size.trim().parse::<u64>().unwrap_or(0).saturating_mul(512);
        if size == 0 {
            continue;
        }
        let serial = serial(root, &name);
        let place = root.read_link(&folder)?.unwrap_or_default();
        // One that cannot be read is nobody's blank disk, and no reason to stop.
        let holds = holds(root, &name, size).unwrap_or(Holds::Other(UNREADABLE));
        let is_table = matches!(holds, Holds::Other(TABLE | BOOT_SECTOR));
        if holds == Holds::Medium || is_table && has_medium(root, &name)? {
            continue;
        }
        let fact = DiskFact { name, serial, size };
        disks.push((place, Found { fact, holds }));
    }
    disks.sort_by(|one, two| (&one.0, &one.1.fact.name).cmp(&(&two.0, &two.1.fact.name)));
    Ok(Some(disks.into_iter().map(|(_, found)| found).collect()))
}

/// What a disk says that its serial number is: those of virtio themselves, those
/// of `NVMe` and MMC by their device, those of SCSI elsewhere.
pub fn serial(root: &Root, disk: &str) -> String {
    let folder = format!("{BLOCK}/{disk}");
    let of = |file: &str| {
        let text = root.read_text(&format!("{folder}/{file}"), 4096);
        text.unwrap_or_default().trim().to_owned()
    };
    let mut found = ["serial", "device/serial"].into_iter().map(of);
    let found = found.find(|serial| !serial.is_empty());
    found.unwrap_or_else(|| page_80(root, &folder))
}

/// The unit serial number that a SCSI disk states (SPC-4, 7.8.15), after a
/// header of four bytes.
fn page_80(root: &Root, folder: &str) -> String {
    let page = root.read(&format!("{folder}/device/vpd_pg80"), 4096);
    let page = page.ok().flatten().unwrap_or_default();
    let text = page.get(4..).unwrap_or_default();
    String::from_utf8_lossy(text)
        .trim_matches(['\0', ' '])
        .to_owned()
}

/// Disks that the root and `/var` are on.
fn own_disks(root: &Root) -> io::Result<Vec<String>> {
    let mut own = Vec::new();
    for place in ["/usr", "/var"] {
        let Some(stat) = root.stat(place)? else {
            continue;
        };
        let (major, minor) = (
            rustix::fs::major(stat.st_dev),
            rustix::fs::minor(stat.st_dev),
        );
        let link = root.read_link(&format!("/sys/dev/block/{major}:{minor}"))?;
        // `../../devices/pci0000:00/.../block/vda/vda3`
        let link = link.unwrap_or_default();
        let mut parts = link.rsplit('/').skip(1);
        own.extend(parts.next().map(str::to_owned));
    }
    Ok(own)
}

/// Whether a configuration is in one of the partitions that the kernel found.
fn has_medium(root: &Root, disk: &str) -> io::Result<bool> {
    for part in root.list(&format!("{BLOCK}/{disk}"))? {
        let folder = format!("{BLOCK}/{disk}/{part}");
        if !part.starts_with(disk) || !root.exists(&format!("{folder}/partition")) {
            continue;
        }
        let size = root.read_text(&format!("{folder}/size"), 4096);
        let size = size.unwrap_or_default().trim().parse::<u64>().unwrap_or(0);
        let device = File::open(root.outside(&format!("/dev/{part}")));
        let head = device.and_then(|part| read(&part, 0, HEAD_KNOWN.min(size.saturating_mul(512))));
        // One that cannot be read was read by nobody as a configuration.
        if head.is_ok_and(|head| known(&head) == Some(Holds::Medium)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A disk with bytes that no table below knows, as a cut mkfs leaves it.
const UNKNOWN: &str = "data that is not known here";
const TABLE: &str = "a partition table";
const BOOT_SECTOR: &str = "a partition table or a boot sector";
/// Bytes that tell what a disk holds.
const HEAD_KNOWN: u64 = 128 << 10;
const UNREADABLE: &str = "nothing that can be read";

fn holds(root: &Root, name: &str, size: u64) -> io::Result<Holds> {
    let Ok(disk) = File::open(root.outside(&format!("/dev/{name}"))) else {
        // A drive without a medium.
        return Ok(Holds::Other(UNREADABLE));
    };
    let head = read(&disk, 0, HEAD_KNOWN.min(size))?;
    if let Some(known) = known(&head) {
        return Ok(known);
    }
    let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let other = Holds::Other(UNKNOWN);
    let step = (size / SAMPLES).max(SAMPLE);
    let samples = (0..SAMPLES).map(|sample| (sample * step, SAMPLE));
    let head = (0..HEAD / TAIL).map(|piece| (piece * TAIL, TAIL));
    let tail = (size.saturating_sub(TAIL), TAIL);
    for (at, length) in head.chain([tail]).chain(samples) {
        let length = length.min(size.saturating_sub(at));
        if !is_zero(&read(&disk, at, length)?) {
            return Ok(other);
        }
    }
    Ok(Holds::Blank)
}

fn read(disk: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    disk.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// What the first bytes of a disk say.
fn known(head: &[u8]) -> Option<Holds> {
    let at = |place: usize, length: usize| head.get(place..place.checked_add(length)?);
    let is = |place: usize, text: &[u8]| at(place, text.len()) == Some(text);
    let is_label = |place: usize, length: usize| {
        at(place, length).is_some_and(|label| {
            label
                .trim_ascii()
                .eq_ignore_ascii_case(crate::media::LABEL.as_bytes())
        })
    };
    // Labels of FAT12 and 16, FAT32, ISO 9660 and ext.
    if is_label(43, 11) || is_label(71, 11) || (is(0x8001, b"CD001") && is_label(0x8028, 32)) {
        return Some(Holds::Medium);
    }
    // Offsets in the superblocks: `s_magic`, `s_uuid`, `s_volume_name`; `sb_uuid`.
    if is(0x438, &[0x53, 0xef]) {
        let label = at(0x478, 16).map(|label| label.split(|byte| *byte == 0).next());
        let label = label.flatten().unwrap_or_default();
        if label.eq_ignore_ascii_case(crate::media::LABEL.as_bytes()) {
            return Some(Holds::Medium);
        }
        return Some(Holds::Files(
            DiskFileSystem::Ext4,
            uuid_text(at(0x468, 16)?),
        ));
    }
    if is(0, b"XFSB") {
        // `sb_inprogress`: mkfs.xfs clears it last.
        if at(126, 1) != Some(&[0]) {
            return Some(Holds::Other(UNKNOWN));
        }
        return Some(Holds::Files(DiskFileSystem::Xfs, uuid_text(at(32, 16)?)));
    }
    let others: [(usize, &[u8], &str); 7] = [
        (510, &[0x55, 0xaa], BOOT_SECTOR),
        (512, b"EFI PART", TABLE),
        (0x8001, b"CD001", "a CD's file system"),
        (0, b"LUKS", "an encrypted volume"),
        (536, b"LVM2", "a volume of LVM"),
        (0x1_0040, b"_BHRfS_M", "a file system of Btrfs"),
        (4086, b"SWAPSPACE2", "a swap area"),
    ];
    let other = others.iter().find(|(place, magic, _)| is(*place, magic));
    other.map(|(_, _, what)| Holds::Other(what))
}

fn uuid_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, byte) in bytes.iter().take(16).enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The identifier of the file system on the disk `name` of the system `id`:
/// the same for ever, so that a machine that was made anew finds its data.
/// A UUID of version 8 (RFC 9562).
pub fn own_uuid(id: &str, name: &str) -> String {
    let mut bytes = Digest::of(format!("consign data disk\n{id}\n{name}\n").as_bytes()).half();
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    uuid_text(&bytes)
}

/// The disk that is meant, among those that were found.
pub fn find<'f>(disks: &'f [Found], matches: &DiskMatch) -> Option<&'f Found> {
    match matches {
        DiskMatch::Position(place) => disks.get(usize::from(*place).checked_sub(1)?),
        DiskMatch::Serial(serial) => disks.iter().find(|disk| disk.fact.serial == *serial),
        _ => None,
    }
}

/// What was noted of a disk.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    uuid: String,
    serial: String,
    size: u64,
    is_done: bool,
}

impl Record {
    fn path(name: &str) -> String {
        format!("{JOURNAL}/disk-{name}")
    }

    fn load(root: &Root, name: &str) -> io::Result<Option<Self>> {
        let text = root.read_text(&Self::path(name), 4096)?;
        let table = text::parse(&text).unwrap_or_default();
        let record = || {
            Some(Self {
                uuid: text::string(&table, "uuid")?,
                serial: text::string(&table, "serial")?,
                size: text::number(&table, "size")?,
                is_done: text::string(&table, "phase")? == "done",
            })
        };
        Ok(record())
    }

    fn save(&self, root: &Root, name: &str) -> io::Result<()> {
        let text = format!(
            "uuid = {}\nserial = {}\nsize = {}\nphase = {}\n",
            text::quoted(&self.uuid),
            text::quoted(&self.serial),
            self.size,
            text::quoted(if self.is_done { "done" } else { "intent" }),
        );
        root.put(&Self::path(name), text.as_bytes(), Access::own(0o600))?;
        Ok(())
    }
}

/// Gives the disk its file system, if it has none yet.
///
/// # Errors
///
/// When it is not there or holds something else, and it never had one.
pub fn settle(root: &Root, disk: &DataDisk) -> io::Result<Change> {
    let Some(mut disks) = look(root)? else {
        return Ok(Change::Same);
    };
    let record = Record::load(root, &disk.name)?.filter(|record| record.uuid == disk.uuid);
    let is_ours =
        |found: &&Found| matches!(&found.holds, Holds::Files(_, uuid) if *uuid == disk.uuid);
    let is_done = record.as_ref().is_some_and(|record| record.is_done);
    if !is_done && !disks.iter().any(|found| is_ours(&found)) {
        wait_for_all(root);
        disks = look(root)?.unwrap_or_default();
    }
    // By its identifier first: it may have come to another place.
    if let Some(found) = disks.iter().find(is_ours) {
        settle_journal(root, found);
        if record.is_none_or(|record| !record.is_done) {
            done(root, disk, found)?;
            return Ok(Change::Written);
        }
        return Ok(Change::Same);
    }
    if is_done {
        // It had one: that the disk is missing is told by what is mounted from it.
        return Ok(Change::Same);
    }
    let found = find(&disks, &disk.matches)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such disk"))?;
    let is_half = record
        .is_some_and(|record| record.serial == found.fact.serial && record.size == found.fact.size);
    let is_free = match &found.holds {
        Holds::Blank => true,
        // Ours, half made: nothing else was there when the intent was noted.
        // What somebody else's tool would know is not.
        Holds::Other(what) => is_half && *what == UNKNOWN,
        Holds::Files(..) | Holds::Medium => false,
    };
    if !is_free || disk.usage != DiskUse::Format {
        let what = format!("{} is not blank", found.fact.name);
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    let mut record = Record {
        uuid: disk.uuid.clone(),
        serial: found.fact.serial.clone(),
        size: found.fact.size,
        is_done: false,
    };
    record.save(root, &disk.name)?;
    let device = root.outside(&format!("/dev/{}", found.fact.name));
    let device = device.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    let uuid = disk.uuid.as_str();
    if disk.fs == DiskFileSystem::Ext4 {
        let words = ["-F", "-q", "-U", uuid, "-E", "nodiscard", device];
        systemd::must(Program::MakeExt4, &words)?;
    } else {
        let uuid = format!("uuid={uuid}");
        let words = ["-f", "-q", "-K", "-m", &uuid, device];
        systemd::must(Program::MakeXfs, &words)?;
    }
    record.is_done = true;
    record.save(root, &disk.name)?;
    // udev may have looked before, and looks again when it is told to.
    let uevent = format!("{BLOCK}/{}/uevent", found.fact.name);
    if let Err(error) = std::fs::write(root.outside(&uevent), "change") {
        complain!("{uevent} cannot be written: {error}");
    }
    Ok(Change::Written)
}

/// Before Linux mounts it; what it mounted it looks after itself.
fn settle_journal(root: &Root, found: &Found) {
    let name = &found.fact.name;
    if !matches!(found.holds, Holds::Files(DiskFileSystem::Ext4, _)) {
        return;
    }
    match journal::settle(&root.outside(&format!("/dev/{name}"))) {
        Ok(0) => {}
        Ok(blocks) => complain!("{name}: {blocks} blocks come from its journal"),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
        Err(error) => complain!("{name}: its journal is left to Linux: {error}"),
    }
}

fn done(root: &Root, disk: &DataDisk, found: &Found) -> io::Result<()> {
    let record = Record {
        uuid: disk.uuid.clone(),
        serial: found.fact.serial.clone(),
        size: found.fact.size,
        is_done: true,
    };
    record.save(root, &disk.name)
}

#[cfg(test)]
#[path = "data_disk_tests.rs"]
mod tests;
