#![no_main]

candor_fuzz::target!(
    candor_server::fuzzing::requests,
    candor_server::fuzzing::request_seeds
);
