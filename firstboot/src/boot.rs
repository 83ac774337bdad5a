//! The two services: `config` early in the start, `verify` at its end.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use consign_schema::hook::When;

use crate::addresses;
use crate::configure::{
    Verdict, go_on, growing_disks, may_be_kept_later, offered, present, settle, take, verdict,
};
use crate::console::{Surroundings, show};
use crate::data_disk;
use crate::generation::{CONFIGURED, Generation};
use crate::hook;
use crate::image::Vendor;
use crate::init::screen;
use crate::media::{self, Found, Roots, Watcher};
use crate::root::Root;
use crate::state::{Phase, State};
use crate::status::{Standing, Status, code};
use crate::step::clock::{CHRONYD, TIMESYNCD_PROGRAM};
use crate::step::role::SERVICES;
use crate::step::{UNITS, grow, name};
use crate::systemd::{self, Program, READY_TARGET, Request};
use crate::write_back;

/// Held by whoever changes what counts.
pub const LOCK: &str = "/run/consign/lock";
/// The service that does the early step.
const EARLY: &str = "appliance-config.service";
/// How long a machine that was never configured waits for its disk, after the
/// last device that came, before it goes on behind the fence.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// How long an address may take; a machine without one is ready too.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(20);
/// A watch without an event still looks again this often.
const WATCH_PATIENCE: Duration = Duration::from_hours(1);
/// What may be kept later is tried again this often.
const FULL_PATIENCE: Duration = Duration::from_mins(1);

/// The early step, before the network is configured. It always succeeds: what
/// went wrong is the status, and services stay behind the fence.
pub fn config(root: &Root) -> ExitCode {
    let mut notes = settle(root);
    let lock = root.lock(LOCK);
    if let Err(error) = &lock {
        notes.push(format!("{LOCK} cannot be made: {error}"));
    }
    // Where /var is not a partition of its own, this is the root's.
    if let Err(error) = grow::settle(Path::new("/var")) {
        notes.push(format!(
            "the disk has grown, and the last partition has not: {error}"
        ));
    }
    let roots = roots(root);
    let last_resort = last_resort(root);
    let found = media::look(&roots);
    write_back::note(root, &found);
    let mut status = match go_on(root, &found) {
        Some(status) => status,
        None if last_resort.is_some() => Status::new(Standing::Fenced, code::APPLY_FAILED, ""),
        None => {
            // A reset that was cut has just taken them away.
            notes.extend(settle(root));
            let found = media::find(&roots, FIRST_PATIENCE);
            write_back::note(root, &found);
            tell_where(&found);
            take(root, &found, &mut BTreeSet::new())
        }
    };
    if let Err(error) = name::tell_kernel(root) {
        notes.push(format!("the kernel does not take the host name: {error}"));
    }
    notes.extend(read_units_again(root));
    // Who waits for them is in the queue already, and brings nobody along.
    begin_mounts(root, &mut notes);
    status.notes.splice(0..0, notes);
    if let Some(slot) = last_resort {
        hold(root, &mut status, &slot);
    }
    finish(root, &status);
    ExitCode::SUCCESS
}

/// Said at once, and on a quiet console too: a wrong one is found by where it is.
fn tell_where(found: &Found) {
    for candidate in &found.candidates {
        screen::mark(&format!(
            "configuration on {} ({})",
            candidate.device, candidate.filesystem
        ));
    }
}

/// The slot that the loader started although none had tries left
/// (`consign.fenced=1`); `None` in every other start.
pub fn last_resort(root: &Root) -> Option<String> {
    let cmdline = root.read_text("/proc/cmdline", 4096).ok()?;
    let words = || cmdline.split_ascii_whitespace();
    let slot = words().find_map(|word| word.strip_prefix("consign.slot="));
    words()
        .any(|word| word == "consign.fenced=1")
        .then(|| slot.unwrap_or("a").to_owned())
}

/// Puts the fence up again: accounts, network and SSH stay as configured, so
/// that somebody can look, and services do not start.
fn hold(root: &Root, status: &mut Status, slot: &str) {
    status.standing = Standing::Fenced;
    status.code = code::APPLY_FAILED;
    status.summary = format!("no slot has tries left; slot {slot} was started as a last resort");
    status.notes.push(
        "services stay down: log in to look, then install an update or the image again".into(),
    );
    for stamp in [CONFIGURED, SERVICES] {
        if root.exists(stamp)
            && let Err(error) = root.remove_tree(stamp)
        {
            status
                .notes
                .push(format!("{stamp} cannot be removed: {error}"));
        }
    }
}

/// Where media are looked for, and which other ways the vendor allows. That
/// the image itself is wrong is told when a configuration is judged.
pub fn roots(root: &Root) -> Roots {
    Roots {
        policy: Vendor::load(root).unwrap_or_default().policy,
        ..Roots::default()
    }
}

/// Where drop-ins were made, the service manager reads its units again.
fn read_units_again(root: &Root) -> Option<String> {
    let folders = root.list(UNITS).unwrap_or_default();
    let has_ours = folders.iter().any(|folder| {
        let files = root.list(&format!("{UNITS}/{folder}")).unwrap_or_default();
        files.iter().any(|file| file.starts_with("50-consign-"))
    });
    let asked = has_ours.then(|| systemd::ask(Request::Reload))?;
    asked
        .err()
        .map(|error| format!("services do not have their settings: {error}"))
}

/// Starts the mounts of data disks.
fn begin_mounts(root: &Root, notes: &mut Vec<String>) {
    let units = root.list(UNITS).unwrap_or_default();
    let is_mount = |unit: &&String| unit.strip_suffix(".mount").is_some();
    for unit in units.iter().filter(is_mount) {
        if let Err(error) = systemd::ask(Request::Begin(unit)) {
            notes.push(error.to_string());
        }
    }
}

/// The early step on a folder that stands for a system, without its media.
pub fn config_folder(root: &Root) -> ExitCode {
    let mut notes = settle(root);
    let found = Found::default();
    let mut status = go_on(root, &found).unwrap_or_else(|| {
        notes.extend(settle(root));
        take(root, &found, &mut BTreeSet::new())
    });
    status.notes.append(&mut notes);
    if let Err(error) = status.save(root) {
        complain!("cannot write the status: {error}");
    }
    for line in status.lines() {
        complain!("{line}");
    }
    ExitCode::from(if status.standing == Standing::Starting {
        status.refused
    } else {
        status.code
    })
}

/// Saves the status; shows it where somebody has to act.
fn finish(root: &Root, status: &Status) {
    save(root, status);
    for line in status.lines() {
        complain!("{line}");
    }
    if status.is_final() {
        show(
            root,
            status,
            &Surroundings::look(root, addresses::addresses()),
        );
    }
}

/// The last step: waits for a configuration where there is none, then until
/// everything has started, and says what became of it.
pub fn verify(root: &Root) -> ExitCode {
    let (mut status, mut is_new) = match Status::load(root).filter(did_run) {
        Some(status) => resumed(root, status),
        None => match early_again(root) {
            // What waited for it has been passed over.
            Some(status) => (status, true),
            // Somebody else configured the machine, and sees to it.
            None => return ExitCode::SUCCESS,
        },
    };
    status.system = systemd::wait_until_started();
    loop {
        if listens(root, &status) {
            finish(root, &status);
            send_back(root, &mut status);
            let Some(taken) = wait_for_configuration(root, status) else {
                // Somebody else configured the machine, and sees to it.
                return ExitCode::SUCCESS;
            };
            (status, is_new) = (taken, true);
        }
        if status.standing != Standing::Starting {
            finish(root, &status);
            break;
        }
        if is_new {
            // Whoever waits for the status does not read the one before.
            save(root, &status);
            status.system = bring_up(root);
        }
        status.notes.extend(grow_data_disks(root));
        judge(&mut status);
        check_role(root, &mut status);
        status = after_trial(root, status);
        if !listens(root, &status) {
            let around = Surroundings::look(root, addresses::wait_for_one(ADDRESS_PATIENCE));
            save(root, &status);
            show(root, &status, &around);
            break;
        }
    }
    send_back(root, &mut status);
    ExitCode::SUCCESS
}

/// The summary of a machine without an early step.
const NOT_RUN: &str = "the configuration of this machine was interrupted";

fn did_run(status: &Status) -> bool {
    status.summary != NOT_RUN
}

/// Has the manager do the early step again, which left no status: it may have
/// been killed. Whatever it stumbled over, a disk that comes is a new chance.
///
/// # Errors
///
/// `None` when somebody else has configured the machine meanwhile.
fn early_again(root: &Root) -> Option<Status> {
    let mut watcher = Watcher::new(&roots(root));
    let mut is_told = false;
    loop {
        match systemd::ask(Request::Start(EARLY)) {
            // It goes on.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => continue,
            Err(error) => complain!("{error}"),
            Ok(()) => {}
        }
        if let Some(status) = Status::load(root).filter(did_run) {
            return Some(status);
        }
        if !is_told {
            let mut status = Status::new(Standing::Fenced, code::INTERNAL, NOT_RUN);
            let note = format!(
                "attach the config disk again, or restart the machine; `journalctl -u {EARLY}` has the reason"
            );
            status.notes.push(note);
            finish(root, &status);
            is_told = true;
        }
        watcher.wait(WATCH_PATIENCE);
        if Status::load(root).is_some_and(|status| did_run(&status)) {
            return None;
        }
    }
}

/// The status to go on from, and whether services have to be brought up for
/// it. Who verified before may have been ended between a change and its word.
fn resumed(root: &Root, status: Status) -> (Status, bool) {
    let is_over = matches!(status.standing, Standing::Ready | Standing::Degraded);
    let state = State::load(root).ok().flatten();
    let Some(state) = state.filter(|_| !is_over) else {
        return (status, false);
    };
    let is_starting = status.standing == Standing::Starting;
    let counting = if is_starting && state.phase == Phase::Committed {
        let _lock = locked(root);
        go_on(root, &Found::default())
    } else if status.generation != state.generation.number && root.exists(CONFIGURED) {
        present(root)
    } else {
        None
    };
    // Only a verify saves a start together with what the manager says.
    let is_new = counting.is_some() || (is_starting && !status.system.is_empty());
    (counting.unwrap_or(status), is_new)
}

/// Whether another configuration is waited for: there is none, or it cannot be
/// put in place. The loader's last resort is for an update of the image.
fn listens(root: &Root, status: &Status) -> bool {
    match status.standing {
        Standing::Waiting => true,
        Standing::Fenced => status.code == code::APPLY_FAILED && last_resort(root).is_none(),
        _ => false,
    }
}

fn save(root: &Root, status: &Status) {
    if let Err(error) = status.save(root) {
        complain!("cannot write the status: {error}");
    }
}

/// What keeps others from changing what counts until it is dropped; a machine
/// that cannot have it goes on all the same.
fn locked(root: &Root) -> io::Result<OwnedFd> {
    let lock = root.lock(LOCK);
    lock.inspect_err(|error| complain!("{LOCK} cannot be made: {error}"))
}

/// The role's own checks: one that fails makes the machine degraded, and ends
/// a trial.
pub fn check_role(root: &Root, status: &mut Status) {
    let state = State::load(root).ok().flatten();
    let generation = state.and_then(|state| Generation::load(root, &state).ok());
    let Some(generation) = generation else {
        return;
    };
    if let Err(error) = hook::run(root, &generation, When::Verify) {
        status.standing = Standing::Degraded;
        status.code = code::CHECK_FAILED;
        status.summary = error.to_string();
        status.failed_units.push(hook::UNIT.to_owned());
    }
}

/// Data disks that were made larger, and are mounted now.
fn grow_data_disks(root: &Root) -> Vec<String> {
    let mut notes = Vec::new();
    for (mount, is_xfs) in growing_disks(root) {
        let grown = if is_xfs {
            systemd::must(Program::GrowXfs, &["-d", &mount]).map_err(|error| error.to_string())
        } else {
            grow::settle_whole(Path::new(&mount))
                .map(|_| ())
                .map_err(|error| error.to_string())
        };
        if let Err(error) = grown {
            notes.push(format!("the disk at {mount} has not grown: {error}"));
        }
    }
    notes
}

/// Writes onto the customer's medium, after everybody has been told.
pub fn send_back(root: &Root, status: &mut Status) {
    let notes = write_back::write_back(root, &Roots::default(), status);
    if notes.is_empty() {
        return;
    }
    for note in &notes {
        complain!("{note}");
    }
    status.notes.extend(notes);
    save(root, status);
}

/// Listens until a configuration has been taken. The same media are judged
/// once, unless what kept them away goes by itself, or any disk comes or goes.
/// `None` when somebody else has configured the machine meanwhile.
fn wait_for_configuration(root: &Root, mut shown: Status) -> Option<Status> {
    let roots = roots(root);
    let mut watcher = Watcher::new(&roots);
    // A disk may have come between the early step and now.
    let mut found = media::look(&roots);
    let mut judged: Option<Found> = None;
    let mut refused = BTreeSet::new();
    // A disk of another kind may be what a configuration lacked.
    let mut has_changed = false;
    loop {
        let is_new = judged.as_ref() != Some(&found);
        if is_new {
            write_back::note(root, &found);
            tell_where(&found);
        }
        if is_new || has_changed || may_be_kept_later(&shown) {
            let mut status = {
                let _lock = locked(root);
                offered(root, &found, &mut refused, &shown)?
            };
            if let Err(error) = name::tell_kernel(root) {
                complain!("the kernel does not take the host name: {error}");
            }
            status.system.clone_from(&shown.system);
            if !listens(root, &status) {
                return Some(status);
            }
            if (status.code, status.refused, &status.files, &status.summary)
                != (shown.code, shown.refused, &shown.files, &shown.summary)
            {
                finish(root, &status);
                send_back(root, &mut status);
                shown = status;
            }
            judged = Some(found);
        }
        has_changed = watcher.wait(if may_be_kept_later(&shown) {
            FULL_PATIENCE
        } else {
            WATCH_PATIENCE
        });
        if has_changed {
            data_disk::expect_more();
        }
        found = media::look(&roots);
    }
}

/// Lets a running system have the configuration that has just been put in
/// place.
pub fn bring_up(root: &Root) -> String {
    if let Some(note) = read_units_again(root) {
        complain!("{note}");
    }
    let mut notes = Vec::new();
    begin_mounts(root, &mut notes);
    for note in notes {
        complain!("{note}");
    }
    let mut requests = vec![Request::TryRestart("systemd-networkd.service")];
    if root.exists(TIMESYNCD_PROGRAM) {
        requests.push(Request::TryRestart("systemd-timesyncd.service"));
    }
    if root.exists(CHRONYD) {
        requests.push(Request::TryRestart("chrony.service"));
    }
    let services = root.list(SERVICES).unwrap_or_default();
    requests.extend(services.iter().map(|unit| Request::TryRestart(unit)));
    requests.push(Request::Start(READY_TARGET));
    let mut does_hang = false;
    for request in requests {
        if let Err(error) = systemd::ask(request) {
            complain!("{error}");
            does_hang = error.kind() == io::ErrorKind::TimedOut;
            if does_hang {
                break;
            }
        }
    }
    if let Err(error) = name::tell_kernel(root) {
        complain!("the kernel does not take the host name: {error}");
    }
    // The manager would say that it runs, after its own start is over.
    if does_hang {
        return "starting".to_owned();
    }
    systemd::wait_until_started()
}

/// Confirms a configuration on trial, or goes back to the one before it.
pub fn after_trial(root: &Root, status: Status) -> Status {
    let _lock = locked(root);
    match verdict(root, status.generation, &status.failed_units) {
        Verdict::None => status,
        Verdict::Confirmed => {
            let note = "the new configuration works, and stays".to_owned();
            let mut status = status;
            status.notes.push(note);
            status
        }
        Verdict::Back(back, reason) => {
            let mut back = *back;
            let note = format!(
                "the new configuration did not work, the one before it is in use again: {reason}"
            );
            back.notes.push(note);
            if back.standing == Standing::Starting {
                back.refused = code::APPLY_KEPT;
                back.system = status.system;
                save(root, &back);
                back.system = bring_up(root);
                judge(&mut back);
            }
            back
        }
    }
}

/// From how the start ended to ready or degraded. A machine that refused
/// something says so with its exit code.
pub fn judge(status: &mut Status) {
    if status.system == "running" {
        status.standing = Standing::Ready;
        status.code = match status.refused {
            0 => code::READY,
            refused => refused,
        };
        "all services run".clone_into(&mut status.summary);
    } else {
        status.standing = Standing::Degraded;
        status.code = code::DEGRADED;
        status.failed_units = systemd::failed_units();
        // Nobody knows yet what else will fail.
        if matches!(
            status.system.as_str(),
            "starting" | "initializing" | "unknown"
        ) {
            status.failed_units.push(systemd::SILENT.to_owned());
            status.failed_units.dedup();
        }
        status.summary = format!("the system is {}", status.system);
    }
}

#[cfg(test)]
#[path = "boot_tests.rs"]
mod tests;
