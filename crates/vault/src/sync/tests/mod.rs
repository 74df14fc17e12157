//! Tests of the merge: the decision alone, whole histories in memory, and folders on disk.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap
)]

mod deciding;
mod disk;
mod simulation;
mod world;
