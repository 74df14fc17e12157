//! Whether the database fits together.

use rusqlite::{Connection, OptionalExtension};

use super::fault::engine_fault;
use crate::records::RecordsError;

/// What must hold between tables, as a question that finds a row only if it does not.
const RULES: &[(&str, &str)] = &[
    (
        "the bytes of an account are not the sum of its objects",
        "SELECT 1 FROM accounts a
         WHERE a.stored_bytes <> (SELECT coalesce(sum(o.size), 0) FROM objects o
             WHERE o.account = a.account AND o.state = 2)
           OR a.reserved_bytes <> (SELECT coalesce(sum(o.size), 0) FROM objects o
             WHERE o.account = a.account AND o.state <> 2)
         LIMIT 1",
    ),
    (
        "an object that is not stored is condemned",
        "SELECT 1 FROM objects WHERE condemned_at IS NOT NULL AND state <> 2 LIMIT 1",
    ),
    (
        "a chain does not end where its account says",
        "SELECT 1 FROM accounts a
         WHERE NOT EXISTS (SELECT 1 FROM chain c WHERE c.account = a.account
             AND c.sequence = a.tip_sequence AND c.link = a.tip_link)
           OR EXISTS (SELECT 1 FROM chain c WHERE c.account = a.account
             AND c.sequence > a.tip_sequence)
         LIMIT 1",
    ),
    (
        "a chain has a gap",
        "SELECT 1 FROM chain GROUP BY account
         HAVING max(sequence) - min(sequence) + 1 <> count(*) LIMIT 1",
    ),
    (
        "the log does not say where it stands",
        "SELECT 1 WHERE (SELECT count(*) FROM log_tree) <> 1
           OR NOT EXISTS (SELECT 1 FROM log_tree WHERE id = 1)",
    ),
    (
        "the log's tree is larger than the log",
        "SELECT 1 FROM log_tree WHERE size < 0 OR size > sequenced",
    ),
    (
        "the entries between the log's tree and its end are not all there",
        "SELECT 1 FROM log_tree t
         WHERE t.sequenced - t.size <> (SELECT count(*) FROM log_entries)
           OR EXISTS (SELECT 1 FROM log_entries e
             WHERE e.place < t.size OR e.place >= t.sequenced)",
    ),
    (
        "the rows of the state map are not of the version that the log has",
        "SELECT 1 FROM log_tree t
         WHERE t.map_version <> (SELECT coalesce(max(m.version), 0) FROM state_map m)
           OR (t.map_version > 0 AND t.map_place >= t.sequenced)",
    ),
    (
        "the inputs of the state map between the log's tree and its end are not all there",
        "SELECT 1 FROM log_tree t
         WHERE EXISTS (SELECT 1 FROM map_inputs i
             WHERE i.place < t.size OR i.place >= t.sequenced OR i.version > t.map_version)
           OR (t.map_version > 0 AND t.map_place >= t.size AND NOT EXISTS
             (SELECT 1 FROM map_inputs i
               WHERE i.version = t.map_version AND i.place = t.map_place))
           OR (SELECT max(i.version) - min(i.version) + 1 <> count(*) FROM map_inputs i)",
    ),
    (
        "an erasure that is open belongs to no account",
        "SELECT 1 FROM erasures e WHERE e.state = 1
           AND NOT EXISTS (SELECT 1 FROM accounts a WHERE a.account = e.account)
         LIMIT 1",
    ),
    (
        "an erasure is done without a receipt, or has one before",
        "SELECT 1 FROM erasures WHERE (state = 3) <> (receipt IS NOT NULL)
           OR (state = 3) <> (erased_at IS NOT NULL) LIMIT 1",
    ),
    (
        "an account is not in the state map and does not wait for it",
        "SELECT 1 FROM accounts a
         WHERE NOT EXISTS (SELECT 1 FROM state_map m WHERE m.account = a.account)
           AND NOT EXISTS (SELECT 1 FROM state_changes s WHERE s.account = a.account)
         LIMIT 1",
    ),
];

pub(crate) fn check(connection: &Connection) -> Result<(), RecordsError> {
    let fault = |source| engine_fault("check itself", source);
    // One view for all questions, whatever is written meanwhile.
    let view = connection.unchecked_transaction().map_err(fault)?;
    let verdict: String = view
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(fault)?;
    if verdict != "ok" {
        return Err(RecordsError::Damaged {
            detail: verdict,
            source: None,
        });
    }
    let dangling = view
        .query_row("PRAGMA foreign_key_check", [], |_| Ok(()))
        .optional();
    if dangling.map_err(fault)?.is_some() {
        return Err(damaged("a row refers to one that is not there"));
    }
    for (broken, question) in RULES {
        if view
            .query_row(question, [], |_| Ok(()))
            .optional()
            .map_err(fault)?
            .is_some()
        {
            return Err(damaged(broken));
        }
    }
    Ok(())
}

fn damaged(detail: &str) -> RecordsError {
    RecordsError::Damaged {
        detail: String::from(detail),
        source: None,
    }
}
