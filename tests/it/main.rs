//! Integration tests.

mod formats {
    mod descriptor;
    mod fat;
    mod sums;
}
mod support;
