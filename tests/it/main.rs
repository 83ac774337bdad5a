//! Integration tests.

mod boot {
    mod runner;
}
mod formats {
    mod appliance;
    mod descriptor;
    mod fat;
    mod gpt;
    mod lock;
    mod plan;
    mod sums;
}
mod support;
