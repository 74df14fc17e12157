//! Opening an account, getting one back with the phrase, keeping its chain current, and stating
//! something on it.
//!
//! 1. *Create*: this device makes the first three statements — genesis and its own enrolment, signed
//!    by the root key out of the phrase, and the account's first key epoch, signed by itself — and
//!    sends them with the one-time right. The root key is needed for a moment and kept nowhere.
//! 2. *Recover*: the root key finds the account; the chain is checked from its first entry, whose root
//!    and recovery keys must be the phrase's; all keys are opened with the recovery key; this device
//!    is enrolled, signed by the root, and every key epoch is renewed so that it is a member.
//! 3. *Sync*: new records are checked one by one, then against the rollback memory, which is written
//!    before anything rests on them.
//! 4. *Append*: by compare-and-swap. Whoever loses reads what came first and signs the same drafts
//!    again for their new place; nobody is asked again.
//!
//! Statements that reached the cell while its answer was lost are recognised by their commitments
//! when the chain is read again, and are not stated twice.

mod append;
mod joining;
mod labels;
mod opening;
mod pins;
mod renew;
mod writer;

use std::sync::Arc;

use candor_consent::{Errand, errand};
use candor_vault::entropy::EntropyError;
use candor_vault::secret::scrub_stack;
use candor_vault::{Entropy, EpochKey};
use candor_wire::api::{API_VERSION, OpenAccount};
use candor_wire::cell::InvitationRight;
use candor_wire::chain::{ChainError, DeviceEntry, Record};
use candor_wire::errand::{ERRAND_VERSION, ErrandToken, Purpose, SignedErrand};
use candor_wire::head::HeadError;
use candor_wire::ids::{Label, RequestNonce, Salt};
use candor_wire::limits::{BODY_MAX_BYTES, DEVICES_MAX, ERRAND_MAX_MS};
use candor_wire::sign::{Ed25519Public, SecretKey};
use candor_wire::statement::{Body, DeviceAdded, Draft, Genesis, Role, genesis_link};
use candor_wire::{AccountId, CellId, DeviceId, Millis, StatementId};

pub use self::append::append;
pub(crate) use self::append::{Tried, sign_next, try_append};
use self::append::{append_as, try_append_as};
pub(crate) use self::joining::{Linked, join, random_of};
pub use self::labels::label;
use self::labels::label_of;
pub use self::opening::open_keys;
use self::opening::{open_all, open_newest};
pub(crate) use self::pins::{pins, revocation};
use self::renew::join_epochs;
pub(crate) use self::renew::{next_batch, renewals};
pub use self::writer::WRITER_VAULTS;
use self::writer::give_vaults;
pub(crate) use self::writer::{Given, draw_vaults};
use crate::api::{Api, ApiError, CheckedCell};
pub use crate::chain::Chain;
use crate::chain::{LoadError, acknowledge};
use crate::clock::Clock;
use crate::egress::Egress;
use crate::epochs::{self, EpochError, Recipients, ScopeKeys};
use crate::keystore::{KeyStore, KeyStoreError, WriterKeys};
use crate::memory::{Memory, MemoryError};
use crate::phrase::RecoveryPhrase;
use crate::seal_small;

/// How often a lost compare-and-swap is tried again. Two devices that state something in the same
/// second lose once; ten times mean that something else is wrong.
pub const APPEND_TRIES_MAX: u32 = 10;

/// What a head weighs at most in a revocation, in bytes, and what the signatures of a statement do, rounded up.
const PIN_MAX_BYTES: usize = 80;
const STATEMENT_SIGNATURES_BYTES: usize = 4096;

const INFO_NAME: &[u8] = b"candor/account/device-name/1";

/// Why something about the account did not happen.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The cell was not reached, or refused, or its answer was refused.
    #[error("the cell did not do what was asked")]
    Api(#[source] ApiError),
    /// The chain does not verify.
    #[error("the account's chain does not verify")]
    Chain(#[source] ChainError),
    /// The chain or the cell's keys on this device do not verify.
    #[error("the account's chain does not verify")]
    Load(#[source] LoadError),
    /// Something is older than what this device saw before, or the memory cannot be used.
    #[error("the rollback memory refused")]
    Memory(#[source] MemoryError),
    /// A head that the cell shows does not verify.
    #[error("a vault's head does not verify")]
    Head(#[source] HeadError),
    /// A key epoch cannot be made or opened.
    #[error("a key of the account cannot be opened")]
    Epoch(#[source] EpochError),
    /// The key store cannot be written.
    #[error("the key store cannot be written")]
    KeyStore(#[source] KeyStoreError),
    /// The cell knows no account of this phrase.
    #[error("the cell knows no account with this recovery phrase")]
    NotFound,
    /// The cell showed an account that begins with other keys than the phrase's.
    #[error("the account that the cell showed does not belong to this recovery phrase")]
    OtherRoot,
    /// The cell showed a chain that begins with another statement than the account's.
    #[error("the chain that the cell showed is not this account's")]
    OtherGenesis,
    /// This device is not on the account's chain.
    #[error("this device is not on the account's chain")]
    NotEnrolled,
    /// The code was used already, or somebody else is using it.
    #[error("the code was used by another device already")]
    LinkUsed,
    /// The code is no longer good.
    #[error("the code is over: it is good for ten minutes, and once")]
    LinkOver,
    /// The person at the other device said no.
    #[error("the other device did not take this one in")]
    LinkDeclined,
    /// What is at the link is not what the other device left there.
    #[error("what the other device sent was altered on its way")]
    LinkAltered,
    /// The cell showed a chain that does not go through the place that the code names.
    #[error("the chain that the cell showed is not the one that the other device knows")]
    OtherChain,
    /// The person stopped it.
    #[error("it was stopped")]
    Cancelled,
    /// Others kept stating things first.
    #[error("the account's chain kept changing")]
    Contended,
    /// This device's clock or its errand cannot be used.
    #[error("an errand could not be made")]
    Errand,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Entropy,
}

macro_rules! wraps {
    ($($source:ty => $variant:ident),* $(,)?) => {$(
        impl From<$source> for AccountError {
            fn from(source: $source) -> Self {
                Self::$variant(source)
            }
        }
    )*};
}

wraps!(
    ApiError => Api, ChainError => Chain, LoadError => Load, MemoryError => Memory,
    EpochError => Epoch, KeyStoreError => KeyStore, HeadError => Head,
);

impl From<EntropyError> for AccountError {
    fn from(_: EntropyError) -> Self {
        Self::Entropy
    }
}

impl From<crate::egress::EgressError> for AccountError {
    fn from(error: crate::egress::EgressError) -> Self {
        Self::Api(error.into())
    }
}

/// The time and the random bytes of an operation.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Dates statements and errands.
    pub clock: &'a dyn Clock,
    /// Salts, nonces and keys.
    pub entropy: &'a dyn Entropy,
}

/// For whom an errand is.
#[derive(Debug, Clone, Copy)]
pub struct ErrandFor {
    /// What for.
    pub purpose: Purpose,
    /// The account; `None` only while a recovery does not know it.
    pub account: Option<AccountId>,
    /// The device that acts; `None` for the root key.
    pub signer: Option<DeviceId>,
    /// At which cell.
    pub cell: CellId,
}

/// Signs an errand with `key`: the person just asked for this one thing.
pub fn sign_errand(
    what: ErrandFor,
    key: &SecretKey,
    surroundings: Surroundings<'_>,
) -> Result<Errand, AccountError> {
    let now = surroundings.clock.now();
    let mut nonce = [0; RequestNonce::BYTES];
    surroundings.entropy.fill(&mut nonce)?;
    let token = ErrandToken {
        version: ERRAND_VERSION,
        account: what.account,
        signer: what.signer,
        purpose: what.purpose,
        cell: what.cell,
        created: now,
        expires: now.plus_ms(ERRAND_MAX_MS),
        nonce: RequestNonce::from_bytes(nonce),
    };
    let signed = SignedErrand::sign(&token, key.ed25519());
    errand(signed, &key.ed25519().public(), &what.cell, now).map_err(|_| AccountError::Errand)
}

/// The API under an errand of this device.
pub fn device_errand(
    egress: &Egress,
    keys: &KeyStore,
    purpose: Purpose,
    surroundings: Surroundings<'_>,
) -> Result<Api, AccountError> {
    let signing = keys.signing();
    let what = ErrandFor {
        purpose,
        account: keys.account(),
        signer: Some(keys.device()),
        cell: egress.cell(),
    };
    let errand = sign_errand(what, &signing, surroundings)?;
    Ok(Api::new(egress.open(Box::new(errand), signing)?))
}

/// Seals a device's name for the account's devices.
pub(crate) fn seal_name(
    name: &str,
    account: AccountId,
    device: DeviceId,
    first: &EpochKey,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, EntropyError> {
    // One key for each device, and a device is named once.
    let place: [&[u8]; 3] = [INFO_NAME, account.as_bytes(), device.as_bytes()];
    seal_small::seal(
        &first.derive(&place),
        &place.concat(),
        name.as_bytes(),
        entropy,
    )
}

/// Opens a device's name. `None` if it was sealed under other keys, or is no text.
pub fn open_name(
    added: &DeviceAdded,
    account: AccountId,
    account_keys: &ScopeKeys,
) -> Option<String> {
    let place: [&[u8]; 3] = [INFO_NAME, account.as_bytes(), added.device.as_bytes()];
    let key = account_keys.get(1)?.derive(&place);
    let name = seal_small::open(&key, &place.concat(), &added.sealed_name).ok()?;
    String::from_utf8(name).ok()
}

fn draft(
    account: AccountId,
    signer: Option<DeviceId>,
    label: Label,
    body: Body,
    surroundings: Surroundings<'_>,
) -> Result<Draft, AccountError> {
    let mut salt = [0; Salt::BYTES];
    surroundings.entropy.fill(&mut salt)?;
    let time = surroundings.clock.now();
    Ok(Draft {
        account,
        signer,
        time,
        label,
        salt: Salt::from_bytes(salt),
        body,
    })
}

fn enrolment(
    account: AccountId,
    keys: &KeyStore,
    first: &EpochKey,
    entropy: &dyn Entropy,
) -> Result<Body, AccountError> {
    let sealed_name = seal_name(keys.device_name(), account, keys.device(), first, entropy)?;
    Ok(Body::DeviceAdded(Box::new(DeviceAdded {
        device: keys.device(),
        role: keys.role(),
        signing: keys.signing().public(),
        agreement: keys.agreement().public(),
        sealed_name,
    })))
}

/// Opens an account with the one-time `right`. The key store names the account already
/// ([`crate::keystore::NewKeys::account`]) and is durable; afterwards it is enrolled and holds the
/// account's first key.
pub async fn create(
    egress: &Egress,
    right: InvitationRight,
    phrase: &RecoveryPhrase,
    keys: &mut KeyStore,
    memory: &Memory,
    surroundings: Surroundings<'_>,
) -> Result<Chain, AccountError> {
    let account = keys.account().ok_or(AccountError::NotEnrolled)?;
    let (mut records, scope) = first_records(account, egress.cell(), phrase, keys, surroundings)?;
    let api = device_errand(egress, keys, Purpose::Create, surroundings)?;
    let body = OpenAccount {
        version: API_VERSION,
        account,
        right,
        records: records.clone(),
    };
    let result: Result<Chain, AccountError> = async {
        let CheckedCell { signed, keyring } = api.describe_cell().await?;
        memory.remember_cell(keyring.current().serial)?;
        let acknowledgements = api.open_account(&body).await?;
        acknowledge(&mut records, acknowledgements);
        let chain = Chain::load(&egress.root(), account, signed, records)?;
        memory.remember_chain(chain.view())?;
        Ok(chain)
    }
    .await;
    api.close().await;
    let mut chain = result?;
    if keys.role() == Role::WriteOnly {
        let root = Arc::new(phrase.root());
        let api = root_api(egress, &root, Some(account), surroundings)?;
        let given = give_vaults(&api, &mut chain, memory, keys, &root, &scope, surroundings).await;
        api.close().await;
        given?;
    } else {
        keys.put_keys(scope);
    }
    keys.set_enrolled(account, chain.genesis());
    keys.save()?;
    Ok(chain)
}

/// Genesis, this device, the account's first epoch.
fn first_records(
    account: AccountId,
    cell: CellId,
    phrase: &RecoveryPhrase,
    keys: &KeyStore,
    surroundings: Surroundings<'_>,
) -> Result<(Vec<Record>, ScopeKeys), AccountError> {
    let root = phrase.root();
    let recovery = phrase.recovery().public();
    let members = (keys.role() == Role::Full).then(|| (keys.device(), keys.agreement().public()));
    let recipients = Recipients::new(recovery, members);
    let (epoch, scope) = epochs::begin(account, None, &recipients, surroundings.entropy)?;
    let first = scope
        .get(1)
        .ok_or(AccountError::Epoch(EpochError::Rejected))?;
    let genesis = Genesis {
        root: root.public(),
        recovery,
        cell,
    };
    let device = Some(keys.device());
    let signing = keys.signing();
    // A write-only device states no epoch, and holds no key of one.
    let (states, with) = match keys.role() {
        Role::Full => (device, signing.as_ref()),
        Role::WriteOnly => (None, &root),
    };
    let bodies = [
        (None, &root, Body::Genesis(Box::new(genesis))),
        (
            None,
            &root,
            enrolment(account, keys, first, surroundings.entropy)?,
        ),
        (states, with, Body::Epoch(Box::new(epoch))),
    ];
    let mut records = Vec::with_capacity(bodies.len());
    let mut tip = genesis_link();
    for (sequence, (signer, key, body)) in (0..).zip(bodies) {
        // Each kind occurs once: all of them are number 0.
        let label = label_of(first, body.kind(), 0);
        let draft = draft(account, signer, label, body, surroundings)?;
        let (statement, link) = draft.sign(sequence, tip, key);
        records.push(Record::of(statement).expect("a statement that was just made can be read"));
        tip = link;
    }
    Ok((records, scope))
}

/// What a device that joins knows of the account.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// Its recovery phrase.
    pub phrase: &'a RecoveryPhrase,
    /// The first statement of its chain, if the device belonged to it before.
    pub genesis: Option<StatementId>,
    /// Whether every other device is revoked before this one is enrolled.
    pub revoke_others: bool,
}

/// An API under an errand of the root key.
fn root_api(
    egress: &Egress,
    root: &Arc<SecretKey>,
    account: Option<AccountId>,
    surroundings: Surroundings<'_>,
) -> Result<Api, AccountError> {
    let what = ErrandFor {
        purpose: Purpose::Recover,
        account,
        signer: None,
        cell: egress.cell(),
    };
    let errand = sign_errand(what, root, surroundings)?;
    Ok(Api::new(egress.open(Box::new(errand), Arc::clone(root))?))
}

/// The account of a root key (errand: recover).
pub async fn find(
    egress: &Egress,
    root: &Arc<SecretKey>,
    surroundings: Surroundings<'_>,
) -> Result<AccountId, AccountError> {
    let finder = root_api(egress, root, None, surroundings)?;
    let found = finder.find_account(&root.public()).await;
    finder.close().await;
    found?.ok_or(AccountError::NotFound)
}

/// Finds the account of the phrase, checks its chain, enrols this device and opens all keys.
pub async fn recover(
    egress: &Egress,
    known: Known<'_>,
    keys: &mut KeyStore,
    memory: &Memory,
    surroundings: Surroundings<'_>,
) -> Result<Chain, AccountError> {
    let root = Arc::new(known.phrase.root());
    let account = find(egress, &root, surroundings).await?;
    let api = root_api(egress, &root, Some(account), surroundings)?;
    let result = recover_with(
        &api,
        egress,
        account,
        known,
        &root,
        keys,
        memory,
        surroundings,
    )
    .await;
    api.close().await;
    let mut chain = result?;
    if keys.role() == Role::WriteOnly {
        keys.save()?;
        return Ok(chain);
    }
    // From here on this device speaks for itself: it makes itself a member of every epoch.
    let api = device_errand(egress, keys, Purpose::Consent, surroundings)?;
    let recovery = known.phrase.recovery();
    // Nothing may be opened with it, and then nobody else would overwrite what it was made of.
    scrub_stack();
    let joined = join_epochs(&api, &mut chain, keys, memory, &recovery, surroundings).await;
    api.close().await;
    joined?;
    keys.save()?;
    Ok(chain)
}

#[expect(
    clippy::too_many_arguments,
    reason = "one step of `recover`, split off to close its connection"
)]
async fn recover_with(
    api: &Api,
    egress: &Egress,
    account: AccountId,
    known: Known<'_>,
    root: &SecretKey,
    keys: &mut KeyStore,
    memory: &Memory,
    surroundings: Surroundings<'_>,
) -> Result<Chain, AccountError> {
    let CheckedCell { signed, keyring } = api.describe_cell().await?;
    memory.remember_cell(keyring.current().serial)?;
    let (records, is_all) = api.read_chain(account, 0).await?;
    let mut chain = Chain::load(&egress.root(), account, signed, records)?;
    if known
        .genesis
        .is_some_and(|genesis| genesis != chain.genesis())
    {
        return Err(AccountError::OtherGenesis);
    }
    let recovery = known.phrase.recovery();
    let genesis = chain.view().genesis();
    if genesis.root != root.public() || genesis.recovery != recovery.public() {
        return Err(AccountError::OtherRoot);
    }
    if !is_all {
        read_on(api, &mut chain, memory).await?;
    }
    memory.remember_chain(chain.view())?;
    let is_full = keys.role() == Role::Full;
    if is_full {
        open_all(&chain, keys, &recovery)?;
    }
    let account_keys = open_newest(&chain, None, &recovery)?;
    let first = account_keys
        .get(1)
        .ok_or(AccountError::Epoch(EpochError::Rejected))?;
    let enrolment = enrolment(account, keys, first, surroundings.entropy)?;
    if !is_full {
        // The watch keys first: what is stated needs its label.
        keys.set_writer(WriterKeys::new(labels::watch_keys(first), Vec::new()));
    }
    for _ in 0..APPEND_TRIES_MAX + DEVICES_MAX as u32 {
        // Others first, and alone: for that there is always a place on the chain, and for this device then, too.
        let mut bodies = others_revoked(api, &chain, keys, known).await?;
        if bodies.is_empty() && chain.view().device(&keys.device()).is_none() {
            bodies.push(enrolment.clone());
        }
        if bodies.is_empty() {
            break;
        }
        let signer = (None, root);
        try_append_as(api, &mut chain, memory, keys, signer, bodies, surroundings).await?;
    }
    if chain.view().device(&keys.device()).is_none() {
        return Err(AccountError::Contended);
    }
    if !is_full {
        give_vaults(
            api,
            &mut chain,
            memory,
            keys,
            root,
            &account_keys,
            surroundings,
        )
        .await?;
    }
    keys.set_enrolled(account, chain.genesis());
    keys.save()?;
    Ok(chain)
}

/// Revocations of all other devices, if the person wants that.
async fn others_revoked(
    api: &Api,
    chain: &Chain,
    keys: &KeyStore,
    known: Known<'_>,
) -> Result<Vec<Body>, AccountError> {
    let is_other = |entry: &&DeviceEntry| entry.is_live() && entry.added.device != keys.device();
    let others = chain.view().devices().filter(is_other);
    let others: Vec<DeviceId> = others.map(|entry| entry.added.device).collect();
    if !known.revoke_others || others.is_empty() {
        return Ok(Vec::new());
    }
    let heads = pins(api, chain.view()).await?;
    // As many as fit into one append; the next try takes the others.
    let weight = (heads.len() + 1) * PIN_MAX_BYTES + STATEMENT_SIGNATURES_BYTES;
    let fitting = (BODY_MAX_BYTES / 2 / weight).max(1);
    let revoked = others.into_iter().take(fitting);
    Ok(revoked
        .map(|device| revocation(device, heads.clone()))
        .collect())
}

/// The whole chain, for a device that knows its account and nothing of its chain.
pub async fn fetch(
    api: &Api,
    root: &Ed25519Public,
    account: AccountId,
    genesis: Option<StatementId>,
    memory: &Memory,
) -> Result<Chain, AccountError> {
    let CheckedCell { signed, keyring } = api.describe_cell().await?;
    memory.remember_cell(keyring.current().serial)?;
    let (records, is_all) = api.read_chain(account, 0).await?;
    let mut chain = Chain::load(root, account, signed, records)?;
    if genesis.is_some_and(|genesis| genesis != chain.genesis()) {
        return Err(AccountError::OtherGenesis);
    }
    if !is_all {
        read_on(api, &mut chain, memory).await?;
    }
    memory.remember_chain(chain.view())?;
    Ok(chain)
}

/// Brings the chain up to date: the cell's keys, then new records, each checked; then the rollback
/// memory. On an error the chain is as it was.
pub async fn sync(api: &Api, chain: &mut Chain, memory: &Memory) -> Result<(), AccountError> {
    let CheckedCell { signed, keyring } = api.describe_cell().await?;
    memory.remember_cell(keyring.current().serial)?;
    let mut newer = chain.clone();
    newer.set_cell_keys(signed, keyring);
    read_on(api, &mut newer, memory).await?;
    *chain = newer;
    Ok(())
}

/// Reads what follows, page by page: a cell that sends what nobody signed is refused at the first.
async fn read_on(api: &Api, chain: &mut Chain, memory: &Memory) -> Result<(), AccountError> {
    loop {
        let next = chain.view().next_sequence();
        let (records, is_all) = api.read_chain(chain.account(), next).await?;
        chain.extend(records)?;
        if is_all {
            break;
        }
    }
    memory.remember_chain(chain.view())?;
    Ok(())
}

/// Lets go of the keys of epochs that a restored cell lost, so that another device may begin epochs of
/// these numbers. What was sealed under them was lost with them. A scope of which the chain has nothing
/// keeps its key: it is announced again. Returns whether there were any; the caller saves the key store
/// then.
pub fn let_go_of_lost_epochs(chain: &Chain, keys: &mut KeyStore) -> bool {
    let mut is_changed = false;
    for scope in std::iter::once(None).chain(chain.view().vaults().map(Some)) {
        let (Some(record), Some(held)) = (chain.view().epoch(scope), keys.keys(scope)) else {
            continue;
        };
        let is_own = epochs::is_announced(chain.account(), record, held);
        let newest = record.epoch - u32::from(!is_own);
        is_changed |= keys.let_go_after(scope, newest);
    }
    is_changed
}

/// A random account id, for [`crate::keystore::NewKeys::account`].
pub fn new_account_id(entropy: &dyn Entropy) -> Result<AccountId, EntropyError> {
    let mut id = [0; AccountId::BYTES];
    entropy.fill(&mut id)?;
    Ok(AccountId::from_bytes(id))
}

/// The time until which an errand that is signed now holds.
pub const fn errand_ends(now: Millis) -> Millis {
    now.plus_ms(ERRAND_MAX_MS)
}

#[cfg(test)]
mod tests;
