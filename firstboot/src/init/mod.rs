//! Process 1 of the initramfs: from a kernel without drivers to the system's init.
//!
//! In: the kernel command line, the modules and their table beside it (the
//! builder's boot room makes both). Out: root and `/var` mounted, the machine's
//! identity in place, the system's own init in our stead.
//! Never here: device names from outside (disks are known by what their GPT
//! says), programs of others, a panic for a missing disk.
//! Checked by: unit tests of every parser; debugfs and e2fsck for the journal;
//! boots from every disk controller that QEMU emulates.

mod cmdline;
pub(crate) mod crc;
pub(crate) mod devices;
mod disks;
pub(crate) mod gpt;
mod identity;
pub(crate) mod journal;
mod modules;
mod problem;
mod root;
pub(crate) mod screen;
pub(crate) mod superblock;

use std::time::{Duration, Instant};

use cmdline::Wanted;
use devices::Events;
use disks::{Disks, Found};
use modules::Modules;
use problem::Problem;

/// How long a root may take before the consoles say what is missing. Some
/// controllers look for their disks for ten seconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a slot that must prove itself may be without a root. After that
/// a reboot lets the loader take the other one.
const TRY_PATIENCE: Duration = Duration::from_mins(1);
/// A disk may become readable without telling: look again this often.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Runs as process 1; it never returns, since that would be a kernel panic.
pub fn run() -> ! {
    let problem = match start() {
        Ok(never) => match never {},
        Err(problem) => problem,
    };
    screen::show(&problem.to_string());
    // Nothing in here can repair this; a slot on trial gives way to the other.
    if cmdline::read().is_ok_and(|wanted| wanted.is_try) {
        std::thread::sleep(TRY_PATIENCE);
        root::reboot();
    }
    loop {
        rustix::event::pause();
    }
}

/// The whole way. It returns only with what stopped it for good.
fn start() -> Result<std::convert::Infallible, Problem> {
    root::mount_kernel_file_systems()?;
    let wanted = cmdline::read()?;
    let events = Events::listen()?;
    let mut modules = Modules::read()?;
    modules.load_always();
    let found = find(&wanted, &events, &mut modules)?;
    root::mount(&found, &wanted)?;
    if !identity::has_randomness() {
        modules.load_if_wanted("virtio_rng");
    }
    if let Err(problem) = identity::settle() {
        screen::log(&problem.to_string());
    }
    root::switch(&wanted)
}

/// Loads drivers and looks at disks until the wanted partitions are there.
/// It waits for ever, since a disk may still be plugged in, but not silently.
fn find(wanted: &Wanted, events: &Events, modules: &mut Modules) -> Result<Found, Problem> {
    let begin = Instant::now();
    let mut disks = Disks::default();
    let mut shown = None;
    modules.want(devices::coldplug());
    loop {
        // A disk behind the first driver ends the search: udev loads the rest.
        loop {
            if let Some(found) = disks.find(wanted) {
                return Ok(found);
            }
            if !modules.load_next() {
                break;
            }
            // A bus driver's devices come before the next bus.
            modules.want(events.pending()?);
        }
        let elapsed = begin.elapsed();
        if wanted.is_try && elapsed > TRY_PATIENCE {
            root::reboot();
        }
        if elapsed > PATIENCE {
            let text = screen::missing_root(wanted, &disks);
            if shown.as_ref() != Some(&text) {
                screen::show(&text);
                shown = Some(text);
            }
        }
        let patience = PATIENCE
            .checked_sub(elapsed)
            .filter(|rest| !rest.is_zero())
            .unwrap_or(LOOK_AGAIN);
        modules.want(events.wait(patience.min(LOOK_AGAIN))?);
        disks.look_again();
    }
}
