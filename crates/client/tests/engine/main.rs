//! The engine against a real cell, in one process: what a person asks for, and what a cell that lies
//! gets for it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod backup;
mod check;
mod consent;
mod erase;
mod expiry;
mod export;
mod false_alarms;
mod forget;
mod histories;
mod hostile;
mod link;
mod log;
mod log_threats;
mod lying_log;
mod memory;
mod re_anchor;
mod revoke;
mod sync;
mod world;
mod writer;
