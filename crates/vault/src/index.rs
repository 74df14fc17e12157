//! The device's local index: where every chunk lies, in SQLite.
//!
//! It holds nothing that the cell's index objects and the run's own packs do not say, so it is
//! written without waiting for the disk (WAL, `synchronous=NORMAL`), and a damaged file is deleted
//! and made again with [`crate::Repository::open`]. Only the end of a run waits for the disk: the
//! stat cache's word that a file is stored must not outlive the index's. A pack goes through three states. *Pending*: it
//! is about to be sent; its chunks are not in the index, so that a crash never leaves a claim about
//! something that is not on the cell. *Acknowledged*: the cell has it; its chunks count, but no
//! manifest lists it yet. *Listed*: an index object of the vault's manifest lists it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use candor_wire::limits::{HAS_MAX_IDS, RESCUED_MAX};
use candor_wire::{AccountId, ObjectId, VaultId};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params};

use crate::bloom::Bloom;
use crate::chunk::ChunkId;
use crate::entropy::{Entropy, EntropyError};
use crate::index_object;
use crate::manifest::IndexReference;
use crate::pack::{Stream, Table};
use crate::ports::{ObjectSource, Presence, SourceError};

/// Version of the database's tables. Another one is treated like damage: the index is made again.
const SCHEMA_VERSION: i64 = 1;

/// How long one connection waits for another of this process, in milliseconds.
const BUSY_TIMEOUT_MS: u64 = 10_000;

/// How much of the database SQLite keeps in memory for each connection, in KiB.
const CACHE_KIB: i64 = 4 * 1024;

/// How many questions a run asks before the filter of known chunks is worth a scan of the table.
const BLOOM_AFTER_LOOKUPS: u32 = 256;

const STATE_PENDING: i64 = 0;
const STATE_ACKNOWLEDGED: i64 = 1;
const STATE_LISTED: i64 = 2;

const SCHEMA: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE index_object (
    number INTEGER PRIMARY KEY, object BLOB NOT NULL UNIQUE, body_bytes INTEGER NOT NULL);
CREATE TABLE pack (
    number INTEGER PRIMARY KEY, object BLOB NOT NULL UNIQUE, stream INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL, state INTEGER NOT NULL, listed_by INTEGER, contents BLOB NOT NULL);
CREATE INDEX pack_listed_by ON pack (listed_by);
CREATE TABLE chunk (
    id BLOB PRIMARY KEY, pack INTEGER NOT NULL, frame INTEGER NOT NULL,
    start INTEGER NOT NULL, length INTEGER NOT NULL) WITHOUT ROWID;
";

/// Why the local index could not be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The database is damaged, or of another version. Delete the file: it is made again from the
    /// cell, and nothing is lost but time.
    #[error("the local index is damaged")]
    Damaged(#[source] Option<rusqlite::Error>),
    /// The database is the index of another vault.
    #[error("the local index belongs to another vault")]
    OtherVault,
    /// The database could not be read or written: a full disk, a missing directory, a lock.
    #[error("the local index could not be read or written")]
    Storage(#[source] rusqlite::Error),
    /// The operating system gave no random bytes.
    #[error("the local index could not be made")]
    Entropy(#[source] EntropyError),
    /// The cell could not be asked which packs it has.
    #[error("the cell could not be asked which packs it has")]
    Source(#[source] SourceError),
}

impl From<rusqlite::Error> for IndexError {
    fn from(error: rusqlite::Error) -> Self {
        let damaged = match &error {
            rusqlite::Error::SqliteFailure(failure, _) => {
                matches!(
                    failure.code,
                    ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase
                )
            }
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::QueryReturnedNoRows => true,
            _ => false,
        };
        if damaged {
            Self::Damaged(Some(error))
        } else {
            Self::Storage(error)
        }
    }
}

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The pack.
    pub pack: ObjectId,
    /// The pack's number in this index: order by it, then by frame, to read in storage order.
    pub pack_number: i64,
    /// The frame within the pack.
    pub frame: u32,
    /// Offset in the frame's plaintext, in bytes.
    pub offset: u32,
    /// Length, in bytes.
    pub length: u32,
}

/// A pack that the cell has, as the index lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackRow {
    /// Number in this index.
    pub number: i64,
    /// The sealed object.
    pub object: ObjectId,
    /// What it holds.
    pub stream: Stream,
    /// Size of the sealed object, in bytes.
    pub stored_bytes: u64,
}

/// A pack with its encoded table, for an index object.
pub(crate) struct PackContents {
    pub(crate) object: ObjectId,
    pub(crate) stored_bytes: u32,
    pub(crate) table: Vec<u8>,
}

struct State {
    connection: Connection,
    bloom: Option<Bloom>,
    lookups: u32,
}

/// The local index of one vault. Shared between threads; each call takes a lock for its duration.
pub struct Index {
    path: PathBuf,
    state: Mutex<State>,
}

impl Index {
    /// Opens the index, or makes an empty one where there is no file. The directory must exist.
    pub fn open(
        path: &Path,
        account: AccountId,
        vault: VaultId,
        entropy: &dyn Entropy,
    ) -> Result<Self, IndexError> {
        let mut connection = connect(path)?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            0 => create(&mut connection, account, vault, entropy)?,
            SCHEMA_VERSION => check_owner(&connection, account, vault)?,
            _ => return Err(IndexError::Damaged(None)),
        }
        let state = Mutex::new(State {
            connection,
            bloom: None,
            lookups: 0,
        });
        Ok(Self {
            path: path.to_owned(),
            state,
        })
    }

    /// Deletes the index with the files that SQLite keeps beside it. Nothing may have it open.
    pub fn delete(path: &Path) -> std::io::Result<()> {
        for suffix in ["", "-wal", "-shm"] {
            let mut file = path.as_os_str().to_owned();
            file.push(suffix);
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves no half-made state here: SQLite rolls its transaction back.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A random value that changes whenever the index forgets chunks, and with every rebuild. While
    /// it stays the same, every chunk that was known is known: a cache that stores it beside its
    /// entries need not look each chunk up again.
    pub fn lineage(&self) -> Result<[u8; 16], IndexError> {
        let state = self.lock();
        let value: Vec<u8> = state.connection.query_row(
            "SELECT value FROM meta WHERE name = 'lineage'",
            [],
            |row| row.get(0),
        )?;
        value.try_into().map_err(|_| IndexError::Damaged(None))
    }

    /// Whether the cell is known to have the chunk.
    pub fn contains(&self, id: &ChunkId) -> Result<bool, IndexError> {
        has_chunk(&self.lock().connection, id)
    }

    /// Like [`Index::contains`], for runs that ask about many new chunks: after some questions a
    /// filter is made that answers most of them.
    pub(crate) fn contains_while_writing(&self, id: &ChunkId) -> Result<bool, IndexError> {
        let mut state = self.lock();
        if state.bloom.is_none() {
            state.lookups += 1;
            if state.lookups > BLOOM_AFTER_LOOKUPS {
                state.bloom = Some(filter_of_all(&state.connection)?);
            }
        }
        match &state.bloom {
            Some(bloom) if !bloom.may_contain(id) => Ok(false),
            _ => has_chunk(&state.connection, id),
        }
    }

    /// Tells the filter about chunks that another connection recorded.
    pub(crate) fn note<'a>(&self, ids: impl Iterator<Item = &'a ChunkId>) {
        if let Some(bloom) = &mut self.lock().bloom {
            ids.for_each(|id| bloom.insert(id));
        }
    }

    /// Where the chunk lies, if the cell is known to have it.
    pub fn locate(&self, id: &ChunkId) -> Result<Option<Place>, IndexError> {
        let state = self.lock();
        let mut statement = state.connection.prepare_cached(
            "SELECT pack.object, chunk.pack, frame, start, length
             FROM chunk JOIN pack ON pack.number = chunk.pack WHERE id = ?1",
        )?;
        let row = statement.query_row([id.as_bytes().as_slice()], |row| {
            Ok((
                row.get::<_, [u8; 32]>(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
            ))
        });
        Ok(row
            .optional()?
            .map(|(pack, pack_number, frame, offset, length)| Place {
                pack: ObjectId::from_bytes(pack),
                pack_number,
                frame,
                offset,
                length,
            }))
    }

    /// Packs that the cell has acknowledged, ascending by number: those with a number greater than
    /// `after` (start with 0), at most `limit`.
    pub fn packs(&self, after: i64, limit: usize) -> Result<Vec<PackRow>, IndexError> {
        let state = self.lock();
        let mut statement = state.connection.prepare_cached(
            "SELECT number, object, stream, stored_bytes FROM pack
             WHERE number > ?1 AND state <> 0 ORDER BY number LIMIT ?2",
        )?;
        let rows = statement.query_map(params![after, limit as i64], |row| {
            Ok((
                row.get(0)?,
                row.get::<_, [u8; 32]>(1)?,
                row.get::<_, u8>(2)?,
                row.get::<_, u32>(3)?,
            ))
        })?;
        rows.map(|row| {
            let (number, object, stream, stored_bytes) = row?;
            let stream = Stream::from_byte(stream).ok_or(IndexError::Damaged(None))?;
            let object = ObjectId::from_bytes(object);
            Ok(PackRow {
                number,
                object,
                stream,
                stored_bytes: u64::from(stored_bytes),
            })
        })
        .collect()
    }

    /// Makes everything that was recorded until now durable: with `synchronous=NORMAL` it is the
    /// checkpoint that waits for the disk. Called before anything durable may rely on it.
    pub(crate) fn persist(&self) -> Result<(), IndexError> {
        let state = self.lock();
        let checkpoint = "PRAGMA wal_checkpoint(PASSIVE)";
        Ok(state.connection.query_row(checkpoint, [], |_| Ok(()))?)
    }

    /// A second connection, for the threads that send packs.
    pub(crate) fn recorder(&self) -> Result<Recorder, IndexError> {
        Ok(Recorder {
            connection: connect(&self.path)?,
        })
    }

    /// Settles packs that no manifest lists: those that the cell has count as acknowledged, also those that were
    /// only about to be sent when an earlier run ended; the others are forgotten. Another device may have found
    /// that nobody needs them: of those that are condemned, the first [`RESCUED_MAX`] stay and are told, to be
    /// rescued by the head that lists them.
    pub(crate) fn settle(
        &self,
        source: &dyn ObjectSource,
        entropy: &dyn Entropy,
    ) -> Result<Vec<ObjectId>, IndexError> {
        self.settle_where("state <> 2", RESCUED_MAX, source, entropy)
    }

    /// The same for all packs, for a device that can rescue nothing: what is condemned is forgotten like what is
    /// gone. Without `keeps_unlisted`, packs that no manifest lists are forgotten in any case.
    pub(crate) fn settle_all(
        &self,
        keeps_unlisted: bool,
        source: &dyn ObjectSource,
        entropy: &dyn Entropy,
    ) -> Result<(), IndexError> {
        if !keeps_unlisted {
            let mut state = self.lock();
            let transaction = state.connection.transaction()?;
            if transaction.execute("DELETE FROM pack WHERE state <> 2", [])? > 0 {
                rebuild_chunks(&transaction)?;
                write_lineage(&transaction, entropy)?;
            }
            transaction.commit()?;
            state.bloom = None;
        }
        self.settle_where("1", 0, source, entropy).map(|_| ())
    }

    fn settle_where(
        &self,
        which: &str,
        rescued_max: usize,
        source: &dyn ObjectSource,
        entropy: &dyn Entropy,
    ) -> Result<Vec<ObjectId>, IndexError> {
        let unlisted = {
            let state = self.lock();
            let mut statement = state.connection.prepare(&format!(
                "SELECT number, object, state FROM pack WHERE {which}"
            ))?;
            let rows = statement.query_map([], |row| {
                Ok((row.get(0)?, row.get::<_, [u8; 32]>(1)?, row.get(2)?))
            })?;
            rows.collect::<Result<Vec<(i64, [u8; 32], i64)>, _>>()?
        };
        let mut condemned = Vec::new();
        for page in unlisted.chunks(HAS_MAX_IDS) {
            let objects: Vec<_> = page
                .iter()
                .map(|(_, id, _)| ObjectId::from_bytes(*id))
                .collect();
            let answers = source.has(&objects).map_err(IndexError::Source)?;
            let mut state = self.lock();
            let transaction = state.connection.transaction()?;
            let mut forgotten = false;
            for (at, (number, _, was)) in page.iter().enumerate() {
                let is_condemned = match answers.get(at) {
                    Some(Presence::Stored) => false,
                    Some(Presence::Condemned) if condemned.len() < rescued_max => true,
                    _ => {
                        transaction.execute("DELETE FROM pack WHERE number = ?1", [number])?;
                        forgotten |= *was != STATE_PENDING;
                        continue;
                    }
                };
                if is_condemned {
                    condemned.push(objects[at]);
                }
                if *was == STATE_PENDING {
                    acknowledge(&transaction, *number)?;
                }
            }
            if forgotten {
                rebuild_chunks(&transaction)?;
                write_lineage(&transaction, entropy)?;
            }
            transaction.commit()?;
            state.bloom = None;
        }
        Ok(condemned)
    }

    /// The index objects whose packs are all here.
    pub(crate) fn index_objects(&self) -> Result<Vec<ObjectId>, IndexError> {
        let state = self.lock();
        let mut statement = state
            .connection
            .prepare("SELECT object FROM index_object")?;
        let rows = statement.query_map([], |row| row.get::<_, [u8; 32]>(0))?;
        Ok(rows
            .map(|row| row.map(ObjectId::from_bytes))
            .collect::<Result<_, _>>()?)
    }

    /// Takes over an index object's body: all of its packs, or none. One of an older manifest (`is_older`) lists
    /// only packs that nothing else does: those of the present state stay where they are.
    pub(crate) fn add_index_object(
        &self,
        reference: &IndexReference,
        body: &[u8],
        is_older: bool,
    ) -> Result<Result<(), index_object::IndexObjectError>, IndexError> {
        let entries = match index_object::read(body) {
            Ok(entries) => entries,
            Err(error) => return Ok(Err(error)),
        };
        let mut state = self.lock();
        let transaction = state.connection.transaction()?;
        let listed_by = insert_index_object(&transaction, reference)?;
        for entry in entries {
            let (entry, table) = match entry {
                Ok(entry) => entry,
                Err(error) => return Ok(Err(error)),
            };
            let known: Option<(i64, i64)> = transaction
                .prepare_cached("SELECT number, state FROM pack WHERE object = ?1")?
                .query_row([entry.object.as_bytes().as_slice()], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            if is_older && known.is_some_and(|(_, state)| state != STATE_PENDING) {
                continue;
            }
            if let Some((number, state)) = known {
                list(&transaction, number, listed_by)?;
                if state == STATE_PENDING {
                    insert_chunks(&transaction, number, &table)?;
                }
                continue;
            }
            transaction
                .prepare_cached(
                    "INSERT INTO pack (object, stream, stored_bytes, state, listed_by, contents)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![
                    entry.object.as_bytes().as_slice(),
                    table.stream as u8,
                    entry.stored_bytes,
                    STATE_LISTED,
                    listed_by,
                    entry.table
                ])?;
            insert_chunks(&transaction, transaction.last_insert_rowid(), &table)?;
        }
        transaction.commit()?;
        state.bloom = None;
        Ok(Ok(()))
    }

    /// Forgets index objects that the manifest no longer names, and the packs that only they listed.
    pub(crate) fn forget_index_objects(
        &self,
        gone: &[ObjectId],
        entropy: &dyn Entropy,
    ) -> Result<(), IndexError> {
        if gone.is_empty() {
            return Ok(());
        }
        let mut state = self.lock();
        let transaction = state.connection.transaction()?;
        let mut forgotten = 0;
        for object in gone {
            let object = object.as_bytes().as_slice();
            forgotten += transaction.execute(
                "DELETE FROM pack WHERE listed_by =
                     (SELECT number FROM index_object WHERE object = ?1)",
                [object],
            )?;
            transaction.execute("DELETE FROM index_object WHERE object = ?1", [object])?;
        }
        if forgotten > 0 {
            // A chunk may lie in several packs while the table names one of them: only the packs'
            // own tables tell which chunks are still somewhere.
            rebuild_chunks(&transaction)?;
            write_lineage(&transaction, entropy)?;
        }
        transaction.commit()?;
        state.bloom = None;
        Ok(())
    }

    /// Packs that the cell has and no manifest lists: number, and length of the encoded table.
    pub(crate) fn unlisted(&self) -> Result<Vec<(i64, usize)>, IndexError> {
        self.packs_where("state = 1 AND ?1 IS NULL", None)
    }

    /// Packs of an index object: number, and length of the encoded table.
    pub(crate) fn listed_by(&self, object: &ObjectId) -> Result<Vec<(i64, usize)>, IndexError> {
        self.packs_where(
            "listed_by = (SELECT number FROM index_object WHERE object = ?1)",
            Some(object),
        )
    }

    fn packs_where(
        &self,
        condition: &str,
        object: Option<&ObjectId>,
    ) -> Result<Vec<(i64, usize)>, IndexError> {
        let state = self.lock();
        let mut statement = state.connection.prepare(&format!(
            "SELECT number, length(contents) FROM pack WHERE {condition} ORDER BY number"
        ))?;
        let object = object.map(|object| object.as_bytes().as_slice());
        let rows = statement.query_map([object], |row| {
            Ok((row.get(0)?, row.get::<_, u32>(1)? as usize))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A pack with its encoded table.
    pub(crate) fn contents(&self, number: i64) -> Result<PackContents, IndexError> {
        self.find_contents(number)?.ok_or(IndexError::Damaged(None))
    }

    fn find_contents(&self, number: i64) -> Result<Option<PackContents>, IndexError> {
        let state = self.lock();
        let mut statement = state
            .connection
            .prepare_cached("SELECT object, stored_bytes, contents FROM pack WHERE number = ?1")?;
        let found = statement.query_row([number], |row| {
            Ok(PackContents {
                object: ObjectId::from_bytes(row.get(0)?),
                stored_bytes: row.get(1)?,
                table: row.get(2)?,
            })
        });
        Ok(found.optional()?)
    }

    /// The contents of the pack at a place; `None` if that pack has gone since the place was looked up.
    pub(crate) fn contents_at(&self, place: &Place) -> Result<Option<PackContents>, IndexError> {
        let found = self.find_contents(place.pack_number)?;
        Ok(found.filter(|found| found.object == place.pack))
    }

    /// The head moved: `new` index objects list these packs now, and only `live` ones count. Packs that none of
    /// these lists are forgotten, and so are those in `gone`.
    pub(crate) fn accept(
        &self,
        new: &[(IndexReference, Vec<i64>)],
        live: &[IndexReference],
        gone: &[i64],
        entropy: &dyn Entropy,
    ) -> Result<(), IndexError> {
        let known = self.index_objects()?;
        let mut state = self.lock();
        let transaction = state.connection.transaction()?;
        for (reference, packs) in new {
            let listed_by = insert_index_object(&transaction, reference)?;
            for &number in packs {
                list(&transaction, number, listed_by)?;
            }
        }
        let live: std::collections::HashSet<_> = live.iter().map(|live| live.object).collect();
        for object in known.iter().filter(|object| !live.contains(object)) {
            let object = object.as_bytes().as_slice();
            transaction.execute("DELETE FROM index_object WHERE object = ?1", [object])?;
        }
        let mut forgotten = transaction.execute(
            "DELETE FROM pack WHERE state = 2
               AND listed_by NOT IN (SELECT number FROM index_object)",
            [],
        )?;
        for number in gone {
            forgotten += transaction.execute("DELETE FROM pack WHERE number = ?1", [number])?;
        }
        if forgotten > 0 {
            rebuild_chunks(&transaction)?;
            write_lineage(&transaction, entropy)?;
        }
        transaction.commit()?;
        if forgotten > 0 {
            state.bloom = None;
        }
        Ok(())
    }
}

/// Records what becomes of a run's packs.
pub(crate) struct Recorder {
    connection: Connection,
}

impl Recorder {
    /// The pack is about to be sent. Returns its number.
    pub(crate) fn pending(
        &mut self,
        object: ObjectId,
        stored_bytes: usize,
        table: &Table,
    ) -> Result<i64, IndexError> {
        self.connection
            .prepare_cached(
                "INSERT INTO pack (object, stream, stored_bytes, state, contents)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                object.as_bytes().as_slice(),
                table.stream as u8,
                stored_bytes as i64,
                STATE_PENDING,
                table.encode()
            ])?;
        Ok(self.connection.last_insert_rowid())
    }

    /// The cell has the pack: its chunks count from now on.
    pub(crate) fn acknowledged(&mut self, number: i64) -> Result<(), IndexError> {
        let transaction = self.connection.transaction()?;
        acknowledge(&transaction, number)?;
        Ok(transaction.commit()?)
    }
}

fn connect(path: &Path) -> Result<Connection, IndexError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

fn create(
    connection: &mut Connection,
    account: AccountId,
    vault: VaultId,
    entropy: &dyn Entropy,
) -> Result<(), IndexError> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    let owner = [account.as_bytes().as_slice(), vault.as_bytes()].concat();
    transaction.execute(
        "INSERT INTO meta (name, value) VALUES ('owner', ?1)",
        [owner],
    )?;
    write_lineage(&transaction, entropy)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    Ok(transaction.commit()?)
}

fn check_owner(
    connection: &Connection,
    account: AccountId,
    vault: VaultId,
) -> Result<(), IndexError> {
    let owner: Vec<u8> =
        connection.query_row("SELECT value FROM meta WHERE name = 'owner'", [], |row| {
            row.get(0)
        })?;
    if owner == [account.as_bytes().as_slice(), vault.as_bytes()].concat() {
        Ok(())
    } else {
        Err(IndexError::OtherVault)
    }
}

fn write_lineage(transaction: &Transaction<'_>, entropy: &dyn Entropy) -> Result<(), IndexError> {
    let mut lineage = [0u8; 16];
    entropy.fill(&mut lineage).map_err(IndexError::Entropy)?;
    transaction.execute(
        "INSERT INTO meta (name, value) VALUES ('lineage', ?1)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [lineage.as_slice()],
    )?;
    Ok(())
}

fn has_chunk(connection: &Connection, id: &ChunkId) -> Result<bool, IndexError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM chunk WHERE id = ?1")?;
    Ok(statement.exists([id.as_bytes().as_slice()])?)
}

fn filter_of_all(connection: &Connection) -> Result<Bloom, IndexError> {
    let mut bloom = Bloom::new();
    let mut statement = connection.prepare("SELECT id FROM chunk")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        bloom.insert(&ChunkId::from_bytes(row.get(0)?));
    }
    Ok(bloom)
}

fn insert_index_object(
    transaction: &Transaction<'_>,
    reference: &IndexReference,
) -> Result<i64, IndexError> {
    let body_bytes = i64::try_from(reference.body_bytes).unwrap_or(i64::MAX);
    transaction.execute(
        "INSERT INTO index_object (object, body_bytes) VALUES (?1, ?2)",
        params![reference.object.as_bytes().as_slice(), body_bytes],
    )?;
    Ok(transaction.last_insert_rowid())
}

fn list(transaction: &Transaction<'_>, number: i64, listed_by: i64) -> Result<(), IndexError> {
    transaction
        .prepare_cached("UPDATE pack SET state = ?1, listed_by = ?2 WHERE number = ?3")?
        .execute(params![STATE_LISTED, listed_by, number])?;
    Ok(())
}

fn acknowledge(transaction: &Transaction<'_>, number: i64) -> Result<(), IndexError> {
    let contents: Vec<u8> = transaction
        .prepare_cached("SELECT contents FROM pack WHERE number = ?1")?
        .query_row([number], |row| row.get(0))?;
    let table = Table::decode(&contents).map_err(|_| IndexError::Damaged(None))?;
    transaction
        .prepare_cached("UPDATE pack SET state = ?1 WHERE number = ?2")?
        .execute(params![STATE_ACKNOWLEDGED, number])?;
    insert_chunks(transaction, number, &table)
}

fn insert_chunks(
    transaction: &Transaction<'_>,
    number: i64,
    table: &Table,
) -> Result<(), IndexError> {
    let mut statement = transaction.prepare_cached(
        "INSERT OR IGNORE INTO chunk (id, pack, frame, start, length) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for (frame_number, frame) in table.frames.iter().enumerate() {
        for chunk in &table.chunks[frame.chunks.clone()] {
            statement.execute(params![
                chunk.id.as_bytes().as_slice(),
                number,
                frame_number as i64,
                chunk.offset,
                chunk.length
            ])?;
        }
    }
    Ok(())
}

fn rebuild_chunks(transaction: &Transaction<'_>) -> Result<(), IndexError> {
    transaction.execute("DELETE FROM chunk", [])?;
    let mut statement = transaction
        .prepare("SELECT number, contents FROM pack WHERE state <> 0 ORDER BY number")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let contents: Vec<u8> = row.get(1)?;
        let table = Table::decode(&contents).map_err(|_| IndexError::Damaged(None))?;
        insert_chunks(transaction, row.get(0)?, &table)?;
    }
    Ok(())
}
