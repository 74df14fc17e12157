#![no_main]

candor_fuzz::target!(
    candor_testkit::noise::receipts::receipts,
    candor_testkit::noise::receipts::receipt_seeds
);
