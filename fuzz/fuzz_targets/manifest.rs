#![no_main]

candor_fuzz::target!(
    candor_testkit::noise::sealed::manifests,
    candor_testkit::noise::sealed::manifest_seeds
);
