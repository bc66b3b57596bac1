#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(target) = selvedge::fuzz::target("dns") {
        (target.run)(data);
    }
});
