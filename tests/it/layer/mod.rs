//! Layers, judged by GNU tar and by the target's own dpkg.

mod faults;
mod hostile;
mod hostile_deb;
mod packages;
mod sandbox;
mod tar;
