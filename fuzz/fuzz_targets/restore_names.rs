#![no_main]

candor_fuzz::target!(
    candor_testkit::noise::records::names,
    candor_testkit::noise::records::name_seeds
);
