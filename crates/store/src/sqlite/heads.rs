//! The heads of vaults.

use bytes::Bytes;
use candor_wire::{AccountId, Millis, VaultId};
use rusqlite::{Connection, OptionalExtension, params};

use super::fault::engine_fault;
use super::row::{Blob, Count, Fixed, bigint, row_limit};
use super::{accounts, chain, ledger, log};
use crate::records::{CHAIN_PAGE_MAX_BYTES, Head, HeadMark, HeadSwap, RecordsError, SwapOutcome};

pub(crate) fn get(
    connection: &Connection,
    account: AccountId,
    vault: VaultId,
) -> Result<Option<Head>, RecordsError> {
    connection
        .prepare_cached(
            "SELECT counter, hash, head, moved_at FROM heads WHERE account = ?1 AND vault = ?2",
        )
        .and_then(|mut select| {
            select
                .query_row(params![account.as_bytes(), vault.as_bytes()], |row| {
                    Ok(Head {
                        mark: HeadMark {
                            counter: row.get::<_, Count>(0)?.0,
                            hash: row.get::<_, Fixed<32>>(1)?.0,
                        },
                        bytes: row.get::<_, Blob>(2)?.0,
                        moved_at: Millis(row.get(3)?),
                    })
                })
                .optional()
        })
        .map_err(|source| engine_fault("read a head", source))
}

/// Where the heads of all vaults of an account stand, ascending by vault.
pub(crate) fn all(
    connection: &Connection,
    account: AccountId,
) -> Result<Vec<(VaultId, HeadMark)>, RecordsError> {
    let fault = |source| engine_fault("read the heads of an account", source);
    let mut select = connection
        .prepare_cached("SELECT vault, counter, hash FROM heads WHERE account = ?1 ORDER BY vault")
        .map_err(fault)?;
    let rows = select
        .query_map([account.as_bytes()], |row| {
            let vault = VaultId::from_bytes(row.get::<_, Fixed<16>>(0)?.0);
            let mark = HeadMark {
                counter: row.get::<_, Count>(1)?.0,
                hash: row.get::<_, Fixed<32>>(2)?.0,
            };
            Ok((vault, mark))
        })
        .map_err(fault)?;
    rows.collect::<Result<_, _>>().map_err(fault)
}

pub(crate) fn swap(connection: &Connection, swap: &HeadSwap) -> Result<SwapOutcome, RecordsError> {
    let counter = bigint(swap.new.mark.counter)?;
    accounts::writable(connection, swap.account)?;
    if let Some(link) = swap.chain
        && chain::tip(connection, swap.account)?.is_some_and(|tip| tip.link != link)
    {
        return Ok(SwapOutcome::ChainMoved);
    }
    let current = get(connection, swap.account, swap.vault)?;
    if let Some(refused) = swap.refusal(current) {
        return Ok(refused);
    }
    if let Some(missing) = ledger::rescue(connection, swap)? {
        return Ok(SwapOutcome::Missing(missing));
    }
    ledger::condemn(connection, swap)?;
    connection
        .prepare_cached(
            "INSERT INTO heads (account, vault, counter, hash, head, moved_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (account, vault) DO UPDATE SET counter = excluded.counter,
               hash = excluded.hash, head = excluded.head, moved_at = excluded.moved_at",
        )
        .and_then(|mut insert| {
            insert.execute(params![
                swap.account.as_bytes(),
                swap.vault.as_bytes(),
                counter,
                swap.new.mark.hash,
                &swap.new.bytes[..],
                swap.new.moved_at.0
            ])
        })
        .map_err(|source| engine_fault("move a head", source))?;
    if swap.is_run {
        keep(connection, swap, counter)?;
    }
    log::mark_changed(connection, swap.account)?;
    Ok(SwapOutcome::Swapped)
}

fn keep(connection: &Connection, swap: &HeadSwap, counter: i64) -> Result<(), RecordsError> {
    connection
        .prepare_cached("INSERT INTO runs (account, vault, counter, head) VALUES (?1, ?2, ?3, ?4)")
        .and_then(|mut insert| {
            insert.execute(params![
                swap.account.as_bytes(),
                swap.vault.as_bytes(),
                counter,
                &swap.new.bytes[..]
            ])
        })
        .map(|_| ())
        .map_err(|source| engine_fault("keep a run", source))
}

pub(crate) fn runs(
    connection: &Connection,
    account: AccountId,
    vault: VaultId,
    after: u64,
    limit: usize,
) -> Result<(Vec<Bytes>, bool), RecordsError> {
    let fault = |source| engine_fault("read runs", source);
    let mut select = connection
        .prepare_cached(
            "SELECT head FROM runs WHERE account = ?1 AND vault = ?2 AND counter > ?3
             ORDER BY counter LIMIT ?4",
        )
        .map_err(fault)?;
    // One more than asked for tells whether there are more.
    let rows = row_limit(limit);
    let mut found = select
        .query(params![
            account.as_bytes(),
            vault.as_bytes(),
            bigint(after).unwrap_or(i64::MAX),
            rows.saturating_add(1)
        ])
        .map_err(fault)?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    while let Some(row) = found.next().map_err(fault)? {
        let Blob(head) = row.get(0).map_err(fault)?;
        bytes += head.len();
        let is_full = page.len() as i64 >= rows || bytes > CHAIN_PAGE_MAX_BYTES;
        if is_full && (rows == 0 || !page.is_empty()) {
            return Ok((page, true));
        }
        page.push(head);
    }
    Ok((page, false))
}
