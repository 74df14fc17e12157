//! The cell's ports to durable storage, and their engines. Only `candor-server` depends on this crate.
//!
//! There are two ports for what people store. [`Objects`] keeps immutable sealed blobs, named by the
//! hash of their bytes. [`Records`] keeps everything that changes, in SQL. Two more are the transparency
//! log's: [`LogRecords`], in the same database, and [`LogFiles`]; [`log`] says how they go together.
//! [`Erasures`], in the same database too, is what people asked to be erased. So is [`Links`], over which new devices join.
//! Each has one conformance suite (feature `conformance`) that every engine passes, the in-memory ones
//! included, so that a cell behaves the same on one small machine and on many.
//!
//! Nothing here opens what it stores, and nothing here reads a clock: times are handed in.
//!
//! # What objects and records promise each other
//!
//! An object that the records call *stored* is on disk. The caller keeps that true by order:
//! [`Records::reserve`], then [`Objects::put`], then [`Records::confirm`], then the reply. Taking an
//! object away goes the other way round: the records first stop answering for it
//! ([`Records::release`], [`Records::releasing`]), then [`Objects::delete`], then
//! [`Records::finish_release`]. Either sequence may be cut anywhere and run again.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod data_map;
mod disk;
pub mod erasures;
#[cfg(feature = "conformance")]
pub mod faulty;
pub mod links;
pub mod log;
mod log_disk;
#[cfg(feature = "conformance")]
pub mod memory;
pub mod objects;
pub mod records;
mod sqlite;
mod store;
mod sys;

pub use disk::DiskObjects;
pub use erasures::Erasures;
pub use links::Links;
pub use log::{LogFiles, LogFilesError, LogRecords};
pub use log_disk::DiskLogFiles;
pub use objects::{
    Fault, ObjectKey, ObjectListing, ObjectReader, Objects, ObjectsError, PutOutcome,
};
pub use records::{
    Account, AccountOpening, AccountState, AppendOutcome, ChainAppend, ChainPage, ChainRow,
    ChainTip, ConfirmOutcome, CreateOutcome, Head, HeadMark, HeadSwap, Invitation, LedgerEntry,
    NonceOutcome, NonceUse, ObjectState, OpenOutcome, Presence, Records, RecordsError, Reservation,
    ReserveOutcome, RootKeyHash, SecretHash, SwapOutcome,
};
pub use sqlite::SqliteRecords;
pub use sqlite::stats::Stats;
pub use store::{Store, StoreError, stats};

use core::pin::Pin;

/// What every operation of a port returns: a future that may run on any thread, boxed so that the
/// ports can be used as trait objects.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
