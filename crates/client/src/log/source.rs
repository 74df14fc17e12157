//! The tiles of a cell's log, read over a connection of the device.

use candor_log::tile::{Resource, TILE_WIDTH, TileSource};
use candor_vault::report::Cancel;
use tokio::runtime::Handle;

use crate::api::{Api, ApiError};
use crate::bridge::Stopped;

/// Why a tile was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFault {
    /// The cell was not reached, or its answer was refused.
    #[error("a file of the cell's log cannot be read")]
    Api(#[source] ApiError),
    /// The cell does not have it.
    #[error("the cell does not show a file of its log that its checkpoint promises")]
    Missing,
    /// The person stopped the command.
    #[error("the log was not read to its end")]
    Stopped(#[source] Stopped),
}

/// The published files of one cell's log. Blocks: not for asynchronous tasks.
pub(crate) struct CellTiles<'a> {
    api: &'a Api,
    runtime: &'a Handle,
    cancel: &'a Cancel,
}

impl<'a> CellTiles<'a> {
    /// Over a connection, whatever opened it: the files are for everybody.
    pub(crate) const fn new(api: &'a Api, runtime: &'a Handle, cancel: &'a Cancel) -> Self {
        Self {
            api,
            runtime,
            cancel,
        }
    }

    fn fetch(&self, resource: &Resource) -> Result<Option<Vec<u8>>, ReadFault> {
        if self.cancel.is_cancelled() {
            return Err(ReadFault::Stopped(Stopped));
        }
        let path = resource.path();
        let reading = self.api.read_log_file(&path, resource.bytes());
        let read = self.runtime.block_on(reading).map_err(ReadFault::Api)?;
        Ok(read.map(Vec::from))
    }
}

impl TileSource for CellTiles<'_> {
    type Error = ReadFault;

    fn read(&self, resource: &Resource) -> Result<Vec<u8>, ReadFault> {
        if let Some(bytes) = self.fetch(resource)? {
            return Ok(bytes);
        }
        if u64::from(resource.width()) == TILE_WIDTH {
            return Err(ReadFault::Missing);
        }
        // A log may drop a partial file once the full one is there, which begins with it.
        let mut full = self.fetch(&resource.full())?.ok_or(ReadFault::Missing)?;
        full.truncate(resource.bytes());
        Ok(full)
    }
}
