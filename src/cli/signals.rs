//! Ctrl-C and SIGTERM, for work that can take itself back.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown, register_usize};

use crate::error::Error;
use crate::import::ImportError;
use crate::report::{Event, Reporter, Stop};
use crate::units::ExitClass;

/// A reporter that passes on everything, and says when a signal came.
#[derive(Debug)]
pub(super) struct Stoppable<'a> {
    inner: &'a dyn Reporter,
    signal: Arc<AtomicUsize>,
    /// What ends the program at a second signal.
    impatient: Mutex<Vec<SigId>>,
}

/// What stands for SIGINT and SIGTERM in the word that the handler sets.
const INTERRUPTED: usize = 1;
const TERMINATED: usize = 2;

impl<'a> Stoppable<'a> {
    /// From now on a signal does not end the program: whoever works has to
    /// ask. A second one does, until [`Self::commit`].
    pub(super) fn listen(inner: &'a dyn Reporter) -> io::Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        let is_second = Arc::new(AtomicBool::new(false));
        let mut impatient = Vec::new();
        for (number, word, class) in [
            (SIGINT, INTERRUPTED, ExitClass::Interrupted),
            (SIGTERM, TERMINATED, ExitClass::Terminated),
        ] {
            let code = i32::from(class.code());
            // In this order: the first one finds the word not yet set.
            let end = register_conditional_shutdown(number, code, Arc::clone(&is_second))?;
            impatient.push(end);
            register(number, Arc::clone(&is_second))?;
            register_usize(number, Arc::clone(&signal), word)?;
        }
        Ok(Self {
            inner,
            signal,
            impatient: Mutex::new(impatient),
        })
    }

    /// From now on there is something to take back: no signal cuts that short.
    pub(super) fn commit(&self) {
        let mut ids = self
            .impatient
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for id in ids.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }

    /// Goes no further when a signal came.
    pub(super) fn go_on(&self) -> Result<(), Error> {
        self.stop().map_or(Ok(()), |stop| Err(stopped(stop)))
    }

    /// What goes wrong after a signal goes wrong by that: a child gets Ctrl-C
    /// too.
    pub(super) fn reason(&self, error: Error) -> Error {
        let is_told = matches!(
            error.class(),
            ExitClass::Interrupted | ExitClass::Terminated
        );
        match self.stop() {
            Some(stop) if !is_told => stopped(stop),
            _ => error,
        }
    }
}

fn stopped(stop: Stop) -> Error {
    let running = None;
    ImportError::Stopped { stop, running }.into()
}

impl Reporter for Stoppable<'_> {
    fn event(&self, event: Event) {
        self.inner.event(event);
    }

    fn stop(&self) -> Option<Stop> {
        match self.signal.load(Ordering::Relaxed) {
            INTERRUPTED => Some(Stop::Interrupted),
            TERMINATED => Some(Stop::Terminated),
            _ => None,
        }
    }
}
