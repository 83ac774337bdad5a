//! The two services: `config` early in the start, `verify` at its end.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::addresses;
use crate::configure::{go_on, settle, take};
use crate::console::{Surroundings, show};
use crate::media::{self, Found, Roots, Watcher};
use crate::root::Root;
use crate::status::{Standing, Status, code};
use crate::step::clock::TIMESYNCD_PROGRAM;
use crate::step::grow;
use crate::systemd::{self, READY_TARGET, Request};

/// How long a machine that was never configured waits for its disk before it
/// goes on behind the fence.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// How long an address may take; a machine without one is ready too.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(20);
/// A watch without an event still looks again this often.
const WATCH_PATIENCE: Duration = Duration::from_hours(1);

/// The early step, before the network is configured. It always succeeds: what
/// went wrong is the status, and services stay behind the fence.
pub fn config(root: &Root) -> ExitCode {
    let mut notes = settle(root);
    // Where /var is not a partition of its own, this is the root's.
    if let Err(error) = grow::settle(Path::new("/var")) {
        notes.push(format!(
            "the disk has grown, and the last partition has not: {error}"
        ));
    }
    let roots = Roots::default();
    let mut status = match go_on(root, &media::look(&roots)) {
        Some(status) => status,
        None => take(
            root,
            &media::find(&roots, FIRST_PATIENCE),
            &mut BTreeSet::new(),
        ),
    };
    status.notes.splice(0..0, notes);
    finish(root, &status);
    ExitCode::SUCCESS
}

/// Saves the status; shows it where somebody has to act.
fn finish(root: &Root, status: &Status) {
    if let Err(error) = status.save(root) {
        eprintln!("cannot write the status: {error}");
    }
    for line in status.lines() {
        eprintln!("{line}");
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
    let Some(mut status) = Status::load(root) else {
        eprintln!("the early step left no status; see `systemctl status appliance-config`");
        let status = Status::new(
            Standing::Fenced,
            code::INTERNAL,
            "the early step did not run",
        );
        finish(root, &status);
        return ExitCode::from(code::INTERNAL);
    };
    status.system = systemd::wait_until_started();
    if status.standing == Standing::Waiting {
        finish(root, &status);
        status = wait_for_configuration(root, status);
        if status.standing == Standing::Starting {
            status.system = bring_up(root);
        }
    }
    if status.standing == Standing::Starting {
        judge(&mut status);
        let around = Surroundings::look(root, addresses::wait_for_one(ADDRESS_PATIENCE));
        if let Err(error) = status.save(root) {
            eprintln!("cannot write the status: {error}");
        }
        show(root, &status, &around);
    } else {
        finish(root, &status);
    }
    ExitCode::SUCCESS
}

/// Listens until a configuration has been taken. The same media are judged
/// once: only a change among the devices leads to another look.
fn wait_for_configuration(root: &Root, mut shown: Status) -> Status {
    let roots = Roots::default();
    let mut watcher = Watcher::new(&roots);
    // A disk may have come between the early step and now.
    let mut found = media::look(&roots);
    let mut judged: Option<Found> = None;
    let mut refused = BTreeSet::new();
    loop {
        if judged.as_ref() != Some(&found) {
            let mut status = take(root, &found, &mut refused);
            status.system.clone_from(&shown.system);
            if status.standing != Standing::Waiting {
                return status;
            }
            if (status.code, &status.files, &status.summary)
                != (shown.code, &shown.files, &shown.summary)
            {
                finish(root, &status);
                shown = status;
            }
            judged = Some(found);
        }
        watcher.wait(WATCH_PATIENCE);
        found = media::look(&roots);
    }
}

/// Lets a running system have the configuration that has just been taken.
fn bring_up(root: &Root) -> String {
    let mut requests = vec![Request::TryRestart("systemd-networkd.service")];
    if root.exists(TIMESYNCD_PROGRAM) {
        requests.push(Request::TryRestart("systemd-timesyncd.service"));
    }
    requests.push(Request::Start(READY_TARGET));
    for request in requests {
        if let Err(error) = systemd::ask(request) {
            eprintln!("{error}");
        }
    }
    systemd::wait_until_started()
}

/// From how the start ended to ready or degraded.
fn judge(status: &mut Status) {
    if status.system == "running" {
        status.standing = Standing::Ready;
        status.code = code::READY;
        "all services run".clone_into(&mut status.summary);
    } else {
        status.standing = Standing::Degraded;
        status.code = code::DEGRADED;
        status.failed_units = systemd::failed_units();
        status.summary = format!("the system is {}", status.system);
    }
}
