//! Records in SQLite.
//!
//! The database is in WAL mode with `synchronous=FULL`: a commit is on disk before anybody hears of
//! it. All writes go through one thread, so each runs as if it were alone; an engine for another
//! database gives the same by serializable transactions. Reads use connections of their own and are
//! never blocked by writes.

mod accounts;
mod chain;
mod checkpoints;
mod erasures;
mod fault;
mod heads;
mod integrity;
mod ledger;
mod links;
mod log;
mod nonces;
mod readers;
mod row;
mod schema;
pub(crate) mod stats;
#[cfg(test)]
mod tests;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use candor_wire::{AccountId, Millis, ObjectId, StatementId, VaultId};
use rusqlite::{Connection, OpenFlags};

use self::fault::engine_fault;
use self::readers::Readers;
use self::writer::Writer;
use crate::erasures::{ErasureEnd, ErasureJob, Erasures, RowsOutcome, RowsToErase};
use crate::links::{LinkOpening, LinkOutcome, Links, MessageOutcome, OpenLink};
use crate::log::{LogBatch, LogEntry, LogRecords, LogTree, MapInputs, MapRow, Sequencing};
use crate::objects::ObjectKey;
use crate::records::{
    Account, AccountOpening, AccountState, AppendOutcome, ChainAppend, ChainPage, ChainTip,
    ConfirmOutcome, CreateOutcome, Head, HeadSwap, Invitation, LedgerEntry, NonceOutcome, NonceUse,
    OpenOutcome, Presence, Records, RecordsError, Reservation, ReserveOutcome, RootKeyHash,
    SwapOutcome,
};
use crate::{Pending, sys};

/// How long a write waits for another process that holds the database, in milliseconds. Longer than
/// any backup tool holds its lock, shorter than a client waits for an answer.
const BUSY_WAIT_MS: u64 = 5000;

/// The pause until the log is emptied again, while another checkpoint runs.
const EMPTY_PAUSE: Duration = Duration::from_millis(20);

/// Page cache of the writing connection, in KiB: the upper levels of every index of a large cell.
const WRITER_CACHE_KIB: i64 = 8 * 1024;

/// Page cache of each reading connection, in KiB. There are a few of them, and the operating system
/// caches the file as well.
const READER_CACHE_KIB: i64 = 2 * 1024;

/// To what the write-ahead log shrinks after a burst, in bytes. Large enough to be reused, not so
/// large that a burst is remembered on disk for ever.
const LOG_KEPT_BYTES: i64 = 16 * 1024 * 1024;

/// Statements kept prepared by each connection: all that there are.
const STATEMENTS_KEPT_MAX: usize = 96;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    Write,
}

/// The engine for records in one SQLite database. Needs a tokio runtime for its operations.
///
/// Dropping it waits for the writes that were accepted, so that a process that ends in order leaves
/// a database without a log.
#[derive(Debug)]
pub struct SqliteRecords {
    // Before the readers: the writer's thread must end while others can still read.
    writer: Writer,
    readers: Arc<Readers>,
    file: PathBuf,
}

impl SqliteRecords {
    /// Opens the database in `file`, or makes an empty one, and brings its schema up to date. The
    /// directory must exist. Does I/O on the calling thread.
    ///
    /// # Errors
    /// [`RecordsError::Damaged`] if the file is not a database, [`RecordsError::NewerSchema`],
    /// [`RecordsError::Busy`] and other faults.
    pub fn open(file: &Path) -> Result<Self, RecordsError> {
        let mut connection = open_connection(file, Use::Write)?;
        schema::migrate(&mut connection)?;
        Self::start(file, connection)
    }

    fn start(file: &Path, connection: Connection) -> Result<Self, RecordsError> {
        let beside = open_connection(file, Use::Write)?;
        let writer = Writer::start(connection, beside).map_err(|source| RecordsError::Io {
            action: "start its writer",
            source: Arc::new(source),
        })?;
        Ok(Self {
            writer,
            readers: Readers::new(file),
            file: file.to_path_buf(),
        })
    }

    /// The version of the schema that the database has.
    ///
    /// # Errors
    /// Faults of the engine.
    pub async fn schema_version(&self) -> Result<i64, RecordsError> {
        Arc::clone(&self.readers).read(schema::version).await
    }

    /// Writes a copy of the database, as it is at one moment, to the new file `destination`. Writes
    /// go on meanwhile. When this returns the copy is durable; if it fails, there is no such file.
    ///
    /// # Errors
    /// [`RecordsError::Invalid`] if the file exists; [`RecordsError::Full`] and other faults.
    pub async fn backup_to(&self, destination: &Path) -> Result<(), RecordsError> {
        let destination = destination.to_path_buf();
        Arc::clone(&self.readers)
            .read(move |source| copy_to(source, &destination))
            .await
    }

    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, RecordsError> + Send + 'static,
    ) -> Pending<'_, Result<T, RecordsError>> {
        Box::pin(Arc::clone(&self.readers).read(work))
    }

    fn write<T: Send + 'static>(
        &self,
        nonce: Option<NonceUse>,
        work: impl FnOnce(&Connection) -> Result<T, RecordsError> + Send + 'static,
    ) -> Pending<'_, Result<T, RecordsError>> {
        Box::pin(self.writer.write(nonce, work))
    }
}

fn open_connection(file: &Path, purpose: Use) -> Result<Connection, RecordsError> {
    let fault = |source| engine_fault("open the file", source);
    let access = match purpose {
        Use::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Use::Write => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    };
    let connection = Connection::open_with_flags(file, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(fault)?;
    connection
        .busy_timeout(Duration::from_millis(BUSY_WAIT_MS))
        .map_err(fault)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT_MAX);
    let cache = match purpose {
        Use::Read => READER_CACHE_KIB,
        Use::Write => WRITER_CACHE_KIB,
    };
    connection
        .pragma_update(None, "cache_size", -cache)
        .map_err(fault)?;
    connection
        .pragma_update(None, "cell_size_check", true)
        .map_err(fault)?;
    connection
        .pragma_update(None, "trusted_schema", false)
        .map_err(fault)?;
    if purpose == Use::Write {
        let mode: String = connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
            .map_err(fault)?;
        if mode != "wal" {
            return Err(RecordsError::Invalid(
                "the file system cannot hold a write-ahead log",
            ));
        }
        connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(fault)?;
        connection
            .pragma_update(None, "foreign_keys", true)
            .map_err(fault)?;
        // What is erased leaves nothing in free pages.
        connection
            .pragma_update(None, "secure_delete", true)
            .map_err(fault)?;
        connection
            .pragma_update(None, "journal_size_limit", LOG_KEPT_BYTES)
            .map_err(fault)?;
    }
    Ok(connection)
}

/// Copies in one step: that holds one view of the source, which a writer does not disturb. (A copy
/// in small steps begins again whenever another connection writes.)
fn copy_to(source: &Connection, destination: &Path) -> Result<(), RecordsError> {
    const ACTION: &str = "write a backup";
    let file_fault = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            RecordsError::Full(Arc::new(source))
        }
        _ => RecordsError::Io {
            action: ACTION,
            source: Arc::new(source),
        },
    };
    if destination.try_exists().map_err(file_fault)? {
        return Err(RecordsError::Invalid(
            "the file of a backup must be a new one",
        ));
    }
    let unfinished = unfinished_name(destination);
    let copied = copy_into(source, &unfinished)
        .and_then(|()| sys::sync_file(&unfinished).map_err(file_fault))
        .and_then(|()| fs::rename(&unfinished, destination).map_err(file_fault));
    if let Err(error) = copied {
        // It may not have been made at all; what counts is why.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    sys::sync_directory(destination.parent().unwrap_or(Path::new(""))).map_err(file_fault)
}

fn copy_into(source: &Connection, unfinished: &Path) -> Result<(), RecordsError> {
    let fault = |source| engine_fault("write a backup", source);
    let mut copy = Connection::open(unfinished).map_err(fault)?;
    let backup = rusqlite::backup::Backup::new(source, &mut copy).map_err(fault)?;
    backup
        .run_to_completion(i32::MAX, Duration::ZERO, None)
        .map_err(fault)?;
    drop(backup);
    copy.close().map_err(|(_, source)| fault(source))
}

/// Moves everything out of the write-ahead log and empties it: older states of pages were there. Tries again while
/// another checkpoint runs, for which SQLite does not wait by itself.
fn empty_log(file: &Path) -> Result<(), RecordsError> {
    const ACTION: &str = "empty its log";
    let fault = |source| engine_fault(ACTION, source);
    let connection = open_connection(file, Use::Write)?;
    let began = Instant::now();
    while began.elapsed().as_millis() < u128::from(BUSY_WAIT_MS) {
        let is_busy: bool = connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map_err(fault)?;
        if !is_busy {
            return Ok(());
        }
        std::thread::sleep(EMPTY_PAUSE);
    }
    let source = std::io::Error::from(std::io::ErrorKind::ResourceBusy);
    Err(RecordsError::Busy(Arc::new(source)))
}

fn unfinished_name(destination: &Path) -> PathBuf {
    let mut name = destination.as_os_str().to_owned();
    name.push(".unfinished");
    PathBuf::from(name)
}

impl Links for SqliteRecords {
    fn open_link(
        &self,
        nonce: Option<NonceUse>,
        opening: LinkOpening,
    ) -> Pending<'_, Result<LinkOutcome, RecordsError>> {
        self.write(nonce, move |connection| links::open(connection, &opening))
    }

    fn leave_message(
        &self,
        name: [u8; 32],
        place: u8,
        message: Bytes,
        now: Millis,
    ) -> Pending<'_, Result<MessageOutcome, RecordsError>> {
        self.write(None, move |connection| {
            links::leave(connection, &name, place, &message, now)
        })
    }

    fn link(
        &self,
        name: [u8; 32],
        now: Millis,
    ) -> Pending<'_, Result<Option<OpenLink>, RecordsError>> {
        self.read(move |connection| links::get(connection, &name, now))
    }

    fn sweep_links(&self, before: Millis, limit: usize) -> Pending<'_, Result<u64, RecordsError>> {
        self.write(None, move |connection| {
            links::sweep(connection, before, limit)
        })
    }
}

impl Erasures for SqliteRecords {
    fn due(&self, now: Millis, limit: usize) -> Pending<'_, Result<Vec<ErasureJob>, RecordsError>> {
        self.read(move |connection| erasures::due(connection, now, limit))
    }

    fn begin(
        &self,
        asked: StatementId,
        now: Millis,
    ) -> Pending<'_, Result<Option<ErasureJob>, RecordsError>> {
        self.write(None, move |connection| {
            erasures::begin(connection, &asked, now)
        })
    }

    fn let_objects_go(
        &self,
        asked: StatementId,
        now: Millis,
        limit: usize,
    ) -> Pending<'_, Result<u64, RecordsError>> {
        self.write(None, move |connection| {
            erasures::let_objects_go(connection, &asked, now, limit)
        })
    }

    fn erase_rows(&self, rows: RowsToErase) -> Pending<'_, Result<RowsOutcome, RecordsError>> {
        self.write(None, move |connection| {
            erasures::erase_rows(connection, &rows)
        })
    }

    fn settle(&self) -> Pending<'_, Result<(), RecordsError>> {
        let file = self.file.clone();
        Box::pin(async move {
            let emptied = tokio::task::spawn_blocking(move || empty_log(&file)).await;
            emptied.map_err(|_| RecordsError::Closed)?
        })
    }

    fn finish(&self, end: ErasureEnd) -> Pending<'_, Result<bool, RecordsError>> {
        self.write(None, move |connection| erasures::finish(connection, &end))
    }

    fn receipt(&self, name: [u8; 32]) -> Pending<'_, Result<Option<Bytes>, RecordsError>> {
        self.read(move |connection| erasures::receipt(connection, &name))
    }

    fn sweep_receipts(
        &self,
        before: Millis,
        limit: usize,
    ) -> Pending<'_, Result<u64, RecordsError>> {
        self.write(None, move |connection| {
            erasures::sweep_receipts(connection, before, limit)
        })
    }
}

impl LogRecords for SqliteRecords {
    fn log_tree(&self) -> Pending<'_, Result<LogTree, RecordsError>> {
        self.read(log::tree)
    }

    fn log_batch(&self) -> Pending<'_, Result<LogBatch, RecordsError>> {
        self.read(log::batch)
    }

    fn queue_entries(
        &self,
        entries: Vec<LogEntry>,
        now: Millis,
    ) -> Pending<'_, Result<(), RecordsError>> {
        self.write(None, move |connection| {
            log::queue(connection, &entries, now)
        })
    }

    fn queue_again(
        &self,
        entries: Vec<LogEntry>,
        now: Millis,
    ) -> Pending<'_, Result<(), RecordsError>> {
        self.write(None, move |connection| {
            log::queue_new(connection, &entries, now)?;
            Ok(())
        })
    }

    fn begin_log_anew(&self, now: Millis) -> Pending<'_, Result<(), RecordsError>> {
        self.write(None, move |connection| log::begin_anew(connection, now))
    }

    fn accounts_after(
        &self,
        after: Option<AccountId>,
    ) -> Pending<'_, Result<Vec<AccountId>, RecordsError>> {
        self.read(move |connection| log::accounts_after(connection, after))
    }

    fn sequence(&self, sequencing: Sequencing) -> Pending<'_, Result<bool, RecordsError>> {
        self.write(None, move |connection| {
            log::sequence(connection, &sequencing)
        })
    }

    fn sequenced_entries(
        &self,
        from: u64,
        limit: usize,
    ) -> Pending<'_, Result<Vec<LogEntry>, RecordsError>> {
        self.read(move |connection| log::sequenced(connection, from, limit))
    }

    fn map_inputs(&self) -> Pending<'_, Result<Vec<MapInputs>, RecordsError>> {
        self.read(log::map_inputs)
    }

    fn advance(
        &self,
        from: (u64, [u8; 32]),
        to: (u64, [u8; 32]),
    ) -> Pending<'_, Result<bool, RecordsError>> {
        self.write(None, move |connection| log::advance(connection, from, to))
    }

    fn map_rows(
        &self,
        after: u64,
        last: Option<(u64, AccountId)>,
    ) -> Pending<'_, Result<Vec<MapRow>, RecordsError>> {
        self.read(move |connection| log::map_rows(connection, after, last))
    }

    fn map_row(&self, account: AccountId) -> Pending<'_, Result<Option<MapRow>, RecordsError>> {
        self.read(move |connection| log::map_row(connection, account))
    }
}

impl Records for SqliteRecords {
    fn cell_value(&self, name: &'static str) -> Pending<'_, Result<Option<Bytes>, RecordsError>> {
        self.read(move |connection| accounts::cell_value(connection, name))
    }

    fn set_cell_value(
        &self,
        name: &'static str,
        value: Bytes,
    ) -> Pending<'_, Result<(), RecordsError>> {
        self.write(None, move |connection| {
            accounts::set_cell_value(connection, name, &value)
        })
    }

    fn create_invitation(
        &self,
        invitation: Invitation,
    ) -> Pending<'_, Result<CreateOutcome, RecordsError>> {
        self.write(None, move |connection| {
            accounts::create_invitation(connection, &invitation)
        })
    }

    fn open_account(
        &self,
        opening: AccountOpening,
    ) -> Pending<'_, Result<OpenOutcome, RecordsError>> {
        self.write(None, move |connection| accounts::open(connection, &opening))
    }

    fn account(&self, account: AccountId) -> Pending<'_, Result<Option<Account>, RecordsError>> {
        self.read(move |connection| accounts::by_id(connection, account))
    }

    fn account_by_root_key(
        &self,
        root_key: RootKeyHash,
    ) -> Pending<'_, Result<Option<Account>, RecordsError>> {
        self.read(move |connection| accounts::by_root_key(connection, root_key))
    }

    fn set_quota(
        &self,
        account: AccountId,
        quota_bytes: u64,
    ) -> Pending<'_, Result<(), RecordsError>> {
        self.write(None, move |connection| {
            accounts::set_quota(connection, account, quota_bytes)
        })
    }

    fn set_account_state(
        &self,
        account: AccountId,
        state: AccountState,
    ) -> Pending<'_, Result<(), RecordsError>> {
        self.write(None, move |connection| {
            accounts::set_state(connection, account, state)
        })
    }

    fn append(
        &self,
        nonce: Option<NonceUse>,
        append: ChainAppend,
    ) -> Pending<'_, Result<AppendOutcome, RecordsError>> {
        self.write(nonce, move |connection| chain::append(connection, &append))
    }

    fn read_chain(
        &self,
        account: AccountId,
        after: Option<u64>,
        limit: usize,
    ) -> Pending<'_, Result<ChainPage, RecordsError>> {
        self.read(move |connection| chain::read(connection, account, after, limit))
    }

    fn chain_tip(&self, account: AccountId) -> Pending<'_, Result<Option<ChainTip>, RecordsError>> {
        self.read(move |connection| chain::tip(connection, account))
    }

    fn head(
        &self,
        account: AccountId,
        vault: VaultId,
    ) -> Pending<'_, Result<Option<Head>, RecordsError>> {
        self.read(move |connection| heads::get(connection, account, vault))
    }

    fn runs(
        &self,
        account: AccountId,
        vault: VaultId,
        after: u64,
        limit: usize,
    ) -> Pending<'_, Result<(Vec<Bytes>, bool), RecordsError>> {
        self.read(move |connection| heads::runs(connection, account, vault, after, limit))
    }

    fn swap_head(
        &self,
        nonce: Option<NonceUse>,
        swap: HeadSwap,
    ) -> Pending<'_, Result<SwapOutcome, RecordsError>> {
        self.write(nonce, move |connection| heads::swap(connection, &swap))
    }

    fn reserve(
        &self,
        nonce: Option<NonceUse>,
        reservation: Reservation,
    ) -> Pending<'_, Result<ReserveOutcome, RecordsError>> {
        self.write(nonce, move |connection| {
            ledger::reserve(connection, &reservation)
        })
    }

    fn confirm(
        &self,
        key: ObjectKey,
        now: Millis,
    ) -> Pending<'_, Result<ConfirmOutcome, RecordsError>> {
        self.write(None, move |connection| {
            ledger::confirm(connection, &key, now)
        })
    }

    fn release(&self, key: ObjectKey, now: Millis) -> Pending<'_, Result<bool, RecordsError>> {
        self.write(None, move |connection| {
            ledger::release(connection, &key, now)
        })
    }

    fn let_condemned_go(
        &self,
        before: Millis,
        now: Millis,
        limit: usize,
    ) -> Pending<'_, Result<u64, RecordsError>> {
        self.write(None, move |connection| {
            ledger::let_condemned_go(connection, before, now, limit)
        })
    }

    fn releasing(
        &self,
        now: Millis,
        limit: usize,
    ) -> Pending<'_, Result<Vec<ObjectKey>, RecordsError>> {
        self.write(None, move |connection| {
            ledger::releasing(connection, now, limit)
        })
    }

    fn finish_release(&self, keys: Vec<ObjectKey>) -> Pending<'_, Result<u64, RecordsError>> {
        self.write(None, move |connection| {
            ledger::finish_release(connection, &keys)
        })
    }

    fn has_objects(
        &self,
        account: AccountId,
        vault: VaultId,
        objects: Vec<ObjectId>,
    ) -> Pending<'_, Result<Vec<Presence>, RecordsError>> {
        self.read(move |connection| ledger::has(connection, account, vault, &objects))
    }

    fn object(&self, key: ObjectKey) -> Pending<'_, Result<Option<LedgerEntry>, RecordsError>> {
        self.read(move |connection| ledger::get(connection, &key))
    }

    fn list_objects(
        &self,
        account: AccountId,
        vault: VaultId,
        after: Option<ObjectId>,
        limit: usize,
    ) -> Pending<'_, Result<Vec<LedgerEntry>, RecordsError>> {
        self.read(move |connection| ledger::list(connection, account, vault, after, limit))
    }

    fn use_nonce(&self, nonce: NonceUse) -> Pending<'_, Result<NonceOutcome, RecordsError>> {
        self.write(None, move |connection| {
            Ok(match nonces::insert(connection, &nonce)? {
                true => NonceOutcome::Fresh,
                false => NonceOutcome::Seen,
            })
        })
    }

    fn sweep_nonces(&self, before: Millis, limit: usize) -> Pending<'_, Result<u64, RecordsError>> {
        self.write(None, move |connection| {
            nonces::sweep(connection, before, limit)
        })
    }

    fn check(&self) -> Pending<'_, Result<(), RecordsError>> {
        self.read(integrity::check)
    }
}
