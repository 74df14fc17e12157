#![no_main]

candor_fuzz::target!(
    candor_testkit::noise::records::trees,
    candor_testkit::noise::records::tree_seeds
);
