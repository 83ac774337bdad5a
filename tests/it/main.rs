//! Integration tests.

mod architecture;
mod boot {
    mod buses;
    mod config;
    mod esp;
    mod full;
    mod killed;
    mod loader;
    mod powercut;
    mod runner;
    mod vendor;
}
mod cli {
    mod appliance;
    pub(crate) mod bad_input;
    mod boot;
    mod bundle;
    mod cache;
    mod config_disk;
    mod sources;
}
mod formats {
    mod appliance;
    mod containers;
    pub(crate) mod deb;
    mod descriptor;
    mod ext4;
    mod fat;
    mod foreign;
    mod fuzzing;
    mod gpt;
    mod hostile_disks;
    mod hostile_ext4;
    mod hostile_tables;
    mod image;
    mod import_text;
    pub(crate) mod inspect;
    mod iso;
    mod lock;
    mod ova;
    mod plan;
    mod sums;
    mod surroundings;
}
mod image {
    mod clean;
    mod killed;
    mod reproducible;
    mod rootless;
}
mod import;
mod layer;
mod release;
mod support;
