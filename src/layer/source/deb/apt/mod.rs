//! The host's apt: its settings and its sources.
//!
//! In: the text of `apt-config dump`, of `sources.list` and of `*.sources`.
//! Out: [`AptSettings`] and [`SourceEntry`]s. Reading the files is one function each, so that the
//! parsing is tested on text.
//!
//! Source: apt.conf(5), sources.list(5) of apt 2.6.

mod settings;
mod sources;

pub use settings::{AptSettings, HostEnvironment, read_settings};
pub use sources::{SourceEntry, Trust, read_sources};
