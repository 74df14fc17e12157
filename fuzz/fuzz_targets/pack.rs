#![no_main]

candor_fuzz::target!(
    candor_testkit::noise::sealed::packs,
    candor_testkit::noise::sealed::pack_seeds
);
