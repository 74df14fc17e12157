#![no_main]

candor_fuzz::target!(candor_client::fuzzing::ledgers, candor_fuzz::ledger_seeds);
