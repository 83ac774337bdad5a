#![no_main]

use consign::inspect::fat::Fat;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(volume)) = Fat::open(fuzz::source(bytes)) {
        fuzz::volume(&consign::inspect::Volume::Fat(volume));
    }
});
