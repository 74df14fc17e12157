#![no_main]

candor_fuzz::target!(
    candor_testkit::noise::signed::signatures,
    candor_testkit::noise::signed::signature_seeds
);
