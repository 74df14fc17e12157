//! The cell's keys, each in a file of its own that only the cell's user can read.
//!
//! The root key is the cell's identity: invitations pin it, and it signs the other uses, which are the
//! acknowledgement and log keys (through [`candor_wire::cell::CellKeys`]) and the TLS key (through a
//! certificate). Losing the root key is losing the cell's name; the others can be replaced.

use std::path::{Path, PathBuf};

use candor_wire::cbor::{self, Canonical};
use candor_wire::sign::{Ed25519Secret, SEED_BYTES};
use zeroize::{Zeroize as _, Zeroizing};

use crate::random::{self, NoRandomness};
use crate::sys;

/// The version of key files that this build writes and the lowest that it accepts.
pub(crate) const KEY_FILE_VERSION: u8 = 1;

/// What goes before an Ed25519 seed in PKCS #8 (RFC 8410, section 7, version 1 without attributes).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// What a key is for. Stored with it, so that two files that were swapped are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(index_only)]
pub(crate) enum KeyUse {
    /// The cell's identity.
    #[n(1)]
    Root,
    /// Signs acknowledgements.
    #[n(2)]
    Acknowledgement,
    /// Proves the cell in TLS.
    #[n(3)]
    Tls,
    /// Signs checkpoints of the log.
    #[n(4)]
    Log,
}

impl KeyUse {
    const fn file_name(self) -> &'static str {
        match self {
            Self::Root => "root.key",
            Self::Acknowledgement => "acknowledgement.key",
            Self::Tls => "tls.key",
            Self::Log => "log.key",
        }
    }
}

/// Why keys could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file could not be read or written.
    #[error("the key file {} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A file is not a key file of this use and version.
    #[error("{} is not a key file of this cell", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// No key could be made.
    #[error("a key could not be made")]
    Randomness(#[source] NoRandomness),
}

#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct KeyFile {
    #[n(0)]
    version: u8,
    #[n(1)]
    purpose: KeyUse,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    seed: [u8; SEED_BYTES],
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        self.seed.zeroize();
    }
}

impl Canonical for KeyFile {
    const WHAT: &'static str = "a key file";
    const MAX_BYTES: usize = 64;
}

/// A key of the cell. Has no `Debug`; wiped when dropped.
pub(crate) struct CellKey {
    seed: Zeroizing<[u8; SEED_BYTES]>,
}

impl CellKey {
    /// For signing messages.
    pub(crate) fn secret(&self) -> Ed25519Secret {
        Ed25519Secret::from_seed(&self.seed)
    }

    /// Another secret, for the purpose that `context` names (BLAKE3, key derivation).
    pub(crate) fn derive(&self, context: &str) -> [u8; 32] {
        blake3::derive_key(context, &*self.seed)
    }

    /// For TLS libraries: PKCS #8, DER.
    pub(crate) fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let mut der = Zeroizing::new(Vec::with_capacity(PKCS8_PREFIX.len() + SEED_BYTES));
        der.extend_from_slice(&PKCS8_PREFIX);
        der.extend_from_slice(&*self.seed);
        der
    }
}

/// The keys of one cell.
pub(crate) struct CellKeyFiles {
    pub(crate) root: CellKey,
    pub(crate) acknowledgement: CellKey,
    pub(crate) tls: CellKey,
    pub(crate) log: CellKey,
}

impl CellKeyFiles {
    /// Reads all of them.
    pub(crate) fn read(directory: &Path) -> Result<Self, KeyError> {
        let read = |purpose| read(directory, purpose);
        Ok(Self {
            root: read(KeyUse::Root)?,
            acknowledgement: read(KeyUse::Acknowledgement)?,
            tls: read(KeyUse::Tls)?,
            log: read(KeyUse::Log)?,
        })
    }

    /// Makes those that are missing. Durable when this returns.
    pub(crate) fn create(directory: &Path) -> Result<Self, KeyError> {
        for purpose in [
            KeyUse::Root,
            KeyUse::Acknowledgement,
            KeyUse::Tls,
            KeyUse::Log,
        ] {
            create_missing(directory, purpose)?;
        }
        Self::read(directory)
    }
}

fn create_missing(directory: &Path, purpose: KeyUse) -> Result<(), KeyError> {
    let path = directory.join(purpose.file_name());
    let there = path.try_exists().map_err(|source| KeyError::File {
        path: path.clone(),
        source,
    })?;
    if there {
        Ok(())
    } else {
        write_new(path, purpose)
    }
}

/// Writes a new key, in place of one that may be there.
fn write_new(path: PathBuf, purpose: KeyUse) -> Result<(), KeyError> {
    let file = KeyFile {
        version: KEY_FILE_VERSION,
        purpose,
        seed: random::bytes().map_err(KeyError::Randomness)?,
    };
    let bytes = Zeroizing::new(cbor::encode(&file));
    sys::write_private_file(&path, &bytes).map_err(|source| KeyError::File { path, source })
}

/// The cell's identity alone.
pub(crate) fn read_root(directory: &Path) -> Result<CellKey, KeyError> {
    read(directory, KeyUse::Root)
}

/// Makes the log's key, if there is none. Only for a cell that never had a log.
pub(crate) fn create_log_key(directory: &Path) -> Result<(), KeyError> {
    create_missing(directory, KeyUse::Log)
}

/// Puts the log's key aside and makes a new one, for a log that begins anew as number `number`. There is
/// a key at every moment. Run again after it was cut, it goes on from where it was; run again after it was
/// complete, it changes nothing. The old key stays: it checks old checkpoints.
pub(crate) fn renew_log_key(directory: &Path, number: u32) -> Result<(), KeyError> {
    let path = directory.join(KeyUse::Log.file_name());
    let aside = directory.join(format!("log-{}.key", number - 1));
    let fault = |source| KeyError::File {
        path: path.clone(),
        source,
    };
    match std::fs::hard_link(&path, &aside) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        linked => linked.map_err(fault)?,
    }
    sys::sync_directory(directory).map_err(fault)?;
    let bytes_of = |path: &Path| std::fs::read(path).map(Zeroizing::new).map_err(fault);
    if *bytes_of(&path)? == *bytes_of(&aside)? {
        write_new(path, KeyUse::Log)?;
    }
    Ok(())
}

fn read(directory: &Path, purpose: KeyUse) -> Result<CellKey, KeyError> {
    let path = directory.join(purpose.file_name());
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(source) => return Err(KeyError::File { path, source }),
    };
    match cbor::decode::<KeyFile>(&bytes) {
        Ok(file) if file.version == KEY_FILE_VERSION && file.purpose == purpose => Ok(CellKey {
            seed: Zeroizing::new(file.seed),
        }),
        _ => Err(KeyError::Damaged { path }),
    }
}

/// Whatever is read of such a file is written the same (row A37).
#[cfg(any(test, fuzzing))]
pub(crate) fn take_noise(bytes: &[u8]) {
    if let Ok(file) = cbor::decode::<KeyFile>(bytes) {
        assert_eq!(cbor::encode(&file), bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    /// A change of the log's key that was cut anywhere is finished by the next run, and only once.
    #[test]
    fn a_cut_change_of_the_logs_key_is_finished_and_keeps_the_old_key() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        CellKeyFiles::create(place).unwrap();
        let key = |name: &str| std::fs::read(place.join(name)).unwrap();
        let old = key("log.key");
        // Cut while the new key was written: the old one is there under both names.
        let staged = place.join("log.new");
        std::fs::create_dir(&staged).unwrap();
        assert!(renew_log_key(place, 2).is_err());
        std::fs::remove_dir(&staged).unwrap();
        assert_eq!(
            (key("log.key"), key("log-1.key")),
            (old.clone(), old.clone())
        );
        CellKeyFiles::read(place).unwrap();
        renew_log_key(place, 2).unwrap();
        let new = key("log.key");
        assert_ne!(new, old);
        assert_eq!(key("log-1.key"), old);
        // Cut after everything was done.
        renew_log_key(place, 2).unwrap();
        assert_eq!((key("log.key"), key("log-1.key")), (new, old));
        CellKeyFiles::read(place).unwrap();
    }

    #[test]
    fn a_key_file_has_one_form() {
        let directory = tempfile::tempdir().unwrap();
        let made = CellKeyFiles::create(directory.path()).unwrap();
        let again = CellKeyFiles::create(directory.path()).unwrap();
        assert_eq!(
            made.root.secret().public(),
            again.root.secret().public(),
            "keys are made once"
        );
        let path = directory.path().join("root.key");
        let good: Vec<u8> = [&[0xa3, 0, 1, 1, 1, 2, 0x58, 0x20][..], &[7; 32]].concat();
        std::fs::write(&path, &good).unwrap();
        let read = CellKeyFiles::read(directory.path()).unwrap();
        assert_eq!(
            read.root.secret().public(),
            Ed25519Secret::from_seed(&[7; 32]).public()
        );
        let changed = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        let bad = [
            ("an older version", changed(2, 0)),
            ("a newer version", changed(2, 2)),
            ("the key of another use", changed(4, 2)),
            ("no such use", changed(4, 9)),
            ("cut", good[..good.len() - 1].to_vec()),
            ("longer", [&good[..], &[0]].concat()),
            ("empty", Vec::new()),
        ];
        for (what, bytes) in bad {
            std::fs::write(&path, bytes).unwrap();
            let refused = CellKeyFiles::read(directory.path());
            assert!(matches!(refused, Err(KeyError::Damaged { .. })), "{what}");
        }
    }
}
