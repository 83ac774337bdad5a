//! Layers, judged by GNU tar and by the target's own dpkg.

mod hostile;
mod packages;
mod sandbox;
mod tar;
