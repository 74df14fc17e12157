//! Key epochs on the device: drawing a key, wrapping it to devices and to the recovery key, and
//! opening what was wrapped.
//!
//! 1. [`begin`] and [`rotate`] draw 32 random bytes and wrap them with HPKE (RFC 9180, base mode;
//!    KEM X-Wing, KDF HKDF-SHA256, AEAD AES-256-GCM) to the recovery key and to every member. The
//!    `info` binds account, vault, epoch and recipient, so a wrap fits only its own place.
//! 2. The epoch's X-Wing pair is derived from its key with HKDF; the record shows the public half.
//! 3. The keys of all earlier epochs are sealed under a key derived from the new one.
//! 4. [`open`] does all of this backwards. Whatever is wrong, there is one answer,
//!    [`EpochError::Rejected`]: a cell that sends crafted wraps learns nothing from which check failed.
//!
//! The record itself is a signed statement of the chain: that is what keeps a cell from adding a
//! recipient or putting a key of its own in place. Threats: rows 1, 4, 25.

use std::collections::BTreeMap;

use candor_vault::entropy::EntropyError;
use candor_vault::runs::RunSecrets;
use candor_vault::secret::{SecretBytes, scrub_stack};
use candor_vault::{Entropy, EpochKey, KeysError, VaultKeys};
use candor_wire::chain::AccountView;
use candor_wire::epoch::{EPOCH_RECORD_VERSION, EpochRecord, Wrap, wrap_info};
use candor_wire::head::{RunKey, run_info};
use candor_wire::statement::{AGREEMENT_PUBLIC_BYTES, Role};
use candor_wire::{AccountId, DeviceId, VaultId};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};
use zeroize::Zeroizing;

use crate::seal_small;

/// Length of an epoch's key and of an X-Wing seed, in bytes.
pub const SECRET_BYTES: usize = 32;

/// Most epochs of one scope: each comes from one revocation, and their sealed keys (64 KiB) have to fit
/// into a statement of the chain beside the wraps of 64 devices (78 KiB).
pub const EPOCHS_MAX: u32 = 2048;

const EARLIER_VERSION: u8 = 1;
const INFO_EARLIER: &[u8] = b"candor/epoch/earlier/1";
const INFO_PUBLIC: &[u8] = b"candor/epoch/x-wing/1";

type PrivateKey = <XWing as hpke::Kem>::PrivateKey;
type PublicKey = <XWing as hpke::Kem>::PublicKey;
type EncappedKey = <XWing as hpke::Kem>::EncappedKey;

/// Why an epoch cannot be made or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EpochError {
    /// The record was altered, made for another place, or does not fit its own key. There is one
    /// such answer for every kind of tampering.
    #[error("the epoch's wrapped key was refused")]
    Rejected,
    /// The record is not wrapped to this recipient: this device is not a member.
    #[error("the epoch is not wrapped to this device")]
    NotRecipient,
    /// A recipient's public key is not a valid X-Wing key.
    #[error("a recipient's public key is not valid")]
    Recipient,
    /// There were too many epochs already.
    #[error("a vault has at most {EPOCHS_MAX} epochs")]
    TooMany,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Entropy,
}

impl From<EntropyError> for EpochError {
    fn from(_: EntropyError) -> Self {
        Self::Entropy
    }
}

/// The private half of an X-Wing pair: a device's, or the recovery key. Has no `Debug`; wiped when
/// dropped.
pub struct AgreementSecret(SecretBytes);

impl AgreementSecret {
    /// Takes a seed as it is.
    pub fn from_seed(seed: &[u8; SECRET_BYTES]) -> Self {
        Self(SecretBytes::copy_of(seed))
    }

    /// The seed.
    pub fn seed(&self) -> &[u8; SECRET_BYTES] {
        self.0.as_array()
    }

    /// The public half.
    pub fn public(&self) -> [u8; AGREEMENT_PUBLIC_BYTES] {
        let mut out = [0; AGREEMENT_PUBLIC_BYTES];
        XWing::sk_to_pk(&self.private()).write_exact(&mut out);
        out
    }

    fn private(&self) -> PrivateKey {
        PrivateKey::from_bytes(self.0.as_array()).expect("an X-Wing private key is any 32 bytes")
    }
}

/// The keys of all epochs of one vault, or of the account itself, from epoch 1 to the newest.
pub struct ScopeKeys {
    scope: Option<VaultId>,
    epochs: BTreeMap<u32, EpochKey>,
}

impl ScopeKeys {
    /// Puts together the keys of epochs 1, 2, … of a scope. `None` when there are none or too many.
    pub fn new(scope: Option<VaultId>, keys: impl IntoIterator<Item = EpochKey>) -> Option<Self> {
        let epochs: BTreeMap<u32, EpochKey> = (1..=EPOCHS_MAX + 1).zip(keys).collect();
        (1..=EPOCHS_MAX as usize)
            .contains(&epochs.len())
            .then_some(Self { scope, epochs })
    }

    /// The vault; `None` for the account's own keys.
    pub const fn scope(&self) -> Option<VaultId> {
        self.scope
    }

    /// Number of the newest epoch.
    pub fn newest(&self) -> u32 {
        self.epochs.keys().next_back().copied().unwrap_or(0)
    }

    /// The key of an epoch.
    pub fn get(&self, epoch: u32) -> Option<&EpochKey> {
        self.epochs.get(&epoch)
    }

    /// All keys by number, from 1.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &EpochKey)> {
        self.epochs.iter().map(|(epoch, key)| (*epoch, key))
    }

    /// Lets go of the keys of all epochs after that one, which is not 0.
    pub fn truncate(&mut self, newest: u32) {
        self.epochs.retain(|epoch, _| *epoch <= newest.max(1));
    }

    /// The same keys as the vault's crate wants them. `None` for the account's own keys.
    pub fn vault_keys(&self, account: AccountId) -> Option<Result<VaultKeys, KeysError>> {
        let keys = self
            .iter()
            .map(|(epoch, key)| (epoch, EpochKey::from_bytes(key.as_bytes())));
        self.scope.map(|vault| VaultKeys::new(account, vault, keys))
    }
}

/// To whom an epoch is wrapped.
pub struct Recipients {
    recovery: [u8; AGREEMENT_PUBLIC_BYTES],
    devices: BTreeMap<DeviceId, [u8; AGREEMENT_PUBLIC_BYTES]>,
}

impl Recipients {
    /// The recovery key, and all full devices of a verified chain that were not revoked.
    pub fn of(view: &AccountView) -> Self {
        let full = view
            .devices()
            .filter(|entry| entry.is_live() && entry.added.role == Role::Full);
        Self::new(
            view.genesis().recovery,
            full.map(|entry| (entry.added.device, entry.added.agreement)),
        )
    }

    /// The same with one device more, which is about to be added.
    #[must_use]
    pub fn with(mut self, device: DeviceId, agreement: [u8; AGREEMENT_PUBLIC_BYTES]) -> Self {
        self.devices.insert(device, agreement);
        self
    }

    /// The recovery key and some devices.
    pub fn new(
        recovery: [u8; AGREEMENT_PUBLIC_BYTES],
        devices: impl IntoIterator<Item = (DeviceId, [u8; AGREEMENT_PUBLIC_BYTES])>,
    ) -> Self {
        Self {
            recovery,
            devices: devices.into_iter().collect(),
        }
    }

    /// In the order of a record: the recovery key, then devices by id.
    fn in_order(&self) -> impl Iterator<Item = (Option<DeviceId>, &[u8; AGREEMENT_PUBLIC_BYTES])> {
        let devices = self
            .devices
            .iter()
            .map(|(device, public)| (Some(*device), public));
        std::iter::once((None, &self.recovery)).chain(devices)
    }
}

/// Draws the key of a scope's first epoch and wraps it.
pub fn begin(
    account: AccountId,
    scope: Option<VaultId>,
    recipients: &Recipients,
    entropy: &dyn Entropy,
) -> Result<(EpochRecord, ScopeKeys), EpochError> {
    let made = next(account, scope, BTreeMap::new(), recipients, entropy);
    scrub_stack();
    made
}

/// Wraps the key of a scope's first epoch once more. It was drawn for a record whose fate is unknown:
/// whichever of the two records the chain takes, the key on this device is its key. `None` when
/// `keys` go beyond the first epoch, which the chain has then.
pub fn begin_again(
    account: AccountId,
    keys: &ScopeKeys,
    recipients: &Recipients,
    entropy: &dyn Entropy,
) -> Option<Result<EpochRecord, EpochError>> {
    let secret = keys.get(1).filter(|_| keys.newest() == 1)?;
    let none = BTreeMap::new();
    let made = record_of(account, keys.scope, (1, secret), &none, recipients, entropy);
    scrub_stack();
    Some(made)
}

/// Draws the key of the epoch after the newest, wraps it, and seals the earlier ones under it.
pub fn rotate(
    account: AccountId,
    keys: &ScopeKeys,
    recipients: &Recipients,
    entropy: &dyn Entropy,
) -> Result<(EpochRecord, ScopeKeys), EpochError> {
    let earlier = keys
        .iter()
        .map(|(epoch, key)| (epoch, EpochKey::from_bytes(key.as_bytes())))
        .collect();
    let made = next(account, keys.scope, earlier, recipients, entropy);
    scrub_stack();
    made
}

#[inline(never)]
fn next(
    account: AccountId,
    scope: Option<VaultId>,
    mut epochs: BTreeMap<u32, EpochKey>,
    recipients: &Recipients,
    entropy: &dyn Entropy,
) -> Result<(EpochRecord, ScopeKeys), EpochError> {
    let epoch = epochs.keys().next_back().copied().unwrap_or(0) + 1;
    if epoch > EPOCHS_MAX {
        return Err(EpochError::TooMany);
    }
    let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
    entropy.fill(bytes.as_mut())?;
    let secret = EpochKey::from_bytes(&bytes);
    let newest = (epoch, &secret);
    let record = record_of(account, scope, newest, &epochs, recipients, entropy)?;
    epochs.insert(epoch, secret);
    Ok((record, ScopeKeys { scope, epochs }))
}

/// The record of the epoch `newest`, which follows after `earlier`.
#[inline(never)]
fn record_of(
    account: AccountId,
    scope: Option<VaultId>,
    (epoch, secret): (u32, &EpochKey),
    earlier: &BTreeMap<u32, EpochKey>,
    recipients: &Recipients,
    entropy: &dyn Entropy,
) -> Result<EpochRecord, EpochError> {
    let mut wraps = Vec::with_capacity(recipients.devices.len() + 1);
    for (recipient, public) in recipients.in_order() {
        let info = wrap_info(&account, scope.as_ref(), epoch, recipient.as_ref());
        wraps.push(wrap(secret, recipient, public, &info, entropy)?);
    }
    Ok(EpochRecord {
        version: EPOCH_RECORD_VERSION,
        vault: scope,
        epoch,
        public: epoch_pair(&account, scope, epoch, secret).public(),
        wraps,
        earlier: seal_earlier(&account, scope, epoch, secret, earlier, entropy)?,
    })
}

/// Draws the secrets of a run of a write-only device, and seals them to the newest epoch of its vault. The device
/// keeps none of it: what it stores decrypts nothing.
pub fn begin_run(
    account: AccountId,
    epoch: &EpochRecord,
    device: DeviceId,
    number: u32,
    chunk_ids: &[u8; SECRET_BYTES],
    entropy: &dyn Entropy,
) -> Result<(RunKey, EpochKey), EpochError> {
    let made = draw_run(account, epoch, device, number, chunk_ids, entropy);
    scrub_stack();
    made
}

#[inline(never)]
fn draw_run(
    account: AccountId,
    epoch: &EpochRecord,
    device: DeviceId,
    number: u32,
    chunk_ids: &[u8; SECRET_BYTES],
    entropy: &dyn Entropy,
) -> Result<(RunKey, EpochKey), EpochError> {
    let vault = epoch.vault.ok_or(EpochError::Rejected)?;
    let mut secrets = Zeroizing::new([0; 2 * SECRET_BYTES]);
    entropy.fill(&mut secrets[..SECRET_BYTES])?;
    secrets[SECRET_BYTES..].copy_from_slice(chunk_ids);
    let info = run_info(&account, &vault, &device, epoch.epoch, number);
    let (encapsulated, sealed) = seal_to(&epoch.public, &info, secrets.as_ref(), entropy)?;
    let mut key = Zeroizing::new([0; SECRET_BYTES]);
    key.copy_from_slice(&secrets[..SECRET_BYTES]);
    let run = RunKey {
        number,
        epoch: epoch.epoch,
        encapsulated,
        sealed,
    };
    Ok((run, EpochKey::from_bytes(&key)))
}

/// Opens the secrets of a run with the keys of its vault.
pub fn open_run(
    account: AccountId,
    device: DeviceId,
    run: &RunKey,
    keys: &ScopeKeys,
) -> Result<RunSecrets, EpochError> {
    let opened = unseal_run(account, device, run, keys);
    scrub_stack();
    opened
}

#[inline(never)]
fn unseal_run(
    account: AccountId,
    device: DeviceId,
    run: &RunKey,
    keys: &ScopeKeys,
) -> Result<RunSecrets, EpochError> {
    let vault = keys.scope.ok_or(EpochError::Rejected)?;
    let secret = keys.get(run.epoch).ok_or(EpochError::Rejected)?;
    let pair = epoch_pair(&account, Some(vault), run.epoch, secret);
    let info = run_info(&account, &vault, &device, run.epoch, run.number);
    let opened = open_with(&pair, &info, &run.encapsulated, &run.sealed)?;
    let (secrets, rest) = opened.as_chunks::<SECRET_BYTES>();
    let ([key, chunk_ids], []) = (secrets, rest) else {
        return Err(EpochError::Rejected);
    };
    Ok(RunSecrets {
        number: run.number,
        key: EpochKey::from_bytes(key),
        chunk_ids: SecretBytes::copy_of(chunk_ids),
    })
}

/// Whether the key of the record's epoch among `keys` is the one that the record announces.
pub fn is_announced(account: AccountId, record: &EpochRecord, keys: &ScopeKeys) -> bool {
    let is_same = keys.scope == record.vault
        && keys.get(record.epoch).is_some_and(|secret| {
            epoch_pair(&account, record.vault, record.epoch, secret).public() == record.public
        });
    scrub_stack();
    is_same
}

/// Opens an epoch record with the key of one recipient (`None`: the recovery key) and gives the keys
/// of all epochs up to it.
pub fn open(
    account: AccountId,
    record: &EpochRecord,
    recipient: Option<DeviceId>,
    secret: &AgreementSecret,
) -> Result<ScopeKeys, EpochError> {
    let opened = open_record(account, record, recipient, secret);
    scrub_stack();
    opened
}

#[inline(never)]
fn open_record(
    account: AccountId,
    record: &EpochRecord,
    recipient: Option<DeviceId>,
    secret: &AgreementSecret,
) -> Result<ScopeKeys, EpochError> {
    let newest = open_wrap(account, record, recipient, secret)?;
    let mut keys = open_earlier(&account, record, &newest)?;
    keys.push(newest);
    ScopeKeys::new(record.vault, keys).ok_or(EpochError::Rejected)
}

/// What is known of a scope's earlier epochs, from elsewhere than the record that is opened.
pub struct Known<'a> {
    /// Keys that this device holds.
    pub held: Option<&'a ScopeKeys>,
    /// The public key of an epoch, as its own record on the chain announces it.
    pub announced: &'a dyn Fn(u32) -> Option<[u8; AGREEMENT_PUBLIC_BYTES]>,
}

/// [`open`], for a record of a chain. Whoever states an epoch also states, sealed, the keys of all earlier ones, and may
/// be a stolen device. So a key that is held stays, and any other has to be the one whose public key its own record
/// announced: else one statement could take everybody's old keys away.
pub fn open_next(
    account: AccountId,
    record: &EpochRecord,
    recipient: Option<DeviceId>,
    secret: &AgreementSecret,
    known: &Known<'_>,
) -> Result<ScopeKeys, EpochError> {
    let opened = open_next_record(account, record, recipient, secret, known);
    scrub_stack();
    opened
}

#[inline(never)]
fn open_next_record(
    account: AccountId,
    record: &EpochRecord,
    recipient: Option<DeviceId>,
    secret: &AgreementSecret,
    known: &Known<'_>,
) -> Result<ScopeKeys, EpochError> {
    let newest = open_wrap(account, record, recipient, secret)?;
    let is_announced = |epoch, key: &EpochKey| {
        let pair = epoch_pair(&account, record.vault, epoch, key);
        (known.announced)(epoch) == Some(pair.public())
    };
    let held = |epoch| {
        let key = known.held.and_then(|held| held.get(epoch))?;
        is_announced(epoch, key).then(|| EpochKey::from_bytes(key.as_bytes()))
    };
    let mut keys: Vec<EpochKey> = (1..record.epoch).map_while(held).collect();
    if keys.len() + 1 < record.epoch as usize {
        let earlier = open_earlier(&account, record, &newest)?;
        for (epoch, key) in (1..).zip(earlier).skip(keys.len()) {
            if !is_announced(epoch, &key) {
                return Err(EpochError::Rejected);
            }
            keys.push(key);
        }
    }
    keys.push(newest);
    ScopeKeys::new(record.vault, keys).ok_or(EpochError::Rejected)
}

/// The key of the record's own epoch.
fn open_wrap(
    account: AccountId,
    record: &EpochRecord,
    recipient: Option<DeviceId>,
    secret: &AgreementSecret,
) -> Result<EpochKey, EpochError> {
    if !record.is_well_formed() || record.epoch > EPOCHS_MAX {
        return Err(EpochError::Rejected);
    }
    let wrap = record.wrap_for(recipient).ok_or(EpochError::NotRecipient)?;
    let info = wrap_info(
        &account,
        record.vault.as_ref(),
        record.epoch,
        recipient.as_ref(),
    );
    let newest = unwrap(wrap, secret, &info)?;
    let pair = epoch_pair(&account, record.vault, record.epoch, &newest);
    if pair.public() != record.public {
        return Err(EpochError::Rejected);
    }
    Ok(newest)
}

fn wrap(
    secret: &EpochKey,
    recipient: Option<DeviceId>,
    public: &[u8; AGREEMENT_PUBLIC_BYTES],
    info: &[u8],
    entropy: &dyn Entropy,
) -> Result<Wrap, EpochError> {
    let (encapsulated, ciphertext) = seal_to(public, info, secret.as_bytes(), entropy)?;
    Ok(Wrap {
        recipient,
        encapsulated,
        ciphertext,
    })
}

/// Seals something small for one device.
pub(crate) fn seal_for(
    public: &[u8; AGREEMENT_PUBLIC_BYTES],
    info: &[u8],
    plain: &[u8],
    entropy: &dyn Entropy,
) -> Result<(Vec<u8>, Vec<u8>), EpochError> {
    let sealed = seal_to(public, info, plain, entropy);
    scrub_stack();
    sealed
}

/// Opens what [`seal_for`] made.
pub(crate) fn open_for(
    secret: &AgreementSecret,
    info: &[u8],
    (encapsulated, ciphertext): (&[u8], &[u8]),
) -> Result<Zeroizing<Vec<u8>>, EpochError> {
    let opened = open_with(secret, info, encapsulated, ciphertext);
    scrub_stack();
    opened
}

/// HPKE in base mode: the encapsulated key and the ciphertext.
fn seal_to(
    public: &[u8; AGREEMENT_PUBLIC_BYTES],
    info: &[u8],
    plain: &[u8],
    entropy: &dyn Entropy,
) -> Result<(Vec<u8>, Vec<u8>), EpochError> {
    let public = PublicKey::from_bytes(public).map_err(|_| EpochError::Recipient)?;
    let mut random = Random {
        entropy,
        failed: false,
    };
    let (encapsulated, ciphertext) =
        hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, XWing>(
            &OpModeS::Base,
            &public,
            info,
            plain,
            &[],
            &mut random,
        )
        .map_err(|_| EpochError::Recipient)?;
    if random.failed {
        return Err(EpochError::Entropy);
    }
    Ok((encapsulated.to_bytes().to_vec(), ciphertext))
}

fn unwrap(wrap: &Wrap, secret: &AgreementSecret, info: &[u8]) -> Result<EpochKey, EpochError> {
    let opened = open_with(secret, info, &wrap.encapsulated, &wrap.ciphertext)?;
    let bytes = opened
        .as_slice()
        .try_into()
        .map_err(|_| EpochError::Rejected)?;
    Ok(EpochKey::from_bytes(bytes))
}

fn open_with(
    secret: &AgreementSecret,
    info: &[u8],
    encapsulated: &[u8],
    ciphertext: &[u8],
) -> Result<Zeroizing<Vec<u8>>, EpochError> {
    let encapsulated = EncappedKey::from_bytes(encapsulated).map_err(|_| EpochError::Rejected)?;
    // X-Wing never fails on a wrong ciphertext: it gives another shared secret, and the AEAD refuses.
    let opened = hpke::single_shot_open::<AesGcm256, HkdfSha256, XWing>(
        &OpModeR::Base,
        &secret.private(),
        &encapsulated,
        info,
        ciphertext,
        &[],
    );
    opened.map(Zeroizing::new).map_err(|_| EpochError::Rejected)
}

/// Account, presence of a vault, vault, and epoch: 37 bytes.
fn place(account: &AccountId, scope: Option<VaultId>, epoch: u32) -> Vec<u8> {
    let mut out = account.as_bytes().to_vec();
    out.push(u8::from(scope.is_some()));
    out.extend_from_slice(scope.as_ref().map_or(&[0; 16], |vault| vault.as_bytes()));
    out.extend_from_slice(&epoch.to_be_bytes());
    out
}

fn epoch_pair(
    account: &AccountId,
    scope: Option<VaultId>,
    epoch: u32,
    secret: &EpochKey,
) -> AgreementSecret {
    AgreementSecret::from_seed(&secret.derive(&[INFO_PUBLIC, &place(account, scope, epoch)]))
}

fn seal_earlier(
    account: &AccountId,
    scope: Option<VaultId>,
    epoch: u32,
    secret: &EpochKey,
    earlier: &BTreeMap<u32, EpochKey>,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, EpochError> {
    if earlier.is_empty() {
        return Ok(Vec::new());
    }
    let mut plain = Zeroizing::new(Vec::with_capacity(1 + earlier.len() * SECRET_BYTES));
    plain.push(EARLIER_VERSION);
    for key in earlier.values() {
        plain.extend_from_slice(key.as_bytes());
    }
    let place = place(account, scope, epoch);
    // This key seals once: it belongs to this one epoch.
    let key = secret.derive(&[INFO_EARLIER, &place]);
    Ok(seal_small::seal(&key, &place, &plain, entropy)?)
}

fn open_earlier(
    account: &AccountId,
    record: &EpochRecord,
    secret: &EpochKey,
) -> Result<Vec<EpochKey>, EpochError> {
    if record.epoch == 1 {
        return Ok(Vec::new());
    }
    let place = place(account, record.vault, record.epoch);
    let key = secret.derive(&[INFO_EARLIER, &place]);
    let plain =
        seal_small::open(&key, &place, &record.earlier).map_err(|_| EpochError::Rejected)?;
    let plain = Zeroizing::new(plain);
    let (version, keys) = plain.split_first().ok_or(EpochError::Rejected)?;
    let expected = usize::try_from(record.epoch - 1).map_err(|_| EpochError::Rejected)?;
    if *version != EARLIER_VERSION || keys.len() != expected * SECRET_BYTES {
        return Err(EpochError::Rejected);
    }
    let (keys, _) = keys.as_chunks::<SECRET_BYTES>();
    Ok(keys.iter().map(EpochKey::from_bytes).collect())
}

/// Hands the device's source of random bytes to HPKE, whose trait knows no failure: a failure is
/// kept and asked for afterwards, and what was made of zeros is thrown away.
struct Random<'a> {
    entropy: &'a dyn Entropy,
    failed: bool,
}

impl rand_core::TryRng for Random<'_> {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, buffer: &mut [u8]) -> Result<(), Self::Error> {
        if self.entropy.fill(buffer).is_err() {
            buffer.fill(0);
            self.failed = true;
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for Random<'_> {}

#[cfg(test)]
mod tests;
