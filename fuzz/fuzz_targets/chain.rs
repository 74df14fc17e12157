#![no_main]

candor_fuzz::target!(
    candor_testkit::noise::chain::chains,
    candor_testkit::noise::chain::chain_seeds
);
