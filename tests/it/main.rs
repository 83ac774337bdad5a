//! Integration tests.

mod boot {
    mod runner;
}
mod formats {
    mod descriptor;
    mod fat;
    mod sums;
}
mod support;
