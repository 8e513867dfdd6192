#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    norn::fuzz::protocol(input);
});
