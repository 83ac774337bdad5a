//! The guest's own folder: its disks, made whole or not at all, and the
//! record of what was made.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{ioctl_ficlone, statvfs};
use serde::{Deserialize, Serialize};

use super::descriptor::{Boot, Checksum, DiskFormat, Usage};
use super::error::ImportError;
use super::master::{Master, read_bounded};
use super::plan::{Make, Plan, PlannedDisk};
use crate::artifact::{PendingFile, write_file};
use crate::exec::Call;
use crate::report::{Outcome, Reporter};
use crate::sparse::SparseSource;
use crate::tree::list_folder;
use crate::units::ByteSize;

/// The record, in the guest's folder.
pub(super) const RECORD_FILE: &str = "import.json";
/// What a running guest makes beside its disks, besides its console's log.
pub(super) const RUNTIME: [&str; 6] = [
    "nvram.fd",
    "start.sh",
    "qmp.sock",
    "spice.sock",
    "console.sock",
    "qemu.pid",
];
/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;
/// The granularity of holes.
const BLOCK: usize = 4096;
/// Longest record that is read.
const MAX_RECORD: u64 = 1 << 20;

/// Takes back what was done, the last first, unless all went well.
#[derive(Default)]
pub(super) struct Undo<'a>(Vec<Box<dyn FnOnce() + 'a>>);

impl<'a> Undo<'a> {
    /// Remembers how to take the next step back.
    pub(super) fn on_failure(&mut self, step: impl FnOnce() + 'a) {
        self.0.push(Box::new(step));
    }

    /// All went well.
    pub(super) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        while let Some(step) = self.0.pop() {
            step();
        }
    }
}

/// What an import made, as its folder says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// Format of this file.
    pub consign_import: u32,
    /// Whether the import came to its end.
    pub is_whole: bool,
    /// The guest's name.
    pub name: String,
    /// The appliance's version.
    pub version: Option<String>,
    /// The descriptor.
    pub descriptor: PathBuf,
    /// SHA-256 of the descriptor, in hex.
    pub descriptor_sha256: String,
    /// The libvirt that has the guest; `None` for QEMU alone.
    pub connect: Option<String>,
    /// Its disks.
    pub disks: Vec<RecordDisk>,
    /// Its other files, by name.
    pub files: Vec<String>,
    /// The boot descriptor that it follows; older records do not say.
    #[serde(default)]
    pub boot: Option<RecordBoot>,
    /// How QEMU is called, where nothing else knows.
    #[serde(default)]
    pub qemu: Vec<String>,
}

/// A boot descriptor, so that the one of a newer appliance can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RecordBoot {
    /// Its place in the list, from 0.
    pub index: usize,
    /// `hvm` or `xen`.
    pub kind: String,
    /// The architecture.
    pub arch: String,
}

/// A disk that was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct RecordDisk {
    /// Its name in the descriptor.
    pub id: String,
    /// `system`, `user` or `scratch`.
    #[serde(rename = "use")]
    pub usage: String,
    /// Its file's name.
    pub file: String,
    /// QEMU's name of its format.
    pub format: String,
    /// What it was made of.
    pub master: Option<PathBuf>,
    /// Checksum of that, with its kind.
    pub checksum: Option<String>,
    /// Whether it needs the master for ever.
    pub is_overlay: bool,
}

impl Record {
    /// The record of a plan, before anything is made.
    pub(super) fn of(plan: &Plan, connect: Option<&str>) -> Self {
        let kernel = plan.kernel.as_ref();
        let files = kernel.into_iter().flat_map(|kernel| {
            let initrd = kernel.initrd.as_ref().map(|(_, path)| name_of(path));
            std::iter::once(name_of(&kernel.kernel.1)).chain(initrd)
        });
        Self {
            consign_import: 1,
            is_whole: false,
            name: plan.name.clone(),
            version: plan.version.clone(),
            descriptor: plan.descriptor.clone(),
            descriptor_sha256: plan.digest.hex(),
            connect: connect.map(str::to_owned),
            disks: plan.disks.iter().map(RecordDisk::of).collect(),
            files: files.collect(),
            boot: Some(RecordBoot::of(plan)),
            qemu: Vec::new(),
        }
    }

    /// The record in `folder`; `None` when there is none.
    pub(super) fn open(folder: &Path) -> Result<Option<Self>, ImportError> {
        let path = folder.join(RECORD_FILE);
        let bytes = match read_bounded(&path, MAX_RECORD) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ImportError::Read { path, source }),
        };
        let record: Self = serde_json::from_slice(&bytes)
            .map_err(|_| ImportError::Record { path: path.clone() })?;
        // The names are used to remove files: they must not lead elsewhere.
        let is_name = |name: &str| !name.is_empty() && !name.contains('/') && name != "..";
        let mut names = record
            .files
            .iter()
            .chain(record.disks.iter().map(|d| &d.file));
        if record.consign_import == 1 && names.all(|name| is_name(name)) {
            Ok(Some(record))
        } else {
            Err(ImportError::Record { path })
        }
    }

    /// Writes it.
    pub(super) fn save(&self, folder: &Path) -> Result<(), ImportError> {
        let path = folder.join(RECORD_FILE);
        let mut text = serde_json::to_vec_pretty(self).expect("a record is plain data");
        text.push(b'\n');
        write_file(&path, &text).map_err(|source| ImportError::Write { path, source })
    }

    /// Refuses what an import that was killed left behind.
    pub(super) fn check_whole(&self) -> Result<(), ImportError> {
        if self.is_whole {
            return Ok(());
        }
        Err(ImportError::Unfinished {
            name: self.name.clone(),
        })
    }

    /// Holds what overlays lie on against the checksums that it had.
    pub(super) fn verify_masters(
        &self,
        folder: &Path,
        reporter: &dyn Reporter,
    ) -> Result<(), ImportError> {
        for disk in &self.disks {
            let Some((master, checksum)) = disk.lies_on() else {
                continue;
            };
            let no_record = || ImportError::Record {
                path: folder.join(RECORD_FILE),
            };
            let checksum = Checksum::parse(checksum).ok_or_else(no_record)?;
            if !master.exists() {
                return Err(ImportError::NoFile {
                    id: disk.id.clone(),
                    path: master.to_owned(),
                });
            }
            Master::open(&disk.id, master)?.verify(&checksum, reporter)?;
        }
        Ok(())
    }

    /// Removes the files of the guest, and its folder when nothing else is in it.
    pub(super) fn remove_files(&self, folder: &Path) -> Result<(), ImportError> {
        let disks = self.disks.iter().map(|disk| disk.file.as_str());
        let files = self.files.iter().map(String::as_str);
        let names = disks.chain(files).chain(RUNTIME);
        let mut paths: Vec<PathBuf> = names.map(|name| folder.join(name)).collect();
        let listed = list_folder(folder).map_err(|source| ImportError::Read {
            path: folder.to_owned(),
            source,
        })?;
        let is_log = |name: &str| name.starts_with(super::domain::CONSOLE_LOG);
        paths.extend(
            listed
                .into_iter()
                .filter(|entry| entry.name.to_str().is_some_and(is_log))
                .map(|entry| entry.path),
        );
        // The record goes last: until then the rest can still be found.
        paths.push(folder.join(RECORD_FILE));
        for path in paths {
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(ImportError::Write { path, source }),
            }
        }
        match fs::remove_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                Err(ImportError::Write {
                    path: folder.to_owned(),
                    source: error,
                })
            }
            _ => Ok(()),
        }
    }
}

impl RecordBoot {
    pub(super) fn of(plan: &Plan) -> Self {
        Self {
            index: plan.boot,
            kind: plan.kind.name().to_owned(),
            arch: plan.arch.clone(),
        }
    }

    /// Its place in another list: the same one, else the first of its kind.
    pub(super) fn place(&self, boots: &[Boot]) -> Option<usize> {
        let is_same = |boot: &Boot| boot.kind.name() == self.kind && boot.arch == self.arch;
        let here = boots.get(self.index).is_some_and(is_same);
        here.then_some(self.index)
            .or_else(|| boots.iter().position(is_same))
    }
}

impl RecordDisk {
    pub(super) fn of(disk: &PlannedDisk) -> Self {
        let (master, checksum) = disk.make.master().unzip();
        Self {
            id: disk.id.clone(),
            usage: disk.usage.name().to_owned(),
            file: name_of(&disk.path),
            format: disk.format.to_owned(),
            master: master.map(|master| disk.origin().unwrap_or(&master.path).to_owned()),
            checksum: checksum.flatten().map(Checksum::to_string),
            is_overlay: matches!(disk.make, Make::Overlay { .. }),
        }
    }

    /// The file that it needs for ever, with its checksum.
    pub(super) fn lies_on(&self) -> Option<(&Path, &str)> {
        let needs = self.master.as_deref().zip(self.checksum.as_deref());
        needs.filter(|_| self.is_overlay)
    }
}

pub(super) fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Makes the guest's folder, with its record. What a killed import left
/// behind is taken away first. `unmake` takes the folder back.
pub(super) fn make_folder<'a>(
    record: &Record,
    folder: &'a Path,
    undo: &mut Undo<'a>,
    unmake: impl FnOnce() + 'a,
) -> Result<(), ImportError> {
    let failed = |source| ImportError::Folder {
        path: folder.to_owned(),
        source,
    };
    if folder.exists() {
        match Record::open(folder)? {
            Some(old) if !old.is_whole => old.remove_files(folder)?,
            Some(old) => return Err(ImportError::NameTaken { name: old.name }),
            None => {}
        }
    }
    if folder.exists() {
        return Err(ImportError::FolderTaken {
            path: folder.to_owned(),
        });
    }
    let missing: Vec<&Path> = folder
        .ancestors()
        .skip(1)
        .take_while(|parent| !parent.as_os_str().is_empty() && !parent.exists())
        .collect();
    for parent in missing.into_iter().rev() {
        fs::create_dir(parent).map_err(failed)?;
        // Still empty by then, or somebody else's too.
        undo.on_failure(move || drop(fs::remove_dir(parent)));
    }
    fs::DirBuilder::new()
        .mode(0o711)
        .create(folder)
        .map_err(failed)?;
    undo.on_failure(unmake);
    record.save(folder)
}

/// Goes no further when somebody asked for an end.
pub(super) fn go_on(reporter: &dyn Reporter) -> Result<(), ImportError> {
    reporter.stop().map_or(Ok(()), |stop| {
        Err(ImportError::Stopped {
            stop,
            running: None,
        })
    })
}

/// Refuses at once what cannot fit.
pub(super) fn check_room(plan: &Plan, storage: &Path) -> Result<(), ImportError> {
    let Some(there) = storage.ancestors().find(|path| path.is_dir()) else {
        return Ok(());
    };
    let Ok(room) = statvfs(there) else {
        return Ok(());
    };
    // Not a file system that counts.
    if room.f_blocks == 0 {
        return Ok(());
    }
    let left = room.f_bavail.saturating_mul(room.f_frsize);
    let needed: u64 = plan
        .disks
        .iter()
        .filter(|disk| !matches!(disk.make, Make::Overlay { .. }))
        .filter_map(|disk| disk.make.master())
        .filter_map(|(master, _)| master.file.metadata().ok())
        .map(|metadata| metadata.blocks().saturating_mul(512))
        .sum();
    if needed > left {
        return Err(ImportError::NoRoom {
            path: storage.to_owned(),
            needed: ByteSize::from_bytes(needed),
            left: ByteSize::from_bytes(left),
        });
    }
    Ok(())
}

/// Makes every file of the plan.
pub(super) fn fill(
    plan: &Plan,
    qemu_img: &dyn Fn() -> Result<Call, ImportError>,
    reporter: &dyn Reporter,
) -> Result<(), ImportError> {
    reporter.started("copy");
    for disk in &plan.disks {
        go_on(reporter)?;
        make_disk(disk, plan.is_pinned, qemu_img, reporter)?;
    }
    if let Some(kernel) = &plan.kernel {
        copy(&kernel.kernel.0, &kernel.kernel.1, false, reporter)?;
        if let Some((initrd, path)) = &kernel.initrd {
            copy(initrd, path, false, reporter)?;
        }
    }
    reporter.finished("copy", Outcome::Done, plan.folder.display().to_string());
    Ok(())
}

/// Makes one disk.
pub(super) fn make_disk(
    disk: &PlannedDisk,
    is_pinned: bool,
    qemu_img: &dyn Fn() -> Result<Call, ImportError>,
    reporter: &dyn Reporter,
) -> Result<(), ImportError> {
    let path = &disk.path;
    match &disk.make {
        Make::Kept => {}
        Make::Blank => write(path, |file| file.set_len(disk.size.bytes()))?,
        Make::Copy {
            master,
            checksum,
            reflink,
        } => {
            copy(master, path, *reflink, reporter)?;
            if let (true, Some(checksum)) = (is_pinned, checksum) {
                verify_copy(master, path, checksum)?;
            }
        }
        Make::Convert { master, format, .. } => {
            let inside = master.disk(*format)?.disk;
            let source = inside.expect("only formats with a reader are converted");
            write(path, |file| {
                copy_ranges(source.as_ref(), file, reporter)?;
                file.set_len(disk.size.bytes())
            })?;
        }
        Make::Overlay { master, format, .. } => {
            let backing = match format {
                DiskFormat::Iso => DiskFormat::Raw.name(),
                format => format.name(),
            };
            let call = qemu_img()?
                .args(["create", "-q", "-f", "qcow2", "-F", backing, "-b"])
                .arg(&master.path)
                .arg(path)
                .arg(disk.size.bytes().to_string());
            call.run(b"")?;
            restrict(path)?;
        }
    }
    if disk.grows && matches!(disk.make, Make::Copy { .. }) {
        grow(disk, qemu_img)?;
    }
    Ok(())
}

fn grow(
    disk: &PlannedDisk,
    qemu_img: &dyn Fn() -> Result<Call, ImportError>,
) -> Result<(), ImportError> {
    if disk.format == "raw" {
        let file = File::options().write(true).open(&disk.path);
        return file
            .and_then(|file| file.set_len(disk.size.bytes()))
            .map_err(|source| ImportError::Write {
                path: disk.path.clone(),
                source,
            });
    }
    let call = qemu_img()?
        .args(["resize", "-q", "-f", disk.format])
        .arg(&disk.path)
        .arg(disk.size.bytes().to_string());
    call.run(b"")?;
    Ok(())
}

/// A file under its final name, for its owner only.
fn write(path: &Path, fill: impl FnOnce(&File) -> io::Result<()>) -> Result<(), ImportError> {
    let write = |source| ImportError::Write {
        path: path.to_owned(),
        source,
    };
    let pending = PendingFile::create(path).map_err(write)?;
    fill(pending.file()).map_err(write)?;
    pending.commit_private().map_err(write)
}

fn restrict(path: &Path) -> Result<(), ImportError> {
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|source| ImportError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Copies a file; it shares blocks where the file system can.
pub(super) fn copy(
    master: &Master,
    path: &Path,
    reflink: bool,
    reporter: &dyn Reporter,
) -> Result<(), ImportError> {
    let source = master.source()?;
    let mut refused = None;
    write(path, |file| {
        let shared = ioctl_ficlone(file, &master.file);
        match shared {
            Ok(()) => return Ok(()),
            Err(error) if reflink => refused = Some(error),
            Err(_) => {}
        }
        if reflink {
            return Ok(());
        }
        copy_ranges(&source, file, reporter)?;
        file.set_len(source.size().bytes())
    })?;
    match refused {
        Some(error) => Err(ImportError::Reflink {
            path: path.to_owned(),
            source: error.into(),
        }),
        None => Ok(()),
    }
}

fn copy_ranges(source: &dyn SparseSource, file: &File, reporter: &dyn Reporter) -> io::Result<()> {
    let ranges: Vec<_> = source.data_ranges().collect();
    let total = ranges.iter().map(|range| range.end - range.start).sum();
    let mut buffer = vec![0; PIECE];
    let mut done = 0;
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            if reporter.stop().is_some() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let length = usize::try_from(range.end - at).unwrap_or(PIECE).min(PIECE);
            let piece = buffer.get_mut(..length).expect("at most a piece");
            source.read_exact_at(piece, at)?;
            write_without_zeros(file, piece, at)?;
            at += length as u64;
            done += length as u64;
            reporter.bytes(
                "copy",
                ByteSize::from_bytes(done),
                Some(ByteSize::from_bytes(total)),
            );
        }
    }
    Ok(())
}

fn write_without_zeros(file: &File, data: &[u8], start: u64) -> io::Result<()> {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    let mut at = start;
    for block in data.chunks(BLOCK) {
        if block != &ZEROS[..block.len()] {
            file.write_all_at(block, at)?;
        }
        at += block.len() as u64;
    }
    Ok(())
}

/// The copy is what counts: the file may have changed since it was verified.
fn verify_copy(master: &Master, path: &Path, checksum: &Checksum) -> Result<(), ImportError> {
    let copy = Master::open(&master.id, path)?;
    match copy.verify(checksum, &crate::report::Silent) {
        Err(ImportError::Checksum { .. }) => Err(ImportError::Changed {
            id: master.id.clone(),
            path: master.path.clone(),
        }),
        other => other,
    }
}

/// Whether an upgrade replaces the disk.
pub(super) fn is_replaced(disk: &PlannedDisk) -> bool {
    disk.usage == Usage::System && !disk.is_cd
}
