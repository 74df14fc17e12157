//! The device's own database: backup sets and their runs, the cached chain, withdrawals on their way, and
//! how far the cell's log was watched.
//!
//! SQLite in WAL mode with `synchronous=FULL`: what a call wrote is durable when it returns. The
//! cached chain is checked again whenever it is loaded, so that nothing that somebody writes into
//! this file can make a consent or a device. It holds no secrets; names of folders are in it, and
//! the file is readable by its owner alone.

mod drills;
mod folders;
mod log;
mod snapshots;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use candor_wire::cbor::{self, Canonical as _};
use candor_wire::cell::{CELL_KEYS_MAX, SignedCellKeys};
use candor_wire::chain::{CHAIN_MAX_ENTRIES, ConsentEntry, Record};
use candor_wire::consent_record::ServiceCode;
use candor_wire::{Millis, VaultId};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

/// Marks the file as this database (SQLite's `application_id`): "CNDd".
const APPLICATION_ID: i32 = 0x434e_4464;

pub use drills::Drill;
pub use folders::{FOLDERS_MAX, SyncedFolder};
pub use log::{LogFinding, Watched};
pub use snapshots::Vanished;

/// The version of the schema that this build writes. Earlier ones are brought up to it: version 1 has no tables of
/// the log, version 2 not the one of its witnesses' silence, version 3 none of snapshots, version 4 none of folders,
/// version 5 none of drills.
pub const DEVICE_STORE_VERSION: i32 = 6;

/// How long a statement waits for another process that reads the file, in milliseconds. Nobody else
/// writes: the home's lock sees to that.
const BUSY_TIMEOUT_MS: u64 = 5_000;

/// Most backup sets of one device: each has a vault of its own, and an account has 1,024.
pub const SETS_MAX: usize = 256;

/// Why the device's database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceStoreError {
    /// It is not such a database, or its pages contradict each other.
    #[error("the device's database {} is damaged", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: Option<rusqlite::Error>,
    },
    /// Another process holds it.
    #[error("the device's database {} is locked by another process", .path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// It was written by a newer or a far older program.
    #[error("the device's database {} has version {version}, which is not accepted", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version found.
        version: i32,
    },
    /// It cannot be read or written: a full disk, missing rights.
    #[error("the device's database {} cannot be read or written", .path.display())]
    Storage {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is a set of this name.
    #[error("there is a backup set named {name:?} already")]
    SetExists {
        /// The name.
        name: String,
    },
    /// There is no set of this name.
    #[error("there is no backup set named {name:?}")]
    NoSuchSet {
        /// The name.
        name: String,
    },
    /// Too many sets.
    #[error("a device has at most {SETS_MAX} backup sets")]
    TooManySets,
    /// There is a synced folder of this name.
    #[error("there is a synced folder named {name:?} already")]
    FolderExists {
        /// The name.
        name: String,
    },
    /// There is no synced folder of this name.
    #[error("there is no synced folder named {name:?}")]
    NoFolder {
        /// The name.
        name: String,
    },
    /// Too many synced folders.
    #[error("a device has at most {FOLDERS_MAX} synced folders")]
    TooManyFolders,
}

/// A backup set as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSet {
    /// Its name, unique on this device.
    pub name: String,
    /// Its vault, once consent was asked for it.
    pub vault: Option<VaultId>,
    /// Absolute paths.
    pub paths: Vec<PathBuf>,
    /// Globs in gitignore syntax.
    pub excludes: Vec<String>,
    /// When it was added.
    pub added: Millis,
    /// What became of its runs.
    pub runs: RunState,
}

/// What became of the runs of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunState {
    /// When the newest run began that has not ended well; `None` after one that did.
    pub unfinished: Option<Millis>,
    /// When the newest run ended well.
    pub succeeded: Option<Millis>,
    /// How many files the newest run that ended well could not back up.
    pub problems: u64,
}

/// A withdrawal that holds on this device and that the cell has not acknowledged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingWithdrawal {
    /// The service.
    pub service: ServiceCode,
    /// The vault; `None` for all.
    pub vault: Option<VaultId>,
    /// When the person said so.
    pub time: Millis,
    /// How long the chain was then: it ends what was given before this place, and nothing later.
    pub before: u64,
}

impl PendingWithdrawal {
    /// [`Self::before`] of a withdrawal that also ends a yes whose answer never came: it may stand
    /// anywhere in the chain by the time the cell is told.
    pub const ANYWHERE: u64 = i64::MAX.unsigned_abs();

    /// Whether it ends this consent.
    pub fn ends(&self, consent: &ConsentEntry) -> bool {
        consent.sequence < self.before
            && consent.record.service == self.service
            && (self.vault.is_none() || consent.record.vault == self.vault)
    }
}

/// The open database. One thread at a time.
pub struct DeviceStore {
    connection: Connection,
    path: PathBuf,
}

const SCHEMA: &str = "
CREATE TABLE backup_set (
    name TEXT PRIMARY KEY, vault BLOB, added_ms INTEGER NOT NULL,
    unfinished_ms INTEGER, succeeded_ms INTEGER, problems INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE set_path (
    name TEXT NOT NULL REFERENCES backup_set (name) ON DELETE CASCADE,
    place INTEGER NOT NULL, path BLOB NOT NULL, PRIMARY KEY (name, place)
) STRICT, WITHOUT ROWID;
CREATE TABLE set_exclude (
    name TEXT NOT NULL REFERENCES backup_set (name) ON DELETE CASCADE,
    place INTEGER NOT NULL, glob TEXT NOT NULL, PRIMARY KEY (name, place)
) STRICT, WITHOUT ROWID;
CREATE TABLE chain (sequence INTEGER PRIMARY KEY, record BLOB NOT NULL) STRICT;
CREATE TABLE cell_keys (place INTEGER PRIMARY KEY, signed BLOB NOT NULL) STRICT;
CREATE TABLE withdrawal (
    number INTEGER PRIMARY KEY, service INTEGER NOT NULL, vault BLOB, time_ms INTEGER NOT NULL,
    before INTEGER NOT NULL
) STRICT;
CREATE TABLE unanswered (service INTEGER PRIMARY KEY) STRICT;
";

impl DeviceStore {
    /// Opens the database, making it if there is none.
    pub fn open(path: &Path) -> Result<Self, DeviceStoreError> {
        let storage = |source: std::io::Error| DeviceStoreError::Storage {
            path: path.to_owned(),
            source: Box::new(source),
        };
        // Made here and not by SQLite, so that nobody else can ever read it.
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .read(true)
            .mode(0o600)
            .open(path)
            .map_err(storage)?;
        let connection = Connection::open(path).map_err(|source| fault(path, source))?;
        let mut store = Self {
            connection,
            path: path.to_owned(),
        };
        store.prepare()?;
        Ok(store)
    }

    fn prepare(&mut self) -> Result<(), DeviceStoreError> {
        self.run(|connection| {
            connection.busy_timeout(Duration::from_millis(BUSY_TIMEOUT_MS))?;
            connection.pragma_update(None, "trusted_schema", false)?;
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "foreign_keys", true)
        })?;
        let (application, version): (i32, i32) = self.run(|connection| {
            Ok((
                connection.pragma_query_value(None, "application_id", |row| row.get(0))?,
                connection.pragma_query_value(None, "user_version", |row| row.get(0))?,
            ))
        })?;
        match (application, version) {
            (0, 0) => self.write(|transaction| {
                transaction.execute_batch(SCHEMA)?;
                transaction.execute_batch(log::SCHEMA)?;
                transaction.execute_batch(log::SCHEMA_3)?;
                transaction.execute_batch(snapshots::SCHEMA_4)?;
                transaction.execute_batch(folders::SCHEMA_5)?;
                transaction.execute_batch(drills::SCHEMA_6)?;
                transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
                transaction.pragma_update(None, "user_version", DEVICE_STORE_VERSION)
            }),
            (APPLICATION_ID, DEVICE_STORE_VERSION) => Ok(()),
            (APPLICATION_ID, 1..=5) => self.write(|transaction| {
                if version < 2 {
                    transaction.execute_batch(log::SCHEMA)?;
                }
                if version < 3 {
                    transaction.execute_batch(log::SCHEMA_3)?;
                }
                if version < 4 {
                    transaction.execute_batch(snapshots::SCHEMA_4)?;
                }
                if version < 5 {
                    transaction.execute_batch(folders::SCHEMA_5)?;
                }
                transaction.execute_batch(drills::SCHEMA_6)?;
                transaction.pragma_update(None, "user_version", DEVICE_STORE_VERSION)
            }),
            (APPLICATION_ID, version) => Err(DeviceStoreError::Version {
                path: self.path.clone(),
                version,
            }),
            _ => Err(self.damaged(None)),
        }
    }

    fn damaged(&self, source: Option<rusqlite::Error>) -> DeviceStoreError {
        DeviceStoreError::Damaged {
            path: self.path.clone(),
            source,
        }
    }

    fn run<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DeviceStoreError> {
        work(&self.connection).map_err(|source| fault(&self.path, source))
    }

    fn write<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, DeviceStoreError> {
        let inner = || {
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        inner().map_err(|source| fault(&self.path, source))
    }

    /// Adds a set that has not run yet.
    pub fn add_set(&mut self, set: &BackupSet) -> Result<(), DeviceStoreError> {
        let sets = self.sets()?;
        if sets.iter().any(|other| other.name == set.name) {
            return Err(DeviceStoreError::SetExists {
                name: set.name.clone(),
            });
        }
        if sets.len() >= SETS_MAX {
            return Err(DeviceStoreError::TooManySets);
        }
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO backup_set (name, vault, added_ms) VALUES (?1, ?2, ?3)",
                params![
                    set.name,
                    set.vault.map(|vault| vault.as_bytes().to_vec()),
                    set.added.0
                ],
            )?;
            for (place, path) in (0_i64..).zip(&set.paths) {
                transaction.execute(
                    "INSERT INTO set_path (name, place, path) VALUES (?1, ?2, ?3)",
                    params![set.name, place, path.as_os_str().as_bytes()],
                )?;
            }
            for (place, glob) in (0_i64..).zip(&set.excludes) {
                transaction.execute(
                    "INSERT INTO set_exclude (name, place, glob) VALUES (?1, ?2, ?3)",
                    params![set.name, place, glob],
                )?;
            }
            Ok(())
        })
    }

    /// All sets, in order of name.
    pub fn sets(&self) -> Result<Vec<BackupSet>, DeviceStoreError> {
        type Row = (String, Option<Vec<u8>>, i64, Option<i64>, Option<i64>, i64);
        let rows: Vec<Row> = self.run(|connection| {
            connection
                .prepare(
                    "SELECT name, vault, added_ms, unfinished_ms, succeeded_ms, problems
                     FROM backup_set ORDER BY name",
                )?
                .query_map([], |row| {
                    Ok((
                        row.get(0)?,
                        row.get(1)?,
                        row.get(2)?,
                        row.get(3)?,
                        row.get(4)?,
                        row.get(5)?,
                    ))
                })?
                .collect()
        })?;
        rows.into_iter()
            .map(|(name, vault, added, unfinished, succeeded, problems)| {
                let vault = match vault {
                    None => None,
                    Some(bytes) => {
                        Some(VaultId::from_slice(&bytes).ok_or_else(|| self.damaged(None))?)
                    }
                };
                Ok(BackupSet {
                    paths: self.set_paths(&name)?,
                    excludes: self.set_excludes(&name)?,
                    name,
                    vault,
                    added: Millis(added),
                    runs: RunState {
                        unfinished: unfinished.map(Millis),
                        succeeded: succeeded.map(Millis),
                        problems: problems.unsigned_abs(),
                    },
                })
            })
            .collect()
    }

    fn set_paths(&self, name: &str) -> Result<Vec<PathBuf>, DeviceStoreError> {
        self.run(|connection| {
            connection
                .prepare_cached("SELECT path FROM set_path WHERE name = ?1 ORDER BY place")?
                .query_map([name], |row| {
                    Ok(PathBuf::from(OsString::from_vec(row.get(0)?)))
                })?
                .collect()
        })
    }

    fn set_excludes(&self, name: &str) -> Result<Vec<String>, DeviceStoreError> {
        self.run(|connection| {
            connection
                .prepare_cached("SELECT glob FROM set_exclude WHERE name = ?1 ORDER BY place")?
                .query_map([name], |row| row.get(0))?
                .collect()
        })
    }

    /// The set of this name.
    pub fn set(&self, name: &str) -> Result<BackupSet, DeviceStoreError> {
        let found = self.sets()?.into_iter().find(|set| set.name == name);
        found.ok_or_else(|| DeviceStoreError::NoSuchSet {
            name: name.to_owned(),
        })
    }

    /// Gives a set its vault, instead of the one that it had. A set changes its vault only when that is erased.
    pub fn assign_vault(
        &mut self,
        name: &str,
        vault: VaultId,
        instead_of: Option<VaultId>,
    ) -> Result<(), DeviceStoreError> {
        let before = instead_of.as_ref().map(|vault| vault.as_bytes());
        self.change_set(
            name,
            "UPDATE backup_set SET vault = ?2 WHERE name = ?1 AND vault IS ?3",
            params![name, vault.as_bytes(), before],
        )
    }

    /// A run began. Until it ends well, it counts as interrupted.
    pub fn run_began(&mut self, name: &str, now: Millis) -> Result<(), DeviceStoreError> {
        self.change_set(
            name,
            "UPDATE backup_set SET unfinished_ms = ?2 WHERE name = ?1",
            params![name, now.0],
        )
    }

    /// A run ended well, except for so many files.
    pub fn run_succeeded(
        &mut self,
        name: &str,
        now: Millis,
        problems: u64,
    ) -> Result<(), DeviceStoreError> {
        let problems = i64::try_from(problems).unwrap_or(i64::MAX);
        self.change_set(
            name,
            "UPDATE backup_set SET unfinished_ms = NULL, succeeded_ms = ?2, problems = ?3 WHERE name = ?1",
            params![name, now.0, problems],
        )
    }

    fn change_set(
        &mut self,
        name: &str,
        sql: &str,
        values: &[&dyn rusqlite::ToSql],
    ) -> Result<(), DeviceStoreError> {
        let changed = self.write(|transaction| transaction.execute(sql, values))?;
        if changed == 1 {
            Ok(())
        } else {
            Err(DeviceStoreError::NoSuchSet {
                name: name.to_owned(),
            })
        }
    }

    /// The cached chain, as it was stored. The caller folds it anew.
    pub fn chain(&self) -> Result<Vec<Record>, DeviceStoreError> {
        let stored: Vec<Vec<u8>> = self.run(|connection| {
            connection
                .prepare("SELECT record FROM chain ORDER BY sequence LIMIT ?1")?
                .query_map(
                    [i64::try_from(CHAIN_MAX_ENTRIES).unwrap_or(i64::MAX)],
                    |row| row.get(0),
                )?
                .collect()
        })?;
        stored
            .iter()
            .map(|bytes| cbor::decode(bytes).map_err(|_| self.damaged(None)))
            .collect()
    }

    /// Adds records to the cached chain, or replaces those at the same places. All or nothing.
    pub fn put_chain(&mut self, records: &[Record]) -> Result<(), DeviceStoreError> {
        self.write(|transaction| {
            for record in records {
                let sequence = i64::try_from(record.sequence).unwrap_or(i64::MAX);
                transaction.execute(
                    "INSERT INTO chain (sequence, record) VALUES (?1, ?2)
                     ON CONFLICT (sequence) DO UPDATE SET record = excluded.record",
                    params![sequence, cbor::encode(record)],
                )?;
            }
            Ok(())
        })
    }

    /// Replaces the whole cached chain, and adds withdrawals that it does not have. All or nothing.
    pub fn replace_chain(
        &mut self,
        records: &[Record],
        withdrawals: &[PendingWithdrawal],
    ) -> Result<(), DeviceStoreError> {
        self.write(|transaction| {
            for pending in withdrawals {
                insert_withdrawal(transaction, pending)?;
            }
            transaction.execute("DELETE FROM chain", [])?;
            for record in records {
                let sequence = i64::try_from(record.sequence).unwrap_or(i64::MAX);
                transaction.execute(
                    "INSERT INTO chain (sequence, record) VALUES (?1, ?2)",
                    params![sequence, cbor::encode(record)],
                )?;
            }
            Ok(())
        })
    }

    /// The generations of the cell's keys, as they were stored. The caller verifies them anew.
    pub fn cell_keys(&self) -> Result<Vec<SignedCellKeys>, DeviceStoreError> {
        let stored: Vec<Vec<u8>> = self.run(|connection| {
            connection
                .prepare("SELECT signed FROM cell_keys ORDER BY place LIMIT ?1")?
                .query_map([i64::try_from(CELL_KEYS_MAX).unwrap_or(i64::MAX)], |row| {
                    row.get(0)
                })?
                .collect()
        })?;
        stored
            .iter()
            .map(|bytes| decode_signed_keys(bytes).ok_or_else(|| self.damaged(None)))
            .collect()
    }

    /// Replaces the generations of the cell's keys.
    pub fn put_cell_keys(&mut self, keys: &[SignedCellKeys]) -> Result<(), DeviceStoreError> {
        self.write(|transaction| {
            transaction.execute("DELETE FROM cell_keys", [])?;
            for (place, signed) in (0_i64..).zip(keys) {
                transaction.execute(
                    "INSERT INTO cell_keys (place, signed) VALUES (?1, ?2)",
                    params![place, cbor::encode(signed)],
                )?;
            }
            Ok(())
        })
    }

    /// Records a withdrawal before anybody is told of it.
    pub fn add_withdrawal(&mut self, pending: &PendingWithdrawal) -> Result<(), DeviceStoreError> {
        self.write(|transaction| insert_withdrawal(transaction, pending))?;
        Ok(())
    }

    /// Notes that a yes is on its way to the cell, or that its answer came.
    pub fn set_unanswered(
        &mut self,
        service: ServiceCode,
        unanswered: bool,
    ) -> Result<(), DeviceStoreError> {
        let statement = if unanswered {
            "INSERT INTO unanswered (service) VALUES (?1) ON CONFLICT DO NOTHING"
        } else {
            "DELETE FROM unanswered WHERE service = ?1"
        };
        self.write(|transaction| transaction.execute(statement, [service_number(service)]))?;
        Ok(())
    }

    /// Whether a yes went to the cell and no answer came.
    pub fn is_unanswered(&self, service: ServiceCode) -> Result<bool, DeviceStoreError> {
        self.run(|connection| {
            connection
                .prepare("SELECT 1 FROM unanswered WHERE service = ?1")?
                .exists([service_number(service)])
        })
    }

    /// Withdrawals that the cell has not acknowledged, oldest first.
    pub fn withdrawals(&self) -> Result<Vec<PendingWithdrawal>, DeviceStoreError> {
        type Row = (i64, Option<Vec<u8>>, i64, i64);
        let rows: Vec<Row> = self.run(|connection| {
            connection
                .prepare("SELECT service, vault, time_ms, before FROM withdrawal ORDER BY number")?
                .query_map([], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })?
                .collect()
        })?;
        rows.into_iter()
            .map(|(service, vault, time, before)| {
                let service = ServiceCode::ALL
                    .into_iter()
                    .find(|one| service_number(*one) == service)?;
                let vault = match vault {
                    None => None,
                    Some(bytes) => Some(VaultId::from_slice(&bytes)?),
                };
                let before = u64::try_from(before).ok()?;
                Some(PendingWithdrawal {
                    service,
                    vault,
                    time: Millis(time),
                    before,
                })
            })
            .map(|row| row.ok_or_else(|| self.damaged(None)))
            .collect()
    }

    /// Forgets a withdrawal that the chain has by now.
    pub fn forget_withdrawal(&mut self, done: &PendingWithdrawal) -> Result<(), DeviceStoreError> {
        let vault = done.vault.map(|vault| vault.as_bytes().to_vec());
        let before = i64::try_from(done.before).unwrap_or(i64::MAX);
        self.write(|transaction| {
            transaction.execute(
                "DELETE FROM withdrawal WHERE service = ?1 AND vault IS ?2 AND before = ?3",
                params![service_number(done.service), vault, before],
            )
        })?;
        Ok(())
    }

    /// Whether the database's pages and keys are consistent: `PRAGMA quick_check`.
    pub fn check(&self) -> Result<(), DeviceStoreError> {
        let answer: Option<String> = self.run(|connection| {
            connection
                .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
                .optional()
        })?;
        if answer.as_deref() == Some("ok") {
            Ok(())
        } else {
            Err(self.damaged(None))
        }
    }
}

fn insert_withdrawal(
    connection: &Connection,
    pending: &PendingWithdrawal,
) -> rusqlite::Result<usize> {
    let vault = pending.vault.map(|vault| vault.as_bytes().to_vec());
    let before = i64::try_from(pending.before).unwrap_or(i64::MAX);
    connection.execute(
        "INSERT INTO withdrawal (service, vault, time_ms, before) VALUES (?1, ?2, ?3, ?4)",
        params![
            service_number(pending.service),
            vault,
            pending.time.0,
            before
        ],
    )
}

/// Decodes stored cell keys with the size limit of an API body's part.
fn decode_signed_keys(bytes: &[u8]) -> Option<SignedCellKeys> {
    let decoded: SignedCellKeys = minicbor::decode(bytes).ok()?;
    (cbor::encode(&decoded) == bytes
        && decoded.keys.len() <= candor_wire::cell::CellKeys::MAX_BYTES)
        .then_some(decoded)
}

const fn service_number(service: ServiceCode) -> i64 {
    match service {
        ServiceCode::Backup => 1,
        ServiceCode::Sync => 2,
        ServiceCode::Messages => 3,
        ServiceCode::Relay => 4,
        ServiceCode::Recovery => 5,
    }
}

/// What a failure of SQLite means for this file.
fn fault(path: &Path, source: rusqlite::Error) -> DeviceStoreError {
    use rusqlite::ErrorCode;
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::TypeMismatch) => {
            DeviceStoreError::Damaged {
                path,
                source: Some(source),
            }
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            DeviceStoreError::Locked { path }
        }
        Some(_) => DeviceStoreError::Storage {
            path,
            source: Box::new(source),
        },
        // No code: a column has another type than the schema says.
        None => DeviceStoreError::Damaged {
            path,
            source: Some(source),
        },
    }
}

#[cfg(test)]
mod tests;
