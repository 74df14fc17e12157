#![no_main]

candor_fuzz::target!(
    candor_client::fuzzing::texts,
    candor_testkit::noise::device::typed_seeds
);
