//! The port for objects: immutable, sealed, named by the BLAKE3 hash of their bytes.

use core::fmt;
use core::ops::Range;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use candor_wire::{AccountId, ObjectId, VaultId};
use futures_core::Stream;

use crate::Pending;

/// Largest piece in which an object is read, in bytes. Large enough that the cost of a piece is the
/// copy and not the hand-over between threads; small enough that many readers fit in memory, two pieces each, and that
/// encrypting one keeps nobody waiting.
pub const CHUNK_MAX_BYTES: usize = 256 * 1024;

/// Where an object lives. The same bytes in two vaults are two objects: nothing is shared between
/// accounts, so that nobody can ask whether somebody else has a given object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The account that pays for it.
    pub account: AccountId,
    /// The vault it belongs to.
    pub vault: VaultId,
    /// Its name.
    pub object: ObjectId,
}

/// What a put did. Both mean that the object is durable now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The bytes were written.
    Stored,
    /// An object of that name was there already; it was not touched.
    AlreadyThere,
}

/// One object of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectListing {
    /// Its name.
    pub object: ObjectId,
    /// Its size in bytes.
    pub size: u64,
}

/// Why an operation on objects failed. Cheap to clone, so that one fault can be reported to all
/// requests that it hit.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ObjectsError {
    /// There is no such object.
    #[error("object {0} is not in the store")]
    NotFound(ObjectId),
    /// The range does not lie within the object.
    #[error("bytes {start}..{end} do not lie within the {size} bytes of object {object}")]
    RangeOutside {
        /// The object.
        object: ObjectId,
        /// First byte asked for.
        start: u64,
        /// The byte after the last one asked for.
        end: u64,
        /// The size of the object in bytes.
        size: u64,
    },
    /// The disk, or the quota that the operating system gives the cell, is used up. Nothing was kept.
    #[error("the disk of the object store is full")]
    Full(#[source] Fault),
    /// The storage below failed. Whether a put or delete took effect is unknown: try it again.
    #[error("the object store could not {action}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What the storage said.
        #[source]
        source: Fault,
    },
}

/// A fault of an engine, shared between the requests that it hit.
pub type Fault = Arc<dyn core::error::Error + Send + Sync + 'static>;

/// The bytes of an object, or of a range of it, in order, in pieces of at most [`CHUNK_MAX_BYTES`].
///
/// Holds at most two pieces in memory. A stream that ends without an error has given exactly
/// [`size`](Self::size) bytes. The bytes are as the disk returned them: who needs certainty hashes them.
pub struct ObjectReader {
    size: u64,
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes, ObjectsError>> + Send>>,
}

impl ObjectReader {
    /// For engines: a reader over `chunks`, which give exactly `size` bytes or an error.
    pub fn new(
        size: u64,
        chunks: impl Stream<Item = Result<Bytes, ObjectsError>> + Send + 'static,
    ) -> Self {
        Self {
            size,
            chunks: Box::pin(chunks),
        }
    }

    /// How many bytes the whole stream gives.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next piece; `None` at the end.
    pub async fn next_chunk(&mut self) -> Option<Result<Bytes, ObjectsError>> {
        core::future::poll_fn(|cx| self.chunks.as_mut().poll_next(cx)).await
    }

    /// All the rest in one piece of memory. For callers that have bounded the size.
    pub async fn read_to_end(mut self) -> Result<Bytes, ObjectsError> {
        let Some(first) = self.next_chunk().await.transpose()? else {
            return Ok(Bytes::new());
        };
        if first.len() as u64 == self.size {
            return Ok(first);
        }
        let mut whole = BytesMut::with_capacity(usize::try_from(self.size).unwrap_or(first.len()));
        whole.extend_from_slice(&first);
        while let Some(chunk) = self.next_chunk().await.transpose()? {
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }
}

impl fmt::Debug for ObjectReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectReader")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Stream for ObjectReader {
    type Item = Result<Bytes, ObjectsError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.as_mut().poll_next(cx)
    }
}

/// A store of objects.
///
/// An object never changes: a name that is taken stays with its bytes. The caller has checked that
/// the name is the hash of the bytes; an engine does not check it again. Every operation may be
/// repeated, and a dropped future may or may not have taken effect.
pub trait Objects: Send + Sync + 'static {
    /// Keeps the concatenation of `body` under `key`. When this returns, the bytes and the entry
    /// that leads to them survive a loss of power. Never overwrites; never leaves part of an object
    /// under its name.
    ///
    /// # Errors
    /// [`ObjectsError::Full`] and [`ObjectsError::Io`].
    fn put(
        &self,
        key: ObjectKey,
        body: Vec<Bytes>,
    ) -> Pending<'_, Result<PutOutcome, ObjectsError>>;

    /// Reads the object, or the bytes of `range` (start included, end excluded). An empty range is
    /// fine if it lies within the object.
    ///
    /// # Errors
    /// [`ObjectsError::NotFound`], [`ObjectsError::RangeOutside`] and [`ObjectsError::Io`].
    fn get(
        &self,
        key: ObjectKey,
        range: Option<Range<u64>>,
    ) -> Pending<'_, Result<ObjectReader, ObjectsError>>;

    /// The size of the object in bytes, or `None` if there is no such object.
    ///
    /// # Errors
    /// [`ObjectsError::Io`].
    fn head(&self, key: ObjectKey) -> Pending<'_, Result<Option<u64>, ObjectsError>>;

    /// Removes the object, if it is there. When this returns, it does not come back after a loss of power.
    ///
    /// # Errors
    /// [`ObjectsError::Io`].
    fn delete(&self, key: ObjectKey) -> Pending<'_, Result<(), ObjectsError>>;

    /// Removes every object of a vault, or of a whole account (`None`), with what unfinished writes left and the
    /// directories themselves. When this returns, none of it comes back after a loss of power. Nothing may be put
    /// there meanwhile.
    ///
    /// # Errors
    /// [`ObjectsError::Io`].
    fn erase(
        &self,
        account: AccountId,
        vault: Option<VaultId>,
    ) -> Pending<'_, Result<(), ObjectsError>>;

    /// Up to `limit` objects of a vault whose names come after `after`, in the order of their
    /// names. Fewer than `limit` means that there are no more. What is put or deleted meanwhile may
    /// or may not be in it.
    ///
    /// # Errors
    /// [`ObjectsError::Io`].
    fn list(
        &self,
        account: AccountId,
        vault: VaultId,
        after: Option<ObjectId>,
        limit: usize,
    ) -> Pending<'_, Result<Vec<ObjectListing>, ObjectsError>>;
}
