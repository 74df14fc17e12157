//! Links.

use bytes::Bytes;
use candor_wire::Millis;
use candor_wire::ids::AccountId;
use candor_wire::linking::{LINK_MESSAGES, LINKS_MAX};
use rusqlite::{Connection, OptionalExtension, params};

use super::accounts;
use super::fault::engine_fault;
use super::row::{Blob, Fixed, row_limit};
use crate::links::{
    LinkMessages, LinkOpening, LinkOutcome, MessageOutcome, OpenLink, check_message,
};
use crate::records::RecordsError;

/// One statement for each place: a column cannot be a parameter.
const LEAVE: [&str; LINK_MESSAGES] = [
    "UPDATE links SET request = ?2 WHERE name = ?1",
    "UPDATE links SET answer = ?2 WHERE name = ?1",
    "UPDATE links SET opening = ?2 WHERE name = ?1",
    "UPDATE links SET verdict = ?2 WHERE name = ?1",
];

pub(crate) fn open(
    connection: &Connection,
    opening: &LinkOpening,
) -> Result<LinkOutcome, RecordsError> {
    let fault = |source| engine_fault("open a link", source);
    accounts::writable(connection, opening.account)?;
    let open: i64 = connection
        .prepare_cached("SELECT count(*) FROM links WHERE account = ?1 AND expires_at > ?2")
        .and_then(|mut count| {
            let values = params![opening.account.as_bytes(), opening.now.0];
            count.query_row(values, |row| row.get(0))
        })
        .map_err(fault)?;
    let is_there = connection
        .prepare_cached("SELECT 1 FROM links WHERE name = ?1")
        .and_then(|mut select| select.exists([opening.name]))
        .map_err(fault)?;
    if is_there {
        return Ok(LinkOutcome::AlreadyThere);
    }
    if open >= LINKS_MAX as i64 {
        return Ok(LinkOutcome::TooMany);
    }
    connection
        .prepare_cached("INSERT INTO links (name, account, expires_at) VALUES (?1, ?2, ?3)")
        .and_then(|mut insert| {
            insert.execute(params![
                opening.name,
                opening.account.as_bytes(),
                opening.expires_at.0
            ])
        })
        .map(|_| LinkOutcome::Opened)
        .map_err(fault)
}

pub(crate) fn leave(
    connection: &Connection,
    name: &[u8; 32],
    place: u8,
    message: &Bytes,
    now: Millis,
) -> Result<MessageOutcome, RecordsError> {
    let place = check_message(place, message)?;
    let Some(link) = get(connection, name, now)? else {
        return Ok(MessageOutcome::NoSuchLink);
    };
    match &link.messages[place] {
        Some(there) if there == message => Ok(MessageOutcome::AlreadyThere),
        Some(_) => Ok(MessageOutcome::Taken),
        None => connection
            .prepare_cached(LEAVE[place])
            .and_then(|mut update| update.execute(params![name, &message[..]]))
            .map(|_| MessageOutcome::Left)
            .map_err(|source| engine_fault("leave a message at a link", source)),
    }
}

pub(crate) fn get(
    connection: &Connection,
    name: &[u8; 32],
    now: Millis,
) -> Result<Option<OpenLink>, RecordsError> {
    connection
        .prepare_cached(
            "SELECT request, answer, opening, verdict, account FROM links
             WHERE name = ?1 AND expires_at > ?2",
        )
        .and_then(|mut select| {
            select
                .query_row(params![name, now.0], |row| {
                    let mut messages = LinkMessages::default();
                    for (column, message) in messages.iter_mut().enumerate() {
                        let found: Option<Blob> = row.get(column)?;
                        *message = found.map(|Blob(bytes)| bytes);
                    }
                    let Fixed(account) = row.get(LINK_MESSAGES)?;
                    let account = AccountId::from_bytes(account);
                    Ok(OpenLink { account, messages })
                })
                .optional()
        })
        .map_err(|source| engine_fault("read a link", source))
}

pub(crate) fn sweep(
    connection: &Connection,
    before: Millis,
    limit: usize,
) -> Result<u64, RecordsError> {
    connection
        .prepare_cached(
            "DELETE FROM links WHERE name IN (
               SELECT name FROM links WHERE expires_at < ?1 ORDER BY expires_at, name LIMIT ?2)",
        )
        .and_then(|mut delete| delete.execute(params![before.0, row_limit(limit)]))
        .map(|rows| rows as u64)
        .map_err(|source| engine_fault("forget links", source))
}
