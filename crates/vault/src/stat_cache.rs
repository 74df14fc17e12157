//! What the last run saw: lets a run pass over files that did not change without opening them.
//!
//! SQLite, one row for each stretch of a directory's entries. A row is a cache and nothing else:
//! losing the file costs reading everything once. Two things make it safe:
//!
//! * **Times that are too fresh are not believed.** A file whose times lie within
//!   [`RACY_NANOSECONDS`] of the start of the run may change again within one tick of the file
//!   system's clock, so it is not recorded and is read again next time.
//! * **A record is believed only while its chunks are stored.** Rows carry the number of the run
//!   that wrote them; a run is trusted once everything it wrote was acknowledged, and only as long
//!   as the index has the same lineage, that is, has forgotten nothing since. Entries of other
//!   rows are used only after every chunk was looked up.

use std::collections::{HashSet, VecDeque};
use std::path::Path;

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use crate::sys::{FileKind, Status};

/// Version of the rows: another one empties the cache.
const CACHE_VERSION: i64 = 1;

/// How close to the start of a run a time may be before it is not believed, in nanoseconds: two
/// seconds cover FAT, the coarsest clock of a file system that people use.
pub const RACY_NANOSECONDS: i64 = 2_000_000_000;

/// Bytes after which a row ends, so that huge directories are many rows.
const BLOCK_TARGET_BYTES: usize = 64 * 1024;

/// Rows written before they are committed: bounds the write-ahead log and what a crash loses.
const COMMIT_ROWS: u32 = 1024;

/// Bytes of a record's numbers, without name and entry.
const FIXED_BYTES: usize = 1 + 3 * 4 + 5 * 8 + 4;

/// Why the cache could not be used.
#[derive(Debug, thiserror::Error)]
#[error("the cache of file states could not be read or written")]
pub struct StatCacheError(#[source] rusqlite::Error);

impl From<rusqlite::Error> for StatCacheError {
    fn from(error: rusqlite::Error) -> Self {
        Self(error)
    }
}

/// The cache, opened for one run.
#[derive(Debug)]
pub(crate) struct StatCache {
    connection: Connection,
    trusted: HashSet<i64>,
    run: i64,
    uncommitted: u32,
}

impl StatCache {
    /// Opens or creates the cache. A damaged one is removed and made anew. When the index has
    /// another lineage than last time, no row is trusted any more.
    pub(crate) fn open(path: &Path, lineage: [u8; 16]) -> Result<Self, StatCacheError> {
        match Self::try_open(path, lineage) {
            Err(StatCacheError(error)) if is_damage(&error) => {
                for suffix in ["", "-wal", "-shm"] {
                    let mut file = path.as_os_str().to_owned();
                    file.push(suffix);
                    // What cannot be removed shows up when the file is opened again.
                    let _ = std::fs::remove_file(file);
                }
                Self::try_open(path, lineage)
            }
            other => other,
        }
    }

    fn try_open(path: &Path, lineage: [u8; 16]) -> Result<Self, StatCacheError> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -4096;
             PRAGMA temp.synchronous = OFF;",
        )?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version != CACHE_VERSION {
            connection.execute_batch(
                "DROP TABLE IF EXISTS block; DROP TABLE IF EXISTS run; DROP TABLE IF EXISTS meta;
                 DROP TABLE IF EXISTS total;
                 CREATE TABLE block (directory BLOB NOT NULL, sequence INTEGER NOT NULL,
                     run INTEGER NOT NULL, data BLOB NOT NULL, UNIQUE (directory, sequence));
                 CREATE TABLE run (number INTEGER PRIMARY KEY, trusted INTEGER NOT NULL);
                 CREATE TABLE meta (lineage BLOB NOT NULL);
                 CREATE TABLE total (name TEXT PRIMARY KEY, files INTEGER NOT NULL, bytes INTEGER NOT NULL);",
            )?;
            connection.pragma_update(None, "user_version", CACHE_VERSION)?;
        }
        connection.execute_batch(
            "CREATE TEMP TABLE link (device INTEGER, inode INTEGER, stamp BLOB, entry BLOB,
                 PRIMARY KEY (device, inode)) WITHOUT ROWID;",
        )?;
        let known: Option<Vec<u8>> = connection
            .query_row("SELECT lineage FROM meta", [], |row| row.get(0))
            .optional()?;
        if known.as_deref() != Some(lineage.as_slice()) {
            connection.execute_batch("UPDATE run SET trusted = 0; DELETE FROM meta;")?;
            connection.execute("INSERT INTO meta VALUES (?1)", [lineage.as_slice()])?;
        }
        let last: i64 =
            connection.query_row("SELECT coalesce(max(number), 0) FROM run", [], |row| {
                row.get(0)
            })?;
        // The number is taken before the first row is written, so a crashed run's is never reused.
        connection.execute("INSERT INTO run VALUES (?1, 0)", [last + 1])?;
        let trusted = connection
            .prepare("SELECT number FROM run WHERE trusted = 1")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        connection.execute_batch("BEGIN")?;
        Ok(Self {
            connection,
            trusted,
            run: last + 1,
            uncommitted: 0,
        })
    }

    /// How much the last complete run of this backup set found: files and bytes.
    pub(crate) fn total(&self, set: &str) -> Result<Option<(u64, u64)>, StatCacheError> {
        let row = self
            .connection
            .query_row(
                "SELECT files, bytes FROM total WHERE name = ?1",
                [set],
                |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
            )
            .optional()?;
        Ok(row.map(|(files, bytes)| (files.unsigned_abs(), bytes.unsigned_abs())))
    }

    /// Ends the run. `complete` says that every chunk of every recorded entry was acknowledged.
    pub(crate) fn finish(self, complete: Option<(&str, u64, u64)>) -> Result<(), StatCacheError> {
        if let Some((set, files, bytes)) = complete {
            self.connection
                .execute("UPDATE run SET trusted = 1 WHERE number = ?1", [self.run])?;
            // A number that no row carries any more need not be kept. Rows live in one index.
            self.connection.execute(
                "INSERT OR REPLACE INTO total VALUES (?1, ?2, ?3)",
                params![set, saturate(files), saturate(bytes)],
            )?;
        }
        self.connection.execute_batch("COMMIT")?;
        Ok(())
    }

    fn block(
        &self,
        directory: &[u8],
        sequence: i64,
    ) -> Result<Option<(Vec<u8>, bool)>, StatCacheError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT run, data FROM block WHERE directory = ?1 AND sequence = ?2")?;
        let row = statement
            .query_row(params![directory, sequence], |row| {
                Ok((row.get::<_, i64>(0)?, row.get(1)?))
            })
            .optional()?;
        Ok(row.map(|(run, data)| (data, self.trusted.contains(&run))))
    }

    fn store(
        &mut self,
        directory: &[u8],
        sequence: i64,
        data: &[u8],
    ) -> Result<(), StatCacheError> {
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO block VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![directory, sequence, self.run, data])?;
        self.uncommitted += 1;
        if self.uncommitted >= COMMIT_ROWS {
            self.connection.execute_batch("COMMIT; BEGIN")?;
            self.uncommitted = 0;
        }
        Ok(())
    }

    /// Forgets a directory that is gone, with all below it.
    fn forget(&mut self, directory: &[u8]) -> Result<(), StatCacheError> {
        let mut below = directory.to_vec();
        below.push(b'/');
        let mut end = directory.to_vec();
        end.push(b'/' + 1);
        self.connection
            .prepare_cached(
                "DELETE FROM block WHERE directory = ?1 OR (directory >= ?2 AND directory < ?3)",
            )?
            .execute(params![directory, below, end])?;
        Ok(())
    }

    /// The entry that this run already stored for another name of the same file.
    pub(crate) fn linked(&self, status: &Status) -> Result<Option<Vec<u8>>, StatCacheError> {
        let row: Option<(Vec<u8>, Vec<u8>)> = self
            .connection
            .prepare_cached("SELECT stamp, entry FROM temp.link WHERE device = ?1 AND inode = ?2")?
            .query_row(
                params![as_signed(status.device), as_signed(status.inode)],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        Ok(row.and_then(|(stamp, entry)| (stamp == stamp_of(status)).then_some(entry)))
    }

    /// Remembers the entry of a file with several names, for this run.
    pub(crate) fn remember_link(
        &self,
        status: &Status,
        entry: &[u8],
    ) -> Result<(), StatCacheError> {
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO temp.link VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![
                as_signed(status.device),
                as_signed(status.inode),
                stamp_of(status),
                entry
            ])?;
        Ok(())
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

fn saturate(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// SQLite has no unsigned integers; the bits are kept.
fn as_signed(value: u64) -> i64 {
    i64::from_ne_bytes(value.to_ne_bytes())
}

fn kind_code(kind: FileKind) -> u8 {
    match kind {
        FileKind::File => 0,
        FileKind::Directory => 1,
        FileKind::Symlink => 2,
        FileKind::Fifo => 3,
        FileKind::Socket => 4,
        FileKind::CharacterDevice => 5,
        FileKind::BlockDevice => 6,
    }
}

/// What must be equal for a file to count as unchanged. A lone file keeps its state when the
/// system numbers its disks anew; for hard links the number is part of their group.
fn stamp_of(status: &Status) -> [u8; FIXED_BYTES] {
    let device = if status.links > 1 { status.device } else { 0 };
    let rdev = u64::from(status.device_major) << 32 | u64::from(status.device_minor);
    let mut out = [0; FIXED_BYTES];
    out[0] = kind_code(status.kind);
    for (place, number) in out[1..13]
        .chunks_exact_mut(4)
        .zip([status.mode, status.uid, status.gid])
    {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let times = [status.mtime, status.ctime].map(i64::to_le_bytes);
    out[13..21].copy_from_slice(&times[0]);
    out[21..29].copy_from_slice(&times[1]);
    let size = if status.kind == FileKind::CharacterDevice || status.kind == FileKind::BlockDevice {
        rdev
    } else {
        status.size
    };
    out[29..37].copy_from_slice(&size.to_le_bytes());
    out[37..45].copy_from_slice(&device.to_le_bytes());
    out[45..53].copy_from_slice(&status.inode.to_le_bytes());
    out[53..57].copy_from_slice(&status.links.min(2).to_le_bytes());
    out
}

/// One record of a row.
pub(crate) struct Record<'a> {
    pub(crate) name: &'a [u8],
    stamp: &'a [u8],
    /// Where its entry begins and ends.
    pub(crate) entry: (usize, usize),
    /// Where the next record begins.
    pub(crate) end: usize,
}

pub(crate) fn read_record(block: &[u8], at: usize) -> Option<Record<'_>> {
    let header = block.get(at..at + 6)?;
    let name_length = usize::from(u16::from_le_bytes([header[0], header[1]]));
    let entry_length = u32::from_le_bytes([header[2], header[3], header[4], header[5]]) as usize;
    let name_end = at + 6 + name_length;
    let stamp_end = name_end + FIXED_BYTES;
    let end = stamp_end.checked_add(entry_length)?;
    block.get(at..end)?;
    Some(Record {
        name: &block[at + 6..name_end],
        stamp: &block[name_end..stamp_end],
        entry: (stamp_end, end),
        end,
    })
}

/// An entry of an earlier run whose file did not change since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unchanged {
    entry: (usize, usize),
    /// Whether its chunks are known to be stored.
    pub(crate) trusted: bool,
}

/// The records of one directory: read in order of names, and written again as the run goes.
#[derive(Debug)]
pub(crate) struct DirectoryCache {
    directory: Vec<u8>,
    old: Vec<u8>,
    old_at: usize,
    old_sequence: i64,
    old_trusted: bool,
    old_end: bool,
    ahead: VecDeque<(Vec<u8>, bool)>,
    loaded: i64,
    exhausted: bool,
    new: Vec<u8>,
    new_sequence: i64,
}

impl DirectoryCache {
    /// Starts with the first records of `directory`, an absolute path.
    pub(crate) fn open(cache: &StatCache, directory: &[u8]) -> Result<Self, StatCacheError> {
        let mut this = Self {
            directory: directory.to_vec(),
            old: Vec::new(),
            old_at: 0,
            old_sequence: -1,
            old_trusted: false,
            old_end: false,
            ahead: VecDeque::new(),
            loaded: 0,
            exhausted: false,
            new: Vec::new(),
            new_sequence: 0,
        };
        this.load_next(cache)?;
        Ok(this)
    }

    /// Reads one more old row ahead of where the records are taken from.
    fn load(&mut self, cache: &StatCache) -> Result<(), StatCacheError> {
        match cache.block(&self.directory, self.loaded)? {
            Some(row) => {
                self.ahead.push_back(row);
                self.loaded += 1;
            }
            None => self.exhausted = true,
        }
        Ok(())
    }

    fn load_next(&mut self, cache: &StatCache) -> Result<(), StatCacheError> {
        if self.ahead.is_empty() && !self.exhausted {
            self.load(cache)?;
        }
        self.old_sequence += 1;
        self.old_at = 0;
        match self.ahead.pop_front() {
            Some((data, trusted)) => (self.old, self.old_trusted) = (data, trusted),
            None => (self.old, self.old_end) = (Vec::new(), true),
        }
        Ok(())
    }

    /// The record of `name` if the file did not change since. Names must be asked for in ascending
    /// order; directories that are passed by are gone, and are forgotten.
    pub(crate) fn lookup(
        &mut self,
        cache: &mut StatCache,
        name: &[u8],
        status: &Status,
    ) -> Result<Option<Unchanged>, StatCacheError> {
        while !self.old_end {
            let Some(record) = read_record(&self.old, self.old_at) else {
                self.load_next(cache)?;
                continue;
            };
            match record.name.cmp(name) {
                std::cmp::Ordering::Less => {
                    let gone = (record.entry.0 == record.entry.1).then(|| record.name.to_vec());
                    self.old_at = record.end;
                    if let Some(gone) = gone {
                        self.forget(cache, &gone)?;
                    }
                }
                std::cmp::Ordering::Equal => {
                    let same = record.entry.0 < record.entry.1 && record.stamp == stamp_of(status);
                    let (entry, trusted) = (record.entry, self.old_trusted);
                    let was_directory = record.entry.0 == record.entry.1;
                    self.old_at = record.end;
                    if was_directory && status.kind != FileKind::Directory {
                        self.forget(cache, name)?;
                    }
                    return Ok(same.then_some(Unchanged { entry, trusted }));
                }
                std::cmp::Ordering::Greater => return Ok(None),
            }
        }
        Ok(None)
    }

    fn forget(&self, cache: &mut StatCache, name: &[u8]) -> Result<(), StatCacheError> {
        let mut path = self.directory.clone();
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        cache.forget(&path)
    }

    /// The encoded entry of a record that [`Self::lookup`] just returned.
    pub(crate) fn entry(&self, unchanged: Unchanged) -> &[u8] {
        &self.old[unchanged.entry.0..unchanged.entry.1]
    }

    /// Records an entry for the next run. A directory is recorded with an empty entry.
    pub(crate) fn record(
        &mut self,
        cache: &mut StatCache,
        name: &[u8],
        status: &Status,
        entry: &[u8],
    ) -> Result<(), StatCacheError> {
        append_record(&mut self.new, name, status, entry);
        self.close_full(cache)
    }

    /// Records a directory, so that its rows are forgotten when it is gone. Its own state is no
    /// evidence of anything and is not kept.
    pub(crate) fn record_directory(
        &mut self,
        cache: &mut StatCache,
        name: &[u8],
    ) -> Result<(), StatCacheError> {
        append_raw(&mut self.new, name, &[0; FIXED_BYTES], &[]);
        self.close_full(cache)
    }

    /// Records an entry again that [`Self::lookup`] just returned.
    pub(crate) fn record_again(
        &mut self,
        cache: &mut StatCache,
        name: &[u8],
        status: &Status,
        unchanged: Unchanged,
    ) -> Result<(), StatCacheError> {
        let entry = &self.old[unchanged.entry.0..unchanged.entry.1];
        append_record(&mut self.new, name, status, entry);
        self.close_full(cache)
    }

    fn close_full(&mut self, cache: &mut StatCache) -> Result<(), StatCacheError> {
        if self.new.len() >= BLOCK_TARGET_BYTES {
            self.close_block(cache)?;
        }
        Ok(())
    }

    fn close_block(&mut self, cache: &mut StatCache) -> Result<(), StatCacheError> {
        // A row that is about to be overwritten is read first; there are more of them only while
        // a huge directory grows.
        while !self.exhausted && self.loaded <= self.new_sequence {
            self.load(cache)?;
        }
        let same =
            self.old_sequence == self.new_sequence && self.old_trusted && self.old == self.new;
        if !same {
            cache.store(&self.directory, self.new_sequence, &self.new)?;
        }
        self.new.clear();
        self.new_sequence += 1;
        Ok(())
    }

    /// Writes what is left and forgets rows and directories that are gone.
    pub(crate) fn finish(mut self, cache: &mut StatCache) -> Result<(), StatCacheError> {
        if !self.new.is_empty() {
            self.close_block(cache)?;
        }
        while !self.old_end {
            match read_record(&self.old, self.old_at) {
                Some(record) => {
                    let gone = (record.entry.0 == record.entry.1).then(|| record.name.to_vec());
                    self.old_at = record.end;
                    if let Some(gone) = gone {
                        self.forget(cache, &gone)?;
                    }
                }
                None => self.load_next(cache)?,
            }
        }
        if self.loaded > self.new_sequence {
            cache
                .connection
                .prepare_cached("DELETE FROM block WHERE directory = ?1 AND sequence >= ?2")?
                .execute(params![self.directory, self.new_sequence])?;
        }
        Ok(())
    }
}

fn append_record(out: &mut Vec<u8>, name: &[u8], status: &Status, entry: &[u8]) {
    append_raw(out, name, &stamp_of(status), entry);
}

fn append_raw(out: &mut Vec<u8>, name: &[u8], stamp: &[u8; FIXED_BYTES], entry: &[u8]) {
    let name_length = u16::try_from(name.len()).unwrap_or(u16::MAX);
    let entry_length = u32::try_from(entry.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&name_length.to_le_bytes());
    out.extend_from_slice(&entry_length.to_le_bytes());
    out.extend_from_slice(name);
    out.extend_from_slice(stamp);
    out.extend_from_slice(entry);
}
