//! The transparency log, as everybody reads it, and an account's entry in the state map.

use std::sync::Arc;

use axum::response::Response;
use candor_log::state_map::{StateSecret, inputs_version};
use candor_log::tile::Resource;
use candor_wire::api::{API_VERSION, ErrorCode, StateReply};
use candor_wire::cbor;
use candor_wire::chain::Record;

use crate::gate::Admitted;
use crate::log::Cause;
use crate::reply::{self, FileKind, Refusal};
use crate::shared::Shared;
use crate::transparency::{CHECKPOINT_FILE, PAGE_FILE, REPORT_JSON_FILE, REPORT_TEXT_FILE};

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
    let row = shared.transparency.map_row(account).await;
    let row = row.map_err(|error| Refusal::of_records(&error))?;
    let version = row.as_ref().map_or(0, |row| row.version);
    let Some(published) = shared.transparency.published_map(version).await else {
        return Err(ErrorCode::Busy.into());
    };
    let page = shared.records.read_chain(account, None, 1).await;
    let page = page.map_err(|error| Refusal::of_records(&error))?;
    let damaged = || Refusal::fault(ErrorCode::Internal, Cause::ChainDamaged);
    let first = page.rows.first().ok_or(ErrorCode::NotFound)?;
    let genesis: Record = cbor::decode(&first.record).map_err(|_| damaged())?;
    let salt = genesis.statement.ok_or_else(damaged)?.salt;
    let key = StateSecret::of(&salt, &account).key();
    Ok(reply::message(&StateReply {
        version: API_VERSION,
        map_version: published.version,
        index: published.place,
        state: row.map(|row| row.state.to_vec()),
        proof: published.map.prove(&key).to_bytes(),
    }))
}
