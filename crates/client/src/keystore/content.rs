//! The inside of the key store's file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candor_vault::{Entropy, EpochKey};
use candor_wire::cell::Invitation;
use candor_wire::sign::{SecretKey, SigningSeeds};
use candor_wire::statement::Role;
use candor_wire::{AccountId, DeviceId, StatementId, VaultId};
use zeroize::Zeroizing;

use super::format::Zeroed;
use super::{KeyProtection, KeyStore, KeyStoreError, LedgerKey, WriterKeys};
use crate::epochs::{AgreementSecret, SECRET_BYTES, ScopeKeys};
use candor_vault::secret::SecretBytes;

/// The version of the content that this build writes and the lowest that it accepts.
const CONTENT_VERSION: u8 = 1;

/// Room for everything but the keys of epochs, in bytes: ids, two names of 128 bytes, five secrets
/// and an invitation of at most 4 KiB.
const FIXED_MAX_BYTES: usize = 8 * 1024;

/// The keys of one scope, one after another.
#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct Scope {
    #[n(0)]
    vault: Option<VaultId>,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    keys: Zeroed,
}

/// Everything in the file. Wiped when dropped.
#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(super) struct Content {
    #[n(0)]
    version: u8,
    #[n(1)]
    account: Option<AccountId>,
    /// The first statement of the account's chain, once this device is on it.
    #[n(2)]
    genesis: Option<StatementId>,
    #[n(3)]
    device: DeviceId,
    #[n(4)]
    account_name: String,
    #[n(5)]
    device_name: String,
    #[n(6)]
    role: Role,
    #[n(7)]
    cell: Invitation,
    #[n(8)]
    phrase_confirmed: bool,
    /// Seeds of Ed25519 and ML-DSA-65, X-Wing seed, ledger key: 32 bytes each, in this order.
    #[n(9)]
    #[cbor(with = "minicbor::bytes")]
    secrets: Zeroed,
    #[n(10)]
    scopes: Vec<Scope>,
    /// Of a write-only device alone.
    #[n(11)]
    writer: Option<Writer>,
}

/// What a write-only device has instead of keys.
#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
struct Writer {
    /// Watch keys by kind, 32 bytes each.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    watch: Zeroed,
    /// Vaults, 16 bytes each.
    #[n(1)]
    vaults: Vec<VaultId>,
    /// The keys of their content ids in the same order, 32 bytes each.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    chunk_ids: Zeroed,
}

impl Writer {
    fn of(keys: &WriterKeys) -> Self {
        let mut chunk_ids = Zeroizing::new(Vec::with_capacity(keys.vaults.len() * SECRET_BYTES));
        for (_, key) in &keys.vaults {
            chunk_ids.extend_from_slice(key.as_array());
        }
        Self {
            watch: Zeroed(Zeroizing::new(keys.watch.to_vec())),
            vaults: keys.vaults().collect(),
            chunk_ids: Zeroed(chunk_ids),
        }
    }

    fn into_keys(self) -> Option<WriterKeys> {
        let (chunk_ids, rest) = self.chunk_ids.0.as_chunks::<SECRET_BYTES>();
        let is_whole = rest.is_empty()
            && chunk_ids.len() == self.vaults.len()
            && self.watch.0.len().is_multiple_of(SECRET_BYTES);
        let vaults = self.vaults.iter().copied().zip(chunk_ids);
        let vaults = vaults.map(|(vault, key)| (vault, SecretBytes::copy_of(key)));
        let vaults = vaults.collect();
        is_whole.then(|| WriterKeys::new(Zeroizing::new(self.watch.0.to_vec()), vaults))
    }
}

const SECRETS: usize = 4;

impl Content {
    pub(super) fn of(store: &KeyStore) -> Self {
        let mut secrets = Zeroizing::new(Vec::with_capacity(SECRETS * SECRET_BYTES));
        secrets.extend_from_slice(&store.seeds.ed25519);
        secrets.extend_from_slice(&store.seeds.ml_dsa);
        secrets.extend_from_slice(store.agreement.seed());
        secrets.extend_from_slice(store.ledger_key.as_bytes());
        let scopes = store.scopes.values().map(|scope| {
            let count = usize::try_from(scope.newest()).unwrap_or(0);
            let mut keys = Zeroizing::new(Vec::with_capacity(count * SECRET_BYTES));
            for (_, key) in scope.iter() {
                keys.extend_from_slice(key.as_bytes());
            }
            Scope {
                vault: scope.scope(),
                keys: Zeroed(keys),
            }
        });
        Self {
            version: CONTENT_VERSION,
            account: store.account,
            genesis: store.genesis,
            device: store.device,
            account_name: store.account_name.clone(),
            device_name: store.device_name.clone(),
            role: store.role,
            cell: store.cell.clone(),
            phrase_confirmed: store.phrase_confirmed,
            secrets: Zeroed(secrets),
            scopes: scopes.collect(),
            writer: store.writer.as_ref().map(Writer::of),
        }
    }

    /// Canonical bytes, in a buffer that never grows.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        const SCOPE_OVERHEAD_BYTES: usize = 32;
        let scopes = self
            .scopes
            .iter()
            .map(|scope| scope.keys.0.len() + SCOPE_OVERHEAD_BYTES);
        let writer = self.writer.as_ref().map_or(0, |writer| {
            let vaults = writer.vaults.len() * SCOPE_OVERHEAD_BYTES;
            writer.watch.0.len() + writer.chunk_ids.0.len() + vaults + SCOPE_OVERHEAD_BYTES
        });
        let capacity = FIXED_MAX_BYTES + scopes.sum::<usize>() + writer;
        let mut out = Zeroizing::new(Vec::with_capacity(capacity));
        minicbor::encode(self, &mut *out).expect("encoding into memory cannot fail");
        debug_assert!(out.len() <= capacity, "the buffer never grows");
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, KeyStoreError> {
        let mut decoder = minicbor::Decoder::new(bytes);
        let content: Self = decoder.decode().map_err(|_| KeyStoreError::Damaged)?;
        if content.version != CONTENT_VERSION {
            return Err(KeyStoreError::Version {
                version: content.version,
            });
        }
        if *content.encode() != *bytes {
            return Err(KeyStoreError::Damaged);
        }
        Ok(content)
    }

    pub(super) fn into_store(
        self,
        path: &Path,
        protection: KeyProtection,
        entropy: Arc<dyn Entropy>,
    ) -> Result<KeyStore, KeyStoreError> {
        let (secrets, rest) = self.secrets.0.as_chunks::<SECRET_BYTES>();
        let [ed25519, ml_dsa, agreement, ledger] = secrets else {
            return Err(KeyStoreError::Damaged);
        };
        if !rest.is_empty() {
            return Err(KeyStoreError::Damaged);
        }
        let mut seeds = Box::new(SigningSeeds {
            ed25519: [0; 32],
            ml_dsa: [0; 32],
        });
        seeds.ed25519.copy_from_slice(ed25519);
        seeds.ml_dsa.copy_from_slice(ml_dsa);
        let mut scopes = BTreeMap::new();
        for scope in &self.scopes {
            let (keys, rest) = scope.keys.0.as_chunks::<SECRET_BYTES>();
            let keys = ScopeKeys::new(scope.vault, keys.iter().map(EpochKey::from_bytes));
            let keys = keys
                .filter(|_| rest.is_empty())
                .ok_or(KeyStoreError::Damaged)?;
            if scopes.insert(scope.vault, keys).is_some() {
                return Err(KeyStoreError::Damaged);
            }
        }
        let writer = self.writer.map(Writer::into_keys);
        let writer = writer.map(|writer| writer.ok_or(KeyStoreError::Damaged));
        Ok(KeyStore {
            path: path.to_owned(),
            protection,
            entropy,
            account: self.account,
            genesis: self.genesis,
            device: self.device,
            signing: Arc::new(SecretKey::from_seeds(&seeds)),
            seeds,
            agreement: AgreementSecret::from_seed(agreement),
            ledger_key: LedgerKey::from_bytes(ledger),
            scopes,
            writer: writer.transpose()?,
            account_name: self.account_name,
            device_name: self.device_name,
            role: self.role,
            cell: Invitation {
                right: None,
                ..self.cell
            },
            phrase_confirmed: self.phrase_confirmed,
        })
    }
}
