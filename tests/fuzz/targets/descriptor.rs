#![no_main]

use consign::import::descriptor::{Paths, read};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _read = read(bytes, Paths::Contained);
});
