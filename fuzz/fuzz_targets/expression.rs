//! Any text as one with expressions, and as a condition.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        runbook_fuzz::expression(text);
    }
});
