//! The log's files as a source of tiles. Reads block: only for threads that may.

use std::sync::Arc;

use bytes::Bytes;
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

/// A published file. A partial tile or bundle that was removed is the beginning of the whole one.
pub(crate) async fn read_file(
    files: &dyn LogFiles,
    name: String,
) -> Result<Option<Bytes>, LogFilesError> {
    let resource = Resource::from_path(&name);
    if let Some(bytes) = files.get(name).await? {
        return Ok(Some(bytes));
    }
    let Some(partial) = resource.filter(|resource| *resource != resource.full()) else {
        return Ok(None);
    };
    let whole = files.get(partial.full().path()).await?;
    Ok(whole
        .filter(|bytes| bytes.len() >= partial.bytes())
        .map(|bytes| bytes.slice(..partial.bytes())))
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
        let read = self
            .runtime
            .block_on(read_file(self.files.as_ref(), resource.path()));
        match read {
            Ok(Some(bytes)) => Ok(bytes.to_vec()),
            Ok(None) => Err(SourceError::Missing),
            Err(source) => Err(SourceError::Files(source)),
        }
    }
}
