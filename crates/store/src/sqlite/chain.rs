//! The chains.

use candor_wire::ids::Link;
use candor_wire::{AccountId, StatementId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::engine_fault;
use super::row::{Blob, Count, Fixed, bigint, row_limit};
use super::{accounts, erasures, heads, log};
use crate::records::{
    AppendOutcome, CHAIN_PAGE_MAX_BYTES, ChainAppend, ChainPage, ChainRow, ChainTip, ROWS_MAX,
    RecordsError, end_of,
};

pub(crate) fn append(
    connection: &Connection,
    append: &ChainAppend,
) -> Result<AppendOutcome, RecordsError> {
    let end = end_of(&append.rows, Some(append.expected.sequence))?;
    accounts::writable(connection, append.account)?;
    if tip(connection, append.account)? == Some(append.expected) {
        if let Some(expected) = &append.heads
            && heads::all(connection, append.account)? != *expected
        {
            return Ok(AppendOutcome::HeadsMoved);
        }
        if !erasures::change(connection, append.account, &append.erasures)? {
            return Ok(AppendOutcome::ErasureBegun);
        }
    }
    let moved = connection
        .prepare_cached(
            "UPDATE accounts SET tip_sequence = ?4, tip_link = ?5
             WHERE account = ?1 AND tip_sequence = ?2 AND tip_link = ?3",
        )
        .and_then(|mut update| {
            update.execute(params![
                append.account.as_bytes(),
                append.expected.sequence as i64,
                append.expected.link.as_bytes(),
                end.sequence as i64,
                end.link.as_bytes()
            ])
        })
        .map_err(|source| engine_fault("move the end of a chain", source))?;
    if moved == 1 {
        insert(connection, append.account, &append.rows)?;
        log::queue(connection, &append.entries, append.now)?;
        log::mark_changed(connection, append.account)?;
        return Ok(AppendOutcome::Appended(end));
    }
    let found = tip(connection, append.account)?;
    found
        .map(AppendOutcome::Conflict)
        .ok_or(RecordsError::NoSuchAccount(append.account))
}

/// Writes rows that were checked, for an account that exists.
pub(crate) fn insert(
    connection: &Connection,
    account: AccountId,
    rows: &[ChainRow],
) -> Result<(), RecordsError> {
    let fault = |source| engine_fault("append to a chain", source);
    let mut insert = connection
        .prepare_cached(
            "INSERT INTO chain (account, sequence, kind, link, commitment, record, acknowledgement)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .map_err(fault)?;
    for row in rows {
        insert
            .execute(params![
                account.as_bytes(),
                bigint(row.sequence)?,
                row.kind,
                row.link.as_bytes(),
                row.commitment.as_bytes(),
                &row.record[..],
                &row.acknowledgement[..]
            ])
            .map_err(fault)?;
    }
    Ok(())
}

pub(crate) fn tip(
    connection: &Connection,
    account: AccountId,
) -> Result<Option<ChainTip>, RecordsError> {
    connection
        .prepare_cached("SELECT tip_sequence, tip_link FROM accounts WHERE account = ?1")
        .and_then(|mut select| {
            select
                .query_row([account.as_bytes()], |row| {
                    Ok(ChainTip {
                        sequence: row.get::<_, Count>(0)?.0,
                        link: Link::from_bytes(row.get::<_, Fixed<32>>(1)?.0),
                    })
                })
                .optional()
        })
        .map_err(|source| engine_fault("read the end of a chain", source))
}

pub(crate) fn read(
    connection: &Connection,
    account: AccountId,
    after: Option<u64>,
    limit: usize,
) -> Result<ChainPage, RecordsError> {
    let fault = |source| engine_fault("read a chain", source);
    let limit = limit.min(ROWS_MAX);
    let mut select = connection
        .prepare_cached(
            "SELECT sequence, kind, link, commitment, record, acknowledgement FROM chain
             WHERE account = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
        )
        .map_err(fault)?;
    let after = after.map_or(Ok(-1), bigint)?;
    // One more than asked for tells whether there are more.
    let mut found = select
        .query(params![
            account.as_bytes(),
            after,
            row_limit(limit).saturating_add(1)
        ])
        .map_err(fault)?;
    let mut page = ChainPage {
        rows: Vec::new(),
        more: false,
    };
    let mut bytes = 0;
    while let Some(row) = found.next().map_err(fault)? {
        let row = chain_row(row).map_err(fault)?;
        bytes += row.record.len() + row.acknowledgement.len();
        let full = page.rows.len() >= limit || bytes > CHAIN_PAGE_MAX_BYTES;
        if full && (limit == 0 || !page.rows.is_empty()) {
            page.more = true;
            break;
        }
        page.rows.push(row);
    }
    Ok(page)
}

fn chain_row(row: &Row<'_>) -> rusqlite::Result<ChainRow> {
    Ok(ChainRow {
        sequence: row.get::<_, Count>(0)?.0,
        kind: row.get(1)?,
        link: Link::from_bytes(row.get::<_, Fixed<32>>(2)?.0),
        commitment: StatementId::from_bytes(row.get::<_, Fixed<32>>(3)?.0),
        record: row.get::<_, Blob>(4)?.0,
        acknowledgement: row.get::<_, Blob>(5)?.0,
    })
}
