#![no_main]

candor_fuzz::target!(
    candor_testkit::noise::wire::types,
    candor_testkit::noise::wire::type_seeds
);
