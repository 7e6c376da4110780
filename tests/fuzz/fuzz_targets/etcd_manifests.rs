#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| blackstart_agent::fuzzing::etcd_manifests(bytes));
