//! The nonces of requests.

use candor_wire::Millis;
use rusqlite::{Connection, params};

use super::fault::engine_fault;
use super::row::row_limit;
use crate::records::{NonceUse, RecordsError};

/// Spends a nonce; `false` if it was spent before.
pub(crate) fn insert(connection: &Connection, nonce: &NonceUse) -> Result<bool, RecordsError> {
    connection
        .prepare_cached(
            "INSERT INTO nonces (device, nonce, seen_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (device, nonce) DO NOTHING",
        )
        .and_then(|mut insert| {
            insert.execute(params![
                nonce.device.as_bytes(),
                nonce.nonce.as_bytes(),
                nonce.seen_at.0
            ])
        })
        .map(|rows| rows == 1)
        .map_err(|source| engine_fault("spend a nonce", source))
}

/// Forgets the oldest nonces seen before `before`.
pub(crate) fn sweep(
    connection: &Connection,
    before: Millis,
    limit: usize,
) -> Result<u64, RecordsError> {
    connection
        .prepare_cached(
            "DELETE FROM nonces WHERE (device, nonce) IN (
               SELECT device, nonce FROM nonces WHERE seen_at < ?1
               ORDER BY seen_at, device, nonce LIMIT ?2)",
        )
        .and_then(|mut delete| delete.execute(params![before.0, row_limit(limit)]))
        .map(|rows| rows as u64)
        .map_err(|source| engine_fault("forget nonces", source))
}
