//! What a cell holds, in numbers.

use std::path::Path;

use rusqlite::Connection;

use super::fault::engine_fault;
use super::row::Count;
use super::{Use, open_connection, schema};
use crate::records::RecordsError;

/// Numbers about a cell. They name nobody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Accounts.
    pub accounts: u64,
    /// Invitations that nobody used yet, those that are over included.
    pub invitations: u64,
    /// Entries of all chains.
    pub statements: u64,
    /// Vaults that were written.
    pub vaults: u64,
    /// Stored objects.
    pub objects: u64,
    /// Their bytes, padding included.
    pub stored_bytes: u64,
    /// Of the stored objects, those that a head condemned and the retention window keeps.
    pub condemned: u64,
    /// Their bytes.
    pub condemned_bytes: u64,
    /// Bytes promised to uploads, and those of objects that are being taken away.
    pub reserved_bytes: u64,
    /// What all accounts together may store, in bytes.
    pub quota_bytes: u64,
    /// Entries of the transparency log.
    pub log_entries: u64,
    /// Entries that wait for their place in it.
    pub log_waiting: u64,
}

const QUESTION: &str = "
SELECT (SELECT count(*) FROM accounts),
  (SELECT count(*) FROM invitations WHERE opened_account IS NULL),
  (SELECT count(*) FROM chain),
  (SELECT count(*) FROM heads),
  (SELECT count(*) FROM objects WHERE state = 2),
  (SELECT coalesce(sum(stored_bytes), 0) FROM accounts),
  (SELECT count(*) FROM objects WHERE condemned_at IS NOT NULL),
  (SELECT coalesce(sum(size), 0) FROM objects WHERE condemned_at IS NOT NULL),
  (SELECT coalesce(sum(reserved_bytes), 0) FROM accounts),
  (SELECT coalesce(sum(min(quota_bytes, 1125899906842624)), 0) FROM accounts),
  (SELECT sequenced FROM log_tree WHERE id = 1),
  (SELECT count(*) FROM log_queue)
";

fn ask(connection: &Connection) -> rusqlite::Result<Stats> {
    connection.query_row(QUESTION, [], |row| {
        let number = |place| row.get::<_, Count>(place).map(|count| count.0);
        Ok(Stats {
            accounts: number(0)?,
            invitations: number(1)?,
            statements: number(2)?,
            vaults: number(3)?,
            objects: number(4)?,
            stored_bytes: number(5)?,
            condemned: number(6)?,
            condemned_bytes: number(7)?,
            reserved_bytes: number(8)?,
            quota_bytes: number(9)?,
            log_entries: number(10)?,
            log_waiting: number(11)?,
        })
    })
}

/// The numbers of the database in `file`, at one moment, beside a process that may be using it. Changes nothing.
///
/// # Errors
/// [`RecordsError::NewerSchema`], [`RecordsError::Invalid`] if the schema is an older one, which the next start of
/// the cell brings up to date, and faults of the engine.
pub(crate) fn of(file: &Path) -> Result<Stats, RecordsError> {
    let connection = open_connection(file, Use::Read)?;
    let (found, known) = (schema::version(&connection)?, schema::known_version());
    if found > known {
        return Err(RecordsError::NewerSchema { found, known });
    }
    if found < known {
        return Err(RecordsError::Invalid(
            "the database is of an older version; start the cell once",
        ));
    }
    ask(&connection).map_err(|source| engine_fault("count", source))
}
