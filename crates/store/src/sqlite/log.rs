//! The transparency log's bookkeeping.

use candor_wire::ids::Link;
use candor_wire::{AccountId, Millis, VaultId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::engine_fault;
use super::row::{Blob, Count, Fixed, bigint, row_limit};
use crate::log::{
    ChangedAccount, LOG_BATCH_MAX_ENTRIES, LOG_ENTRY_BYTES, LogBatch, LogEntry, LogTree, MapInputs,
    MapRow, MapVersion, STATE_BATCH_MAX_ACCOUNTS, Sequencing, check_growth,
};
use crate::records::{ChainTip, HeadMark, ROWS_MAX, RecordsError};

/// Puts entries into the queue, in the commit of what they stand for.
pub(crate) fn queue(
    connection: &Connection,
    entries: &[LogEntry],
    now: Millis,
) -> Result<(), RecordsError> {
    if queue_new(connection, entries, now)? == entries.len() {
        Ok(())
    } else {
        Err(RecordsError::Invalid(
            "an entry of the log is queued already",
        ))
    }
}

/// The same for entries of which some may be there already. Says how many were not.
pub(crate) fn queue_new(
    connection: &Connection,
    entries: &[LogEntry],
    now: Millis,
) -> Result<usize, RecordsError> {
    let fault = |source| engine_fault("queue an entry of the log", source);
    let mut insert = connection
        .prepare_cached(
            "INSERT INTO log_queue (entry, queued_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )
        .map_err(fault)?;
    let mut new = 0;
    for entry in entries {
        new += insert.execute(params![entry, now.0]).map_err(fault)?;
    }
    Ok(new)
}

/// Empties everything of the log, and counts every account as changed.
pub(crate) fn begin_anew(connection: &Connection, now: Millis) -> Result<(), RecordsError> {
    let fault = |source| engine_fault("begin the log anew", source);
    for table in [
        "log_queue",
        "log_entries",
        "map_inputs",
        "state_map",
        "state_changes",
    ] {
        connection
            .execute(&format!("DELETE FROM {table}"), [])
            .map_err(fault)?;
    }
    // What was rescued since the copy was made is condemned in it: devices get the whole window again.
    connection
        .execute(
            "UPDATE objects SET condemned_at = ?1 WHERE condemned_at IS NOT NULL",
            [now.0],
        )
        .map_err(fault)?;
    // The same for what was to be erased: the copy does not know what was taken back since.
    connection
        .execute(
            "UPDATE erasures SET due_at = MAX(due_at, ?1 + due_at - asked_at) WHERE state = 1",
            [now.0],
        )
        .map_err(fault)?;
    let empty = LogTree::EMPTY;
    connection
        .execute(
            "UPDATE log_tree SET sequenced = 0, size = 0, root = ?1, map_version = 0,
               map_root = ?2, map_place = 0 WHERE id = 1",
            params![empty.root, empty.map_root],
        )
        .map_err(fault)?;
    connection
        .execute(
            "INSERT INTO state_changes (account, stamp) SELECT account, 1 FROM accounts",
            [],
        )
        .map_err(fault)?;
    Ok(())
}

pub(crate) fn accounts_after(
    connection: &Connection,
    after: Option<AccountId>,
) -> Result<Vec<AccountId>, RecordsError> {
    let after: &[u8] = after.as_ref().map_or(&[], |account| account.as_bytes());
    connection
        .prepare_cached("SELECT account FROM accounts WHERE account > ?1 ORDER BY account LIMIT ?2")
        .and_then(|mut select| {
            let rows = select.query_map(params![after, row_limit(ROWS_MAX)], |row| {
                Ok(AccountId::from_bytes(row.get::<_, Fixed<16>>(0)?.0))
            })?;
            rows.collect()
        })
        .map_err(|source| engine_fault("list the accounts", source))
}

/// An erased account's entry in the state map goes on as one that belongs to nobody, like padding.
pub(crate) fn give_to_nobody(
    connection: &Connection,
    account: AccountId,
    alias: AccountId,
) -> Result<(), RecordsError> {
    connection
        .prepare_cached("UPDATE state_map SET account = ?2, state = X'' WHERE account = ?1")
        .and_then(|mut update| update.execute(params![account.as_bytes(), alias.as_bytes()]))
        .map(|_| ())
        .map_err(|source| engine_fault("give an entry of the state map to nobody", source))
}

/// Notes that an account's chain or heads moved.
pub(crate) fn mark_changed(
    connection: &Connection,
    account: AccountId,
) -> Result<(), RecordsError> {
    connection
        .prepare_cached(
            "INSERT INTO state_changes (account, stamp) VALUES (?1, 1)
             ON CONFLICT (account) DO UPDATE SET stamp = state_changes.stamp + 1",
        )
        .and_then(|mut insert| insert.execute([account.as_bytes()]))
        .map(|_| ())
        .map_err(|source| engine_fault("note a changed account", source))
}

pub(crate) fn tree(connection: &Connection) -> Result<LogTree, RecordsError> {
    let found = connection
        .prepare_cached(
            "SELECT sequenced, size, root, map_version, map_root, map_place FROM log_tree
             WHERE id = 1",
        )
        .and_then(|mut select| {
            select.query_row([], |row| {
                Ok(LogTree {
                    sequenced: row.get::<_, Count>(0)?.0,
                    size: row.get::<_, Count>(1)?.0,
                    root: row.get::<_, Fixed<32>>(2)?.0,
                    map_version: row.get::<_, Count>(3)?.0,
                    map_root: row.get::<_, Fixed<32>>(4)?.0,
                    map_place: row.get::<_, Count>(5)?.0,
                })
            })
        });
    found
        .optional()
        .map_err(|source| engine_fault("read where the log stands", source))?
        .ok_or_else(|| damaged("the log does not say where it stands"))
}

fn damaged(detail: &str) -> RecordsError {
    RecordsError::Damaged {
        detail: String::from(detail),
        source: None,
    }
}

pub(crate) fn batch(connection: &Connection) -> Result<LogBatch, RecordsError> {
    let fault = |source| engine_fault("read what waits for the log", source);
    // One view: what is queued, and the state of the accounts with it.
    let view = connection.unchecked_transaction().map_err(fault)?;
    let tree = tree(&view)?;
    let queued = view
        .prepare_cached("SELECT entry FROM log_queue ORDER BY queued_at, entry LIMIT ?1")
        .and_then(|mut select| {
            let rows = select.query_map([row_limit(LOG_BATCH_MAX_ENTRIES)], entry_of)?;
            rows.collect()
        })
        .map_err(fault)?;
    let accounts: Vec<ChangedAccount> = view
        .prepare_cached(
            "SELECT s.account, s.stamp, a.tip_sequence, a.tip_link, c.record
             FROM state_changes s JOIN accounts a ON a.account = s.account
             JOIN chain c ON c.account = s.account AND c.sequence =
               (SELECT min(f.sequence) FROM chain f WHERE f.account = s.account)
             ORDER BY s.account LIMIT ?1",
        )
        .and_then(|mut select| {
            let limit = i64::try_from(STATE_BATCH_MAX_ACCOUNTS).unwrap_or(i64::MAX);
            let rows = select.query_map([limit], changed_of)?;
            rows.collect()
        })
        .map_err(fault)?;
    let mut changed = Vec::with_capacity(accounts.len());
    for account in accounts {
        let heads = heads(&view, account.account)?;
        changed.push(ChangedAccount { heads, ..account });
    }
    Ok(LogBatch {
        tree,
        queued,
        changed,
    })
}

fn entry_of(row: &Row<'_>) -> rusqlite::Result<LogEntry> {
    Ok(row.get::<_, Fixed<LOG_ENTRY_BYTES>>(0)?.0)
}

fn changed_of(row: &Row<'_>) -> rusqlite::Result<ChangedAccount> {
    Ok(ChangedAccount {
        account: AccountId::from_bytes(row.get::<_, Fixed<16>>(0)?.0),
        stamp: row.get::<_, Count>(1)?.0,
        tip: ChainTip {
            sequence: row.get::<_, Count>(2)?.0,
            link: Link::from_bytes(row.get::<_, Fixed<32>>(3)?.0),
        },
        heads: Vec::new(),
        genesis: row.get::<_, Blob>(4)?.0,
    })
}

fn heads(
    connection: &Connection,
    account: AccountId,
) -> Result<Vec<(VaultId, HeadMark)>, RecordsError> {
    connection
        .prepare_cached("SELECT vault, counter, hash FROM heads WHERE account = ?1 ORDER BY vault")
        .and_then(|mut select| {
            let rows = select.query_map([account.as_bytes()], |row| {
                let vault = VaultId::from_bytes(row.get::<_, Fixed<16>>(0)?.0);
                let mark = HeadMark {
                    counter: row.get::<_, Count>(1)?.0,
                    hash: row.get::<_, Fixed<32>>(2)?.0,
                };
                Ok((vault, mark))
            })?;
            rows.collect()
        })
        .map_err(|source| engine_fault("read an account's heads", source))
}

pub(crate) fn sequence(
    connection: &Connection,
    sequencing: &Sequencing,
) -> Result<bool, RecordsError> {
    let (from, to) = (&sequencing.expected, sequencing.outcome()?);
    let fault = |source| engine_fault("sequence entries of the log", source);
    let moved = connection
        .prepare_cached(
            "UPDATE log_tree SET sequenced = ?3
             WHERE id = 1 AND sequenced = ?1 AND map_version = ?2",
        )
        .map_err(fault)?
        .execute([
            bigint(from.sequenced)?,
            bigint(from.map_version)?,
            bigint(to.sequenced)?,
        ])
        .map_err(fault)?;
    if moved == 0 {
        return Ok(false);
    }
    let mut insert = connection
        .prepare_cached("INSERT INTO log_entries (place, entry) VALUES (?1, ?2)")
        .map_err(fault)?;
    let mut unqueue = connection
        .prepare_cached("DELETE FROM log_queue WHERE entry = ?1")
        .map_err(fault)?;
    for (place, entry) in (from.sequenced..).zip(&sequencing.entries) {
        insert
            .execute(params![bigint(place)?, entry])
            .map_err(fault)?;
        unqueue.execute([entry]).map_err(fault)?;
    }
    if let Some(map) = &sequencing.map {
        move_map(connection, map, &to)?;
    }
    Ok(true)
}

fn move_map(connection: &Connection, map: &MapVersion, to: &LogTree) -> Result<(), RecordsError> {
    let fault = |source| engine_fault("move the state map", source);
    let (version, place) = (bigint(to.map_version)?, bigint(to.map_place)?);
    connection
        .prepare_cached(
            "UPDATE log_tree SET map_version = ?1, map_root = ?2, map_place = ?3 WHERE id = 1",
        )
        .and_then(|mut update| update.execute(params![version, to.map_root, place]))
        .map_err(fault)?;
    connection
        .prepare_cached("INSERT INTO map_inputs (version, place, inputs) VALUES (?1, ?2, ?3)")
        .and_then(|mut insert| insert.execute(params![version, place, &map.inputs[..]]))
        .map_err(fault)?;
    let mut put = connection
        .prepare_cached(
            "INSERT INTO state_map (account, map_key, map_value, version, state)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (account) DO UPDATE SET map_key = excluded.map_key,
               map_value = excluded.map_value, version = excluded.version, state = excluded.state",
        )
        .map_err(fault)?;
    let mut settle = connection
        .prepare_cached("DELETE FROM state_changes WHERE account = ?1 AND stamp = ?2")
        .map_err(fault)?;
    let mut orphaned = connection
        .prepare_cached(
            "UPDATE state_map SET map_value = ?2, version = ?3 WHERE map_key = ?1 AND account <> ?4
               AND NOT EXISTS (SELECT 1 FROM accounts a WHERE a.account = ?4)",
        )
        .map_err(fault)?;
    for change in &map.changes {
        let account = change.account.as_bytes();
        // An account that was erased since this version was made: its entry is nobody's by now.
        let values = params![change.key, change.value, version, account];
        if orphaned.execute(values).map_err(fault)? > 0 {
            continue;
        }
        put.execute(params![
            account,
            change.key,
            change.value,
            version,
            &change.state[..]
        ])
        .map_err(fault)?;
        settle
            .execute(params![account, bigint(change.stamp)?])
            .map_err(fault)?;
    }
    Ok(())
}

pub(crate) fn sequenced(
    connection: &Connection,
    from: u64,
    limit: usize,
) -> Result<Vec<LogEntry>, RecordsError> {
    let fault = |source| engine_fault("read entries of the log", source);
    // One view: what must be there, and what is.
    let view = connection.unchecked_transaction().map_err(fault)?;
    let tree = tree(&view)?;
    if from < tree.size || from >= tree.sequenced {
        return Ok(Vec::new());
    }
    let rows: Vec<(u64, LogEntry)> = view
        .prepare_cached(
            "SELECT entry, place FROM log_entries WHERE place >= ?1 ORDER BY place LIMIT ?2",
        )
        .and_then(|mut select| {
            let values = params![from as i64, row_limit(limit)];
            let rows = select.query_map(values, |row| {
                Ok((row.get::<_, Count>(1)?.0, entry_of(row)?))
            })?;
            rows.collect()
        })
        .map_err(fault)?;
    let due = (tree.sequenced - from).min(limit.min(ROWS_MAX) as u64);
    let gapless = (from..).zip(&rows).all(|(place, row)| row.0 == place);
    if !gapless || rows.len() as u64 != due {
        return Err(damaged("the log's entries have a gap"));
    }
    Ok(rows.into_iter().map(|(_, entry)| entry).collect())
}

pub(crate) fn map_inputs(connection: &Connection) -> Result<Vec<MapInputs>, RecordsError> {
    connection
        .prepare_cached("SELECT version, place, inputs FROM map_inputs ORDER BY version")
        .and_then(|mut select| {
            let rows = select.query_map([], |row| {
                Ok(MapInputs {
                    version: row.get::<_, Count>(0)?.0,
                    place: row.get::<_, Count>(1)?.0,
                    inputs: row.get::<_, Blob>(2)?.0,
                })
            })?;
            rows.collect()
        })
        .map_err(|source| engine_fault("read inputs of the state map", source))
}

pub(crate) fn advance(
    connection: &Connection,
    from: (u64, [u8; 32]),
    to: (u64, [u8; 32]),
) -> Result<bool, RecordsError> {
    check_growth(from.0, to.0)?;
    let fault = |source| engine_fault("move the log's tree", source);
    let (old, new) = (bigint(from.0)?, bigint(to.0)?);
    let moved = connection
        .prepare_cached(
            "UPDATE log_tree SET size = ?3, root = ?4
             WHERE id = 1 AND size = ?1 AND root = ?2 AND sequenced >= ?3",
        )
        .and_then(|mut update| update.execute(params![old, from.1, new, to.1]))
        .map_err(fault)?;
    if moved == 0 {
        return Ok(false);
    }
    for delete in [
        "DELETE FROM log_entries WHERE place < ?1",
        "DELETE FROM map_inputs WHERE place < ?1",
    ] {
        connection
            .prepare_cached(delete)
            .and_then(|mut delete| delete.execute([new]))
            .map_err(fault)?;
    }
    Ok(true)
}

const MAP_COLUMNS: &str = "account, map_key, map_value, version, state";

pub(crate) fn map_rows(
    connection: &Connection,
    after: u64,
    last: Option<(u64, AccountId)>,
) -> Result<Vec<MapRow>, RecordsError> {
    // Behind the last account that there can be, of the version that is not asked for any more.
    let nobody = (after, AccountId::from_bytes([0xff; 16]));
    let (version, account) = last.unwrap_or(nobody).max(nobody);
    // Behind the largest version that there can be there is none.
    let version = i64::try_from(version).unwrap_or(i64::MAX);
    connection
        .prepare_cached(&format!(
            "SELECT {MAP_COLUMNS} FROM state_map WHERE (version, account) > (?1, ?2)
             ORDER BY version, account LIMIT ?3"
        ))
        .and_then(|mut select| {
            let values = params![version, account.as_bytes(), row_limit(ROWS_MAX)];
            let rows = select.query_map(values, map_row_of)?;
            rows.collect()
        })
        .map_err(|source| engine_fault("read the state map", source))
}

pub(crate) fn map_row(
    connection: &Connection,
    account: AccountId,
) -> Result<Option<MapRow>, RecordsError> {
    connection
        .prepare_cached(&format!(
            "SELECT {MAP_COLUMNS} FROM state_map WHERE account = ?1"
        ))
        .and_then(|mut select| {
            select
                .query_row([account.as_bytes()], map_row_of)
                .optional()
        })
        .map_err(|source| engine_fault("read the state map", source))
}

fn map_row_of(row: &Row<'_>) -> rusqlite::Result<MapRow> {
    Ok(MapRow {
        account: AccountId::from_bytes(row.get::<_, Fixed<16>>(0)?.0),
        key: row.get::<_, Fixed<32>>(1)?.0,
        value: row.get::<_, Fixed<32>>(2)?.0,
        version: row.get::<_, Count>(3)?.0,
        state: row.get::<_, Blob>(4)?.0,
    })
}
