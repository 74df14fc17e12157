//! The cell's own values, invitations and accounts.

use bytes::Bytes;
use candor_wire::{AccountId, Millis};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::fault::engine_fault;
use super::row::{Blob, Count, Fixed, bigint};
use super::{chain, log};
use crate::records::{
    Account, AccountOpening, AccountState, CELL_NAME_MAX_BYTES, CELL_VALUE_MAX_BYTES,
    CreateOutcome, Invitation, OpenOutcome, RecordsError, RootKeyHash, end_of,
};

const STATE_ACTIVE: i64 = 1;
const STATE_FROZEN: i64 = 2;

const ACCOUNT_COLUMNS: &str = "account, root_key_hash, state, quota_bytes, stored_bytes, \
     reserved_bytes, opened_at";

pub(crate) fn cell_value(
    connection: &Connection,
    name: &str,
) -> Result<Option<Bytes>, RecordsError> {
    connection
        .prepare_cached("SELECT value FROM cell_values WHERE name = ?1")
        .and_then(|mut select| select.query_row([name], |row| row.get(0)).optional())
        .map(|value: Option<Blob>| value.map(|Blob(bytes)| bytes))
        .map_err(|source| engine_fault("read a value of the cell", source))
}

pub(crate) fn set_cell_value(
    connection: &Connection,
    name: &str,
    value: &[u8],
) -> Result<(), RecordsError> {
    if name.len() > CELL_NAME_MAX_BYTES || value.len() > CELL_VALUE_MAX_BYTES {
        return Err(RecordsError::Invalid("a value of the cell is too long"));
    }
    connection
        .prepare_cached(
            "INSERT INTO cell_values (name, value) VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        )
        .and_then(|mut insert| insert.execute(params![name, value]))
        .map(|_| ())
        .map_err(|source| engine_fault("set a value of the cell", source))
}

pub(crate) fn create_invitation(
    connection: &Connection,
    invitation: &Invitation,
) -> Result<CreateOutcome, RecordsError> {
    let rows = connection
        .prepare_cached(
            "INSERT INTO invitations (secret_hash, made_at, expires_at, quota_bytes)
             VALUES (?1, ?2, ?3, ?4) ON CONFLICT (secret_hash) DO NOTHING",
        )
        .and_then(|mut insert| {
            insert.execute(params![
                invitation.secret.0,
                invitation.made_at.0,
                invitation.expires_at.0,
                stored_quota(invitation.quota_bytes)
            ])
        })
        .map_err(|source| engine_fault("create an invitation", source))?;
    Ok(if rows == 1 {
        CreateOutcome::Created
    } else {
        CreateOutcome::AlreadyThere
    })
}

/// What an invitation has become.
struct Offer {
    expires_at: Millis,
    quota_bytes: i64,
    opened: Option<([u8; 16], [u8; 32])>,
}

pub(crate) fn open(
    connection: &Connection,
    opening: &AccountOpening,
) -> Result<OpenOutcome, RecordsError> {
    let tip = end_of(&opening.genesis, None)?;
    let Some(offer) = offer(connection, opening)? else {
        return Ok(OpenOutcome::InvitationUnknown);
    };
    let holder = by_id(connection, opening.account)?;
    if let Some((account, link)) = offer.opened {
        let repeated = account == *opening.account.as_bytes()
            && link == *opening.genesis[0].link.as_bytes()
            && holder.is_some_and(|holder| holder.root_key == opening.root_key);
        return Ok(match repeated {
            true => OpenOutcome::AlreadyOpened,
            false => OpenOutcome::InvitationUsed,
        });
    }
    if opening.now >= offer.expires_at {
        return Ok(OpenOutcome::InvitationExpired);
    }
    if holder.is_some() {
        return Ok(OpenOutcome::AccountExists);
    }
    if by_root_key(connection, opening.root_key)?.is_some() {
        return Ok(OpenOutcome::RootKeyTaken);
    }
    let fault = |source| engine_fault("open an account", source);
    connection
        .prepare_cached(
            "INSERT INTO accounts (account, root_key_hash, state, quota_bytes, stored_bytes,
               reserved_bytes, opened_at, tip_sequence, tip_link)
             VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, ?6, ?7)",
        )
        .and_then(|mut insert| {
            insert.execute(params![
                opening.account.as_bytes(),
                opening.root_key.0,
                STATE_ACTIVE,
                offer.quota_bytes,
                opening.now.0,
                tip.sequence as i64,
                tip.link.as_bytes()
            ])
        })
        .map_err(fault)?;
    chain::insert(connection, opening.account, &opening.genesis)?;
    log::queue(connection, &opening.entries, opening.now)?;
    log::mark_changed(connection, opening.account)?;
    connection
        .prepare_cached(
            "UPDATE invitations SET opened_account = ?2, opened_link = ?3 WHERE secret_hash = ?1",
        )
        .and_then(|mut update| {
            update.execute(params![
                opening.secret.0,
                opening.account.as_bytes(),
                opening.genesis[0].link.as_bytes()
            ])
        })
        .map_err(fault)?;
    Ok(OpenOutcome::Opened)
}

fn offer(connection: &Connection, opening: &AccountOpening) -> Result<Option<Offer>, RecordsError> {
    connection
        .prepare_cached(
            "SELECT expires_at, quota_bytes, opened_account, opened_link
             FROM invitations WHERE secret_hash = ?1",
        )
        .and_then(|mut select| {
            select
                .query_row([opening.secret.0], |row| {
                    let account: Option<Fixed<16>> = row.get(2)?;
                    let link: Option<Fixed<32>> = row.get(3)?;
                    Ok(Offer {
                        expires_at: Millis(row.get(0)?),
                        quota_bytes: row.get(1)?,
                        opened: account.zip(link).map(|(account, link)| (account.0, link.0)),
                    })
                })
                .optional()
        })
        .map_err(|source| engine_fault("read an invitation", source))
}

pub(crate) fn by_id(
    connection: &Connection,
    account: AccountId,
) -> Result<Option<Account>, RecordsError> {
    find(
        connection,
        &format!("SELECT {ACCOUNT_COLUMNS} FROM accounts WHERE account = ?1"),
        account.as_bytes(),
    )
}

pub(crate) fn by_root_key(
    connection: &Connection,
    root_key: RootKeyHash,
) -> Result<Option<Account>, RecordsError> {
    find(
        connection,
        &format!("SELECT {ACCOUNT_COLUMNS} FROM accounts WHERE root_key_hash = ?1"),
        &root_key.0,
    )
}

fn find(
    connection: &Connection,
    select: &str,
    key: &[u8],
) -> Result<Option<Account>, RecordsError> {
    connection
        .prepare_cached(select)
        .and_then(|mut select| select.query_row([key], account_of).optional())
        .map_err(|source| engine_fault("read an account", source))
}

fn account_of(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        account: AccountId::from_bytes(row.get::<_, Fixed<16>>(0)?.0),
        root_key: RootKeyHash(row.get::<_, Fixed<32>>(1)?.0),
        state: match row.get(2)? {
            STATE_ACTIVE => AccountState::Active,
            STATE_FROZEN => AccountState::Frozen,
            other => return Err(rusqlite::Error::IntegralValueOutOfRange(2, other)),
        },
        quota_bytes: row.get::<_, Count>(3)?.0,
        stored_bytes: row.get::<_, Count>(4)?.0,
        reserved_bytes: row.get::<_, Count>(5)?.0,
        opened_at: Millis(row.get(6)?),
    })
}

/// The account, if it takes writes.
pub(crate) fn writable(
    connection: &Connection,
    account: AccountId,
) -> Result<Account, RecordsError> {
    let found = by_id(connection, account)?.ok_or(RecordsError::NoSuchAccount(account))?;
    match found.state {
        AccountState::Active => Ok(found),
        AccountState::Frozen => Err(RecordsError::AccountFrozen(account)),
    }
}

/// Moves bytes between an account's totals. Both changes may be negative.
pub(crate) fn add_bytes(
    connection: &Connection,
    account: AccountId,
    stored: i64,
    reserved: i64,
) -> Result<(), RecordsError> {
    connection
        .prepare_cached(
            "UPDATE accounts SET stored_bytes = stored_bytes + ?2,
               reserved_bytes = reserved_bytes + ?3 WHERE account = ?1",
        )
        .and_then(|mut update| update.execute(params![account.as_bytes(), stored, reserved]))
        .map(|_| ())
        .map_err(|source| engine_fault("count an account's bytes", source))
}

pub(crate) fn set_quota(
    connection: &Connection,
    account: AccountId,
    quota_bytes: u64,
) -> Result<(), RecordsError> {
    let update = "UPDATE accounts SET quota_bytes = ?2 WHERE account = ?1";
    set(connection, update, account, stored_quota(quota_bytes))
}

pub(crate) fn set_state(
    connection: &Connection,
    account: AccountId,
    state: AccountState,
) -> Result<(), RecordsError> {
    let state = match state {
        AccountState::Active => STATE_ACTIVE,
        AccountState::Frozen => STATE_FROZEN,
    };
    set(
        connection,
        "UPDATE accounts SET state = ?2 WHERE account = ?1",
        account,
        state,
    )
}

fn set(
    connection: &Connection,
    update: &str,
    account: AccountId,
    value: i64,
) -> Result<(), RecordsError> {
    let rows = connection
        .prepare_cached(update)
        .and_then(|mut update| update.execute(params![account.as_bytes(), value]))
        .map_err(|source| engine_fault("change an account", source))?;
    if rows == 0 {
        Err(RecordsError::NoSuchAccount(account))
    } else {
        Ok(())
    }
}

/// "No limit" is often written as the largest number there is: keep the largest that fits.
fn stored_quota(quota_bytes: u64) -> i64 {
    bigint(quota_bytes).unwrap_or(i64::MAX)
}
