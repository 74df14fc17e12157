#![no_main]

candor_fuzz::target!(
    candor_testkit::noise::sealed::index_objects,
    candor_testkit::noise::sealed::index_object_seeds
);
