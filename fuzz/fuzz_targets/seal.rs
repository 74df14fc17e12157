#![no_main]

candor_fuzz::target!(
    candor_testkit::noise::sealed::seals,
    candor_testkit::noise::sealed::seal_seeds
);
