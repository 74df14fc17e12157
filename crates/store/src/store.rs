//! The whole store of a cell on one machine: one directory with the database and the objects.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::DiskObjects;
use crate::erasures::Erasures;
use crate::links::Links;
use crate::log::{LogFiles, LogFilesError, LogRecords};
use crate::log_disk::DiskLogFiles;
use crate::objects::{Objects, ObjectsError};
use crate::records::{Records, RecordsError};
use crate::sqlite::SqliteRecords;
use crate::sqlite::stats::Stats;
use crate::sys;

/// The database, within the directory of the store.
const RECORDS_FILE: &str = "records.sqlite";

/// The directory of the objects, within that of the store.
const OBJECTS_DIRECTORY: &str = "objects";

/// The directory of the log's published files, within that of the store. It can be served as it is.
const LOG_DIRECTORY: &str = "log";

/// The file whose lock says that a process uses the directory.
const LOCK_FILE: &str = "store.lock";

/// Why a store could not be opened, checked or copied.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process uses the directory.
    #[error("{} is in use by another process", directory.display())]
    InUse {
        /// The directory of the store.
        directory: PathBuf,
    },
    /// The directory could not be made or locked.
    #[error("{} could not be opened", directory.display())]
    Directory {
        /// The directory of the store.
        directory: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The records failed.
    #[error("the records failed")]
    Records(#[source] RecordsError),
    /// The objects failed.
    #[error("the objects failed")]
    Objects(#[source] ObjectsError),
    /// The log's files failed.
    #[error("the log's files failed")]
    LogFiles(#[source] LogFilesError),
}

/// All ports over one directory. One process at a time holds it, for as long as this value lives:
/// keep it for as long as its ports are used.
#[derive(Debug)]
pub struct Store {
    records: Arc<SqliteRecords>,
    objects: Arc<DiskObjects>,
    log_files: Arc<DiskLogFiles>,
    _lock: File,
}

/// What the store in `directory` holds, in numbers. It may be in use by another process, and nothing is changed.
///
/// # Errors
/// [`StoreError::Records`].
pub fn stats(directory: &Path) -> Result<Stats, StoreError> {
    crate::sqlite::stats::of(&directory.join(RECORDS_FILE)).map_err(StoreError::Records)
}

impl Store {
    /// Opens the store in `directory`, or makes an empty one, brings its schema up to date, and
    /// removes what unfinished writes of an earlier process left behind. Does I/O on the calling
    /// thread.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process holds it; [`RecordsError::Damaged`],
    /// [`RecordsError::NewerSchema`] and other faults of the engines.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let fault = |source| StoreError::Directory {
            directory: directory.to_path_buf(),
            source,
        };
        sys::create_private_directory(directory).map_err(fault)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(directory.join(LOCK_FILE))
            .map_err(fault)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StoreError::InUse {
                directory: directory.to_path_buf(),
            },
            TryLockError::Error(source) => fault(source),
        })?;
        let records =
            SqliteRecords::open(&directory.join(RECORDS_FILE)).map_err(StoreError::Records)?;
        let objects =
            DiskObjects::open(&directory.join(OBJECTS_DIRECTORY)).map_err(StoreError::Objects)?;
        objects.remove_unfinished().map_err(StoreError::Objects)?;
        let log_files =
            DiskLogFiles::open(&directory.join(LOG_DIRECTORY)).map_err(StoreError::LogFiles)?;
        log_files
            .remove_unfinished()
            .map_err(StoreError::LogFiles)?;
        Ok(Self {
            records: Arc::new(records),
            objects: Arc::new(objects),
            log_files: Arc::new(log_files),
            _lock: lock,
        })
    }

    /// The records.
    pub fn records(&self) -> Arc<dyn Records> {
        Arc::clone(&self.records) as Arc<dyn Records>
    }

    /// The log's bookkeeping, in the same database as the records.
    pub fn log_records(&self) -> Arc<dyn LogRecords> {
        Arc::clone(&self.records) as Arc<dyn LogRecords>
    }

    /// The log's published files.
    pub fn log_files(&self) -> Arc<dyn LogFiles> {
        Arc::clone(&self.log_files) as Arc<dyn LogFiles>
    }

    /// The links, in the same database as the records.
    pub fn links(&self) -> Arc<dyn Links> {
        Arc::clone(&self.records) as Arc<dyn Links>
    }

    /// What people asked to be erased, in the same database as the records.
    pub fn erasures(&self) -> Arc<dyn Erasures> {
        Arc::clone(&self.records) as Arc<dyn Erasures>
    }

    /// The objects.
    pub fn objects(&self) -> Arc<dyn Objects> {
        Arc::clone(&self.objects) as Arc<dyn Objects>
    }

    /// Looks whether the database fits together. Objects are not read: their names are hashes, so
    /// whoever reads one can tell.
    ///
    /// # Errors
    /// [`StoreError::Records`].
    pub async fn check(&self) -> Result<(), StoreError> {
        self.records.check().await.map_err(StoreError::Records)
    }

    /// Writes a copy of the database, as it is at one moment, to a new file. The cell goes on
    /// meanwhile. Objects never change, so that copying their files afterwards completes the backup.
    ///
    /// # Errors
    /// [`StoreError::Records`], also if the file exists.
    pub async fn backup_to(&self, file: &Path) -> Result<(), StoreError> {
        self.records
            .backup_to(file)
            .await
            .map_err(StoreError::Records)
    }
}
