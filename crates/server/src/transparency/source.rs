//! The log's files as a source of tiles. Reads block: only for threads that may.

use std::sync::Arc;

use candor_log::tile::{Resource, TileSource};
use candor_store::{LogFiles, LogFilesError};
use tokio::runtime::Handle;

/// Why a tile was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("a file of the log is not there")]
    Missing,
    #[error("a file of the log cannot be read")]
    Files(#[source] LogFilesError),
}

/// The published files of one log.
pub(crate) struct PublishedFiles {
    files: Arc<dyn LogFiles>,
    runtime: Handle,
}

impl PublishedFiles {
    /// Takes the runtime that the caller is in.
    pub(crate) fn new(files: &Arc<dyn LogFiles>) -> Self {
        Self {
            files: Arc::clone(files),
            runtime: Handle::current(),
        }
    }
}

impl TileSource for PublishedFiles {
    type Error = SourceError;

    fn read(&self, resource: &Resource) -> Result<Vec<u8>, SourceError> {
        let read = self.runtime.block_on(self.files.get(resource.path()));
        match read {
            Ok(Some(bytes)) => Ok(bytes.to_vec()),
            Ok(None) => Err(SourceError::Missing),
            Err(source) => Err(SourceError::Files(source)),
        }
    }
}
