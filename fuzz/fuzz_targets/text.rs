#![no_main]

candor_fuzz::target!(
    candor_testkit::noise::wire::texts,
    candor_testkit::noise::wire::text_seeds
);
