//! Beginning a cell's log anew, after the cell was restored from a backup.
//!
//! A log only grows. When a database comes back from yesterday, the signer refuses to sign it: it would
//! contradict what was signed since. What was lost cannot be brought back, so the honest way on is a new
//! log that says that it is one:
//!
//! 1. The cell's next keys, signed by its root, give the log a number that no log of the cell ever had and
//!    a new key, and name the last state of the old log that the signer remembers. Every device sees that,
//!    and asks its person before it goes on (`candor account re-anchor`). One backup may be restored more
//!    than once, so the number is above that of every log of which anything is left, also beside the
//!    database.
//! 2. Every statement that the database has goes into the new log.
//! 3. The old log's files and key stay where they are, beside the new ones, as evidence.
//!
//! It is run while the cell is stopped, and may be cut anywhere and run again.

use std::path::Path;

use candor_log::checkpoint::SignedCheckpoint;
use candor_log::leaf::Leaf;
use candor_store::log::LogEntry;
use candor_store::{LogRecords, Records, RecordsError, Store, StoreError};
use candor_wire::cbor::{self, Canonical};
use candor_wire::cell::{CellKeyring, cell_id, log_origin};
use candor_wire::chain::Record;
use candor_wire::ids::CellId;
use candor_wire::limits::PAGE_MAX_ENTRIES;
use candor_wire::re_anchor::LogPoint;
use candor_wire::time::Millis;

use crate::cell::{
    CONFIG_FILE, KEYS_DIRECTORY, OpenError, SIGNER_FILE, STORE_DIRECTORY, description,
    stored_keyring,
};
use crate::clock::{Clock, SystemClock};
use crate::config::CellConfig;
use crate::keys::{self, CellKeyFiles};
use crate::sys;
use crate::transparency::{CHECKPOINT_FILE, Signer};

/// Name of the stored value that says that a new log was begun and is not complete.
const ANEW_VALUE: &str = "log-begun-anew";

/// The version of that value.
const ANEW_VERSION: u8 = 1;

/// Highest number that is believed of what lies beside the database: no cell is restored more often.
const LOG_NUMBER_MAX: u32 = 1_000_000;

/// Statements that are queued in one commit.
const QUEUED_MAX: usize = 1024;

/// A new log in the making.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(crate) struct Anew {
    #[n(0)]
    version: u8,
    /// The new log's number.
    #[n(1)]
    pub(crate) number: u32,
    /// What the signer remembers of the one before.
    #[n(2)]
    pub(crate) before: Option<LogPoint>,
}

impl Canonical for Anew {
    const WHAT: &'static str = "a log that begins anew";
    const MAX_BYTES: usize = 1024;
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BegunAnew {
    /// The number of the new log.
    pub number: u32,
    /// Entries of the old log that its signer had signed; `None` if it remembers none.
    pub signed_before: Option<u64>,
    /// Statements that the database has, all of which go into the new log.
    pub statements: u64,
    /// Accounts that the database has.
    pub accounts: u64,
}

/// Why no new log was begun, or why it is not complete: run it again.
#[derive(Debug, thiserror::Error)]
pub enum ReAnchorError {
    /// The cell cannot be opened.
    #[error("the cell cannot be opened")]
    Open(#[source] OpenError),
    /// The database failed.
    #[error("the cell's records failed")]
    Records(#[source] RecordsError),
    /// A stored chain cannot be read.
    #[error("a stored chain cannot be read")]
    Damaged,
    /// A file could not be moved or written.
    #[error("the files of the old log cannot be put aside")]
    Files(#[source] std::io::Error),
    /// The signer's memory or the log's key could not be written.
    #[error("the new log's key cannot be made")]
    Keys(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<RecordsError> for ReAnchorError {
    fn from(source: RecordsError) -> Self {
        Self::Records(source)
    }
}

fn key_fault(source: impl std::error::Error + Send + Sync + 'static) -> ReAnchorError {
    ReAnchorError::Keys(Box::new(source))
}

/// The new log that was begun, if there is one that is not complete.
pub(crate) async fn begun_anew(records: &dyn Records) -> Result<Option<Anew>, OpenError> {
    let value = records
        .cell_value(ANEW_VALUE)
        .await
        .map_err(OpenError::Records)?;
    let begun: Option<Anew> = value
        .filter(|bytes| !bytes.is_empty())
        .map(|bytes| cbor::decode(&bytes))
        .transpose()
        .map_err(|_| OpenError::Identity(None))?;
    Ok(begun)
}

/// Begins the log of the cell in `directory` anew. The cell must not be running.
///
/// # Errors
/// [`ReAnchorError`].
pub async fn begin_log_anew(directory: &Path) -> Result<BegunAnew, ReAnchorError> {
    begin_log_anew_at(directory, &SystemClock).await
}

/// The same, by this clock.
///
/// # Errors
/// As [`begin_log_anew`].
pub async fn begin_log_anew_at(
    directory: &Path,
    clock: &dyn Clock,
) -> Result<BegunAnew, ReAnchorError> {
    let config = CellConfig::from_file(&directory.join(CONFIG_FILE))
        .map_err(|source| ReAnchorError::Open(OpenError::Config(source)))?;
    let path = directory.join(STORE_DIRECTORY);
    let log_files = path.join("log");
    let opened = tokio::task::spawn_blocking(move || Store::open(&path)).await;
    let store = opened
        .map_err(|_| ReAnchorError::Damaged)?
        .map_err(|error| open_fault(directory, error))?;
    let (records, log_records) = (store.records(), store.log_records());
    let key_files = directory.join(KEYS_DIRECTORY);
    let memory = directory.join(SIGNER_FILE);
    let keys = CellKeyFiles::read(&key_files)
        .map_err(|source| ReAnchorError::Open(OpenError::Keys(source)))?;

    let root = keys.root.secret().public();
    let keyring = stored_keyring(&store, &root).await;
    let keyring = keyring.map_err(ReAnchorError::Open)?;
    let known = keyring.and_then(|keyring| keyring.current().log_number);
    let before = remembered(&memory);
    let newest = newest_beside(directory, &cell_id(&root), before.as_ref());
    let newest = newest
        .map_err(ReAnchorError::Files)?
        .max(known.unwrap_or(1));
    let begun = begun_anew(records.as_ref()).await;
    let begun = begun.map_err(ReAnchorError::Open)?;
    // The backup may be of a log in the making that was complete, and signed for, later on.
    let goes_on = |anew: &Anew| {
        let signed = before.as_ref().is_some_and(|before| {
            before.size > 0 && number_of(&before.origin, &cell_id(&root)) == Some(anew.number)
        });
        newest <= anew.number && !signed
    };
    let anew = match begun.filter(goes_on) {
        Some(anew) => anew,
        None => {
            let anew = Anew {
                version: ANEW_VERSION,
                number: newest + 1,
                before: before.clone(),
            };
            let bytes = cbor::encode(&anew).into();
            records.set_cell_value(ANEW_VALUE, bytes).await?;
            anew
        }
    };
    put_aside(&log_files, anew.number).map_err(ReAnchorError::Files)?;
    keys::renew_log_key(&key_files, anew.number).map_err(key_fault)?;
    let keys = CellKeyFiles::read(&key_files).map_err(key_fault)?;
    log_records.begin_log_anew(clock.now()).await?;
    let (accounts, statements) =
        queue_everything(records.as_ref(), log_records.as_ref(), clock.now()).await?;
    let new = description(&store, &keys, &config, clock, Some(&anew))
        .await
        .map_err(ReAnchorError::Open)?;
    let keyring = CellKeyring::verify(&keys.root.secret().public(), &new.keys)
        .map_err(|source| ReAnchorError::Open(OpenError::Identity(Some(source))))?;
    Signer::begin_memory(&memory, &keyring.current().log_origin()).map_err(key_fault)?;
    records
        .set_cell_value(ANEW_VALUE, bytes::Bytes::new())
        .await?;
    Ok(BegunAnew {
        number: anew.number,
        signed_before: anew.before.map(|before| before.size),
        statements,
        accounts,
    })
}

/// The highest number of a log of which something is left beside the database: the signer's memory, the
/// published checkpoint, or files and a key that were put aside when the log after them began.
fn newest_beside(
    directory: &Path,
    cell: &CellId,
    memory: Option<&LogPoint>,
) -> std::io::Result<u32> {
    let store = directory.join(STORE_DIRECTORY);
    let checkpoint = std::fs::read(store.join("log").join(CHECKPOINT_FILE)).ok();
    let checkpoint = checkpoint.and_then(|bytes| SignedCheckpoint::parse(&bytes).ok());
    let origins = memory
        .map(|memory| memory.origin.as_str())
        .into_iter()
        .chain(checkpoint.as_ref().map(SignedCheckpoint::origin));
    let mut numbers: Vec<u32> = origins
        .filter_map(|origin| number_of(origin, cell))
        .collect();
    for (place, ending) in [(store, ""), (directory.join(KEYS_DIRECTORY), ".key")] {
        for entry in std::fs::read_dir(place)? {
            let name = entry?.file_name();
            let aside = name.to_str().and_then(|name| {
                let number = name.strip_prefix("log-")?.strip_suffix(ending)?;
                number.parse::<u32>().ok()
            });
            numbers.extend(aside.and_then(|number| number.checked_add(1)));
        }
    }
    let believed = numbers
        .into_iter()
        .filter(|number| *number <= LOG_NUMBER_MAX);
    Ok(believed.max().unwrap_or(1))
}

/// The number in a log's origin.
fn number_of(origin: &str, cell: &CellId) -> Option<u32> {
    match origin.strip_prefix(&log_origin(cell))? {
        "" => Some(1),
        rest => rest.strip_prefix('/')?.parse().ok(),
    }
}

fn open_fault(directory: &Path, error: StoreError) -> ReAnchorError {
    ReAnchorError::Open(match error {
        StoreError::InUse { .. } => OpenError::InUse {
            directory: directory.to_path_buf(),
        },
        source => OpenError::Store(source),
    })
}

/// What the signer remembers; nothing, if its memory is lost or damaged.
fn remembered(memory: &Path) -> Option<LogPoint> {
    let (origin, head) = Signer::memory_of(memory).ok().flatten()?;
    Some(LogPoint {
        origin,
        size: head.size,
        root: head.root.0,
    })
}

/// Moves the old log's files beside the new ones, once: no log before had this number.
fn put_aside(log_files: &Path, number: u32) -> std::io::Result<()> {
    let aside = log_files.with_file_name(format!("log-{}", number - 1));
    if !aside.try_exists()? {
        std::fs::rename(log_files, &aside)?;
    }
    sys::create_private_directory(log_files)
}

/// Puts the statements of a cell from before it had a log into the queue, once. A log in which nothing
/// ever had a place, beside chains, is one of those; what is queued already stays.
pub(crate) async fn queue_what_was_before_the_log(
    store: &Store,
    now: Millis,
) -> Result<(), ReAnchorError> {
    let (records, log) = (store.records(), store.log_records());
    if log.log_tree().await?.sequenced > 0 {
        return Ok(());
    }
    queue_everything(records.as_ref(), log.as_ref(), now)
        .await
        .map(drop)
}

/// Queues every statement of every chain.
async fn queue_everything(
    records: &dyn Records,
    log: &dyn LogRecords,
    now: Millis,
) -> Result<(u64, u64), ReAnchorError> {
    let (mut accounts, mut statements) = (0, 0);
    let mut last = None;
    loop {
        let page = log.accounts_after(last).await?;
        let Some(end) = page.last() else {
            return Ok((accounts, statements));
        };
        last = Some(*end);
        for account in page {
            accounts += 1;
            let mut after = None;
            loop {
                let rows = records.read_chain(account, after, PAGE_MAX_ENTRIES).await?;
                let entries: Vec<LogEntry> = rows
                    .rows
                    .iter()
                    .filter_map(|row| entry_of(&row.record).transpose())
                    .collect::<Result<_, _>>()?;
                statements += entries.len() as u64;
                for some in entries.chunks(QUEUED_MAX) {
                    log.queue_again(some.to_vec(), now).await?;
                }
                after = rows.rows.last().map(|row| row.sequence);
                if !rows.more {
                    break;
                }
            }
        }
    }
}

/// The entry of a stored statement. An erased one has no label any more, and goes into no new log: what
/// it was is in the old one.
fn entry_of(record: &[u8]) -> Result<Option<LogEntry>, ReAnchorError> {
    let record: Record = cbor::decode(record).map_err(|_| ReAnchorError::Damaged)?;
    let Some(statement) = &record.statement else {
        return Ok(None);
    };
    let parsed = statement.parse().map_err(|_| ReAnchorError::Damaged)?;
    Ok(Some(
        Leaf::statement(&parsed.entry.label, &parsed.id).encode(),
    ))
}

/// Whatever is read of such a file is written the same (row A37).
#[cfg(any(test, fuzzing))]
pub(crate) fn take_noise(bytes: &[u8]) {
    if let Ok(file) = cbor::decode::<Anew>(bytes) {
        assert_eq!(cbor::encode(&file), bytes);
    }
}
