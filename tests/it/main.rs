//! Integration tests.

mod boot {
    mod runner;
}
mod formats {
    mod descriptor;
    mod fat;
    mod gpt;
    mod sums;
}
mod support;
