#![no_main]

#[path = "../src/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the other targets")]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::journal(data));
