//! The ports for the transparency log: its bookkeeping, which is in SQL like everything that changes,
//! and its published files.
//!
//! An entry goes through four steps, each of which may be cut anywhere and run again by whoever comes
//! next:
//!
//! 1. *Queued*, in the same commit as the statement that it stands for.
//! 2. *Sequenced*: it has a place for ever. One compare-and-swap on the number of sequenced entries
//!    decides between processes that try at the same time ([`LogRecords::sequence`]).
//! 3. *In files*: tiles and bundles follow from the sequence alone, so everybody writes the same
//!    bytes ([`LogFiles::put`]).
//! 4. *In the tree*: size and root move by compare-and-swap once the files are durable
//!    ([`LogRecords::advance`]). Only then may a checkpoint be signed.
//!
//! Nothing here knows what an entry means.

use std::collections::BTreeMap;

use bytes::Bytes;
use candor_wire::{AccountId, Millis, VaultId};

use crate::Pending;
use crate::objects::Fault;
use crate::records::{ChainTip, HeadMark, RecordsError};

/// Length of an entry of the log, in bytes.
pub const LOG_ENTRY_BYTES: usize = 66;

/// Most entries in one batch: C2SP's tile width, so that a batch touches at most two tiles of a level.
pub const LOG_BATCH_MAX_ENTRIES: usize = 256;

/// Most accounts in one version of the state map. At 64 bytes each its published inputs stay below
/// 640 KiB, within one reply.
pub const STATE_BATCH_MAX_ACCOUNTS: usize = 10_000;

/// Longest published file, in bytes: the inputs of a full version of the state map.
pub const LOG_FILE_MAX_BYTES: usize = 1024 * 1024;

/// Longest name of a published file, in bytes. With what an engine adds while it writes one, it stays
/// below the 255 bytes that file systems give a name.
const NAME_MAX_BYTES: usize = 200;

/// An entry, as it is hashed.
pub type LogEntry = [u8; LOG_ENTRY_BYTES];

/// Where the log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogTree {
    /// How many entries have a place.
    pub sequenced: u64,
    /// How many of them are in the tree.
    pub size: u64,
    /// Root of the tree of that size.
    pub root: [u8; 32],
    /// Version of the state map, from 1; 0 before the first.
    pub map_version: u64,
    /// Root of the map of that version.
    pub map_root: [u8; 32],
    /// Place of the entry that holds that root.
    pub map_place: u64,
}

impl LogTree {
    /// Where every log begins. The root of a tree without entries is SHA-256 of nothing (RFC 9162,
    /// section 2.1.1).
    pub const EMPTY: Self = Self {
        sequenced: 0,
        size: 0,
        root: [
            0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f,
            0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b,
            0x78, 0x52, 0xb8, 0x55,
        ],
        map_version: 0,
        map_root: [0; 32],
        map_place: 0,
    };
}

/// An account whose chain or heads moved since they were last put into the state map, or that was
/// never put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedAccount {
    /// Which.
    pub account: AccountId,
    /// Grows with every move until it is settled, then begins again; taken before the state below,
    /// which may be newer than it.
    pub stamp: u64,
    /// Where its chain ends.
    pub tip: ChainTip,
    /// The heads of its vaults, by vault.
    pub heads: Vec<(VaultId, HeadMark)>,
    /// The first record of its chain.
    pub genesis: Bytes,
}

/// What waits to be sequenced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogBatch {
    /// Where the log stands.
    pub tree: LogTree,
    /// Queued entries, oldest first.
    pub queued: Vec<LogEntry>,
    /// Changed accounts.
    pub changed: Vec<ChangedAccount>,
}

/// An account's new entry in the state map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapChange {
    /// Whose.
    pub account: AccountId,
    /// The stamp of the [`ChangedAccount`] that it was made of.
    pub stamp: u64,
    /// Key in the map.
    pub key: [u8; 32],
    /// Value in the map.
    pub value: [u8; 32],
    /// The state that the value commits to.
    pub state: Bytes,
}

/// Gives entries their places, and moves the state map to its next version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequencing {
    /// Where the log must stand now: the tree of the batch that this was made of. What counts is
    /// `sequenced` and `map_version`; size and root may move meanwhile.
    pub expected: LogTree,
    /// The entries in their order, at least one: queued ones, which leave the queue, and others.
    pub entries: Vec<LogEntry>,
    /// The next version of the map, if anything in it changed.
    pub map: Option<MapVersion>,
}

/// A version of the state map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapVersion {
    /// What changed, at least one. Some may be of no account.
    pub changes: Vec<MapChange>,
    /// The new root.
    pub root: [u8; 32],
    /// Which of the new entries holds it.
    pub entry: usize,
    /// What is published of the changes, as it will stand in its file: at most
    /// [`LOG_FILE_MAX_BYTES`].
    pub inputs: Bytes,
}

/// The published inputs of a version of the state map whose entry is not in the tree yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapInputs {
    /// The version.
    pub version: u64,
    /// Place of the entry with its root.
    pub place: u64,
    /// The file.
    pub inputs: Bytes,
}

/// A row of the state map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapRow {
    /// Whose.
    pub account: AccountId,
    /// Key in the map.
    pub key: [u8; 32],
    /// Value in the map.
    pub value: [u8; 32],
    /// The version of the map that brought this value.
    pub version: u64,
    /// The state that the value commits to.
    pub state: Bytes,
}

/// The log's bookkeeping. Faults of the engine as with [`crate::Records`].
pub trait LogRecords: Send + Sync + 'static {
    /// Where the log stands.
    fn log_tree(&self) -> Pending<'_, Result<LogTree, RecordsError>>;

    /// What waits: up to [`LOG_BATCH_MAX_ENTRIES`] entries, and up to [`STATE_BATCH_MAX_ACCOUNTS`]
    /// accounts in the order of their ids.
    fn log_batch(&self) -> Pending<'_, Result<LogBatch, RecordsError>>;

    /// Puts entries into the queue that stand for no statement of a chain.
    ///
    /// # Errors
    /// [`RecordsError::Invalid`] if one is queued already; then none is.
    fn queue_entries(
        &self,
        entries: Vec<LogEntry>,
        now: Millis,
    ) -> Pending<'_, Result<(), RecordsError>>;

    /// Puts entries into the queue, but those that are in it already. For a log that begins anew: what
    /// was cut is run again.
    fn queue_again(
        &self,
        entries: Vec<LogEntry>,
        now: Millis,
    ) -> Pending<'_, Result<(), RecordsError>>;

    /// Begins the log anew, as empty as in a new cell: nothing is queued, nothing has a place, the state
    /// map is empty, and every account counts as changed. In one step.
    fn begin_log_anew(&self, now: Millis) -> Pending<'_, Result<(), RecordsError>>;

    /// The accounts of the cell, by id, from behind `after` on, at most [`crate::records::ROWS_MAX`].
    fn accounts_after(
        &self,
        after: Option<AccountId>,
    ) -> Pending<'_, Result<Vec<AccountId>, RecordsError>>;

    /// Gives places, if the log stands where the caller says. `false`: it does not, and nothing was
    /// changed. A changed account is settled if its stamp is still that of its change in the map;
    /// otherwise it goes on waiting.
    ///
    /// # Errors
    /// [`RecordsError::Invalid`] without entries, if the map's entry is not among them, or if the map
    /// has no changes or its inputs do not fit into a file.
    fn sequence(&self, sequencing: Sequencing) -> Pending<'_, Result<bool, RecordsError>>;

    /// Sequenced entries from a place on that are not in the tree yet, in order and without a gap, at
    /// most `limit` and [`crate::records::ROWS_MAX`]. None from a place that is in the tree: whoever
    /// asks for it has been overtaken.
    ///
    /// # Errors
    /// [`RecordsError::Damaged`] if one is missing.
    fn sequenced_entries(
        &self,
        from: u64,
        limit: usize,
    ) -> Pending<'_, Result<Vec<LogEntry>, RecordsError>>;

    /// The inputs of versions of the state map whose entries are not in the tree yet, by version. Like
    /// the entries, they are kept until [`Self::advance`] passes them.
    fn map_inputs(&self) -> Pending<'_, Result<Vec<MapInputs>, RecordsError>>;

    /// Moves size and root, if they are what the caller says and that many entries have a place, and
    /// forgets the entries and inputs that are in the tree now: their files are durable. `false`: it
    /// is not so, and nothing was changed.
    ///
    /// # Errors
    /// [`RecordsError::Invalid`] if the tree would not grow.
    fn advance(
        &self,
        from: (u64, [u8; 32]),
        to: (u64, [u8; 32]),
    ) -> Pending<'_, Result<bool, RecordsError>>;

    /// Rows of the state map whose version is above `after`, by version and account, from behind
    /// `last` on, at most [`crate::records::ROWS_MAX`].
    fn map_rows(
        &self,
        after: u64,
        last: Option<(u64, AccountId)>,
    ) -> Pending<'_, Result<Vec<MapRow>, RecordsError>>;

    /// One account's row of the state map.
    fn map_row(&self, account: AccountId) -> Pending<'_, Result<Option<MapRow>, RecordsError>>;
}

/// Why a published file could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogFilesError {
    /// A name that no published file has: an error of the program. Nothing was changed.
    #[error("no file of the log has this name")]
    Name,
    /// Longer than [`LOG_FILE_MAX_BYTES`]: an error of the program. Nothing was changed.
    #[error("a file of the log has {bytes} bytes, more than any may have")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// A file that never changes is there with other bytes: the log has been written by somebody else,
    /// or is damaged. Nothing was changed; unless somebody else wrote it in the same moment, when
    /// other files of the batch may be there.
    #[error("the log's file {name} is there with other bytes")]
    Different {
        /// The file.
        name: String,
    },
    /// The disk is full.
    #[error("the disk of the log is full")]
    Full(#[source] Fault),
    /// The storage below failed.
    #[error("the log's files could not be {action}")]
    Io {
        /// What was being done, as the end of the sentence.
        action: &'static str,
        /// What the operating system said.
        #[source]
        source: Fault,
    },
}

/// The log's published files, by their path below the log's prefix, such as `tile/0/x001/234.p/5`.
/// Names are lowercase letters, digits, dots, hyphens and slashes. No file ever appears in part.
pub trait LogFiles: Send + Sync + 'static {
    /// Writes files that never change. All are durable when this returns; one that is there with the
    /// same bytes is left as it is.
    ///
    /// # Errors
    /// [`LogFilesError`].
    fn put(&self, files: Vec<(String, Bytes)>) -> Pending<'_, Result<(), LogFilesError>>;

    /// Writes the one file that changes, in one step and durably.
    ///
    /// # Errors
    /// [`LogFilesError`], but not [`LogFilesError::Different`].
    fn replace(&self, name: String, bytes: Bytes) -> Pending<'_, Result<(), LogFilesError>>;

    /// Removes the partial versions of files, `NAME.p/…`, of which the whole one is there. The caller
    /// vouches that it is durable, and that nobody puts partial ones of it any more. What is removed may
    /// come back with a loss of power.
    ///
    /// # Errors
    /// [`LogFilesError`]; then some may be removed.
    fn remove_partial(&self, names: Vec<String>) -> Pending<'_, Result<(), LogFilesError>>;

    /// A file; `None` if there is none.
    ///
    /// # Errors
    /// [`LogFilesError`].
    fn get(&self, name: String) -> Pending<'_, Result<Option<Bytes>, LogFilesError>>;
}

/// Ends the name of the directory with the partial versions of a file.
pub(crate) const PARTIAL_ENDING: &str = ".p";

/// Whether a published file can have this name: it cannot leave the directory, and no two spellings
/// name one file.
pub(crate) fn is_name(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
    };
    name.len() <= NAME_MAX_BYTES && name.split('/').all(is_part)
}

/// What every engine asks before it reads a file.
pub(crate) fn check_name(name: &str) -> Result<(), LogFilesError> {
    if is_name(name) {
        Ok(())
    } else {
        Err(LogFilesError::Name)
    }
}

/// What every engine asks before it writes a file.
pub(crate) fn check_file(name: &str, bytes: &[u8]) -> Result<(), LogFilesError> {
    check_name(name)?;
    match bytes.len() {
        0..=LOG_FILE_MAX_BYTES => Ok(()),
        bytes => Err(LogFilesError::TooLong { bytes }),
    }
}

/// The files of a batch by their names. One that is in it twice must be the same.
pub(crate) fn by_name(files: &[(String, Bytes)]) -> Result<BTreeMap<&str, &Bytes>, LogFilesError> {
    let mut sorted = BTreeMap::new();
    for (name, bytes) in files {
        check_file(name, bytes)?;
        let other = sorted.insert(name.as_str(), bytes);
        if other.is_some_and(|other| other != bytes) {
            return Err(LogFilesError::Different { name: name.clone() });
        }
    }
    Ok(sorted)
}

impl Sequencing {
    /// Where the log stands afterwards. Every engine asks this first: it refuses what no caller
    /// should hand in.
    pub(crate) fn outcome(&self) -> Result<LogTree, RecordsError> {
        if self.entries.is_empty() {
            return Err(RecordsError::Invalid("a batch of the log without entries"));
        }
        let mut tree = self.expected;
        if let Some(map) = &self.map {
            map.check(self.entries.len())?;
            tree.map_version = bounded(tree.map_version.checked_add(1))?;
            tree.map_root = map.root;
            tree.map_place = bounded(tree.sequenced.checked_add(map.entry as u64))?;
        }
        bounded(Some(tree.map_version))?;
        tree.sequenced = bounded(tree.sequenced.checked_add(self.entries.len() as u64))?;
        Ok(tree)
    }
}

impl MapVersion {
    fn check(&self, entries: usize) -> Result<(), RecordsError> {
        if self.entry >= entries {
            return Err(RecordsError::Invalid(
                "the entry of a state map is not in its batch",
            ));
        }
        if self.changes.is_empty() {
            return Err(RecordsError::Invalid("a state map without changes"));
        }
        if self.inputs.len() > LOG_FILE_MAX_BYTES {
            return Err(RecordsError::Invalid(
                "the inputs of a state map are too long",
            ));
        }
        let mut stamps = self.changes.iter().map(|change| change.stamp);
        stamps.try_for_each(|stamp| bounded(Some(stamp)).map(|_| ()))
    }
}

/// The tree only grows. Every engine asks this first.
pub(crate) fn check_growth(from: u64, to: u64) -> Result<(), RecordsError> {
    if to <= from {
        return Err(RecordsError::Invalid("the tree of the log only grows"));
    }
    bounded(Some(to)).map(|_| ())
}

/// A number that every engine can hold.
fn bounded(number: Option<u64>) -> Result<u64, RecordsError> {
    number
        .filter(|number| i64::try_from(*number).is_ok())
        .ok_or(RecordsError::Invalid("a number is above 2^63 - 1"))
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names_cannot_leave_the_directory() {
        for good in [
            "checkpoint",
            "tile/0/x001/234.p/5",
            "map/x000/001",
            "report.json",
        ] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "", "/", "a//b", "../a", "a/../b", "a/.", ".a", "A", "a/", "/a", "a\\b", "a\0", "a%2f",
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
