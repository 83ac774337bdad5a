//! The spine: verify, check, make, define, start; or take it all back.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::aside::{aside_of, bring_back, say_what_stays};
use super::decide;
use super::descriptor::is_guest_name;
use super::domain::{self, CONSOLE_LOG};
use super::error::ImportError;
use super::host::Host;
use super::host_firmware::HostFirmware;
use super::lock::Lock;
use super::plan::{Plan, PlannedDisk};
use super::qemu;
use super::store::{self, Record, RecordBoot, RecordDisk, Undo, is_replaced, name_of};
use super::wishes::{Network, Wishes};
use crate::artifact::write_file;
use crate::machine::kvm::Accelerator;
use crate::machine::{GuestState, MachineError, StateLine};
use crate::report::Reporter;
use crate::units::Guid;

/// What is to be done besides making the guest.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what is to be done: each is independent"
)]
pub struct Acts {
    /// Whether the guest is started.
    pub start: bool,
    /// Whether a guest of that name is replaced.
    pub replace: bool,
    /// Whether checksums are compared.
    pub verify: bool,
    /// Whether a running guest's power is cut.
    pub force: bool,
    /// How long the guest may take to say that it is ready; `None`: nobody waits.
    pub wait_ready: Option<Duration>,
    /// Seed of network addresses.
    pub addresses: Guid,
}

/// What became of it.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The guest's name.
    pub name: String,
    /// The folder of its files.
    pub folder: PathBuf,
    /// What runs its instructions, where that was decided.
    pub accelerator: Option<Accelerator>,
    /// The connection; `None` for QEMU alone.
    pub connect: Option<String>,
    /// Whether it was started.
    pub is_running: bool,
    /// What it said, where that was waited for.
    pub ready: Option<StateLine>,
}

/// Imports.
///
/// # Errors
///
/// [`ImportError`]; then nothing is left of what was begun, but for a guest
/// that runs and is not ready.
pub fn import(
    plan: &mut Plan,
    host: &Host,
    acts: &Acts,
    reporter: &dyn Reporter,
) -> Result<Imported, ImportError> {
    or_stopped(reporter, import_all(plan, host, acts, reporter))
}

/// What goes wrong after somebody asked for an end goes wrong by that: a child
/// gets Ctrl-C too.
fn or_stopped<T>(
    reporter: &dyn Reporter,
    result: Result<T, ImportError>,
) -> Result<T, ImportError> {
    result.map_err(|error| match (reporter.stop(), &error) {
        (Some(stop), error) if !matches!(error, ImportError::Stopped { .. }) => {
            ImportError::Stopped {
                stop,
                running: None,
            }
        }
        _ => error,
    })
}

fn import_all(
    plan: &mut Plan,
    host: &Host,
    acts: &Acts,
    reporter: &dyn Reporter,
) -> Result<Imported, ImportError> {
    if acts.verify {
        plan.verify(reporter)?;
    }
    plan.digest_overlays(reporter)?;
    host.check(plan)?;
    let accelerator = host.accelerator(plan.virt, reporter)?;
    let storage = plan.folder.parent().unwrap_or(Path::new("/"));
    store::check_room(plan, storage)?;
    let lock = Lock::make(&plan.folder, &plan.name)?;
    let taken = || ImportError::NameTaken {
        name: plan.name.clone(),
    };
    let off = || match host.check_off(&plan.name, &plan.folder, acts.replace) {
        Ok(_) => host.cut_power(&plan.name, &plan.folder),
        Err(ImportError::Running { .. } | ImportError::Saved { .. }) => Err(taken()),
        Err(error) => Err(error),
    };
    bring_back(&plan.folder, &plan.folder, &plan.name, &off, reporter)?;
    if is_taken(plan, host)? {
        if acts.replace {
            return super::replace::replace(plan, host, accelerator, acts, lock, reporter);
        }
        return Err(taken());
    }
    let plan = &*plan;
    let mut undo = Undo::default();
    let mut record = Record::of(plan, host.uri());
    store::make_folder(&record, &plan.folder, &mut undo, || {
        drop(fs::remove_dir_all(&plan.folder));
    })?;
    store::fill(plan, &|| host.qemu_img(), reporter)?;
    store::go_on(reporter)?;
    introduce(plan, host, accelerator, acts, &mut record, &mut undo)?;
    store::go_on(reporter)?;
    if acts.start {
        start(&plan.name, host, &record)?;
    }
    store::go_on(reporter)?;
    undo.keep();
    lock.release();
    finish(plan, host, Some(accelerator), acts, reporter)
}

/// Whether the host has a guest of that name, whoever made it.
fn is_taken(plan: &Plan, host: &Host) -> Result<bool, ImportError> {
    let has_record = Record::open(&plan.folder)?.is_some_and(|record| record.is_whole);
    Ok(has_record || host.state(&plan.name)?.is_some())
}

/// Makes the guest known to the host, and the record whole.
pub(super) fn introduce<'a>(
    plan: &'a Plan,
    host: &'a Host,
    accelerator: Accelerator,
    acts: &Acts,
    record: &mut Record,
    undo: &mut Undo<'a>,
) -> Result<(), ImportError> {
    match host {
        Host::Libvirt { virsh, .. } => {
            virsh.define(&plan.name, &domain::render(plan, accelerator))?;
            let back = virsh.apart();
            undo.on_failure(move || {
                // Either may fail because there is nothing to stop or to forget.
                let _stopped = back.destroy(&plan.name);
                let _forgotten = back.undefine(&plan.name);
            });
            if plan.autostart {
                virsh.autostart(&plan.name)?;
            }
        }
        Host::Plain { call, .. } => {
            let ovmf = qemu::ovmf(plan)?;
            if let Some(ovmf) = &ovmf {
                let (from, to) = qemu::variables(ovmf, &plan.folder);
                fs::copy(&from, &to).map_err(|source| ImportError::Write {
                    path: to.clone(),
                    source,
                })?;
            }
            let mut args = qemu::machine(plan, ovmf.as_ref(), accelerator, acts.addresses)?;
            args.extend(qemu::background(&plan.folder)?);
            record.qemu = args;
            write_script(plan, &qemu::script(call.path(), record))?;
            undo.on_failure(|| drop(qemu::cut_power(&plan.folder)));
        }
    }
    record.is_whole = true;
    record.save(&plan.folder)
}

fn write_script(plan: &Plan, text: &str) -> Result<(), ImportError> {
    let path = plan.folder.join("start.sh");
    write_file(&path, text.as_bytes())
        .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o755)))
        .map_err(|source| ImportError::Write { path, source })
}

pub(super) fn start(name: &str, host: &Host, record: &Record) -> Result<(), ImportError> {
    match host {
        Host::Libvirt { virsh, .. } => virsh.start(name),
        Host::Plain { call, .. } => qemu::start(call, &record.qemu),
    }
}

pub(super) fn finish(
    plan: &Plan,
    host: &Host,
    accelerator: Option<Accelerator>,
    acts: &Acts,
    reporter: &dyn Reporter,
) -> Result<Imported, ImportError> {
    let ready = match acts.wait_ready {
        Some(limit) if acts.start => {
            let line = wait_ready(&plan.name, &plan.folder, host, limit, reporter);
            Some(line.map_err(|error| or_left(reporter, &plan.name, error))?)
        }
        _ => None,
    };
    Ok(Imported {
        name: plan.name.clone(),
        folder: plan.folder.clone(),
        accelerator,
        connect: host.uri().map(str::to_owned),
        is_running: acts.start,
        ready,
    })
}

/// A virsh that got Ctrl-C too is no reason to say anything else than that
/// nobody waits for a guest that runs.
fn or_left(reporter: &dyn Reporter, name: &str, error: ImportError) -> ImportError {
    match reporter.stop() {
        Some(stop) => ImportError::Stopped {
            stop,
            running: Some(name.to_owned()),
        },
        None => error,
    }
}

/// Reads the guest's console until it says what it is.
fn wait_ready(
    name: &str,
    folder: &Path,
    host: &Host,
    limit: Duration,
    reporter: &dyn Reporter,
) -> Result<StateLine, ImportError> {
    let log = folder.join(CONSOLE_LOG);
    let deadline = Instant::now() + limit;
    let mut looks = 0_u32;
    loop {
        let console = read_log(&log)?;
        let mut lines = console.split_inclusive('\n');
        let line = lines.find_map(|line| line.ends_with('\n').then(|| StateLine::parse(line))?);
        match line {
            Some(line) if line.state == GuestState::Ready => return Ok(line),
            Some(line) => return Err(MachineError::NotInService { line }.into()),
            None if Instant::now() > deadline => {
                return Err(MachineError::NotReady { limit, console }.into());
            }
            None => {}
        }
        if let Some(stop) = reporter.stop() {
            let running = Some(name.to_owned());
            return Err(ImportError::Stopped { stop, running });
        }
        looks += 1;
        // Asking whether it still runs costs more than reading a file.
        if looks.is_multiple_of(20) && !host.is_running(name, folder)? {
            return Err(MachineError::WentOff { console }.into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn read_log(path: &Path) -> Result<String, ImportError> {
    /// A guest that floods its console is heard up to here.
    const MOST: u64 = 16 << 20;
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(ImportError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The plan of an upgrade: it follows the boot descriptor that the guest was
/// imported by, wherever the newer appliance has it.
///
/// # Errors
///
/// As [`plan`](decide::plan); [`ImportError::NoBoot`] when the newer
/// appliance has none of that kind.
pub fn plan_upgrade(
    descriptor: &Path,
    mut wishes: Wishes,
    host: &Host,
) -> Result<Plan, ImportError> {
    let (described, _) = decide::described(descriptor, wishes.paths)?;
    let name = wishes.name.as_ref().or(described.name.as_ref());
    if let Some(name) = name.filter(|name| is_guest_name(name)) {
        let folder = host.folder_of(name, &wishes.storage.join(name))?;
        let boot = Record::open(&folder)?.and_then(|record| record.boot);
        if let Some(boot) = boot {
            let place = boot.place(&described.boots);
            wishes.boot = Some(place.ok_or_else(|| ImportError::OtherBoot {
                name: name.clone(),
                kind: boot.kind,
                arch: boot.arch,
            })?);
        }
    }
    decide::plan(descriptor, wishes, HostFirmware::all())
}

/// Replaces the guest's system disks by those of the plan, and keeps all else.
///
/// # Errors
///
/// [`ImportError`]; then the guest is as it was, and runs if it ran.
pub fn upgrade(
    plan: &mut Plan,
    host: &Host,
    acts: &Acts,
    reporter: &dyn Reporter,
) -> Result<Imported, ImportError> {
    or_stopped(reporter, upgrade_all(plan, host, acts, reporter))
}

fn upgrade_all(
    plan: &mut Plan,
    host: &Host,
    acts: &Acts,
    reporter: &dyn Reporter,
) -> Result<Imported, ImportError> {
    if acts.verify {
        plan.verify(reporter)?;
    }
    plan.digest_overlays(reporter)?;
    let folder = host.folder_of(&plan.name, &plan.folder)?;
    let lock = Lock::take(&folder, &plan.name)?;
    let record = Record::open(&folder)?.filter(|record| record.name == plan.name);
    let record = record.ok_or_else(|| ImportError::NotOurs {
        name: plan.name.clone(),
    })?;
    record.check_whole()?;
    let new: Vec<&PlannedDisk> = plan.disks.iter().filter(|disk| is_replaced(disk)).collect();
    for disk in &new {
        if !record.disks.iter().any(|old| old.id == disk.id) {
            return Err(ImportError::OtherAppliance {
                name: plan.name.clone(),
                id: disk.id.clone(),
            });
        }
    }
    if plan.kernel.is_some() != record.files.iter().any(|file| file == "kernel") {
        return Err(ImportError::OtherAppliance {
            name: plan.name.clone(),
            id: "kernel".into(),
        });
    }
    store::check_room(plan, &folder)?;
    host.check_off(&plan.name, &folder, acts.force)?;
    super::replace::swap(plan, host, &folder, &record, acts, lock, reporter)
}

/// Starts a guest that was imported, after a look at the disks that it needs
/// and does not own: an overlay is nothing, or worse, on another file.
///
/// # Errors
///
/// [`ImportError::NoGuest`], `NotOurs`, `Unfinished`, `Running`; `NoFile` and `Checksum` of
/// an overlay's master; what starting and waiting report.
pub fn start_again(
    name: &str,
    storage: &Path,
    host: &Host,
    wait: Option<Duration>,
    reporter: &dyn Reporter,
) -> Result<Imported, ImportError> {
    let (folder, record) = of_ours(name, storage, host)?;
    record.check_whole()?;
    if host.is_running(name, &folder)? {
        return Err(ImportError::Running {
            name: name.to_owned(),
        });
    }
    record.verify_masters(&folder, reporter)?;
    store::go_on(reporter)?;
    start(name, host, &record).map_err(|error| {
        // Who was asked to start it may have done so all the same.
        if host.apart().is_running(name, &folder).unwrap_or(false) {
            or_left(reporter, name, error)
        } else {
            error
        }
    })?;
    let ready = wait.map(|limit| {
        wait_ready(name, &folder, host, limit, reporter)
            .map_err(|error| or_left(reporter, name, error))
    });
    Ok(Imported {
        name: name.to_owned(),
        accelerator: None,
        connect: host.uri().map(str::to_owned),
        is_running: true,
        ready: ready.transpose()?,
        folder,
    })
}

/// The folder and the record of a guest that was imported.
fn of_ours(name: &str, storage: &Path, host: &Host) -> Result<(PathBuf, Record), ImportError> {
    let folder = host.folder_of(name, &storage.join(name))?;
    let record = Record::open(&folder)?.filter(|record| record.name == name);
    match record {
        Some(record) => Ok((folder, record)),
        None if host.state(name)?.is_some() => Err(ImportError::NotOurs {
            name: name.to_owned(),
        }),
        None => Err(ImportError::NoGuest {
            name: name.to_owned(),
        }),
    }
}

/// Removes a guest that was imported, with its files and nothing else; also
/// what a replacement that was killed left of it.
///
/// # Errors
///
/// [`ImportError::NoGuest`], `NotOurs`, `Running`, `Saved`, `Busy`,
/// `HalfRemoved`, `FolderTaken`, and what removing reports.
pub fn remove(
    name: &str,
    storage: &Path,
    host: &Host,
    force: bool,
    reporter: &dyn Reporter,
) -> Result<PathBuf, ImportError> {
    let folder = host.folder_of(name, &storage.join(name))?;
    let _lock = Lock::take(&folder, name)?;
    // Whose it is comes before how it is; what is aside says it for itself.
    if !aside_of(&folder, name).exists() {
        of_ours(name, storage, host)?;
    }
    let off = || {
        host.check_off(name, &folder, force)?;
        host.cut_power(name, &folder)
    };
    host.check_off(name, &folder, force)?;
    bring_back(&folder, &folder, name, &off, reporter)?;
    let (folder, record) = of_ours(name, storage, host)?;
    let is_known = host.state(name)?.is_some();
    let is_running = host.check_off(name, &folder, force)?;
    store::go_on(reporter)?;
    let remove_all = || {
        if is_running {
            host.cut_power(name, &folder)?;
        }
        if is_known && let Host::Libvirt { virsh, .. } = host {
            virsh.undefine(name)?;
        }
        record.remove_files(&folder)
    };
    match (remove_all(), reporter.stop()) {
        (Ok(()), _) => {
            say_what_stays(&folder, reporter);
            Ok(folder)
        }
        (Err(_), Some(stop)) => Err(ImportError::HalfRemoved {
            stop,
            name: name.to_owned(),
        }),
        (Err(error), None) => Err(error),
    }
}

/// Whether a network of the plan is one of libvirt's.
pub(super) fn named_networks(plan: &Plan) -> impl Iterator<Item = &str> {
    plan.nics.iter().filter_map(|nic| match &nic.network {
        Network::Named(name) => Some(name.as_str()),
        _ => None,
    })
}

/// The record with the new system disks.
pub(super) fn renewed(record: &Record, plan: &Plan, disks: &[(RecordDisk, RecordDisk)]) -> Record {
    let mut record = record.clone();
    for (old, new) in disks {
        for disk in record.disks.iter_mut().filter(|disk| disk.id == old.id) {
            *disk = new.clone();
        }
    }
    record.boot = Some(RecordBoot::of(plan));
    record.version.clone_from(&plan.version);
    record.descriptor.clone_from(&plan.descriptor);
    record.descriptor_sha256 = plan.digest.hex();
    record
}

/// A name beside `path` that nothing has.
pub(super) fn free_name(path: &Path, taken: &[PathBuf]) -> PathBuf {
    let name = name_of(path);
    let (stem, extension) = name.rsplit_once('.').unwrap_or((&name, "raw"));
    (2..u32::MAX)
        .map(|count| path.with_file_name(format!("{stem}-{count}.{extension}")))
        .find(|path| !path.exists() && !taken.contains(path))
        .expect("there are fewer files than numbers")
}
