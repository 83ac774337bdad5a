//! Draws events: bars on a terminal, plain lines elsewhere, JSON lines on request.
//!
//! All of it goes to standard error; data goes to standard output.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::exec::escape;
use crate::report::{Event, Outcome, Reporter, Unit};
use crate::units::ByteSize;

/// Version of the JSON lines; the first line carries it.
const PROTOCOL: u32 = 1;
/// A plain line about a running step at most this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// How progress is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Progress {
    /// Bars on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// One line when a step begins and ends.
    Plain,
    /// One JSON object a line.
    Json,
    /// Warnings only.
    None,
}

/// Makes the reporter that `progress` asks for.
#[must_use]
pub(super) fn reporter(progress: Progress, color: bool) -> Box<dyn Reporter> {
    match progress {
        Progress::Auto if io::stderr().is_terminal() => Box::new(Bars::new(color)),
        Progress::Auto | Progress::Plain => Box::new(Plain::new(false)),
        Progress::None => Box::new(Plain::new(true)),
        Progress::Json => Box::new(JsonLines::start()),
    }
}

fn say(line: &str) {
    // A closed standard error must not end a build.
    writeln!(io::stderr(), "{line}").ok();
}

fn warning(message: &str, hint: Option<&str>) -> String {
    let hint = hint
        .map(|hint| format!("\nhint: {hint}"))
        .unwrap_or_default();
    format!("warning: {}{hint}", escape(message))
}

fn finished(step: &str, outcome: Outcome, detail: &str) -> String {
    let word = match outcome {
        Outcome::Done => "done",
        Outcome::Cached => "reused",
    };
    if detail.is_empty() {
        format!("{step}: {word}")
    } else {
        format!("{step}: {word}, {}", escape(detail))
    }
}

fn amount(done: u64, total: Option<u64>, unit: Unit) -> String {
    let show = |n: u64| match unit {
        Unit::Bytes => ByteSize::from_bytes(n).to_string(),
        Unit::Items => n.to_string(),
    };
    match total {
        Some(total) => format!("{} of {}", show(done), show(total)),
        None => show(done),
    }
}

/// Plain lines, for logs.
#[derive(Debug)]
struct Plain {
    quiet: bool,
    spoke: Mutex<BTreeMap<String, Instant>>,
}

impl Plain {
    fn new(quiet: bool) -> Self {
        Self {
            quiet,
            spoke: Mutex::default(),
        }
    }

    fn is_due(&self, step: &str) -> bool {
        let mut spoke = self.spoke.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match spoke.get(step) {
            Some(last) if now.duration_since(*last) < PLAIN_INTERVAL => false,
            Some(_) => {
                spoke.insert(step.to_owned(), now);
                true
            }
            None => {
                spoke.insert(step.to_owned(), now);
                false
            }
        }
    }
}

impl Reporter for Plain {
    fn event(&self, event: Event) {
        match event {
            Event::Warning { message, hint } => say(&warning(&message, hint.as_deref())),
            _ if self.quiet => {}
            Event::StepStarted { step } => {
                self.is_due(&step);
            }
            Event::Progress {
                step,
                done,
                total,
                unit,
            } => {
                if self.is_due(&step) {
                    say(&format!("{step}: {}", amount(done, total, unit)));
                }
            }
            Event::StepFinished {
                step,
                outcome,
                detail,
            } => say(&finished(&step, outcome, &detail)),
        }
    }
}

/// One bar a running step; finished steps stay as lines above.
#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    running: Mutex<BTreeMap<String, ProgressBar>>,
    color: bool,
}

impl Bars {
    fn new(color: bool) -> Self {
        Self {
            all: MultiProgress::new(),
            running: Mutex::default(),
            color,
        }
    }

    fn line(&self, text: &str) {
        // The terminal went away: nothing to draw on, and nothing to do about it.
        self.all.println(text).ok();
    }

    fn bar(&self, step: &str) -> ProgressBar {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = running.entry(step.to_owned()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::no_length());
            let template = if self.color {
                "{spinner:.cyan} {prefix} {msg}"
            } else {
                "{spinner} {prefix} {msg}"
            };
            bar.set_style(
                ProgressStyle::with_template(template).expect("the template is a constant"),
            );
            bar.set_prefix(step.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        bar.clone()
    }
}

impl Reporter for Bars {
    fn event(&self, event: Event) {
        match event {
            Event::StepStarted { step } => drop(self.bar(&step)),
            Event::Progress {
                step,
                done,
                total,
                unit,
            } => {
                let bar = self.bar(&step);
                bar.set_message(draw(done, total, unit));
            }
            Event::StepFinished {
                step,
                outcome,
                detail,
            } => {
                let bar = self
                    .running
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&step);
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                }
                let mark = if self.color {
                    "\u{1b}[32m✓\u{1b}[0m"
                } else {
                    "✓"
                };
                self.line(&format!("{mark} {}", finished(&step, outcome, &detail)));
            }
            Event::Warning { message, hint } => self.line(&warning(&message, hint.as_deref())),
        }
    }
}

/// `[#####.....] 50 MiB of 100 MiB`
fn draw(done: u64, total: Option<u64>, unit: Unit) -> String {
    const WIDTH: u64 = 30;
    let Some(total) = total.filter(|total| *total > 0) else {
        return amount(done, None, unit);
    };
    let filled = u128::from(done.min(total)) * u128::from(WIDTH) / u128::from(total);
    let filled = usize::try_from(filled).expect("at most the width of the bar");
    let rest = usize::try_from(WIDTH).expect("30 fits") - filled;
    format!(
        "[{}{}] {}",
        "#".repeat(filled),
        ".".repeat(rest),
        amount(done, Some(total), unit)
    )
}

/// JSON lines.
#[derive(Debug)]
struct JsonLines;

impl JsonLines {
    fn start() -> Self {
        say(&format!(
            "{{\"protocol\":\"consign-progress\",\"version\":{PROTOCOL}}}"
        ));
        Self
    }
}

impl Reporter for JsonLines {
    fn event(&self, event: Event) {
        say(&serde_json::to_string(&event).expect("events are plain data"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_never_passes_its_end() {
        assert_eq!(
            draw(5, Some(10), Unit::Items),
            format!("[{}{}] 5 of 10", "#".repeat(15), ".".repeat(15))
        );
        assert!(draw(20, Some(10), Unit::Items).starts_with(&format!("[{}]", "#".repeat(30))));
        assert_eq!(draw(1 << 20, None, Unit::Bytes), "1 MiB");
    }

    #[test]
    fn finished_steps_say_how() {
        assert_eq!(
            finished("layer base", Outcome::Cached, "149 packages"),
            "layer base: reused, 149 packages"
        );
        assert_eq!(finished("x", Outcome::Done, ""), "x: done");
    }
}
