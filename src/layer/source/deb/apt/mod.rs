//! The host's apt: its settings and its sources.
//!
//! In: the text of `apt-config dump`, of `sources.list` and of `*.sources`.
//! Out: [`AptSettings`] and [`SourceEntry`]s. Reading the files is one function each, so that the
//! parsing is tested on text.
//!
//! Source: apt.conf(5), sources.list(5) of apt 2.6.

mod settings;
mod sources;

pub use settings::{AptSettings, HostEnvironment, ValidTime, read_settings};
pub use sources::{SourceEntry, Trust, read_sources};

/// Both styles, for tests.
#[cfg(test)]
pub(super) fn parse_text(text: &str) -> usize {
    let path = std::path::Path::new("x");
    [
        sources::parse_list(text, path),
        sources::parse_deb822(text, path),
    ]
    .into_iter()
    .flatten()
    .map(|entries| entries.len())
    .sum()
}
