//! Behaviour of chains, errands, heads and invitations, and the vectors of every format.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod bytes;
mod cell;
mod chain;
mod documented;
mod erasure;
mod limits;
mod linking;
mod places;
mod re_anchor;
mod revocation;
mod small;
mod vectors;
