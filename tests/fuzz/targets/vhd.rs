#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::container(&fuzz::seal::vhd(bytes), consign::image::ImageFormat::Vhd);
});
