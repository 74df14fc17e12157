//! What tests share: sample accounts, canaries, and the hostile cell. A dev-dependency of other
//! crates, and part of no program.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[cfg(feature = "hostile")]
pub mod hostile;
pub mod memory;
#[cfg(feature = "noise")]
pub mod noise;
pub mod sample;
