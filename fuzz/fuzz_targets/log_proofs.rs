#![no_main]

candor_fuzz::target!(
    candor_testkit::noise::trees::proofs,
    candor_testkit::noise::trees::proof_seeds
);
