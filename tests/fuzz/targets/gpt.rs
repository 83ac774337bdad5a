#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _table = consign::inspect::gpt::read(&*fuzz::source(&fuzz::seal::gpt(bytes)));
});
