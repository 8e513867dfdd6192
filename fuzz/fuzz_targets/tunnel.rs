//! What libFuzzer runs: see `fuzz/README.md`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    norn::fuzz::tunnel(input);
});
