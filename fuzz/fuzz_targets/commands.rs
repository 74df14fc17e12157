#![no_main]

candor_fuzz::target!(candor_fuzz::commands, candor_fuzz::command_seeds);
