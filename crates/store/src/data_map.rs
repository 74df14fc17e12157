//! What the database holds, column by column, and who is kept from it by what.
//!
//! This is the source of the cell's data map. A test holds it against the schema of a real database,
//! so that no column can be added without saying what it is.

/// What protects the contents of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Software: it is sealed or a hash, so that the cell learns nothing from it, or it is signed or
    /// hash-linked by others, so that a change is noticed.
    Enforced,
    /// A promise: the operator of the cell can see it, and could change it.
    Policy,
}

/// One column of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub name: &'static str,
    /// What protects it.
    pub mark: Mark,
    /// What it holds, in words for a person.
    pub holds: &'static str,
}

const fn enforced(table: &'static str, name: &'static str, holds: &'static str) -> Column {
    Column {
        table,
        name,
        mark: Mark::Enforced,
        holds,
    }
}

const fn policy(table: &'static str, name: &'static str, holds: &'static str) -> Column {
    Column {
        table,
        name,
        mark: Mark::Policy,
        holds,
    }
}

/// Every column of the database, by table, in the order of the schema.
pub const COLUMNS: &[Column] = &[
    policy(
        "schema_migrations",
        "version",
        "a version that the schema has gone through",
    ),
    policy(
        "cell_values",
        "name",
        "name of a fact about the cell itself",
    ),
    policy("cell_values", "value", "the fact"),
    enforced(
        "invitations",
        "secret_hash",
        "BLAKE3 hash of the secret in the invitation",
    ),
    policy("invitations", "made_at", "when it was made, milliseconds"),
    policy("invitations", "expires_at", "when it ends, milliseconds"),
    policy(
        "invitations",
        "quota_bytes",
        "quota of the account it opens",
    ),
    policy("invitations", "opened_account", "the account it opened"),
    enforced(
        "invitations",
        "opened_link",
        "the first link of that account's chain",
    ),
    policy("accounts", "account", "random id of the account"),
    enforced("accounts", "root_key_hash", "hash of the root public key"),
    policy("accounts", "state", "1 active, 2 frozen"),
    policy("accounts", "quota_bytes", "bytes it may store"),
    policy("accounts", "stored_bytes", "bytes of its stored objects"),
    policy("accounts", "reserved_bytes", "bytes promised to uploads"),
    policy("accounts", "opened_at", "when it was opened, milliseconds"),
    enforced(
        "accounts",
        "tip_sequence",
        "sequence of the last row of its chain",
    ),
    enforced("accounts", "tip_link", "link of the last row of its chain"),
    policy("chain", "account", "whose chain"),
    enforced("chain", "sequence", "place in the chain, bound by the link"),
    enforced("chain", "kind", "kind of the statement, bound by the link"),
    enforced("chain", "link", "hash over the chain up to here"),
    enforced("chain", "commitment", "commitment to the statement"),
    enforced("chain", "record", "the signed statement and its salt"),
    enforced(
        "chain",
        "acknowledgement",
        "the cell's signed acknowledgement",
    ),
    policy("heads", "account", "whose vault"),
    policy("heads", "vault", "random id of the vault"),
    enforced(
        "heads",
        "counter",
        "how often the head moved, signed by a device",
    ),
    enforced("heads", "hash", "hash of the signed head"),
    enforced("heads", "head", "the signed head"),
    policy("heads", "moved_at", "when it moved, milliseconds"),
    policy("objects", "account", "whose object"),
    policy("objects", "vault", "random id of the vault"),
    enforced("objects", "object", "hash of the sealed bytes"),
    policy("objects", "size", "size in bytes, padding included"),
    policy("objects", "state", "1 reserved, 2 stored, 3 releasing"),
    policy(
        "objects",
        "since",
        "when it came into that state, milliseconds",
    ),
    policy(
        "objects",
        "condemned_at",
        "when a head said that nobody needs it, milliseconds",
    ),
    policy("nonces", "device", "which device signed a request"),
    policy("nonces", "nonce", "the request's random nonce"),
    policy(
        "nonces",
        "seen_at",
        "when it was made, milliseconds, kept for ten minutes",
    ),
    enforced(
        "log_queue",
        "entry",
        "an entry of the log that has no place yet",
    ),
    policy("log_queue", "queued_at", "when it came, milliseconds"),
    enforced("log_entries", "place", "place in the log, for ever"),
    enforced(
        "log_entries",
        "entry",
        "the entry, kept here until its tiles are durable",
    ),
    policy("log_tree", "id", "always 1: there is one row"),
    enforced("log_tree", "sequenced", "how many entries have a place"),
    enforced("log_tree", "size", "how many entries are in the tree"),
    enforced("log_tree", "root", "root of that tree"),
    enforced("log_tree", "map_version", "version of the state map"),
    enforced("log_tree", "map_root", "root of the state map"),
    enforced("log_tree", "map_place", "place of the entry with that root"),
    policy("state_changes", "account", "whose chain or heads moved"),
    policy(
        "state_changes",
        "stamp",
        "how often since the last version of the state map",
    ),
    policy(
        "state_map",
        "account",
        "whose entry; some are padding, of no account",
    ),
    enforced(
        "state_map",
        "map_key",
        "key in the map, an HMAC that others cannot connect with the account",
    ),
    enforced("state_map", "map_value", "commitment to the state"),
    enforced("state_map", "version", "version of the map that brought it"),
    enforced(
        "state_map",
        "state",
        "chain and vault heads that the value commits to",
    ),
    enforced(
        "map_inputs",
        "version",
        "a version of the state map that is not in the tree yet",
    ),
    enforced("map_inputs", "place", "place of the entry with its root"),
    enforced(
        "map_inputs",
        "inputs",
        "what changed in it: keys and values, to be published",
    ),
    enforced("erasures", "asked", "id of the statement that asked for it"),
    policy("erasures", "account", "whose data"),
    policy(
        "erasures",
        "vault",
        "which vault; none for the whole account, and none once it is erased",
    ),
    enforced(
        "erasures",
        "receipt_name",
        "name of the receipt, an HMAC that others cannot guess",
    ),
    policy(
        "erasures",
        "asked_at",
        "when the cell took the wish, milliseconds",
    ),
    policy(
        "erasures",
        "due_at",
        "when it is to be erased, milliseconds",
    ),
    policy("erasures", "state", "1 waits, 2 began, 3 done"),
    policy("erasures", "objects", "how many objects there were"),
    policy("erasures", "bytes", "how many bytes they had"),
    policy(
        "erasures",
        "consents",
        "how many consent records were erased",
    ),
    policy("erasures", "erased_at", "when it was done, milliseconds"),
    enforced("erasures", "receipt", "the signed receipt and its salt"),
    policy("runs", "account", "whose vault"),
    policy("runs", "vault", "random id of a write-only device's vault"),
    enforced(
        "runs",
        "counter",
        "number of the head, signed by the device",
    ),
    enforced(
        "runs",
        "head",
        "the signed head, kept also when others come after it",
    ),
    enforced(
        "links",
        "name",
        "name of a link for a new device, which others cannot guess",
    ),
    policy("links", "account", "whose device opened it"),
    policy("links", "expires_at", "when it ends, milliseconds"),
    enforced("links", "request", "what the new device is, sealed"),
    enforced("links", "answer", "random bytes of the old device, sealed"),
    enforced("links", "opening", "random bytes of the new device, sealed"),
    enforced("links", "verdict", "what the person said, sealed"),
];
