#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _is_sound = fuzz::openpgp::judge(bytes);
});
