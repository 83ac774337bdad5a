//! The spine: verify, check, make, define, start; or take it all back.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::domain::{self, CONSOLE_LOG};
use super::error::ImportError;
use super::host::Host;
use super::plan::{Plan, PlannedDisk};
use super::qemu;
use super::store::{self, Record, RecordDisk, Undo, is_replaced, name_of};
use super::wishes::Network;
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
    if acts.verify {
        plan.verify(reporter)?;
    }
    plan.digest_overlays(reporter)?;
    host.check(plan)?;
    let accelerator = host.accelerator(plan.virt, reporter)?;
    let storage = plan.folder.parent().unwrap_or(Path::new("/"));
    store::check_room(plan, storage)?;
    super::replace::bring_back(&plan.folder, &plan.name)?;
    if is_taken(plan, host)? {
        if acts.replace {
            return super::replace::replace(plan, host, accelerator, acts, reporter);
        }
        return Err(ImportError::NameTaken {
            name: plan.name.clone(),
        });
    }
    let plan = &*plan;
    let mut undo = Undo::default();
    let mut record = Record::of(plan, host.uri());
    store::make_folder(&record, &plan.folder, &mut undo)?;
    store::fill(plan, &|| host.qemu_img(), reporter)?;
    introduce(plan, host, accelerator, acts, &mut record, &mut undo)?;
    if acts.start {
        start(plan, host, &record)?;
    }
    undo.keep();
    finish(plan, host, Some(accelerator), acts)
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
            undo.on_failure(|| {
                // Either may fail because there is nothing to stop or to forget.
                let _stopped = virsh.destroy(&plan.name);
                let _forgotten = virsh.undefine(&plan.name);
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
            write_script(plan, &qemu::script(call.path(), &record.qemu))?;
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

pub(super) fn start(plan: &Plan, host: &Host, record: &Record) -> Result<(), ImportError> {
    match host {
        Host::Libvirt { virsh, .. } => virsh.start(&plan.name),
        Host::Plain { call, .. } => qemu::start(call, &record.qemu),
    }
}

pub(super) fn finish(
    plan: &Plan,
    host: &Host,
    accelerator: Option<Accelerator>,
    acts: &Acts,
) -> Result<Imported, ImportError> {
    let ready = match acts.wait_ready {
        Some(limit) if acts.start => Some(wait_ready(plan, host, limit)?),
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

/// Reads the guest's console until it says what it is.
fn wait_ready(plan: &Plan, host: &Host, limit: Duration) -> Result<StateLine, ImportError> {
    let log = plan.folder.join(CONSOLE_LOG);
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
        looks += 1;
        // Asking whether it still runs costs more than reading a file.
        if looks.is_multiple_of(20) && !host.is_running(&plan.name, &plan.folder)? {
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

/// Replaces the guest's system disks by those of the plan, and keeps all else.
///
/// # Errors
///
/// [`ImportError`]; then the guest is as it was.
pub fn upgrade(
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
    let record = Record::open(&folder)?.filter(|record| record.name == plan.name);
    let record = record.ok_or_else(|| ImportError::NotOurs {
        name: plan.name.clone(),
    })?;
    let new: Vec<&PlannedDisk> = plan.disks.iter().filter(|disk| is_replaced(disk)).collect();
    for disk in &new {
        if !record.disks.iter().any(|old| old.id == disk.id) {
            return Err(ImportError::OtherAppliance {
                name: plan.name.clone(),
                id: disk.id.clone(),
            });
        }
    }
    store::check_room(plan, &folder)?;
    host.stop(&plan.name, &folder, acts.force)?;
    super::replace::swap(plan, host, &folder, &record, acts, reporter)
}

/// Removes a guest that was imported, with its files and nothing else.
///
/// # Errors
///
/// [`ImportError::NoGuest`], `NotOurs`, `Running`, and what removing reports.
pub fn remove(
    name: &str,
    storage: &Path,
    host: &Host,
    force: bool,
) -> Result<PathBuf, ImportError> {
    let folder = host.folder_of(name, &storage.join(name))?;
    let record = Record::open(&folder)?.filter(|record| record.name == name);
    let is_known = host.state(name)?.is_some();
    let Some(record) = record else {
        return Err(if is_known {
            ImportError::NotOurs {
                name: name.to_owned(),
            }
        } else {
            ImportError::NoGuest {
                name: name.to_owned(),
            }
        });
    };
    host.stop(name, &folder, force)?;
    if is_known && let Host::Libvirt { virsh, .. } = host {
        virsh.undefine(name)?;
    }
    record.remove_files(&folder)?;
    Ok(folder)
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
