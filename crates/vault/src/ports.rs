//! What the vault needs of a cell: somewhere to put sealed objects, and somewhere to get them from.
//!
//! `client` implements both over the API. Everything that an [`ObjectSource`] returns is hostile
//! input: the vault checks the name (the hash of the ciphertext), the commitment, the tags and the
//! content ids itself.

use std::error::Error;
use std::ops::Range;

use bytes::Bytes;
use candor_wire::ObjectId;

use crate::writer::UPLOADS_IN_FLIGHT;

/// What went wrong underneath, for a person's log; never part of an error's own sentence.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Why an object was not stored.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The cell did not answer, or the connection was lost. Worth trying again later.
    #[error("the cell could not be reached")]
    Unreachable(#[source] Cause),
    /// The cell has no room for this vault, or its disk is full.
    #[error("the cell has no room for more objects")]
    Full(#[source] Cause),
    /// The cell refused the object: no live grant, a revoked device, a bad name.
    #[error("the cell refused the object")]
    Refused(#[source] Cause),
    /// The person stopped the run.
    #[error("the run was stopped")]
    Stopped,
}

/// Why an object could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The cell says that it has no such object.
    #[error("the cell does not have object {object}")]
    Missing {
        /// The object that was asked for.
        object: ObjectId,
    },
    /// The cell did not answer, or the connection was lost. Worth trying again later.
    #[error("the cell could not be reached")]
    Unreachable(#[source] Cause),
    /// The cell refused to answer.
    #[error("the cell refused to send the object")]
    Refused(#[source] Cause),
}

/// Somewhere to put objects.
pub trait ObjectSink: Send + Sync {
    /// Stores one object under its name, and returns when the cell has acknowledged that it is
    /// durable. Storing the same object again succeeds and changes nothing. Called from up to
    /// [`crate::writer::UPLOADS_IN_FLIGHT`] threads at once; retries of lost connections are the
    /// implementation's.
    fn put(&self, object: ObjectId, bytes: Bytes) -> Result<(), SinkError>;

    /// How many threads a run may call [`ObjectSink::put`] from at once: at least 1, and at most
    /// [`crate::writer::UPLOADS_IN_FLIGHT`]. With one, a run's puts come in one order.
    fn puts_at_once(&self) -> usize {
        UPLOADS_IN_FLIGHT
    }
}

/// Whether the cell has an object, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It does not.
    Absent,
    /// It does.
    Stored,
    /// It does, and will delete it, because a head said that nobody needs it.
    Condemned,
}

/// Somewhere to get objects from. The caller checks all that comes back.
pub trait ObjectSource: Send + Sync {
    /// The whole object. The implementation must not return more than
    /// [`candor_wire::limits::OBJECT_MAX_BYTES`]. Bytes that nobody else holds are opened in place,
    /// without a copy.
    fn get(&self, object: ObjectId) -> Result<Bytes, SourceError>;

    /// A range of the object's bytes. Fewer bytes than asked for mean that the object ends there.
    fn get_range(&self, object: ObjectId, range: Range<u64>) -> Result<Bytes, SourceError>;

    /// Which of these objects the cell has: one answer per name, in order.
    fn has(&self, objects: &[ObjectId]) -> Result<Vec<Presence>, SourceError>;

    /// The vault's objects that the cell has, with their sizes in bytes: those whose names come after `after`,
    /// ascending, as many as fit one answer. None means that there are no more.
    fn list(&self, after: Option<ObjectId>) -> Result<Vec<(ObjectId, u64)>, SourceError>;
}
