#![no_main]

candor_fuzz::target!(
    candor_vault::fuzzing::walks,
    candor_testkit::noise::device::walk_seeds
);
