#![no_main]

candor_fuzz::target!(
    candor_testkit::noise::trees::state_map,
    candor_testkit::noise::trees::state_map_seeds
);
