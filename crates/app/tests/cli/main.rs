//! The real program, run as people run it.
#![cfg(feature = "device")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs
)]

mod export;
mod failing;
mod help;
mod log;
mod pages;
mod person;
mod receipts;
mod running;
mod separate;
mod starting;
mod stopping;
mod syncing;
mod witness;
