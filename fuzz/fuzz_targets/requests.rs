#![no_main]

candor_fuzz::target!(
    candor_testkit::noise::signed::requests,
    candor_testkit::noise::signed::request_seeds
);
