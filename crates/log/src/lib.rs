//! The transparency log: its entries, tiles, proofs, checkpoints and witnesses, and the state map. May be
//! used by `candor-client`, `candor-server` and tests. Depends on `candor-wire` alone.
//!
//! It does no I/O, has no clock and no random source: whoever reads tiles hands them in, whoever
//! publishes takes bytes out. Every format is C2SP's, unchanged, so that anybody's verifier works; the
//! crates that implement part of them stay behind [`note`], [`tree`] and [`tile`]. What is ours is the
//! entry, the state map and the proof of a fork: `docs/formats/log.md`.

mod armor;
pub mod checkpoint;
pub mod erasure_receipt;
pub mod fork;
pub mod leaf;
pub mod monitor;
pub mod note;
pub mod policy;
pub mod proof_file;
pub mod receipt;
pub mod report;
pub mod state_map;
pub mod tile;
pub mod tree;
pub mod witness;
