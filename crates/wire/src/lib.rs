//! Names, canonical encodings, signed statements and API types of Candor. No I/O, no clock, no random source.
//!
//! Every other crate may depend on this one; it depends on none of them. What is here is what two
//! parties must agree on byte for byte: the layout is written down in `docs/formats/`, and every
//! type has accepted and rejected vectors under `vectors/`.

pub mod api;
pub mod cbor;
pub mod cell;
pub mod chain;
mod checked_text;
pub mod consent_record;
pub mod epoch;
pub mod erasure;
pub mod errand;
pub mod head;
pub mod ids;
pub mod limits;
pub mod linking;
pub mod re_anchor;
pub mod request;
pub mod revocation;
pub mod sign;
pub mod statement;
pub mod time;

pub use ids::{AccountId, CellId, DeviceId, ObjectId, StatementId, VaultId};
pub use time::{Millis, Nanos};
