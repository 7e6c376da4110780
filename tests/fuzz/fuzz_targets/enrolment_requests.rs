#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| blackstart_coordinator::fuzzing::enrolment_requests(bytes));
