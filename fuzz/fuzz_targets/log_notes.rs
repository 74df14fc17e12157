#![no_main]

candor_fuzz::target!(
    candor_testkit::noise::notes::notes,
    candor_testkit::noise::notes::note_seeds
);
