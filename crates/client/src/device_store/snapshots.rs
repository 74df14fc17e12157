//! Which snapshots this device saw listed, and which are not any more although it did not take them off.

use candor_vault::SnapshotId;
use candor_wire::{Millis, ObjectId, VaultId};
use rusqlite::{Transaction, params};

use super::{DeviceStore, DeviceStoreError};

/// New in version 4.
pub(super) const SCHEMA_4: &str = "
CREATE TABLE listed_snapshot (
    vault BLOB NOT NULL, snapshot BLOB NOT NULL, PRIMARY KEY (vault, snapshot)
) STRICT, WITHOUT ROWID;
CREATE TABLE seen_manifest (
    number INTEGER PRIMARY KEY, vault BLOB NOT NULL, manifest BLOB NOT NULL UNIQUE
) STRICT;
CREATE TABLE vanished_snapshots (
    number INTEGER PRIMARY KEY, vault BLOB NOT NULL, count INTEGER NOT NULL, seen_ms INTEGER NOT NULL
) STRICT;
";

/// How many manifests of a vault are remembered, the newest ones: each is a way to those before it.
const MANIFESTS_MAX: i64 = 64;

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

fn insert_listed(
    transaction: &Transaction<'_>,
    vault: &VaultId,
    listed: &[SnapshotId],
) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare(
        "INSERT INTO listed_snapshot (vault, snapshot) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
    )?;
    for snapshot in listed {
        insert.execute(params![vault.as_bytes(), snapshot.as_bytes()])?;
    }
    Ok(())
}

impl DeviceStore {
    /// One column of the rows of a key.
    fn column(&self, query: &str, key: &[u8]) -> Result<Vec<Vec<u8>>, DeviceStoreError> {
        self.run(|connection| {
            connection
                .prepare(query)?
                .query_map([key], |row| row.get(0))?
                .collect()
        })
    }

    /// Adds what this device listed itself; what is missing is noticed when it looks again.
    pub fn list_also(
        &mut self,
        vault: &VaultId,
        listed: &[SnapshotId],
    ) -> Result<(), DeviceStoreError> {
        self.write(|transaction| insert_listed(transaction, vault, listed))
    }

    /// Replaces what is known to be listed: this device changes the list itself.
    pub fn set_listed(
        &mut self,
        vault: &VaultId,
        listed: &[SnapshotId],
    ) -> Result<(), DeviceStoreError> {
        self.write(|transaction| {
            let gone = [vault.as_bytes()];
            transaction.execute("DELETE FROM listed_snapshot WHERE vault = ?1", gone)?;
            insert_listed(transaction, vault, listed)
        })
    }

    /// This device takes these off the list itself.
    pub fn unlist(&mut self, vault: &VaultId, gone: &[SnapshotId]) -> Result<(), DeviceStoreError> {
        self.write(|transaction| {
            for snapshot in gone {
                transaction.execute(
                    "DELETE FROM listed_snapshot WHERE vault = ?1 AND snapshot = ?2",
                    params![vault.as_bytes(), snapshot.as_bytes()],
                )?;
            }
            Ok(())
        })
    }

    /// Remembers a manifest that the head named, so that there is a way back to it whatever later ones say.
    pub fn see_manifest(
        &mut self,
        vault: &VaultId,
        manifest: &ObjectId,
    ) -> Result<(), DeviceStoreError> {
        if self.seen_manifests(vault)?.first() == Some(manifest) {
            return Ok(());
        }
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO seen_manifest (vault, manifest) VALUES (?1, ?2)
                 ON CONFLICT DO NOTHING",
                params![vault.as_bytes(), manifest.as_bytes()],
            )?;
            transaction.execute(
                "DELETE FROM seen_manifest WHERE vault = ?1 AND number NOT IN
                   (SELECT number FROM seen_manifest WHERE vault = ?1
                    ORDER BY number DESC LIMIT ?2)",
                params![vault.as_bytes(), MANIFESTS_MAX],
            )
        })?;
        Ok(())
    }

    /// Manifests that the vault's head named, the newest first.
    pub fn seen_manifests(&self, vault: &VaultId) -> Result<Vec<ObjectId>, DeviceStoreError> {
        let newest_first =
            "SELECT manifest FROM seen_manifest WHERE vault = ?1 ORDER BY number DESC";
        let stored = self.column(newest_first, vault.as_bytes())?;
        let each = stored.iter();
        each.map(|bytes| ObjectId::from_slice(bytes).ok_or_else(|| self.damaged(None)))
            .collect()
    }

    /// Takes over what a vault lists now, and tells how many of those that were known are missing. It is noted.
    pub fn see_listed(
        &mut self,
        vault: &VaultId,
        listed: &[SnapshotId],
        now: Millis,
    ) -> Result<u64, DeviceStoreError> {
        let of_vault = "SELECT snapshot FROM listed_snapshot WHERE vault = ?1";
        let known = self.column(of_vault, vault.as_bytes())?;
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

    /// Vaults in which this device saw a snapshot listed when it last looked.
    pub fn vaults_listing(&self, snapshot: &SnapshotId) -> Result<Vec<VaultId>, DeviceStoreError> {
        let of_snapshot = "SELECT vault FROM listed_snapshot WHERE snapshot = ?1";
        let stored = self.column(of_snapshot, snapshot.as_bytes())?;
        let each = stored.iter();
        each.map(|bytes| VaultId::from_slice(bytes).ok_or_else(|| self.damaged(None)))
            .collect()
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
    fn the_newest_manifests_are_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = DeviceStore::open(&folder.path().join("device.sqlite")).unwrap();
        let (vault, other) = (VaultId::from_bytes([1; 16]), VaultId::from_bytes([2; 16]));
        let manifest = |number: u8| ObjectId::from_bytes([number; 32]);
        for number in 0..100 {
            store.see_manifest(&vault, &manifest(number)).unwrap();
            store.see_manifest(&vault, &manifest(number)).unwrap();
        }
        store.see_manifest(&other, &manifest(200)).unwrap();
        let seen = store.seen_manifests(&vault).unwrap();
        assert_eq!((seen.len(), seen[0]), (64, manifest(99)));
        assert_eq!(store.seen_manifests(&other).unwrap(), [manifest(200)]);
    }

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
        assert_eq!(store.vaults_listing(&id(5)).unwrap(), [vault]);
        assert_eq!(store.vaults_listing(&id(2)).unwrap(), []);
        store.unlist(&vault, &[id(1), id(4)]).unwrap();
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
