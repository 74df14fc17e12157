#![no_main]

candor_fuzz::target!(
    candor_testkit::noise::trees::watches,
    candor_testkit::noise::trees::watch_seeds
);
