//! What the library tells whoever watches: events, never drawings.
//!
//! In: facts from the rooms. Out: [`Event`]s to a [`Reporter`]. Never here:
//! terminals, colours, printing.

use std::fmt;
use std::sync::Mutex;

use crate::units::ByteSize;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// A step began. `step` is stable (`resolve`, `fetch`, `layer base`).
    StepStarted {
        /// The step's stable name.
        step: String,
    },
    /// A step got further. Units are bytes unless `unit` says otherwise.
    Progress {
        /// The step's stable name.
        step: String,
        /// Done so far.
        done: u64,
        /// Expected in the end, when known.
        total: Option<u64>,
        /// What is counted.
        unit: Unit,
    },
    /// A step ended well.
    StepFinished {
        /// The step's stable name.
        step: String,
        /// How it came to its result.
        outcome: Outcome,
        /// One clause about the result or the reason, for people.
        detail: String,
    },
    /// Something a person should know that does not stop the build.
    Warning {
        /// One lowercase clause.
        message: String,
        /// What to do about it, as one imperative sentence.
        hint: Option<String>,
    },
}

/// What [`Event::Progress`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things: packages, files.
    Items,
}

/// How a step came to its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The work was done.
    Done,
    /// An earlier result was found and checked.
    Cached,
}

/// Takes events.
pub trait Reporter: fmt::Debug + Send + Sync {
    /// Takes one event. It must not fail and must not block for long.
    fn event(&self, event: Event);

    /// Whether somebody asked for an end. Work that can be taken back looks
    /// here between its steps, and takes itself back.
    fn stop(&self) -> Option<Stop> {
        None
    }
}

/// How somebody asked for an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Ctrl-C: SIGINT.
    Interrupted,
    /// SIGTERM.
    Terminated,
}

impl dyn Reporter + '_ {
    /// Says that `step` began.
    pub fn started(&self, step: &str) {
        self.event(Event::StepStarted {
            step: step.to_owned(),
        });
    }

    /// Says how many bytes of `step` are done.
    pub fn bytes(&self, step: &str, done: ByteSize, total: Option<ByteSize>) {
        self.event(Event::Progress {
            step: step.to_owned(),
            done: done.bytes(),
            total: total.map(ByteSize::bytes),
            unit: Unit::Bytes,
        });
    }

    /// Says how many things of `step` are done.
    pub fn items(&self, step: &str, done: u64, total: Option<u64>) {
        self.event(Event::Progress {
            step: step.to_owned(),
            done,
            total,
            unit: Unit::Items,
        });
    }

    /// Says that `step` ended well, and with what.
    pub fn finished(&self, step: &str, outcome: Outcome, detail: impl Into<String>) {
        self.event(Event::StepFinished {
            step: step.to_owned(),
            outcome,
            detail: detail.into(),
        });
    }

    /// Says something that does not stop the build.
    pub fn warn(&self, message: impl Into<String>, hint: Option<&str>) {
        self.event(Event::Warning {
            message: message.into(),
            hint: hint.map(str::to_owned),
        });
    }
}

/// Forgets every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _event: Event) {}
}

/// Keeps every event, for tests.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Vec<Event>>);

impl Recorder {
    /// All events so far, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}

impl Reporter for Recorder {
    fn event(&self, event: Event) {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(event);
    }
}
