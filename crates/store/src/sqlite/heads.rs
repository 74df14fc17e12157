//! The heads of vaults.

use candor_wire::{AccountId, Millis, VaultId};
use rusqlite::{Connection, OptionalExtension, params};

use super::fault::engine_fault;
use super::row::{Blob, Count, Fixed, bigint};
use super::{accounts, ledger, log};
use crate::records::{Head, HeadMark, HeadSwap, RecordsError, SwapOutcome};

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

pub(crate) fn swap(connection: &Connection, swap: &HeadSwap) -> Result<SwapOutcome, RecordsError> {
    let counter = bigint(swap.new.mark.counter)?;
    accounts::writable(connection, swap.account)?;
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
    log::mark_changed(connection, swap.account)?;
    Ok(SwapOutcome::Swapped)
}
