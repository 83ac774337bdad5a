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
pub mod bundle;
mod certificate;
#[cfg(any(feature = "describe", test))]
mod change;
mod date;
#[cfg(any(feature = "describe", test))]
pub mod describe;
mod disk;
mod document;
mod facts;
pub mod hook;
#[cfg(feature = "describe")]
mod json_schema;
mod link;
mod medium;
mod name;
mod nearest;
mod nic_match;
mod nocloud;
mod ovf;
mod policy;
#[cfg(any(feature = "describe", test))]
mod policy_check;
mod problem;
mod proxy;
mod report;
mod role;
mod secret;
mod site;
pub mod template;
mod text;
mod trust;
mod yaml;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod corpus_more;
#[cfg(all(test, feature = "describe"))]
mod judged;

pub use account::{SshKey, User, UserName, base64};
pub use address::{Endpoint, IpNet, MacAddr};
pub use app::{Param, ParamKind, ParamValue};
pub use certificate::Certificate;
#[cfg(any(feature = "describe", test))]
pub use change::{Change, changes};
pub use date::Moment;
pub use disk::{Disk, DiskFileSystem, DiskMatch, DiskUse};
pub use document::{MAX_SIZE, decode};
pub use facts::{DiskFact, Facts, NicFact};
#[cfg(feature = "describe")]
pub use json_schema::json_schema;
pub use link::{Bond, BondMode, Link, Nic, Vlan, VlanParent};
pub use medium::{License, Reporting, SecretEntry, SecretSource};
pub use name::{HostName, Keymap, Locale, TimeZone};
pub use nearest::nearest;
pub use nic_match::NicMatch;
pub use nocloud::{NoCloud, convert_no_cloud};
pub use ovf::convert_ovf;
pub use policy::{Channel, Import, Policy, Property, PropertyKind, Range, SignatureNeed};
#[cfg(any(feature = "describe", test))]
pub use policy_check::check_policy;
pub use problem::{Code, MAX_PROBLEMS, Problem};
pub use proxy::{Proxy, ProxyAddress};
pub use role::{EscapeKind, Role, Template};
pub use secret::Secret;
pub use site::{ConfigId, Dns, Ntp, SCHEMA, SiteConfig, System, check};
pub use text::quoted;
