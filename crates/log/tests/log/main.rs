//! The log's formats and decisions: against naive computations, other implementations, C2SP's own
//! examples, real checkpoints, and everybody who lies.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod sample;
mod stored;

mod checkpoint;
mod erasure_receipt;
mod fork;
mod leaf;
mod monitor;
mod note;
mod policy;
mod proof_file;
mod receipt;
mod receipt_vectors;
mod report;
mod sample_policy;
mod speed;
mod state_map;
mod state_map_vectors;
mod tile;
mod tree;
mod vectors;
mod witness;
