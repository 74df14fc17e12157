//! A cell as the vault sees it: somewhere to put sealed objects and somewhere to get them from.
//!
//! The vault works on ordinary threads and waits; the API is asynchronous. This is the seam. Every
//! byte goes through one [`Api`], which was opened with a grant or an errand.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use candor_vault::report::Cancel;
use candor_vault::{ObjectSink, ObjectSource, Presence, SinkError, SourceError};
use candor_wire::api::ErrorCode;
use candor_wire::limits::OBJECT_MAX_BYTES;
use candor_wire::{AccountId, ObjectId, VaultId};
use tokio::runtime::Handle;

use crate::api::{Api, ApiError};

/// One vault at the cell, for as long as one command lasts. The connection may serve several.
///
/// Its methods block: they must not be called from an asynchronous task.
pub(crate) struct CellObjects {
    api: Arc<Api>,
    runtime: Handle,
    account: AccountId,
    vault: VaultId,
    cancel: Cancel,
    moved_bytes: AtomicU64,
}

impl CellObjects {
    /// Puts together what a run needs. `cancel` stops puts and gets that have not begun.
    pub(crate) fn new(
        api: Arc<Api>,
        runtime: Handle,
        account: AccountId,
        vault: VaultId,
        cancel: Cancel,
    ) -> Self {
        Self {
            api,
            runtime,
            account,
            vault,
            cancel,
            moved_bytes: AtomicU64::new(0),
        }
    }

    /// The same connection, for what is not about objects.
    pub(crate) fn api(&self) -> &Arc<Api> {
        &self.api
    }

    /// Bytes of objects that went to the cell or came from it.
    pub(crate) fn moved_bytes(&self) -> u64 {
        self.moved_bytes.load(Ordering::Relaxed)
    }

    fn moved(&self, bytes: usize) {
        self.moved_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn source_fault(object: ObjectId, error: ApiError) -> SourceError {
        match error {
            ApiError::Refused {
                code: ErrorCode::NotFound,
                ..
            } => SourceError::Missing { object },
            other if is_transient(&other) => SourceError::Unreachable(Box::new(other)),
            other => SourceError::Refused(Box::new(other)),
        }
    }

    /// Whether the command was stopped: nothing more may be sent for it.
    pub(crate) fn is_stopped(&self) -> bool {
        self.cancel.is_cancelled()
    }

    fn may_go_on(&self) -> Result<(), SourceError> {
        if self.is_stopped() {
            Err(SourceError::Refused(Box::new(Stopped)))
        } else {
            Ok(())
        }
    }
}

/// Whether the same request may succeed later without anybody changing anything.
pub(crate) fn is_transient(error: &ApiError) -> bool {
    let busy = matches!(
        error,
        ApiError::Refused {
            code: ErrorCode::Busy | ErrorCode::Internal,
            ..
        }
    );
    busy || matches!(error, ApiError::Unreachable { .. })
}

/// The person stopped the command while an object was about to be fetched.
#[derive(Debug, thiserror::Error)]
#[error("the command was stopped")]
pub(crate) struct Stopped;

impl ObjectSink for CellObjects {
    fn put(&self, object: ObjectId, bytes: Bytes) -> Result<(), SinkError> {
        if self.is_stopped() {
            return Err(SinkError::Stopped);
        }
        let length = bytes.len();
        match self
            .runtime
            .block_on(self.api.put_object(self.account, self.vault, object, bytes))
        {
            Ok(()) => {
                self.moved(length);
                Ok(())
            }
            Err(
                error @ ApiError::Refused {
                    code: ErrorCode::OverQuota | ErrorCode::CellFull,
                    ..
                },
            ) => Err(SinkError::Full(Box::new(error))),
            Err(error) if is_transient(&error) => Err(SinkError::Unreachable(Box::new(error))),
            Err(error) => Err(SinkError::Refused(Box::new(error))),
        }
    }
}

impl ObjectSource for CellObjects {
    fn get(&self, object: ObjectId) -> Result<Bytes, SourceError> {
        // The vault checks the name of every whole object itself, and must see what is wrong with
        // it; the API's own check would read every byte a second time and hide it. A range that
        // goes beyond the object means all of it.
        self.get_range(object, 0..OBJECT_MAX_BYTES as u64)
    }

    fn get_range(&self, object: ObjectId, range: Range<u64>) -> Result<Bytes, SourceError> {
        self.may_go_on()?;
        let bytes = self
            .runtime
            .block_on(self.api.get_range(self.account, self.vault, object, range))
            .map_err(|error| Self::source_fault(object, error))?;
        self.moved(bytes.len());
        Ok(bytes)
    }

    fn has(&self, objects: &[ObjectId]) -> Result<Vec<Presence>, SourceError> {
        self.may_go_on()?;
        let none = ObjectId::from_bytes([0; ObjectId::BYTES]);
        let asked_first = objects.first().copied().unwrap_or(none);
        self.runtime
            .block_on(self.api.has_objects(self.account, self.vault, objects))
            .map_err(|error| Self::source_fault(asked_first, error))
    }

    fn list(&self, after: Option<ObjectId>) -> Result<Vec<(ObjectId, u64)>, SourceError> {
        self.may_go_on()?;
        let asked = after.unwrap_or(ObjectId::from_bytes([0; ObjectId::BYTES]));
        let listing = self.api.list_objects(self.account, self.vault, after);
        let page = self
            .runtime
            .block_on(listing)
            .map_err(|error| Self::source_fault(asked, error))?;
        let objects = page.objects.into_iter();
        Ok(objects.map(|one| (one.object, one.bytes)).collect())
    }
}
