//! The cell as its callers meet it: a real router over a real store, requests signed like a device's.
#![allow(clippy::unwrap_used, clippy::panic)]

mod accounts;
mod cell_bench;
mod erasures;
mod faults;
mod hostile;
mod links;
mod listening;
mod log_bench;
mod matrix;
mod objects;
mod refusals;
mod requests;
mod resources;
mod restores;
mod revocations;
mod transparency;
mod waiting;
mod witness;
mod witnesses;
mod world;
mod writer;
