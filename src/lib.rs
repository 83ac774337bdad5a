//! consign builds a bootable virtual appliance: a partitioned disk assembled
//! from OS and package layers, a descriptor beside it, an agent inside it.
//!
//! The map of rooms, in the order in which a build walks through them:
//!
//! | room | from | to |
//! |---|---|---|
//! | [`appliance`] | `appliance.toml` | a checked [`appliance::Appliance`] |
//! | [`plan`] | the appliance and its lock | a [`plan::BuildPlan`], where decisions end |
//! | [`layer`] | layer specs | content-addressed layers |
//! | [`tree`] | layers | one file tree |
//! | [`boot`] | the tree | the tree that boots, the ESP, the boot code |
//! | [`fs`] | trees | volumes |
//! | [`disk`] | volumes | one partitioned disk |
//! | [`image`] | the disk | image files |
//! | [`descriptor`] | machine facts and images | XML |
//! | [`factory`] | `site.toml` | a verdict, a config disk |
//! | [`inspect`] | a finished image | the disk inside, and what is on it |
//! | [`release`] | the files of a build | sums |
//! | [`import`] | a descriptor and its disks | a guest on this host |
//!
//! Below them the ground floor: [`units`], [`digest`], [`sparse`],
//! [`artifact`], [`report`], [`exec`], [`sign`]. Above them [`pipeline`], the spine, and
//! [`cli`]. Who may use whom is a table checked by a test.

pub mod appliance;
pub mod artifact;
pub mod boot;
pub mod cli;
pub mod descriptor;
pub mod digest;
pub mod disk;
pub mod error;
pub mod exec;
pub mod factory;
pub mod fs;
pub mod image;
pub mod import;
pub mod inspect;
pub mod layer;
pub mod machine;
pub mod pipeline;
pub mod plan;
pub mod release;
pub mod report;
pub mod sign;
pub mod sparse;
pub mod tree;
pub mod units;
