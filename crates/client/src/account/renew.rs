//! Renewing epochs: new keys for the account or a vault, wrapped to the devices that belong to it now.

use candor_wire::chain::AccountView;
use candor_wire::epoch::EpochRecord;
use candor_wire::limits::BODY_MAX_BYTES;
use candor_wire::statement::Body;
use candor_wire::{VaultId, cbor};

use super::append::{Tried, try_append};
use super::opening::open_all;
use super::{APPEND_TRIES_MAX, AccountError, Surroundings};
use crate::api::Api;
use crate::chain::Chain;
use crate::epochs::{self, AgreementSecret, EpochError, Recipients};
use crate::keystore::KeyStore;
use crate::memory::Memory;

/// The next epochs of all scopes that `which` picks and whose newest keys this device holds, wrapped to `recipients`.
pub(crate) fn renewals(
    view: &AccountView,
    keys: &KeyStore,
    recipients: &Recipients,
    which: impl Fn(Option<VaultId>, &EpochRecord) -> bool,
    surroundings: Surroundings<'_>,
) -> Result<Vec<EpochRecord>, AccountError> {
    let mut renewals = Vec::new();
    for scope in std::iter::once(None).chain(view.vaults().map(Some)) {
        let Some(record) = view.epoch(scope).filter(|record| which(scope, record)) else {
            continue;
        };
        // Whoever is no member of a vault cannot renew its keys, and is kept by that from nothing else.
        let held = keys.keys(scope);
        let Some(held) = held.filter(|held| held.newest() == record.epoch) else {
            continue;
        };
        match epochs::rotate(view.account(), held, recipients, surroundings.entropy) {
            Ok((record, _)) => renewals.push(record),
            Err(EpochError::TooMany) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(renewals)
}

/// What the epochs of one append may weigh: a quarter of what a cell takes, since the signatures of an epoch weigh as
/// much again.
const BATCH_MAX_BYTES: usize = BODY_MAX_BYTES / 4;

/// Takes renewals off the front until the batch is full.
pub(crate) fn next_batch(renewals: &mut Vec<EpochRecord>) -> Vec<Body> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while let Some(next) = renewals.first() {
        bytes += cbor::encode(next).len();
        if bytes > BATCH_MAX_BYTES && !batch.is_empty() {
            break;
        }
        batch.push(Body::Epoch(Box::new(renewals.remove(0))));
    }
    batch
}

/// Renews every epoch that is not wrapped to this device, whose keys the recovery key opens.
pub(super) async fn join_epochs(
    api: &Api,
    chain: &mut Chain,
    keys: &mut KeyStore,
    memory: &Memory,
    recovery: &AgreementSecret,
    surroundings: Surroundings<'_>,
) -> Result<(), AccountError> {
    let device = Some(keys.device());
    let mut lost = 0;
    while lost < APPEND_TRIES_MAX {
        // Somebody else may have renewed some meanwhile.
        open_all(chain, keys, recovery)?;
        let recipients = Recipients::of(chain.view());
        let is_other = |_, record: &EpochRecord| record.wrap_for(device).is_none();
        let mut renewals = renewals(chain.view(), keys, &recipients, is_other, surroundings)?;
        // Many vaults take several appends. What this device stated, the recovery key opens in the next round.
        let bodies = next_batch(&mut renewals);
        if bodies.is_empty() {
            return Ok(());
        }
        if try_append(api, chain, memory, keys, bodies, surroundings).await? == Tried::Lost {
            lost += 1;
        }
    }
    Err(AccountError::Contended)
}
