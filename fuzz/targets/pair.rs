#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| salve_fuzz::bodies::pair(data));
