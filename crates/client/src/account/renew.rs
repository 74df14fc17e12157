//! Renewing epochs: new keys for the account or a vault, wrapped to the devices that belong to it now.

use candor_wire::VaultId;
use candor_wire::chain::AccountView;
use candor_wire::epoch::EpochRecord;
use candor_wire::statement::Body;

use super::append::append;
use super::{AccountError, Surroundings};
use crate::api::Api;
use crate::chain::Chain;
use crate::epochs::{self, EpochError, Recipients, ScopeKeys};
use crate::keystore::KeyStore;
use crate::memory::Memory;

/// A scope's next epoch, before it is stated.
pub(crate) struct Renewal {
    /// What is stated.
    pub(crate) record: EpochRecord,
    /// What the key store holds once it is.
    pub(crate) keys: ScopeKeys,
}

/// The next epochs of all scopes that `which` picks, wrapped to `recipients`.
pub(crate) fn renewals(
    view: &AccountView,
    keys: &KeyStore,
    recipients: &Recipients,
    which: impl Fn(Option<VaultId>, &EpochRecord) -> bool,
    surroundings: Surroundings<'_>,
) -> Result<Vec<Renewal>, AccountError> {
    let mut renewals = Vec::new();
    for scope in std::iter::once(None).chain(view.vaults().map(Some)) {
        let Some(record) = view.epoch(scope).filter(|record| which(scope, record)) else {
            continue;
        };
        let held = keys
            .keys(scope)
            .filter(|held| held.newest() == record.epoch)
            .ok_or(AccountError::Epoch(EpochError::NotRecipient))?;
        let (record, keys) =
            epochs::rotate(view.account(), held, recipients, surroundings.entropy)?;
        renewals.push(Renewal { record, keys });
    }
    Ok(renewals)
}

/// Renews every epoch that is not wrapped to this device.
pub(super) async fn join_epochs(
    api: &Api,
    chain: &mut Chain,
    keys: &mut KeyStore,
    memory: &Memory,
    surroundings: Surroundings<'_>,
) -> Result<(), AccountError> {
    let device = Some(keys.device());
    let recipients = Recipients::of(chain.view());
    let is_other = |_, record: &EpochRecord| record.wrap_for(device).is_none();
    let renewals = renewals(chain.view(), keys, &recipients, is_other, surroundings)?;
    if renewals.is_empty() {
        return Ok(());
    }
    let (bodies, renewed): (Vec<Body>, Vec<ScopeKeys>) = renewals
        .into_iter()
        .map(|one| (Body::Epoch(Box::new(one.record)), one.keys))
        .unzip();
    append(api, chain, memory, keys, bodies, surroundings).await?;
    renewed.into_iter().for_each(|scope| keys.put_keys(scope));
    Ok(())
}
