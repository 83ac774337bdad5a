//! Ctrl-C and SIGTERM, for work that can take itself back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::register_usize;

use crate::report::{Event, Reporter, Stop};

/// A reporter that passes on everything, and says when a signal came.
#[derive(Debug)]
pub(super) struct Stoppable<'a> {
    inner: &'a dyn Reporter,
    signal: Arc<AtomicUsize>,
}

/// What stands for SIGINT and SIGTERM in the word that the handler sets.
const INTERRUPTED: usize = 1;
const TERMINATED: usize = 2;

impl<'a> Stoppable<'a> {
    /// From now on signals do not end the program: whoever works has to ask.
    pub(super) fn listen(inner: &'a dyn Reporter) -> io::Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        register_usize(SIGINT, Arc::clone(&signal), INTERRUPTED)?;
        register_usize(SIGTERM, Arc::clone(&signal), TERMINATED)?;
        Ok(Self { inner, signal })
    }
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
