#![no_main]

candor_fuzz::target!(
    candor_client::fuzzing::epoch_records,
    candor_testkit::noise::device::epoch_seeds
);
