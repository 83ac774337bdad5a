//! A guest that is there already: new system disks, everything else kept.
//!
//! `upgrade` changes nothing but system disks (and a kernel beside them);
//! `replace` makes the guest anew, as the plan says, around the user's disks.
//! Until the end the old files stay where they can be put back.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use xml::escape::{escape_str_attribute, escape_str_pcdata};

use super::aside::{self, aside_of, bring_back, put_back, rename};
use super::domain;
use super::error::ImportError;
use super::host::Host;
use super::lock::Lock;
use super::plan::{CONFIG, Make, Plan};
use super::qemu;
use super::run::{Acts, Imported, finish, free_name, introduce, renewed, start};
use super::store::{self, Record, RecordDisk, Undo, is_replaced, name_of};
use crate::artifact::write_file;
use crate::machine::kvm::Accelerator;
use crate::report::Reporter;

/// Replaces a guest. One that was not imported is forgotten, its disks stay.
pub(super) fn replace(
    plan: &mut Plan,
    host: &Host,
    accelerator: Accelerator,
    acts: &Acts,
    lock: Lock,
    reporter: &dyn Reporter,
) -> Result<Imported, ImportError> {
    let name = plan.name.clone();
    let old_folder = host.folder_of(&name, &plan.folder)?;
    let old_lock = (old_folder != plan.folder)
        .then(|| lock.take_too(&old_folder, &name))
        .transpose()?;
    let off = || host.cut_power(&name, &old_folder);
    bring_back(&old_folder, &plan.folder, &name, &off, reporter)?;
    let aside = aside_of(&old_folder, &name);
    let record = Record::open(&old_folder)?.filter(|record| record.name == name);
    if record.is_some() && aside.exists() {
        return Err(ImportError::FolderTaken { path: aside });
    }
    let old_xml = match host {
        Host::Libvirt { virsh, .. } if virsh.state(&name)?.is_some() => {
            Some(virsh.description(&name)?)
        }
        _ => None,
    };
    // libvirt takes a new description of a guest by its UUID.
    if let Some(xml) = &old_xml {
        plan.uuid = uuid_of(xml).or_else(|| plan.uuid.take());
    }
    let kept = match &record {
        Some(record) => keep_user_disks(plan, record),
        None => Vec::new(),
    };
    if let Some(record) = &record {
        no_user_disk_is_lost(&name, record, &kept)?;
    }
    let was_running = host.is_running(&name, &old_folder)?;
    host.cut_power(&name, &old_folder)?;
    let plan = &*plan;
    let mut undo = Undo::default();
    if let (Host::Plain { call, .. }, Some(record), true) = (host, &record, was_running) {
        let call = call.clone().apart();
        undo.on_failure(move || drop(qemu::start(&call, &record.qemu)));
    }
    if let (Some(xml), Host::Libvirt { virsh, .. }) = (&old_xml, host) {
        let (name, virsh) = (&plan.name, virsh.apart());
        undo.on_failure(move || {
            // The error that is reported is the one that came first.
            let is_back = virsh.define(name, xml).is_ok();
            if is_back && was_running {
                drop(virsh.start(name));
            }
        });
    }
    if record.is_some() {
        rename(&old_folder, &aside)?;
        let (aside, old_folder) = (aside.clone(), old_folder.clone());
        undo.on_failure(move || drop(fs::rename(aside, old_folder)));
    }
    let mut new_record = Record::of(plan, host.uri());
    // Until all is done the new guest's record does not speak of the user's
    // disks: what a killed import left behind is removed by its record.
    let mut unfinished = new_record.clone();
    unfinished
        .disks
        .retain(|disk| kept.iter().all(|(_, file)| *file != disk.file));
    let (is_aside, made) = (record.is_some(), unfinished.clone());
    let (back, back_to) = (aside.clone(), old_folder.clone());
    store::make_folder(&unfinished, &plan.folder, &mut undo, move || {
        if is_aside {
            // What cannot be put back now is by the next import.
            drop(made.save(&plan.folder));
            drop(put_back(&made, &plan.folder, &back, &back_to));
        } else {
            drop(fs::remove_dir_all(&plan.folder));
        }
    })?;
    store::fill(plan, &|| host.qemu_img(), reporter)?;
    for (index, file) in &kept {
        let (from, to) = (aside.join(file), plan.folder.join(file));
        rename(&from, &to)?;
        if let (Some(new), Some(old)) = (
            new_record.disks.get_mut(*index),
            record
                .as_ref()
                .and_then(|record| record.disks.iter().find(|disk| disk.file == *file)),
        ) {
            *new = old.clone();
        }
    }
    store::go_on(reporter)?;
    introduce_again(plan, host, accelerator, acts, &mut new_record, &mut undo)?;
    store::go_on(reporter)?;
    // The last thing that can go wrong is the start, which would go on from
    // what was saved.
    host.drop_save(&plan.name, reporter)?;
    if acts.start {
        start(&plan.name, host, &new_record)?;
    }
    store::go_on(reporter)?;
    undo.keep();
    if let Some(record) = &record {
        record.remove_files(&aside)?;
        aside::move_along(&aside, &plan.folder, reporter);
    }
    drop(old_lock);
    lock.release();
    finish(plan, host, Some(accelerator), acts, reporter)
}

/// A disk that the user keeps data on, and that the new descriptor does not
/// name, would go with the old guest.
fn no_user_disk_is_lost(
    name: &str,
    record: &Record,
    kept: &[(usize, String)],
) -> Result<(), ImportError> {
    let is_kept = |disk: &RecordDisk| kept.iter().any(|(_, file)| *file == disk.file);
    let lost = record
        .disks
        .iter()
        .find(|disk| disk.usage == "user" && disk.id != CONFIG && !is_kept(disk));
    lost.map_or(Ok(()), |disk| {
        Err(ImportError::OtherAppliance {
            name: name.to_owned(),
            id: disk.id.clone(),
        })
    })
}

/// As [`introduce`], but what is taken back is the new description only.
fn introduce_again<'a>(
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
            undo.on_failure(move || drop(back.destroy(&plan.name)));
            if plan.autostart {
                virsh.autostart(&plan.name)?;
            }
            record.is_whole = true;
            record.save(&plan.folder)
        }
        Host::Plain { .. } => introduce(plan, host, accelerator, acts, record, undo),
    }
}

/// Has the plan take the user's disks as they are: which, and their files.
fn keep_user_disks(plan: &mut Plan, record: &Record) -> Vec<(usize, String)> {
    let mut kept = Vec::new();
    let folder = plan.folder.clone();
    for (index, disk) in plan.disks.iter_mut().enumerate() {
        let old = record.disks.iter().find(|old| old.id == disk.id);
        let Some(old) = old.filter(|old| old.usage == "user") else {
            continue;
        };
        if is_replaced(disk) || disk.is_asked {
            continue;
        }
        if let Some(format) = ["raw", "qcow2", "qcow", "vdi"]
            .into_iter()
            .find(|format| *format == old.format)
        {
            disk.path = folder.join(&old.file);
            disk.format = format;
            disk.make = Make::Kept;
            disk.grows = false;
            kept.push((index, old.file.clone()));
        }
    }
    kept
}

fn uuid_of(xml: &str) -> Option<String> {
    let domain = super::xml::parse(xml.as_bytes()).ok()?;
    Some(domain.first("uuid")?.text()?.trim().to_owned())
}

/// Puts the plan's system disks in the place of the old ones.
pub(super) fn swap(
    plan: &mut Plan,
    host: &Host,
    folder: &Path,
    record: &Record,
    acts: &Acts,
    lock: Lock,
    reporter: &dyn Reporter,
) -> Result<Imported, ImportError> {
    folder.clone_into(&mut plan.folder);
    let mut taken: Vec<PathBuf> = Vec::new();
    for disk in plan.disks.iter_mut().filter(|disk| is_replaced(disk)) {
        disk.path = free_name(&folder.join(name_of(&disk.path)), &taken);
        taken.push(disk.path.clone());
    }
    let plan = &*plan;
    let was_running = Cell::new(false);
    let mut undo = Undo::default();
    // Taken back last: by then everything else is as it was.
    undo.on_failure(|| {
        let host = host.apart();
        if was_running.get() && host.is_running(&plan.name, folder).is_ok_and(|runs| !runs) {
            drop(start(&plan.name, &host, record));
        }
    });
    let mut pairs: Vec<(RecordDisk, RecordDisk)> = Vec::new();
    for disk in plan.disks.iter().filter(|disk| is_replaced(disk)) {
        store::go_on(reporter)?;
        undo.on_failure(|| drop(fs::remove_file(&disk.path)));
        store::make_disk(disk, plan.is_pinned, &|| host.qemu_img(), reporter)?;
        let old = record.disks.iter().find(|old| old.id == disk.id);
        let old = old.expect("upgrade looked for it");
        pairs.push((old.clone(), RecordDisk::of(disk)));
    }
    store::go_on(reporter)?;
    // The guest is away no longer than it must be: its disks are made by now.
    // Since they were begun somebody may have started it.
    was_running.set(host.check_off(&plan.name, folder, acts.force)?);
    host.cut_power(&plan.name, folder)?;
    swap_kernel(plan, &mut undo)?;
    let mut new_record = renewed(record, plan, &pairs);
    match host {
        Host::Libvirt { virsh, .. } => {
            let xml = virsh.description(&plan.name)?;
            let new_xml = edit(&xml, plan, folder, &pairs)?;
            virsh.define(&plan.name, &new_xml)?;
            let virsh = virsh.apart();
            undo.on_failure(move || drop(virsh.define(&plan.name, &xml)));
        }
        Host::Plain { call, .. } => {
            for arg in &mut new_record.qemu {
                *arg = edit_argument(arg, folder, &pairs);
            }
            if let Some(kernel) = &plan.kernel
                && let Some(at) = new_record.qemu.iter().position(|arg| arg == "-append")
                && let Some(words) = new_record.qemu.get_mut(at + 1)
            {
                words.clone_from(&kernel.cmdline);
            }
            let path = folder.join("start.sh");
            let text = qemu::script(call.path(), &new_record);
            let old_text = qemu::script(call.path(), record);
            let failed = |source| ImportError::Write {
                path: path.clone(),
                source,
            };
            write_file(&path, text.as_bytes()).map_err(failed)?;
            let back = path.clone();
            undo.on_failure(move || drop(write_file(&back, old_text.as_bytes())));
        }
    }
    new_record.save(folder)?;
    let old_record = record.clone();
    undo.on_failure(move || drop(old_record.save(folder)));
    store::go_on(reporter)?;
    if acts.force {
        host.drop_save(&plan.name, reporter)?;
    }
    if acts.start {
        // Whether or not starting it is reported to fail, it may run by then.
        undo.on_failure(|| drop(host.apart().cut_power(&plan.name, folder)));
        start(&plan.name, host, &new_record)?;
    }
    store::go_on(reporter)?;
    undo.keep();
    let old_files = pairs.iter().map(|(old, _)| old.file.clone());
    for file in old_files.chain(["kernel.old".into(), "initrd.old".into()]) {
        let path = folder.join(file);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(ImportError::Write { path, source });
            }
            _ => {}
        }
    }
    lock.release();
    finish(plan, host, None, acts, reporter)
}

fn swap_kernel<'a>(plan: &'a Plan, undo: &mut Undo<'a>) -> Result<(), ImportError> {
    let Some(kernel) = &plan.kernel else {
        return Ok(());
    };
    let files = std::iter::once(&kernel.kernel).chain(&kernel.initrd);
    for (master, path) in files {
        let old = path.with_extension("old");
        if path.exists() {
            rename(path, &old)?;
            undo.on_failure(move || drop(fs::rename(old, path)));
        } else {
            undo.on_failure(move || drop(fs::remove_file(path)));
        }
        store::copy(master, path, false, &crate::report::Silent)?;
    }
    Ok(())
}

/// The guest's description with other disks.
fn edit(
    xml: &str,
    plan: &Plan,
    folder: &Path,
    pairs: &[(RecordDisk, RecordDisk)],
) -> Result<String, ImportError> {
    let mut text = xml.to_owned();
    for (old, new) in pairs {
        let quoted = |file: &str| {
            let path = folder.join(file).display().to_string();
            format!("file='{}'", escape_str_attribute(&path))
        };
        let missing = || ImportError::OtherAppliance {
            name: plan.name.clone(),
            id: old.id.clone(),
        };
        let at = text.find(&quoted(&old.file)).ok_or_else(missing)?;
        let start = text
            .get(..at)
            .and_then(|before| before.rfind("<disk "))
            .ok_or_else(missing)?;
        let end = text
            .get(at..)
            .and_then(|after| after.find("</disk>"))
            .map(|length| at + length)
            .ok_or_else(missing)?;
        let block = text.get(start..end).ok_or_else(missing)?;
        let block = block
            .replace(&quoted(&old.file), &quoted(&new.file))
            .replace(
                &format!("type='{}'", old.format),
                &format!("type='{}'", new.format),
            );
        text.replace_range(start..end, &block);
    }
    if let Some(start) = text.find("<va:import ")
        && let Some(length) = text.get(start..).and_then(|rest| rest.find("/>"))
    {
        let element = domain::import_element(plan);
        text.replace_range(start..start + length + 2, &element);
    }
    if let Some(kernel) = &plan.kernel
        && let Some(start) = text.find("<cmdline>")
        && let Some(length) = text.get(start..).and_then(|rest| rest.find("</cmdline>"))
    {
        let words = format!("<cmdline>{}", escape_str_pcdata(&kernel.cmdline));
        text.replace_range(start..start + length, &words);
    }
    Ok(text)
}

fn edit_argument(arg: &str, folder: &Path, pairs: &[(RecordDisk, RecordDisk)]) -> String {
    let end = |file: &str| format!(",file={}", qemu::comma(&folder.join(file)));
    for (old, new) in pairs {
        let before = format!("format={}{}", old.format, end(&old.file));
        if let Some(start) = arg.strip_suffix(&before) {
            return format!("{start}format={}{}", new.format, end(&new.file));
        }
    }
    arg.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(file: &str, format: &str) -> RecordDisk {
        RecordDisk {
            id: "system".into(),
            usage: "system".into(),
            file: file.into(),
            format: format.into(),
            master: None,
            checksum: None,
            is_overlay: false,
        }
    }

    #[test]
    fn only_the_system_disk_of_a_call_is_changed() {
        let pairs = [(disk("system.raw", "raw"), disk("system-2.qcow2", "qcow2"))];
        let folder = Path::new("/g,x");
        let edited = |arg| edit_argument(arg, folder, &pairs);
        assert_eq!(
            edited("if=none,id=d0,format=raw,file=/g,,x/system.raw"),
            "if=none,id=d0,format=qcow2,file=/g,,x/system-2.qcow2"
        );
        let other = "if=none,id=d1,format=raw,file=/g,,x/data.raw";
        assert_eq!(edited(other), other);
    }

    #[test]
    fn a_uuid_is_read_from_a_description() {
        let xml =
            "<domain><name>x</name><uuid>01234567-89ab-cdef-0123-456789abcdef</uuid></domain>";
        assert_eq!(
            uuid_of(xml).as_deref(),
            Some("01234567-89ab-cdef-0123-456789abcdef")
        );
    }
}
