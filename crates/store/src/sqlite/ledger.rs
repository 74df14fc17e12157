//! The objects, as the cell accounts for them.

use candor_wire::limits::HAS_MAX_IDS;
use candor_wire::{AccountId, Millis, ObjectId, VaultId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::accounts;
use super::fault::engine_fault;
use super::row::{Count, Fixed, bigint, row_limit};
use crate::objects::ObjectKey;
use crate::records::{
    ConfirmOutcome, HeadSwap, LedgerEntry, ObjectState, Presence, RESERVATION_MAX_MS, ROWS_MAX,
    RecordsError, Reservation, ReserveOutcome,
};

const STATE_RESERVED: i64 = 1;
const STATE_STORED: i64 = 2;
const STATE_RELEASING: i64 = 3;

pub(crate) fn reserve(
    connection: &Connection,
    reservation: &Reservation,
) -> Result<ReserveOutcome, RecordsError> {
    let key = &reservation.key;
    let size = bigint(reservation.size)?;
    let account = accounts::writable(connection, key.account)?;
    if let Some(entry) = get(connection, key)? {
        if entry.size != reservation.size {
            return Err(RecordsError::Invalid(
                "the object is known with another size",
            ));
        }
        return match entry.state {
            ObjectState::Stored => Ok(ReserveOutcome::AlreadyStored),
            ObjectState::Releasing => Ok(ReserveOutcome::Releasing),
            ObjectState::Reserved => {
                enter(connection, key, STATE_RESERVED, reservation.now)?;
                Ok(ReserveOutcome::Reserved)
            }
        };
    }
    let used = account.stored_bytes.saturating_add(account.reserved_bytes);
    if used.saturating_add(reservation.size) > account.quota_bytes {
        return Ok(ReserveOutcome::OverQuota {
            used,
            quota: account.quota_bytes,
        });
    }
    connection
        .prepare_cached(
            "INSERT INTO objects (account, vault, object, size, state, since)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .and_then(|mut insert| {
            insert.execute(params![
                key.account.as_bytes(),
                key.vault.as_bytes(),
                key.object.as_bytes(),
                size,
                STATE_RESERVED,
                reservation.now.0
            ])
        })
        .map_err(|source| engine_fault("reserve quota", source))?;
    accounts::add_bytes(connection, key.account, 0, size)?;
    Ok(ReserveOutcome::Reserved)
}

pub(crate) fn confirm(
    connection: &Connection,
    key: &ObjectKey,
    now: Millis,
) -> Result<ConfirmOutcome, RecordsError> {
    let size = enter(connection, key, STATE_STORED, now)?;
    if let Some(size) = size {
        accounts::add_bytes(connection, key.account, size, -size)?;
        return Ok(ConfirmOutcome::Confirmed);
    }
    let stored = get(connection, key)?.is_some_and(|entry| entry.state == ObjectState::Stored);
    Ok(if stored {
        ConfirmOutcome::AlreadyStored
    } else {
        ConfirmOutcome::NotReserved
    })
}

pub(crate) fn release(
    connection: &Connection,
    key: &ObjectKey,
    now: Millis,
) -> Result<bool, RecordsError> {
    Ok(enter(connection, key, STATE_RELEASING, now)?.is_some())
}

/// Takes a reserved object into another state (or renews it), and returns its size; `None` if it
/// is not reserved.
fn enter(
    connection: &Connection,
    key: &ObjectKey,
    state: i64,
    now: Millis,
) -> Result<Option<i64>, RecordsError> {
    connection
        .prepare_cached(
            "UPDATE objects SET state = ?4, since = ?5
             WHERE account = ?1 AND vault = ?2 AND object = ?3 AND state = ?6 RETURNING size",
        )
        .and_then(|mut update| {
            update
                .query_row(
                    params![
                        key.account.as_bytes(),
                        key.vault.as_bytes(),
                        key.object.as_bytes(),
                        state,
                        now.0,
                        STATE_RESERVED
                    ],
                    |row| row.get(0),
                )
                .optional()
        })
        .map_err(|source| engine_fault("settle a reservation", source))
}

/// Takes what a new head needs off the condemned ones. Tells the first that is not stored; then nothing was
/// changed.
pub(crate) fn rescue(
    connection: &Connection,
    swap: &HeadSwap,
) -> Result<Option<ObjectId>, RecordsError> {
    for page in swap.needed.chunks(HAS_MAX_IDS) {
        let standing = has(connection, swap.account, swap.vault, page)?;
        let missing = standing.iter().position(|one| *one == Presence::Absent);
        if let Some(place) = missing {
            return Ok(Some(page[place]));
        }
    }
    mark(connection, swap, &swap.needed, None)?;
    Ok(None)
}

/// Condemns what a new head says that nobody needs.
pub(crate) fn condemn(connection: &Connection, swap: &HeadSwap) -> Result<(), RecordsError> {
    mark(connection, swap, &swap.condemned, Some(swap.new.moved_at))
}

/// What is condemned stays so since it first was.
fn mark(
    connection: &Connection,
    swap: &HeadSwap,
    objects: &[ObjectId],
    since: Option<Millis>,
) -> Result<(), RecordsError> {
    let fault = |source| engine_fault("condemn objects", source);
    let mut update = connection
        .prepare_cached(
            "UPDATE objects SET condemned_at = ?4
             WHERE account = ?1 AND vault = ?2 AND object = ?3 AND state = ?5
               AND (condemned_at IS NULL) <> (?4 IS NULL)",
        )
        .map_err(fault)?;
    for object in objects {
        update
            .execute(params![
                swap.account.as_bytes(),
                swap.vault.as_bytes(),
                object.as_bytes(),
                since.map(|since| since.0),
                STATE_STORED
            ])
            .map_err(fault)?;
    }
    Ok(())
}

pub(crate) fn let_condemned_go(
    connection: &Connection,
    before: Millis,
    now: Millis,
    limit: usize,
) -> Result<u64, RecordsError> {
    let fault = |source| engine_fault("let condemned objects go", source);
    let mut select = connection
        .prepare_cached(
            "SELECT account, vault, object FROM objects
             WHERE condemned_at IS NOT NULL AND condemned_at < ?1
             ORDER BY condemned_at, account, vault, object LIMIT ?2",
        )
        .map_err(fault)?;
    let keys: Vec<ObjectKey> = select
        .query_map(params![before.0, row_limit(limit)], key_of)
        .and_then(Iterator::collect)
        .map_err(fault)?;
    let mut update = connection
        .prepare_cached(
            "UPDATE objects SET state = ?4, since = ?5, condemned_at = NULL
             WHERE account = ?1 AND vault = ?2 AND object = ?3 AND state = ?6 RETURNING size",
        )
        .map_err(fault)?;
    for key in &keys {
        let size: i64 = update
            .query_row(
                params![
                    key.account.as_bytes(),
                    key.vault.as_bytes(),
                    key.object.as_bytes(),
                    STATE_RELEASING,
                    now.0,
                    STATE_STORED
                ],
                |row| row.get(0),
            )
            .map_err(fault)?;
        // Until the bytes are gone they count.
        accounts::add_bytes(connection, key.account, -size, size)?;
    }
    Ok(keys.len() as u64)
}

/// Lets objects of a vault, or of a whole account, go, in whatever state they are.
pub(crate) fn let_all_go(
    connection: &Connection,
    account: AccountId,
    vault: Option<VaultId>,
    now: Millis,
    limit: usize,
) -> Result<u64, RecordsError> {
    let fault = |source| engine_fault("let objects go", source);
    let vault = vault.as_ref().map(|vault| vault.as_bytes());
    let mut select = connection
        .prepare_cached(
            "SELECT account, vault, object, state, size FROM objects
             WHERE account = ?1 AND (?2 IS NULL OR vault = ?2) AND state <> ?3
             ORDER BY account, vault, object LIMIT ?4",
        )
        .map_err(fault)?;
    let values = params![account.as_bytes(), vault, STATE_RELEASING, row_limit(limit)];
    let found: Vec<(ObjectKey, i64, i64)> = select
        .query_map(values, |row| Ok((key_of(row)?, row.get(3)?, row.get(4)?)))
        .and_then(Iterator::collect)
        .map_err(fault)?;
    let mut update = connection
        .prepare_cached(
            "UPDATE objects SET state = ?4, since = ?5, condemned_at = NULL
             WHERE account = ?1 AND vault = ?2 AND object = ?3",
        )
        .map_err(fault)?;
    for (key, state, size) in &found {
        update
            .execute(params![
                key.account.as_bytes(),
                key.vault.as_bytes(),
                key.object.as_bytes(),
                STATE_RELEASING,
                now.0
            ])
            .map_err(fault)?;
        if *state == STATE_STORED {
            // Until the bytes are gone they count.
            accounts::add_bytes(connection, key.account, -size, *size)?;
        }
    }
    Ok(found.len() as u64)
}

/// Whether a vault, or a whole account, has objects in whatever state.
pub(crate) fn has_any(
    connection: &Connection,
    account: AccountId,
    vault: Option<VaultId>,
) -> Result<bool, RecordsError> {
    connection
        .prepare_cached(
            "SELECT 1 FROM objects WHERE account = ?1 AND (?2 IS NULL OR vault = ?2) LIMIT 1",
        )
        .and_then(|mut select| {
            select.exists(params![
                account.as_bytes(),
                vault.as_ref().map(|vault| vault.as_bytes())
            ])
        })
        .map_err(|source| engine_fault("look objects up", source))
}

fn key_of(row: &Row<'_>) -> rusqlite::Result<ObjectKey> {
    Ok(ObjectKey {
        account: AccountId::from_bytes(row.get::<_, Fixed<16>>(0)?.0),
        vault: VaultId::from_bytes(row.get::<_, Fixed<16>>(1)?.0),
        object: ObjectId::from_bytes(row.get::<_, Fixed<32>>(2)?.0),
    })
}

pub(crate) fn releasing(
    connection: &Connection,
    now: Millis,
    limit: usize,
) -> Result<Vec<ObjectKey>, RecordsError> {
    let fault = |source| engine_fault("let reservations go", source);
    connection
        .prepare_cached(
            "UPDATE objects SET state = ?1, since = ?2 WHERE (account, vault, object) IN (
               SELECT account, vault, object FROM objects
               WHERE state <> 2 AND state = ?3 AND since <= ?4
               ORDER BY since, account, vault, object LIMIT ?5)",
        )
        .and_then(|mut update| {
            update.execute(params![
                STATE_RELEASING,
                now.0,
                STATE_RESERVED,
                now.0.saturating_sub(RESERVATION_MAX_MS),
                row_limit(limit)
            ])
        })
        .map_err(fault)?;
    let mut select = connection
        .prepare_cached(
            "SELECT account, vault, object FROM objects WHERE state <> 2 AND state = ?1
             ORDER BY since, account, vault, object LIMIT ?2",
        )
        .map_err(fault)?;
    select
        .query_map(params![STATE_RELEASING, row_limit(limit)], key_of)
        .and_then(Iterator::collect)
        .map_err(fault)
}

pub(crate) fn finish_release(
    connection: &Connection,
    keys: &[ObjectKey],
) -> Result<u64, RecordsError> {
    if keys.len() > ROWS_MAX {
        return Err(RecordsError::Invalid("too many objects at once"));
    }
    let fault = |source| engine_fault("forget objects", source);
    let mut delete = connection
        .prepare_cached(
            "DELETE FROM objects WHERE account = ?1 AND vault = ?2 AND object = ?3 AND state = ?4
             RETURNING size",
        )
        .map_err(fault)?;
    let mut forgotten = 0;
    for key in keys {
        let size: Option<i64> = delete
            .query_row(
                params![
                    key.account.as_bytes(),
                    key.vault.as_bytes(),
                    key.object.as_bytes(),
                    STATE_RELEASING
                ],
                |row| row.get(0),
            )
            .optional()
            .map_err(fault)?;
        if let Some(size) = size {
            accounts::add_bytes(connection, key.account, 0, -size)?;
            forgotten += 1;
        }
    }
    Ok(forgotten)
}

pub(crate) fn has(
    connection: &Connection,
    account: AccountId,
    vault: VaultId,
    objects: &[ObjectId],
) -> Result<Vec<Presence>, RecordsError> {
    if objects.len() > HAS_MAX_IDS {
        return Err(RecordsError::Invalid("too many objects in one question"));
    }
    let fault = |source| engine_fault("look objects up", source);
    let mut select = connection
        .prepare_cached(
            "SELECT condemned_at IS NOT NULL FROM objects
             WHERE account = ?1 AND vault = ?2 AND object = ?3 AND state = ?4",
        )
        .map_err(fault)?;
    objects
        .iter()
        .map(|object| {
            let condemned: Option<bool> = select
                .query_row(
                    params![
                        account.as_bytes(),
                        vault.as_bytes(),
                        object.as_bytes(),
                        STATE_STORED
                    ],
                    |row| row.get(0),
                )
                .optional()
                .map_err(fault)?;
            Ok(match condemned {
                None => Presence::Absent,
                Some(false) => Presence::Stored,
                Some(true) => Presence::Condemned,
            })
        })
        .collect()
}

pub(crate) fn get(
    connection: &Connection,
    key: &ObjectKey,
) -> Result<Option<LedgerEntry>, RecordsError> {
    connection
        .prepare_cached(
            "SELECT object, size, state, since, condemned_at FROM objects
             WHERE account = ?1 AND vault = ?2 AND object = ?3",
        )
        .and_then(|mut select| {
            select
                .query_row(
                    params![
                        key.account.as_bytes(),
                        key.vault.as_bytes(),
                        key.object.as_bytes()
                    ],
                    entry_of,
                )
                .optional()
        })
        .map_err(|source| engine_fault("look an object up", source))
}

pub(crate) fn list(
    connection: &Connection,
    account: AccountId,
    vault: VaultId,
    after: Option<ObjectId>,
    limit: usize,
) -> Result<Vec<LedgerEntry>, RecordsError> {
    // No name is shorter than the empty one, so that it comes before all of them.
    let after: &[u8] = after.as_ref().map_or(&[], |after| after.as_bytes());
    connection
        .prepare_cached(
            "SELECT object, size, state, since, condemned_at FROM objects
             WHERE account = ?1 AND vault = ?2 AND object > ?3 AND state = ?4
             ORDER BY object LIMIT ?5",
        )
        .and_then(|mut select| {
            select
                .query_map(
                    params![
                        account.as_bytes(),
                        vault.as_bytes(),
                        after,
                        STATE_STORED,
                        row_limit(limit)
                    ],
                    entry_of,
                )
                .and_then(Iterator::collect)
        })
        .map_err(|source| engine_fault("list objects", source))
}

fn entry_of(row: &Row<'_>) -> rusqlite::Result<LedgerEntry> {
    Ok(LedgerEntry {
        object: ObjectId::from_bytes(row.get::<_, Fixed<32>>(0)?.0),
        size: row.get::<_, Count>(1)?.0,
        state: match row.get(2)? {
            STATE_RESERVED => ObjectState::Reserved,
            STATE_STORED => ObjectState::Stored,
            STATE_RELEASING => ObjectState::Releasing,
            other => return Err(rusqlite::Error::IntegralValueOutOfRange(2, other)),
        },
        since: Millis(row.get(3)?),
        condemned_at: row.get::<_, Option<i64>>(4)?.map(Millis),
    })
}
