//! The cell: the HTTP interface, who may do what, and the keys that acknowledge it. Only the program
//! (`candor-app`) and test tools may depend on this crate; it links nothing that decrypts.
//!
//! [`Cell`] is the whole of it. [`Cell::init`] makes one in a directory, [`Cell::open`] opens it,
//! [`Cell::service`] is its interface as a function (for a device in the same process),
//! [`Cell::bind`] and [`Cell::serve`] put the very same interface behind TLS 1.3.
//!
//! What a request goes through before anything is read or written for it stands in the module
//! `gate`, in order. Which requests exist is [`candor_wire::api::ENDPOINTS`] and nothing else.

mod body;
mod cell;
pub mod clock;
mod config;
mod erasures;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gate;
mod handlers;
mod housekeeping;
mod keys;
mod listener;
pub mod log;
mod metrics;
pub mod openapi;
mod pace;
mod random;
mod re_anchor;
mod reply;
mod routes;
mod shared;
mod shares;
mod stall;
mod stats;
mod sys;
#[cfg(test)]
mod tests;
mod tls;
mod transparency;
mod turns;
mod views;
mod waiting;
pub mod witness;
mod work;

pub use cell::{Cell, CellOptions, InitError, InitParams, InviteError, OpenError, log_vkey_of};
pub use config::{CellConfig, ConfigError, Limits, LogSettings};
pub use keys::KeyError;
pub use listener::{Listening, ServeError};
pub use random::NoRandomness;
pub use re_anchor::{BegunAnew, ReAnchorError, begin_log_anew, begin_log_anew_at};
pub use stats::{Stats, StatsError, stats};
pub use tls::TlsError;
