//! A few connections for reading, used on threads that may block.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::Use;
use super::open_connection;
use crate::records::RecordsError;

/// Most reads at once. More would wait for the same disk and the same cores, with a page cache each.
const READERS_MAX: usize = 4;

/// The connections. A read that panics loses its connection; the next one opens another.
#[derive(Debug)]
pub(crate) struct Readers {
    file: PathBuf,
    idle: Mutex<Vec<Connection>>,
    free: Arc<Semaphore>,
}

impl Readers {
    /// No connection is opened before the first read.
    pub(crate) fn new(file: &Path) -> Arc<Self> {
        Arc::new(Self {
            file: file.to_path_buf(),
            idle: Mutex::default(),
            free: Arc::new(Semaphore::new(READERS_MAX)),
        })
    }

    /// Runs `work` on a thread that may block, with a connection of its own.
    pub(crate) async fn read<T: Send + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&Connection) -> Result<T, RecordsError> + Send + 'static,
    ) -> Result<T, RecordsError> {
        let place = Arc::clone(&self.free)
            .acquire_owned()
            .await
            .map_err(|_| RecordsError::Closed)?;
        let done = tokio::task::spawn_blocking(move || {
            let idle = self.idle().pop();
            let connection = match idle {
                Some(connection) => connection,
                None => open_connection(&self.file, Use::Read)?,
            };
            let outcome = work(&connection);
            self.idle().push(connection);
            drop(place);
            outcome
        });
        done.await.map_err(|_| RecordsError::Closed)?
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // A list of connections that nobody uses is sound whatever happened to its last holder.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
