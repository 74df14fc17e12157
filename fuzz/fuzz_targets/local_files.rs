#![no_main]

candor_fuzz::target!(
    candor_vault::fuzzing::local_files,
    candor_testkit::noise::device::local_file_seeds
);
