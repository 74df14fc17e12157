//! A set of hashes that may be larger than memory: a private temporary database.

use rusqlite::Connection;

use crate::node::References;

/// How much of the database SQLite keeps in memory, in KiB.
const CACHE_KIB: i64 = 16 * 1024;

/// A set of hashes, on disk where it grows. Ends with the value.
pub(crate) struct SeenSet {
    connection: Connection,
}

impl SeenSet {
    /// An empty set. The empty name is SQLite's private file that ends with the connection.
    pub(crate) fn new() -> Result<Self, rusqlite::Error> {
        let connection = Connection::open("")?;
        connection.execute_batch(&format!(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -{CACHE_KIB};
             CREATE TABLE seen (key BLOB PRIMARY KEY) WITHOUT ROWID; BEGIN;"
        ))?;
        Ok(Self { connection })
    }

    /// Adds a hash; `true` if it was not there yet.
    pub(crate) fn add(&self, key: &[u8; 32]) -> Result<bool, rusqlite::Error> {
        let mut insert = self
            .connection
            .prepare_cached("INSERT OR IGNORE INTO seen VALUES (?1)")?;
        Ok(insert.execute([key.as_slice()])? == 1)
    }

    /// Whether a hash is there.
    pub(crate) fn has(&self, key: &[u8; 32]) -> Result<bool, rusqlite::Error> {
        let mut select = self
            .connection
            .prepare_cached("SELECT 1 FROM seen WHERE key = ?1")?;
        select.exists([key.as_slice()])
    }
}

/// Tells a directory from others: the hash of its parts.
pub(crate) fn directory_key(parts: &References) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[parts.levels]);
    for reference in &parts.list {
        hasher.update(reference.id.as_bytes());
    }
    *hasher.finalize().as_bytes()
}
