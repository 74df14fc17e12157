#![no_main]

candor_fuzz::target!(
    candor_server::fuzzing::own_files,
    candor_server::fuzzing::own_file_seeds
);
