//! Integration tests.

mod formats {
    mod descriptor;
    mod sums;
}
mod support;
