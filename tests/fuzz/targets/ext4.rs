#![no_main]

use consign::inspect::ext4::Ext4;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(volume)) = Ext4::open(fuzz::source(&fuzz::seal::ext4(bytes))) {
        fuzz::volume(&consign::inspect::Volume::Ext4(volume));
    }
});
