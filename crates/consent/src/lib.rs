//! Consent as values that nothing can forge. Tiny by design: this is the crate to read when asking
//! "what can make this program send something?".
//!
//! May be used by every crate above it; depends on `candor-wire` alone. It does no I/O and has no
//! clock: the chain's view, the time and the keys are handed in.
//!
//! There are two authorities, and no third:
//!
//! * a [`Grant`] says that a person switched a service on, for one device and vault at one cell. It
//!   is made by [`grant`] alone, out of a chain that was checked entry by entry and a consent that
//!   the cell acknowledged, that was not withdrawn and is not over.
//! * an [`Errand`] says that a person just asked for one thing. It is made by [`errand`] alone, out
//!   of a signed token, and reaches only the endpoints of its purpose.
//!
//! Their fields are private, they cannot be copied out of thin air, and [`Authority`] is sealed, so
//! whoever demands one (the device's egress does, for every connection) gets what this crate checked.

mod authority;
mod notice;

pub use authority::{
    Authority, Backup, Errand, Grant, Messages, Recovery, Refusal, Relay, Service, Sync, admit,
    errand, grant,
};
pub use notice::{Notice, NoticeBlanks, Proposal, notice, propose};
