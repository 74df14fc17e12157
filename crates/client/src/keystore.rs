//! The key store: every secret of this device in one small file, sealed with a passphrase.
//!
//! 1. The content is canonical CBOR. It is sealed with AES-256-GCM under a key that Argon2id
//!    (RFC 9106) makes of the passphrase and a salt. Salt and nonce are fresh at every write, so no
//!    pair of key and nonce ever repeats.
//! 2. The header (version, kind of protection, Argon2 parameters) is authenticated with it.
//!    Parameters below the floor that is compiled in are refused before the passphrase is touched:
//!    whoever can write the file must not get a cheap guess by asking for less work. A ceiling keeps
//!    a damaged file from asking for all memory of the machine.
//! 3. A short hash at the end tells a damaged file from a wrong passphrase. It protects nothing.
//! 4. Without a passphrase the content stands in the file as it is. That is another kind of file, not
//!    a passphrase that is empty, and `status` says so.
//! 5. Every write replaces the whole file, durably; see `durable.rs`.
//!
//! The file is private to its owner (0600). Format: `docs/formats/keystore.md`. Threats: rows 22, 51.

mod content;
mod format;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candor_vault::Entropy;
use candor_vault::entropy::EntropyError;
use candor_wire::cell::Invitation;
use candor_wire::limits::NAME_MAX_BYTES;
use candor_wire::sign::{SecretKey, SigningSeeds};
use candor_wire::statement::{Kind, Role};
use candor_wire::{AccountId, DeviceId, StatementId, VaultId};
use zeroize::Zeroizing;

use crate::durable;
use crate::epochs::{AgreementSecret, ScopeKeys};
use candor_vault::secret::{SecretBytes, scrub_stack};

pub use format::{
    ARGON2_LANES, ARGON2_MEMORY_MAX_KIB, ARGON2_MEMORY_MIN_KIB, ARGON2_PASSES_MAX,
    ARGON2_PASSES_MIN, KEY_STORE_VERSION, SALT_BYTES,
};

/// Largest key store, in bytes: 1,024 vaults with a few epochs each fit many times.
pub const KEY_STORE_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// How a key store is protected.
pub enum KeyProtection {
    /// Sealed with this passphrase.
    Passphrase(Zeroizing<String>),
    /// Not sealed: whoever reads the file has the keys. Only when the person said so in so many words.
    Unprotected,
}

/// What stands in the place of a key store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Nothing.
    Missing,
    /// A key store that needs its passphrase.
    Passphrase,
    /// A key store that opens by itself.
    Unprotected,
}

/// Why a key store cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// There is none.
    #[error("there is no key store on this device")]
    Missing,
    /// There is one already; it is never replaced by a new one.
    #[error("there is a key store on this device already")]
    Exists,
    /// The file is not whole.
    #[error("the key store is damaged")]
    Damaged,
    /// The passphrase is not the one it was sealed with.
    #[error("the passphrase does not open the key store")]
    WrongPassphrase,
    /// It is sealed and no passphrase was given.
    #[error("the key store needs its passphrase")]
    NeedsPassphrase,
    /// An empty passphrase protects nothing.
    #[error("an empty passphrase protects nothing")]
    EmptyPassphrase,
    /// Its version is not one that this build accepts.
    #[error("version {version} of the key store is not accepted")]
    Version {
        /// The version found.
        version: u8,
    },
    /// It asks for less work to guess the passphrase than this build accepts, or for absurdly much.
    #[error("the key store's passphrase hashing is outside of what is accepted")]
    Parameters,
    /// There are more keys than a key store holds. The file is as it was.
    #[error("a key store has at most {KEY_STORE_MAX_BYTES} bytes")]
    TooLong,
    /// A name is empty or longer than allowed.
    #[error("a name has 1 to {NAME_MAX_BYTES} bytes")]
    Name,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Entropy,
    /// The file cannot be read or written.
    #[error("the key store cannot be read or written")]
    Storage(#[source] io::Error),
}

impl From<EntropyError> for KeyStoreError {
    fn from(_: EntropyError) -> Self {
        Self::Entropy
    }
}

/// Seals the lines of the ledger. Has no `Debug`; wiped when dropped.
pub struct LedgerKey(SecretBytes);

impl LedgerKey {
    /// Takes the bytes as they are.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(SecretBytes::copy_of(bytes))
    }

    /// The secret bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_array()
    }
}

/// What a new key store begins with; the secrets are drawn.
pub struct NewKeys {
    /// The account, if this device opens it; `None` while a recovery has to find it.
    pub account: Option<AccountId>,
    /// What the person calls the account. Known on this device alone.
    pub account_name: String,
    /// What the person calls this device.
    pub device_name: String,
    /// What this device may do.
    pub role: Role,
    /// The cell. A right in it is left out: it is spent at once.
    pub cell: Invitation,
}

/// The secrets and the identity of this device. Has no `Debug`; secrets are wiped when dropped.
///
/// Changes are in memory until [`Self::save`].
pub struct KeyStore {
    path: PathBuf,
    protection: KeyProtection,
    entropy: Arc<dyn Entropy>,
    account: Option<AccountId>,
    genesis: Option<StatementId>,
    device: DeviceId,
    account_name: String,
    device_name: String,
    role: Role,
    cell: Invitation,
    phrase_confirmed: bool,
    seeds: Box<SigningSeeds>,
    signing: Arc<SecretKey>,
    agreement: AgreementSecret,
    ledger_key: LedgerKey,
    scopes: BTreeMap<Option<VaultId>, ScopeKeys>,
    writer: Option<WriterKeys>,
}

/// What a write-only device has in the place of the account's and its vaults' keys. None of it decrypts anything.
/// Has no `Debug`; wiped when dropped.
pub struct WriterKeys {
    /// The account's watch keys by kind of statement, from kind 1 on, 32 bytes each.
    watch: Zeroizing<Vec<u8>>,
    /// Its vaults in the order in which sets take them, each with the key of its content ids.
    vaults: Vec<(VaultId, SecretBytes)>,
}

impl WriterKeys {
    /// Takes the watch keys, one after another, and the vaults.
    pub const fn new(watch: Zeroizing<Vec<u8>>, vaults: Vec<(VaultId, SecretBytes)>) -> Self {
        Self { watch, vaults }
    }

    /// The watch key of a kind.
    pub fn watch(&self, kind: Kind) -> Option<&[u8; 32]> {
        let place = usize::from(kind.code()).checked_sub(1)?;
        self.watch.as_chunks::<32>().0.get(place)
    }

    /// The device's vaults.
    pub fn vaults(&self) -> impl Iterator<Item = VaultId> + '_ {
        self.vaults.iter().map(|(vault, _)| *vault)
    }

    /// The key of the content ids in a vault.
    pub fn chunk_ids(&self, vault: &VaultId) -> Option<&[u8; 32]> {
        let mut vaults = self.vaults.iter();
        let found = vaults.find(|(known, _)| known == vault);
        found.map(|(_, key)| key.as_array())
    }
}

/// Tells what stands at `path`, from its header alone.
pub fn state(path: &Path) -> Result<KeyState, KeyStoreError> {
    let Some(file) = read(path)? else {
        return Ok(KeyState::Missing);
    };
    Ok(match format::header(&file)?.kdf {
        Some(_) => KeyState::Passphrase,
        None => KeyState::Unprotected,
    })
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, KeyStoreError> {
    let read = durable::read_limited(path, KEY_STORE_MAX_BYTES);
    read.map(|file| file.map(Zeroizing::new))
        .map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => KeyStoreError::Damaged,
            _ => KeyStoreError::Storage(error),
        })
}

fn check_name(name: &str) -> Result<(), KeyStoreError> {
    if (1..=NAME_MAX_BYTES).contains(&name.len()) {
        Ok(())
    } else {
        Err(KeyStoreError::Name)
    }
}

impl KeyStore {
    /// Draws the secrets of a new device and writes its key store. When this returns, the store is
    /// durable: no connection is ever opened whose ledger line could not be read later.
    pub fn create(
        path: &Path,
        new: NewKeys,
        protection: KeyProtection,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, KeyStoreError> {
        let made = Self::make(path, new, protection, entropy);
        scrub_stack();
        made
    }

    #[inline(never)]
    fn make(
        path: &Path,
        new: NewKeys,
        protection: KeyProtection,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, KeyStoreError> {
        if read(path)?.is_some() {
            return Err(KeyStoreError::Exists);
        }
        check_name(&new.account_name)?;
        check_name(&new.device_name)?;
        let mut device = [0; DeviceId::BYTES];
        entropy.fill(&mut device)?;
        let mut seeds = Box::new(SigningSeeds {
            ed25519: [0; 32],
            ml_dsa: [0; 32],
        });
        entropy.fill(&mut seeds.ed25519)?;
        entropy.fill(&mut seeds.ml_dsa)?;
        let mut agreement = Zeroizing::new([0; 32]);
        entropy.fill(agreement.as_mut())?;
        let mut ledger = Zeroizing::new([0; 32]);
        entropy.fill(ledger.as_mut())?;
        let store = Self {
            path: path.to_owned(),
            protection,
            entropy,
            account: new.account,
            genesis: None,
            device: DeviceId::from_bytes(device),
            account_name: new.account_name,
            device_name: new.device_name,
            role: new.role,
            cell: Invitation {
                right: None,
                ..new.cell
            },
            phrase_confirmed: false,
            signing: Arc::new(SecretKey::from_seeds(&seeds)),
            seeds,
            agreement: AgreementSecret::from_seed(&agreement),
            ledger_key: LedgerKey::from_bytes(&ledger),
            scopes: BTreeMap::new(),
            writer: None,
        };
        store.save()?;
        Ok(store)
    }

    /// Opens the key store. With Argon2 this takes a good part of a second and 64 MiB.
    pub fn open(
        path: &Path,
        passphrase: Option<&str>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, KeyStoreError> {
        let opened = Self::unseal(path, passphrase, entropy);
        scrub_stack();
        opened
    }

    #[inline(never)]
    fn unseal(
        path: &Path,
        passphrase: Option<&str>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, KeyStoreError> {
        let file = read(path)?.ok_or(KeyStoreError::Missing)?;
        let header = format::header(&file)?;
        let protection = match (&header.kdf, passphrase) {
            (None, _) => KeyProtection::Unprotected,
            (Some(_), None) => return Err(KeyStoreError::NeedsPassphrase),
            (Some(_), Some(text)) => KeyProtection::Passphrase(Zeroizing::new(text.to_owned())),
        };
        let plain = format::open(&header, &protection)?;
        let content = content::Content::decode(&plain)?;
        content.into_store(path, protection, entropy)
    }

    /// Seals everything anew and replaces the file, durably.
    pub fn save(&self) -> Result<(), KeyStoreError> {
        let saved = self.write();
        scrub_stack();
        saved
    }

    #[inline(never)]
    fn write(&self) -> Result<(), KeyStoreError> {
        let plain = content::Content::of(self).encode();
        let file = format::seal(&plain, &self.protection, self.entropy.as_ref())?;
        durable::replace(&self.path, &file).map_err(KeyStoreError::Storage)
    }

    /// The account, once it is known. Until [`Self::is_enrolled`] nothing says that the cell knows it.
    pub const fn account(&self) -> Option<AccountId> {
        self.account
    }

    /// Whether this device is on the account's chain.
    pub const fn is_enrolled(&self) -> bool {
        self.genesis.is_some()
    }

    /// This device.
    pub const fn device(&self) -> DeviceId {
        self.device
    }

    /// What the person calls the account.
    pub fn account_name(&self) -> &str {
        &self.account_name
    }

    /// What the person calls this device.
    pub fn device_name(&self) -> &str {
        &self.device_name
    }

    /// What this device may do.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// This device's signing key.
    pub fn signing(&self) -> Arc<SecretKey> {
        Arc::clone(&self.signing)
    }

    /// This device's X-Wing key.
    pub const fn agreement(&self) -> &AgreementSecret {
        &self.agreement
    }

    /// Seals the ledger.
    pub const fn ledger_key(&self) -> &LedgerKey {
        &self.ledger_key
    }

    /// The pinned cell: root key and addresses. Never with a right.
    pub const fn cell(&self) -> &Invitation {
        &self.cell
    }

    /// Whether the person proved that they wrote the recovery phrase down.
    pub const fn phrase_confirmed(&self) -> bool {
        self.phrase_confirmed
    }

    /// Whether a passphrase seals the file.
    pub const fn is_protected(&self) -> bool {
        matches!(self.protection, KeyProtection::Passphrase(_))
    }

    /// The keys of a vault, or of the account itself.
    pub fn keys(&self, scope: Option<VaultId>) -> Option<&ScopeKeys> {
        self.scopes.get(&scope)
    }

    /// What a write-only device has instead of keys, once it is enrolled.
    pub const fn writer(&self) -> Option<&WriterKeys> {
        self.writer.as_ref()
    }

    /// Takes what a write-only device has instead of keys.
    pub fn set_writer(&mut self, writer: WriterKeys) {
        self.writer = Some(writer);
    }

    /// Notes the account before the cell knows this device.
    pub const fn set_account(&mut self, account: AccountId) {
        self.account = Some(account);
    }

    /// Notes that this device is on the chain of `account`, which begins with `genesis`, and so
    /// pins the chain by its first statement: a cell that shows another one is refused, even by a
    /// device that lost everything but its keys.
    pub const fn set_enrolled(&mut self, account: AccountId, genesis: StatementId) {
        self.account = Some(account);
        self.genesis = Some(genesis);
    }

    /// The first statement of the account's chain, once this device is on it.
    pub const fn genesis(&self) -> Option<StatementId> {
        self.genesis
    }

    /// Keeps the keys of a scope, in place of those that were there.
    pub fn put_keys(&mut self, keys: ScopeKeys) {
        self.scopes.insert(keys.scope(), keys);
    }

    /// Lets go of the keys of a scope's epochs after that one. Says whether there were any.
    pub fn let_go_after(&mut self, scope: Option<VaultId>, newest: u32) -> bool {
        match self.scopes.get_mut(&scope) {
            Some(held) if held.newest() > newest.max(1) => {
                held.truncate(newest);
                true
            }
            _ => false,
        }
    }

    /// Notes that the phrase was typed back.
    pub const fn set_phrase_confirmed(&mut self) {
        self.phrase_confirmed = true;
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod noise;
#[cfg(test)]
mod tests;
