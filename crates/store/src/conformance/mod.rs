//! The rules of the ports as suites that any engine can be put through.
//!
//! A suite takes a function that makes a fresh, empty store each time. It panics, with the rule
//! that was broken, if the engine does not keep to the port's contract. Needs a tokio runtime.

mod accounting;
mod erasures;
mod links;
mod log;
mod log_files;
mod objects;
mod records;
mod sequencing;

pub use erasures::check_erasures;
pub use links::check_links;
pub use log::check_log_records;
pub use log_files::check_log_files;
pub use objects::check_objects;
pub use records::check_records;

use candor_wire::{AccountId, ObjectId, VaultId};

use crate::objects::ObjectKey;

/// What a fault of the store is called when a rule did not expect one.
const NO_FAULT: &str = "the engine reports no fault";

fn account(number: u8) -> AccountId {
    AccountId::from_bytes([number; 16])
}

fn vault(number: u8) -> VaultId {
    VaultId::from_bytes([number; 16])
}

fn key(account_number: u8, vault_number: u8, object: ObjectId) -> ObjectKey {
    ObjectKey {
        account: account(account_number),
        vault: vault(vault_number),
        object,
    }
}
