#![no_main]

candor_fuzz::target!(
    candor_client::fuzzing::memories,
    candor_client::fuzzing::memory_seeds
);
