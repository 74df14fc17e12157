//! Synced folders of this device.

use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use candor_wire::{Millis, VaultId};
use rusqlite::params;

use super::{BackupSet, DeviceStore, DeviceStoreError, RunState};

/// New in version 5.
pub(super) const SCHEMA_5: &str = "
CREATE TABLE folder (
    name TEXT PRIMARY KEY, path BLOB NOT NULL UNIQUE, vault BLOB UNIQUE, is_paused INTEGER NOT NULL,
    added_ms INTEGER NOT NULL, synced_ms INTEGER, problems INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE folder_exclude (
    name TEXT NOT NULL REFERENCES folder (name) ON DELETE CASCADE,
    place INTEGER NOT NULL, glob TEXT NOT NULL, PRIMARY KEY (name, place)
) STRICT, WITHOUT ROWID;
";

/// Most synced folders of one device: each has a thread and a connection of its own while they are followed, and a cell
/// lets so many requests of one device wait.
pub const FOLDERS_MAX: usize = 16;

/// A folder that is kept in step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncedFolder {
    /// What it is called on all devices.
    pub name: String,
    /// Where it is on this one.
    pub path: PathBuf,
    /// Its vault, once consent was asked for it, or once it was joined.
    pub vault: Option<VaultId>,
    /// What this device leaves out: globs in gitignore syntax.
    pub excludes: Vec<String>,
    /// Whether the person stopped it for a while.
    pub is_paused: bool,
    /// When it was added here.
    pub added: Millis,
    /// When the newest round ended well.
    pub synced: Option<Millis>,
    /// How many files that round could not keep in step.
    pub problems: u64,
}

impl SyncedFolder {
    /// What consent is asked for: as for a backup set.
    pub(crate) fn as_set(&self) -> BackupSet {
        BackupSet {
            name: self.name.clone(),
            vault: self.vault,
            paths: vec![self.path.clone()],
            excludes: self.excludes.clone(),
            added: self.added,
            runs: RunState::default(),
        }
    }
}

impl DeviceStore {
    /// Adds a folder.
    pub fn add_folder(&mut self, folder: &SyncedFolder) -> Result<(), DeviceStoreError> {
        let folders = self.folders()?;
        if folders.iter().any(|other| other.name == folder.name) {
            return Err(DeviceStoreError::FolderExists {
                name: folder.name.clone(),
            });
        }
        if folders.len() >= FOLDERS_MAX {
            return Err(DeviceStoreError::TooManyFolders);
        }
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO folder (name, path, vault, is_paused, added_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    folder.name,
                    folder.path.as_os_str().as_bytes(),
                    folder.vault.map(|vault| vault.as_bytes().to_vec()),
                    folder.is_paused,
                    folder.added.0
                ],
            )?;
            for (place, glob) in (0_i64..).zip(&folder.excludes) {
                transaction.execute(
                    "INSERT INTO folder_exclude (name, place, glob) VALUES (?1, ?2, ?3)",
                    params![folder.name, place, glob],
                )?;
            }
            Ok(())
        })
    }

    /// All folders, in order of name.
    pub fn folders(&self) -> Result<Vec<SyncedFolder>, DeviceStoreError> {
        let mut folders: Vec<(SyncedFolder, Option<Vec<u8>>)> = self.run(|connection| {
            connection
                .prepare(
                    "SELECT name, path, vault, is_paused, added_ms, synced_ms, problems FROM folder
                     ORDER BY name",
                )?
                .query_map([], |row| {
                    let path: Vec<u8> = row.get(1)?;
                    let problems: i64 = row.get(6)?;
                    let folder = SyncedFolder {
                        name: row.get(0)?,
                        path: PathBuf::from(std::ffi::OsString::from_vec(path)),
                        vault: None,
                        excludes: Vec::new(),
                        is_paused: row.get(3)?,
                        added: Millis(row.get(4)?),
                        synced: row.get::<_, Option<i64>>(5)?.map(Millis),
                        problems: problems.unsigned_abs(),
                    };
                    Ok((folder, row.get(2)?))
                })?
                .collect()
        })?;
        for (folder, vault) in &mut folders {
            if let Some(bytes) = vault {
                let bytes = bytes.as_slice().try_into();
                folder.vault = Some(VaultId::from_bytes(bytes.map_err(|_| self.damaged(None))?));
            }
            folder.excludes = self.run(|connection| {
                connection
                    .prepare("SELECT glob FROM folder_exclude WHERE name = ?1 ORDER BY place")?
                    .query_map([&folder.name], |row| row.get(0))?
                    .collect()
            })?;
        }
        Ok(folders.into_iter().map(|(folder, _)| folder).collect())
    }

    /// The folder of a name.
    pub fn folder(&self, name: &str) -> Result<SyncedFolder, DeviceStoreError> {
        let found = self.folders()?.into_iter().find(|one| one.name == name);
        found.ok_or_else(|| DeviceStoreError::NoFolder {
            name: name.to_owned(),
        })
    }

    /// Gives a folder its vault.
    pub fn assign_folder(&mut self, name: &str, vault: VaultId) -> Result<(), DeviceStoreError> {
        self.write(|transaction| {
            transaction
                .execute(
                    "UPDATE folder SET vault = ?2 WHERE name = ?1",
                    params![name, vault.as_bytes()],
                )
                .map(drop)
        })
    }

    /// Stops a folder for a while, or lets it go on.
    pub fn pause_folder(&mut self, name: &str, is_paused: bool) -> Result<(), DeviceStoreError> {
        self.write(|transaction| {
            transaction
                .execute(
                    "UPDATE folder SET is_paused = ?2 WHERE name = ?1",
                    params![name, is_paused],
                )
                .map(drop)
        })
    }

    /// A round ended well.
    pub fn folder_synced(
        &mut self,
        name: &str,
        now: Millis,
        problems: u64,
    ) -> Result<(), DeviceStoreError> {
        let problems = i64::try_from(problems).unwrap_or(i64::MAX);
        self.write(|transaction| {
            transaction
                .execute(
                    "UPDATE folder SET synced_ms = ?2, problems = ?3 WHERE name = ?1",
                    params![name, now.0, problems],
                )
                .map(drop)
        })
    }
}
