//! What a cell holds, in numbers, for its operator. Beside a cell that runs, and without touching anything.

use std::path::{Path, PathBuf};

pub use candor_store::Stats;
use candor_store::StoreError;

use crate::cell::STORE_DIRECTORY;

/// Why there are no numbers.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// There is no cell in the directory.
    #[error("there is no cell in {}", directory.display())]
    NoCell {
        /// The directory.
        directory: PathBuf,
    },
    /// The database could not be asked.
    #[error("the database could not be asked")]
    Store(#[source] StoreError),
}

/// The numbers of the cell in `directory`. Does I/O on the calling thread.
pub fn stats(directory: &Path) -> Result<Stats, StatsError> {
    let store = directory.join(STORE_DIRECTORY);
    if !store.is_dir() {
        return Err(StatsError::NoCell {
            directory: directory.to_path_buf(),
        });
    }
    candor_store::stats(&store).map_err(StatsError::Store)
}
