//! The secrets of one vault, and what is derived from them.
//!
//! Steps: an epoch key is 32 random bytes that only devices of the vault and the recovery phrase
//! can unwrap. From it HKDF-SHA256 derives (1) for each sealed object a key and a commitment, with
//! the object's fresh salt ([`crate::seal`]), and (2), from the vault's *first* epoch only, the key
//! of the content ids, so that content stored before a rotation is still recognised after it.
//! Every derivation names its purpose, account, vault, epoch and format version in full.
//! Reference: RFC 5869. Threats: rows 13, 23, 26, 31.

use std::collections::BTreeMap;

use candor_wire::{AccountId, VaultId};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::secret::SecretBytes;

/// Number of a vault's first epoch. Its key also derives the key of the content ids.
pub const FIRST_EPOCH: u32 = 1;

/// Length of an epoch key, in bytes.
pub const EPOCH_KEY_BYTES: usize = 32;

/// Most epochs of one vault: each revocation makes one; bounds what a hostile list can allocate.
pub const EPOCHS_MAX: usize = 4096;

/// Most keys of runs of a write-only device that are read from one vault: hourly ones of eleven years.
pub const RUNS_MAX: usize = 100_000;

/// Separates the key of content ids from every other derived key.
const CHUNK_ID_DOMAIN: &[u8] = b"candor/vault/chunk-id";

/// Version of the derivation of content ids.
const CHUNK_ID_VERSION: u8 = 1;

/// Why keys do not make a vault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// The key of the first epoch is not among them: content ids cannot be derived.
    #[error("the key of the vault's first epoch is missing")]
    FirstEpochMissing,
    /// One epoch was given twice.
    #[error("epoch {epoch} was given twice")]
    Repeated {
        /// The epoch's number.
        epoch: u32,
    },
    /// Too many epochs.
    #[error("a vault has at most {limit} epochs")]
    TooMany {
        /// The limit that was broken.
        limit: usize,
    },
}

/// The secret of one epoch, of a vault or of the account itself. Stays at one place in memory however
/// it is moved, and is wiped there when dropped; has no `Debug`.
pub struct EpochKey(SecretBytes);

impl EpochKey {
    /// Takes the bytes as they were drawn or unwrapped.
    pub fn from_bytes(bytes: &[u8; EPOCH_KEY_BYTES]) -> Self {
        Self(SecretBytes::copy_of(bytes))
    }

    /// The secret bytes, for wrapping and derivation.
    pub fn as_bytes(&self) -> &[u8; EPOCH_KEY_BYTES] {
        self.0.as_array()
    }

    /// 32 bytes derived for a purpose and place (HKDF-SHA256; the parts of `info` are joined).
    pub fn derive(&self, info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let mut out = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, self.as_bytes())
            .expand_multi_info(info, out.as_mut())
            .expect("32 bytes are within what HKDF-SHA256 can expand");
        out
    }
}

/// All secrets of one vault that this device holds.
pub struct VaultKeys {
    account: AccountId,
    vault: VaultId,
    current: u32,
    epochs: BTreeMap<u32, EpochKey>,
    chunk_id_key: SecretBytes,
}

impl VaultKeys {
    /// Puts together the keys of all epochs, from [`FIRST_EPOCH`] on. The highest number is the
    /// epoch under which everything new is sealed.
    pub fn new(
        account: AccountId,
        vault: VaultId,
        epochs: impl IntoIterator<Item = (u32, EpochKey)>,
    ) -> Result<Self, KeysError> {
        let mut known = BTreeMap::new();
        for (epoch, key) in epochs {
            if known.insert(epoch, key).is_some() {
                return Err(KeysError::Repeated { epoch });
            }
            if known.len() > EPOCHS_MAX {
                return Err(KeysError::TooMany { limit: EPOCHS_MAX });
            }
        }
        let first = known
            .get(&FIRST_EPOCH)
            .ok_or(KeysError::FirstEpochMissing)?;
        let chunk_id_key = derive_chunk_id_key(account, vault, first);
        let current = known.keys().next_back().copied().unwrap_or(FIRST_EPOCH);
        Ok(Self {
            account,
            vault,
            current,
            epochs: known,
            chunk_id_key,
        })
    }

    /// The secrets of a write-only device's vault: keys of runs in the place of epochs, numbered like them, and the
    /// key of the content ids, which is the device's own. A number that was given before keeps its first key.
    pub fn of_runs(
        account: AccountId,
        vault: VaultId,
        runs: impl IntoIterator<Item = (u32, EpochKey)>,
        chunk_id_key: &[u8; 32],
    ) -> Result<Self, KeysError> {
        let mut known = BTreeMap::new();
        for (number, key) in runs {
            known.entry(number).or_insert(key);
            if known.len() > RUNS_MAX {
                return Err(KeysError::TooMany { limit: RUNS_MAX });
            }
        }
        let newest = known.keys().next_back().copied();
        Ok(Self {
            account,
            vault,
            current: newest.ok_or(KeysError::FirstEpochMissing)?,
            epochs: known,
            chunk_id_key: SecretBytes::copy_of(chunk_id_key),
        })
    }

    /// The account that the vault belongs to.
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// The vault.
    pub fn vault(&self) -> VaultId {
        self.vault
    }

    /// The epoch under which new objects are sealed.
    pub fn current_epoch(&self) -> u32 {
        self.current
    }

    /// The secret of an epoch, when this device holds it.
    pub fn epoch(&self, epoch: u32) -> Option<&EpochKey> {
        self.epochs.get(&epoch)
    }

    /// The key of content ids.
    pub(crate) fn chunk_id_key(&self) -> &[u8; 32] {
        self.chunk_id_key.as_array()
    }
}

fn derive_chunk_id_key(account: AccountId, vault: VaultId, first: &EpochKey) -> SecretBytes {
    SecretBytes::copy_of(&first.derive(&[
        CHUNK_ID_DOMAIN,
        account.as_bytes(),
        vault.as_bytes(),
        &FIRST_EPOCH.to_be_bytes(),
        &[CHUNK_ID_VERSION],
    ]))
}
