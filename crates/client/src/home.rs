//! The device's folder: where everything of one account on this machine lies, and the lock that
//! lets only one engine work in it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use candor_wire::VaultId;

/// Why the device's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Another process works in it.
    #[error("another candor is at work in {}", .path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It cannot be made or opened.
    #[error("the folder {} cannot be used", .path.display())]
    Storage {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The device's folder, locked by this process until it is dropped (or the process ends).
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    _lock: File,
}

impl Home {
    /// Makes the folder (readable by its owner alone) unless it is there, and locks it. Does not
    /// wait: a second process gets [`HomeError::InUse`] at once.
    pub fn lock(path: &Path) -> Result<Self, HomeError> {
        let storage = |source| HomeError::Storage {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(storage)?;
        let path = fs::canonicalize(path).map_err(storage)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(storage)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(HomeError::InUse { path }),
            Err(fs::TryLockError::Error(source)) => Err(HomeError::Storage { path, source }),
        }
    }

    /// The folder, absolute and without symlinks.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The sealed key store.
    pub fn keys(&self) -> PathBuf {
        self.path.join("keys")
    }

    /// The rollback memory.
    pub fn memory(&self) -> PathBuf {
        self.path.join("memory")
    }

    /// The ledger's folder.
    pub fn ledger(&self) -> PathBuf {
        self.path.join("ledger")
    }

    /// The device's database.
    pub fn device_store(&self) -> PathBuf {
        self.path.join("device.sqlite")
    }

    /// The policy for the cell's log, which the person puts there, or does not: a C2SP tlog-policy file.
    pub fn log_policy(&self) -> PathBuf {
        self.path.join("log-policy")
    }

    /// The folder of what speaks against the cell. Made when there is something to put in.
    pub fn evidence(&self) -> PathBuf {
        self.path.join("evidence")
    }

    /// The embedded cell's data, if the cell runs in this process.
    pub fn cell(&self) -> PathBuf {
        self.path.join("cell")
    }

    /// Moves these files and folders of the home into a folder of their own, `NAME-N`, in this order. The
    /// key store goes last: until then the next try finds it and goes on.
    pub(crate) fn put_aside(&self, name: &str, what: &[&str]) -> Result<(), HomeError> {
        let storage = |source| HomeError::Storage {
            path: self.path.clone(),
            source,
        };
        let is_free = |folder: &PathBuf| {
            let both = |name| folder.join(name).exists() && self.path.join(name).exists();
            !what.iter().any(both)
        };
        let aside = (1_u32..)
            .map(|n| self.path.join(format!("{name}-{n}")))
            .find(is_free)
            .unwrap_or_else(|| self.path.join(name));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&aside)
            .map_err(storage)?;
        for name in what {
            match fs::rename(self.path.join(name), aside.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(storage(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The newest of the folders that [`Self::put_aside`] made under this name and that has keys.
    pub(crate) fn newest_aside(&self, name: &str) -> Option<PathBuf> {
        let folders = (1_u32..).map(|n| self.path.join(format!("{name}-{n}")));
        let folders = folders.take_while(|folder| folder.exists());
        folders.filter(|folder| folder.join("keys").exists()).last()
    }

    /// Makes the folder of the local indexes unless it is there, and tells where the one of this
    /// vault lies. Beside it lie its SQLite companions and the stat cache, with the same stem.
    pub fn index(&self, vault: &VaultId) -> Result<PathBuf, HomeError> {
        let folder = self.path.join("index");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|source| HomeError::Storage {
                path: folder.clone(),
                source,
            })?;
        Ok(folder.join(format!("{vault}.sqlite")))
    }

    /// Where a write-only device remembers its runs into a vault.
    pub fn writer_state(&self, vault: &VaultId) -> Result<PathBuf, HomeError> {
        let index = self.index(vault)?;
        Ok(index.with_file_name(format!("{vault}.runs")))
    }

    /// Where the record of a synced folder lies.
    pub fn sync_state(&self, vault: &VaultId) -> Result<PathBuf, HomeError> {
        Ok(self.index(vault)?.with_extension("sync.sqlite"))
    }

    /// Where the stat cache of a vault lies.
    pub fn stat_cache(&self, vault: &VaultId) -> Result<PathBuf, HomeError> {
        Ok(self.index(vault)?.with_extension("stat.sqlite"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn one_engine_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home");
        let first = Home::lock(&path).unwrap();
        assert!(matches!(Home::lock(&path), Err(HomeError::InUse { .. })));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        drop(first);
        Home::lock(&path).unwrap();
    }
}
