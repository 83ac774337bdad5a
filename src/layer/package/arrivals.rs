//! Packages that are unpacked while others are installed already.
//!
//! Unpacking keeps every core busy at first, and then one, for as long as the
//! largest package takes; maintainer scripts are one process at a time. So
//! both go on at once. What runs comes from packages that have arrived, which
//! means that their digests have been checked; only the order is taken from
//! control files before that.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

use super::archive::{Unpacked, peek, unpack};
use super::control::Control;
use super::filter::PathFilter;
use super::order::unpack_order;
use crate::layer::sandbox::Fault;
use crate::layer::sandbox::protocol::DebFile;

/// Packages in their order, and what has arrived of them.
#[derive(Debug)]
pub(super) struct Arrivals<'a> {
    debs: Vec<&'a DebFile>,
    controls: Vec<Control>,
    slots: Vec<OnceLock<Unpacked>>,
    /// The first thing that went wrong, until somebody takes it.
    failure: Mutex<Option<Fault>>,
    changed: Condvar,
    /// Index into the order of unpacking.
    next: AtomicUsize,
}

impl<'a> Arrivals<'a> {
    /// `debs` in the order of their installation. `None` when the control
    /// files of one of them cannot be read: unpacking it says why.
    pub(super) fn expect(debs: &'a [DebFile]) -> Option<Self> {
        let mut found: Vec<(&DebFile, Control)> = debs
            .iter()
            .map(|deb| Some((deb, peek(deb)?)))
            .collect::<Option<_>>()?;
        found.sort_by(|(_, one), (_, two)| one.package().cmp(two.package()));
        let controls: Vec<&Control> = found.iter().map(|(_, control)| control).collect();
        let order = unpack_order(&controls);
        let mut waiting: Vec<_> = found.into_iter().map(Some).collect();
        let (debs, controls): (Vec<_>, Vec<_>) = order
            .into_iter()
            .filter_map(|at| waiting.get_mut(at).and_then(Option::take))
            .unzip();
        Some(Self {
            slots: debs.iter().map(|_| OnceLock::new()).collect(),
            debs,
            controls,
            failure: Mutex::new(None),
            changed: Condvar::new(),
            next: AtomicUsize::new(0),
        })
    }

    /// What the packages say of themselves, in their order.
    pub(super) fn controls(&self) -> &[Control] {
        &self.controls
    }

    /// Lengths of their .debs.
    pub(super) fn sizes(&self) -> Vec<u64> {
        self.debs.iter().map(|deb| deb.size).collect()
    }

    /// Package number `at`, as soon as it has arrived.
    pub(super) fn wait_for(&self, at: usize) -> Result<&Unpacked, Fault> {
        let none = || Fault::Talk {
            reason: format!("there is no package {at}"),
        };
        let slot = self.slots.get(at).ok_or_else(none)?;
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(unpacked) = slot.get() {
                return Ok(unpacked);
            }
            if let Some(fault) = failure.take() {
                return Err(fault);
            }
            let woken = self.changed.wait(failure);
            failure = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns as soon as all of `packages` have arrived.
    pub(super) fn wait_for_each(&self, packages: &[usize]) -> Result<(), Fault> {
        packages
            .iter()
            .try_for_each(|at| self.wait_for(*at).map(drop))
    }

    /// All packages, in their order.
    pub(super) fn wait_for_all(&self) -> Result<Vec<&Unpacked>, Fault> {
        let all = 0..self.slots.len();
        all.map(|at| self.wait_for(at)).collect()
    }

    /// Unpacks all of them on as many threads as there are cores, while
    /// `meanwhile` goes on; each in a folder of its own in `stage`. Those in
    /// `first` come first, after the largest one, which takes longest.
    pub(super) fn while_unpacking<T>(
        &self,
        stage: &Path,
        filter: &PathFilter,
        first: impl Fn(usize) -> bool,
        watch: &(dyn Fn(u64) + Sync),
        meanwhile: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let size = |at: usize| self.debs.get(at).map_or(0, |deb| deb.size);
        let largest = (0..self.debs.len()).max_by_key(|at| size(*at));
        let mut order: Vec<usize> = (0..self.debs.len()).collect();
        order.sort_by_key(|at| {
            let rank = (Some(*at) != largest, !first(*at));
            (rank, std::cmp::Reverse(size(*at)))
        });
        let folders: Vec<PathBuf> = order.iter().map(|at| stage.join(at.to_string())).collect();
        for folder in &folders {
            std::fs::create_dir(folder).map_err(|error| {
                Fault::system("make the folder", folder.display().to_string(), error)
            })?;
        }
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    let place = || {
                        let turn = self.next.fetch_add(1, Ordering::Relaxed);
                        order.get(turn).zip(folders.get(turn))
                    };
                    while let Some((at, folder)) = place() {
                        self.unpack_one(*at, folder, filter, order.len());
                        watch(size(*at));
                    }
                });
            }
            let result = meanwhile();
            // After an error nobody wants the rest.
            if result.is_err() {
                self.next.store(order.len(), Ordering::Relaxed);
            }
            result
        })
    }

    fn unpack_one(&self, at: usize, folder: &Path, filter: &PathFilter, turns: usize) {
        let (Some(deb), Some(slot)) = (self.debs.get(at), self.slots.get(at)) else {
            return;
        };
        let result = unpack(deb, folder, filter);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(unpacked) => drop(slot.set(unpacked)),
            Err(fault) => {
                self.next.store(turns, Ordering::Relaxed);
                failure.get_or_insert(fault);
            }
        }
        drop(failure);
        self.changed.notify_all();
    }
}

/// Why the control files of one of `debs` cannot be read, as unpacking says.
pub(super) fn explain(debs: &[DebFile], stage: &Path, filter: &PathFilter) -> Fault {
    for (at, deb) in debs
        .iter()
        .enumerate()
        .filter(|(_, deb)| peek(deb).is_none())
    {
        let folder = stage.join(at.to_string());
        let made = std::fs::create_dir(&folder)
            .map_err(|error| Fault::system("make the folder", folder.display().to_string(), error));
        if let Err(fault) = made.and_then(|()| unpack(deb, &folder, filter).map(drop)) {
            return fault;
        }
    }
    Fault::Talk {
        reason: "a package changed while it was read".into(),
    }
}
