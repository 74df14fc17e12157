//! Sealed, deduplicated, versioned trees of files: everything between a person's folders and the
//! opaque objects that a cell keeps. Only `client` may depend on this crate; it depends on `wire`.
//!
//! It opens no sockets. What it needs of a cell is two small traits, [`ObjectSink`] and
//! [`ObjectSource`], which `client` implements over the API. It owns the device's local index
//! (SQLite) and reads and writes the person's files. Every byte that comes back from a source is
//! hostile until its hash, its commitment, its tags and its chunk id have been checked.
//!
//! The formats are specified in `docs/formats/vault.md`; vectors are under `vectors/`.

mod bloom;
pub mod chunk;
pub mod entropy;
pub mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod index;
pub mod index_object;
pub mod keys;
pub mod manifest;
mod merge;
pub mod pack;
mod pipeline;
mod pool;
pub mod ports;
pub mod random;
pub mod reader;
pub mod repository;
pub mod runs;
pub mod seal;
pub mod secret;
pub mod writer;

pub use chunk::ChunkId;
pub use entropy::{Entropy, SystemEntropy};
pub use index::{Index, IndexError, Place};
pub use keys::{EpochKey, KeysError, VaultKeys};
pub use manifest::{Manifest, ManifestError, SnapshotEntry, SnapshotId, SnapshotStats};
pub use pack::Stream;
pub use ports::{ObjectSink, ObjectSource, Presence, SinkError, SourceError};
pub use random::RandomReader;
pub use reader::{OpenPack, ReadError, Reader};
pub use repository::{Repository, RepositoryError, Staged};
pub use writer::{Content, WriteError, Writer, Written};

pub mod backup;
pub mod browse;
pub mod check;
pub mod keep;
pub mod name;
pub mod node;
pub mod prune;
pub mod repair;
pub mod report;
pub mod restore;
pub mod rules;
mod seen;
pub mod stat_cache;
pub mod sync;
mod sys;
pub mod tree;

#[cfg(test)]
mod tests;
