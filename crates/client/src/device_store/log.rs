//! How far the cell's log was watched, what stands against it, and which consents were seen to end.
//!
//! All of it can be made again: the log is scanned from its beginning, findings are found again. Only the
//! consents that were seen to end would be forgotten, as they are by a device that lost its database.

use candor_wire::{Millis, StatementId};
use rusqlite::{OptionalExtension as _, params};

use super::{DeviceStore, DeviceStoreError};

pub(super) const SCHEMA: &str = "
CREATE TABLE log_watch (
    one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, root BLOB NOT NULL,
    map_version INTEGER NOT NULL, state BLOB NOT NULL, owed BLOB NOT NULL,
    owed_ms INTEGER NOT NULL, checked_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE log_finding (
    name TEXT PRIMARY KEY, sentence TEXT NOT NULL, found_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE ended_consent (consent BLOB PRIMARY KEY) STRICT;
";

/// New in version 3.
pub(super) const SCHEMA_3: &str = "
CREATE TABLE log_unvouched (one INTEGER PRIMARY KEY CHECK (one = 1), since_ms INTEGER NOT NULL) STRICT;
";

/// How far the log was watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// Entries that were looked at.
    pub size: u64,
    /// Root of the tree of so many entries.
    pub root: [u8; 32],
    /// The newest version of the state map among them; 0 if there is none.
    pub map_version: u64,
    /// [`candor_log::monitor::WatchState`].
    pub state: Vec<u8>,
    /// [`candor_log::state_map::AccountState`] as the device knew it: what the log has to show next time.
    pub owed: Vec<u8>,
    /// When it knew that, by this device's clock.
    pub owed_since: Millis,
    /// When the log was last looked at to its end, by this device's clock; or [`Self::NEVER`].
    pub checked: Millis,
}

impl Watched {
    /// [`Self::checked`] before the first look came to its end.
    pub const NEVER: Millis = Millis(0);
}

/// Something that speaks against the cell and has not been put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFinding {
    /// Tells it from others.
    pub name: String,
    /// In words.
    pub sentence: String,
    /// When it was found, by this device's clock.
    pub found: Millis,
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl DeviceStore {
    /// How far the log was watched; `None` before the first time.
    pub fn watched(&self) -> Result<Option<Watched>, DeviceStoreError> {
        type Row = (i64, Vec<u8>, i64, Vec<u8>, Vec<u8>, i64, i64);
        let row: Option<Row> = self.run(|connection| {
            connection
                .query_row(
                    "SELECT size, root, map_version, state, owed, owed_ms, checked_ms FROM log_watch",
                    [],
                    |row| {
                        Ok((
                            row.get(0)?,
                            row.get(1)?,
                            row.get(2)?,
                            row.get(3)?,
                            row.get(4)?,
                            row.get(5)?,
                            row.get(6)?,
                        ))
                    },
                )
                .optional()
        })?;
        let Some((size, root, map_version, state, owed, owed_since, checked)) = row else {
            return Ok(None);
        };
        let root = root.try_into().map_err(|_| self.damaged(None))?;
        Ok(Some(Watched {
            size: size.unsigned_abs(),
            root,
            map_version: map_version.unsigned_abs(),
            state,
            owed,
            owed_since: Millis(owed_since),
            checked: Millis(checked),
        }))
    }

    /// Begins watching anew, with another log, and forgets what was found in the one before.
    pub fn forget_watched(&mut self) -> Result<(), DeviceStoreError> {
        self.write(|transaction| {
            transaction.execute("DELETE FROM log_watch", [])?;
            transaction.execute("DELETE FROM log_finding", [])?;
            Ok(())
        })
    }

    /// Replaces it.
    pub fn put_watched(&mut self, watched: &Watched) -> Result<(), DeviceStoreError> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO log_watch
                 (one, size, root, map_version, state, owed, owed_ms, checked_ms)
                 VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    number(watched.size),
                    watched.root,
                    number(watched.map_version),
                    watched.state,
                    watched.owed,
                    watched.owed_since.0,
                    watched.checked.0
                ],
            )
        })?;
        Ok(())
    }

    /// Notes what a look at the log found: whether a quorum vouched for it lately.
    pub fn note_look(&mut self, is_vouched: bool, now: Millis) -> Result<(), DeviceStoreError> {
        let since = match (is_vouched, self.unvouched()?) {
            (true, None) => return Ok(()),
            (true, Some(_)) => None,
            // A clock that was set back begins anew.
            (false, Some(since)) if since <= now => return Ok(()),
            (false, _) => Some(now),
        };
        self.write(|transaction| match since {
            None => transaction.execute("DELETE FROM log_unvouched", []),
            Some(since) => transaction.execute(
                "INSERT OR REPLACE INTO log_unvouched (one, since_ms) VALUES (1, ?1)",
                [since.0],
            ),
        })?;
        Ok(())
    }

    /// When a look first found no quorum's fresh word, if none found one since.
    pub fn unvouched(&self) -> Result<Option<Millis>, DeviceStoreError> {
        let since: Option<i64> = self.run(|connection| {
            connection
                .query_row("SELECT since_ms FROM log_unvouched", [], |row| row.get(0))
                .optional()
        })?;
        Ok(since.map(Millis))
    }

    /// What stands against the cell, oldest first.
    pub fn log_findings(&self) -> Result<Vec<LogFinding>, DeviceStoreError> {
        self.run(|connection| {
            connection
                .prepare(
                    "SELECT name, sentence, found_ms FROM log_finding ORDER BY found_ms, name",
                )?
                .query_map([], |row| {
                    Ok(LogFinding {
                        name: row.get(0)?,
                        sentence: row.get(1)?,
                        found: Millis(row.get(2)?),
                    })
                })?
                .collect()
        })
    }

    /// Adds a finding; `true` if it was not there yet.
    pub fn add_log_finding(&mut self, finding: &LogFinding) -> Result<bool, DeviceStoreError> {
        let added = self.write(|transaction| {
            transaction.execute(
                "INSERT INTO log_finding (name, sentence, found_ms) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO NOTHING",
                params![finding.name, finding.sentence, finding.found.0],
            )
        })?;
        Ok(added == 1)
    }

    /// Forgets every finding that has none of these names: it was put right.
    pub fn keep_log_findings(&mut self, names: &[String]) -> Result<(), DeviceStoreError> {
        let gone: Vec<String> = self
            .log_findings()?
            .into_iter()
            .map(|finding| finding.name)
            .filter(|name| !names.contains(name))
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            for name in &gone {
                transaction.execute("DELETE FROM log_finding WHERE name = ?1", [name])?;
            }
            Ok(())
        })
    }

    /// Notes that these consents ended by themselves. They stay ended, whatever a clock says later.
    pub fn add_ended(&mut self, consents: &[StatementId]) -> Result<(), DeviceStoreError> {
        self.write(|transaction| {
            for consent in consents {
                transaction.execute(
                    "INSERT INTO ended_consent (consent) VALUES (?1) ON CONFLICT DO NOTHING",
                    [consent.as_bytes()],
                )?;
            }
            Ok(())
        })
    }

    /// Consents that were seen to end by themselves.
    pub fn ended(&self) -> Result<Vec<StatementId>, DeviceStoreError> {
        let stored: Vec<Vec<u8>> = self.run(|connection| {
            connection
                .prepare("SELECT consent FROM ended_consent")?
                .query_map([], |row| row.get(0))?
                .collect()
        })?;
        stored
            .iter()
            .map(|bytes| StatementId::from_slice(bytes).ok_or_else(|| self.damaged(None)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_store_without_the_log_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.sqlite");
        let mut store = DeviceStore::open(&path).unwrap();
        store
            .write(|transaction| {
                for table in [
                    "log_watch",
                    "log_finding",
                    "ended_consent",
                    "log_unvouched",
                    "listed_snapshot",
                    "vanished_snapshots",
                    "seen_manifest",
                    "folder_exclude",
                    "folder",
                    "drill",
                ] {
                    transaction.execute(&format!("DROP TABLE {table}"), [])?;
                }
                transaction.pragma_update(None, "user_version", 1)
            })
            .unwrap();
        drop(store);
        let mut store = DeviceStore::open(&path).unwrap();
        assert_eq!(store.watched().unwrap(), None);
        let watched = Watched {
            size: 3,
            root: [7; 32],
            map_version: 1,
            state: vec![1],
            owed: vec![2],
            owed_since: Millis(4),
            checked: Millis(5),
        };
        store.put_watched(&watched).unwrap();
        let watched = Watched { size: 4, ..watched };
        store.put_watched(&watched).unwrap();
        drop(store);
        let store = DeviceStore::open(&path).unwrap();
        assert_eq!(store.watched().unwrap(), Some(watched));
    }

    #[test]
    fn a_store_of_version_2_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.sqlite");
        let mut store = DeviceStore::open(&path).unwrap();
        store
            .add_ended(&[StatementId::from_bytes([3; 32])])
            .unwrap();
        store
            .write(|transaction| {
                transaction.execute_batch(
                    "DROP TABLE log_unvouched; DROP TABLE listed_snapshot;
                     DROP TABLE vanished_snapshots; DROP TABLE seen_manifest;
                     DROP TABLE folder_exclude; DROP TABLE folder; DROP TABLE drill;",
                )?;
                transaction.pragma_update(None, "user_version", 2)
            })
            .unwrap();
        drop(store);
        let mut store = DeviceStore::open(&path).unwrap();
        assert_eq!(store.ended().unwrap().len(), 1);
        store.note_look(false, Millis(7)).unwrap();
        assert_eq!(store.unvouched().unwrap(), Some(Millis(7)));
    }

    #[test]
    fn silence_counts_from_the_first_look_that_found_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = DeviceStore::open(&folder.path().join("device.sqlite")).unwrap();
        let mut look = |is_vouched, now| {
            store.note_look(is_vouched, Millis(now)).unwrap();
            store.unvouched().unwrap().map(|since| since.0)
        };
        assert_eq!(look(true, 1), None);
        assert_eq!(look(false, 2), Some(2));
        assert_eq!(look(false, 9), Some(2));
        assert_eq!(look(true, 10), None);
        assert_eq!(look(false, 11), Some(11));
        assert_eq!(look(false, 5), Some(5), "a clock that was set back");
    }

    #[test]
    fn a_finding_is_new_once_and_goes_when_it_was_put_right() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = DeviceStore::open(&folder.path().join("device.sqlite")).unwrap();
        let finding = |name: &str| LogFinding {
            name: name.to_owned(),
            sentence: "something".to_owned(),
            found: Millis(1),
        };
        assert!(store.add_log_finding(&finding("a")).unwrap());
        assert!(!store.add_log_finding(&finding("a")).unwrap());
        assert!(store.add_log_finding(&finding("b")).unwrap());
        store.keep_log_findings(&["b".to_owned()]).unwrap();
        assert_eq!(store.log_findings().unwrap(), [finding("b")]);
        assert!(store.add_log_finding(&finding("a")).unwrap());
    }

    #[test]
    fn an_ended_consent_stays_ended() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = DeviceStore::open(&folder.path().join("device.sqlite")).unwrap();
        let one = StatementId::from_bytes([3; 32]);
        store.add_ended(&[one, one]).unwrap();
        store.add_ended(&[one]).unwrap();
        assert_eq!(store.ended().unwrap(), [one]);
    }
}
