//! Erasures.

use bytes::Bytes;
use candor_wire::{AccountId, Millis, StatementId, VaultId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::engine_fault;
use super::row::{Blob, Count, Fixed, bigint, row_limit};
use super::{ledger, log};
use crate::erasures::{
    ErasureAsk, ErasureChange, ErasureEnd, ErasureJob, RowsOutcome, RowsToErase,
};
use crate::records::RecordsError;

const WAITS: i64 = 1;
const BEGAN: i64 = 2;
const DONE: i64 = 3;

const JOB_COLUMNS: &str = "asked, account, vault, asked_at, objects, bytes, consents";

/// The tables that hold something of an account, those that refer to it before it.
const ACCOUNT_TABLES: &[(&str, &str)] = &[
    ("heads", "account"),
    ("runs", "account"),
    ("links", "account"),
    ("state_changes", "account"),
    ("chain", "account"),
    ("invitations", "opened_account"),
    ("accounts", "account"),
];

/// Makes the changes that come with rows of a chain. `false`: one of them comes too late, and nothing was changed.
pub(crate) fn change(
    connection: &Connection,
    account: AccountId,
    changes: &[ErasureChange],
) -> Result<bool, RecordsError> {
    for change in changes {
        if let ErasureChange::Cancel(asked) = change
            && has_begun(connection, asked)?
        {
            return Ok(false);
        }
    }
    for change in changes {
        match change {
            ErasureChange::Ask(ask) => insert(connection, account, ask)?,
            ErasureChange::Cancel(asked) => cancel(connection, account, asked)?,
        }
    }
    Ok(true)
}

fn insert(
    connection: &Connection,
    account: AccountId,
    ask: &ErasureAsk,
) -> Result<(), RecordsError> {
    connection
        .prepare_cached(
            "INSERT INTO erasures (asked, account, vault, receipt_name, asked_at, due_at, state,
               objects, bytes, consents)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, 0) ON CONFLICT (asked) DO NOTHING",
        )
        .and_then(|mut insert| {
            insert.execute(params![
                ask.asked.as_bytes(),
                account.as_bytes(),
                ask.vault.as_ref().map(|vault| vault.as_bytes()),
                ask.receipt_name,
                ask.asked_at.0,
                ask.due_at.0,
                WAITS
            ])
        })
        .map(|_| ())
        .map_err(|source| engine_fault("note an erasure", source))
}

fn has_begun(connection: &Connection, asked: &StatementId) -> Result<bool, RecordsError> {
    connection
        .prepare_cached("SELECT 1 FROM erasures WHERE asked = ?1 AND state <> ?2")
        .and_then(|mut select| select.exists(params![asked.as_bytes(), WAITS]))
        .map_err(|source| engine_fault("look an erasure up", source))
}

fn cancel(
    connection: &Connection,
    account: AccountId,
    asked: &StatementId,
) -> Result<(), RecordsError> {
    connection
        .prepare_cached("DELETE FROM erasures WHERE asked = ?1 AND account = ?2 AND state = ?3")
        .and_then(|mut delete| delete.execute(params![asked.as_bytes(), account.as_bytes(), WAITS]))
        .map(|_| ())
        .map_err(|source| engine_fault("cancel an erasure", source))
}

pub(crate) fn due(
    connection: &Connection,
    now: Millis,
    limit: usize,
) -> Result<Vec<ErasureJob>, RecordsError> {
    connection
        .prepare_cached(&format!(
            "SELECT {JOB_COLUMNS} FROM erasures
             WHERE state = ?1 OR (state = ?2 AND due_at <= ?3) ORDER BY due_at, asked LIMIT ?4"
        ))
        .and_then(|mut select| {
            select
                .query_map(params![BEGAN, WAITS, now.0, row_limit(limit)], job_of)
                .and_then(Iterator::collect)
        })
        .map_err(|source| engine_fault("look for erasures", source))
}

fn job_of(row: &Row<'_>) -> rusqlite::Result<ErasureJob> {
    let vault: Option<Fixed<16>> = row.get(2)?;
    Ok(ErasureJob {
        asked: StatementId::from_bytes(row.get::<_, Fixed<32>>(0)?.0),
        account: AccountId::from_bytes(row.get::<_, Fixed<16>>(1)?.0),
        vault: vault.map(|vault| VaultId::from_bytes(vault.0)),
        asked_at: Millis(row.get(3)?),
        objects: row.get::<_, Count>(4)?.0,
        bytes: row.get::<_, Count>(5)?.0,
        consents: row.get::<_, Count>(6)?.0,
    })
}

/// The one that has begun.
fn begun(connection: &Connection, asked: &StatementId) -> Result<Option<ErasureJob>, RecordsError> {
    connection
        .prepare_cached(&format!(
            "SELECT {JOB_COLUMNS} FROM erasures WHERE asked = ?1 AND state = ?2"
        ))
        .and_then(|mut select| {
            select
                .query_row(params![asked.as_bytes(), BEGAN], job_of)
                .optional()
        })
        .map_err(|source| engine_fault("look an erasure up", source))
}

pub(crate) fn begin(
    connection: &Connection,
    asked: &StatementId,
    now: Millis,
) -> Result<Option<ErasureJob>, RecordsError> {
    let fault = |source| engine_fault("begin an erasure", source);
    let is_new = connection
        .prepare_cached(
            "UPDATE erasures SET state = ?2 WHERE asked = ?1 AND state = ?3 AND due_at <= ?4",
        )
        .and_then(|mut update| update.execute(params![asked.as_bytes(), BEGAN, WAITS, now.0]))
        .map_err(fault)?;
    let Some(job) = begun(connection, asked)? else {
        return Ok(None);
    };
    if is_new == 0 {
        return Ok(Some(job));
    }
    connection
        .prepare_cached(
            "UPDATE erasures SET (objects, bytes) =
               (SELECT count(*), coalesce(sum(o.size), 0) FROM objects o
                WHERE o.account = ?2 AND (?3 IS NULL OR o.vault = ?3) AND o.state = 2)
             WHERE asked = ?1",
        )
        .and_then(|mut update| {
            update.execute(params![
                asked.as_bytes(),
                job.account.as_bytes(),
                job.vault.as_ref().map(|vault| vault.as_bytes())
            ])
        })
        .map_err(fault)?;
    begun(connection, asked)
}

pub(crate) fn let_objects_go(
    connection: &Connection,
    asked: &StatementId,
    now: Millis,
    limit: usize,
) -> Result<u64, RecordsError> {
    match begun(connection, asked)? {
        Some(job) => ledger::let_all_go(connection, job.account, job.vault, now, limit),
        None => Ok(0),
    }
}

pub(crate) fn erase_rows(
    connection: &Connection,
    rows: &RowsToErase,
) -> Result<RowsOutcome, RecordsError> {
    let Some(job) = begun(connection, &rows.asked)? else {
        return Ok(RowsOutcome::NotBegun);
    };
    if ledger::has_any(connection, job.account, job.vault)? {
        return Ok(RowsOutcome::ObjectsLeft);
    }
    let erased = match job.vault {
        Some(vault) => erase_vault(connection, job.account, vault, &rows.stubs)?,
        None => erase_account(connection, &job, rows.alias)?,
    };
    let consents = job.consents + erased;
    connection
        .prepare_cached("UPDATE erasures SET consents = ?2 WHERE asked = ?1")
        .and_then(|mut update| update.execute(params![job.asked.as_bytes(), bigint_of(consents)]))
        .map_err(|source| engine_fault("count erased consents", source))?;
    Ok(RowsOutcome::Erased { consents })
}

fn bigint_of(count: u64) -> i64 {
    bigint(count).unwrap_or(i64::MAX)
}

/// Kind of the statements that are erased with their vault, as in `candor_wire::statement::Kind`.
const CONSENT_GIVEN: i64 = 4;

fn erase_vault(
    connection: &Connection,
    account: AccountId,
    vault: VaultId,
    stubs: &[(u64, Bytes)],
) -> Result<u64, RecordsError> {
    let fault = |source| engine_fault("erase a vault", source);
    for delete in [
        "DELETE FROM heads WHERE account = ?1 AND vault = ?2",
        "DELETE FROM runs WHERE account = ?1 AND vault = ?2",
    ] {
        connection
            .prepare_cached(delete)
            .and_then(|mut delete| delete.execute(params![account.as_bytes(), vault.as_bytes()]))
            .map_err(fault)?;
    }
    let mut replace = connection
        .prepare_cached(
            "UPDATE chain SET record = ?3
             WHERE account = ?1 AND sequence = ?2 AND kind = ?4 AND record <> ?3",
        )
        .map_err(fault)?;
    let mut erased = 0;
    for (sequence, stub) in stubs {
        let values = params![
            account.as_bytes(),
            bigint(*sequence)?,
            &stub[..],
            CONSENT_GIVEN
        ];
        erased += replace.execute(values).map_err(fault)?;
    }
    log::mark_changed(connection, account)?;
    Ok(erased as u64)
}

fn erase_account(
    connection: &Connection,
    job: &ErasureJob,
    alias: AccountId,
) -> Result<u64, RecordsError> {
    let fault = |source| engine_fault("erase an account", source);
    let account = job.account.as_bytes();
    let consents: u64 = connection
        .query_row(
            "SELECT count(*) FROM chain WHERE account = ?1 AND kind = ?2",
            params![account, CONSENT_GIVEN],
            |row| Ok(row.get::<_, Count>(0)?.0),
        )
        .map_err(fault)?;
    log::give_to_nobody(connection, job.account, alias)?;
    connection
        .execute(
            "DELETE FROM erasures WHERE account = ?1 AND asked <> ?2",
            params![account, job.asked.as_bytes()],
        )
        .map_err(fault)?;
    for (table, column) in ACCOUNT_TABLES {
        connection
            .execute(
                &format!("DELETE FROM {table} WHERE {column} = ?1"),
                [account],
            )
            .map_err(fault)?;
    }
    Ok(consents)
}

pub(crate) fn finish(connection: &Connection, end: &ErasureEnd) -> Result<bool, RecordsError> {
    let finished = connection
        .prepare_cached(
            "UPDATE erasures SET state = ?2, vault = NULL, receipt = ?3, erased_at = ?4
             WHERE asked = ?1 AND state = ?5",
        )
        .and_then(|mut update| {
            update.execute(params![
                end.asked.as_bytes(),
                DONE,
                &end.receipt[..],
                end.now.0,
                BEGAN
            ])
        })
        .map_err(|source| engine_fault("finish an erasure", source))?;
    if finished > 0 {
        log::queue(connection, &[end.entry], end.now)?;
    }
    Ok(finished > 0)
}

pub(crate) fn receipt(
    connection: &Connection,
    name: &[u8; 32],
) -> Result<Option<Bytes>, RecordsError> {
    connection
        .prepare_cached(
            "SELECT receipt FROM erasures WHERE receipt_name = ?1 AND receipt IS NOT NULL",
        )
        .and_then(|mut select| select.query_row([name], |row| row.get(0)).optional())
        .map(|found: Option<Blob>| found.map(|Blob(bytes)| bytes))
        .map_err(|source| engine_fault("look a receipt up", source))
}

pub(crate) fn sweep_receipts(
    connection: &Connection,
    before: Millis,
    limit: usize,
) -> Result<u64, RecordsError> {
    connection
        .prepare_cached(
            "DELETE FROM erasures WHERE asked IN (
               SELECT e.asked FROM erasures e WHERE e.state = ?1 AND e.erased_at < ?2
                 AND NOT EXISTS (SELECT 1 FROM accounts a WHERE a.account = e.account)
               ORDER BY e.erased_at LIMIT ?3)",
        )
        .and_then(|mut delete| delete.execute(params![DONE, before.0, row_limit(limit)]))
        .map(|swept| swept as u64)
        .map_err(|source| engine_fault("forget receipts", source))
}
