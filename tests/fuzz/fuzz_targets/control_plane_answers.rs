#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| blackstart_coordinator::fuzzing::control_plane_answers(bytes));
