#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quicsand_tests::fuzz::run("values", bytes));
