//! The schema, and how a database comes to have it.
//!
//! A migration that was released is never changed; a new one is added. Every column says in a
//! comment what it holds, after a mark: `E` for what the software enforces (others cannot read or
//! change it unnoticed), `P` for what is policy (the operator can see it). [`crate::data_map`] says
//! the same in Rust, and a test compares the two with a real database.
//!
//! Columns are BIGINT, TEXT or BLOB (BYTEA with PostgreSQL). `WITHOUT ROWID` only changes how SQLite
//! lays small rows out on disk.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::fault::engine_fault;
use crate::records::RecordsError;

/// The migrations, the first one making version 1. Each runs in one transaction.
pub(crate) const MIGRATIONS: &[&str] = &[VERSION_1, VERSION_2, VERSION_3, VERSION_4, VERSION_5];

const VERSION_1: &str = "
CREATE TABLE cell_values (
  name TEXT NOT NULL PRIMARY KEY, -- P: name of a fact about the cell itself
  value BLOB NOT NULL -- P: the fact
);
CREATE TABLE invitations (
  secret_hash BLOB NOT NULL PRIMARY KEY, -- E: BLAKE3 hash of the secret in the invitation
  made_at BIGINT NOT NULL, -- P: when it was made, milliseconds
  expires_at BIGINT NOT NULL, -- P: when it ends, milliseconds
  quota_bytes BIGINT NOT NULL, -- P: quota of the account it opens
  opened_account BLOB, -- P: the account it opened
  opened_link BLOB -- E: the first link of that account's chain
);
CREATE TABLE accounts (
  account BLOB NOT NULL PRIMARY KEY, -- P: random id of the account
  root_key_hash BLOB NOT NULL UNIQUE, -- E: hash of the root public key
  state BIGINT NOT NULL, -- P: 1 active, 2 frozen
  quota_bytes BIGINT NOT NULL, -- P: bytes it may store
  stored_bytes BIGINT NOT NULL, -- P: bytes of its stored objects
  reserved_bytes BIGINT NOT NULL, -- P: bytes promised to uploads
  opened_at BIGINT NOT NULL, -- P: when it was opened, milliseconds
  tip_sequence BIGINT NOT NULL, -- E: sequence of the last row of its chain
  tip_link BLOB NOT NULL -- E: link of the last row of its chain
) WITHOUT ROWID;
CREATE TABLE chain (
  account BLOB NOT NULL REFERENCES accounts (account), -- P: whose chain
  sequence BIGINT NOT NULL, -- E: place in the chain, bound by the link
  kind BIGINT NOT NULL, -- E: kind of the statement, bound by the link
  link BLOB NOT NULL, -- E: hash over the chain up to here
  commitment BLOB NOT NULL, -- E: commitment to the statement
  record BLOB, -- E: the signed statement and its salt
  acknowledgement BLOB NOT NULL, -- E: the cell's signed acknowledgement
  PRIMARY KEY (account, sequence)
);
CREATE TABLE heads (
  account BLOB NOT NULL REFERENCES accounts (account), -- P: whose vault
  vault BLOB NOT NULL, -- P: random id of the vault
  counter BIGINT NOT NULL, -- E: how often the head moved, signed by a device
  hash BLOB NOT NULL, -- E: hash of the signed head
  head BLOB NOT NULL, -- E: the signed head
  moved_at BIGINT NOT NULL, -- P: when it moved, milliseconds
  PRIMARY KEY (account, vault)
);
CREATE TABLE objects (
  account BLOB NOT NULL REFERENCES accounts (account), -- P: whose object
  vault BLOB NOT NULL, -- P: random id of the vault
  object BLOB NOT NULL, -- E: hash of the sealed bytes
  size BIGINT NOT NULL, -- P: size in bytes, padding included
  state BIGINT NOT NULL, -- P: 1 reserved, 2 stored, 3 releasing
  since BIGINT NOT NULL, -- P: when it came into that state, milliseconds
  PRIMARY KEY (account, vault, object)
) WITHOUT ROWID;
CREATE INDEX objects_unsettled ON objects (since) WHERE state <> 2;
CREATE TABLE nonces (
  device BLOB NOT NULL, -- P: which device signed a request
  nonce BLOB NOT NULL, -- P: the request's random nonce
  seen_at BIGINT NOT NULL, -- P: when it was made, milliseconds, kept for ten minutes
  PRIMARY KEY (device, nonce)
) WITHOUT ROWID;
CREATE INDEX nonces_by_time ON nonces (seen_at);
";

const VERSION_2: &str = "
CREATE TABLE log_queue (
  entry BLOB NOT NULL PRIMARY KEY, -- E: an entry of the log that has no place yet
  queued_at BIGINT NOT NULL -- P: when it came, milliseconds
) WITHOUT ROWID;
CREATE INDEX log_queue_by_time ON log_queue (queued_at, entry);
CREATE TABLE log_entries (
  place BIGINT NOT NULL PRIMARY KEY, -- E: place in the log, for ever
  entry BLOB NOT NULL -- E: the entry, kept here until its tiles are durable
);
CREATE TABLE log_tree (
  id BIGINT NOT NULL PRIMARY KEY, -- P: always 1: there is one row
  sequenced BIGINT NOT NULL, -- E: how many entries have a place
  size BIGINT NOT NULL, -- E: how many entries are in the tree
  root BLOB NOT NULL, -- E: root of that tree
  map_version BIGINT NOT NULL, -- E: version of the state map
  map_root BLOB NOT NULL, -- E: root of the state map
  map_place BIGINT NOT NULL -- E: place of the entry with that root
);
INSERT INTO log_tree (id, sequenced, size, root, map_version, map_root, map_place) VALUES (1, 0, 0,
  X'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855', 0,
  X'0000000000000000000000000000000000000000000000000000000000000000', 0);
CREATE TABLE state_changes (
  account BLOB NOT NULL PRIMARY KEY REFERENCES accounts (account), -- P: whose chain or heads moved
  stamp BIGINT NOT NULL -- P: how often since the last version of the state map
) WITHOUT ROWID;
INSERT INTO state_changes (account, stamp) SELECT account, 1 FROM accounts;
CREATE TABLE state_map (
  account BLOB NOT NULL PRIMARY KEY, -- P: whose entry; some are padding, of no account
  map_key BLOB NOT NULL, -- E: key in the map, an HMAC that others cannot connect with the account
  map_value BLOB NOT NULL, -- E: commitment to the state
  version BIGINT NOT NULL, -- E: version of the map that brought it
  state BLOB NOT NULL -- E: chain and vault heads that the value commits to
);
CREATE INDEX state_map_by_version ON state_map (version, account);
CREATE TABLE map_inputs (
  version BIGINT NOT NULL PRIMARY KEY, -- E: a version of the state map that is not in the tree yet
  place BIGINT NOT NULL, -- E: place of the entry with its root
  inputs BLOB NOT NULL -- E: what changed in it: keys and values, to be published
);
";

const VERSION_3: &str = "
ALTER TABLE objects ADD COLUMN
  condemned_at BIGINT; -- P: when a head said that nobody needs it, milliseconds
CREATE INDEX objects_condemned ON objects (condemned_at) WHERE condemned_at IS NOT NULL;
";

const VERSION_4: &str = "
CREATE TABLE erasures (
  asked BLOB NOT NULL PRIMARY KEY, -- E: id of the statement that asked for it
  account BLOB NOT NULL, -- P: whose data
  vault BLOB, -- P: which vault; none for the whole account, and none once it is erased
  receipt_name BLOB NOT NULL UNIQUE, -- E: name of the receipt, an HMAC that others cannot guess
  asked_at BIGINT NOT NULL, -- P: when the cell took the wish, milliseconds
  due_at BIGINT NOT NULL, -- P: when it is to be erased, milliseconds
  state BIGINT NOT NULL, -- P: 1 waits, 2 began, 3 done
  objects BIGINT NOT NULL, -- P: how many objects there were
  bytes BIGINT NOT NULL, -- P: how many bytes they had
  consents BIGINT NOT NULL, -- P: how many consent records were erased
  erased_at BIGINT, -- P: when it was done, milliseconds
  receipt BLOB -- E: the signed receipt and its salt
) WITHOUT ROWID;
CREATE TABLE runs (
  account BLOB NOT NULL REFERENCES accounts (account), -- P: whose vault
  vault BLOB NOT NULL, -- P: random id of a write-only device's vault
  counter BIGINT NOT NULL, -- E: number of the head, signed by the device
  head BLOB NOT NULL, -- E: the signed head, kept also when others come after it
  PRIMARY KEY (account, vault, counter)
);
CREATE INDEX erasures_open ON erasures (due_at) WHERE state <> 3;
CREATE INDEX erasures_by_account ON erasures (account);
CREATE INDEX state_map_by_key ON state_map (map_key);
";

const VERSION_5: &str = "
CREATE TABLE links (
  name BLOB NOT NULL PRIMARY KEY, -- E: name of a link for a new device, which others cannot guess
  account BLOB NOT NULL REFERENCES accounts (account), -- P: whose device opened it
  expires_at BIGINT NOT NULL, -- P: when it ends, milliseconds
  request BLOB, -- E: what the new device is, sealed
  answer BLOB, -- E: random bytes of the old device, sealed
  opening BLOB, -- E: random bytes of the new device, sealed
  verdict BLOB -- E: what the person said, sealed
) WITHOUT ROWID;
CREATE INDEX links_by_time ON links (expires_at, name);
CREATE INDEX links_by_account ON links (account);
";

pub(crate) const VERSIONS_TABLE: &str = "
CREATE TABLE IF NOT EXISTS schema_migrations (
  version BIGINT NOT NULL PRIMARY KEY -- P: a version that the schema has gone through
);
";

/// The newest version of the schema that this program knows.
pub(crate) const fn known_version() -> i64 {
    MIGRATIONS.len() as i64
}

/// The version that a database has; 0 for an empty one.
pub(crate) fn version(connection: &Connection) -> Result<i64, RecordsError> {
    let newest = connection
        .query_row("SELECT max(version) FROM schema_migrations", [], |row| {
            row.get(0)
        })
        .optional()
        .map_err(|source| engine_fault("read its schema version", source))?;
    Ok(newest.flatten().unwrap_or(0))
}

/// Brings a database up to date. A crash in the middle leaves it at a whole version.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), RecordsError> {
    const ACTION: &str = "bring its schema up to date";
    let fault = |source| engine_fault(ACTION, source);
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(fault)?;
    transaction.execute_batch(VERSIONS_TABLE).map_err(fault)?;
    let found = version(&transaction)?;
    if found > known_version() {
        return Err(RecordsError::NewerSchema {
            found,
            known: known_version(),
        });
    }
    for (number, migration) in (1_i64..).zip(MIGRATIONS) {
        if number > found {
            transaction.execute_batch(migration).map_err(fault)?;
            transaction
                .execute(
                    "INSERT INTO schema_migrations (version) VALUES (?1)",
                    [number],
                )
                .map_err(fault)?;
        }
    }
    transaction.commit().map_err(fault)
}
