//! Which snapshots this device saw listed, and which are not any more although it did not take them off.

use candor_vault::SnapshotId;
use candor_wire::{Millis, VaultId};
use rusqlite::params;

use super::{DeviceStore, DeviceStoreError};

/// New in version 4.
pub(super) const SCHEMA_4: &str = "
CREATE TABLE listed_snapshot (
    vault BLOB NOT NULL, snapshot BLOB NOT NULL, PRIMARY KEY (vault, snapshot)
) STRICT, WITHOUT ROWID;
CREATE TABLE vanished_snapshots (
    number INTEGER PRIMARY KEY, vault BLOB NOT NULL, count INTEGER NOT NULL, seen_ms INTEGER NOT NULL
) STRICT;
";

/// Snapshots that somebody else took off the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vanished {
    /// Of which vault.
    pub vault: VaultId,
    /// How many.
    pub count: u64,
    /// When this device noticed.
    pub seen: Millis,
}

impl DeviceStore {
    /// Replaces what is known to be listed: this device changes the list itself.
    pub fn set_listed(
        &mut self,
        vault: &VaultId,
        listed: &[SnapshotId],
    ) -> Result<(), DeviceStoreError> {
        self.write(|transaction| {
            let vault = vault.as_bytes();
            transaction.execute("DELETE FROM listed_snapshot WHERE vault = ?1", [vault])?;
            let mut insert = transaction.prepare(
                "INSERT INTO listed_snapshot (vault, snapshot) VALUES (?1, ?2)
                 ON CONFLICT DO NOTHING",
            )?;
            for snapshot in listed {
                insert.execute(params![vault, snapshot.as_bytes()])?;
            }
            Ok(())
        })
    }

    /// Takes over what a vault lists now, and tells how many of those that were known are missing. It is noted.
    pub fn see_listed(
        &mut self,
        vault: &VaultId,
        listed: &[SnapshotId],
        now: Millis,
    ) -> Result<u64, DeviceStoreError> {
        let known: Vec<Vec<u8>> = self.run(|connection| {
            connection
                .prepare("SELECT snapshot FROM listed_snapshot WHERE vault = ?1")?
                .query_map([vault.as_bytes()], |row| row.get(0))?
                .collect()
        })?;
        let is_listed = |known: &&Vec<u8>| listed.iter().any(|one| one.as_bytes()[..] == known[..]);
        let still = known.iter().filter(is_listed).count();
        let missing = (known.len() - still) as u64;
        if missing == 0 && still == listed.len() {
            return Ok(0);
        }
        if missing > 0 {
            self.write(|transaction| {
                transaction.execute(
                    "INSERT INTO vanished_snapshots (vault, count, seen_ms) VALUES (?1, ?2, ?3)",
                    params![
                        vault.as_bytes(),
                        i64::try_from(missing).unwrap_or(i64::MAX),
                        now.0
                    ],
                )
            })?;
        }
        self.set_listed(vault, listed)?;
        Ok(missing)
    }

    /// What vanished since, oldest first.
    pub fn vanished(&self, since: Millis) -> Result<Vec<Vanished>, DeviceStoreError> {
        let rows: Vec<(Vec<u8>, i64, i64)> = self.run(|connection| {
            connection
                .prepare(
                    "SELECT vault, count, seen_ms FROM vanished_snapshots
                     WHERE seen_ms >= ?1 ORDER BY number",
                )?
                .query_map([since.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })?;
        rows.into_iter()
            .map(|(vault, count, seen)| {
                Ok(Vanished {
                    vault: VaultId::from_slice(&vault).ok_or_else(|| self.damaged(None))?,
                    count: count.unsigned_abs(),
                    seen: Millis(seen),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_vanishes_is_noted_unless_this_device_did_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = DeviceStore::open(&folder.path().join("device.sqlite")).unwrap();
        let vault = VaultId::from_bytes([1; 16]);
        let id = |number| SnapshotId::from_bytes([number; 16]);
        let mut see = |listed: &[u8], now| {
            let listed: Vec<SnapshotId> = listed.iter().map(|one| id(*one)).collect();
            store.see_listed(&vault, &listed, Millis(now)).unwrap()
        };
        assert_eq!(see(&[1, 2, 3], 1), 0);
        assert_eq!(see(&[1, 2, 3, 4], 2), 0);
        assert_eq!(see(&[1, 4, 5], 3), 2);
        assert_eq!(see(&[1, 4, 5], 4), 0, "told once");
        store.set_listed(&vault, &[id(5)]).unwrap();
        assert_eq!(store.see_listed(&vault, &[id(5)], Millis(5)).unwrap(), 0);
        let other = VaultId::from_bytes([2; 16]);
        assert_eq!(store.see_listed(&other, &[], Millis(6)).unwrap(), 0);
        let noted = Vanished {
            vault,
            count: 2,
            seen: Millis(3),
        };
        assert_eq!(store.vanished(Millis(3)).unwrap(), [noted]);
        assert_eq!(store.vanished(Millis(4)).unwrap(), []);
    }
}
