#![no_main]

candor_fuzz::target!(
    candor_client::fuzzing::key_stores,
    candor_client::fuzzing::key_store_seeds
);
