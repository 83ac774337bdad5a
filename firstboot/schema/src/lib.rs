//! The site configuration of an appliance and its rules: what a customer
//! writes into `site.toml`, which roles an image offers, and what its vendor
//! lets a site decide.
//!
//! In: text. Out: a [`SiteConfig`], a [`Role`] or a [`Policy`], or every
//! [`Problem`] of the text at once, each with its line, its column and a
//! remedy. Builder and agent share this crate, so what passes at the vendor
//! passes on site.
//!
//! Never here: files, clocks, networks, the machine. What only the machine
//! can know (does the time zone exist in this image?) is checked by the
//! agent, which reports it as a [`Problem`] too. No value of a string is ever
//! quoted in a problem: a password pasted into the wrong field must not reach
//! a console or a journal.
//!
//! Checked by: the tables of wrong configurations beside each module and in
//! `src/corpus.rs`.

mod account;
mod address;
mod app;
mod document;
mod name;
mod nearest;
mod policy;
mod problem;
mod report;
mod role;
mod secret;
mod site;

#[cfg(test)]
mod corpus;

pub use account::{SshKey, User, UserName};
pub use address::{Endpoint, IpNet, MacAddr, Nic, NicMatch};
pub use app::{Param, ParamKind, ParamValue};
pub use document::{MAX_SIZE, decode};
pub use name::{HostName, Locale, TimeZone};
pub use policy::Policy;
pub use problem::{Code, MAX_PROBLEMS, Problem};
pub use role::{EscapeKind, Role, Template};
pub use secret::Secret;
pub use site::{ConfigId, Dns, Ntp, SCHEMA, SiteConfig, System, check};
