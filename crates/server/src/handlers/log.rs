//! The transparency log, as everybody reads it, and an account's entry in the state map.

use std::sync::Arc;

use axum::response::Response;
use candor_log::state_map::{MapKey, MapValue, StateSecret, inputs_version};
use candor_log::tile::Resource;
use candor_store::log::MapRow;
use candor_wire::api::{API_VERSION, ErrorCode, StateReply};
use candor_wire::cbor;
use candor_wire::chain::Record;
use candor_wire::ids::AccountId;

use crate::gate::Admitted;
use crate::log::Cause;
use crate::reply::{self, FileKind, Refusal};
use crate::shared::Shared;
use crate::transparency::{
    CHECKPOINT_FILE, PAGE_FILE, PUBLISHED_WAIT, PublishedMap, REPORT_JSON_FILE, REPORT_TEXT_FILE,
};

/// How often an account's row is read again when the account moves while its state is asked for.
const MOVES_MAX: usize = 4;

/// Where the log's files are, below the cell's address.
pub(crate) const LOG_PREFIX: &str = "/log/";

/// A published file. Only names that the log can have are looked for.
pub(crate) async fn read(shared: &Arc<Shared>, admitted: &Admitted) -> Result<Response, Refusal> {
    let name = admitted.path.strip_prefix(LOG_PREFIX);
    match name.ok_or(ErrorCode::NotFound)? {
        "" => file(shared, PAGE_FILE).await,
        name => file(shared, name).await,
    }
}

/// The same by its name.
pub(crate) async fn file(shared: &Arc<Shared>, name: &str) -> Result<Response, Refusal> {
    let kind = if name == CHECKPOINT_FILE || name == REPORT_TEXT_FILE {
        FileKind::Text
    } else if name == REPORT_JSON_FILE {
        FileKind::Json
    } else if name == PAGE_FILE {
        FileKind::Page
    } else if Resource::from_path(name).is_some() || inputs_version(name).is_some() {
        FileKind::Lasting
    } else {
        return Err(ErrorCode::NotFound.into());
    };
    let read = shared.transparency.read(name).await;
    let bytes = read.map_err(|_| Refusal::fault(ErrorCode::Internal, Cause::LogFiles))?;
    bytes
        .map(|bytes| reply::file(bytes, kind))
        .ok_or_else(|| ErrorCode::NotFound.into())
}

/// The account's entry in the newest published version of the state map, with its proof. If the
/// account has moved since, the reply waits for the version that says so.
pub(super) async fn state(shared: &Arc<Shared>, admitted: &Admitted) -> Result<Response, Refusal> {
    let account = admitted.account()?;
    let page = shared.records.read_chain(account, None, 1).await;
    let page = page.map_err(|error| Refusal::of_records(&error))?;
    let damaged = || Refusal::fault(ErrorCode::Internal, Cause::ChainDamaged);
    let first = page.rows.first().ok_or(ErrorCode::NotFound)?;
    let genesis: Record = cbor::decode(&first.record).map_err(|_| damaged())?;
    let salt = genesis.statement.ok_or_else(damaged)?.salt;
    let key = StateSecret::of(&salt, &account).key();
    let waiting = published_row(shared, account, &key);
    let waited = tokio::time::timeout(PUBLISHED_WAIT, waiting).await;
    let (row, published) = waited.map_err(|_| ErrorCode::Busy)??;
    Ok(reply::message(&StateReply {
        version: API_VERSION,
        map_version: published.version,
        index: published.place,
        state: row.map(|row| row.state.to_vec()),
        proof: published.map.prove(&key).to_bytes(),
    }))
}

/// An account's row, and a published version of the map that has just this row.
async fn published_row(
    shared: &Shared,
    account: AccountId,
    key: &MapKey,
) -> Result<(Option<MapRow>, PublishedMap), Refusal> {
    let read = || async {
        let row = shared.transparency.map_row(account).await;
        row.map_err(|error| Refusal::of_records(&error))
    };
    let mut row = read().await?;
    for _ in 0..MOVES_MAX {
        let version = row.as_ref().map_or(0, |row| row.version);
        let Some(published) = shared.transparency.published_map(version).await else {
            break;
        };
        // The account may have moved while that was waited for.
        row = read().await?;
        let value = row.as_ref().map(|row| MapValue(row.value));
        if published.map.get(key) == value {
            return Ok((row, published));
        }
    }
    Err(ErrorCode::Busy.into())
}
