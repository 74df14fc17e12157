//! The engines from outside.

#![allow(clippy::unwrap_used, clippy::panic)]

mod agreement;
mod engines;
mod one_machine;
