//! Layers, judged by GNU tar and by the target's own dpkg.

mod cache;
mod faults;
mod foreign;
mod hostile;
mod hostile_deb;
mod hostile_oci;
mod packages;
pub(crate) mod registry;
mod run;
mod sandbox;
mod tar;
mod token;
