#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::container(&fuzz::vhdx::expand(bytes), consign::image::ImageFormat::Vhdx);
});
