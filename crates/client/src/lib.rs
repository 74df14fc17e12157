//! The device: its keys, the one place that opens connections and the record of all of them, and the
//! services that a person switched on. Returns plain views; never prints, never reads the environment.
//!
//! May be used by `candor-app` and by tests. Depends on `candor-vault`, `candor-log`, `candor-consent`
//! and `candor-wire`; never on a server's crate.

pub mod account;
pub mod api;
pub mod chain;
pub mod clock;
pub mod commands;
pub mod device_store;
pub mod egress;
pub mod engine;
mod enrol;
pub mod epochs;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod home;
pub mod keystore;
pub mod ledger;
mod log;
pub mod memory;
mod mount;
mod mount_flow;
pub mod path_text;
pub mod phrase;
pub mod receipt;
pub mod sets;
pub mod status;
pub mod sys;

mod backup_flow;
mod bridge;
mod browse_flow;
mod check_flow;
mod consent_flow;
mod drill_flow;
mod durable;
mod erase_flow;
mod events;
mod export_flow;
mod failure;
mod forget_flow;
mod link_flow;
mod re_anchor_flow;
mod receipt_flow;
mod rejoin;
mod restore_flow;
mod revoke_flow;
mod seal_small;
mod sync_flow;
mod sync_follow;
mod sync_watch;
mod vault_access;
mod version_flow;
mod writer_flow;
mod writer_state;

#[cfg(test)]
mod test_support;

pub use api::{Api, ApiError};
pub use browse_flow::check_glob;
pub use candor_vault::prune::MAX_UNUSED_PERCENT;
pub use candor_vault::report::Cancel;
pub use candor_vault::{Entropy, SystemEntropy};
pub use egress::in_process::CellService;
pub use egress::{CellDoor, Egress};
pub use engine::{Engine, EngineConfig, EnrolParams};
pub use keystore::{KeyProtection, KeyStore};
pub use phrase::RecoveryPhrase;
pub use sync_follow::Followed;
