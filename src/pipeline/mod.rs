//! The spine: one function, one line per step of a build.

pub mod agent;
