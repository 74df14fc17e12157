//! The port for erasures: what people asked to be erased, and how far it got.
//!
//! An erasure waits until it is due, begins, and is done. Each step may be cut anywhere and run again:
//!
//! 1. *Asked*, in the same commit as the statement on the chain; until it begins it can be cancelled by another
//!    statement ([`ErasureChange`]).
//! 2. *Begun* ([`Erasures::begin`]): what there is is counted, and it can no longer be cancelled.
//! 3. Its objects are let go ([`Erasures::let_objects_go`]), taken away like every released object, and what is
//!    left of their directories is removed ([`crate::Objects::erase`]).
//! 4. Its rows go ([`Erasures::erase_rows`]), and nothing of them stays in any file of the database
//!    ([`Erasures::settle`]).
//! 5. *Done* ([`Erasures::finish`]): the signed receipt is kept, and its entry waits for the log.

use bytes::Bytes;
use candor_wire::{AccountId, Millis, StatementId, VaultId};

use crate::Pending;
use crate::log::LogEntry;
use crate::records::RecordsError;

/// A wish to erase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasureAsk {
    /// The statement that says so.
    pub asked: StatementId,
    /// Which vault; `None` for the whole account.
    pub vault: Option<VaultId>,
    /// Under which name its receipt will be found.
    pub receipt_name: [u8; 32],
    /// When the cell took it.
    pub asked_at: Millis,
    /// When it is to be erased.
    pub due_at: Millis,
}

/// What rows that are appended to a chain change about erasures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErasureChange {
    /// One is asked for. One that is known already stays as it is.
    Ask(ErasureAsk),
    /// The one that this statement asked for is taken back.
    Cancel(StatementId),
}

/// An erasure that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasureJob {
    /// The statement that asked for it.
    pub asked: StatementId,
    /// Whose data.
    pub account: AccountId,
    /// Which vault; `None` for the whole account.
    pub vault: Option<VaultId>,
    /// When the cell took the wish.
    pub asked_at: Millis,
    /// Objects that there were when it began; 0 before.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Consent records that were erased so far.
    pub consents: u64,
}

/// The rows to erase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsToErase {
    /// The statement that asked for it.
    pub asked: StatementId,
    /// For a vault: places of its consents in the chain, and the stubs to put there. For an account nothing:
    /// its whole chain goes.
    pub stubs: Vec<(u64, Bytes)>,
    /// For an account: the id under which its entry in the state map goes on, as padding that belongs to nobody.
    pub alias: AccountId,
}

/// What came of erasing rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsOutcome {
    /// They are gone; so many consent records altogether.
    Erased {
        /// How many.
        consents: u64,
    },
    /// There are objects still. Nothing was changed.
    ObjectsLeft,
    /// No such erasure has begun. Nothing was changed.
    NotBegun,
}

/// A finished erasure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasureEnd {
    /// The statement that asked for it.
    pub asked: StatementId,
    /// The receipt, as it is handed out.
    pub receipt: Bytes,
    /// Its entry for the log.
    pub entry: LogEntry,
    /// The present time.
    pub now: Millis,
}

/// The erasures of a cell, in the same database as its records. The faults are those of
/// [`crate::Records`].
pub trait Erasures: Send + Sync + 'static {
    /// Up to `limit` erasures that are due at `now` or have begun, the oldest first.
    fn due(&self, now: Millis, limit: usize) -> Pending<'_, Result<Vec<ErasureJob>, RecordsError>>;

    /// Begins one that is due at `now`, unless it has begun. `None`: there is none, or it was cancelled.
    fn begin(
        &self,
        asked: StatementId,
        now: Millis,
    ) -> Pending<'_, Result<Option<ErasureJob>, RecordsError>>;

    /// Lets up to `limit` objects go of one that has begun, reserved ones included. Returns how many.
    fn let_objects_go(
        &self,
        asked: StatementId,
        now: Millis,
        limit: usize,
    ) -> Pending<'_, Result<u64, RecordsError>>;

    /// Erases the rows of one that has begun: of a vault its head and its consent records, of an account
    /// everything.
    fn erase_rows(&self, rows: RowsToErase) -> Pending<'_, Result<RowsOutcome, RecordsError>>;

    /// When this returns, what was deleted or replaced before is in none of the database's files any more.
    ///
    /// # Errors
    /// [`RecordsError::Busy`] while a reader needs an older state: try it again.
    fn settle(&self) -> Pending<'_, Result<(), RecordsError>>;

    /// Keeps the receipt, queues its entry for the log, and forgets which vault it was. Tells whether the erasure
    /// was at this point; if it was done before, nothing is changed.
    fn finish(&self, end: ErasureEnd) -> Pending<'_, Result<bool, RecordsError>>;

    /// The receipt of this name.
    fn receipt(&self, name: [u8; 32]) -> Pending<'_, Result<Option<Bytes>, RecordsError>>;

    /// Forgets up to `limit` receipts of accounts that are gone, if they were erased before `before`. Those of
    /// vaults are kept with their account.
    fn sweep_receipts(
        &self,
        before: Millis,
        limit: usize,
    ) -> Pending<'_, Result<u64, RecordsError>>;
}
